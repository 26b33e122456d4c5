//! Physical lines to logical ones: directives, comments, continuations and heredocs.

use super::error::{Place, Problem};
use super::expand::Expander;
use super::statement;

/// Longest Dockerfile that is read, in bytes.
const MAX_TEXT: usize = 4 << 20;
/// Most instructions of one Dockerfile.
const MAX_INSTRUCTIONS: usize = 10_000;
/// Frontends whose language this parser speaks.
const KNOWN_FRONTENDS: [&str; 4] =
    ["docker/dockerfile", "docker.io/docker/dockerfile", "docker/dockerfile-upstream", "dockerfile.v0"];

/// A Dockerfile's name and lines, from which places are made.
#[derive(Debug, Clone)]
pub(crate) struct Source<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(name: &'a str, text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { name, lines: text.split_inclusive('\n').collect() }
    }

    /// The place of a 1-based line.
    pub(crate) fn place(&self, line: usize) -> Place {
        let text = line.checked_sub(1).and_then(|index| self.lines.get(index)).copied().unwrap_or_default();
        Place { file: self.name.to_owned(), line, text: text.trim_end().to_owned() }
    }
}

/// One instruction's text with its continuations joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    /// 1-based line where it starts.
    pub(crate) start: usize,
    pub(crate) heredocs: Vec<Heredoc>,
}

/// The document after `<<WORD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, quotes removed.
    pub name: String,
    /// True if variables are expanded in it (the word was not quoted).
    pub expand: bool,
    /// True for `<<-`: leading tabs are removed.
    pub chomp: bool,
    /// The lines up to the word, with their newlines.
    pub content: String,
}

impl Heredoc {
    /// The content as a shell would feed it: with `<<-`, without leading tabs.
    pub fn chomped(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// What the first pass finds.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    pub(crate) escape: char,
    pub(crate) all: Vec<Line>,
    /// Lines on which an instruction has an empty continuation.
    pub(crate) empty_continuations: Vec<usize>,
}

/// Splits a Dockerfile into logical lines.
pub(crate) fn split(source: &Source<'_>) -> Result<Lines, Problem> {
    if source.lines.iter().map(|line| line.len()).sum::<usize>() > MAX_TEXT {
        return Err(Problem::new(format!("{} is larger than {} MiB", source.name, MAX_TEXT >> 20)));
    }
    let mut pass = Pass {
        source,
        next: 0,
        found: Lines { escape: directives(source)?, all: Vec::new(), empty_continuations: Vec::new() },
    };
    while let Some(raw) = pass.take() {
        pass.logical(raw)?;
        if pass.found.all.len() > MAX_INSTRUCTIONS {
            let message = format!("more than {MAX_INSTRUCTIONS} instructions");
            return Err(Problem::new(message).at(source.place(pass.next)));
        }
    }
    if pass.found.all.is_empty() {
        let hint = "a Dockerfile starts with `FROM image`";
        return Err(Problem::new(format!("{} has no instructions", source.name)).hint(hint));
    }
    Ok(pass.found)
}

struct Pass<'s, 'a> {
    source: &'s Source<'a>,
    next: usize,
    found: Lines,
}

impl<'a> Pass<'_, 'a> {
    fn take(&mut self) -> Option<&'a str> {
        let line = self.source.lines.get(self.next).copied();
        self.next += usize::from(line.is_some());
        line
    }

    fn logical(&mut self, first: &'a str) -> Result<(), Problem> {
        let start = self.next;
        let first = trim_newline(first).trim_start();
        if first.is_empty() || first.starts_with('#') {
            return Ok(());
        }
        let (part, mut open) = continuation(first, self.found.escape);
        let mut text = part.to_owned();
        let mut empty = false;
        while open {
            let Some(raw) = self.take() else { break };
            let raw = trim_newline(raw);
            if raw.trim_start().starts_with('#') {
                continue;
            }
            if raw.trim_start().is_empty() {
                empty = true;
                continue;
            }
            let (part, more) = continuation(raw, self.found.escape);
            text.push_str(part);
            open = more;
        }
        if text.trim().is_empty() {
            return Ok(());
        }
        if empty {
            self.found.empty_continuations.push(start);
        }
        let heredocs = self.heredocs(&text, start)?;
        self.found.all.push(Line { text, start, heredocs });
        Ok(())
    }

    fn heredocs(&mut self, text: &str, start: usize) -> Result<Vec<Heredoc>, Problem> {
        if !text.contains("<<") || !statement::can_have_heredoc(text, self.found.escape) {
            return Ok(Vec::new());
        }
        let mut docs = announced(text).map_err(|problem| problem.at(self.source.place(start)))?;
        for doc in &mut docs {
            loop {
                let Some(raw) = self.take() else {
                    let hint = format!("end it with a line that holds only `{}`", doc.name);
                    let problem = Problem::new(format!("the heredoc <<{} is not closed", doc.name)).hint(hint);
                    return Err(problem.at(self.source.place(start)));
                };
                let line = trim_newline(raw);
                let line = if doc.chomp { line.trim_start_matches('\t') } else { line };
                if line == doc.name {
                    break;
                }
                doc.content.push_str(raw);
            }
        }
        Ok(docs)
    }
}

/// The heredocs that a line announces, in order, their content still empty.
fn announced(text: &str) -> Result<Vec<Heredoc>, Problem> {
    let words = Expander::raw('\\').words(text).unwrap_or_default();
    words.iter().filter_map(|word| heredoc_word(word).transpose()).collect()
}

/// Reads a word of the form `<<NAME`, `<<-NAME`, `3<<"NAME"`.
pub(crate) fn heredoc_word(word: &str) -> Result<Option<Heredoc>, Problem> {
    let Some(rest) = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<") else {
        return Ok(None);
    };
    let (chomp, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let unquoted = Expander::unset_kept('\\').words(rest).map_err(Problem::new)?;
    let mut quoted = Expander::unset_kept('\\');
    quoted.raw_quotes = true;
    let quoted = quoted.words(rest).map_err(Problem::new)?;
    let ([name], [raw]) = (unquoted.as_slice(), quoted.as_slice()) else { return Ok(None) };
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = quotes(name) == quotes(raw);
    Ok(Some(Heredoc { name: name.clone(), expand, chomp, content: String::new() }))
}

fn trim_newline(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// The line without a trailing escape character that continues it, and whether there was one.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}

/// Reads `# key=value` lines at the top and returns the escape character.
fn directives(source: &Source<'_>) -> Result<char, Problem> {
    let mut escape = None;
    let mut seen = Vec::new();
    for (index, raw) in source.lines.iter().enumerate() {
        let line = trim_newline(raw).trim_start();
        if index == 0 && line.starts_with("#!") {
            continue;
        }
        let Some((key, value)) = directive(line) else { break };
        let at = |problem: Problem| problem.at(source.place(index + 1));
        if seen.contains(&key) {
            return Err(at(Problem::new(format!("the directive `{key}` is given twice"))));
        }
        match key.as_str() {
            "escape" => match value {
                "\\" => escape = Some('\\'),
                "`" => escape = Some('`'),
                _ => return Err(at(Problem::new(format!("the escape character `{value}` is neither \\ nor `")))),
            },
            "syntax" => known_frontend(value).map_err(at)?,
            _ => {}
        }
        seen.push(key);
    }
    Ok(escape.unwrap_or('\\'))
}

fn directive(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.strip_prefix('#')?.split_once('=')?;
    let key = key.trim();
    let named = key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.chars().all(|c| c.is_ascii_alphanumeric());
    let known = ["escape", "syntax", "check"].contains(&key.to_ascii_lowercase().as_str());
    (named && known).then(|| (key.to_ascii_lowercase(), value.trim()))
}

/// Refuses a `# syntax` that names another language: a frontend is foreign code, and is never run.
pub(crate) fn known_frontend(value: &str) -> Result<(), Problem> {
    let name = value.split_whitespace().next().unwrap_or_default();
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    if KNOWN_FRONTENDS.contains(&name) {
        return Ok(());
    }
    let hint =
        "remove the line; the language of docker/dockerfile is built in, other frontends are programs and not run";
    Err(Problem::new(format!("`{value}` is not a syntax that can be built here")).hint(hint))
}
