//! What the targets share: a load of files in memory, held to what must be true of every load.

use std::collections::BTreeMap;

use stack::spec::discover::{ProjectFlags, discover};
use stack::spec::loader::MapLoader;
use stack::spec::{Diagnostics, Loaded, load, render};

/// Loads `files` (below `/p`) with the environment `A=a`, `E=`.
pub fn load_files<'f>(files: impl IntoIterator<Item = (&'f str, &'f [u8])>) -> Result<Loaded, Diagnostics> {
    let loader = MapLoader::new(files.into_iter().map(|(name, bytes)| (format!("/p/{name}"), bytes)));
    let environment: BTreeMap<String, String> =
        [("A", "a"), ("E", ""), ("HOME", "/home/u")].map(|(name, value)| (name.into(), value.into())).into();
    let flags = ProjectFlags { cwd: "/p".into(), environment, ..ProjectFlags::default() };
    load(&discover(&flags, &loader)?, &loader)
}

/// A stack file whose service `a` has `value` as its only `key`.
pub fn service(key: &str, value: &serde_json::Value) -> Vec<u8> {
    let file = serde_json::json!({
        "services": { "a": { "image": "x", key: value } },
        "volumes": { "data": null },
    });
    file.to_string().into_bytes()
}

/// What must be true of every load: complaints can be shown and name what is wrong; what was printed loads again, to the
/// same.
pub fn hold(loaded: Result<Loaded, Diagnostics>) {
    match loaded {
        Err(complaints) => {
            assert!(complaints.has_errors(), "refused without an error");
            let shown = complaints.render(false);
            assert!(!shown.contains('\u{1b}'), "a file paints the terminal: {shown:?}");
        }
        Ok(loaded) => {
            let printed = render::yaml(&loaded.project);
            let again = load_files([("stack.yaml", printed.as_bytes())])
                .unwrap_or_else(|refused| panic!("what was printed is refused: {refused}\n{printed}"));
            assert_eq!(render::json(&loaded.project), render::json(&again.project), "printed:\n{printed}");
        }
    }
}
