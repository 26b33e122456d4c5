//! The stack file: YAML text to a typed [`model::Project`]. Pure: no clock, no environment, no files of its own.
//!
//! [`discover::discover`] turns flags and environment into a [`LoadRequest`], [`load`] turns that into [`Loaded`];
//! both read files only through a [`Loader`]. Everything they complain about is a [`Diagnostic`] with its places.

pub mod diagnostic;
pub mod discover;
pub mod hash;
pub mod load;
pub mod loader;
pub mod model;
pub mod render;
pub mod select;
pub mod units;

pub use diagnostic::{Diagnostic, Diagnostics, Kind, Place, Severity};
pub use load::{LoadRequest, Loaded, Options, Source, load};
pub use loader::Loader;
pub use model::Project;
