//! Where the parts of a loaded stack stand in its files, for messages of later stages.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::diagnostic::Place;
use super::node::Node;
use super::source::{Sources, Span};

/// The merged tree with the places of its parts, and the texts they point into.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    pub(crate) tree: Arc<Node>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) history: Arc<History>,
}

/// What came before the merged tree; empty unless the load was asked to explain.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The documents, in the order in which they were laid over each other.
    pub(crate) layers: Vec<Layer>,
    /// Where variables are set.
    pub(crate) set: BTreeMap<String, Set>,
    /// Entries of `environment` and `labels` that come from a file, by service and name.
    pub(crate) filled: BTreeMap<(String, String), Span>,
}

/// One document, as written and as understood.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) raw: Node,
    pub(crate) tree: Node,
}

/// Where a file sets a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its value.
    pub value: String,
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl Origin {
    /// The place of what stands at `path` (keys and list indices), or of the nearest thing above it.
    pub fn place(&self, path: &[&str]) -> Option<Place> {
        self.sources.place(self.tree.locate(path), "")
    }
}
