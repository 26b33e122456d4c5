//! The hash that decides whether a container still is what its service says.

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
    hex(&Sha256::digest(json))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
