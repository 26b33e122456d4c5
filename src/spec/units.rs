//! Durations and sizes as stack files write them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A duration of a stack file (`1m30s`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span(pub Duration);

/// A size in bytes; negative values (`-1`) mean unlimited where the attribute allows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ByteSize(pub i64);
