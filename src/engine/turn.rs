//! Turns: one command at a time changes the stack.
//!
//! `stop` and `down` break off one that still waits for something. One whose caller has gone is carried on with, until
//! somebody else wants to change the stack.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use tokio::sync::{Mutex, MutexGuard, TryLockError, watch};
use tokio::task::{self, Id};

/// Whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    lock: Mutex<()>,
    interrupt: watch::Sender<()>,
    /// The task that has had the latest turn.
    holder: Cell<Option<Id>>,
    /// Tasks that wait for theirs.
    waiting: Cell<usize>,
    /// Tasks whose callers have gone.
    abandoned: RefCell<HashSet<Id>>,
}

impl Turn {
    /// Waits for its turn, which lasts until what is returned is dropped.
    pub(crate) async fn take(&self) -> MutexGuard<'_, ()> {
        let waiting = Waiting::new(&self.waiting);
        self.hurry();
        let held = self.lock.lock().await;
        drop(waiting);
        self.holder.set(task::try_id());
        held
    }

    /// Its turn, if nobody else has one.
    pub(crate) fn try_take(&self) -> Result<MutexGuard<'_, ()>, TryLockError> {
        self.lock.try_lock()
    }

    /// Breaks off what waits.
    pub(crate) fn interrupt(&self) {
        self.interrupt.send_replace(());
    }

    /// Tells of interruptions from now on.
    pub(crate) fn interruptions(&self) -> watch::Receiver<()> {
        self.interrupt.subscribe()
    }

    /// Nobody waits for this task's outcome any more.
    pub(crate) fn abandon(&self, task: Id) {
        self.abandoned.borrow_mut().insert(task);
        self.hurry();
    }

    /// A task has ended.
    pub(crate) fn forget(&self, task: Id) {
        self.abandoned.borrow_mut().remove(&task);
    }

    fn hurry(&self) {
        let abandoned = self.holder.get().is_some_and(|holder| self.abandoned.borrow().contains(&holder));
        if abandoned && self.waiting.get() > 0 {
            self.interrupt();
        }
    }
}

/// One that waits, counted.
struct Waiting<'t>(&'t Cell<usize>);

impl<'t> Waiting<'t> {
    fn new(count: &'t Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
