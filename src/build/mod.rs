//! Dockerfiles to images.
//!
//! [`Dockerfile::parse`] reads a text in three passes: `lines` joins physical lines and takes out heredocs,
//! `statement` splits a line into keyword, flags and words, `parse` gives them meaning. The builder then keeps the
//! stages that the target needs, and runs their instructions one by one against the image store.

mod error;
mod event;
mod expand;
mod lines;
mod pattern;
mod statement;

mod request;

pub use error::{Error, Place, Problem};
pub use event::{BuildEvent, Stream};
pub use request::{BuildRequest, ContextSource, Network, Pull, Secret};
