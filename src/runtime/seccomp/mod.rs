//! System call filters: Docker's default profile, tightened to the socket families that programs need. Whoever may not
//! open raw sockets asks the shim for those that `ping` needs, and whose sockets are kept asks it to bind and listen.
//!
//! The profile is data (`schemas/seccomp.profile`, with the numbers in `schemas/syscalls.tsv`). It is compiled once
//! per shim and set of capabilities, to a tree over ranges of call numbers, which the kernel loads and runs several
//! times faster than a list of comparisons.

mod bundled;
mod compile;
mod custom;
mod profile;

pub(crate) use bundled::{Bundled, FLAGS as BUNDLED_FLAGS};

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use super::caps;
use super::error::LaunchError;
use super::launch::Seccomp;
use crate::sys::seccomp::{Instruction, Listener, load, load_with_listener};

/// A compiled filter.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    program: Rc<[Instruction]>,
    capabilities: u64,
    /// A listener answers `bind` and `listen`.
    keeps: bool,
    /// Some calls are for a listener to answer.
    asks: bool,
}

impl Filter {
    /// Puts the caller and its descendants under the filter. Returns the listener for the calls that it leaves to others;
    /// none, if there are no such calls, or the caller is under a filter that has one already.
    pub(crate) fn load(&self) -> io::Result<Option<Listener>> {
        if self.asks {
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

/// The filters that a shim has compiled, by profile (empty for the default), capabilities and whether they keep sockets.
#[derive(Debug, Default)]
pub(crate) struct Filters(BTreeMap<(String, u64, bool), Filter>);

impl Filters {
    /// The filter for a process that may hold these capabilities; `None` if it shall have none. A profile of the user's
    /// leaves no call to the listener.
    pub(crate) fn get(
        &mut self,
        wanted: &Seccomp,
        capabilities: u64,
        keeps: bool,
    ) -> Result<Option<Filter>, LaunchError> {
        let text = match wanted {
            Seccomp::Unconfined => return Ok(None),
            Seccomp::Default => "",
            Seccomp::Profile(text) => text,
        };
        let key = (text.to_owned(), capabilities, keeps);
        if let Some(filter) = self.0.get(&key) {
            return Ok(Some(filter.clone()));
        }
        let filter = if text.is_empty() {
            let asks = keeps || !caps::holds(capabilities, "NET_RAW");
            Filter { program: compile::program(capabilities, keeps).into(), capabilities, keeps, asks }
        } else {
            let program =
                custom::program(text, capabilities).map_err(|e| LaunchError::refused("seccomp profile", e))?;
            Filter { program: program.into(), capabilities, keeps: false, asks: false }
        };
        self.0.insert(key, filter.clone());
        Ok(Some(filter))
    }
}

/// Whether a profile of Docker's form can be obeyed, and if not, why.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_profile(text: &str) -> Result<(), String> {
    custom::program(text, 0).map(drop)
}
