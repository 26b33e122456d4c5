//! Durations and sizes as stack files write them, and their canonical forms.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration of a stack file (`1m30s`), in nanoseconds. A negative one can be printed, but nothing is started with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(i64);

/// A size in bytes; -1 means unlimited where the attribute allows it. Others below zero can be printed only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub i64);

/// Why a duration or a size cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A number without a unit.
    #[error("`{0}` has no unit; write `{0}s` for seconds")]
    NoUnit(String),
    /// Not a duration at all.
    #[error("`{0}` is no duration; write a number and a unit, such as `1m30s` (units: ns, us, ms, s, m, h, d, w)")]
    Duration(String),
    /// Not a size at all.
    #[error("`{0}` is no size; write a number and a unit, such as `512m` (units: b, k, m, g, t, p)")]
    Size(String),
    /// Negative.
    #[error("`{0}` is negative")]
    Negative(String),
    /// Below the smallest unit.
    #[error("`{0}` is below one nanosecond")]
    TooSmall(String),
    /// More than can be counted.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

const NANOS: [(&str, u128); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];
const WEEK: u128 = 7 * 86_400_000_000_000;

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl Span {
    /// How long; nothing if negative.
    pub fn duration(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }

    /// Reads what docker compose reads, a negative duration too.
    pub(crate) fn lax(text: &str) -> Result<Self, UnitError> {
        let (negative, plain) = text.strip_prefix('-').map_or((false, text), |plain| (true, plain));
        let nanos = nanos(plain.strip_prefix('+').unwrap_or(plain), text)?;
        Ok(Self(if negative { -nanos } else { nanos }))
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let span = Self::lax(text)?;
        if text.starts_with('-') {
            return Err(UnitError::Negative(text.into()));
        }
        if span.0 == 0 && text.contains(|c: char| matches!(c, '1'..='9')) {
            return Err(UnitError::TooSmall(text.into()));
        }
        Ok(span)
    }
}

/// Nanoseconds of a duration without a sign; `shown` is what was written.
fn nanos(text: &str, shown: &str) -> Result<i64, UnitError> {
    if text == "0" {
        return Ok(0);
    }
    let bad = || UnitError::Duration(shown.into());
    let (mut rest, mut total) = (text, 0u128);
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        if unit.is_empty() && digits == text.len() && text.parse::<f64>().is_ok() {
            return Err(UnitError::NoUnit(shown.into()));
        }
        let scale = match unit {
            "w" => WEEK,
            _ => NANOS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?.1,
        };
        let part = scaled(number, scale).ok_or_else(bad)?;
        total = total.checked_add(part).ok_or_else(|| UnitError::TooLarge(shown.into()))?;
        rest = tail;
    }
    i64::try_from(total).map_err(|_| UnitError::TooLarge(shown.into()))
}

/// `number` (digits with at most one point) times `scale`, rounded down; `None` where it is no number or overflows.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let integer = if whole.is_empty() { 0 } else { whole.parse::<u128>().ok()? };
    let mut total = integer.checked_mul(scale)?;
    let mut unit = scale;
    for digit in fraction.bytes().take(18) {
        let value = u128::from(digit.checked_sub(b'0').filter(|d| *d < 10)?);
        total = total.checked_add(value * unit / 10)?;
        unit /= 10;
    }
    Some(total)
}

/// Go's form: `1h5m30.02s`, `1.5ms`, `0s`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let nanos = u128::from(self.0.unsigned_abs());
        if nanos == 0 {
            return f.write_str("0s");
        }
        for (unit, scale) in [("ns", 1), ("µs", 1_000), ("ms", 1_000_000)] {
            if nanos < scale * 1000 {
                return write!(f, "{}{unit}", decimal(nanos, scale));
            }
        }
        let (hours, rest) = (nanos / NANOS[7].1, nanos % NANOS[7].1);
        let (minutes, rest) = (rest / NANOS[6].1, rest % NANOS[6].1);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", decimal(rest, NANOS[5].1))
    }
}

/// `value / scale` without trailing zeros.
fn decimal(value: u128, scale: u128) -> String {
    let (whole, mut rest) = (value / scale, value % scale);
    let mut text = whole.to_string();
    if rest > 0 {
        text.push('.');
    }
    let mut unit = scale / 10;
    while rest > 0 {
        text.push(char::from(b'0' + u8::try_from(rest / unit).unwrap_or(0)));
        rest %= unit;
        unit /= 10;
    }
    text
}

impl ByteSize {
    /// Reads what docker compose reads: any whole number below zero too, and what is too large as the largest.
    pub(crate) fn lax(text: &str) -> Result<Self, UnitError> {
        if let Ok(bytes) = text.parse() {
            return Ok(Self(bytes));
        }
        if text.starts_with('-') && text.trim_start_matches(['-', '0', '.']).starts_with(|c: char| c.is_ascii_digit()) {
            return Err(UnitError::Negative(text.into()));
        }
        bytes(text).map(|bytes| Self(i64::try_from(bytes).unwrap_or(i64::MAX)))
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match Self::lax(text)? {
            Self(bytes) if bytes < -1 => Err(UnitError::Negative(text.into())),
            Self(i64::MAX) if text != i64::MAX.to_string() => Err(UnitError::TooLarge(text.into())),
            size => Ok(size),
        }
    }
}

/// Bytes of a size that is not negative, as many as there are.
fn bytes(text: &str) -> Result<u128, UnitError> {
    let bad = || UnitError::Size(text.into());
    let last = text.rfind(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' ')).ok_or_else(bad)?;
    let (number, unit) = text.split_at(last + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let power = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 1,
        "m" | "mb" | "mi" | "mib" => 2,
        "g" | "gb" | "gi" | "gib" => 3,
        "t" | "tb" | "ti" | "tib" => 4,
        "p" | "pb" | "pi" | "pib" => 5,
        _ => return Err(bad()),
    };
    let scale = 1 << (10 * power);
    let plain = number.len() <= 18 && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain {
        return scaled(number, scale).ok_or_else(bad);
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "saturates"
    )]
    let bytes = go_float(number).filter(|value| *value >= 0.0).map(|value| (value * scale as f64) as u128);
    bytes.ok_or_else(bad)
}

/// A decimal number as Go reads it: with a sign, an exponent, and underscores between digits.
pub(crate) fn go_float(text: &str) -> Option<f64> {
    let digit = |at: Option<usize>| at.and_then(|at| text.as_bytes().get(at)).is_some_and(u8::is_ascii_digit);
    let between = |(at, _): (usize, &str)| digit(at.checked_sub(1)) && digit(Some(at + 1));
    let known = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-' | b'_');
    let valid = text.bytes().all(known) && text.match_indices('_').all(between);
    text.replace('_', "").parse().ok().filter(|value: &f64| valid && value.is_finite())
}

/// Decimal bytes.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::lax(&text).map_err(de::Error::custom)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(i64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(bytes) => Ok(Self(bytes)),
            Form::Text(text) => Self::lax(&text).map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> String {
        text.parse::<Span>().map_or_else(|error| error.to_string(), |span| span.to_string())
    }

    fn size(text: &str) -> i64 {
        text.parse::<ByteSize>().map_or(i64::MIN, |size| size.0)
    }

    #[test]
    fn durations_print_canonically() {
        assert_eq!(span("1h5m30s20ms"), "1h5m30.02s");
        assert_eq!(span("90s"), "1m30s");
        assert_eq!(span("1.5s"), "1.5s");
        assert_eq!(span("1500us"), "1.5ms");
        assert_eq!(span("2d"), "48h0m0s");
        assert_eq!(span("1w"), "168h0m0s");
        assert_eq!((span("0s"), span("+5s")), ("0s".into(), "5s".into()));
    }

    #[test]
    fn bad_durations_say_what_to_write() {
        assert!(span("10").contains("write `10s`"));
        for text in ["", "s", "1 s", "1.5.5s", "1e9s", "NaN", "-1s", "9999999999999h", "0.0000000001ns"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_count_in_1024() {
        assert_eq!(size("512m"), 512 << 20);
        assert_eq!(size("1.5g"), 3 << 29);
        assert_eq!(size("64 Ki"), 65536);
        assert_eq!(size("1024"), 1024);
        assert_eq!(size("-1"), -1);
        assert_eq!((size("1_000"), size("1e3"), size("+5m"), size("-0")), (1000, 1000, 5 << 20, 0));
        for text in ["", "1zb", "99999999999999g", "0x10", "1.5.5m", "1 g b", "-2"] {
            assert_eq!(size(text), i64::MIN, "{text}");
        }
    }

    #[test]
    fn what_can_only_be_printed_is_read_too() {
        for (text, printed) in [("-1s", "-1s"), ("-5m", "-5m0s"), ("-0s", "0s"), ("0.0000000001ns", "0s")] {
            assert_eq!(Span::lax(text).map(|span| span.to_string()), Ok(printed.to_owned()));
        }
        for (text, bytes) in [("-2", -2), ("99999999999999999999", i64::MAX), ("9999p", i64::MAX)] {
            assert_eq!(ByteSize::lax(text), Ok(ByteSize(bytes)));
        }
        assert!(ByteSize::lax("-5m").is_err() && Span::lax("9999999999999h").is_err());
    }

    #[test]
    fn both_travel_as_json() {
        let span: Span = serde_json::from_str("\"1m30s\"").unwrap();
        assert_eq!(serde_json::to_string(&span).unwrap(), "\"1m30s\"");
        let size: ByteSize = serde_json::from_str("\"1k\"").unwrap();
        assert_eq!(serde_json::to_string(&size).unwrap(), "\"1024\"");
    }
}
