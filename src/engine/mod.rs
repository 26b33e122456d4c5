//! The engine: what exists, what shall exist, and the one process per stack that brings the two together.
//!
//! * [`paths`] says where things lie; [`state`], [`networks`] and [`volumes`] read and write them. Readers need no
//!   running process. [`modes`] puts network modes into the words of networks; [`logs`] reads what containers wrote ([`changes`] tells when); [`docker`] takes
//!   over volumes of Docker.
//! * [`control`] is the language between a command and the supervisor; [`client`] speaks it for the command.
//! * [`supervisor`] is the process that decides: it answers commands (`serve`), looks, plans and executes (`intent`, `observe`,
//!   `reconcile`, `execute`), one command at a `turn`, makes, starts and stops containers (`record`,
//!   `create`, `seed`, `bundle`, `prepare`, `start`, `endpoints`, `names`, `ports`, `plug`, `stop`, `comeback`, `exec`), watches
//!   them (`health`, `readiness`, `restart`, `witness`), changes limits (`limits`, `update`), opens their root file systems ([`rootfs`]) and takes over
//!   after a crash (`recover`, `estate`) or another version of the program (`succession`). Commands come in by the `door`; the
//!   `holder` of the containers is the shim.
//! * [`doctor`] tries out what the machine can do.
//! * [`watch`] is what dev mode is made of.

mod bundle;
pub mod changes;
pub mod client;
mod comeback;
pub mod control;
mod create;
mod deaf;
mod departures;
pub mod docker;
pub mod doctor;
mod door;
mod endpoints;
mod estate;
mod exec;
mod execute;
mod filter;
mod guests;
mod healing;
mod health;
pub mod history;
mod holder;
mod hosts;
mod intent;
mod limits;
pub mod logs;
pub mod modes;
mod names;
pub mod networks;
mod observe;
mod open_files;
mod options;
pub mod paths;
mod plug;
mod ports;
mod prepare;
mod reach;
mod readiness;
mod reconcile;
mod record;
mod recover;
mod restart;
pub mod rootfs;
mod seed;
mod serve;
mod start;
pub mod state;
mod stop;
mod succession;
pub mod supervisor;
mod turn;
pub mod update;
pub mod volumes;
pub mod watch;
mod witness;

pub(crate) use record::rlimits;
