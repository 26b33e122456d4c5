//! Project names.

use super::diagnostic::{Diagnostic, Kind};

/// Longest project name: it becomes part of names of containers, networks and directories.
const LONGEST: usize = 128;

/// Whether `name` is a project name as it is.
pub fn is_valid(name: &str) -> bool {
    let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= LONGEST && name.starts_with(first) && name.chars().all(|c| first(c) || matches!(c, '_' | '-'))
}

/// What remains of any text as a project name: lower case, foreign characters dropped. May be empty.
pub fn normalize(text: &str) -> String {
    let lower = text.to_lowercase();
    let kept: String =
        lower.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-')).collect();
    kept.trim_start_matches(['_', '-']).chars().take(LONGEST).collect()
}

/// Complains about a name that was given explicitly.
pub(crate) fn check(name: &str, source: &str) -> Result<(), Diagnostic> {
    if is_valid(name) {
        return Ok(());
    }
    let message = format!("invalid project name `{name}` ({source})");
    let rule =
        "it must start with a lower-case letter or a digit and consist of lower-case letters, digits, `-` and `_`";
    let normal = normalize(name);
    let hint = if is_valid(&normal) { format!("{rule}; `{normal}` would do") } else { rule.to_owned() };
    Err(Diagnostic::error(Kind::Value, message).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(normalize("My.Proj_1"), "myproj_1");
        assert_eq!(normalize("_-9a"), "9a");
        assert!(is_valid("a-b_1") && !is_valid("Bad") && !is_valid("") && !is_valid("-a"));
        assert!(check("Bad Name", "-p").unwrap_err().message.contains("project name"));
    }
}
