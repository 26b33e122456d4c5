//! `.dockerignore`: what of the context a build doesn't see.

use super::error::{Place, Problem};
use super::glob::Glob;

/// Longest ignore file that is read, in bytes.
const MAX_TEXT: usize = 1 << 20;

/// The rules of an ignore file; the last that fits a path, or a folder above it, decides.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    glob: Glob,
    include: bool,
}

impl Ignore {
    /// Reads an ignore file; `name` is for messages.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, Problem> {
        if text.len() > MAX_TEXT {
            return Err(Problem::new(format!("{name} is larger than {} MiB", MAX_TEXT >> 20)));
        }
        let mut rules = Vec::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let place = || Place { file: name.to_owned(), line: index + 1, text: line.to_owned() };
            if !line.starts_with('#')
                && let Some(rule) = rule(line.trim()).map_err(|message| Problem::new(message).at(place()))?
            {
                rules.push(rule);
            }
        }
        Ok(Self { rules })
    }

    /// The rules of `COPY --exclude`.
    pub(crate) fn patterns(patterns: &[String]) -> Result<Self, Problem> {
        let rules = patterns.iter().filter_map(|pattern| rule(pattern.trim()).transpose());
        Ok(Self { rules: rules.collect::<Result<_, _>>().map_err(Problem::new)? })
    }

    /// True if nothing is ignored.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// True if a path, relative and clean, is left out.
    pub(crate) fn excludes(&self, path: &str) -> bool {
        let parents: Vec<&str> = path.match_indices('/').map(|(at, _)| &path[..at]).collect();
        let fits = |glob: &Glob| glob.matches(path) || parents.iter().any(|parent| glob.matches(parent));
        // The last rule that fits decides, so look from the end.
        self.rules.iter().rev().find(|rule| fits(&rule.glob)).is_some_and(|rule| !rule.include)
    }

    /// True if something below an excluded folder may be included again.
    pub(crate) fn reaches_below(&self, folder: &str) -> bool {
        self.rules.iter().any(|rule| rule.include && (rule.glob.reaches_below(folder) || rule.glob.matches(folder)))
    }
}

fn rule(line: &str) -> Result<Option<Rule>, String> {
    let (include, pattern) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
    if pattern.is_empty() {
        return if include { Err("a lone ! means nothing; write !pattern".to_owned()) } else { Ok(None) };
    }
    let clean = clean(pattern);
    let clean = clean.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&clean);
    Ok(Some(Rule { glob: Glob::new(clean)?, include }))
}

/// A path without empty, `.` and inner `..` names, as Go's `path.Clean` makes it.
pub(crate) fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|last| *last != "..") => {
                names.pop();
            }
            ".." if absolute => {}
            name => names.push(name),
        }
    }
    let joined = names.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(text: &str, path: &str) -> bool {
        Ignore::parse(".dockerignore", text).unwrap().excludes(path)
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        assert!(excluded("*.md\n!README.md\n", "a.md"));
        assert!(!excluded("*.md\n!README.md\n", "README.md"));
        assert!(excluded("*.md\n!README*.md\nREADME-secret.md", "README-secret.md"));
        assert!(excluded("node_modules", "node_modules/a/b"));
        assert!(!excluded("node_modules\n!node_modules/a", "node_modules/a/b"));
        assert!(excluded("# note\n /build/ \n", "build/x"));
        assert!(!excluded("#a\n", "#a"));
        assert!(excluded("./a/../b\n", "b"));
        assert!(excluded("**/*.log", "x/y/z.log"));
        assert!(excluded("*/temp*", "somedir/temporary.txt"));
        assert!(!excluded("*/temp*", "temporary.txt"));
        assert!(!excluded("*\n!**\n!../../etc/passwd\n", "x"));
        assert!(Ignore::parse(".dockerignore", "a\n!\n").unwrap_err().to_string().starts_with(".dockerignore:2"));
    }

    #[test]
    fn folders_with_exceptions_are_entered() {
        let ignore = Ignore::parse("x", "*\n!src/**/*.rs\n").unwrap();
        assert!(ignore.excludes("src") && ignore.reaches_below("src") && ignore.reaches_below("src/a"));
        assert!(!ignore.reaches_below("target"));
    }

    #[test]
    fn paths_are_cleaned() {
        for (path, wanted) in
            [("", "."), ("./a//b/", "a/b"), ("a/../..", ".."), ("/../a", "/a"), ("/", "/"), ("a/./..", ".")]
        {
            assert_eq!(clean(path), wanted, "{path}");
        }
    }
}
