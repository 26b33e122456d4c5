//! Health checks.
//!
//! The first check runs at once, further ones come quickly until the first success: nobody should wait half a minute
//! for a service that is ready after 50 ms. Only checks at the configured interval count as failures, so that nothing
//! becomes unhealthy sooner than with docker. A `start_interval` in the file is obeyed instead.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use super::control::Action;
use super::state::{Container, Health, Probe, Record, Status};
use super::supervisor::Supervisor;
use crate::spec::model::Healthcheck;
use crate::spec::units::Span;

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: u64 = 3;
/// Pause after the first early check; each further pause is half as long again.
const EARLY: Duration = Duration::from_millis(50);
/// How much of a check's output is kept, in bytes.
const KEPT: usize = 4096;

impl Supervisor {
    /// Checks a container that has just started, until it ends.
    pub(crate) fn watch_health(self: &Rc<Self>, record: &Record) {
        let Some(check) = record.healthcheck.clone() else { return };
        let Some(pid) = self.look(&record.id, |container| container.state.pid) else { return };
        let (this, id) = (self.clone(), record.id.clone());
        tokio::task::spawn_local(async move {
            tokio::select! {
                () = this.end_of_run(&id, pid) => {}
                () = this.check_forever(&id, &check) => {}
            }
        });
    }

    /// Waits until a container's process of this number has ended.
    pub(crate) async fn end_of_run(&self, id: &str, pid: i32) {
        let runs = |container: &Container| {
            let state = &container.state;
            state.pid == pid && matches!(state.status, Status::Running | Status::Paused)
        };
        self.wait_for(|this| (this.look(id, runs) != Some(true)).then_some(())).await;
    }

    async fn check_forever(self: &Rc<Self>, id: &str, check: &Healthcheck) {
        let span = |span: Option<Span>, default| span.map_or(default, Span::duration);
        let interval = span(check.interval, INTERVAL);
        let start_period = span(check.start_period, Duration::ZERO);
        let retries = check.retries.unwrap_or(RETRIES).max(1);
        let begin = Instant::now();
        let (mut failures, mut early, mut due) = (0, EARLY, begin + interval);
        loop {
            let known = self.signs(id);
            let failed = self.check_once(id, check).await;
            let now = Instant::now();
            let Some(failed) = failed else {
                failures = 0;
                self.set_health(id, Health::Healthy);
                due = now + interval;
                tokio::time::sleep_until(due).await;
                continue;
            };
            self.note_probe(id, failed);
            let starting = self.look(id, |container| container.state.health == Health::Starting) == Some(true);
            if now >= due || !starting {
                if !(starting && now < begin + start_period) {
                    failures += 1;
                }
                due = now + interval;
            }
            if failures >= retries {
                self.set_health(id, Health::Unhealthy);
            }
            let starting = starting && failures < retries;
            let next = match check.start_interval {
                Some(pause) if now < begin + start_period => now + pause.duration(),
                Some(_) => due,
                None => due.min(now + early),
            };
            tokio::select! {
                () = tokio::time::sleep_until(if starting { next } else { due }) => {}
                // Who has just begun to listen may well be ready, and who says so is.
                () = self.wait_for(|this| (this.signs(id) != known).then_some(())), if starting => {}
            }
            early = (early * 3 / 2).min(interval);
        }
    }

    /// What else may tell that a check passes from now on: where the container listens, and what it still waits for.
    fn signs(&self, id: &str) -> (usize, bool) {
        let waits = self.look(id, |container| container.state.waits_for.is_some());
        (self.listens(id), waits.unwrap_or_default())
    }

    /// How many addresses a container is known to listen on.
    pub(crate) fn listens(&self, id: &str) -> usize {
        self.look(id, |container| container.state.listens.len()).unwrap_or_default()
    }

    /// Runs the check once; how it failed, if it did.
    async fn check_once(self: &Rc<Self>, id: &str, check: &Healthcheck) -> Option<Probe> {
        let args = match check.test.as_deref() {
            Some([kind, words @ ..]) if kind == "CMD" => words.to_vec(),
            Some([kind, line, ..]) if kind == "CMD-SHELL" => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
            _ => return None,
        };
        let timeout = check.timeout.map_or(TIMEOUT, Span::duration);
        let failed = |code, output: String| Some(Probe { at: Timestamp::now(), code, output });
        let started = match self.container(id) {
            Ok(container) => self.start_heard(&container.record, args).await,
            Err(failure) => Err(failure),
        };
        let (process, output) = match started {
            Ok(started) => started,
            Err(failure) => return failed(Some(failure.code), failure.message),
        };
        let mut said = Vec::new();
        let ended = tokio::select! {
            ended = tokio::time::timeout(timeout, process.end()) => ended,
            never = hear(&output, &mut said) => match never {},
        };
        let text = |mut said: Vec<u8>| {
            take_rest(&output, &mut said);
            String::from_utf8_lossy(&said).trim_end().to_owned()
        };
        match ended {
            Ok(0) => None,
            Ok(code) => failed(Some(code), text(said)),
            Err(_) => {
                process.kill();
                failed(None, text(said))
            }
        }
    }

    /// Keeps the last failure for who asks why. One like the one before changes nothing.
    fn note_probe(&self, id: &str, probe: Probe) {
        let same = |old: &Probe| old.code == probe.code && old.output == probe.output;
        if self.look(id, |container| container.state.probe.as_ref().is_some_and(same)) == Some(false) {
            let _ = self.change(id, |state| state.probe = Some(probe));
        }
    }

    /// Notes what is known of a container's health now.
    pub(crate) fn set_health(&self, id: &str, health: Health) {
        let Ok(container) = self.container(id) else { return };
        if container.state.health == health || container.state.status != Status::Running {
            return;
        }
        let _ = self.change(id, |state| {
            state.health = health;
            if health == Health::Healthy {
                state.probe = None;
            }
        });
        match health {
            Health::Healthy => self.tell(&container, Action::Healthy),
            Health::Unhealthy => self.tell(&container, Action::Unhealthy),
            Health::None | Health::Starting => {}
        }
    }
}

/// Takes in what a check writes, the beginning of it; what it writes must not block it.
async fn hear(output: &pipe::Receiver, said: &mut Vec<u8>) -> Infallible {
    while output.readable().await.is_ok() {
        match take_piece(output, said) {
            Ok(0) => break,
            Err(e) if !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => break,
            _ => {}
        }
    }
    std::future::pending().await
}

fn take_rest(output: &pipe::Receiver, said: &mut Vec<u8>) {
    while said.len() < KEPT && matches!(take_piece(output, said), Ok(1..)) {}
}

/// Takes a piece; its length, 0 at the end.
fn take_piece(output: &pipe::Receiver, said: &mut Vec<u8>) -> io::Result<usize> {
    let mut piece = [0; KEPT];
    let length = output.try_read(&mut piece)?;
    let room = KEPT.saturating_sub(said.len());
    said.extend_from_slice(&piece[..length.min(room)]);
    Ok(length)
}
