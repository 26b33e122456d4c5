//! The built binary, seen from outside: every test runs `stack` under a root and in a network namespace of its own, and
//! fails when anything of it stays behind.
//!
//! They need root and the Debian packages that `tests/run.sh` names;
//! `make test` installs them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod debian;
mod dockerd;
mod greeter;
mod lan;
mod leaks;
mod outside;
mod poll;
mod ports;
mod pty;
mod sandbox;
mod store;
mod stub;
mod wire;

mod access;
mod attacks;
mod attributes;
mod beside;
mod builds;
mod ci;
mod commands;
mod config;
mod copy;
mod crash;
mod cves;
mod depends;
mod doctor;
mod driver;
mod errors;
mod faults;
mod guestbook;
mod hardships;
mod hostile;
mod images;
mod intruder;
mod isolation;
mod keeper;
mod lifecycle;
mod limits;
mod logs;
mod names;
mod network;
mod networks;
mod oci;
mod pains;
mod policy;
mod prepare;
mod protocol;
mod pulls;
mod quickstart;
mod readiness;
mod reconcile;
mod recreate;
mod registry;
mod screen;
mod shapes;
mod soak;
mod sudo;
mod terminal;
mod up;
mod upgrade;
mod userns;
mod volumes;
mod watch;
