//! From a template's text to its parts.

use super::action::Action;
use crate::cli::error::Error;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Literal text.
    Text(String),
    /// `{{.Name}}` and what is made of fields.
    Action(Action),
    /// `{{range .List}}…{{end}}`.
    Range(Action, Vec<Part>),
    /// `{{if .Field}}…{{else}}…{{end}}`.
    If(Action, Vec<Part>, Vec<Part>),
}

impl Part {
    /// What stands above it in a table.
    pub(super) fn title(&self) -> String {
        match self {
            Part::Text(text) => text.clone(),
            Part::Action(action) => action.field().to_uppercase(),
            Part::Range(_, body) | Part::If(_, body, _) => body.iter().map(Part::title).collect(),
        }
    }
}

/// A `range` or `if` that isn't closed yet.
struct Open {
    action: Action,
    is_if: bool,
    /// What stands around it.
    outer: Vec<Part>,
    /// What stands before `else`.
    then: Option<Vec<Part>>,
}

/// Reads a template.
pub(super) fn parts(text: &str) -> Result<Vec<Part>, Error> {
    let wrong = |why: &str| Error::new(format!("template `{text}`: {why}"));
    let (mut open, mut parts): (Vec<Open>, Vec<Part>) = (Vec::new(), Vec::new());
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once("{{") {
        let (inside, after) = tail.split_once("}}").ok_or_else(|| wrong("`{{` is never closed"))?;
        if !before.is_empty() {
            parts.push(Part::Text(unescape(before)));
        }
        rest = after;
        let inside = inside.trim();
        let (word, argument) = inside.split_once(' ').unwrap_or((inside, ""));
        match word {
            "range" | "if" => {
                let outer = std::mem::take(&mut parts);
                open.push(Open { action: Action::parse(argument)?, is_if: word == "if", outer, then: None });
            }
            "else" => match open.last_mut() {
                Some(block) if block.is_if && block.then.is_none() => block.then = Some(std::mem::take(&mut parts)),
                _ => return Err(wrong("`else` without `if`")),
            },
            "end" => {
                let block = open.pop().ok_or_else(|| wrong("`end` without `range` or `if`"))?;
                let body = std::mem::replace(&mut parts, block.outer);
                parts.push(match (block.is_if, block.then) {
                    (false, _) => Part::Range(block.action, body),
                    (true, Some(then)) => Part::If(block.action, then, body),
                    (true, None) => Part::If(block.action, body, Vec::new()),
                });
            }
            _ => parts.push(Part::Action(Action::parse(inside)?)),
        }
    }
    if !open.is_empty() {
        return Err(wrong("`end` is missing"));
    }
    if !rest.is_empty() {
        parts.push(Part::Text(unescape(rest)));
    }
    Ok(parts)
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}
