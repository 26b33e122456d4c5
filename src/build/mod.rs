//! Dockerfiles to images.
//!
//! A Dockerfile is read in three passes: `lines` joins physical lines and takes out heredocs, `statement` splits a line
//! into keyword, flags and words, `parse` gives them meaning. The builder then keeps the stages that the target needs,
//! and runs their instructions one by one against the image store.

mod builder;
mod error;
mod event;
mod expand;
mod instruction;
mod lines;
mod pattern;
mod request;
mod statement;

pub use builder::build;
pub use error::{Error, Place, Problem};
pub use event::{BuildEvent, Stream};
pub use request::{BuildRequest, ContextSource, Network, Pull, Secret};
