//! `--filter` of verbs about things that have labels and an age.

use jiff::Timestamp;

use super::error::Error;
use super::time::parse_point;

/// `until=`, `label=` and `label!=`: what holds for everything that is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters {
    until: Option<Timestamp>,
    labels: Vec<Label>,
}

/// A label that is wanted, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    name: String,
    /// None: any.
    value: Option<String>,
    wanted: bool,
}

impl Label {
    /// `NAME` or `NAME=VALUE`.
    pub(crate) fn parse(text: &str, wanted: bool) -> Label {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value.to_owned())));
        Label { name: name.to_owned(), value, wanted }
    }

    /// Whether it holds, where `value_of` tells the labels that there are.
    pub(crate) fn holds<'a>(&self, value_of: impl Fn(&str) -> Option<&'a String>) -> bool {
        let found = value_of(&self.name);
        let is = found.is_some_and(|found| self.value.as_ref().is_none_or(|value| value == found));
        is == self.wanted
    }
}

impl Filters {
    /// Reads the flags' values.
    pub(crate) fn parse(texts: &[String], now: Timestamp) -> Result<Filters, Error> {
        let mut filters = Filters::default();
        for text in texts {
            match text.split_once('=') {
                Some(("until", time)) if filters.until.is_none() => filters.until = Some(parse_point(time, now)?),
                Some(("until", _)) => return Err(Error::new("more than one `until` is given")),
                Some(("label", label)) => filters.labels.push(Label::parse(label, true)),
                Some(("label!", label)) => filters.labels.push(Label::parse(label, false)),
                _ => {
                    return Err(Error::new(format!("unsupported filter `{text}`"))
                        .hint("the filters are until=TIME, label=NAME[=VALUE] and label!=NAME[=VALUE]"));
                }
            }
        }
        Ok(filters)
    }

    /// Whether everything is taken.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Filters::default()
    }

    /// Whether an age is asked for.
    pub(crate) fn has_until(&self) -> bool {
        self.until.is_some()
    }

    /// Whether it is taken. What has no age is older than everything.
    pub(crate) fn take<'a>(&self, created: Option<Timestamp>, value_of: impl Fn(&str) -> Option<&'a String>) -> bool {
        let old = self.until.is_none_or(|until| created.is_none_or(|created| created < until));
        old && self.labels.iter().all(|label| label.holds(&value_of))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn takes(texts: &[&str]) -> bool {
        let now = Timestamp::from_second(10_000).unwrap();
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        let created = Timestamp::from_second(5_000).unwrap();
        Filters::parse(&texts, now).unwrap().take(Some(created), |name| labels.get(name))
    }

    #[test]
    fn all_filters_must_hold() {
        for taken in [&[][..], &["label=a"], &["label=a=1", "label=b"], &["label!=c"], &["label!=a=2", "until=1h"]] {
            assert!(takes(taken), "{taken:?}");
        }
        for left in [&["label=c"][..], &["label=a=2"], &["label!=a"], &["until=2h"], &["label=a", "label=c"]] {
            assert!(!takes(left), "{left:?}");
        }
    }

    #[test]
    fn what_is_no_filter_is_named() {
        let now = Timestamp::from_second(10_000).unwrap();
        for bad in ["label", "until=x", "size=3", ""] {
            assert!(Filters::parse(&[bad.to_owned()], now).is_err(), "{bad}");
        }
        assert!(Filters::parse(&["until=1h".to_owned(), "until=2h".to_owned()], now).is_err());
    }
}
