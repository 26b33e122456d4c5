//! The shim, as the supervisor has it: the process that holds the containers, and what is left with it.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use super::client::supervisor_args;
use super::control::Failure;
use super::open_files;
use super::supervisor::Supervisor;
use crate::runtime::shim;

impl Supervisor {
    /// The shim; started at first need.
    pub(crate) fn shim(self: &Rc<Self>) -> Result<Rc<shim::Client>, Failure> {
        if let Some(shim) = self.shim.borrow().as_ref() {
            return Ok(shim.clone());
        }
        let client = shim::Client::spawn(&self.shim_options())
            .map_err(|e| Failure::new(format!("the process that holds the containers could not be started: {e}")))?;
        Ok(self.adopt_shim(client))
    }

    /// The shim, if there is one.
    pub(crate) fn present_shim(&self) -> Option<Rc<shim::Client>> {
        self.shim.borrow().clone()
    }

    /// Leaves descriptors with the shim, and a copy here for the shim after it.
    pub(crate) async fn keep(self: &Rc<Self>, key: &str, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        self.remember_fds(key, &fds);
        let stored = self.shim()?.store(key, fds).await;
        stored.map_err(|e| Failure::new(format!("descriptors could not be left with the shim: {e}")))
    }

    /// Copies descriptors that the shim keeps.
    pub(crate) fn remember_fds<'a>(&self, key: &str, fds: impl IntoIterator<Item = &'a OwnedFd>) {
        let copies = fds.into_iter().filter_map(|fd| fd.try_clone().ok()).collect();
        self.keepsakes.borrow_mut().insert(key.to_owned(), copies);
    }

    fn shim_options(&self) -> shim::SpawnOptions {
        let mut restart_argv = supervisor_args(&self.paths, &self.project);
        restart_argv.push(open_files::argument(&self.open_files));
        shim::SpawnOptions { run_dir: self.paths.project_run(&self.project), restart_argv }
    }

    /// Takes over a connected shim and listens to what it reports.
    pub(crate) fn adopt_shim(self: &Rc<Self>, client: shim::Client) -> Rc<shim::Client> {
        let client = Rc::new(client);
        *self.shim.borrow_mut() = Some(client.clone());
        let (this, listening) = (self.clone(), client.clone());
        tokio::task::spawn_local(async move {
            while let Some(event) = listening.next_event().await {
                this.clone().on_shim_event(event);
            }
            drop(listening);
            this.on_shim_lost().await;
        });
        client
    }

    /// Counts the loss of a shim: how many there were in a row.
    pub(crate) fn shim_losses(&self) -> u32 {
        let (count, last) = self.losses.get();
        let in_a_row = last.is_some_and(|last| last.elapsed() < super::restart::STABLE);
        let count = if in_a_row { count + 1 } else { 1 };
        self.losses.set((count, Some(Instant::now())));
        count
    }

    /// Forgets a shim that ended; whether there was one that should not have.
    pub(crate) fn lose_shim(&self) -> bool {
        let lost = self.shim.borrow_mut().take().is_some();
        if lost {
            self.orphan_networks();
        }
        lost
    }
}
