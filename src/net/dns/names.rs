//! The table of names.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Names of one container on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The network's real name.
    pub network: String,
    /// Container name, service name, aliases; the first one answers questions for the address.
    pub names: Vec<String>,
    /// The container's addresses on that network.
    pub addresses: Vec<IpAddr>,
}

/// All names of a stack's networks, without regard to case. `name.network` is a name as well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    networks: HashMap<String, Zone>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Zone {
    forward: HashMap<String, Vec<IpAddr>>,
    reverse: HashMap<IpAddr, String>,
}

impl FromIterator<Record> for Names {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        let mut names = Self::default();
        for record in records {
            names.add(&record);
        }
        names
    }
}

impl Names {
    fn add(&mut self, record: &Record) {
        let zone = self.networks.entry(record.network.clone()).or_default();
        let suffix = record.network.to_lowercase();
        for name in record.names.iter().map(|name| name.to_lowercase()) {
            for key in [format!("{name}.{suffix}"), name] {
                let addresses = zone.forward.entry(key).or_default();
                // A container's name may be its service's name too.
                let new: Vec<_> = record.addresses.iter().filter(|address| !addresses.contains(address)).collect();
                addresses.extend(new);
            }
        }
        if let Some(name) = record.names.first() {
            let full = format!("{name}.{}", record.network);
            zone.reverse.extend(record.addresses.iter().map(|address| (*address, full.clone())));
        }
    }

    /// Addresses of a name (in lower case, without the final dot) on the networks; `None` if it isn't known there.
    pub(super) fn addresses(&self, networks: &[String], name: &str) -> Option<Vec<IpAddr>> {
        let zones = networks.iter().filter_map(|network| self.networks.get(network));
        let mut found = zones.filter_map(|zone| zone.forward.get(name)).peekable();
        found.peek()?;
        Some(found.flatten().copied().collect())
    }

    /// The name of an address on the networks.
    pub(super) fn name_of(&self, networks: &[String], address: IpAddr) -> Option<&str> {
        let mut zones = networks.iter().filter_map(|network| self.networks.get(network));
        zones.find_map(|zone| zone.reverse.get(&address)).map(String::as_str)
    }
}
