//! `--format`: a table, JSON, or the part of Go's templates that people use there.

mod action;
mod parse;

use serde_json::{Map, Value};

pub(crate) use parse::Part;

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
                Ok(Self::Template { parts: parse::parts(body)?, header })
            }
            other => Err(Error::new(format!("unsupported format `{other}`"))
                .hint("use `table`, `json` or a template such as `{{.Name}}`")),
        }
    }
}

/// The rows in a template's form.
pub(crate) fn render(parts: &[Part], header: bool, rows: &[Row]) -> Result<String, Error> {
    let mut table = Table::bare();
    let mut text = String::new();
    if header {
        let title: String = parts.iter().map(Part::title).collect();
        table.row(title.split('\t').map(str::to_owned));
    }
    for row in rows {
        let mut line = String::new();
        write(parts, &Value::Object(row.clone()), &mut line)?;
        if header {
            table.row(line.split('\t').map(str::to_owned));
        } else {
            text.push_str(&line);
            text.push('\n');
        }
    }
    Ok(if header { table.render() } else { text })
}

/// One value in the form of some parts.
fn write(parts: &[Part], dot: &Value, out: &mut String) -> Result<(), Error> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Action(action) => out.push_str(&action::text(&action.value(dot)?)),
            Part::Range(over, body) => match over.value(dot)? {
                Value::Array(all) => all.iter().try_for_each(|one| write(body, one, out))?,
                Value::Object(all) => all.values().try_for_each(|one| write(body, one, out))?,
                _ => {}
            },
            Part::If(condition, then, otherwise) => {
                let branch = if action::is_true(&condition.value(dot)?) { then } else { otherwise };
                write(branch, dot, out)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows() -> Vec<Row> {
        let row = |name: &str, code| Row::from_iter([("Name".into(), name.into()), ("Code".into(), Value::from(code))]);
        vec![row("a", 0), row("bcd", 7)]
    }

    fn rendered_of(format: &str, rows: &[Row]) -> Result<String, Error> {
        match Format::parse(Some(format))? {
            Format::Template { parts, header } => render(&parts, header, rows),
            other => panic!("{other:?}"),
        }
    }

    fn rendered(format: &str) -> String {
        rendered_of(format, &rows()).unwrap()
    }

    #[test]
    fn templates() {
        assert_eq!(rendered("{{.Name}}={{.Code}}"), "a=0\nbcd=7\n");
        assert_eq!(rendered("{{upper .Name}} {{json .Name}}"), "A \"a\"\nBCD \"bcd\"\n");
        assert_eq!(rendered("table {{.Name}}\\t{{.Code}}"), "NAME   CODE\na      0\nbcd    7\n");
        assert_eq!(rendered("{{if .Code}}{{.Code}}{{else}}none{{end}}"), "none\n7\n");
        assert_eq!(rendered("{{if eq .Name \"a\"}}yes{{end}}|{{len .Name}}"), "yes|1\n|3\n");
    }

    #[test]
    fn templates_go_into_what_lies_deeper() {
        let row = json!({"Config": {"Env": ["A=1", "B=2"], "Labels": {"x.y": "z"}, "Cmd": null}, "Tags": ["t"]});
        let Value::Object(row) = row else { panic!() };
        let of = |format: &str| rendered_of(format, std::slice::from_ref(&row)).unwrap();
        assert_eq!(of("{{.Config.Env}} {{.Config.Labels}}"), "[A=1 B=2] map[x.y:z]\n");
        assert_eq!(of("{{index .Config.Labels \"x.y\"}} {{index .Config.Env 1}} {{json .Tags}}"), "z B=2 [\"t\"]\n");
        assert_eq!(of("{{range .Config.Env}}{{.}};{{end}}{{join .Config.Env \",\"}}"), "A=1;B=2;A=1,B=2\n");
        assert_eq!(of("{{range .Config.Env}}{{println .}}{{end}}"), "A=1\nB=2\n\n");
        assert_eq!(of("{{.Config.Cmd}}{{.Config.Absent}}{{index .Config.Labels \"no\"}}"), "<no value><no value>\n");
        assert_eq!(of("{{json .Config.Cmd}} {{json (index .Tags 0)}}"), "null \"t\"\n");
        assert!(rendered_of("{{index .Tags 1}}", std::slice::from_ref(&row)).is_err());
    }

    #[test]
    fn errors_name_the_fields() {
        let absent = rendered_of("{{.Nope}}", &rows()).unwrap_err();
        assert!(absent.message().contains("`Nope`"), "{absent:?}");
        for bad in ["toml", "{{range .}}", "{{.A", "{{end}}", "{{else}}", "{{frob .A}}", "{{index}}", "{{(.A}}", "{{}}"]
        {
            assert!(Format::parse(Some(bad)).is_err(), "{bad}");
        }
        assert_eq!(Format::parse(Some("json")).unwrap(), Format::Json);
    }
}
