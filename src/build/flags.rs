//! The `--name=value` flags of instructions, and the values in them.

use std::time::Duration;

use super::error::Problem;

/// The flags of one instruction; each is taken at most once, and what is left over is unknown.
#[derive(Debug)]
pub(crate) struct Flags<'a> {
    keyword: &'a str,
    left: Vec<(&'a str, Option<&'a str>)>,
    asked: Vec<&'static str>,
}

impl<'a> Flags<'a> {
    pub(crate) fn new(keyword: &'a str, flags: &'a [String]) -> Self {
        let split = |flag: &'a String| {
            let flag = flag.strip_prefix("--").unwrap_or(flag);
            flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)))
        };
        Self { keyword, left: flags.iter().map(split).collect(), asked: Vec::new() }
    }

    /// All values of a flag that may be repeated.
    pub(crate) fn all(&mut self, name: &'static str) -> Result<Vec<String>, Problem> {
        self.asked.push(name);
        let keyword = self.keyword;
        let (taken, left) = std::mem::take(&mut self.left).into_iter().partition(|(flag, _)| *flag == name);
        self.left = left;
        let taken: Vec<(&str, Option<&str>)> = taken;
        let value = |(_, value): &(&str, Option<&str>)| match value {
            Some(value) => Ok((*value).to_owned()),
            None => Err(Problem::new(format!("--{name} of {keyword} needs a value")).hint(format!("write --{name}=…"))),
        };
        taken.iter().map(value).collect()
    }

    /// The value of a flag.
    pub(crate) fn one(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        let mut all = self.all(name)?;
        if all.len() > 1 {
            return Err(Problem::new(format!("--{name} is given {} times; it can be given once", all.len())));
        }
        Ok(all.pop())
    }

    /// A flag that is there or not, with or without `=true`.
    pub(crate) fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, Problem> {
        for (flag, value) in &mut self.left {
            if *flag == name && value.is_none() {
                *value = Some("true");
            }
        }
        self.one(name)?.map(|value| boolean(name, &value)).transpose()
    }

    /// A duration such as `1m30s`.
    pub(crate) fn duration(&mut self, name: &'static str) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        let value = duration(&text).ok_or_else(|| {
            Problem::new(format!("--{name}={text} is not a duration")).hint("write for example 500ms, 30s or 1m30s")
        })?;
        if !value.is_zero() && value < Duration::from_millis(1) {
            return Err(Problem::new(format!("--{name}={text} is shorter than 1ms")));
        }
        Ok(Some(value))
    }

    /// Complains about the first flag that nobody asked for.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        let Some((name, _)) = self.left.first() else { return Ok(()) };
        let problem = Problem::new(format!("{} has no flag --{name}", self.keyword));
        if self.asked.is_empty() {
            return Err(problem.hint(format!("{} takes no flags", self.keyword)));
        }
        let known: Vec<String> = self.asked.iter().map(|name| format!("--{name}")).collect();
        Err(problem.hint(format!("it has {}", known.join(", "))))
    }
}

pub(crate) fn boolean(name: &str, text: &str) -> Result<bool, Problem> {
    match text.to_ascii_lowercase().as_str() {
        "" | "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        _ => Err(Problem::new(format!("{name}={text} must be true or false"))),
    }
}

/// Go's durations: numbers with units, `1h2m3.5s`; no sign.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok()).flatten()
}

/// Sizes as `docker` reads them: binary multiples, `64m`, `1gb`.
pub(crate) fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let shift = match lower[digits..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    lower[..digits].parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Splits `a=b,"c=d,e"` at commas outside double quotes.
pub(crate) fn comma_separated(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => fields.last_mut().into_iter().for_each(|field| field.push(c)),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("1.5h"), Some(Duration::from_mins(90)));
        assert_eq!(duration("0"), Some(Duration::ZERO));
        for text in ["", "5", "s", "1x", "-1s", "1..2s", "1m-2s"] {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(size("64m"), Some(64 << 20));
        assert_eq!(size("1GB"), Some(1 << 30));
        assert_eq!(size("99999999999999999999t"), None);
    }
}
