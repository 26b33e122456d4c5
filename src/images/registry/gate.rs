//! Layers are unpacked side by side; one that needs those below it waits here until they are there.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use super::super::error::Error;
use super::super::snapshot;
use super::super::unpack::Below;

/// Which layers of an image are there.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    done: Vec<bool>,
    given_up: bool,
}

/// Gives up for all who wait, when the pull ends before its layers are there.
#[derive(Debug)]
pub(super) struct Closing(pub(super) Arc<Gate>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.change(|state| state.given_up = true);
    }
}

impl Gate {
    pub(super) fn new(layers: usize) -> Gate {
        Gate { state: Mutex::new(State { done: vec![false; layers], given_up: false }), changed: Condvar::new() }
    }

    /// The layer `at` is there.
    pub(super) fn done(&self, at: usize) {
        self.change(|state| state.done[at] = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits for all layers below `at`; whether they came.
    fn wait_below(&self, at: usize) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.given_up && !state.done[..at].iter().all(|done| *done) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.given_up
    }
}

/// The layers below one that is being unpacked.
#[derive(Debug)]
pub(super) struct Unfinished {
    gate: Arc<Gate>,
    at: usize,
    /// Lowest first.
    paths: Vec<PathBuf>,
    opened: OnceLock<Vec<OwnedFd>>,
}

impl Unfinished {
    pub(super) fn new(gate: Arc<Gate>, at: usize, paths: Vec<PathBuf>) -> Unfinished {
        Unfinished { gate, at, paths, opened: OnceLock::new() }
    }
}

impl Below for Unfinished {
    fn layers(&self) -> Result<&[OwnedFd], Error> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        if !self.gate.wait_below(self.at) {
            let why = "a layer below it did not come".to_owned();
            return Err(Error::Unsupported { what: "the layer".to_owned(), why });
        }
        let opened = self.paths.iter().rev().map(|path| snapshot::open(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.opened.get_or_init(|| opened))
    }
}
