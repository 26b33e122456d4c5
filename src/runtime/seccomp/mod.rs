//! System call filters: Docker's default profile, tightened to the socket families that programs need.
//!
//! The profile is data (`schemas/seccomp.profile`, with the numbers in `schemas/syscalls.tsv`). It is compiled once
//! per shim and set of capabilities, to a tree over ranges of call numbers, which the kernel loads and runs several
//! times faster than a list of comparisons.

mod compile;
mod profile;

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use super::launch::Seccomp;
use crate::sys::seccomp::{Instruction, load};

/// A compiled filter.
#[derive(Debug, Clone)]
pub(crate) struct Filter(Rc<[Instruction]>);

impl Filter {
    /// Puts the caller and its descendants under the filter.
    pub(crate) fn load(&self) -> io::Result<()> {
        load(&self.0)
    }
}

/// The filters that a shim has compiled, by capabilities.
#[derive(Debug, Default)]
pub(crate) struct Filters(BTreeMap<u64, Filter>);

impl Filters {
    /// The filter for a process that may hold these capabilities; `None` if it shall have none.
    pub(crate) fn get(&mut self, wanted: Seccomp, capabilities: u64) -> Option<Filter> {
        match wanted {
            Seccomp::Unconfined => None,
            Seccomp::Default => {
                let compile = || Filter(compile::program(capabilities).into());
                Some(self.0.entry(capabilities).or_insert_with(compile).clone())
            }
        }
    }
}
