//! Whole stack files, loaded from memory.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::loader::MapLoader;
use super::*;

fn request(files: &[&str]) -> LoadRequest {
    LoadRequest {
        files: files.iter().map(|file| PathBuf::from("/p").join(file)).collect(),
        working_dir: "/p".into(),
        environment: [("HOME".to_owned(), "/home/me".to_owned()), ("TAG".to_owned(), "7".to_owned())].into(),
        ..LoadRequest::default()
    }
}

fn load_files(files: &[(&str, &str)]) -> Result<Loaded, Diagnostics> {
    let loader = MapLoader::new(files.iter().map(|(name, text)| (PathBuf::from("/p").join(name), *text)));
    load(&request(&[files[0].0]), &loader)
}

fn load_text(text: &str) -> Result<Loaded, Diagnostics> {
    load_files(&[("stack.yaml", text)])
}

fn service(text: &str) -> Json {
    let loaded = load_text(text).unwrap_or_else(|errors| panic!("{}", errors.render(false)));
    render::canonical(&loaded.project)["services"]["a"].clone()
}

/// The one-line form of the first error.
fn error(text: &str) -> String {
    load_text(text).err().map(|errors| errors.0[0].to_string()).unwrap_or_default()
}

#[test]
fn short_forms_become_long() {
    let got = service(
        "services:\n  a:\n    image: img:$TAG\n    ports: ['127.0.0.1:8080:80']\n    volumes: ['./d:/d:ro', '/anon']\n    \
         command: sh -c 'echo hi'\n    environment: [A=1, HOME]\n    tmpfs: /run\n    mem_limit: 64m\n",
    );
    assert_eq!(got["image"], "img:7");
    assert_eq!(got["ports"][0]["published"], "8080");
    assert_eq!(got["volumes"][0]["source"], "/p/d");
    assert_eq!(got["volumes"][1]["type"], "volume");
    assert_eq!(got["command"], serde_json::json!(["sh", "-c", "echo hi"]));
    assert_eq!(got["environment"], serde_json::json!({"A": "1", "HOME": "/home/me"}));
    assert_eq!(got["mem_limit"], "67108864");
    assert_eq!(got["networks"], serde_json::json!({"default": null}));
}

#[test]
fn errors_name_file_line_column_and_remedy() {
    for (text, expected) in [
        (
            "services:\n  a:\n    imagee: x\n",
            "/p/stack.yaml:3:5: unknown attribute `imagee` in services.a (did you mean `image`?)",
        ),
        (
            "services:\n  a:\n    image: x\n    ports: ['99999:80']\n",
            "/p/stack.yaml:4:13: services.a.ports[0]: port 99999 is above 65535",
        ),
        (
            "services:\n  a: {image: x, depends_on: [bb]}\n  b: {image: x}\n",
            "/p/stack.yaml:2:30: service `a`: service `bb` is not defined (did you mean `b`?)",
        ),
        (
            "services:\n  a: {image: x, user: 1000}\n",
            "/p/stack.yaml:2:23: services.a.user must be a string, not a number (quote it: \"1000\")",
        ),
        (
            "services:\n  a: {image: '${X:?set it}'}\n",
            "/p/stack.yaml:2:15: required variable X is missing a value: set it (set X in the environment or in .env)",
        ),
        (
            "services:\n  a: {image: x, volumes: ['vol:/v']}\n",
            "/p/stack.yaml:2:27: service `a`: volume `vol` is not defined (define it under the top-level `volumes`)",
        ),
        (
            "services:\n  a: {image: x, stop_grace_period: 10}\n",
            "/p/stack.yaml:2:36: services.a.stop_grace_period must be a duration such as `1m30s`, not a number; write `10s` for seconds",
        ),
    ] {
        assert_eq!(error(text), expected);
    }
}

#[test]
fn all_errors_are_reported_at_once() {
    let errors = load_text("foo: 1\nservices:\n  a: {image: 5, tty: maybe}\n  b: [x]\n").unwrap_err();
    assert_eq!(errors.0.len(), 4, "{errors}");
}

#[test]
fn a_cycle_shows_its_whole_path() {
    let text =
        "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, links: [c]}\n  c: {image: x, depends_on: [a]}\n";
    let errors = load_text(text).unwrap_err();
    assert!(errors.0[0].message.contains("a -> b -> c -> a"), "{errors}");
    assert_eq!(errors.0[0].places.len(), 3);
}

#[test]
fn later_files_win_and_tags_steer() {
    let base =
        "services:\n  a: {image: x, ports: ['1:1'], environment: {A: 1, B: 2}, command: x}\n  gone: {image: y}\n";
    let over = "services:\n  a: {ports: !override ['2:2'], environment: {A: !reset null, C: 3}, command: null}\n  gone: !reset null\n";
    let loader = MapLoader::new([("/p/base.yaml", base), ("/p/over.yaml", over)]);
    let loaded = load(&request(&["base.yaml", "over.yaml"]), &loader).unwrap();
    let got = &loaded.project.services["a"];
    assert_eq!(got.ports.len(), 1);
    assert_eq!(got.ports[0].target, 2);
    assert_eq!(got.environment.keys().collect::<Vec<_>>(), ["B", "C"]);
    assert_eq!(got.command, None);
    assert!(!loaded.project.services.contains_key("gone"));
}

#[test]
fn extends_and_include_keep_their_own_directories() {
    let main = "include: [sub/inc.yaml]\nservices:\n  a: {extends: {file: lib/base.yaml, service: b}, image: x}\n";
    let base = "services:\n  b: {volumes: ['./data:/data'], env_file: e.env}\n";
    let included = "services:\n  c: {image: '${IMG}', volumes: ['./d:/d']}\n";
    let loaded = load_files(&[
        ("stack.yaml", main),
        ("lib/base.yaml", base),
        ("lib/e.env", "E=1\n"),
        ("sub/inc.yaml", included),
        ("sub/.env", "IMG=from-sub\n"),
    ])
    .unwrap();
    let services = &loaded.project.services;
    assert_eq!(services["a"].volumes[0].source.as_deref(), Some("/p/lib/data"));
    assert_eq!(services["a"].environment["E"].as_deref(), Some("1"));
    assert_eq!(services["c"].image.as_deref(), Some("from-sub"));
    assert_eq!(services["c"].volumes[0].source.as_deref(), Some("/p/sub/d"));
}

#[test]
fn profiles_and_named_services() {
    let text = "services:\n  a: {image: x}\n  d: {image: x, profiles: [dev], depends_on: [a]}\n";
    let loaded = load_text(text).unwrap();
    assert_eq!(loaded.project.services.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(loaded.disabled.keys().collect::<Vec<_>>(), ["d"]);
    assert_eq!(loaded.all_services.len(), 2);
    let loader = MapLoader::new([("/p/stack.yaml", text)]);
    let named = load(&LoadRequest { services: vec!["d".into()], ..request(&["stack.yaml"]) }, &loader).unwrap();
    assert!(named.project.services.contains_key("d"));
}

#[test]
fn parts_know_where_they_stand() {
    let loaded = load_text("services:\n  a:\n    image: x\n    ports: [\"80\", \"81:80\"]\n").unwrap();
    let place = |path: &[&str]| loaded.origin.place(path).map(|place| (place.line, place.column));
    assert_eq!(place(&["services", "a", "image"]), Some((3, 12)));
    assert_eq!(place(&["services", "a", "ports", "1"]), Some((4, 19)));
    assert_eq!(place(&["services", "a", "user"]), Some((2, 3)));
}

#[test]
fn what_is_not_honoured_is_named() {
    let loaded = load_text("services:\n  a: {image: x, userns_mode: remap, isolation: default}\n").unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!(loaded.refusals.len(), 1);
    assert!(loaded.refusals[0].to_string().contains("services.a.userns_mode"));
}

#[test]
fn the_hash_ignores_what_does_not_shape_a_container() {
    let hash = |text: &str| hash::config_hash(&load_text(text).unwrap().project.services["a"]);
    let base = hash("services: {a: {image: x, environment: {A: 1, B: 2}}, b: {image: x}}\n");
    assert_eq!(
        base,
        hash("services: {b: {image: x}, a: {environment: {B: 2, A: 1}, scale: 3, depends_on: [b], image: x}}\n")
    );
    assert_ne!(base, hash("services: {a: {image: x, environment: {A: 1, B: 3}}, b: {image: x}}\n"));
    assert_eq!(base.len(), 64);
}

#[test]
fn what_is_printed_loads_again_to_the_same() {
    let text = "services:\n  a:\n    image: x\n    command: [echo, $$HOME]\n    ports: ['80-81:80-81', '53:53/udp']\n    \
                healthcheck: {test: 'true', interval: 90s}\n    ulimits: {nofile: 5, nproc: {soft: 1, hard: 2}}\n    \
                deploy: {resources: {limits: {cpus: '0.5', memory: 1g}}}\n    volumes: ['vol:/v', './b:/b']\n    secrets: [s]\n\
                volumes: {vol: }\nsecrets: {s: {file: ./s}}\n";
    let first = load_text(text).unwrap().project;
    for printed in [render::json(&first), render::yaml(&first)] {
        assert_eq!(load_text(&printed).unwrap().project, first);
    }
    let travelled: Project = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
    assert_eq!(travelled, first);
}

#[test]
fn what_looks_like_a_number_is_printed_quoted() {
    let text =
        "services:\n  a: { image: x, user: '1_000', labels: { '1_0.5': '0x1_F', '1_01e9': a_b, '5e3666': '1e999' } }\n";
    let first = load_text(text).unwrap().project;
    let printed = render::yaml(&first);
    assert!(printed.contains("user: \"1_000\"") && printed.contains("\"1_0.5\": \"0x1_F\""), "{printed}");
    assert_eq!(load_text(&printed).unwrap().project, first);
}

/// The JSON form is compared with docker compose's, the YAML form is loaded again.
#[test]
fn json_has_docker_composes_oddities_and_yaml_has_not() {
    let text = "services:\n  a:\n    image: x\n    models: [m]\n    blkio_config:\n      weight_device: [{ path: /dev/a, weight: 1 }, {}]\n      \
                device_read_bps: [{ path: /dev/a, rate: 1k }]\nmodels: { m: { model: y } }\n";
    let project = load_text(text).unwrap().project;
    let json: Json = serde_json::from_str(&render::json(&project)).unwrap();
    assert_eq!(json.get("models"), None);
    let expected = serde_json::json!({
        "weight_device": [{ "Path": "/dev/a", "Weight": 1 }, { "Path": "", "Weight": 0 }],
        "device_read_bps": [{ "Path": "/dev/a", "Rate": "1024" }],
    });
    assert_eq!(json["services"]["a"]["blkio_config"], expected);
    assert_eq!(load_text(&render::yaml(&project)).unwrap().project, project);
}

#[test]
fn separators_of_lines_are_printed_as_escapes() {
    let text = "services:\n  a:\n    image: x\n    labels: { \"a\\u2028\\\"b\": \"\\u2029 c\\n\", p: \"\\uf8ff0\\uf8ff\" }\n    volumes: [\"/a\\u2029b:/c\"]\n";
    let first = load_text(text).unwrap().project;
    let printed = render::yaml(&first);
    assert!(!printed.contains(['\u{2028}', '\u{2029}']), "{printed}");
    assert_eq!(load_text(&printed).unwrap().project, first);
}

/// A service of a few attributes in a given order.
fn permuted(order: &[usize]) -> String {
    const LINES: [&str; 7] = [
        "image: x",
        "environment: {B: 2, A: 1}",
        "labels: [l=1]",
        "ports: ['1:1']",
        "volumes: ['./a:/a']",
        "deploy: {replicas: 2}",
        "tty: true",
    ];
    let lines = order.iter().fold(String::new(), |text, index| text + "    " + LINES[*index] + "\n");
    format!("services:\n  a:\n{lines}")
}

/// Parts of a service with places for what is drawn at random.
const PARTS: [&str; 16] = [
    "command: WORD",
    "entrypoint: [WORD, x]",
    "environment: {A: WORD, B: , C: 'SIZE'}",
    "labels: {l: 1, k: WORD}",
    "ports: ['PORT']",
    "expose: ['PORT']",
    "volumes: ['data:/data', './x:/x:ro', WORD]",
    "tmpfs: [WORD]",
    "healthcheck: {test: WORD, interval: TIME}",
    "stop_grace_period: TIME",
    "mem_limit: SIZE",
    "shm_size: SIZE",
    "extra_hosts: {h: 10.0.0.1}",
    "ulimits: {nofile: 10, nproc: {soft: 1, hard: 2}}",
    "deploy: {replicas: 2, resources: {limits: {memory: SIZE}}}",
    "build: {context: ., args: [A=WORD]}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_order_of_keys_changes_nothing(order in Just((0..7).collect::<Vec<usize>>()).prop_shuffle()) {
        let sorted = load_text(&permuted(&[0, 1, 2, 3, 4, 5, 6])).unwrap().project;
        prop_assert_eq!(load_text(&permuted(&order)).unwrap().project, sorted);
    }

    /// What is printed loads again, to the same.
    #[test]
    fn printing_loses_nothing(
        choice in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..8),
        word in "[ -~]{1,20}",
        port in "([0-9]{1,5}(-[0-9]{1,5})?:)?[0-9]{1,5}(-[0-9]{1,5})?(/udp)?",
        duration in "([0-9]{1,3}h)?([0-9]{1,3}m)?[0-9]{1,4}(\\.[0-9]{1,3})?(s|ms)",
        size in "[0-9]{1,4}(\\.[0-9])?(b|k|m|g|kb)",
    ) {
        let quoted = serde_json::to_string(&word).unwrap();
        let mut parts: Vec<&str> = choice;
        parts.sort_unstable();
        parts.dedup();
        let text = parts.iter().fold(String::new(), |text, part| text + "    " + part + "\n");
        let text = text.replace("WORD", &quoted).replace("PORT", &port).replace("TIME", &duration).replace("SIZE", &size);
        if let Ok(loaded) = load_text(&format!("services:\n  a:\n    image: x\n{text}volumes: {{data: }}\n")) {
            let printed = render::yaml(&loaded.project);
            let again = load_text(&printed).map_err(|errors| errors.render(false)).unwrap();
            prop_assert_eq!(render::json(&loaded.project), render::json(&again.project), "{}", printed);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = load_text(&text).map_err(|errors| errors.render(true));
    }

    #[test]
    fn arbitrary_attributes_never_panic(
        key in prop::sample::select(vec![
            "image", "build", "ports", "volumes", "environment", "depends_on", "networks", "deploy", "healthcheck", "ulimits",
            "extends", "env_file", "secrets", "configs", "logging", "extra_hosts", "devices", "command", "develop", "gpus",
            "profiles", "user", "mem_limit", "cpus", "scale", "stop_grace_period", "labels", "network_mode", "provider",
        ]),
        value in "[ -~]{0,24}",
    ) {
        let text = format!("services:\n  a:\n    image: x\n    {key}: {value}\nnetworks: {{n: {value}}}\n");
        let _ = load_text(&text).map_err(|errors| errors.render(false));
    }

    #[test]
    fn structured_attributes_never_panic(value in "[\\[\\]{}:,a-c0-9 '\"!&*<|>-]{0,40}") {
        let _ = load_text(&format!("services:\n  a: {value}\n")).map_err(|errors| errors.render(false));
    }
}
