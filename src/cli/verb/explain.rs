//! What `stack config --explain` prints.

use std::path::Path;

use serde_json::Value;

use crate::cli::table::Table;
use crate::spec::Place;
use crate::spec::explain::{Explanation, Setter, Used};

/// One value with all that is known of it, several as a table. Files below `cwd` are named from there.
pub(crate) fn render(all: &[Explanation], cwd: &Path) -> String {
    if let [one] = all {
        return single(one, cwd);
    }
    let mut table = Table::new(&["PATH", "VALUE", "FROM"]);
    for one in all {
        table.row([one.path.clone(), value(&one.value), source(one, cwd)]);
    }
    table.render()
}

fn single(one: &Explanation, cwd: &Path) -> String {
    let place = one.place.as_ref().map(|place| format!("from {}", located(place, cwd)));
    let place = place.unwrap_or_else(|| "a default: no file says anything about it".into());
    let mut lines = vec![format!("{} = {}", one.path, value(&one.value)), format!("  {place}")];
    lines.extend(one.variables.iter().map(|variable| format!("    {}", setting(variable, cwd))));
    lines.extend(one.overridden.iter().rev().map(|place| format!("  over {}", located(place, cwd))));
    lines.join("\n") + "\n"
}

fn setting(variable: &Used, cwd: &Path) -> String {
    let value = variable.value.as_deref().unwrap_or_default();
    match (variable.from, &variable.file) {
        (Setter::File, Some(file)) => {
            format!("{} is {value:?} in {}:{}", variable.name, short(file, cwd), variable.line.unwrap_or_default())
        }
        (Setter::Project, _) => format!("{} is {value:?}, the name of the project", variable.name),
        (Setter::Unset, _) => format!("{} is not set", variable.name),
        _ => format!("{} is {value:?} in the environment", variable.name),
    }
}

/// The place and its line.
fn located(place: &Place, cwd: &Path) -> String {
    format!("{}:{}:{}  {}", short(&place.file, cwd), place.line, place.column, place.text.trim())
}

fn source(one: &Explanation, cwd: &Path) -> String {
    let Some(place) = &one.place else { return "default".into() };
    let place = format!("{}:{}", short(&place.file, cwd), place.line);
    let variables = one.variables.iter().map(|variable| setting(variable, cwd));
    std::iter::once(place).chain(variables).collect::<Vec<_>>().join(", ")
}

fn short(file: &str, cwd: &Path) -> String {
    Path::new(file).strip_prefix(cwd).map_or_else(|_| file.to_owned(), |path| path.display().to_string())
}

fn value(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
