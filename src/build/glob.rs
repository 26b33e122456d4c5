//! Path patterns of `.dockerignore` and of COPY sources: `*`, `?`, `[…]` within a name, `**` across names.
//!
//! Matching walks a set of states, so its time is the length of the pattern times that of the path, whatever they are.

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`: any character but `/`.
    One,
    /// `[…]`: ranges, negated or not.
    Class(bool, Vec<(char, char)>),
    /// `*`: any characters but `/`.
    Star,
    /// `**` at the end: any characters.
    Rest,
    /// The beginning of `**/`: go on behind it, or inside.
    Folders,
    /// The inside of `**/`: any characters, left after a `/`.
    Inside,
}

impl Glob {
    /// Compiles a pattern; the error says what is wrong with it.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            let token = match c {
                '*' if chars.next_if_eq(&'*').is_some() => {
                    while chars.next_if_eq(&'*').is_some() {}
                    chars.next_if_eq(&'/');
                    if chars.peek().is_none() {
                        Token::Rest
                    } else {
                        tokens.push(Token::Folders);
                        Token::Inside
                    }
                }
                '*' => Token::Star,
                '?' => Token::One,
                '[' => class(&mut chars).ok_or_else(|| format!("the pattern `{pattern}` has a [ that isn't closed"))?,
                '\\' => match chars.next() {
                    Some(c) => Token::Char(c),
                    None => return Err(format!("the pattern `{pattern}` ends in a lone \\")),
                },
                c => Token::Char(c),
            };
            tokens.push(token);
        }
        Ok(Self { tokens })
    }

    /// True if the whole path matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        self.after(path.chars())[self.tokens.len()]
    }

    /// True if something below the folder could match.
    pub(crate) fn reaches_below(&self, folder: &str) -> bool {
        self.after(folder.chars().chain(std::iter::once('/'))).contains(&true)
    }

    /// The path that the pattern stands for, if it has no wildcards.
    pub(crate) fn literal(&self) -> Option<String> {
        self.tokens.iter().map(|token| if let Token::Char(c) = token { Some(*c) } else { None }).collect()
    }

    /// The states after some characters; none is left as soon as nothing can match any more.
    fn after(&self, chars: impl Iterator<Item = char>) -> Vec<bool> {
        let mut states = vec![false; self.tokens.len() + 1];
        let mut next = states.clone();
        states[0] = true;
        self.close(&mut states);
        for c in chars {
            next.fill(false);
            self.step(&states, c, &mut next);
            std::mem::swap(&mut states, &mut next);
            if !states.contains(&true) {
                break;
            }
        }
        states
    }

    fn step(&self, states: &[bool], c: char, next: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| states[*at]) {
            match token {
                Token::Char(wanted) if *wanted == c => next[at + 1] = true,
                Token::One if c != '/' => next[at + 1] = true,
                Token::Class(negated, ranges) if c != '/' => {
                    let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                    next[at + 1] |= inside != *negated;
                }
                Token::Star if c != '/' => next[at] = true,
                Token::Rest => next[at] = true,
                Token::Inside => {
                    next[at] = true;
                    next[at + 1] |= c == '/';
                }
                _ => {}
            }
        }
        self.close(next);
    }

    /// Adds the states that are reachable without a character.
    fn close(&self, states: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate().filter(|(_, token)| token.may_be_empty()) {
            if states[at] {
                states[at + 1] = true;
                if *token == Token::Folders {
                    states[at + 2] = true;
                }
            }
        }
    }
}

impl Token {
    fn may_be_empty(&self) -> bool {
        matches!(self, Self::Star | Self::Rest | Self::Folders)
    }
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if(|c| *c == '^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match chars.next()? {
            ']' if !ranges.is_empty() => return Some(Token::Class(negated, ranges)),
            '\\' => chars.next()?,
            c => c,
        };
        let high = if chars.next_if_eq(&'-').is_some() {
            match chars.next()? {
                '\\' => chars.next()?,
                c => c,
            }
        } else {
            low
        };
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_docker() {
        let cases = [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/file", "dir/sub/file", true),
            ("**/file", "file", true),
            ("**/file", "xfile", false),
            ("dir/**", "dir/a/b", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/*", "dir/dir2/dir2/file", true),
            ("a**/*.txt", "a/b/c.txt", true),
            ("*.go", "x/a.go", false),
            ("**/*.go", "x/a.go", true),
            ("?b[a-c]", "xbb", true),
            ("?b[^a-c]", "xbb", false),
            ("a[\\]x]b", "a]b", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("abc/**/d", "abc/x/y/d", true),
            ("abc/**/d", "abc/d", true),
            ("**/**/*.txt", "a/b.txt", true),
        ];
        for (pattern, path, wanted) in cases {
            assert_eq!(Glob::new(pattern).unwrap().matches(path), wanted, "{pattern} {path}");
        }
        assert!(Glob::new("a[b").is_err() && Glob::new("a\\").is_err());
        assert!(Glob::new("a/*/c").unwrap().reaches_below("a/b"));
        assert!(!Glob::new("a/*/c").unwrap().reaches_below("b"));
        assert_eq!(Glob::new("a\\*b").unwrap().literal().as_deref(), Some("a*b"));
    }

    #[test]
    fn hostile_patterns_take_linear_time() {
        let pattern = ["**/a*a*a*a*a*a*b"; 8].join("/");
        let path = [&*"a".repeat(40); 8].join("/");
        assert!(!Glob::new(&pattern).unwrap().matches(&path));
    }
}
