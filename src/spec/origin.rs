//! Where the parts of a loaded stack stand in its files, for messages of later stages.

use std::sync::Arc;

use super::diagnostic::Place;
use super::node::Node;
use super::source::Sources;

/// The merged tree with the places of its parts, and the texts they point into.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    pub(crate) tree: Arc<Node>,
    pub(crate) sources: Arc<Sources>,
}

impl Origin {
    /// The place of what stands at `path` (keys and list indices), or of the nearest thing above it.
    pub fn place(&self, path: &[&str]) -> Option<Place> {
        self.sources.place(self.tree.locate(path), "")
    }
}
