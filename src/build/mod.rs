//! Dockerfiles to images.
//!
//! A Dockerfile is read in three passes: `lines` joins physical lines and takes out heredocs, `statement` splits a line
//! into keyword, flags and words, `parse` gives them meaning. The builder then keeps the stages that the target needs,
//! and runs their instructions one by one against the image store.

mod agent;
mod archive;
mod builder;
mod cache;
mod chmod;
#[cfg(test)]
mod corpus;
mod error;
mod event;
mod expand;
mod flags;
mod glob;
mod ignore;
mod instruction;
mod lines;
mod mount;
mod mounts;
mod network;
mod parse;
mod pattern;
mod place;
mod request;
mod run;
mod runner;
mod scope;
mod scratch;
mod source;
mod stage;
mod state;
mod statement;
mod stubs;
mod transfer;
mod tree;
mod trust;
mod users;

pub use builder::{build, check};
pub use error::{Error, Place, Problem};
pub use event::{BuildEvent, Stream};
pub(crate) use glob::Glob;
pub(crate) use ignore::Ignore;
pub use parse::Dockerfile;
pub use request::{BuildRequest, ContextSource, Network, Pull, Secret};
