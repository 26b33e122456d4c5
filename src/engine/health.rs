//! Health checks.
//!
//! The first check runs at once, further ones come quickly until the first success: nobody should wait half a minute
//! for a service that is ready after 50 ms. Only checks at the configured interval count as failures.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::control::Action;
use super::state::{Health, Record, Status};
use super::supervisor::Supervisor;
use crate::spec::model::Healthcheck;
use crate::spec::units::Span;

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: u64 = 3;
/// Pause after the first early check; each further pause is half as long again.
const EARLY: Duration = Duration::from_millis(50);

impl Supervisor {
    /// Checks a container that has just started, until it ends.
    pub(crate) fn watch_health(self: &Rc<Self>, record: &Record) {
        let Some(check) = record.healthcheck.clone() else { return };
        let Some(pid) = self.look(&record.id, |container| container.state.pid) else { return };
        let (this, id) = (self.clone(), record.id.clone());
        tokio::task::spawn_local(async move {
            let ended = this.wait_for(|this| {
                let same = this
                    .look(&id, |c| c.state.pid == pid && matches!(c.state.status, Status::Running | Status::Paused));
                (same != Some(true)).then_some(())
            });
            tokio::select! {
                () = ended => {}
                () = this.check_forever(&id, &check) => {}
            }
        });
    }

    async fn check_forever(self: &Rc<Self>, id: &str, check: &Healthcheck) {
        let span = |span: Option<Span>, default| span.map_or(default, |Span(span)| span);
        let interval = span(check.interval, INTERVAL);
        let start_period = span(check.start_period, Duration::ZERO);
        let retries = check.retries.unwrap_or(RETRIES).max(1);
        let begin = Instant::now();
        let (mut failures, mut early, mut due) = (0, EARLY, begin + interval);
        loop {
            let passed = self.check_once(id, check).await;
            let now = Instant::now();
            if passed {
                failures = 0;
                self.set_health(id, Health::Healthy);
                due = now + interval;
                tokio::time::sleep_until(due).await;
                continue;
            }
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
            tokio::time::sleep_until(if starting { due.min(now + early) } else { due }).await;
            early = (early * 3 / 2).min(interval);
        }
    }

    /// Runs the check once; whether it passed in time.
    async fn check_once(self: &Rc<Self>, id: &str, check: &Healthcheck) -> bool {
        let args = match check.test.as_deref() {
            Some([kind, words @ ..]) if kind == "CMD" => words.to_vec(),
            Some([kind, line, ..]) if kind == "CMD-SHELL" => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
            _ => return true,
        };
        let timeout = check.timeout.map_or(TIMEOUT, |Span(timeout)| timeout);
        let Ok(container) = self.container(id) else { return false };
        let Ok(process) = self.start_quietly(&container.record, args).await else { return false };
        if let Ok(code) = tokio::time::timeout(timeout, process.end()).await {
            return code == 0;
        }
        process.kill();
        false
    }

    fn set_health(&self, id: &str, health: Health) {
        let Ok(container) = self.container(id) else { return };
        if container.state.health == health || container.state.status != Status::Running {
            return;
        }
        let _ = self.change(id, |state| state.health = health);
        match health {
            Health::Healthy => self.tell(&container, Action::Healthy),
            Health::Unhealthy => self.tell(&container, Action::Unhealthy),
            Health::None | Health::Starting => {}
        }
    }
}
