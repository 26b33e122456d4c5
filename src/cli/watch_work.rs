//! What dev mode does about changes: copy, restart, run, rebuild; and what it says of that.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anstyle::Style;
use fs_err as fs;
use jiff::Timestamp;

use super::builder::{self, Flags};
use super::error::Error;
use super::prefix::short_name;
use super::prepare;
use super::project::Context;
use super::select::is_up;
use super::session::{open, reply};
use super::ui::{self, ProgressMode};
use super::watching::How;
use crate::engine::control::{self, Reply, Request};
use crate::engine::logs::{LogReader, Start};
use crate::engine::rootfs::Root;
use crate::engine::state::{self, Container, Health};
use crate::engine::watch::{Brought, Change, Changes, Rule, Work, bring, initial, plan};
use crate::images::Store;
use crate::spec::Loaded;
use crate::spec::model::Hook;

/// Paths named in one line; the others are counted.
const NAMED: usize = 3;
/// Names copied before others get a turn: what is not read of the kernel's queue in time is lost.
const PIECE: usize = 64;
/// Lines shown of what a service said before it failed.
const LAST_WORDS: usize = 10;

/// What is done about changes, apart from noticing them.
pub(crate) struct Doer<'a> {
    pub(crate) context: &'a Context,
    pub(crate) loaded: &'a Loaded,
    pub(crate) rules: &'a [Rule],
    pub(crate) how: How,
}

impl Doer<'_> {
    /// The first copy of what a service asks for.
    pub(crate) async fn begin(&self, service: &str) -> Result<(), Error> {
        let changes = initial(self.rules, service);
        if changes.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        match self.sync(service, &changes).await {
            Ok(0) => Ok(()),
            Ok(count) => self.say(&format!("{service}: {} at the beginning {}", synced(count), self.took(begun))),
            Err(error) => self.complain(error),
        }
    }

    /// Does what a batch of changes asks for, service by service. Only a closed output ends it.
    pub(crate) async fn act(&self, changes: &Changes) -> Result<(), Error> {
        let begun = Instant::now();
        for (service, work) in plan(self.rules, changes) {
            let what = self.named(&work.paths, changes.everything);
            match self.one(&service, &work).await {
                Ok(done) if done.is_empty() => {}
                Ok(done) => {
                    let done = done.join(", ");
                    self.say(&format!("{what} → {service}: {done} {}", self.took(begun)))?;
                }
                Err(error) => {
                    self.say(&format!("{what} → {service}: {}", self.context.ui.styled(ui::ERROR, "failed")))?;
                    self.complain(error)?;
                }
            }
        }
        Ok(())
    }

    /// Does what one service needs; says what it did.
    async fn one(&self, service: &str, work: &Work) -> Result<Vec<String>, Error> {
        if work.rebuild {
            return self.rebuild(service).await;
        }
        let mut done = Vec::new();
        let changed = self.sync(service, &work.changes).await?;
        if changed > 0 {
            done.push(synced(changed));
        }
        if work.restart || work.restart_if_changed && changed > 0 {
            let listened = self.containers(service)?.iter().any(|container| !container.state.listens.is_empty());
            let begun = Timestamp::now();
            let restart = Request::Restart { services: vec![service.to_owned()], timeout: None, no_deps: false };
            let restarted = match self.ask(&restart).await {
                Ok(()) => self.ready(service, listened).await,
                failed => failed,
            };
            if let Err(error) = restarted {
                self.last_words(service, begun)?;
                return Err(error);
            }
            done.push("serving again".to_owned());
        }
        if changed > 0 {
            for hook in &work.execs {
                for container in self.containers(service)?.iter().filter(|container| is_up(container)) {
                    self.exec(container, hook).await?;
                }
                done.push(format!("ran `{}`", hook.command.join(" ")));
            }
        }
        Ok(done)
    }

    /// Makes the same in all containers of a service what changed; how many names were different.
    async fn sync(&self, service: &str, changes: &BTreeSet<Change>) -> Result<usize, Error> {
        let mut different = 0;
        if changes.is_empty() {
            return Ok(different);
        }
        for container in self.containers(service)? {
            let root = self.root(&container).await?;
            let mut here = 0;
            for (number, change) in changes.iter().enumerate() {
                if number % PIECE == PIECE - 1 {
                    tokio::task::yield_now().await;
                }
                let brought = root.writing(|| bring(root.as_fd(), root.ids(), change)).flatten().map_err(|e| {
                    let place = change.target.join(&change.below);
                    let what = format!("cannot bring {} to {}", self.short(&change.from), place.display());
                    Error::from(e).context(format!("container {}: {what}", container.record.name))
                })?;
                here += usize::from(brought != Brought::Nothing);
            }
            different = different.max(here);
        }
        Ok(different)
    }

    /// The root of a container, whether it runs or not.
    async fn root(&self, container: &Container) -> Result<Root, Error> {
        let request = Request::Root { container: container.record.id.clone(), alone: false };
        let client = open(self.context, &self.loaded.project.name, &request, &[]).await?;
        match reply(&client).await? {
            (Reply::Failed(failure), _) => Err(failure.into()),
            (reply, fds) => Root::received(&reply, fds).ok_or_else(|| Error::new("the supervisor gave no root")),
        }
    }

    /// Builds the image, and swaps the containers if it is another one. Until then the old ones serve.
    async fn rebuild(&self, service: &str) -> Result<Vec<String>, Error> {
        let name = service.to_owned();
        let store = Store::open(&self.context.paths.lib)?;
        let before = self.ids(service)?;
        let flags = Flags { quiet: self.how.quiet, ..Flags::default() };
        builder::build(self.context, self.loaded, &BTreeSet::from([name.clone()]), &flags, &store).await?;
        let mut up = prepare::up(self.loaded, std::slice::from_ref(&name), true)?;
        up.scale = self.replicas(service)?;
        self.ask(&Request::Up(Box::new(control::Up { ignore_orphans: true, ..up }))).await?;
        if self.ids(service)? == before {
            return Ok(vec!["built, the image is the same".to_owned()]);
        }
        self.begin(service).await?;
        let dependents = self.dependents(service)?;
        if !dependents.is_empty() {
            self.ask(&Request::Restart { services: dependents, timeout: None, no_deps: false }).await?;
        }
        self.ready(service, false).await?;
        if self.how.prune {
            store.collector(|| state::images_in_use(&self.context.paths))?.prune(false, None)?;
        }
        Ok(vec!["built".to_owned(), "serving again".to_owned()])
    }

    /// Services that run and are restarted with another, as their `depends_on` says.
    fn dependents(&self, service: &str) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for (name, other) in &self.loaded.project.services {
            let restarts = other.depends_on.get(service).is_some_and(|dependency| dependency.restart);
            if restarts && self.containers(name)?.iter().any(is_up) {
                found.push(name.clone());
            }
        }
        Ok(found)
    }

    /// Waits until a service is ready again, where something tells that: its health, or that it listens as before.
    async fn ready(&self, service: &str, listened: bool) -> Result<(), Error> {
        if !listened && self.containers(service)?.iter().all(|container| container.state.health == Health::None) {
            return Ok(());
        }
        let services = vec![service.to_owned()];
        self.ask(&Request::Start { services, wait: true, wait_timeout: Some(60) }).await
    }

    /// Runs a command in a container; what it prints is shown.
    async fn exec(&self, container: &Container, hook: &Hook) -> Result<(), Error> {
        let request = Request::Exec(control::Exec {
            container: container.record.id.clone(),
            args: hook.command.clone(),
            env: hook
                .environment
                .iter()
                .filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)))
                .collect(),
            user: hook.user.clone(),
            cwd: hook.working_dir.clone(),
            privileged: hook.privileged,
            ..control::Exec::default()
        });
        let nothing = fs::File::open("/dev/null")?;
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let mut output = std::fs::File::from(rustix::fs::memfd_create("output", flags)?);
        let fds = [nothing.file().as_fd(), output.as_fd(), output.as_fd()];
        let client = open(self.context, &self.loaded.project.name, &request, &fds).await?;
        let code = loop {
            match reply(&client).await?.0 {
                Reply::Exited { code } => break code,
                Reply::Failed(failure) => return Err(failure.into()),
                _ => {}
            }
        };
        let mut text = Vec::new();
        output.rewind()?;
        output.read_to_end(&mut text)?;
        for line in String::from_utf8_lossy(&text).lines() {
            writeln!(self.context.ui.err(), "   {} | {line}", container.record.service)?;
        }
        if code == 0 {
            return Ok(());
        }
        Err(Error::new(format!(
            "container {}: `{}` ended with exit code {code}",
            container.record.name,
            hook.command.join(" ")
        )))
    }

    /// Has something done, without a word of what happens meanwhile.
    async fn ask(&self, request: &Request) -> Result<(), Error> {
        let client = open(self.context, &self.loaded.project.name, request, &[]).await?;
        loop {
            match reply(&client).await?.0 {
                Reply::Failed(failure) => return Err(Error::from(failure).located(&self.loaded.origin)),
                Reply::Done => return Ok(()),
                _ => {}
            }
        }
    }

    /// Shows what a service has said since `begun`, unless its logs are on the screen anyway.
    fn last_words(&self, service: &str, begun: Timestamp) -> Result<(), Error> {
        if self.how.logs {
            return Ok(());
        }
        for container in self.containers(service)? {
            let mut log = LogReader::open(&self.context.paths.log(&container.record.id), Start::Tail(LAST_WORDS))?;
            let mut lines = Vec::new();
            while let Some(line) = log.next_line()? {
                lines.push(line);
            }
            lines.extend(log.rest());
            for line in lines.iter().filter(|line| line.time >= begun) {
                writeln!(self.context.ui.err(), "   {} | {}", short_name(&container.record), line.text)?;
            }
        }
        Ok(())
    }

    fn containers(&self, service: &str) -> Result<Vec<Container>, Error> {
        let mut containers = self.context.containers(&self.loaded.project.name)?;
        containers.retain(|container| !container.record.oneoff && container.record.service == service);
        Ok(containers)
    }

    fn ids(&self, service: &str) -> Result<BTreeSet<String>, Error> {
        Ok(self.containers(service)?.into_iter().map(|container| container.record.id.clone()).collect())
    }

    /// As many containers as there are now, whoever asked for that many.
    fn replicas(&self, service: &str) -> Result<BTreeMap<String, u32>, Error> {
        let count = u32::try_from(self.ids(service)?.len()).unwrap_or(1);
        Ok(if count > 0 { BTreeMap::from([(service.to_owned(), count)]) } else { BTreeMap::new() })
    }

    /// One line about what dev mode does.
    pub(crate) fn say(&self, text: &str) -> Result<(), Error> {
        if self.context.ui.progress == ProgressMode::Quiet {
            return Ok(());
        }
        Ok(writeln!(self.context.ui.err(), "{} {text}", self.context.ui.styled(ui::HELP, " ⦿"))?)
    }

    #[expect(clippy::unnecessary_wraps, reason = "stands where others may fail")]
    fn complain(&self, error: Error) -> Result<(), Error> {
        error.report(self.context.ui);
        Ok(())
    }

    fn named(&self, paths: &BTreeSet<PathBuf>, everything: bool) -> String {
        // What came and went while an editor saved is none of the user's files.
        let (there, gone): (Vec<&PathBuf>, Vec<_>) = paths.iter().partition(|path| path.symlink_metadata().is_ok());
        let paths = if there.is_empty() { gone } else { there };
        let mut names: Vec<String> = paths.iter().take(NAMED).map(|path| self.short(path)).collect();
        if everything {
            names = vec!["everything (more changed than the kernel could tell)".to_owned()];
        } else if paths.len() > NAMED {
            names.push(format!("{} more", paths.len() - NAMED));
        }
        names.join(", ")
    }

    /// A path as short as it can be said in the project's folder.
    fn short(&self, path: &Path) -> String {
        path.strip_prefix(&self.loaded.source.working_dir).unwrap_or(path).display().to_string()
    }

    fn took(&self, begun: Instant) -> String {
        self.context.ui.styled(Style::new().dimmed(), format!("in {}", span(begun.elapsed())))
    }
}

fn span(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{} ms", time.as_millis().max(1))
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

fn synced(count: usize) -> String {
    format!("synced {count} {}", if count == 1 { "file" } else { "files" })
}

pub(crate) fn explained(error: crate::engine::watch::Error) -> Error {
    let hint = error.hint();
    let error = Error::from(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
