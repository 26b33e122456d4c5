//! What this layer has to say: errors and warnings with every place involved.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The stack cannot be used.
    Error,
    /// The stack works, but not in the way its author may think.
    Warning,
}

/// What kind of complaint it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file is missing or unreadable.
    File,
    /// Not YAML, or not a valid `.env` file.
    Syntax,
    /// A list where a mapping belongs, and the like.
    Shape,
    /// An attribute nobody knows.
    UnknownKey,
    /// The right shape with an impossible value.
    Value,
    /// A `${…}` that is malformed or requires a value.
    Interpolation,
    /// Files that cannot be merged.
    Merge,
    /// A name that nothing defines.
    Reference,
    /// Something that needs itself.
    Cycle,
    /// Attributes that exclude each other.
    Conflict,
    /// Known to the Compose Specification, not honoured here.
    Unsupported,
    /// Too large, too deep, too many.
    Limit,
}

/// A place in a file, with the line to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// File as the user named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters to mark.
    pub width: usize,
    /// What this place has to do with it; may be empty.
    pub label: String,
    /// Text of the line, shortened around the column where it is very long.
    #[serde(skip)]
    pub text: String,
    /// Characters cut from the start of `text`.
    #[serde(skip)]
    pub cut: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One complaint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// What kind.
    pub kind: Kind,
    /// What is wrong, in one line.
    pub message: String,
    /// Where; the first is the main place.
    pub places: Vec<Place>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(kind: Kind, message: impl AsRef<str>) -> Self {
        Self::new(Severity::Error, kind, message.as_ref())
    }

    /// A warning without a place.
    pub fn warning(kind: Kind, message: impl AsRef<str>) -> Self {
        Self::new(Severity::Warning, kind, message.as_ref())
    }

    fn new(severity: Severity, kind: Kind, message: &str) -> Self {
        Self { severity, kind, message: printable(message), places: Vec::new(), hint: None }
    }

    /// Adds a place.
    #[must_use]
    pub fn at(mut self, place: impl Into<Option<Place>>) -> Self {
        self.places.extend(place.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hint = Some(printable(hint.as_ref()));
        self
    }

    /// Says what to do, where there is something to say.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.map(|hint| printable(&hint)).or(self.hint);
        self
    }

    /// The complaint with its source lines, several lines of text without a newline at the end.
    pub fn render(&self, colour: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let title = level.primary_title(self.message.as_str());
        if self.places.is_empty() {
            let hint = self.hint.as_deref().map(|hint| Group::with_title(Level::HELP.primary_title(hint)));
            let hint = hint.map(|hint| format!("\n  {}", renderer.render(&[hint])));
            return renderer.render(&[Group::with_title(title)]) + &hint.unwrap_or_default();
        }
        let group = title.elements(self.places.iter().enumerate().map(|(index, place)| snippet(place, index == 0)));
        let hint = self.hint.as_deref().map(|hint| Level::HELP.message(hint));
        renderer.render(&[group.elements(hint)])
    }
}

/// One line: `error: file:line:column: message (hint)`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.places.first() {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

fn snippet(place: &Place, primary: bool) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
    let kind = if primary { AnnotationKind::Primary } else { AnnotationKind::Context };
    let byte = |chars: usize| place.text.char_indices().nth(chars).map_or(place.text.len(), |(at, _)| at);
    let start = (place.column - 1).saturating_sub(place.cut);
    let annotation = kind.span(byte(start)..byte(start + place.width.max(1)));
    let annotation = if place.label.is_empty() { annotation } else { annotation.label(place.label.as_str()) };
    Snippet::source(place.text.as_str()).line_start(place.line).path(place.file.as_str()).annotation(annotation)
}

/// All complaints of one load, errors among them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// All of them with their source lines, an empty line between two, a newline at the end.
    pub fn render(&self, colour: bool) -> String {
        let texts: Vec<String> = self.0.iter().map(|diagnostic| diagnostic.render(colour)).collect();
        texts.join("\n\n") + "\n"
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

/// `text` with control and bidirectional formatting characters escaped, so that a file cannot paint the terminal.
pub fn printable(text: &str) -> String {
    let hostile = |c: char| {
        c.is_control() && c != '\n' && c != '\t'
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(hostile) {
        return text.to_owned();
    }
    text.chars().map(|c| if hostile(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            file: "stack.yaml".into(),
            line: 3,
            column: 5,
            width: 5,
            label: "here".into(),
            text: "    imago: nginx".into(),
            cut: 0,
        }
    }

    #[test]
    fn renders_the_line_with_a_marker() {
        let text = Diagnostic::error(Kind::UnknownKey, "unknown attribute `imago`")
            .at(place())
            .hint("did you mean `image`?")
            .render(false);
        assert!(text.contains("error: unknown attribute `imago`"), "{text}");
        assert!(text.contains("stack.yaml:3:5"), "{text}");
        assert!(text.contains("    imago: nginx"), "{text}");
        assert!(text.contains("^^^^^ here"), "{text}");
        assert!(text.contains("did you mean `image`?"), "{text}");
    }

    #[test]
    fn without_a_place_the_hint_follows_the_message() {
        let text = Diagnostic::error(Kind::File, "no stack file").hint("name one with -f").render(false);
        assert_eq!(text, "error: no stack file\n  help: name one with -f");
    }

    #[test]
    fn escapes_what_would_paint_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}"), "a\\u{1b}[2Jb\\u{202e}");
    }
}
