//! Unpacking a layer's archive into a directory, through directory descriptors only.
//!
//! No name of the archive is ever handed to the kernel as a path that could lead outside: directories are entered one
//! name at a time without following links, or by `openat2` within the root where the layer itself made a link. What is
//! there already is replaced, never opened. Meanings chosen where the format leaves them open:
//!
//! * A whiteout hides what lower layers have and never what the same layer brings, wherever in the archive it stands.
//! * A directory that no entry describes takes the lower layers' attributes, else root's with mode 755 and time 0.
//! * A hard link to a name that only lower layers have becomes a copy.
//! * Attributes kept: `user.*` (but overlay's), `security.capability` and POSIX access lists.

mod limits;
mod metadata;
mod names;
mod unpacker;
mod whiteouts;

pub(super) use metadata::is_kept;

use std::io::BufRead;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::error::Error;
use super::tar;
use crate::sys::userns::Ids;

/// How a layer is unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As a layer of an overlay: whiteouts become the marks that overlay knows, and device nodes are made.
    Overlay,
    /// Onto a plain directory: whiteouts remove what was there before, and device nodes are left out.
    Plain,
}

/// The layers below, topmost first. They are asked for only where they matter, and may still be in the making until then.
pub(super) trait Below {
    /// Waits until they are there.
    fn layers(&self) -> Result<&[OwnedFd], Error>;
}

/// No layers below.
#[derive(Debug)]
pub(super) struct Nothing;

impl Below for Nothing {
    fn layers(&self) -> Result<&[OwnedFd], Error> {
        Ok(&[])
    }
}

impl Below for Vec<OwnedFd> {
    fn layers(&self) -> Result<&[OwnedFd], Error> {
        Ok(self)
    }
}

/// Unpacks an archive into `root`, where `parents` are the layers below, and `ids` those of a user namespace
/// that it is seen outside of. The archive is read to its end.
pub(super) fn unpack(
    archive: impl BufRead,
    root: BorrowedFd<'_>,
    form: Form,
    ids: Option<Ids>,
    parents: &dyn Below,
) -> Result<(), Error> {
    let mut reader = tar::Reader::new(archive);
    let mut unpacker = unpacker::Unpacker::new(root, form, parents)?;
    while let Some(mut entry) = reader.next()? {
        if let Some(ids) = ids {
            let outside = |id| ids.outside(id).unwrap_or(ids.base);
            (entry.uid, entry.gid) = (outside(entry.uid), outside(entry.gid));
        }
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.finish()
}

#[cfg(test)]
mod tests;
