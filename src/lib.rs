//! `stack`: a declarative multi-container orchestrator for Linux.
//!
//! The layers, imports pointing downwards only:
//!
//! ```text
//!            main.rs
//!               │
//!              cli                              flags, printing, exit codes
//!               │
//!             engine                            state, observe, execute, supervise: the only writer
//!        ┌──────┼────────┬────────┬───────┐
//!     planner   build    images   net   runtime
//!        │        └───────┴────────┴───────┴──► sys
//!       spec
//! ```
//!
//! * [`spec`] turns YAML text into a `Project`; pure.
//! * [`planner`] turns a `Project` and what was observed into a `Plan`; pure.
//! * [`images`], [`net`] and [`runtime`] know nothing of each other; they take file descriptors and numbers.
//! * [`build`] turns a Dockerfile into an image with these three.
//! * [`engine`] reconciles; [`cli`] is what a user sees.
//! * [`sys`] holds every `unsafe` block and raw system call, and knows no containers.

pub mod build;
pub mod cli;
pub mod engine;
pub mod images;
pub mod net;
pub mod planner;
pub mod runtime;
pub mod spec;
pub mod sys;

#[cfg(test)]
mod layers;
