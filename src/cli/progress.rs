//! Progress on standard error (`COMPOSE_STATUS_STDOUT`: output): redrawn in place on a terminal, else a line or a JSON object per step.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::json;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::terminal;
use super::ui::{self, ProgressMode, Ui};
use crate::engine::control::{Action, Event, Kind};

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Under way.
    Working,
    /// As it should be.
    Done,
    /// Something to know.
    Warning,
    /// Failed.
    Failed,
}

impl Stage {
    /// The word of docker compose's JSON lines.
    fn word(self) -> &'static str {
        match self {
            Self::Working => "Working",
            Self::Done => "Done",
            Self::Warning => "Warning",
            Self::Failed => "Error",
        }
    }
}

/// Shows the steps of one command.
#[derive(Debug)]
pub(crate) struct Progress {
    ui: Ui,
    title: &'static str,
    rows: Vec<Row>,
    /// Lines on the terminal that the next drawing replaces.
    drawn: usize,
    dirty: bool,
    closed: bool,
    begun: Instant,
    /// Warnings about the project as a whole, for the end.
    warnings: Vec<String>,
    /// A group of GitHub's is open.
    grouped: bool,
}

impl Drop for Progress {
    fn drop(&mut self) {
        // After an error: what follows is not of this group.
        let _ = self.close_group();
    }
}

#[derive(Debug)]
struct Row {
    id: String,
    text: String,
    stage: Stage,
    begun: Instant,
    ended: Option<Instant>,
}

/// Columns that the state of a transfer takes, with its rate and the time left, and those of a layer's name.
const TRANSFER: usize = 52;
const LAYER: usize = 14;

/// Time between two drawings.
pub(crate) const FRAME: Duration = Duration::from_millis(100);

impl Progress {
    /// `title` is the verb.
    pub(crate) fn new(ui: Ui, title: &'static str) -> Self {
        let begun = Instant::now();
        let (rows, warnings) = (Vec::new(), Vec::new());
        Self { ui, title, rows, drawn: 0, dirty: false, closed: false, begun, warnings, grouped: false }
    }

    /// Whether [`Self::tick`] has something to do every [`FRAME`].
    pub(crate) fn is_live(&self) -> bool {
        self.ui.progress == ProgressMode::Tty && !self.closed
    }

    /// Shows what a supervisor reports.
    pub(crate) fn event(&mut self, event: &Event) -> io::Result<()> {
        if let Action::Warning { message } = &event.action
            && event.name.is_empty()
        {
            self.warnings.push(message.clone());
            return Ok(());
        }
        let kind = match event.kind {
            Kind::Network => "Network",
            Kind::Volume => "Volume",
            Kind::Container => "Container",
        };
        let id = format!("{kind} {}", event.name);
        match describe(&event.action) {
            Some((stage, text)) => self.step(&id, stage, &text),
            None => Ok(()),
        }
    }

    /// A step `id` is now at `stage`, which `text` describes.
    pub(crate) fn step(&mut self, id: &str, stage: Stage, text: &str) -> io::Result<()> {
        self.open_group()?;
        let mut err = self.ui.status();
        match self.ui.progress {
            _ if self.closed => Ok(()),
            ProgressMode::Quiet => Ok(()),
            ProgressMode::Json => writeln!(err, "{}", json!({"id": id, "status": stage.word(), "text": text})),
            ProgressMode::Auto | ProgressMode::Plain => writeln!(err, " {id}  {text} "),
            ProgressMode::Tty => {
                self.update(id, stage, text);
                Ok(())
            }
        }
    }

    /// A step goes on, as `text` says: shown where steps are redrawn.
    pub(crate) fn live(&mut self, id: &str, text: &str) -> io::Result<()> {
        if self.is_live() { self.step(id, Stage::Working, text) } else { Ok(()) }
    }

    /// Output of a step, such as a line that a build's command wrote. Not shown where steps are redrawn.
    pub(crate) fn detail(&mut self, id: &str, line: &str) -> io::Result<()> {
        self.open_group()?;
        let mut err = self.ui.status();
        match self.ui.progress {
            ProgressMode::Json => {
                writeln!(err, "{}", json!({"id": id, "status": "Working", "text": "", "details": line}))
            }
            ProgressMode::Auto | ProgressMode::Plain => writeln!(err, " {id}  {line}"),
            ProgressMode::Quiet | ProgressMode::Tty => Ok(()),
        }
    }

    /// Redraws what has changed.
    pub(crate) fn tick(&mut self) -> io::Result<()> {
        let working = self.rows.iter().any(|row| row.ended.is_none());
        if self.is_live() && (self.dirty || working) { self.draw(false) } else { Ok(()) }
    }

    /// Draws a last time, all rows; later steps are not shown.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        let draws = self.is_live() && !self.rows.is_empty();
        self.closed = true;
        let result = if draws { self.draw(true) } else { self.close_group() };
        self.warnings.drain(..).try_for_each(|warning| self.ui.warn(warning))?;
        result
    }

    /// On GitHub, the lines of a command can be folded.
    fn open_group(&mut self) -> io::Result<()> {
        let lines = matches!(self.ui.progress, ProgressMode::Auto | ProgressMode::Plain);
        if !self.ui.github || !lines || self.closed || self.grouped {
            return Ok(());
        }
        self.grouped = true;
        writeln!(self.ui.status(), "::group::stack {}", self.title)
    }

    fn close_group(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.grouped) { writeln!(self.ui.status(), "::endgroup::") } else { Ok(()) }
    }

    fn update(&mut self, id: &str, stage: Stage, text: &str) {
        let now = Instant::now();
        let index = self.rows.iter().position(|row| row.id == id).unwrap_or_else(|| {
            let row = Row { id: id.into(), text: String::new(), stage, begun: now, ended: None };
            self.rows.push(row);
            self.rows.len() - 1
        });
        let row = &mut self.rows[index];
        row.text = text.lines().next().unwrap_or_default().replace(char::is_control, " ");
        row.stage = stage;
        row.ended = (stage != Stage::Working).then_some(now);
        self.dirty = true;
    }

    fn draw(&mut self, last: bool) -> io::Result<()> {
        let (columns, lines) = terminal::size_of_stderr().unwrap_or((80, 24));
        let room = if last { usize::MAX } else { usize::from(lines).saturating_sub(2).max(1) };
        let mut shown: Vec<&Row> = self.rows.iter().collect();
        if shown.len() > room {
            // What fails or still goes on matters most; the sort keeps the order within each of both groups.
            shown.sort_by_key(|row| row.stage == Stage::Done);
            shown.truncate(room);
        }
        let ids = self.rows.iter().map(|row| row.id.width()).max().unwrap_or(0);
        let texts = self.rows.iter().map(|row| row.text.width()).max().unwrap_or(0);
        let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
        let done = self.rows.iter().filter(|row| row.ended.is_some()).count();
        let mut screen = format!("{up}\x1b[2K[+] {} {done}/{}\n", self.title, self.rows.len());
        for row in &shown {
            screen += "\x1b[2K";
            screen += &self.line(row, (ids, texts), usize::from(columns));
            screen.push('\n');
        }
        self.drawn = shown.len() + 1;
        self.dirty = false;
        let mut err = self.ui.status();
        err.write_all(screen.as_bytes())?;
        err.flush()
    }

    /// ` ✔ Container x-a-1  Started   0.3s`, cut to the terminal's width.
    fn line(&self, row: &Row, (ids, texts): (usize, usize), columns: usize) -> String {
        const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
        let frame = self.begun.elapsed().as_millis() / FRAME.as_millis() % SPINNER.len() as u128;
        let (mark, style) = match row.stage {
            Stage::Working if self.closed => ("·", ui::HELP),
            Stage::Working => (SPINNER[usize::try_from(frame).unwrap_or(0)], ui::HELP),
            Stage::Done => ("✔", ui::GOOD),
            Stage::Warning => ("!", ui::WARNING),
            Stage::Failed => ("✘", ui::ERROR),
        };
        let time = format!("{:.1}s", row.ended.unwrap_or_else(Instant::now).duration_since(row.begun).as_secs_f64());
        // Mark, two blanks, two between the columns and one at the end take 8 columns.
        let room = columns.saturating_sub(time.width() + 8);
        let texts = texts.min((room / 2).max(TRANSFER)).min(room.saturating_sub(LAYER));
        let id = cut(&row.id, ids.min(room - texts));
        let text = cut(&row.text, room.saturating_sub(id.width()));
        let (word, blanks) = text.split_at(text.trim_end().len());
        let word = if row.stage == Stage::Working { word.to_owned() } else { self.ui.styled(style, word) };
        format!(" {} {id}  {word}{blanks}  {time}", self.ui.styled(style, mark))
    }
}

/// `text` padded or cut to `width` columns.
fn cut(text: &str, width: usize) -> String {
    let mut cut = String::new();
    let mut used = 0;
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide > width {
            break;
        }
        used += wide;
        cut.push(c);
    }
    cut.extend(std::iter::repeat_n(' ', width - used));
    cut
}

/// Docker compose's word for what happened; none for what belongs to a container's own life.
fn describe(action: &Action) -> Option<(Stage, String)> {
    use Stage::{Done, Failed, Warning, Working};
    let (stage, word) = match action {
        Action::Creating => (Working, "Creating"),
        Action::Created => (Done, "Created"),
        Action::Running => (Done, "Running"),
        Action::Recreate => (Working, "Recreate"),
        Action::Recreated => (Done, "Recreated"),
        Action::Starting => (Working, "Starting"),
        Action::Started => (Done, "Started"),
        Action::Waiting => (Working, "Waiting"),
        Action::Healthy => (Done, "Healthy"),
        Action::Unhealthy => (Failed, "Unhealthy"),
        Action::Completed => (Done, "Exited"),
        Action::Stopping => (Working, "Stopping"),
        Action::Stopped => (Done, "Stopped"),
        Action::Killing => (Working, "Killing"),
        Action::Killed => (Done, "Killed"),
        Action::Restarting => (Working, "Restarting"),
        Action::Restarted => (Done, "Restarted"),
        Action::Paused => (Done, "Paused"),
        Action::Unpaused => (Done, "Unpaused"),
        Action::Removing => (Working, "Removing"),
        Action::Removed => (Done, "Removed"),
        Action::Error { .. } => (Failed, "Error"),
        Action::Warning { message } => return Some((Warning, format!("Warning: {message}"))),
        Action::Died { .. } => return None,
    };
    Some((stage, word.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fit_the_terminal() {
        let ui = Ui { progress: ProgressMode::Tty, ..Ui::PLAIN };
        let mut progress = Progress::new(ui, "up");
        progress.update("Container a-very-long-project-name-web-1", Stage::Done, "Started");
        for columns in [20, 40, 80] {
            let line = progress.line(&progress.rows[0], (40, 7), columns);
            assert!(line.width() < columns, "{columns}: {line}");
        }
        let line = progress.line(&progress.rows[0], (40, 7), 80);
        assert!(line.contains("web-1  Started ") && line.ends_with("0.0s"), "{line}");
    }

    #[test]
    fn cutting_pads() {
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("a", 3), "a  ");
        assert_eq!(cut("網路", 3), "網 ");
    }
}
