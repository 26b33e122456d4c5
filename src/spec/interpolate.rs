//! `$NAME`, `${NAME}` and `${NAME:-word}` with its relatives, as docker compose understands them.
//!
//! Words are evaluated only when they are needed, may nest, and end at the matching brace.

use std::collections::BTreeSet;

use super::limits;

/// Gives the value of a variable.
pub(crate) type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Why a text cannot be interpolated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InterpolateError {
    /// `${` without a name, an end or a known operator.
    #[error("`{expression}` is no valid interpolation: {reason}")]
    Invalid {
        /// The text from `${` on, shortened.
        expression: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `${NAME:?text}` without a value.
    #[error("required variable {name} is missing a value{}{text}", if text.is_empty() { "" } else { ": " })]
    Required {
        /// The variable.
        name: String,
        /// Text of its author.
        text: String,
    },
    /// Longer than [`limits::VALUE_BYTES`] or nested deeper than [`limits::INTERPOLATION_DEPTH`].
    #[error("interpolation grows beyond {0}")]
    Limit(&'static str),
}

impl InterpolateError {
    /// Text to look for in the source line, so that the message can point at it.
    pub(crate) fn needle(&self) -> String {
        match self {
            Self::Invalid { expression, .. } => expression.clone(),
            Self::Required { name, .. } => format!("${{{name}"),
            Self::Limit(_) => "$".into(),
        }
    }
}

/// Interpolates `text`; names of unset variables that became blank are added to `unset`.
pub(crate) fn substitute(
    text: &str,
    lookup: &Lookup<'_>,
    unset: &mut BTreeSet<String>,
) -> Result<String, InterpolateError> {
    expand(text, lookup, unset, 0)
}

fn expand(
    text: &str,
    lookup: &Lookup<'_>,
    unset: &mut BTreeSet<String>,
    depth: usize,
) -> Result<String, InterpolateError> {
    if depth > limits::INTERPOLATION_DEPTH {
        return Err(InterpolateError::Limit("50 nested expressions"));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        rest = if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some(body) = tail.strip_prefix('{') {
            let end = closing_brace(body).ok_or_else(|| invalid(&rest[at..], "the closing brace is missing"))?;
            out.push_str(&braced(&body[..end], lookup, unset, depth)?);
            &body[end + 1..]
        } else {
            let length = name_length(tail);
            match length {
                0 => out.push('$'),
                _ => out.push_str(&value_or_blank(&tail[..length], lookup, unset)),
            }
            &tail[length..]
        };
        if out.len() > limits::VALUE_BYTES {
            return Err(InterpolateError::Limit("1 MiB"));
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// `NAME` or `NAME<operator>word`.
fn braced(
    body: &str,
    lookup: &Lookup<'_>,
    unset: &mut BTreeSet<String>,
    depth: usize,
) -> Result<String, InterpolateError> {
    let length = name_length(body);
    let (name, rest) = body.split_at(length);
    if name.is_empty() {
        let reason = "a variable name of letters, digits and `_` must follow `${`";
        return Err(invalid(&format!("${{{body}}}"), reason));
    }
    if rest.is_empty() {
        return Ok(value_or_blank(name, lookup, unset));
    }
    let (colon, operator) = match rest.strip_prefix(':') {
        Some(operator) => (true, operator),
        None => (false, rest),
    };
    let value = lookup(name).filter(|value| !colon || !value.is_empty());
    let mut chars = operator.chars();
    let (operator, word) = (chars.next(), chars.as_str());
    match (operator, value) {
        (Some('-' | '?'), Some(value)) => Ok(value),
        (Some('+'), None) => Ok(String::new()),
        (Some('-'), None) | (Some('+'), Some(_)) => expand(word, lookup, unset, depth + 1),
        (Some('?'), None) => {
            let text = expand(word, lookup, unset, depth + 1)?;
            Err(InterpolateError::Required { name: name.to_owned(), text })
        }
        _ => {
            let reason = "the name must be followed by `}`, `:-`, `-`, `:?`, `?`, `:+` or `+`";
            Err(invalid(&format!("${{{body}}}"), reason))
        }
    }
}

fn value_or_blank(name: &str, lookup: &Lookup<'_>, unset: &mut BTreeSet<String>) -> String {
    lookup(name).unwrap_or_else(|| {
        unset.insert(name.to_owned());
        String::new()
    })
}

fn name_length(text: &str) -> usize {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Offset of the brace that closes the expression whose body starts `text`.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}

fn invalid(expression: &str, reason: &'static str) -> InterpolateError {
    let expression = expression.chars().take(60).collect();
    InterpolateError::Invalid { expression, reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(text: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "V" => Some("first".to_owned()),
            "E" => Some(String::new()),
            _ => None,
        };
        substitute(text, &lookup, &mut BTreeSet::new()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("$V", "first"),
            ("a${V}b", "afirstb"),
            ("$V-x", "first-x"),
            ("$$V", "$V"),
            ("$$$$", "$$"),
            ("${U-d}", "d"),
            ("${E-d}", ""),
            ("${E:-d}", "d"),
            ("${V:+r}", "r"),
            ("${E:+r}", ""),
            ("${E+r}", "r"),
            ("${U+r}", ""),
            ("${V?m}", "first"),
            ("${U:-${E:-${V} ${V}}} tail", "first first tail"),
            ("${U:-{\"j\":1}}", "{\"j\":1}"),
            ("${U:-a$${b}c}", "a${b}c"),
            ("${V:-${}}", "first"),
            ("$1 $ ^R$ $}", "$1 $ ^R$ $}"),
        ] {
            assert_eq!(run(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refusals() {
        for text in ["${", "${}", "${ V}", "${V }", "${V!}", "${1}", "${V:}", "${A", "${U?need}"] {
            assert!(run(text).is_err(), "{text}");
        }
        assert_eq!(run("${E:?empty ${V}}").unwrap_err(), "required variable E is missing a value: empty first");
        let deep = "${A:-".repeat(20_000) + "x" + &"}".repeat(20_000);
        assert!(run(&deep).unwrap_err().contains("50 nested"));
    }

    proptest! {
        #[test]
        fn text_without_dollar_is_itself(text in "[^$]{0,40}") {
            prop_assert_eq!(run(&text), Ok(text));
        }

        #[test]
        fn doubling_dollars_undoes_interpolation(text in any::<String>()) {
            prop_assert_eq!(run(&text.replace('$', "$$")), Ok(text));
        }

        #[test]
        fn never_panics(text in "[${}:?+\\-A-Z_ ]{0,60}") {
            let _ = run(&text);
        }
    }
}
