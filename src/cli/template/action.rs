//! What stands between `{{` and `}}`: fields, and functions of them.

use serde_json::Value;

use crate::cli::error::Error;

/// Something that has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// `.A.B`; `.` alone is all of it.
    Field(Vec<String>),
    /// `"text"` or `1`.
    Literal(Value),
    /// `upper .A`.
    Call(Function, Vec<Action>),
}

/// A function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Json,
    Upper,
    Lower,
    Len,
    Index,
    Join,
    Println,
    Eq,
    Ne,
    Not,
}

const FUNCTIONS: [(&str, Function, usize); 10] = [
    ("json", Function::Json, 1),
    ("upper", Function::Upper, 1),
    ("lower", Function::Lower, 1),
    ("len", Function::Len, 1),
    ("index", Function::Index, 2),
    ("join", Function::Join, 2),
    ("println", Function::Println, 1),
    ("eq", Function::Eq, 2),
    ("ne", Function::Ne, 2),
    ("not", Function::Not, 1),
];

impl Action {
    /// Reads one action.
    pub(super) fn parse(text: &str) -> Result<Action, Error> {
        let mut rest = text;
        let action = words(&mut rest, 0).filter(|_| rest.trim().is_empty());
        action.ok_or_else(|| {
            let names: Vec<&str> = FUNCTIONS.iter().map(|(name, ..)| *name).collect();
            Error::new(format!("template: `{{{{{text}}}}}` is not understood")).hint(format!(
                "use {{{{.Field}}}}, {{{{.Field.Field}}}}, range, if, and the functions {}",
                names.join(", ")
            ))
        })
    }

    /// The name of the field that it shows.
    pub(super) fn field(&self) -> &str {
        match self {
            Action::Field(path) => path.last().map_or("", String::as_str),
            Action::Literal(_) => "",
            Action::Call(_, arguments) => arguments.first().map_or("", Action::field),
        }
    }

    /// Its value where `dot` is `.`.
    pub(super) fn value(&self, dot: &Value) -> Result<Value, Error> {
        match self {
            Action::Literal(value) => Ok(value.clone()),
            Action::Field(path) => field(path, dot),
            Action::Call(function, arguments) => {
                let arguments: Vec<Value> = arguments.iter().map(|one| one.value(dot)).collect::<Result<_, _>>()?;
                call(*function, &arguments)
            }
        }
    }
}

/// `.A.B` within a value. What the first step doesn't find is a mistake; deeper, names are anybody's.
fn field(path: &[String], dot: &Value) -> Result<Value, Error> {
    let Some((first, deeper)) = path.split_first() else { return Ok(dot.clone()) };
    let found = dot.get(first).ok_or_else(|| {
        let names: Vec<&str> = dot.as_object().into_iter().flat_map(|row| row.keys()).map(String::as_str).collect();
        Error::new(format!("template: there is no field `{first}`"))
            .hint(format!("the fields are {}", names.join(", ")))
    })?;
    Ok(deeper.iter().fold(found, |value, name| value.get(name).unwrap_or(&Value::Null)).clone())
}

fn call(function: Function, arguments: &[Value]) -> Result<Value, Error> {
    let wrong = |why: &str| Error::new(format!("template: {why}"));
    let first = &arguments[0];
    Ok(match function {
        Function::Json => Value::String(first.to_string()),
        Function::Upper => text(first).to_uppercase().into(),
        Function::Lower => text(first).to_lowercase().into(),
        Function::Println => format!("{}\n", arguments.iter().map(text).collect::<Vec<_>>().join(" ")).into(),
        Function::Eq => arguments[1..].contains(first).into(),
        Function::Ne => (*first != arguments[1]).into(),
        Function::Not => (!is_true(first)).into(),
        Function::Len => match first {
            Value::Array(all) => all.len().into(),
            Value::Object(all) => all.len().into(),
            other => other.as_str().map_or(0, str::len).into(),
        },
        Function::Join => {
            let parts = first.as_array().map(|all| all.iter().map(text).collect::<Vec<_>>()).unwrap_or_default();
            parts.join(arguments[1].as_str().unwrap_or_default()).into()
        }
        Function::Index => arguments[1..].iter().try_fold(first.clone(), |value, key| match (&value, key) {
            (Value::Array(all), key) => key
                .as_u64()
                .and_then(|at| all.get(usize::try_from(at).ok()?))
                .cloned()
                .ok_or_else(|| wrong(&format!("index {key} is out of range, there are {}", all.len()))),
            // As Go has it: the empty text for what a map of texts lacks.
            (value, key) => Ok(value.get(text(key)).cloned().unwrap_or_else(|| "".into())),
        })?,
    })
}

/// A value as Go prints it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(all) => format!("[{}]", all.iter().map(text).collect::<Vec<_>>().join(" ")),
        Value::Object(all) => {
            let mut parts: Vec<String> = all.iter().map(|(name, value)| format!("{name}:{}", text(value))).collect();
            parts.sort_unstable();
            format!("map[{}]", parts.join(" "))
        }
        other => other.to_string(),
    }
}

/// Whether `if` takes it for true.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => !all.is_empty(),
    }
}

/// How deep parentheses may lie in each other.
const DEEPEST: usize = 16;

/// A function with its arguments, or one term.
fn words(rest: &mut &str, depth: usize) -> Option<Action> {
    *rest = rest.trim_start();
    let end = rest.find([' ', '(', ')']).unwrap_or(rest.len());
    let known = FUNCTIONS.iter().find(|(name, ..)| *name == &rest[..end]);
    let Some((_, function, fewest)) = known else { return term(rest, depth) };
    *rest = &rest[end..];
    let mut arguments = Vec::new();
    while !rest.trim_start().is_empty() && !rest.trim_start().starts_with(')') {
        arguments.push(term(rest, depth)?);
    }
    (arguments.len() >= *fewest).then_some(Action::Call(*function, arguments))
}

/// A field, a literal, or a call in parentheses.
fn term(rest: &mut &str, depth: usize) -> Option<Action> {
    *rest = rest.trim_start();
    if let Some(inside) = rest.strip_prefix('(') {
        *rest = inside;
        let action = words(rest, depth + 1).filter(|_| depth < DEEPEST)?;
        *rest = rest.trim_start().strip_prefix(')')?;
        return Some(action);
    }
    if let Some(quoted) = rest.strip_prefix('"') {
        let (text, after) = quoted.split_once('"')?;
        *rest = after;
        return Some(Action::Literal(text.into()));
    }
    let end = rest.find([' ', ')']).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    match word.strip_prefix('.') {
        Some("") => Some(Action::Field(Vec::new())),
        Some(path) => {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            path.iter().all(|name| !name.is_empty()).then_some(Action::Field(path))
        }
        None => word.parse::<i64>().ok().map(|number| Action::Literal(number.into())),
    }
}
