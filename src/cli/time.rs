//! Points in time and durations as users write and read them.

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

use super::error::Error;
use crate::spec::units::Span;

/// Reads `--since` and `--until`: RFC 3339, a date with or without a time (local), seconds since 1970 with or without
/// a fraction, or a duration before `now`.
pub(crate) fn parse_point(text: &str, now: Timestamp) -> Result<Timestamp, Error> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Some(time) = unix(text) {
        return Ok(time);
    }
    if let Ok(ago) = text.parse::<Span>()
        && let Ok(ago) = SignedDuration::try_from(ago.duration())
        && let Ok(time) = now.checked_sub(ago)
    {
        return Ok(time);
    }
    let local = text.parse::<civil::DateTime>().or_else(|_| text.parse::<civil::Date>().map(civil::DateTime::from));
    local.ok().and_then(|time| time.to_zoned(TimeZone::system()).ok()).map(|time| time.timestamp()).ok_or_else(|| {
        Error::new(format!("`{text}` is no point in time"))
            .hint("write a duration before now (10m), a date and time (2026-01-31T12:00:00Z) or seconds since 1970")
    })
}

/// `seconds[.fraction]`, the fraction to nanoseconds.
fn unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds.parse().ok()?, nanos).ok()
}

/// A span of time in the words docker uses: `About a minute`, `3 weeks`.
pub(crate) fn words(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    let days = hours / 24;
    match seconds {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..3600 if minutes < 46 || hours < 1 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if days < 14 => format!("{days} days"),
        _ if days < 60 => format!("{} weeks", days / 7),
        _ if days < 730 => format!("{} months", days / 30),
        _ => format!("{} years", days / 365),
    }
}

/// How long ago `then` was: `5 minutes ago`.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", words(now.duration_since(then)))
}

/// The form of docker's `CreatedAt`: `2026-01-31 12:00:00 +0000 UTC`.
pub(crate) fn created_at(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(text: &str) -> Option<i64> {
        let now = Timestamp::from_second(1_000_000).unwrap();
        parse_point(text, now).ok().map(Timestamp::as_second)
    }

    #[test]
    fn points_in_time() {
        assert_eq!(point("10m"), Some(999_400));
        assert_eq!(point("1h30m"), Some(994_600));
        assert_eq!(point("1700000000"), Some(1_700_000_000));
        assert_eq!(point("1700000000.5"), Some(1_700_000_000));
        assert_eq!(point("1970-01-01T00:01:00Z"), Some(60));
        assert_eq!(point("1970-01-01T01:00:00+01:00"), Some(0));
        assert!(point("2026-01-31").is_some() && point("2026-01-31T10:00:00").is_some());
        assert_eq!(point("yesterday"), None);
    }

    #[test]
    fn spans_in_words() {
        let say = |seconds| words(SignedDuration::from_secs(seconds));
        assert_eq!(say(0), "Less than a second");
        assert_eq!(say(59), "59 seconds");
        assert_eq!(say(61), "About a minute");
        assert_eq!(say(600), "10 minutes");
        assert_eq!(say(3500), "About an hour");
        assert_eq!(say(2 * 86_400), "2 days");
        assert_eq!(say(20 * 86_400), "2 weeks");
        assert_eq!(say(-5), "Less than a second");
    }
}
