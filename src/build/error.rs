//! What can go wrong in a build, each with its place in the Dockerfile.

use std::fmt;
use std::path::PathBuf;

/// A place in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The Dockerfile as the user named it.
    pub file: String,
    /// 1-based line.
    pub line: usize,
    /// The text of that line.
    pub text: String,
}

/// A mistake in a Dockerfile, or a step that could not be done as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, when a line is at fault.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a place yet.
    pub fn new(message: impl Into<String>) -> Self {
        Self { place: None, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the place, unless a more precise one is known.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write_place(f, place, &self.message)?,
            None => f.write_str(&self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

fn write_place(f: &mut fmt::Formatter<'_>, place: &Place, message: &str) -> fmt::Result {
    const SHOWN: usize = 160;
    write!(f, "{}:{}: {message}", place.file, place.line)?;
    let line: String = place.text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    write!(f, "\n  {:>4} | {}", place.line, line.trim_end())
}

/// Why a build ended without an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Dockerfile is wrong, or a step cannot be done as written.
    #[error(transparent)]
    Problem(#[from] Box<Problem>),
    /// A RUN command ended with another code than 0.
    #[error("{}", render_failed(.place, .command, *.code, .tail))]
    Run {
        /// The RUN instruction.
        place: Place,
        /// The command as written.
        command: String,
        /// Its exit code; 128 + n after signal n.
        code: i32,
        /// The end of its output.
        tail: String,
    },
    /// The image store refused something.
    #[error(transparent)]
    Images(#[from] crate::images::Error),
    /// A RUN step could not be started or watched.
    #[error("{}", render_start(.place, .source))]
    Start {
        /// The RUN instruction.
        place: Place,
        /// Why.
        source: crate::runtime::Error,
    },
    /// The network of RUN steps could not be made or removed.
    #[error("the network of RUN steps: {0}")]
    Net(#[from] crate::net::Error),
    /// A file of the build's own could not be read or written.
    #[error("{action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl Error {
    /// For `map_err` on an operation with a path.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// Gives a problem that has none the place of the instruction under way.
    #[must_use]
    pub(crate) fn at(self, place: &Place) -> Self {
        match self {
            Self::Problem(problem) => Self::from(problem.at(place.clone())),
            other => other,
        }
    }
}

fn render_failed(place: &Place, command: &str, code: i32, tail: &str) -> String {
    let mut text = String::new();
    if !tail.is_empty() {
        text.push_str("the command's last output:\n");
        for line in tail.lines() {
            text.push_str("  > ");
            text.push_str(line);
            text.push('\n');
        }
    }
    let first = command.lines().next().unwrap_or_default();
    let hint = match code {
        125 => "the step could not be started",
        126 => "the program is there but can't be executed",
        127 => "the program isn't in the image of this stage, or not in its PATH",
        137 => "the command was killed; perhaps it ran out of memory",
        _ => "run the stage before this line with `--target` and try the command in it",
    };
    format!(
        "{text}{}:{}: RUN failed with exit code {code}\n  {:>4} | {}\n  command: {first}\n  hint: {hint}",
        place.file, place.line, place.line, place.text
    )
}

fn render_start(place: &Place, source: &crate::runtime::Error) -> String {
    format!("{}:{}: the step can't be run: {source}\n  {:>4} | {}", place.file, place.line, place.line, place.text)
}
