//! Hashes of definitions: equal hashes mean that nothing has to be made anew.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::spec::model::{Network, StringMap, Volume};

/// Attributes of a service that a running container doesn't depend on.
pub(super) const IGNORED: &[&str] =
    &["attach", "build", "depends_on", "develop", "profiles", "pull_policy", "pull_refresh_after", "scale"];

/// What a network is made from: its definition, name and labels apart.
pub fn network_definition(network: &Network) -> Value {
    json(&Network { name: String::new(), labels: StringMap::new(), extensions: BTreeMap::new(), ..network.clone() })
}

/// What a volume is made from: its definition, name and labels apart.
pub fn volume_definition(volume: &Volume) -> Value {
    json(&Volume { name: String::new(), labels: StringMap::new(), extensions: BTreeMap::new(), ..volume.clone() })
}

/// Hash of a network's definition.
pub fn network_hash(network: &Network) -> String {
    of(&network_definition(network))
}

/// Hash of a volume's definition.
pub fn volume_hash(volume: &Volume) -> String {
    of(&volume_definition(volume))
}

fn json(definition: &impl Serialize) -> Value {
    serde_json::to_value(definition).unwrap_or_default()
}

/// SHA-256 over the JSON of a value, in hexadecimal. Maps of the model are ordered, so equal values give equal bytes.
fn of(value: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    HEXLOWER.encode(&Sha256::digest(bytes))
}
