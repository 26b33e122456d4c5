//! Restart policies.

use std::time::Duration;

use crate::spec::model::Service;
use crate::spec::units::Span;

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

/// How restarts of a service are spaced and counted, where `deploy.restart_policy` says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    delay: Option<Duration>,
    /// A run of this length was a success: attempts are counted anew.
    pub(crate) window: Option<Duration>,
}

impl Pace {
    /// The pace of a service; `restart` knows none.
    pub(crate) fn of(service: &Service) -> Self {
        let policy = service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref());
        let Some(policy) = policy.filter(|_| service.restart.is_none()) else { return Self::default() };
        Self { delay: policy.delay.map(Span::duration), window: policy.window.map(Span::duration) }
    }

    /// The pause before the next start, after this many short runs in a row.
    pub(crate) fn pause(self, short_runs: u32) -> Duration {
        self.delay.unwrap_or_else(|| pause(short_runs))
    }
}

/// The pause before a restart: 100 ms, doubled each time, a minute at most.
pub(crate) fn pause(short_runs: u32) -> Duration {
    Duration::from_millis(100 << short_runs.min(10)).min(Duration::from_mins(1))
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
    fn a_service_may_have_a_pace_of_its_own() {
        use crate::spec::model::{Deploy, RestartPolicy};
        let span = |seconds| Some(Span::from(Duration::from_secs(seconds)));
        let policy = RestartPolicy { delay: span(7), window: span(60), ..RestartPolicy::default() };
        let deploy = Some(Deploy { restart_policy: Some(policy), ..Deploy::default() });
        let service = Service { deploy, ..Service::default() };
        assert_eq!(Pace::of(&service).pause(0), Duration::from_secs(7));
        assert_eq!(Pace::of(&service).window, Some(Duration::from_mins(1)));
        let service = Service { restart: Some("always".into()), ..service };
        assert_eq!(Pace::of(&service).pause(0), Duration::from_millis(100));
    }

    #[test]
    fn pauses_grow_to_a_minute() {
        assert_eq!(pause(0), Duration::from_millis(100));
        assert_eq!(pause(3), Duration::from_millis(800));
        assert_eq!(pause(u32::MAX), Duration::from_mins(1));
    }
}
