//! What an unpacked layer may cost.

use std::os::fd::BorrowedFd;

use crate::images::error::{Doing as _, Error};

/// No layer is larger.
const MAX_BYTES: u64 = 64 << 30;
/// No layer has more entries.
const MAX_ENTRIES: u64 = 8 << 20;
/// No file is larger, holes included.
const MAX_FILE: u64 = 8 << 40;
/// Space left free for others.
const RESERVE: u64 = 64 << 20;

/// What is left of the limits.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: u64,
    entries: u64,
    free: u64,
}

impl Budget {
    /// The limits for a layer unpacked into a directory.
    pub(super) fn of(root: BorrowedFd<'_>) -> Result<Budget, Error> {
        let disk = rustix::fs::fstatvfs(root).doing(|| "asking for free space".to_owned())?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        // A small disk, such as a test's, gives what it has.
        let free = if free > 4 * RESERVE { free - RESERVE } else { free };
        Ok(Budget { bytes: free.min(MAX_BYTES), entries: MAX_ENTRIES, free })
    }

    /// Takes one entry with so many bytes of data, before any of them is read. [`Error::NoSpace`] where the disk is the limit.
    pub(super) fn take(&mut self, data: u64, size: u64) -> Result<(), Error> {
        self.entries = self
            .entries
            .checked_sub(1)
            .ok_or_else(|| Error::TooLarge(format!("it has more than {MAX_ENTRIES} entries")))?;
        if size > MAX_FILE {
            return Err(Error::TooLarge(format!("a file of {size} bytes")));
        }
        self.bytes = self.bytes.checked_sub(data).ok_or_else(|| self.too_large(data))?;
        Ok(())
    }

    fn too_large(&self, data: u64) -> Error {
        if self.free < MAX_BYTES {
            Error::NoSpace { place: String::new(), needed: data, free: self.bytes }
        } else {
            Error::TooLarge("it unpacks to more than 64 GiB".to_owned())
        }
    }
}
