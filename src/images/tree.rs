//! Directory trees by descriptors, and what overlay marks mean.

use rustix::fs::{FileType, Stat};

pub(super) use crate::sys::tree::{empty, list, open, remove};

/// The attribute by which a directory hides the lower layers' one.
pub(super) const OPAQUE: &str = "trusted.overlay.opaque";

/// Whether it is the character device 0:0 that hides a name of lower layers.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
