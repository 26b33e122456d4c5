//! What happened to a stack and when: the one timed log that `why` and `timeline` read.
//!
//! The supervisor appends a JSON object per line to `history` in the project's run folder; it goes when the stack goes.
//! Readers need no running process. A full file becomes `history.1`, so that never more than two of them exist.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::path::PathBuf;

use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::control::Event;
use super::paths::Paths;
use crate::planner::{Cause, Plan, StepId, line};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A command began to carry out its plan.
    Begin {
        /// When.
        time: Timestamp,
        /// When the command itself began, before it prepared images.
        asked: Option<Timestamp>,
        /// The verb.
        verb: String,
        /// The plan.
        steps: Vec<Step>,
    },
    /// A step of that plan began.
    Start {
        /// When.
        time: Timestamp,
        /// Which.
        step: usize,
    },
    /// It ended.
    Finish {
        /// When.
        time: Timestamp,
        /// Which.
        step: usize,
        /// Why it failed, if it did.
        error: Option<String>,
    },
    /// The plan was carried out, wholly or in part.
    End {
        /// When.
        time: Timestamp,
        /// Another command took over.
        interrupted: bool,
    },
    /// Something happened to a container, network or volume.
    Event(Event),
}

/// A step of a plan as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its number in the plan.
    pub step: usize,
    /// `create`, `start`, `wait`, or another word for what it does.
    pub kind: Kind,
    /// What it does, for people.
    pub text: String,
    /// Why, for people; may be empty.
    pub cause: String,
    /// Service, if it is about one.
    pub service: String,
    /// Name of the container, if it is about one.
    pub container: String,
    /// Steps that it waits for.
    pub after: Vec<usize>,
}

/// What a step does, as far as readers tell steps apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Makes a container.
    Create,
    /// Starts one.
    Start,
    /// Waits for a service.
    Wait,
    /// Anything else.
    Other,
}

/// A file of this size, in bytes, is put aside.
const LARGEST: u64 = 1 << 20;

/// The writer of one stack's history. What can't be written is lost: no command fails for it.
#[derive(Debug)]
pub(crate) struct History {
    path: PathBuf,
    file: RefCell<Option<fs::File>>,
    size: Cell<u64>,
}

impl History {
    /// Goes on where an earlier supervisor ended.
    pub(crate) fn open(paths: &Paths, project: &str) -> Self {
        Self { path: path(paths, project), file: RefCell::default(), size: Cell::default() }
    }

    /// Adds a line.
    pub(crate) fn add(&self, entry: &Entry) {
        let Ok(mut text) = serde_json::to_vec(entry) else { return };
        text.push(b'\n');
        // A torn line stays alone: the next one begins on a line of its own when the file is opened again.
        if self.write(&text).is_err() {
            self.file.take();
        }
    }

    fn write(&self, text: &[u8]) -> io::Result<()> {
        let mut file = self.file.borrow_mut();
        if file.is_some() && self.size.get() > LARGEST {
            fs::rename(&self.path, older(&self.path))?;
            *file = None;
        }
        let file = match &mut *file {
            Some(file) => file,
            none => {
                let mut opened = fs::OpenOptions::new().create(true).append(true).open(&self.path)?;
                self.size.set(opened.metadata()?.len());
                if self.size.get() > 0 {
                    opened.write_all(b"\n")?;
                }
                none.insert(opened)
            }
        };
        file.write_all(text)?;
        self.size.set(self.size.get() + text.len() as u64);
        Ok(())
    }

    /// A command begins to carry out its plan.
    pub(crate) fn begin(&self, project: &str, verb: &str, asked: Option<Timestamp>, plan: &Plan) {
        let steps = plan.steps().into_iter().map(|(id, step)| remembered(project, plan, id, step)).collect();
        self.add(&Entry::Begin { time: Timestamp::now(), asked, verb: verb.to_owned(), steps });
    }
}

fn remembered(project: &str, plan: &Plan, id: StepId, step: &crate::planner::Step) -> Step {
    use crate::planner::Action;
    let described = line(project, step);
    let container = match &step.action {
        Action::CreateContainer { name, .. } => name.clone(),
        other => other.container().map(|container| container.name.clone()).unwrap_or_default(),
    };
    Step {
        step: id.index(),
        kind: match step.action {
            Action::CreateContainer { .. } => Kind::Create,
            Action::StartContainer { .. } => Kind::Start,
            Action::WaitFor { .. } => Kind::Wait,
            _ => Kind::Other,
        },
        text: described.text,
        cause: if step.cause == Cause::Needed { String::new() } else { described.cause },
        service: step.action.service().unwrap_or_default().to_owned(),
        container,
        after: plan.before(id).map(StepId::index).collect(),
    }
}

/// The history of a project, oldest first; lines that can't be read are left out.
pub fn read(paths: &Paths, project: &str) -> io::Result<Vec<Entry>> {
    let path = path(paths, project);
    let mut entries = Vec::new();
    for path in [older(&path), path] {
        let text = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        entries.extend(text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()));
    }
    Ok(entries)
}

fn path(paths: &Paths, project: &str) -> PathBuf {
    paths.project_run(project).join("history")
}

fn older(path: &std::path::Path) -> PathBuf {
    path.with_extension("1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(interrupted: bool) -> Entry {
        Entry::End { time: Timestamp::UNIX_EPOCH, interrupted }
    }

    #[test]
    fn what_is_written_is_read_again_by_another_and_torn_lines_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(Some(folder.path())).unwrap();
        fs::create_dir_all(paths.project_run("p")).unwrap();
        History::open(&paths, "p").add(&end(false));
        fs::OpenOptions::new().append(true).open(path(&paths, "p")).unwrap().write_all(b"{\"torn").unwrap();
        History::open(&paths, "p").add(&end(true));
        assert_eq!(read(&paths, "p").unwrap(), [end(false), end(true)]);
        assert_eq!(read(&paths, "other").unwrap(), []);
    }

    #[test]
    fn never_more_than_two_files_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(Some(folder.path())).unwrap();
        fs::create_dir_all(paths.project_run("p")).unwrap();
        let history = History::open(&paths, "p");
        for _ in 0..60_000 {
            history.add(&end(false));
        }
        let sizes: Vec<u64> =
            fs::read_dir(paths.project_run("p")).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), 2);
        assert!(sizes.iter().all(|size| *size < LARGEST + 1000), "{sizes:?}");
    }
}
