//! `stack ls`.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::error::{Error, Outcome};
use crate::cli::project::{Context, require_root};
use crate::cli::select::is_up;
use crate::cli::table::Table;
use crate::cli::template::{self, Format, Row};
use crate::engine::state::{self, Container};

/// List the stacks of this machine.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Also stacks of which nothing runs
    #[arg(short, long)]
    all: bool,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// Only stacks that match, `name=TEXT`; `^` and `$` anchor the text
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Form of the output: table, json or a template
    #[arg(long, value_name = "FORM")]
    format: Option<String>,
}

const CONFIG_FILES: &str = "com.docker.compose.project.config_files";

impl Ls {
    pub(crate) fn run(&self, context: &Context) -> Outcome {
        let format = Format::parse(self.format.as_deref())?;
        require_root()?;
        let names: Vec<&str> = self
            .filter
            .iter()
            .map(|filter| {
                filter.strip_prefix("name=").ok_or_else(|| {
                    Error::new(format!("unsupported filter `{filter}`")).hint("the only filter is `name=TEXT`")
                })
            })
            .collect::<Result<_, _>>()?;
        let mut rows = Vec::new();
        for project in state::projects(&context.paths)? {
            let containers = context.containers(&project)?;
            let shown = self.all || containers.iter().any(is_up);
            if shown && names.iter().all(|name| matches(name, &project)) {
                rows.push(row(&project, &containers));
            }
        }
        let mut out = context.ui.out();
        let text = |row: &Row, field: &str| row.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        if self.quiet {
            rows.iter().try_for_each(|row| writeln!(out, "{}", text(row, "Name")))?;
            return Ok(0);
        }
        match format {
            Format::Table => {
                let mut table = Table::new(&["NAME", "STATUS", "CONFIG FILES"]);
                for row in &rows {
                    table.row(["Name", "Status", "ConfigFiles"].map(|field| text(row, field)));
                }
                write!(out, "{}", table.render())?;
            }
            Format::Json => writeln!(out, "{}", json!(rows))?,
            Format::Template { parts, header } => write!(out, "{}", template::render(&parts, header, &rows)?)?,
        }
        Ok(0)
    }
}

fn row(project: &str, containers: &[Container]) -> Row {
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    for container in containers {
        *states.entry(container.state.status.to_string()).or_default() += 1;
    }
    let status: Vec<String> = states.into_iter().map(|(state, count)| format!("{state}({count})")).collect();
    let files = containers.iter().find_map(|container| container.record.labels.get(CONFIG_FILES));
    let fields = [
        ("Name", project.to_owned()),
        ("Status", status.join(", ")),
        ("ConfigFiles", files.cloned().unwrap_or_else(|| "N/A".into())),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

/// Whether `name` holds `pattern`, at its start after `^` and at its end before `$`.
fn matches(pattern: &str, name: &str) -> bool {
    let (start, pattern) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    let (end, pattern) = pattern.strip_suffix('$').map_or((false, pattern), |rest| (true, rest));
    match (start, end) {
        (true, true) => name == pattern,
        (true, false) => name.starts_with(pattern),
        (false, true) => name.ends_with(pattern),
        (false, false) => name.contains(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_anchor() {
        assert!(matches("b", "abc") && matches("^a", "abc") && matches("c$", "abc") && matches("^abc$", "abc"));
        assert!(!matches("^b", "abc") && !matches("b$", "abc") && !matches("^ab$", "abc"));
    }
}
