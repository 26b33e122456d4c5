//! One file per verb: its flags and what it does.

pub(crate) mod config;
pub(crate) mod down;
pub(crate) mod image;
pub(crate) mod lifecycle;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod port;
pub(crate) mod ps;
pub(crate) mod up;
pub(crate) mod version;
