//! `up` in the foreground: logs of what runs, until it has ended or a signal stops it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::error::{Error, Outcome};
use super::interrupt::{INTERRUPTED, Interrupts};
use super::prefix::{Look, Printer, short_name};
use super::progress::Progress;
use super::project::Context;
use super::select::is_up;
use super::session::{frame, open, reply};
use super::ui::{ProgressMode, Ui};
use crate::engine::client::Client;
use crate::engine::control::{self, Action, Event, Reply, Request};
use crate::engine::logs::{Logs, Start};
use crate::engine::state::{Container, Status};

/// How an `up` in the foreground is to go.
#[derive(Debug)]
pub(crate) struct Attached<'a> {
    pub(crate) context: &'a Context,
    pub(crate) project: &'a str,
    /// Services brought up, dependencies included.
    pub(crate) chosen: BTreeSet<String>,
    /// Services whose logs are shown.
    pub(crate) shown: BTreeSet<String>,
    /// Services that a signal stops; all if empty.
    pub(crate) stopped: Vec<String>,
    /// The first container that ends stops all.
    pub(crate) abort_on_exit: bool,
    /// The first container that fails stops all.
    pub(crate) abort_on_failure: bool,
    /// Whose exit code is returned.
    pub(crate) exit_code_from: Option<String>,
    /// Seconds before containers are killed.
    pub(crate) timeout: Option<u64>,
    /// How lines look.
    pub(crate) look: Look,
}

/// What is known of the stack while it is watched.
struct Watch<'a> {
    how: &'a Attached<'a>,
    files: Logs,
    printer: Printer,
    progress: Progress,
    /// Containers by id: those that have run since the start, and whether they have ended.
    seen: BTreeMap<String, bool>,
    /// Names of those whose log is open, by its key.
    names: Vec<String>,
    keys: BTreeMap<String, usize>,
    /// Names of those whose logs will be shown, for the user.
    attaching: String,
    announced: bool,
    /// The exit code of the container that made everything stop.
    first: Option<i32>,
}

/// Why everything is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    Aborted,
    Interrupted,
}

impl Attached<'_> {
    /// Brings the project up and stays with it until all has ended, and longer while `stays` says so; `settled` is told
    /// when all is up. The exit code is docker compose's.
    pub(crate) async fn run(&self, up: control::Up, settled: oneshot::Sender<()>, stays: &Cell<bool>) -> Outcome {
        let mut settled = Some(settled);
        let mut interrupts = Interrupts::new()?;
        let events = self.ask(&Request::Events).await?;
        // The first reply says that no event is missed from here on.
        reply(&events).await?;
        let begun = Timestamp::now();
        let mut watch = self.watch(&up)?;
        let work = self.ask(&Request::Up(Box::new(up))).await?;
        let (mut work, mut stopper): (Option<Client>, Option<Client>) = (Some(work), None);
        let mut ending = Ending::No;
        let mut stopping = BTreeSet::new();
        loop {
            let live = watch.progress.is_live();
            tokio::select! {
                biased;
                _ = interrupts.next() => {
                    // Whoever cannot be told any more, such as a closed terminal, must not keep this from stopping.
                    let _ = watch.close_progress();
                    if ending == Ending::Interrupted {
                        self.ask(&Request::Kill { services: self.stopped.clone(), signal: "SIGKILL".to_owned() }).await?;
                    } else {
                        let _ = writeln!(self.context.ui.err(), "Gracefully Stopping... press Ctrl+C again to force");
                        stopper = Some(self.stop(&self.stopped).await?);
                        ending = Ending::Interrupted;
                    }
                }
                next = reply(&events) => if let Reply::Event(event) = next?.0 {
                    watch.event(&event)?;
                    match &event.action {
                        Action::Stopping => drop(stopping.insert(event.id.clone())),
                        Action::Stopped => drop(stopping.remove(&event.id)),
                        // How a container is stopped needs no words.
                        Action::Warning { message }
                            if work.is_none() && ending == Ending::No && !stopping.contains(&event.id) =>
                        {
                            watch.close_progress()?;
                            self.context.ui.warn(format!("{}: {message}", event.name))?;
                        }
                        _ => {}
                    }
                    if ending == Ending::No && watch.first.is_some() {
                        watch.close_progress()?;
                        writeln!(self.context.ui.err(), "Aborting on container exit...")?;
                        stopper = Some(self.stop(&[]).await?);
                        ending = Ending::Aborted;
                    }
                },
                next = reply_of(work.as_ref()) => match next?.0 {
                    Reply::Event(event) => watch.preparing(&event)?,
                    Reply::Failed(failure) if ending == Ending::No => {
                        watch.close_progress()?;
                        watch.catch_up()?;
                        return Err(failure.into());
                    }
                    _ => {
                        work = None;
                        watch.settle(begun)?;
                        if let Some(settled) = settled.take() {
                            let _ = settled.send(());
                        }
                    }
                },
                next = reply_of(stopper.as_ref()) => match next?.0 {
                    Reply::Event(event) => watch.stopping(&event),
                    Reply::Failed(failure) => return Err(failure.into()),
                    _ => {
                        watch.drain(&events).await?;
                        break;
                    }
                },
                changed = watch.files.changed() => changed?,
                () = frame(live) => watch.progress.tick()?,
            }
            watch.catch_up()?;
            if work.is_none() && ending == Ending::No && !stays.get() && watch.seen.values().all(|ended| *ended) {
                break;
            }
        }
        watch.close_progress()?;
        self.exit_code(ending, watch.first)
    }

    fn watch(&self, up: &control::Up) -> Result<Watch<'_>, Error> {
        let separator = up.project.separator();
        let names =
            up.project.services.iter().filter(|(name, _)| self.shown.contains(*name)).flat_map(|(name, service)| {
                let count = up.scale.get(name).copied().or(service.scale.and_then(|scale| u32::try_from(scale).ok()));
                let fixed = service.container_name.clone();
                let usual = move |number| format!("{name}{separator}{number}");
                (1..=count.unwrap_or(1)).map(move |number| fixed.clone().unwrap_or_else(|| usual(number)))
            });
        let names: Vec<String> = names.collect();
        let mut watch = Watch {
            how: self,
            attaching: names.join(", "),
            files: Logs::new()?,
            printer: Printer::new(self.context.ui, self.look, names),
            progress: Progress::new(self.context.ui, "up"),
            seen: BTreeMap::new(),
            names: Vec::new(),
            keys: BTreeMap::new(),
            announced: false,
            first: None,
        };
        // Of containers that exist already, what they wrote before is not shown.
        for container in self.containers()? {
            watch.open(&container, Start::Tail(0))?;
        }
        Ok(watch)
    }

    /// The containers that this command is about.
    fn containers(&self) -> Result<Vec<Container>, Error> {
        let mut containers = self.context.containers(self.project)?;
        containers.retain(|container| !container.record.oneoff && self.chosen.contains(&container.record.service));
        Ok(containers)
    }

    async fn stop(&self, services: &[String]) -> Result<Client, Error> {
        self.ask(&Request::Stop { services: services.to_vec(), timeout: self.timeout }).await
    }

    async fn ask(&self, request: &Request) -> Result<Client, Error> {
        open(self.context, self.project, request, &[]).await
    }

    fn exit_code(&self, ending: Ending, first: Option<i32>) -> Outcome {
        if ending == Ending::Interrupted {
            return Ok(INTERRUPTED);
        }
        let code = match &self.exit_code_from {
            Some(service) => {
                let containers = self.containers()?;
                let of_service = containers.iter().filter(|container| container.record.service == *service);
                of_service.min_by_key(|container| container.record.number).map(|container| container.state.exit_code)
            }
            None => first,
        };
        Ok(u8::try_from(code.unwrap_or(0)).unwrap_or(1))
    }
}

/// The next reply of a connection; none ever where there is no connection.
async fn reply_of(client: Option<&Client>) -> Result<(Reply, Vec<std::os::fd::OwnedFd>), Error> {
    match client {
        Some(client) => reply(client).await,
        None => std::future::pending().await,
    }
}

impl Watch<'_> {
    /// Shows what is made before logs begin; that containers start, their logs tell.
    fn preparing(&mut self, event: &Event) -> Result<(), Error> {
        match event.action {
            Action::Starting | Action::Started => Ok(()),
            _ => Ok(self.progress.event(event)?),
        }
    }

    /// Takes in what happened to a container.
    fn event(&mut self, event: &Event) -> Result<(), Error> {
        if !self.how.chosen.contains(&event.service) {
            return Ok(());
        }
        match event.action {
            Action::Started | Action::Restarted | Action::Running => self.started(&event.id)?,
            Action::Died { code, restarting } => self.died(&event.id, code, restarting)?,
            _ => {}
        }
        Ok(())
    }

    fn started(&mut self, id: &str) -> Result<(), Error> {
        if self.keys.contains_key(id) {
            self.seen.insert(id.to_owned(), false);
            return self.announce();
        }
        let containers = self.how.containers()?;
        if let Some(container) = containers.iter().find(|container| container.record.id == id) {
            self.seen.insert(id.to_owned(), false);
            self.open(container, Start::Oldest)?;
        } else {
            // A step of `pre_start` writes into the log of a container that is still to be started.
            for container in containers.iter().filter(|container| container.state.status == Status::Created) {
                self.open(container, Start::Oldest)?;
            }
        }
        self.announce()
    }

    fn died(&mut self, id: &str, code: i32, restarting: bool) -> Result<(), Error> {
        // What runs a step of `pre_start`, or was begun by `run`, is none of the stack's.
        if !self.seen.contains_key(id) && !self.keys.contains_key(id) {
            return Ok(());
        }
        if !restarting {
            self.seen.insert(id.to_owned(), true);
            if self.how.abort_on_exit || self.how.abort_on_failure && code != 0 {
                self.first = self.first.or(Some(code));
            }
        }
        let Some(key) = self.keys.get(id).copied() else { return Ok(()) };
        self.catch_up()?;
        let name = self.names[key].clone();
        if !restarting {
            for line in self.files.rest(key) {
                self.printer.line(&name, &line)?;
            }
        }
        self.printer
            .status(&name, &format!("exited with code {code}{}", if restarting { " (restarting)" } else { "" }))?;
        Ok(self.printer.flush()?)
    }

    /// All is up: whatever ran since `begun` and was not heard of yet is waited for.
    fn settle(&mut self, begun: Timestamp) -> Result<(), Error> {
        for container in self.how.containers()? {
            let state = &container.state;
            let lives = is_up(&container) || state.status == Status::Restarting;
            let ran = state.started.is_some_and(|started| started >= begun);
            if (lives || ran) && !self.seen.contains_key(&container.record.id) {
                self.started(&container.record.id)?;
            }
        }
        self.announce()
    }

    /// Opens a container's log, if it is to be shown.
    fn open(&mut self, container: &Container, start: Start) -> Result<(), Error> {
        let record = &container.record;
        if !self.how.shown.contains(&record.service) || self.keys.contains_key(&record.id) {
            return Ok(());
        }
        let key = self.names.len();
        self.files.add(key, &self.how.context.paths.log(&record.id), start)?;
        self.names.push(short_name(record));
        self.keys.insert(record.id.clone(), key);
        Ok(())
    }

    /// Before the first log line: no more progress, and who will be heard.
    fn announce(&mut self) -> Result<(), Error> {
        if self.announced {
            return Ok(());
        }
        self.close_progress()?;
        if self.how.context.ui.progress != ProgressMode::Quiet && !self.attaching.is_empty() {
            writeln!(self.how.context.ui.err(), "Attaching to {}", self.attaching)?;
        }
        Ok(())
    }

    fn close_progress(&mut self) -> Result<(), Error> {
        self.announced = true;
        Ok(self.progress.finish()?)
    }

    /// Prints what was written since the last call.
    fn catch_up(&mut self) -> Result<(), Error> {
        if !self.announced {
            return Ok(());
        }
        while let Some((key, line)) = self.files.next_line()? {
            self.printer.line(&self.names[key], &line)?;
        }
        Ok(self.printer.flush()?)
    }

    /// Shows what stops, a line each: logs go on between them.
    fn stopping(&self, event: &Event) {
        let ui = self.how.context.ui;
        let mode = if ui.progress == ProgressMode::Tty { ProgressMode::Plain } else { ui.progress };
        // A terminal that is gone must not keep the stack from stopping.
        let _ = Progress::new(Ui { progress: mode, github: false, ..ui }, "stop").event(event);
    }

    /// Takes in the last events after everything has stopped.
    async fn drain(&mut self, events: &Client) -> Result<(), Error> {
        let ended: Vec<Container> = self.how.containers()?.into_iter().filter(|container| !is_up(container)).collect();
        while ended.iter().any(|container| self.seen.get(&container.record.id) == Some(&false)) {
            let next = tokio::time::timeout(Duration::from_secs(1), reply(events)).await;
            let Ok(Ok((Reply::Event(event), _))) = next else { break };
            self.event(&event)?;
        }
        Ok(())
    }
}
