//! The table of names.

use std::net::IpAddr;

/// Names of one container on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The network's real name.
    pub network: String,
    /// Container name, service name, aliases; the first one answers questions for the address.
    pub names: Vec<String>,
    /// The container's addresses on that network.
    pub addresses: Vec<IpAddr>,
}

/// All names of a stack's networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    records: Vec<Record>,
}

impl FromIterator<Record> for Names {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        Self { records: records.into_iter().collect() }
    }
}
