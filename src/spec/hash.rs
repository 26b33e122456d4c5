//! The hash that decides whether a container still is what its service says.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::model::Service;

/// SHA-256 (hex) of the canonical JSON of a service, without what does not shape its containers: build,
/// `pull_policy`, scale, `deploy.replicas`, `depends_on`, profiles.
pub fn config_hash(service: &Service) -> String {
    let mut service = service.clone();
    service.build = None;
    service.pull_policy = None;
    service.pull_refresh_after = None;
    service.scale = None;
    service.depends_on.clear();
    service.profiles.clear();
    if let Some(deploy) = &mut service.deploy {
        deploy.replicas = None;
    }
    let json = serde_json::to_vec(&service).unwrap_or_default();
    HEXLOWER.encode(&Sha256::digest(json))
}
