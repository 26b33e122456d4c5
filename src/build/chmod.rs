//! `--chmod`: octal numbers and the symbolic form of chmod(1).

use super::error::Problem;

/// How to change modes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chmod {
    /// This mode.
    Octal(u32),
    /// Clauses one after the other.
    Symbolic(Vec<Clause>),
}

/// One `who op what` of the symbolic form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clause {
    who: u32,
    operator: char,
    bits: u32,
    /// `X`: execute for folders and for what somebody may execute already.
    execute_if: bool,
}

impl Chmod {
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        if let Some(mode) = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777) {
            return Ok(Self::Octal(mode));
        }
        let clauses: Option<Vec<Vec<Clause>>> = text.split(',').map(clauses).collect();
        let hint = "write an octal mode such as 755, or u=rwX,go=rX";
        let clauses = clauses.ok_or_else(|| Problem::new(format!("--chmod={text} is not a mode")).hint(hint))?;
        Ok(Self::Symbolic(clauses.concat()))
    }

    /// The new mode of something that has `mode`.
    pub(crate) fn apply(&self, mode: u32, folder: bool) -> u32 {
        let clauses = match self {
            Self::Octal(mode) => return *mode,
            Self::Symbolic(clauses) => clauses,
        };
        clauses.iter().fold(mode & 0o7777, |mode, clause| {
            let execute = if clause.execute_if && (folder || mode & 0o111 != 0) { 0o111 } else { 0 };
            let bits = (clause.bits | execute) & clause.who;
            match clause.operator {
                '+' => mode | bits,
                '-' => mode & !bits,
                _ => (mode & !clause.who) | bits,
            }
        })
    }
}

fn clauses(text: &str) -> Option<Vec<Clause>> {
    let start = text.find(['+', '-', '='])?;
    let who = text[..start].chars().try_fold(0, |who, c| match c {
        'u' => Some(who | 0o4700),
        'g' => Some(who | 0o2070),
        'o' => Some(who | 0o1007),
        'a' => Some(who | 0o7777),
        _ => None,
    })?;
    let who = if who == 0 { 0o7777 } else { who };
    let mut clauses: Vec<Clause> = Vec::new();
    for c in text[start..].chars() {
        if matches!(c, '+' | '-' | '=') {
            clauses.push(Clause { who, operator: c, bits: 0, execute_if: false });
            continue;
        }
        let clause = clauses.last_mut()?;
        match c {
            'r' => clause.bits |= 0o444,
            'w' => clause.bits |= 0o222,
            'x' => clause.bits |= 0o111,
            'X' => clause.execute_if = true,
            's' => clause.bits |= 0o6000,
            't' => clause.bits |= 0o1000,
            _ => return None,
        }
    }
    Some(clauses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_by_chmod() {
        let apply = |text: &str, mode, folder| Chmod::parse(text).unwrap().apply(mode, folder);
        assert_eq!(apply("640", 0o777, false), 0o640);
        assert_eq!(apply("+x", 0o644, false), 0o755);
        assert_eq!(apply("u=rwX,go=rX", 0o600, true), 0o755);
        assert_eq!(apply("u=rwX,go=rX", 0o600, false), 0o644);
        assert_eq!(apply("go-rwx", 0o777, false), 0o700);
        assert_eq!(apply("u+s", 0o755, false), 0o4755);
        for text in ["", "888", "77777", "u", "z+x", "u+q"] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
    }
}
