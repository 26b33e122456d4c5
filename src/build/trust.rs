//! Certificate authorities that only RUN steps see: those of a company's proxy, which the machine knows and an image
//! does not. They are mounted and named by variables, so that no layer, configuration or cache key holds them.

use super::scope;
use crate::runtime::launch::Mount;

const BUNDLE: &str = "/run/stack/certificates.pem";
const APT_CONF: &str = "/run/stack/apt.conf";

/// How programs learn of the bundle: OpenSSL's and Go's way, then those of programs with bundles of their own.
const VARIABLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
];

/// Mounts the certificates (PEM) and sets the variables that `env` doesn't have.
pub(super) fn offer(certificates: &[u8], env: &mut Vec<String>, mounts: &mut Vec<Mount>) {
    let file = |target: &str, content: &[u8]| Mount::File {
        target: target.to_owned(),
        content: content.to_vec(),
        mode: 0o444,
        uid: 0,
        gid: 0,
        read_only: true,
    };
    mounts.push(file(BUNDLE, certificates));
    mounts.push(file(APT_CONF, format!("Acquire::https::CAInfo \"{BUNDLE}\";\n").as_bytes()));
    for (name, value) in VARIABLES.map(|name| (name, BUNDLE)).into_iter().chain([("APT_CONFIG", APT_CONF)]) {
        if scope::in_environment(env, name).is_none() {
            env.push(format!("{name}={value}"));
        }
    }
}
