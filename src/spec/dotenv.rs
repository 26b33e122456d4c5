//! `.env`, `env_file` and `label_file` syntax.

use std::collections::{BTreeMap, BTreeSet};

use super::interpolate::{self, InterpolateError};
use super::limits;

/// Why a file of variables cannot be read, with the line (from 1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct DotenvError {
    pub(crate) line: usize,
    pub(crate) problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error(
        "unexpected character `{0}` in a variable name; names consist of letters, digits, `_`, `.`, `-`, `[` and `]`"
    )]
    Name(char),
    #[error("a variable name cannot contain a space")]
    Space,
    #[error("the name of the variable is missing")]
    NoName,
    #[error("a NUL character cannot be part of any value")]
    Nul,
    #[error("unterminated quoted value: the closing {0} is missing")]
    Quote(char),
    #[error(transparent)]
    Interpolation(#[from] InterpolateError),
}

/// Values in the order of their last assignment's first appearance; later assignments win.
pub(crate) type Variables = BTreeMap<String, String>;

/// Reads `text`. Variables are looked up outside first, then among those read so far (`known`, which the result
/// extends). A bare `NAME` takes the outside value, or is left out.
pub(crate) fn parse(
    text: &str,
    outside: &interpolate::Lookup<'_>,
    known: &mut Variables,
    unset: &mut BTreeSet<String>,
) -> Result<(), DotenvError> {
    without_nul(text)?;
    let text = text.replace("\r\n", "\n");
    let mut reader = Reader { text: &text, at: 0 };
    while let Some((name, bare)) = reader.name()? {
        if bare {
            if let Some(value) = outside(&name) {
                known.insert(name, value);
            }
            continue;
        }
        let begin = reader.at;
        let raw = reader.value()?;
        let fail = |problem| DotenvError { line: reader.line_of(begin), problem };
        let lookup = |name: &str| outside(name).or_else(|| known.get(name).cloned());
        let value = match raw {
            Raw::Literal(value) => value,
            Raw::Template(value) => {
                interpolate::substitute(&value, &lookup, unset).map_err(|error| fail(error.into()))?
            }
        };
        if value.len() > limits::VALUE_BYTES {
            return Err(fail(InterpolateError::Limit("1 MiB").into()));
        }
        known.insert(name, value);
    }
    Ok(())
}

fn without_nul(text: &str) -> Result<(), DotenvError> {
    match text.find('\0') {
        Some(at) => Err(DotenvError { line: text[..at].matches('\n').count() + 1, problem: Problem::Nul }),
        None => Ok(()),
    }
}

/// Names and the lines (from 1) that begin with their assignment, for messages.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (&str, usize)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.trim_start();
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let name = line.split(['=', ':']).next()?.trim_end();
        (!name.is_empty() && !name.starts_with('#')).then_some((name, index + 1))
    })
}

/// `docker run --env-file` syntax: one `NAME=value` a line, nothing is interpreted.
pub(crate) fn parse_raw(
    text: &str,
    outside: &interpolate::Lookup<'_>,
    known: &mut Variables,
) -> Result<(), DotenvError> {
    without_nul(text)?;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value.to_owned())));
        let problem = match name {
            "" => Some(Problem::NoName),
            _ if name.contains(char::is_whitespace) => Some(Problem::Space),
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(DotenvError { line: index + 1, problem });
        }
        if let Some(value) = value.or_else(|| outside(name)) {
            known.insert(name.to_owned(), value);
        }
    }
    Ok(())
}

enum Raw {
    Literal(String),
    Template(String),
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    /// The line, from 1, of a place in the text.
    fn line_of(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }

    fn fail<T>(&self, problem: Problem) -> Result<T, DotenvError> {
        Err(DotenvError { line: self.line_of(self.at), problem })
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(|c: char| c != '\n' && c.is_whitespace()).len();
    }

    /// The next name and whether it stands alone; `None` at the end of the text.
    fn name(&mut self) -> Result<Option<(String, bool)>, DotenvError> {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            if !self.rest().starts_with('#') {
                break;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
        if let Some(rest) = self.rest().strip_prefix("export")
            && rest.starts_with([' ', '\t'])
        {
            self.at += "export".len();
            self.skip_blanks();
        }
        if self.rest().is_empty() {
            return Ok(None);
        }
        let end = self.rest().find(['=', ':', '\n']).unwrap_or(self.rest().len());
        let name = self.rest()[..end].trim_end().to_owned();
        let allowed = |c: char| c.is_alphanumeric() || c.is_whitespace() || matches!(c, '_' | '.' | '-' | '[' | ']');
        if let Some(bad) = name.chars().find(|c| !allowed(*c)) {
            return self.fail(Problem::Name(bad));
        }
        if name.is_empty() {
            return self.fail(Problem::NoName);
        }
        if name.contains(char::is_whitespace) {
            return self.fail(Problem::Space);
        }
        let bare = !matches!(self.rest()[end..].chars().next(), Some('=' | ':'));
        self.at += end + usize::from(!bare);
        self.skip_blanks();
        Ok(Some((name, bare)))
    }

    fn value(&mut self) -> Result<Raw, DotenvError> {
        if let Some(quote @ ('"' | '\'')) = self.rest().chars().next() {
            return self.quoted(quote);
        }
        let end = self.rest().find('\n').unwrap_or(self.rest().len());
        let line = &self.rest()[..end];
        let value = if line.starts_with('#') { "" } else { line.split(" #").next().unwrap_or(line) };
        let value = value.trim_end().to_owned();
        self.at += end;
        Ok(Raw::Template(value))
    }

    /// A quoted value, which may span lines; a backslash keeps the quote from ending it.
    fn quoted(&mut self, quote: char) -> Result<Raw, DotenvError> {
        let (mut value, mut escaped) = (String::new(), false);
        for (at, c) in self.rest().char_indices().skip(1) {
            match c {
                '\\' if !escaped => escaped = true,
                c if c == quote && !escaped => {
                    self.at += at + 1;
                    let end = self.rest().find('\n').unwrap_or(self.rest().len());
                    let tail = self.rest()[..end].trim();
                    if tail.is_empty() || tail.starts_with('#') {
                        self.at += end;
                    }
                    return Ok(match quote {
                        '"' => Raw::Template(unescape(&value)),
                        _ => Raw::Literal(value),
                    });
                }
                c => {
                    if escaped && c != quote {
                        value.push('\\');
                    }
                    escaped = false;
                    value.push(c);
                }
            }
        }
        self.fail(Problem::Quote(quote))
    }
}

/// Shell-like escapes of a double-quoted value; `\$` becomes `$$`, which interpolation makes a dollar again.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('v') => out.push('\u{b}'),
            Some('"') => out.push('"'),
            Some('$') => out.push_str("$$"),
            Some('\\') | None => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Variables, String> {
        let mut known = Variables::new();
        let outside = |name: &str| (name == "OUT").then(|| "o".to_owned());
        parse(text, &outside, &mut known, &mut BTreeSet::new()).map_err(|error| format!("{}: {error}", error.line))?;
        Ok(known)
    }

    #[test]
    fn every_form() {
        for (text, name, expected) in [
            ("A=1\n", "A", "1"),
            ("A = 2", "A", "2"),
            ("A: 3", "A", "3"),
            ("export A=4", "A", "4"),
            ("OUT", "OUT", "o"),
            ("A=1 # c", "A", "1"),
            ("A=a#b", "A", "a#b"),
            ("A='it\\'s $V'", "A", "it's $V"),
            ("A=\"say \\\"x\\\"\\n\"", "A", "say \"x\"\n"),
            ("A=\"x\ny\" # c\nB=2", "A", "x\ny"),
            ("A=\"t\\\\n\"", "A", "t\\n"),
            ("B=1\nA=${B}2${OUT}", "A", "12o"),
            ("A=\"\\$B\"", "A", "$B"),
            ("A=$$B", "A", "$B"),
            ("A=b=c\r\nB=1", "A", "b=c"),
            ("A=", "A", ""),
            ("A=1\nA=2", "A", "2"),
        ] {
            assert_eq!(read(text).unwrap().get(name).map(String::as_str), Some(expected), "{text:?}");
        }
        assert!(read("GONE").unwrap().is_empty());
    }

    #[test]
    fn refusals_name_the_line() {
        assert!(read("A=1\nA%=1").unwrap_err().starts_with("2: unexpected character `%`"));
        assert!(read("A B=1").unwrap_err().contains("space"));
        assert!(read("A=\"x").unwrap_err().contains("unterminated"));
        assert!(read("=x").unwrap_err().contains("missing"));
        assert!(read("A=1\nB=x\0").unwrap_err().starts_with("2: a NUL"));
        let bomb = (1..30).fold(String::new(), |text, n| text + &format!("A{n}=${{A{0}}}${{A{0}}}\n", n - 1));
        assert!(read(&("A0=xxxxxxxxxx\n".to_owned() + &bomb)).unwrap_err().contains("1 MiB"));
    }

    #[test]
    fn raw_takes_values_as_they_are() {
        let mut known = Variables::new();
        parse_raw("# c\nA=\"q $Y\"\nB= x \nOUT\n", &|name| (name == "OUT").then(|| "o".into()), &mut known).unwrap();
        let expected = [("A", "\"q $Y\""), ("B", " x "), ("OUT", "o")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(known, Variables::from(expected));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[A-Z=:'\"\\\\$#{}\n \t]{0,60}") {
            let _ = read(&text);
        }

        #[test]
        fn single_quotes_are_literal(value in "[^'\\\\\r\0]{0,40}") {
            let variables = read(&format!("A='{value}'")).unwrap();
            prop_assert_eq!(variables.get("A"), Some(&value));
        }
    }
}
