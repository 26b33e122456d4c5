//! The test that holds the map in the crate's documentation: imports point downwards only.

use std::path::{Path, PathBuf};

/// Each layer and the layers it may import.
const MAY: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("spec", &["sys"]),
    ("planner", &["spec"]),
    ("images", &["sys"]),
    ("net", &["sys"]),
    ("runtime", &["sys"]),
    ("build", &["images", "net", "runtime", "sys"]),
    ("engine", &["build", "images", "net", "planner", "runtime", "spec", "sys"]),
    ("cli", &["build", "engine", "images", "net", "planner", "runtime", "spec", "sys"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn imports_point_downwards_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut upward = Vec::new();
    for (layer, may) in MAY {
        let mut files = Vec::new();
        sources(&root.join(layer), &mut files);
        assert!(!files.is_empty(), "no such layer: {layer}");
        for file in files {
            let text = fs_err::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
                for used in line.split("crate::").skip(1) {
                    let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                    if MAY.iter().any(|(name, _)| *name == used) && used != *layer && !may.contains(&used) {
                        upward.push(format!("{}:{}: {layer} imports {used}", file.display(), number + 1));
                    }
                }
            }
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn unsafe_code_lives_in_sys() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let outside = files.iter().filter(|file| !file.starts_with(root.join("sys")));
    let found: Vec<_> = outside
        .filter(|file| fs_err::read_to_string(file).unwrap().lines().any(|line| line.contains("allow(unsafe_code)")))
        .filter(|file| !file.ends_with("layers.rs"))
        .collect();
    assert!(found.is_empty(), "{found:?}");
}
