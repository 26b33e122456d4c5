//! What is between files and around them: `extends`, `include`, merging, profiles, `.env`, interpolation, names and
//! `COMPOSE_*`, as scenes in `tests/scenes`. A scene is a title (`## …`), what is typed (`$ NAME=value … -f file …`), files
//! (`--- path`), and what comes of it: values of the canonical model (`=> /json/pointer -> JSON`, or `none`), the services
//! that are left (`=> services a b`), or every error in its one-line form (`!! file:line:column: message (hint)`).
//! The meanings are docker compose's.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::discover::{ProjectFlags, discover};
use super::loader::MapLoader;
use super::*;

/// Where the scenes take place.
const HOME: &str = "/p/";

/// A scene taken apart.
#[derive(Default)]
struct Scene<'t> {
    title: &'t str,
    typed: Vec<&'t str>,
    files: Vec<(String, String)>,
    wanted: Vec<&'t str>,
}

fn scenes(text: &str) -> Vec<Scene<'_>> {
    let mut scenes: Vec<Scene<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            scenes.push(Scene { title, ..Scene::default() });
            continue;
        }
        let Some(scene) = scenes.last_mut() else { continue };
        if let Some(typed) = line.strip_prefix("$ ") {
            scene.typed.extend(typed.split(' '));
        } else if let Some(path) = line.strip_prefix("--- ") {
            scene.files.push((format!("{HOME}{path}"), String::new()));
        } else if line.starts_with("=> ") || line.starts_with("!! ") {
            scene.wanted.push(line);
        } else if let (Some((_, text)), true) = (scene.files.last_mut(), scene.wanted.is_empty()) {
            writeln!(text, "{line}").unwrap();
        }
    }
    scenes
}

fn flags(typed: &[&str]) -> ProjectFlags {
    let mut flags = ProjectFlags { cwd: HOME.into(), ..ProjectFlags::default() };
    flags.environment.insert("HOME".into(), "/home/u".into());
    let mut words = typed.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().copied().unwrap_or_default();
        match *word {
            "-f" => flags.files.push(value().into()),
            "-p" => flags.project_name = Some(value().into()),
            "--profile" => flags.profiles.push(value().into()),
            "--env-file" => flags.env_files.push(value().into()),
            "--project-directory" => flags.project_directory = Some(value().into()),
            _ => match word.split_once('=') {
                Some((name, value)) => drop(flags.environment.insert(name.into(), value.into())),
                None => flags.services.push((*word).into()),
            },
        }
    }
    flags
}

/// What came of a scene, in the words of the lines that ask for it.
fn outcome(scene: &Scene<'_>) -> Vec<String> {
    let loader =
        MapLoader::new(scene.files.iter().map(|(path, text)| (path, text.trim_end_matches('\n').to_owned() + "\n")));
    let loaded = discover(&flags(&scene.typed), &loader).and_then(|request| load(&request, &loader));
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(complaints) => {
            let errors = complaints.0.iter().filter(|complaint| complaint.severity == Severity::Error);
            return errors.map(|error| format!("!! {error}")).collect();
        }
    };
    let model = render::canonical(&loaded.project);
    let asked = scene.wanted.iter().map(|line| {
        let asked = line.trim_start_matches("=> ").split(" -> ").next().unwrap_or_default();
        if asked.starts_with("services") {
            let names: Vec<&str> = loaded.project.services.keys().map(String::as_str).collect();
            return format!("=> services {}", names.join(" "));
        }
        let value = model.pointer(asked).map_or_else(|| "none".into(), Json::to_string);
        format!("=> {asked} -> {value}")
    });
    asked.collect()
}

/// Whether two lines say the same; JSON may be written in several ways.
fn same(wanted: &str, got: &str) -> bool {
    let json = |line: &str| line.split_once(" -> ").and_then(|(_, value)| serde_json::from_str::<Json>(value).ok());
    wanted == got || json(wanted).is_some_and(|value| json(got) == Some(value))
}

#[test]
fn every_scene_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenes");
    let (mut count, mut wrong) = (0, String::new());
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs_err::read_to_string(&path).unwrap();
        for scene in scenes(&text) {
            count += 1;
            let got = outcome(&scene);
            let holds = got.len() == scene.wanted.len() && scene.wanted.iter().zip(&got).all(|(a, b)| same(a, b));
            if !holds || scene.wanted.is_empty() {
                let (name, wanted) = (path.file_name().unwrap_or_default().display(), scene.wanted.join("\n"));
                writeln!(wrong, "{name}: {}\nwanted\n{wanted}\ngot\n{}\n", scene.title, got.join("\n")).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count > 100, "only {count} scenes");
}
