//! `--format`: a table, JSON, or the small part of Go's templates that people use there.

use serde_json::{Map, Value};

use super::error::Error;
use super::table::Table;

/// What `--format` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// The verb's own table.
    Table,
    /// JSON.
    Json,
    /// A template for each row; with a header where it began with `table `.
    Template { parts: Vec<Part>, header: bool },
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Literal text.
    Text(String),
    /// `{{.Name}}`.
    Field(String),
    /// `{{json .}}` or `{{json .Name}}`.
    Json(Option<String>),
    /// `{{upper .Name}}` and `{{lower .Name}}`.
    Upper(String),
    /// See above.
    Lower(String),
}

/// One row: values by field name.
pub(crate) type Row = Map<String, Value>;

impl Format {
    /// Reads the flag's value.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, Error> {
        match text.unwrap_or("table") {
            "table" | "" | "pretty" => Ok(Self::Table),
            "json" | "{{json .}}" => Ok(Self::Json),
            text if text.contains("{{") => {
                let (body, header) = text.strip_prefix("table ").map_or((text, false), |body| (body, true));
                Ok(Self::Template { parts: parts(body)?, header })
            }
            other => Err(Error::new(format!("unsupported format `{other}`"))
                .hint("use `table`, `json` or a template such as `{{.Name}}`")),
        }
    }
}

/// The rows in a template's form.
pub(crate) fn render(parts: &[Part], header: bool, rows: &[Row]) -> Result<String, Error> {
    if !header {
        return rows.iter().map(|row| Ok(line(parts, row)? + "\n")).collect();
    }
    let mut table = Table::bare();
    let title: String = parts
        .iter()
        .map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Field(name) | Part::Upper(name) | Part::Lower(name) => name.to_uppercase(),
            Part::Json(name) => name.clone().unwrap_or_default().to_uppercase(),
        })
        .collect();
    table.row(title.split('\t').map(str::to_owned));
    for row in rows {
        table.row(line(parts, row)?.split('\t').map(str::to_owned));
    }
    Ok(table.render())
}

fn parts(text: &str) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once("{{") {
        let (inside, after) =
            tail.split_once("}}").ok_or_else(|| Error::new(format!("template `{text}`: `{{{{` is never closed")))?;
        if !before.is_empty() {
            parts.push(Part::Text(unescape(before)));
        }
        parts.push(action(inside.trim())?);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(unescape(rest)));
    }
    Ok(parts)
}

fn action(text: &str) -> Result<Part, Error> {
    let field = |word: &str| word.strip_prefix('.').filter(|name| !name.is_empty()).map(str::to_owned);
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["json", "."] => Some(Part::Json(None)),
        ["json", name] => field(name).map(|name| Part::Json(Some(name))),
        ["upper", name] => field(name).map(Part::Upper),
        ["lower", name] => field(name).map(Part::Lower),
        [name] => field(name).map(Part::Field),
        _ => None,
    }
    .ok_or_else(|| {
        Error::new(format!("template: `{{{{{text}}}}}` is not understood"))
            .hint("use {{.Field}}, {{json .}}, {{json .Field}}, {{upper .Field}} or {{lower .Field}}")
    })
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn line(parts: &[Part], row: &Row) -> Result<String, Error> {
    let value = |name: &String| {
        row.get(name).ok_or_else(|| {
            let names: Vec<&str> = row.keys().map(String::as_str).collect();
            Error::new(format!("template: there is no field `{name}`"))
                .hint(format!("the fields are {}", names.join(", ")))
        })
    };
    parts
        .iter()
        .map(|part| {
            Ok(match part {
                Part::Text(text) => text.clone(),
                Part::Field(name) => plain(value(name)?),
                Part::Upper(name) => plain(value(name)?).to_uppercase(),
                Part::Lower(name) => plain(value(name)?).to_lowercase(),
                Part::Json(Some(name)) => value(name)?.to_string(),
                Part::Json(None) => Value::Object(row.clone()).to_string(),
            })
        })
        .collect()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |name: &str, code| Row::from_iter([("Name".into(), name.into()), ("Code".into(), Value::from(code))]);
        vec![row("a", 0), row("bcd", 7)]
    }

    fn rendered(format: &str) -> String {
        match Format::parse(Some(format)).unwrap() {
            Format::Template { parts, header } => render(&parts, header, &rows()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn templates() {
        assert_eq!(rendered("{{.Name}}={{.Code}}"), "a=0\nbcd=7\n");
        assert_eq!(rendered("{{upper .Name}} {{json .Name}}"), "A \"a\"\nBCD \"bcd\"\n");
        assert_eq!(rendered("table {{.Name}}\\t{{.Code}}"), "NAME   CODE\na      0\nbcd    7\n");
    }

    #[test]
    fn errors_name_the_fields() {
        let Format::Template { parts, header } = Format::parse(Some("{{.Nope}}")).unwrap() else { panic!() };
        assert!(render(&parts, header, &rows()).is_err());
        assert!(Format::parse(Some("toml")).is_err() && Format::parse(Some("{{range .}}")).is_err());
        assert_eq!(Format::parse(Some("json")).unwrap(), Format::Json);
    }
}
