//! The files read and places in them.

use std::path::PathBuf;
use std::sync::Arc;

use super::diagnostic::{Place, printable};

/// Longest part of a source line that a message shows, in characters.
const SHOWN: usize = 160;

/// A range in one line of one file. Line 0 means "no place".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// Index into [`Sources`].
    pub(crate) file: u32,
    /// From 1.
    pub(crate) line: u32,
    /// From 1, in characters.
    pub(crate) column: u32,
    /// In characters.
    pub(crate) width: u32,
}

#[derive(Debug)]
struct SourceFile {
    name: String,
    text: Arc<str>,
    /// Byte offset of each line.
    lines: Vec<usize>,
}

/// Every file read so far.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    files: Vec<SourceFile>,
}

impl Sources {
    /// Adds a file and gives its number.
    pub(crate) fn add(&mut self, path: PathBuf, text: Arc<str>) -> u32 {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let name = if path.as_os_str() == "-" { "<stdin>".into() } else { path.display().to_string() };
        self.files.push(SourceFile { name: printable(&name), text, lines });
        u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
    }

    /// Text of a line, without its end.
    fn line(&self, span: Span) -> Option<(&SourceFile, &str)> {
        let file = self.files.get(span.file as usize)?;
        let start = *file.lines.get((span.line as usize).checked_sub(1)?)?;
        let end = file.lines.get(span.line as usize).map_or(file.text.len(), |next| next - 1);
        Some((file, file.text.get(start..end)?.trim_end_matches('\r')))
    }

    /// The place of `span`, with its line.
    pub(crate) fn place(&self, span: Span, label: &str) -> Option<Place> {
        let (file, line) = self.line(span)?;
        let column = span.column.max(1) as usize;
        let cut = (column - 1).saturating_sub(SHOWN / 2);
        let cut = if column <= SHOWN / 2 { 0 } else { cut };
        let text: String = line.chars().skip(cut).take(SHOWN).collect();
        let rest = text.chars().count().saturating_sub(column - 1 - cut);
        let text = text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c });
        let text = text.map(|c| if printable(c.encode_utf8(&mut [0; 4])).len() > 4 { '\u{fffd}' } else { c }).collect();
        Some(Place {
            file: file.name.clone(),
            line: span.line as usize,
            column,
            width: (span.width as usize).clamp(1, rest.max(1)),
            label: printable(label),
            text,
            cut,
        })
    }

    /// Narrows `span` to the first `needle` at or after its start on the same line.
    pub(crate) fn narrow(&self, span: Span, needle: &str) -> Span {
        let Some((_, line)) = self.line(span) else { return span };
        let skipped: usize = line.chars().take(span.column.saturating_sub(1) as usize).map(char::len_utf8).sum();
        let Some(at) = line[skipped..].find(needle) else { return span };
        let before = line[skipped..skipped + at].chars().count();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span { column: span.column.saturating_add(count(before)), width: count(needle.chars().count()), ..span }
    }

    /// The first place where a file uses the variable `name`.
    pub(crate) fn variable(&self, file: u32, name: &str) -> Span {
        let text = self.files.get(file as usize).map_or("", |file| &file.text);
        let used = |needle: &str| text.find(needle).map(|at| (text[..at].matches('\n').count() + 1, needle.to_owned()));
        match used(&format!("{{{name}")).or_else(|| used(&format!("${name}"))) {
            Some((line, needle)) => self.narrow(self.whole_line(file, line), &needle),
            None => self.whole_line(file, 1),
        }
    }

    /// A whole line of a file, without its indentation.
    pub(crate) fn whole_line(&self, file: u32, line: usize) -> Span {
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        let span = Span { file, line, column: 1, width: 1 };
        let Some((_, text)) = self.line(span) else { return span };
        let indent = text.chars().take_while(|c| c.is_whitespace()).count();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span { column: count(indent + 1), width: count(text.trim().chars().count().max(1)), ..span }
    }

    /// Text of a line, for hints.
    pub(crate) fn text_of_line(&self, file: u32, line: usize) -> &str {
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        self.line(Span { file, line, column: 1, width: 1 }).map_or("", |(_, text)| text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_around_the_column() {
        let mut sources = Sources::default();
        let text: String = "x".repeat(1000) + "HERE" + &"y".repeat(1000);
        let file = sources.add("f".into(), text.as_str().into());
        let place = sources.place(Span { file, line: 1, column: 1001, width: 4 }, "").unwrap();
        let shown: String = place.text.chars().skip(place.column - 1 - place.cut).take(place.width).collect();
        assert_eq!((shown.as_str(), place.text.chars().count()), ("HERE", 160));
    }

    #[test]
    fn narrow_finds_the_expression() {
        let mut sources = Sources::default();
        let file = sources.add("f".into(), "k: 'é ${A'\n".into());
        let span = sources.narrow(Span { file, line: 1, column: 4, width: 7 }, "${A");
        assert_eq!((span.column, span.width), (7, 3));
        let file = sources.add("e".into(), "X=1\nY=${X} $GONE\n".into());
        let span = sources.variable(file, "GONE");
        assert_eq!((span.line, span.column, span.width), (2, 8, 5));
    }
}
