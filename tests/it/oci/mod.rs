//! `stack oci`: the command line of the runtime-spec.

mod bundle;
mod confined;
mod hooks;
mod life;
mod mounts;
mod shared;
