//! Durations and sizes as stack files write them, and their canonical forms.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration of a stack file (`1m30s`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A size in bytes; negative values (`-1`) mean unlimited where the attribute allows it.
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

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text == "0" {
            return Ok(Self::default());
        }
        if text.starts_with('-') {
            return Err(UnitError::Negative(text.into()));
        }
        let bad = || UnitError::Duration(text.into());
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
                return Err(UnitError::NoUnit(text.into()));
            }
            let scale = match unit {
                "w" => WEEK,
                _ => NANOS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?.1,
            };
            let part = scaled(number, scale).ok_or_else(bad)?;
            total = total.checked_add(part).ok_or_else(|| UnitError::TooLarge(text.into()))?;
            rest = tail;
        }
        if total == 0 && text.contains(|c: char| matches!(c, '1'..='9')) {
            return Err(UnitError::TooSmall(text.into()));
        }
        let nanos = i64::try_from(total).map_err(|_| UnitError::TooLarge(text.into()))?;
        Ok(Self(Duration::from_nanos(nanos.unsigned_abs())))
    }
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
        let nanos = self.0.as_nanos();
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

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text == "-1" {
            return Ok(Self(-1));
        }
        if text.starts_with('-') {
            return Err(UnitError::Negative(text.into()));
        }
        let bad = || UnitError::Size(text.into());
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
        let power = match unit.as_str() {
            "" | "b" => 0,
            "k" | "kb" | "ki" | "kib" => 1,
            "m" | "mb" | "mi" | "mib" => 2,
            "g" | "gb" | "gi" | "gib" => 3,
            "t" | "tb" | "ti" | "tib" => 4,
            "p" | "pb" | "pi" | "pib" => 5,
            _ => return Err(bad()),
        };
        if number.len() > 30 {
            return Err(UnitError::TooLarge(text.into()));
        }
        let bytes = scaled(number, 1 << (10 * power)).ok_or_else(bad)?;
        i64::try_from(bytes).map(Self).map_err(|_| UnitError::TooLarge(text.into()))
    }
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
        text.parse().map_err(de::Error::custom)
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
            Form::Text(text) => text.parse().map_err(de::Error::custom),
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
        assert_eq!(span("0s"), "0s");
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
        for text in ["", "1zb", "99999999999999g", "0x10", "1.5.5m", "1 g b", "-2"] {
            assert_eq!(size(text), i64::MIN, "{text}");
        }
    }

    #[test]
    fn both_travel_as_json() {
        let span: Span = serde_json::from_str("\"1m30s\"").unwrap();
        assert_eq!(serde_json::to_string(&span).unwrap(), "\"1m30s\"");
        let size: ByteSize = serde_json::from_str("\"1k\"").unwrap();
        assert_eq!(serde_json::to_string(&size).unwrap(), "\"1024\"");
    }
}
