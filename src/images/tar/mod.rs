//! Tar archives: a strict reader and a deterministic writer.
//!
//! One parser serves every use, and it refuses what two parsers could read differently: PAX records win over the
//! header, a body on an entry that has none is an error, so are numbers that aren't, and nothing is allocated before it
//! is bounded. Formats read: V7, ustar, GNU (long names, base-256, sparse) and PAX (with GNU sparse 0.0, 0.1 and 1.0).

mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub(crate) use reader::Reader;
pub(crate) use sparse::Segment;
pub(crate) use writer::Writer;

/// Archives are made of blocks of this size.
pub(crate) const BLOCK: usize = 512;

/// Extended attributes: names and values.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// One member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Path as written, not yet made safe.
    pub(crate) name: Vec<u8>,
    /// What it is.
    pub(crate) kind: Kind,
    /// Permission bits, set-id and sticky bits included.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Modification time.
    pub(crate) mtime: Time,
    /// Extended attributes as PAX carries them (`SCHILY.xattr.*`).
    pub(crate) xattrs: Xattrs,
    /// Size of a file in bytes, holes included.
    pub(crate) size: u64,
    /// Where a sparse file's data lies; none for an ordinary file.
    pub(crate) sparse: Option<Vec<Segment>>,
}

/// Kinds of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink(Vec<u8>),
    Hardlink(Vec<u8>),
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
}

/// A point in time: seconds since 1970 and nanoseconds of the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

#[cfg(test)]
mod tests;
