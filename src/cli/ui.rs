//! How to talk to the user: data on standard output, everything else on standard error, colours on terminals only.

use std::fmt::Display;
use std::io::{self, IsTerminal, StderrLock, StdoutLock};

use anstyle::{AnsiColor, Style};

use super::github;
use crate::spec::Diagnostic;

/// When to use colours and terminal control.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ansi {
    /// Never
    Never,
    /// Always
    Always,
    /// On terminals
    #[default]
    Auto,
}

/// How to show progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProgressMode {
    /// Redrawn on a terminal, lines elsewhere
    #[default]
    Auto,
    /// Redrawn in place
    Tty,
    /// One line per event
    Plain,
    /// One JSON object per event
    Json,
    /// None
    Quiet,
}

/// What the two output streams can do and how progress is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ui {
    /// Colours on standard output.
    pub(crate) out_colour: bool,
    /// Colours on standard error.
    pub(crate) err_colour: bool,
    /// Never [`ProgressMode::Auto`].
    pub(crate) progress: ProgressMode,
    /// In a job of GitHub Actions: groups and annotations.
    pub(crate) github: bool,
    /// Progress goes to standard output.
    pub(crate) status_on_stdout: bool,
}

impl Ui {
    /// No colours, a line per step.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self {
        out_colour: false,
        err_colour: false,
        progress: ProgressMode::Plain,
        github: false,
        status_on_stdout: false,
    };

    /// Flags first, then `COMPOSE_ANSI`, `COMPOSE_PROGRESS` and `NO_COLOR`, then what the streams are. `CI=true` says that
    /// nobody looks on: nothing is redrawn.
    pub(crate) fn new(ansi: Option<Ansi>, progress: Option<ProgressMode>) -> Self {
        let ansi = ansi.or_else(|| from_env("COMPOSE_ANSI")).unwrap_or_default();
        let progress = progress.or_else(|| from_env("COMPOSE_PROGRESS")).unwrap_or_default();
        let plain_wanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let colour = |terminal: bool| match ansi {
            Ansi::Never => false,
            Ansi::Always => true,
            Ansi::Auto => terminal && !plain_wanted && !dumb,
        };
        let err_terminal = io::stderr().is_terminal();
        let status_on_stdout = super::flag_from_env("COMPOSE_STATUS_STDOUT");
        let status_terminal = if status_on_stdout { io::stdout().is_terminal() } else { err_terminal };
        let redraw = match ansi {
            Ansi::Never => false,
            Ansi::Always => true,
            Ansi::Auto => status_terminal && !dumb && !super::flag_from_env("CI"),
        };
        let github = super::flag_from_env("GITHUB_ACTIONS");
        let progress = match progress {
            ProgressMode::Auto if redraw => ProgressMode::Tty,
            ProgressMode::Auto => ProgressMode::Plain,
            chosen => chosen,
        };
        let out_colour = colour(io::stdout().is_terminal());
        Self { out_colour, err_colour: colour(err_terminal), progress, github, status_on_stdout }
    }

    /// Standard output, for data.
    #[expect(clippy::unused_self, reason = "output goes through the one who decides on its look")]
    pub(crate) fn out(self) -> StdoutLock<'static> {
        io::stdout().lock()
    }

    /// Standard error, for everything else.
    #[expect(clippy::unused_self, reason = "output goes through the one who decides on its look")]
    pub(crate) fn err(self) -> StderrLock<'static> {
        io::stderr().lock()
    }

    /// Where progress goes: standard error, or with `COMPOSE_STATUS_STDOUT` standard output.
    pub(crate) fn status(self) -> Box<dyn io::Write> {
        if self.status_on_stdout { Box::new(self.out()) } else { Box::new(self.err()) }
    }

    /// Warnings of the stack file on standard error, with the lines that they are about.
    pub(crate) fn warn_all(self, warnings: &[Diagnostic]) -> io::Result<()> {
        use io::Write;
        for warning in warnings {
            writeln!(self.err(), "{}", warning.render(self.err_colour))?;
            if self.github {
                write!(self.err(), "{}", github::annotation(warning))?;
            }
        }
        Ok(())
    }

    /// `text` in `style` if standard error shows colours.
    pub(crate) fn styled(self, style: Style, text: impl Display) -> String {
        if self.err_colour { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    /// `text` in `style` if standard output shows colours.
    pub(crate) fn styled_out(self, style: Style, text: impl Display) -> String {
        if self.out_colour { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    /// `warning: text` on standard error.
    pub(crate) fn warn(self, text: impl Display) -> io::Result<()> {
        use io::Write;
        writeln!(self.err(), "{} {text}", self.styled(WARNING, "warning:"))
    }
}

/// Style of `error:` and ✘.
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Style of `warning:` and !.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// Style of `help:`.
pub(crate) const HELP: Style = AnsiColor::Cyan.on_default().bold();
/// Style of ✔.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();

/// The value of an environment variable that is one of an argument's values; any other is ignored.
fn from_env<T: clap::ValueEnum>(name: &str) -> Option<T> {
    T::from_str(&std::env::var(name).ok()?, true).ok()
}
