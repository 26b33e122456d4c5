//! The caller's terminal: its size, questions to who sits there, and raw mode for as long as a program in a container
//! uses it.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use rustix::termios::{self, OptionalActions, Termios, Winsize};

use super::error::Error;

/// Columns and rows of the terminal at standard error.
pub(crate) fn size_of_stderr() -> Option<(u16, u16)> {
    size(io::stderr())
}

/// Columns and rows of the terminal at standard output, else at standard input.
pub(crate) fn size_of_screen() -> Option<(u16, u16)> {
    size(io::stdout()).or_else(|| size(io::stdin()))
}

fn size(terminal: impl AsFd) -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(terminal).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Makes the terminal behind `master` as large as the caller's. The kernel tells the program there.
pub(crate) fn resize(master: impl AsFd) -> io::Result<()> {
    let Some((columns, rows)) = size_of_screen() else { return Ok(()) };
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(termios::tcsetwinsize(master, size)?)
}

/// Every key goes to the program, none to this process; ended by dropping it.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Switches the terminal at standard input to raw mode; none if there is no terminal.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !termios::isatty(&stdin) {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

/// What is typed isn't shown; ended by dropping it.
#[derive(Debug)]
pub(crate) struct Silence {
    before: Option<Termios>,
}

impl Silence {
    /// Switches echo off at standard input, if that is a terminal.
    pub(crate) fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        if !termios::isatty(&stdin) {
            return Ok(Self { before: None });
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut silent = before.clone();
        silent.local_modes.remove(termios::LocalModes::ECHO);
        termios::tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
        Ok(Self { before: Some(before) })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Where the terminal is gone there is nothing to restore.
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Flush, before);
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to restore.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Asks a question; without a terminal to answer at, that is an error.
pub(crate) fn agreed(question: &str) -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::new("there is no terminal to ask at").hint("agree beforehand with `-f`"));
    }
    write!(io::stderr(), "{question} [yN] ")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
