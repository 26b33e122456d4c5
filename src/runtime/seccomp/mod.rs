//! System call filters: Docker's default profile, tightened to the socket families that programs need. Whoever may not
//! open raw sockets asks the shim for those that `ping` needs, and whose sockets are kept asks it to bind and listen.
//!
//! The profile is data (`schemas/seccomp.profile`, with the numbers in `schemas/syscalls.tsv`). It is compiled once
//! per shim and set of capabilities, to a tree over ranges of call numbers, which the kernel loads and runs several
//! times faster than a list of comparisons.

mod compile;
mod profile;

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use super::caps;
use super::launch::Seccomp;
use crate::sys::seccomp::{Instruction, Listener, load, load_with_listener};

/// A compiled filter.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    program: Rc<[Instruction]>,
    capabilities: u64,
    /// A listener answers `bind` and `listen`.
    keeps: bool,
}

impl Filter {
    /// Puts the caller and its descendants under the filter. Returns the listener for the calls that it leaves to others;
    /// none, if there are no such calls, or the caller is under a filter that has one already.
    pub(crate) fn load(&self) -> io::Result<Option<Listener>> {
        if self.keeps || !caps::holds(self.capabilities, "NET_RAW") {
            match load_with_listener(&self.program) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
                other => return other.map(Some),
            }
        }
        // What nobody answers would fail.
        let alone = if self.keeps { compile::program(self.capabilities, false).into() } else { self.program.clone() };
        load(&alone).map(|()| None)
    }
}

/// The filters that a shim has compiled, by capabilities and whether they keep sockets.
#[derive(Debug, Default)]
pub(crate) struct Filters(BTreeMap<(u64, bool), Filter>);

impl Filters {
    /// The filter for a process that may hold these capabilities; `None` if it shall have none.
    pub(crate) fn get(&mut self, wanted: Seccomp, capabilities: u64, keeps: bool) -> Option<Filter> {
        match wanted {
            Seccomp::Unconfined => None,
            Seccomp::Default => {
                let compile = || Filter { program: compile::program(capabilities, keeps).into(), capabilities, keeps };
                Some(self.0.entry((capabilities, keeps)).or_insert_with(compile).clone())
            }
        }
    }
}
