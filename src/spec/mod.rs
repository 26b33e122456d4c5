//! The stack file: YAML text to a typed [`model::Project`]. Pure: no clock, no environment, no files of its own.

pub mod model;
pub mod units;
