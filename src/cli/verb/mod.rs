//! One file per verb: its flags and what it does.

pub(crate) mod config;
pub(crate) mod image;
pub(crate) mod version;
