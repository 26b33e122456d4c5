//! The one place where errors become text and exit codes.

use std::error::Error as StdError;
use std::io::{self, Write};

use super::github;
use super::ui::{self, ProgressMode, Ui};
use crate::engine::control::Failure;
use crate::spec::{Diagnostic, Diagnostics, Kind, Origin, Place};
use crate::{build, images};

/// Why a verb failed. Made from any layer's error by `?`.
#[derive(Debug)]
pub(crate) struct Error {
    source: Box<dyn StdError + Send + Sync>,
    context: Option<String>,
    hint: Option<String>,
    place: Option<Box<Place>>,
}

/// A verb's exit code, or why it failed.
pub(crate) type Outcome = Result<u8, Error>;

/// A message that this layer makes itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Message(String);

impl Error {
    /// An error with exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Message(message.into()).into()
    }

    /// Says what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what was being done.
    #[must_use]
    pub(crate) fn context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    /// Shows the line of the stack file that asks for what failed, where the failure names it.
    #[must_use]
    pub(crate) fn located(mut self, origin: &Origin) -> Self {
        let failure = self.source.downcast_ref::<Failure>().filter(|failure| !failure.path.is_empty());
        if let (None, Some(failure)) = (&self.place, failure) {
            let path: Vec<&str> = failure.path.iter().map(String::as_str).collect();
            self.place = origin.place(&path).map(Box::new);
        }
        self
    }

    /// Prints the error and returns the exit code. A closed pipe is no failure: the reader had enough.
    pub(crate) fn report(&self, ui: Ui) -> u8 {
        if self.is_broken_pipe() {
            return 0;
        }
        let mut text = self.render(ui);
        if ui.github && ui.progress != ProgressMode::Json {
            text.extend(self.annotations());
        }
        // Nothing is left to do for a user who cannot be told.
        let _ = ui.err().write_all(text.as_bytes());
        self.exit_code()
    }

    /// Whether the user can agree to what was refused.
    pub(crate) fn asks(&self) -> bool {
        self.source.downcast_ref::<Failure>().is_some_and(|failure| failure.asks)
    }

    /// The message without decoration.
    pub(crate) fn message(&self) -> String {
        self.lines().join(": ")
    }

    fn exit_code(&self) -> u8 {
        let failure = self.source.downcast_ref::<Failure>();
        let of_failure = failure.and_then(|failure| u8::try_from(failure.code).ok()).filter(|code| *code != 0);
        of_failure.unwrap_or(1)
    }

    fn is_broken_pipe(&self) -> bool {
        let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        self.source.downcast_ref::<io::Error>().is_some_and(broken)
            || self
                .source
                .downcast_ref::<serde_json::Error>()
                .is_some_and(|error| error.io_error_kind() == Some(io::ErrorKind::BrokenPipe))
    }

    fn render(&self, ui: Ui) -> String {
        if ui.progress == ProgressMode::Json {
            let message = [self.message(), self.hint_text().unwrap_or_default()];
            let message = message.join("\n");
            return format!("{}\n", serde_json::json!({"error": true, "message": message.trim_end()}));
        }
        if let Some(all) = self.source.downcast_ref::<Diagnostics>() {
            return all.render(ui.err_colour);
        }
        if let Some(one) = self.source.downcast_ref::<Diagnostic>() {
            return one.render(ui.err_colour) + "\n";
        }
        if let Some(place) = &self.place {
            let diagnostic = Diagnostic::error(Kind::Value, self.lines().join("\n")).at(Place::clone(place));
            return diagnostic.maybe_hint(self.hint_text()).render(ui.err_colour) + "\n";
        }
        let mut text = format!("{} ", ui.styled(ui::ERROR, "error:"));
        for (number, line) in self.lines().iter().flat_map(|part| part.lines()).enumerate() {
            let indent = if number == 0 { "" } else { "  " };
            text.extend([indent, line, "\n"]);
        }
        for (number, line) in self.hint_text().iter().flat_map(|hint| hint.lines()).enumerate() {
            let label = if number == 0 { ui.styled(ui::HELP, "help:") } else { "     ".into() };
            text.extend(["  ", &label, " ", line, "\n"]);
        }
        text
    }

    /// The error as GitHub shows it beside the lines that it is about.
    fn annotations(&self) -> Vec<String> {
        if let Some(all) = self.source.downcast_ref::<Diagnostics>() {
            return all.0.iter().map(github::annotation).collect();
        }
        if let Some(one) = self.source.downcast_ref::<Diagnostic>() {
            return vec![github::annotation(one)];
        }
        let place = self.place.as_deref().cloned();
        let diagnostic = Diagnostic::error(Kind::Value, self.lines().join(": ")).at(place);
        vec![github::annotation(&diagnostic.maybe_hint(self.hint_text()))]
    }

    fn hint_text(&self) -> Option<String> {
        let failure = self.source.downcast_ref::<Failure>();
        let build = self.source.downcast_ref::<build::Error>().and_then(|error| match error {
            build::Error::Images(error) => Some(error),
            _ => None,
        });
        let image = self.source.downcast_ref::<images::Error>().or(build).and_then(images::Error::hint);
        self.hint.clone().or_else(|| failure.and_then(|failure| failure.hint.clone())).or(image)
    }

    /// The message and its causes, a cause that the message already ends with left out.
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.context.iter().cloned().collect();
        let mut next: Option<&dyn StdError> = Some(self.source.as_ref());
        while let Some(error) = next {
            let text = error.to_string();
            if !lines.last().is_some_and(|line| line.ends_with(&text)) {
                lines.push(text);
            }
            next = error.source();
        }
        lines
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Self { source: Box::new(error), context: None, hint: None, place: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UI: Ui = Ui::PLAIN;

    #[test]
    fn an_error_says_what_why_and_what_to_do() {
        let error = Error::from(io::Error::other("disk on fire")).context("cannot write `x`").hint("buy a new one");
        assert_eq!(error.render(UI), "error: cannot write `x`\n  disk on fire\n  help: buy a new one\n");
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn a_failure_brings_its_code_and_hint() {
        let error = Error::from(Failure::new("no").hint("try again").code(126));
        assert_eq!(error.render(UI), "error: no\n  help: try again\n");
        assert_eq!(error.exit_code(), 126);
    }

    #[test]
    fn a_closed_pipe_is_success() {
        assert_eq!(Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).report(UI), 0);
    }

    #[test]
    fn json_mode_has_json_errors() {
        let ui = Ui { progress: ProgressMode::Json, ..UI };
        assert_eq!(Error::new("no").render(ui), "{\"error\":true,\"message\":\"no\"}\n");
    }
}
