//! The stack file: YAML text to a typed [`model::Project`]. Pure: no clock, no environment, no files of its own.
//!
//! [`discover::discover`] turns flags and environment into a [`LoadRequest`], [`load`] turns that into [`Loaded`];
//! both read files only through a [`Loader`]. Everything they complain about is a [`Diagnostic`] with its places.

mod assemble;
mod canonical;
pub mod diagnostic;
pub mod discover;
pub(crate) mod dotenv;
mod environment;
pub mod explain;
mod extends;
mod finish;
mod forms;
#[cfg(test)]
mod fuzz;
mod graph;
pub mod hash;
mod include;
mod interpolate;
pub mod json_schema;
pub mod limits;
pub mod load;
pub mod loader;
mod merge;
pub mod model;
mod mounts;
pub mod name;
mod node;
mod normalize;
mod origin;
pub(crate) mod ports;
mod profiles;
pub mod ready;
pub mod render;
mod resources;
#[cfg(test)]
mod rows;
mod scalars;
#[cfg(test)]
mod scenes;
mod schema;
pub mod select;
mod session;
mod source;
pub mod units;
mod unsupported;
mod validate;
mod values;
pub mod variables;
pub(crate) mod volumes;
pub(crate) mod words;
mod yaml;

pub use diagnostic::{Diagnostic, Diagnostics, Kind, Place, Severity};
pub use load::{LoadRequest, Loaded, Options, Source, load};
pub use loader::Loader;
pub use model::Project;
pub use origin::{Origin, Set};

#[cfg(test)]
mod tests;
