//! The patterns of `${name#…}`, `${name%…}` and `${name/…/…}`: `*`, `?` and literal characters.

/// Most comparisons that one expansion may take.
const MAX_WORK: usize = 50_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Any,
    One,
    Char(char),
}

fn tokens(pattern: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => match chars.next() {
                Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::Char(c),
                Some(c) => return Err(format!("`\\{c}` is not an escape of a pattern")),
                None => return Err("a pattern ends in a lone \\".to_owned()),
            },
            c => Token::Char(c),
        });
    }
    Ok(tokens)
}

/// Where a match that begins at `text[0]` may end: the shortest or the longest, in characters.
fn end(tokens: &[Token], text: impl Iterator<Item = char>, longest: bool) -> Option<usize> {
    let mut states = vec![false; tokens.len() + 1];
    states[0] = true;
    close(tokens, &mut states);
    let mut found = states[tokens.len()].then_some(0);
    for (index, c) in text.enumerate() {
        if found.is_some() && !longest {
            return found;
        }
        let mut next = vec![false; tokens.len() + 1];
        for (at, token) in tokens.iter().enumerate().filter(|(at, _)| states[*at]) {
            match token {
                Token::Any if c != '\n' => next[at] = true,
                Token::One if c != '\n' => next[at + 1] = true,
                Token::Char(wanted) if *wanted == c => next[at + 1] = true,
                _ => {}
            }
        }
        close(tokens, &mut next);
        if !next.contains(&true) {
            return found;
        }
        if next[tokens.len()] {
            found = Some(index + 1);
        }
        states = next;
    }
    found
}

/// A `*` may also match nothing.
fn close(tokens: &[Token], states: &mut [bool]) {
    for (at, token) in tokens.iter().enumerate() {
        if states[at] && *token == Token::Any {
            states[at + 1] = true;
        }
    }
}

/// Cuts what matches `pattern` off the front (or the back) of `value`.
pub(crate) fn trim(value: &str, pattern: &str, back: bool, longest: bool) -> Result<String, String> {
    let mut tokens = tokens(pattern)?;
    check_work(value, &tokens, 1)?;
    let cut = if back {
        tokens.reverse();
        end(&tokens, value.chars().rev(), longest)
    } else {
        end(&tokens, value.chars(), longest)
    };
    let cut = cut.unwrap_or(0);
    Ok(if back { value.chars().take(value.chars().count() - cut).collect() } else { value.chars().skip(cut).collect() })
}

/// Puts `to` in place of the first (or of every) longest match of `from`.
pub(crate) fn replace(value: &str, from: &str, to: &str, all: bool) -> Result<String, String> {
    let tokens = tokens(from)?;
    let chars: Vec<char> = value.chars().collect();
    check_work(value, &tokens, chars.len())?;
    let to: String = unescape(to);
    let mut result = String::new();
    let mut at = 0;
    while at <= chars.len() {
        let Some(length) = end(&tokens, chars[at..].iter().copied(), true) else {
            result.extend(chars.get(at));
            at += 1;
            continue;
        };
        result.push_str(&to);
        if length == 0 {
            result.extend(chars.get(at));
        }
        at += length.max(1);
        if !all {
            break;
        }
    }
    result.extend(chars.iter().skip(at));
    Ok(result)
}

/// `\/` and `\}` stand for the characters that would end the replacement.
fn unescape(text: &str) -> String {
    text.replace("\\/", "/").replace("\\}", "}")
}

fn check_work(value: &str, tokens: &[Token], starts: usize) -> Result<(), String> {
    match value.len().checked_mul(tokens.len() + 1).and_then(|work| work.checked_mul(starts)) {
        Some(work) if work <= MAX_WORK => Ok(()),
        _ => Err("the value is too long for a pattern".to_owned()),
    }
}
