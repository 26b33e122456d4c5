//! Restart policies.

use std::time::Duration;

use crate::spec::model::Service;

/// When a container that ended by itself is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Never.
    No,
    /// After a non-zero exit code, so often at most.
    OnFailure(Option<u32>),
    /// Always, unless a command stopped it.
    Always,
}

impl Policy {
    /// The policy of a service; `restart` beats `deploy.restart_policy`. Values were validated with the file.
    pub(crate) fn of(service: &Service) -> Self {
        if let Some(restart) = &service.restart {
            return match restart.split_once(':') {
                Some(("on-failure", most)) => Self::OnFailure(most.parse().ok()),
                _ if restart == "on-failure" => Self::OnFailure(None),
                _ if matches!(restart.as_str(), "always" | "unless-stopped") => Self::Always,
                _ => Self::No,
            };
        }
        let Some(policy) = service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref()) else {
            return Self::No;
        };
        let most = policy.max_attempts.map(|most| u32::try_from(most).unwrap_or(u32::MAX));
        match policy.condition.as_deref() {
            Some("none") => Self::No,
            Some("on-failure") => Self::OnFailure(most),
            _ => most.map_or(Self::Always, |_| Self::OnFailure(most)),
        }
    }

    /// Whether a container that ended with `code` after `restarts` restarts is started again.
    pub(crate) fn wants(self, code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(most) => code != 0 && most.is_none_or(|most| restarts < most),
            Self::Always => true,
        }
    }
}

/// The pause before a restart: 100 ms, doubled each time, a minute at most.
pub(crate) fn pause(restarts: u32) -> Duration {
    Duration::from_millis(100 << restarts.min(10)).min(Duration::from_mins(1))
}

/// A run of this length shows that the container works: the pauses begin anew.
pub(crate) const STABLE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(restart: &str) -> Policy {
        Policy::of(&Service { restart: Some(restart.to_owned()), ..Service::default() })
    }

    #[test]
    fn policies_are_read_as_docker_reads_them() {
        assert_eq!(policy("no"), Policy::No);
        assert_eq!(policy("always"), Policy::Always);
        assert_eq!(policy("unless-stopped"), Policy::Always);
        assert_eq!(policy("on-failure"), Policy::OnFailure(None));
        assert_eq!(policy("on-failure:3"), Policy::OnFailure(Some(3)));
    }

    #[test]
    fn a_failure_is_retried_as_often_as_allowed() {
        assert!(policy("on-failure:2").wants(1, 1));
        assert!(!policy("on-failure:2").wants(1, 2));
        assert!(!policy("on-failure").wants(0, 0));
        assert!(policy("always").wants(0, 1000));
    }

    #[test]
    fn pauses_grow_to_a_minute() {
        assert_eq!(pause(0), Duration::from_millis(100));
        assert_eq!(pause(3), Duration::from_millis(800));
        assert_eq!(pause(u32::MAX), Duration::from_mins(1));
    }
}
