//! Log lines as `up` and `logs` print them: `name-N  | line`, each container in a colour of its own.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use super::ui::Ui;
use crate::engine::logs::{LogLine, Stream};
use crate::engine::state::Record;

/// Docker compose's rotation.
const COLOURS: [AnsiColor; 12] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
    AnsiColor::BrightYellow,
    AnsiColor::BrightGreen,
    AnsiColor::BrightMagenta,
    AnsiColor::BrightBlue,
    AnsiColor::Red,
    AnsiColor::BrightRed,
];

/// How lines look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Colour the names.
    pub(crate) colour: bool,
    /// Print the names.
    pub(crate) prefix: bool,
    /// Print when each line was written.
    pub(crate) timestamps: bool,
}

/// Prints the lines of several containers.
#[derive(Debug)]
pub(crate) struct Printer {
    look: Look,
    styles: BTreeMap<String, Style>,
    width: usize,
    out: BufWriter<io::Stdout>,
    err: BufWriter<io::Stderr>,
}

impl Printer {
    /// `names`: those expected, so that they line up from the first line on.
    pub(crate) fn new(ui: Ui, look: Look, names: impl IntoIterator<Item = String>) -> Self {
        let look = Look { colour: look.colour && ui.out_colour, ..look };
        let (out, err) = (BufWriter::new(io::stdout()), BufWriter::new(io::stderr()));
        let mut printer = Self { look, styles: BTreeMap::new(), width: 0, out, err };
        for name in names {
            printer.style(&name);
        }
        printer
    }

    /// Prints a line to the output it came from.
    pub(crate) fn line(&mut self, name: &str, line: &LogLine) -> io::Result<()> {
        let head = self.head(name, line);
        match line.stream {
            Stream::Stdout => writeln!(self.out, "{head}{}", line.text),
            Stream::Stderr => writeln!(self.err, "{head}{}", line.text),
        }
    }

    /// Prints what happened to a container: `name exited with code 0`.
    pub(crate) fn status(&mut self, name: &str, what: &str) -> io::Result<()> {
        let style = self.style(name);
        let text = format!("{name} {what}");
        writeln!(self.out, "{}", painted(self.look.colour, style, &text))
    }

    /// Shows what is printed so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.err.flush()
    }

    fn head(&mut self, name: &str, line: &LogLine) -> String {
        let time = if self.look.timestamps { format!("{:.9} ", line.time) } else { String::new() };
        if !self.look.prefix {
            return time;
        }
        let style = self.style(name);
        let padded = format!("{name}{:pad$} | ", "", pad = self.width.saturating_sub(name.width()) + 1);
        painted(self.look.colour, style, &padded) + &time
    }

    /// The name's style; a new name takes the next of the rotation.
    fn style(&mut self, name: &str) -> Style {
        if let Some(style) = self.styles.get(name) {
            return *style;
        }
        let style = COLOURS[self.styles.len() % COLOURS.len()].on_default();
        self.styles.insert(name.to_owned(), style);
        self.width = self.width.max(name.width());
        style
    }
}

fn painted(colour: bool, style: Style, text: &str) -> String {
    if colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// A container's name in front of its lines: without the project, unless it is a name of its own.
pub(crate) fn short_name(record: &Record) -> String {
    let usual = |separator| format!("{}{separator}{}", record.service, record.number);
    let own = record.name.strip_prefix(&record.project).and_then(|rest| rest.strip_prefix(['-', '_']));
    let own = own.filter(|rest| ['-', '_'].into_iter().any(|separator| *rest == usual(separator)));
    own.unwrap_or(&record.name).to_owned()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn printer(look: Look) -> Printer {
        let ui = Ui { out_colour: true, err_colour: true, ..Ui::PLAIN };
        Printer::new(ui, look, ["a-1".to_owned(), "longer-1".to_owned()])
    }

    fn line() -> LogLine {
        LogLine { stream: Stream::Stdout, time: Timestamp::from_second(0).unwrap(), text: "x".into() }
    }

    #[test]
    fn prefixes_line_up() {
        let mut plain = printer(Look { colour: false, prefix: true, timestamps: false });
        assert_eq!(plain.head("a-1", &line()), "a-1       | ");
        assert_eq!(plain.head("longer-1", &line()), "longer-1  | ");
        let mut timed = printer(Look { colour: false, prefix: false, timestamps: true });
        assert_eq!(timed.head("a-1", &line()), "1970-01-01T00:00:00.000000000Z ");
    }

    #[test]
    fn colours_rotate() {
        let mut printer = printer(Look { colour: true, prefix: true, timestamps: false });
        assert!(printer.head("a-1", &line()).starts_with("\u{1b}[36m"));
        let first = printer.style("a-1");
        for number in 0..10 {
            assert_ne!(printer.style(&format!("c-{number}")), first);
        }
        assert_eq!(printer.style("c-10"), first);
    }
}
