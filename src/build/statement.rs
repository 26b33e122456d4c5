//! A logical line as keyword, flags and words, before it has a meaning.

use super::error::Problem;

/// Keyword, flags and words of one instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// As written.
    pub(crate) keyword: String,
    /// `--name` or `--name=value`, quotes removed.
    pub(crate) flags: Vec<String>,
    pub(crate) args: Args,
}

/// The words of an instruction in the form that its keyword has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Args {
    /// A JSON array of strings.
    Json(Vec<String>),
    /// Words split at blanks, or one word that is the whole rest of the line.
    Words(Vec<String>),
    /// Names and values; `true` where they were joined by `=`.
    Pairs(Vec<(String, String, bool)>),
    /// The statement that is kept for later.
    Nested(Box<Statement>),
}

/// Splits a logical line.
pub(crate) fn parse(line: &str, escape: char) -> Result<Statement, Problem> {
    nested(line, escape, 0)
}

fn nested(line: &str, escape: char, depth: usize) -> Result<Statement, Problem> {
    let (keyword, flags, rest) = split(line, escape);
    let args = match keyword.to_ascii_uppercase().as_str() {
        "ADD" | "COPY" | "VOLUME" => match json(rest)? {
            Some(list) => Args::Json(list),
            None => Args::Words(blank_delimited(rest)),
        },
        "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => match json(rest)? {
            Some(list) => Args::Json(list),
            None => Args::Words(whole(rest)),
        },
        "ENV" | "LABEL" => Args::Pairs(pairs(rest, &keyword, escape)?),
        "ARG" => Args::Words(words(rest, escape)),
        "EXPOSE" | "FROM" => Args::Words(blank_delimited(rest)),
        "HEALTHCHECK" => health(rest)?,
        "ONBUILD" if rest.is_empty() => Args::Words(Vec::new()),
        "ONBUILD" if depth > 1 => return Err(Problem::new("ONBUILD ONBUILD is not allowed")),
        "ONBUILD" => Args::Nested(Box::new(nested(rest, escape, depth + 1)?)),
        "MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR" => Args::Words(whole(rest)),
        _ => Args::Words(Vec::new()),
    };
    Ok(Statement { keyword, flags, args })
}

/// True for the instructions that take heredocs, unless in JSON form.
pub(crate) fn can_have_heredoc(line: &str, escape: char) -> bool {
    let (keyword, _, rest) = split(line, escape);
    match keyword.to_ascii_uppercase().as_str() {
        "ADD" | "COPY" | "RUN" => !matches!(json(rest), Ok(Some(_))),
        "ONBUILD" if !rest.to_ascii_uppercase().starts_with("ONBUILD") => can_have_heredoc(rest, escape),
        _ => false,
    }
}

fn split(line: &str, escape: char) -> (String, Vec<String>, &str) {
    let line = line.trim();
    let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (flags, rest) = flags(rest.trim_start(), escape);
    (keyword.to_owned(), flags, rest.trim())
}

/// Takes the words that start with `--` off the front; a lone `--` ends them.
fn flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (word, after) = unquoted_word(rest, escape);
        rest = after;
        if word == "--" {
            return (flags, rest);
        }
        flags.push(word);
    }
}

/// The first word with quotes and escapes taken off, and what follows it.
fn unquoted_word(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, &text[at..]),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ if c == escape && quote != Some('\'') => word.extend(chars.next().map(|(_, c)| c)),
            _ => word.push(c),
        }
    }
    (word, "")
}

/// A JSON array of strings; None if the text is not JSON; an error if it holds anything but strings.
fn json(text: &str) -> Result<Option<Vec<String>>, Problem> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Ok(text),
        other => Err(Problem::new(format!("the JSON form takes an array of strings, but it holds {other}"))),
    });
    strings.collect::<Result<_, _>>().map(Some)
}

fn blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

fn blank_delimited(text: &str) -> Vec<String> {
    text.split(blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn whole(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { vec![text.to_owned()] }
}

fn health(text: &str) -> Result<Args, Problem> {
    let (kind, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim_start();
    let list = json(rest)?;
    let is_json = list.is_some();
    let mut args = whole(kind);
    args.extend(list.unwrap_or_else(|| whole(rest)));
    Ok(if is_json { Args::Json(args) } else { Args::Words(args) })
}

/// Words as a shell splits them, quotes and escapes kept.
pub(crate) fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if quoted || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                quoted = false;
                continue;
            }
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                quoted = true;
            }
            Some(q) if c == q => quote = None,
            _ => {}
        }
        if c != escape || quote == Some('\'') {
            word.push(c);
        } else if let Some(next) = chars.next() {
            word.push(c);
            word.push(next);
        }
    }
    if quoted || !word.is_empty() {
        words.push(word);
    }
    words
}

fn pairs(text: &str, keyword: &str, escape: char) -> Result<Vec<(String, String, bool)>, Problem> {
    let words = words(text, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let Some((name, value)) = text.split_once(blank) else {
            let hint = format!("write `{keyword} {first}=value`");
            return Err(Problem::new(format!("{keyword} needs a name and a value")).hint(hint));
        };
        return Ok(vec![(name.to_owned(), value.trim_start_matches(blank).to_owned(), false)]);
    }
    let pair = |word: &String| {
        let hint = "write name=value; a value with blanks needs quotes";
        let problem = || Problem::new(format!("`{word}` has no =")).hint(hint);
        word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned(), true)).ok_or_else(problem)
    };
    words.iter().map(pair).collect()
}
