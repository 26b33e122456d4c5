//! Hashes of definitions: equal hashes mean that nothing has to be made anew.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::spec::model::{Network, StringMap, Volume};

/// Attributes of a service that a running container doesn't depend on.
pub(super) const IGNORED: &[&str] =
    &["attach", "build", "depends_on", "develop", "profiles", "pull_policy", "pull_refresh_after", "scale"];

/// Hash of a network's definition, labels apart.
pub fn network_hash(network: &Network) -> String {
    of(&Network { name: String::new(), labels: StringMap::new(), extensions: BTreeMap::new(), ..network.clone() })
}

/// Hash of a volume's definition, labels apart.
pub fn volume_hash(volume: &Volume) -> String {
    of(&Volume { name: String::new(), labels: StringMap::new(), extensions: BTreeMap::new(), ..volume.clone() })
}

/// SHA-256 over the JSON of a value, in hexadecimal. Maps of the model are ordered, so equal values give equal bytes.
fn of(value: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    HEXLOWER.encode(&Sha256::digest(bytes))
}
