//! Small text helpers: shell words and suggestions for misspelt names.

/// Splits a command line into words as a shell would: quotes and backslashes, but no expansion.
pub(crate) fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut word, mut started) = (Vec::new(), String::new(), false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                started = true;
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("a single quote is not closed"),
                    }
                }
            }
            '"' => {
                started = true;
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err("a double quote is not closed"),
                        },
                        Some(c) => word.push(c),
                        None => return Err("a double quote is not closed"),
                    }
                }
            }
            '\\' => {
                started = true;
                word.extend(chars.next());
            }
            c if c.is_whitespace() => {
                if std::mem::take(&mut started) {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => {
                started = true;
                word.push(c);
            }
        }
    }
    if started {
        words.push(word);
    }
    Ok(words)
}

/// The candidate that `name` most likely means: `did you mean ...?`.
pub(crate) fn suggest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
    if name.len() > 64 {
        return None;
    }
    let most = match name.chars().count() {
        0..=2 => 1,
        3..=6 => 2,
        _ => 3,
    };
    let lower = name.to_lowercase();
    let distance = |candidate: &&str| edits(&lower, &candidate.to_lowercase());
    let best = candidates.into_iter().min_by_key(distance).filter(|best| distance(best) <= most)?;
    Some(format!("did you mean `{best}`?"))
}

/// Edits (insert, delete, replace, swap of neighbours) between two words.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_a_shell_splits_them() {
        assert_eq!(split("sh -c 'echo \"a b\" && echo c\\ d' ").unwrap(), ["sh", "-c", "echo \"a b\" && echo c\\ d"]);
        assert_eq!(split("a\\ b \"c\\\"d\" ''").unwrap(), ["a b", "c\"d", ""]);
        assert!(split("'x").is_err());
        assert!(split("").unwrap().is_empty());
    }

    #[test]
    fn suggestions() {
        let known = ["depends_on", "deploy", "image", "volumes"];
        assert_eq!(suggest("depend_on", known).as_deref(), Some("did you mean `depends_on`?"));
        assert_eq!(suggest("imaeg", known).as_deref(), Some("did you mean `image`?"));
        assert_eq!(suggest("zzz", known), None);
    }
}
