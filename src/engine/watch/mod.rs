//! Dev mode's parts: what `develop.watch` asks for, which files changed, and how a change gets into a container.
//!
//! They run in the command, in the foreground: a [`Tree`] watches what the [`Rule`]s of the services cover, [`plan`]
//! says what a batch of changes asks for, and `bring` makes one name in a container's root what it is on the host.
//! Restarts, rebuilds and commands go to the supervisor by its control socket.

mod authors;
mod batch;
mod bring;
mod error;
mod ignored;
mod rule;
mod source;
mod tree;

pub use authors::Authors;
pub use batch::{Change, Work, initial, plan};
pub use bring::{Brought, bring};
pub use error::Error;
pub use rule::{Act, Rule, is_auto, may_write};
pub use tree::{Changes, Tree};
