//! Which variables an instruction sees.

use std::collections::BTreeMap;

use super::error::Problem;
use super::expand::Expander;
use crate::images::architecture;

/// Build arguments that every RUN gets without declaring them, and that are never part of an image or a cache key.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// The arguments of a stage: declared so far, in order; None if declared without a value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arguments(Vec<(String, Option<String>)>);

impl Arguments {
    pub(crate) fn set(&mut self, name: &str, value: Option<String>) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&String> {
        self.0.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.as_ref())
    }

    /// Those that have a value, in order.
    pub(crate) fn given(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| value.as_ref().map(|value| (name.as_str(), value.as_str())))
    }
}

/// The variables of a configuration's environment.
pub(crate) fn in_environment(env: &[String], name: &str) -> Option<String> {
    env.iter().find_map(|entry| entry.split_once('=').filter(|(known, _)| *known == name)).map(|(_, v)| v.to_owned())
}

/// Sets a variable in place, or appends it.
pub(crate) fn set_environment(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match env.iter_mut().find(|known| known.split_once('=').is_some_and(|(known, _)| known == name)) {
        Some(known) => *known = entry,
        None => env.push(entry),
    }
}

/// An expander for an instruction of a stage: ENV first, then ARG.
pub(crate) fn expander<'a>(escape: char, env: &'a [String], args: &'a Arguments) -> Expander<'a> {
    Expander::new(escape, |name| in_environment(env, name).or_else(|| args.get(name).cloned()))
}

/// Expands one word with an expander.
pub(crate) fn word(expander: &mut Expander<'_>, text: &str) -> Result<String, Problem> {
    expander.word(text).map_err(Problem::new)
}

/// `TARGETPLATFORM` and its like, which a stage sees once it declares them.
pub(crate) fn platform(target_stage: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for side in ["TARGET", "BUILD"] {
        values.insert(format!("{side}PLATFORM"), format!("linux/{}", architecture()));
        values.insert(format!("{side}OS"), "linux".to_owned());
        values.insert(format!("{side}ARCH"), architecture().to_owned());
        values.insert(format!("{side}VARIANT"), String::new());
    }
    values.insert("TARGETSTAGE".to_owned(), target_stage.to_owned());
    values
}

/// True for the proxies' names in either case.
pub(crate) fn is_proxy(name: &str) -> bool {
    PROXIES.iter().any(|known| *known == name || known.to_ascii_lowercase() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_beats_arguments() {
        let mut args = Arguments::default();
        args.set("a", Some("arg".to_owned()));
        args.set("b", Some("arg".to_owned()));
        args.set("c", None);
        let mut env = vec!["PATH=/bin".to_owned()];
        set_environment(&mut env, "a", "env");
        set_environment(&mut env, "a", "env2");
        assert_eq!(env, ["PATH=/bin", "a=env2"]);
        assert_eq!(word(&mut expander('\\', &env, &args), "$a $b ${c-none}").unwrap(), "env2 arg none");
    }
}
