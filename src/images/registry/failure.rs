//! What can go wrong with a registry, each with its remedy.

use std::time::Duration;

/// Why a registry did not give or take what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The host has no address.
    #[error("cannot find the address of {host}: {source}")]
    Name {
        /// Host name.
        host: String,
        /// The resolver's answer.
        source: std::io::Error,
    },
    /// No connection.
    #[error("cannot connect to {host}: {why}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        why: String,
    },
    /// The other side's certificate or protocol is not to be trusted.
    #[error("no trusted connection to {host}: {why}")]
    Tls {
        /// Host and port.
        host: String,
        /// Why.
        why: String,
    },
    /// Nothing came for too long.
    #[error("{host} did not answer within {} s while {doing}", .after.as_secs())]
    Stalled {
        /// Host and port.
        host: String,
        /// What was under way.
        doing: String,
        /// How long it was silent.
        after: Duration,
    },
    /// The connection broke, again and again.
    #[error("the connection to {host} broke while {doing}: {why}")]
    Broken {
        /// Host and port.
        host: String,
        /// What was under way.
        doing: String,
        /// How.
        why: String,
    },
    /// Nobody is logged in, or as the wrong one.
    #[error("{host} denies access to `{name}`{detail}")]
    Denied {
        /// The registry as references name it.
        host: String,
        /// Repository or image.
        name: String,
        /// Whether credentials were sent.
        logged_in: bool,
        /// The registry's words.
        detail: String,
    },
    /// There is no such image.
    #[error("no image `{name}` at {host}{detail}")]
    NotFound {
        /// The registry as references name it.
        host: String,
        /// The image.
        name: String,
        /// The registry's words.
        detail: String,
    },
    /// Too many requests.
    #[error("{host} limits the rate of requests{}", .after.map(|t| format!(" and asks to wait {} s", t.as_secs())).unwrap_or_default())]
    RateLimited {
        /// Host and port.
        host: String,
        /// How long it asks to wait.
        after: Option<Duration>,
    },
    /// An answer that is no success.
    #[error("{host} answered {status} while {doing}{detail}")]
    Status {
        /// Host and port.
        host: String,
        /// The status line.
        status: String,
        /// What was under way.
        doing: String,
        /// The registry's words, and the id of the request.
        detail: String,
    },
    /// An answer that breaks the rules of the protocol, or lies.
    #[error("{host} sent a bad answer while {doing}: {why}")]
    Protocol {
        /// Host and port.
        host: String,
        /// What was under way.
        doing: String,
        /// What is wrong with it.
        why: String,
    },
    /// A redirection that is not followed.
    #[error("{host} redirects to {to}, which is not followed: {why}")]
    Redirect {
        /// Host and port.
        host: String,
        /// Where to.
        to: String,
        /// Why not.
        why: &'static str,
    },
    /// The image is not made for the machine.
    #[error("image `{name}` has no variant for {wanted}; it has {found}")]
    Platform {
        /// The image.
        name: String,
        /// Platform asked for.
        wanted: String,
        /// Those that it has.
        found: String,
    },
    /// The configuration of registries or of the Docker client cannot be used.
    #[error("{path}: {why}")]
    Configuration {
        /// The file or variable.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A credential helper failed.
    #[error("the credential helper `{helper}` failed: {why}")]
    Helper {
        /// The program.
        helper: String,
        /// What it said.
        why: String,
    },
}

impl Failure {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Failure::Name { .. } => "check the name, and this machine's DNS (/etc/resolv.conf)".to_owned(),
            Failure::Connect { .. } => {
                "check that the registry runs and the network reaches it; behind a proxy set HTTPS_PROXY".to_owned()
            }
            Failure::Tls { host, .. } => format!(
                "put the registry's CA into /etc/docker/certs.d/{host}/ca.crt, or allow the registry under `insecure` in \
                 /etc/stack/registries.json"
            ),
            Failure::Stalled { .. } | Failure::Broken { .. } => {
                "run the same command again: what was transferred is kept, and it goes on from there".to_owned()
            }
            Failure::Denied { host, logged_in: false, .. } => {
                format!("check the name; if the repository is private: stack login {host}")
            }
            Failure::Denied { host, .. } => {
                format!("the user of `stack login {host}` may not do this; log in as another, or check the name")
            }
            Failure::NotFound { .. } => "check the name and the tag".to_owned(),
            Failure::RateLimited { host, .. } => {
                format!(
                    "wait, log in for a higher limit (stack login {host}), or use a mirror (/etc/stack/registries.json)"
                )
            }
            Failure::Platform { .. } => "choose another with `--platform`".to_owned(),
            _ => return None,
        };
        Some(hint)
    }

    /// The same, with what was under way.
    pub(super) fn during(self, now: &str) -> Failure {
        match self {
            Failure::Stalled { host, after, .. } => Failure::Stalled { host, after, doing: now.to_owned() },
            Failure::Broken { host, why, .. } => Failure::Broken { host, why, doing: now.to_owned() },
            other => other,
        }
    }

    /// Whether another try may help.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Failure::Stalled { .. } | Failure::Broken { .. })
    }
}
