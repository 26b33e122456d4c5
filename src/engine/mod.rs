//! The engine: what exists, what shall exist, and the one process per stack that brings the two together.
//!
//! * [`paths`] says where things lie; [`state`] reads and writes them. Readers need no running process.
//! * [`logs`] reads and follows what containers wrote.
//! * [`control`] is the language between a command and the supervisor; [`client`] speaks it for the command.

pub mod client;
pub mod control;
pub mod logs;
pub mod paths;
pub mod state;
