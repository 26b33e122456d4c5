//! What a pull or a push tells while it goes on.

use super::super::Digest;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullEvent {
    /// A layer is now so far.
    Layer {
        /// The layer's blob.
        digest: Digest,
        /// How far.
        state: LayerState,
    },
    /// Something that the user should know.
    Warning(String),
    /// The image is there; the store may have had it already.
    Pulled {
        /// Nothing had to be fetched.
        up_to_date: bool,
    },
    /// The image does not come.
    Failed,
}

/// How far a layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// Its turn has not come.
    Waiting,
    /// Another process transfers the same one.
    Elsewhere,
    /// It is being compressed.
    Packing,
    /// Bytes have been transferred.
    Transferring {
        /// So many, those of an earlier try included.
        done: u64,
        /// Of so many.
        total: u64,
    },
    /// The transfer broke and goes on.
    Retrying(String),
    /// All of it is there; the rest of it is being unpacked.
    Unpacking,
    /// It was there before.
    Exists,
    /// It is there now.
    Done,
}
