//! The runtime, with real containers of a static busybox: needs root and the Debian package busybox-static.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "helpers of tests are not seen as tests"
)]

mod confine;
mod guest;
mod life;
mod limits;
mod rig;
mod start;
