//! Every row of the Compose Specification, as tables in `tests/rows`: what an attribute means (`attribute: value -> JSON`),
//! what it means with a second file laid over it (`attribute: value ++ value -> JSON`), and where it is refused and with
//! which words (`attribute: value !! line:column: message`). The meanings are docker compose's.

use serde_json::Value as Json;

use super::loader::MapLoader;
use super::*;

/// What stands around the attribute.
const BESIDE: &str = "  q: { image: i }\n  r: { image: i }\nnetworks: { n: , m: }\nvolumes: { x: }\nsecrets: { s: { file: ./s }, t: { file: ./t } }\n\
                      configs: { c: { file: ./c } }\nmodels: { m: { model: x } }\n";

/// The file that gives service `a` the attribute; `top.…` stands at the top, `build.args` below `build`.
fn file(attribute: &str, value: &str, rest: &str) -> String {
    if let Some(name) = attribute.strip_prefix("top.") {
        let used = match name {
            "networks" | "secrets" | "configs" | "models" => format!("{name}: [n]"),
            "volumes" => "volumes: ['n:/n']".into(),
            _ => "tty: true".into(),
        };
        let services =
            if name == "services" { String::new() } else { format!("services:\n  a:\n    image: i\n    {used}\n") };
        return format!("{name}: {value}\n{services}");
    }
    let own = if attribute == "image" || rest.is_empty() { "" } else { "    image: i\n" };
    let parts: Vec<&str> = attribute.split('.').collect();
    let lines = parts.iter().enumerate().fold(String::new(), |text, (depth, part)| {
        let value = if depth + 1 == parts.len() { value } else { "" };
        format!("{text}{}{}\n", "  ".repeat(depth + 2), format!("{part}: {value}").trim_end())
    });
    format!("services:\n  a:\n{own}{lines}{rest}")
}

fn loaded(files: &[String]) -> Result<Loaded, Diagnostics> {
    let names: Vec<String> = (0..files.len()).map(|index| format!("/p/{index}.yaml")).collect();
    let mut texts: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(files.iter().map(String::as_str)).collect();
    texts.extend([("/p/x.env", "X=1\nS=x\n"), ("/p/y.env", "Y=2\nS=y\n")]);
    let request = LoadRequest {
        files: names.iter().map(Into::into).collect(),
        working_dir: "/p".into(),
        profiles: vec!["*".into()],
        environment: [("FOO".to_owned(), "foo".to_owned()), ("HOME".to_owned(), "/home/u".to_owned())].into(),
        ..LoadRequest::default()
    };
    load(&request, &MapLoader::new(texts))
}

/// What a row asks for and what came of it, where they differ.
fn judge(row: &str) -> Option<String> {
    let (asked, wanted, refused) = match (row.split_once(" -> "), row.split_once(" !! ")) {
        (Some((asked, wanted)), _) => (asked, wanted, false),
        (None, Some((asked, wanted))) => (asked, wanted, true),
        _ => return Some(format!("no row: {row}")),
    };
    let (attribute, values) = asked.split_once(": ")?;
    let values = values.split(" ++ ").enumerate();
    let files: Vec<String> =
        values.map(|(index, value)| file(attribute, value, if index == 0 { BESIDE } else { "" })).collect();
    let got = match loaded(&files) {
        Err(errors) => {
            let place = errors.0[0].places.first().map(|place| format!("{}:{}", place.line, place.column));
            format!("{}: {}", place.unwrap_or_default(), errors.0[0].message)
        }
        Ok(_) if refused => "accepted".into(),
        Ok(loaded) => {
            let model = render::canonical(&loaded.project);
            let path = attribute.strip_prefix("top.").map_or_else(|| format!("services.a.{attribute}"), str::to_owned);
            let value = path.split('.').try_fold(&model, |value, key| value.get(key));
            value.map_or_else(|| "none".into(), Json::to_string)
        }
    };
    let same = if refused {
        got == wanted
    } else {
        wanted == got || serde_json::from_str::<Json>(wanted).ok() == serde_json::from_str(&got).ok()
    };
    (!same).then(|| format!("{asked}\n  wanted {wanted}\n     got {got}"))
}

#[test]
fn every_row_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rows");
    let mut files: Vec<_> = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let texts: Vec<String> = files.iter().map(|file| fs_err::read_to_string(file).unwrap()).collect();
    let rows = texts.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (mut count, mut wrong) = (0, Vec::new());
    for row in rows {
        count += 1;
        wrong.extend(judge(row));
    }
    assert!(wrong.is_empty(), "{} of {count} rows:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 500, "only {count} rows");
}

/// No attribute is left out.
#[test]
fn every_attribute_has_a_row() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rows");
    let texts = fs_err::read_dir(folder).unwrap().map(|entry| fs_err::read_to_string(entry.unwrap().path()).unwrap());
    let all: String = texts.collect();
    let missing = |field: &&schema::Field| !all.contains(&format!("\n{}", field.name));
    let Some(schema::Shape::Object(service)) = Some(&schema::SERVICE_SHAPE) else { panic!("no mapping") };
    let names: Vec<&str> = service.fields.iter().filter(missing).map(|field| field.name).collect();
    assert!(names.is_empty(), "no row for {names:?}");
}
