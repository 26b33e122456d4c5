//! System call filters.

use std::io;
use std::rc::Rc;

use crate::sys::seccomp::Instruction;

/// A compiled filter.
#[derive(Debug, Clone)]
pub(crate) struct Filter(Rc<[Instruction]>);

impl Filter {
    /// Puts the caller and its descendants under the filter.
    pub(crate) fn load(&self) -> io::Result<()> {
        crate::sys::seccomp::load(&self.0)
    }
}

/// The filters that a shim has compiled.
#[derive(Debug, Default)]
pub(crate) struct Filters;

impl Filters {
    pub(crate) fn get(&mut self, _wanted: super::launch::Seccomp, _caps: u64) -> Option<Filter> {
        None
    }
}
