//! When an image is pulled: `pull_policy` and `--pull`.

use std::collections::BTreeMap;

use super::error::Error;
use super::registry::Wanted;
use crate::images::{Platform, PullOptions, Reference, Store};
use crate::spec::model::Service;

/// When to pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Nothing is said: if the store lacks it and it isn't built.
    Default,
    /// Whenever it is used.
    Always,
    /// If the store lacks it.
    Missing,
    /// Never.
    Never,
    /// Built, never pulled.
    Build,
    /// If the registry wasn't asked for so many seconds.
    Every(u64),
}

/// Images with their platforms, and the services that they are pulled for.
pub(crate) type Wants<'a> = BTreeMap<(String, Option<String>), Vec<(&'a str, &'a Service)>>;

const DAY: u64 = 24 * 3600;

impl Policy {
    /// Reads `pull_policy`.
    pub(crate) fn of(text: Option<&str>) -> Result<Policy, Error> {
        Ok(match text {
            None | Some("") => Policy::Default,
            Some("always") => Policy::Always,
            Some("missing" | "if_not_present") => Policy::Missing,
            Some("never") => Policy::Never,
            Some("build") => Policy::Build,
            Some("daily") => Policy::Every(DAY),
            Some("weekly") => Policy::Every(7 * DAY),
            Some(other) => {
                let seconds = other.strip_prefix("every_").and_then(seconds);
                Policy::Every(seconds.ok_or_else(|| {
                    Error::new(format!("`pull_policy: {other}` is not known"))
                        .hint("write always, missing, never, build, daily, weekly or every_<time>, such as every_12h")
                })?)
            }
        })
    }

    /// Whether an image is pulled before it is used.
    pub(crate) fn pulls(self, store: &Store, image: &str) -> Result<bool, Error> {
        match self {
            Policy::Always => Ok(true),
            Policy::Never | Policy::Build => Ok(false),
            Policy::Default | Policy::Missing => Ok(store.find(image)?.is_none()),
            Policy::Every(seconds) => Ok(store.find(image)?.is_none() || is_old(store, image, seconds)?),
        }
    }

    /// Whether `stack pull` pulls it.
    pub(crate) fn pulls_on_demand(self, store: &Store, image: &str) -> Result<bool, Error> {
        if self == Policy::Default { Ok(true) } else { self.pulls(store, image) }
    }
}

/// Whether the registry was last asked for an image so long ago; not for one that never came from a registry.
fn is_old(store: &Store, image: &str, seconds: u64) -> Result<bool, Error> {
    let checked = store.checked(&Reference::parse(image)?)?;
    let now = jiff::Timestamp::now().as_second();
    Ok(checked.is_some_and(|then| now.saturating_sub(then.as_second()).unsigned_abs() >= seconds))
}

/// `1w2d3h4m5s` in seconds.
fn seconds(text: &str) -> Option<u64> {
    let (mut sum, mut number) = (0u64, None);
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(number.unwrap_or(0u64).checked_mul(10)?.checked_add(u64::from(digit))?);
            continue;
        }
        let unit = match c {
            'w' => 7 * DAY,
            'd' => DAY,
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        sum = sum.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    (number.is_none() && !text.is_empty()).then_some(sum)
}

/// An image to pull, for a platform or this machine.
pub(crate) fn wanted(image: &str, platform: Option<&str>) -> Result<Wanted, Error> {
    let platform = platform.map(Platform::parse).transpose()?;
    Ok(Wanted { name: Reference::parse(image)?, options: PullOptions { platform } })
}

/// `service `a`` or `services `a`, `b``.
pub(crate) fn list(services: &[(&str, &Service)]) -> String {
    let names: Vec<String> = services.iter().map(|(name, _)| format!("`{name}`")).collect();
    format!("service{} {}", if names.len() > 1 { "s" } else { "" }, names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_pull_policy() {
        let of = |text: &str| Policy::of(Some(text)).ok();
        assert_eq!(of("if_not_present"), Some(Policy::Missing));
        assert_eq!(of("daily"), Some(Policy::Every(86_400)));
        assert_eq!(of("every_12h"), Some(Policy::Every(43_200)));
        assert_eq!(of("every_1w2d3h4m5s"), Some(Policy::Every(788_645)));
        for bad in ["sometimes", "every_", "every_12", "every_h", "every_1y", "every_99999999999999999999w"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
