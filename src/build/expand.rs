//! Variable expansion and word splitting, as the Dockerfile language has them.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::vec::IntoIter;

use super::pattern;

/// Longest result of one expansion, in bytes; the kernel takes no longer string in an environment.
const MAX_RESULT: usize = 128 << 10;
/// Deepest nesting of `${a:-${b:-…}}`.
const MAX_DEPTH: usize = 64;

type Lookup<'a> = Box<dyn Fn(&str) -> Option<String> + 'a>;

/// Expands `$name` and `${name…}` and takes quotes and escapes off.
pub(crate) struct Expander<'a> {
    escape: char,
    lookup: Lookup<'a>,
    /// Keep quotes.
    pub(crate) raw_quotes: bool,
    /// Keep escape characters.
    pub(crate) raw_escapes: bool,
    /// Take quotes for ordinary characters (in a heredoc).
    pub(crate) ignore_quotes: bool,
    /// Leave `$name` as it is when the variable is not set.
    keep_unset: bool,
    /// Names that were asked for and not set.
    pub(crate) unset: BTreeSet<String>,
}

impl<'a> Expander<'a> {
    /// Expands with the values of `lookup`.
    pub(crate) fn new(escape: char, lookup: impl Fn(&str) -> Option<String> + 'a) -> Self {
        Self {
            escape,
            lookup: Box::new(lookup),
            raw_quotes: false,
            raw_escapes: false,
            ignore_quotes: false,
            keep_unset: false,
            unset: BTreeSet::new(),
        }
    }

    /// Knows no variables and leaves them as written.
    pub(crate) fn unset_kept(escape: char) -> Self {
        Self { keep_unset: true, ..Self::new(escape, |_| None) }
    }

    /// Only splits into words: variables, quotes and escapes stay.
    pub(crate) fn raw(escape: char) -> Self {
        Self { raw_quotes: true, raw_escapes: true, ..Self::unset_kept(escape) }
    }

    /// Expands to one string; blanks are kept.
    pub(crate) fn word(&mut self, text: &str) -> Result<String, String> {
        self.run(text).map(|(word, _)| word)
    }

    /// Expands and splits at blanks that are not quoted, those of values included.
    pub(crate) fn words(&mut self, text: &str) -> Result<Vec<String>, String> {
        self.run(text).map(|(_, words)| words)
    }

    fn run(&mut self, text: &str) -> Result<(String, Vec<String>), String> {
        let chars: Vec<char> = text.chars().collect();
        let raw_escapes = self.raw_escapes;
        Scan { config: self, chars: chars.into_iter().peekable(), depth: 0 }
            .until(None, raw_escapes)
            .map_err(|message| format!("can't expand `{}`: {message}", shorten(text)))
    }

    fn get(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        if value.is_none() {
            self.unset.insert(name.to_owned());
        }
        value
    }
}

fn shorten(text: &str) -> String {
    const SHOWN: usize = 120;
    if text.chars().count() <= SHOWN {
        text.to_owned()
    } else {
        text.chars().take(SHOWN).chain("…".chars()).collect()
    }
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
    inside: bool,
}

impl Words {
    fn soft(&mut self, c: char) {
        if !c.is_whitespace() {
            self.hard(c);
        } else if self.inside && !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
            self.inside = false;
        }
    }

    fn hard(&mut self, c: char) {
        self.current.push(c);
        self.inside = true;
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

struct Scan<'e, 'a> {
    config: &'e mut Expander<'a>,
    chars: Peekable<IntoIter<char>>,
    depth: usize,
}

impl Scan<'_, '_> {
    /// Reads up to `stop`, or to the end without one. Gives the text as one string and as words.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), String> {
        let mut result = String::new();
        let mut words = Words::default();
        while let Some(c) = self.chars.next() {
            if stop == Some(c) {
                return Ok((result, words.finish()));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.soft(c));
                    result.push_str(&value);
                }
                '<' => {
                    let opening = self.possible_heredoc();
                    opening.chars().for_each(|c| words.hard(c));
                    result.push_str(&opening);
                }
                '\'' | '"' if !self.config.ignore_quotes => {
                    let text = if c == '"' { self.double_quoted(raw_escapes)? } else { self.single_quoted()? };
                    text.chars().for_each(|c| words.hard(c));
                    words.inside = true;
                    result.push_str(&text);
                }
                _ if c == self.config.escape => {
                    if raw_escapes {
                        words.hard(c);
                        result.push(c);
                    }
                    let Some(next) = self.chars.next() else { break };
                    words.hard(next);
                    result.push(next);
                }
                _ => {
                    words.soft(c);
                    result.push(c);
                }
            }
            if result.len() > MAX_RESULT {
                return Err(format!("the result is longer than {} KiB", MAX_RESULT >> 10));
            }
        }
        match stop {
            Some('}') | None if stop.is_some() => Err("the closing } is missing".to_owned()),
            Some(stop) => Err(format!("the closing {stop} is missing")),
            None => Ok((result, words.finish())),
        }
    }

    /// `<<` and the blanks after it belong to the word that follows.
    fn possible_heredoc(&mut self) -> String {
        let mut text = "<".to_owned();
        text.extend(self.chars.next_if_eq(&'<'));
        while text.len() > 1
            && let Some(c) = self.chars.next_if(|c| matches!(c, ' ' | '\t' | '\r'))
        {
            text.push(c);
        }
        text
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let raw = self.config.raw_quotes;
        let mut text = String::new();
        text.extend(raw.then_some('\''));
        for c in self.chars.by_ref() {
            if c == '\'' {
                text.extend(raw.then_some('\''));
                return Ok(text);
            }
            text.push(c);
        }
        Err("the closing ' is missing".to_owned())
    }

    fn double_quoted(&mut self, raw_escapes: bool) -> Result<String, String> {
        let raw = self.config.raw_quotes;
        let mut text = String::new();
        text.extend(raw.then_some('"'));
        while let Some(c) = self.chars.next() {
            match c {
                '"' => {
                    text.extend(raw.then_some('"'));
                    return Ok(text);
                }
                '$' => text.push_str(&self.dollar()?),
                _ if c == self.config.escape => {
                    if raw_escapes {
                        text.push(c);
                    }
                    let escape = self.config.escape;
                    match self.chars.peek() {
                        None => {}
                        Some(&next) if next == '"' || next == '$' || next == escape => {
                            text.push(next);
                            self.chars.next();
                        }
                        Some(_) => text.push(c),
                    }
                }
                _ => text.push(c),
            }
        }
        Err("the closing \" is missing".to_owned())
    }

    /// What follows a `$` that was just read.
    fn dollar(&mut self) -> Result<String, String> {
        if self.chars.next_if_eq(&'{').is_none() {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.config.get(&name) {
                None if self.config.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("variables are nested more than {MAX_DEPTH} deep"));
        }
        let value = self.braced();
        self.depth -= 1;
        value
    }

    fn braced(&mut self) -> Result<String, String> {
        match self.chars.peek() {
            None => return Err("the closing } is missing".to_owned()),
            Some('{' | '}' | ':') => return Err("a variable's name must follow ${".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        let keep = self.config.keep_unset;
        let Some(first) = self.chars.next() else { return Err("the closing } is missing".to_owned()) };
        if first == '}' {
            return Ok(match self.config.get(&name) {
                None if keep => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            });
        }
        let colon = first == ':';
        let operator = if colon { self.chars.next().unwrap_or(':') } else { first };
        let shown = if colon { format!(":{operator}") } else { operator.to_string() };
        match operator {
            '-' | '+' | '?' => {
                let (word, _) = self.until(Some('}'), false)?;
                match self.config.get(&name) {
                    None if keep => Ok(format!("${{{name}{shown}{word}}}")),
                    value => conditional(&name, operator, value, colon, word),
                }
            }
            '#' | '%' if !colon => {
                let (word, _) = self.until(Some('}'), true)?;
                match self.config.get(&name) {
                    None if keep => Ok(format!("${{{name}{shown}{word}}}")),
                    value => {
                        let (longest, word) =
                            word.strip_prefix(operator).map_or((false, word.as_str()), |rest| (true, rest));
                        pattern::trim(&value.unwrap_or_default(), word, operator == '%', longest)
                    }
                }
            }
            '/' if !colon => {
                let all = self.chars.next_if_eq(&'/').is_some();
                let (from, _) = self.until(Some('/'), true)?;
                let (to, _) = self.until(Some('}'), true)?;
                match self.config.get(&name) {
                    None if keep => Ok(format!("${{{name}/{from}/{to}}}")),
                    value => pattern::replace(&value.unwrap_or_default(), &from, &to, all),
                }
            }
            _ => Err(format!("`{shown}` is not an operator of ${{{name}…}}")),
        }
    }

    /// A name, a number, or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let Some(&first) = self.chars.peek() else { return name };
        let special = matches!(first, '@' | '*' | '#' | '?' | '-' | '$' | '!');
        if special {
            self.chars.next();
            return first.to_string();
        }
        let number = first.is_ascii_digit();
        while let Some(c) =
            self.chars.next_if(|c| if number { c.is_ascii_digit() } else { c.is_alphanumeric() || *c == '_' })
        {
            name.push(c);
        }
        name
    }
}

fn conditional(name: &str, operator: char, value: Option<String>, colon: bool, word: String) -> Result<String, String> {
    let given = value.filter(|value| !(colon && value.is_empty()));
    match (operator, given) {
        ('-', given) => Ok(given.unwrap_or(word)),
        ('+', given) => Ok(given.map_or_else(String::new, |_| word)),
        (_, Some(value)) => Ok(value),
        (_, None) if !word.is_empty() => Err(format!("{name}: {word}")),
        (_, None) if colon => Err(format!("{name} is not set or empty; give it by --build-arg {name}=…")),
        (_, None) => Err(format!("{name} is not set; give it by --build-arg {name}=…")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(name: &str) -> Option<String> {
        let path = format!("{}/../../shared/corpus/docker/dockerfile-shell/{name}", env!("CARGO_MANIFEST_DIR"));
        let alternative = format!("{}/../shared/corpus/docker/dockerfile-shell/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = [path, alternative].iter().find_map(|path| fs_err::read_to_string(path).ok());
        if text.is_none() {
            println!("skipped: no {name} beside the repository");
        }
        text
    }

    #[test]
    fn expands_like_the_reference() {
        let Some(text) = table("envVarTest") else { return };
        let variables = [("PWD", "/home"), ("SHELL", "bash"), ("KOREAN", "한국어"), ("NULL", "")];
        let mut cases = 0;
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            let mut parts = line.splitn(3, '|');
            let (platform, input, wanted) =
                (parts.next().unwrap(), parts.next().unwrap().trim(), parts.next().unwrap_or("").trim());
            if platform == "W" {
                continue;
            }
            let lookup = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            let got = Expander::new('\\', lookup).word(input);
            match got {
                Ok(got) => assert_eq!(got, wanted, "{input}"),
                Err(message) => assert_eq!(wanted, "error", "{input}: {message}"),
            }
            cases += 1;
        }
        assert!(cases > 200, "{cases}");
    }

    #[test]
    fn splits_words_like_the_reference() {
        let Some(text) = table("wordsTest") else { return };
        let mut variables = std::collections::BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            if let Some(set) = line.strip_prefix("ENV ") {
                let (name, value) = set.split_once('=').unwrap();
                variables.insert(name.to_owned(), value.to_owned());
                continue;
            }
            let (input, wanted) = line.split_once('|').unwrap();
            let got = Expander::new('\\', |name| variables.get(name).cloned()).words(input.trim());
            let wanted = wanted.trim_start();
            match got {
                Ok(got) => assert_eq!(got.join(","), wanted, "{input}"),
                Err(message) => assert_eq!(wanted.trim(), "error", "{input}: {message}"),
            }
        }
    }

    #[test]
    fn cuts_and_replaces_by_pattern() {
        let value = "/usr/lib/x.tar.gz";
        let of = |text: &str| Expander::new('\\', |name| (name == "v").then(|| value.to_owned())).word(text).unwrap();
        assert_eq!(of("${v#*/}"), "usr/lib/x.tar.gz");
        assert_eq!(of("${v##*/}"), "x.tar.gz");
        assert_eq!(of("${v%.*}"), "/usr/lib/x.tar");
        assert_eq!(of("${v%%.*}"), "/usr/lib/x");
        assert_eq!(of("${v/lib/share}"), "/usr/share/x.tar.gz");
        assert_eq!(of("${v//\\//:}"), ":usr:lib:x.tar.gz");
        assert_eq!(of("${v/u?r*.tar/Y}"), "/Y.gz");
    }

    #[test]
    fn limits_growth() {
        let long = "x".repeat(1000);
        let text = "$v".repeat(1000);
        assert!(Expander::new('\\', |_| Some(long.clone())).word(&text).unwrap_err().contains("longer"));
        assert!(Expander::new('\\', |_| None).word(&"${a:-".repeat(100_000)).unwrap_err().contains("nested"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[${}:?#%/*'\"\\\\a-c <]{0,40}") {
            let _ = Expander::new('\\', |name| (name != "a").then(|| "abcabc".to_owned())).word(&text);
            let _ = Expander::raw('`').words(&text);
        }
    }
}
