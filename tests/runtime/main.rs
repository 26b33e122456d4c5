//! The runtime, with real containers of a static busybox: needs root and the Debian package busybox-static.

mod confine;
mod life;
mod rig;
mod start;
