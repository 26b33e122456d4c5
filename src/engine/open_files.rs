//! How many files may be open. A supervisor and its shim take all that they may, since each published port takes several;
//! containers get what the command had that started the supervisor.

use std::io;

use rustix::process::{self, Resource};

use super::state::Record;
use crate::runtime::launch::Rlimit;

/// Begins the argument that carries the containers' soft limit to the next supervisor.
const ARGUMENT: &str = "--open-files=";

/// Raises the limit of this process. Returns that of containers, and the supervisor's other arguments.
pub(crate) fn raise(args: &[String]) -> io::Result<(Rlimit, Vec<&String>)> {
    let (limit, args): (Vec<_>, Vec<_>) = args.iter().partition(|arg| arg.starts_with(ARGUMENT));
    let earlier = limit.first().and_then(|limit| limit.strip_prefix(ARGUMENT)?.parse().ok());
    let own = process::getrlimit(Resource::Nofile);
    process::setrlimit(Resource::Nofile, process::Rlimit { current: own.maximum, ..own })?;
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let soft = earlier.unwrap_or(number(own.current));
    Ok((Rlimit { name: "nofile".to_owned(), soft, hard: number(own.maximum) }, args))
}

/// What tells the next supervisor.
pub(crate) fn argument(limit: &Rlimit) -> String {
    format!("{ARGUMENT}{}", limit.soft)
}

/// Gives a container the limit, unless it has one of its own.
pub(crate) fn set(record: &mut Record, limit: &Rlimit) {
    if !record.process.rlimits.iter().any(|own| own.name == limit.name) {
        record.process.rlimits.push(limit.clone());
    }
}
