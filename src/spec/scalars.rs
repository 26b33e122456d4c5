//! Scalars brought into shape: cast, checked, printed canonically. What docker compose lets pass although nothing can be
//! started with it is kept, and said.

use super::canonical::Canon;
use super::diagnostic::Kind;
use super::node::{Node, Trail, Value};
use super::source::Span;
use super::units::{ByteSize, Span as Time, UnitError, go_float};
use super::words;

impl Canon<'_, '_> {
    pub(crate) fn string(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        if node.as_str().is_some() { Some(node) } else { self.mismatch(&node, trail, "a string") }
    }

    pub(crate) fn text(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        match node.scalar_text() {
            Some(text) => Some(Node { value: Value::Str(text), ..node }),
            None => self.mismatch(&node, trail, "a string"),
        }
    }

    pub(super) fn boolean(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let value = match &node.value {
            Value::Bool(value) => *value,
            Value::Str(text) => match text.to_ascii_lowercase().as_str() {
                "true" => true,
                "false" => false,
                "y" | "yes" | "on" => self.old_boolean(&node, true),
                "n" | "no" | "off" => self.old_boolean(&node, false),
                _ => return self.mismatch(&node, trail, "a boolean (true or false)"),
            },
            _ => return self.mismatch(&node, trail, "a boolean (true or false)"),
        };
        Some(Node { value: Value::Bool(value), ..node })
    }

    pub(super) fn old_boolean(&mut self, node: &Node, value: bool) -> bool {
        let text = node.as_str().unwrap_or_default();
        let message = format!("`{text}` is an old spelling of a boolean");
        let diagnostic = self.session.warning_at(Kind::Value, node.span, message).hint(format!("write `{value}`"));
        self.session.report(diagnostic);
        value
    }

    /// Reports a value that can be printed, because docker compose prints it, but that nothing can be started with.
    pub(crate) fn refuse(&mut self, span: Span, trail: &Trail<'_>, problem: impl std::fmt::Display) {
        let message = format!("{trail}: {problem}");
        self.session.refuse(Kind::Value, span, &message, "a container cannot be started with it");
    }

    /// A number without its fraction.
    pub(super) fn whole(&mut self, node: Node, trail: &Trail<'_>) -> Node {
        let Value::Float(value, text) = &node.value else { return node };
        if value.fract() == 0.0 {
            return node;
        }
        self.refuse(node.span, trail, format!("`{text}` is no whole number"));
        #[allow(clippy::cast_possible_truncation, reason = "it is meant, and nothing is started with it")]
        Node::int(*value as i64, node.span)
    }

    pub(crate) fn integer(&mut self, node: Node, least: i64, most: i64, trail: &Trail<'_>) -> Option<Node> {
        let value = match &node.value {
            Value::Int(value, _) => Some(*value),
            Value::Float(value, text) if value.fract() == 0.0 => {
                if value.abs() >= 9e15 {
                    self.refuse(node.span, trail, format!("`{text}` is too large"));
                }
                #[allow(clippy::cast_possible_truncation, reason = "nothing is started with what does not fit")]
                Some(*value as i64)
            }
            Value::Str(text) => text.parse().ok(),
            _ => None,
        };
        let Some(value) = value else {
            if let (Some(text), true) = (node.scalar_text(), matches!(node.value, Value::Str(_) | Value::Float(..))) {
                let digits = text.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit());
                let why = if digits && !text.is_empty() { "does not fit 64 bits" } else { "is no whole number" };
                return self.bad(node.span, trail, format!("`{text}` {why}"));
            }
            return self.mismatch(&node, trail, "a whole number");
        };
        if value < least || value > most {
            let bound = if value < least { format!("below {least}") } else { format!("above {most}") };
            return self.bad(node.span, trail, format!("{value} is {bound}"));
        }
        Some(Node { value: Value::Int(value, value.to_string().into()), ..node })
    }

    pub(super) fn float(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        #[allow(clippy::cast_precision_loss, reason = "a share of processors needs no 53 bits")]
        let value = match &node.value {
            Value::Int(value, _) => Some(*value as f64),
            Value::Float(value, _) => Some(*value),
            Value::Str(text) => go_float(text),
            _ => return self.mismatch(&node, trail, "a number"),
        };
        match value {
            Some(value) if value.is_finite() => {
                if value < 0.0 {
                    self.refuse(node.span, trail, format!("`{value}` is negative"));
                }
                Some(Node { value: Value::Float(value, value.to_string().into()), ..node })
            }
            _ => {
                let text = node.scalar_text().unwrap_or_default();
                self.bad(node.span, trail, format!("`{text}` is no number that can be used here"))
            }
        }
    }

    pub(super) fn duration(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let Some(text) = node.as_str() else {
            let hint = node.scalar_text().map_or_else(String::new, |text| format!("; write `{text}s` for seconds"));
            let message = format!("{trail} must be a duration such as `1m30s`, not {}{hint}", node.kind());
            self.session.error(Kind::Shape, node.span, message);
            return None;
        };
        let lax = match Time::lax(text) {
            Ok(time) => Node::str(time.to_string(), node.span),
            Err(error) => return self.bad(node.span, trail, error),
        };
        if let Err(error) = text.parse::<Time>() {
            self.refuse(node.span, trail, error);
        }
        Some(lax)
    }

    pub(crate) fn size(&mut self, node: Node, text_only: bool, trail: &Trail<'_>) -> Option<Node> {
        // Attributes of a service whose fraction of a byte docker compose lets pass.
        let fraction = matches!(
            trail,
            Trail::Key(Trail::Key(Trail::Key(Trail::Root, "services"), _), "mem_limit" | "memswap_limit" | "shm_size")
        );
        let text = match &node.value {
            Value::Int(value, _) if !text_only => value.to_string(),
            Value::Str(text) => text.clone(),
            Value::Float(value, text) if !text_only && value.fract() == 0.0 => text.to_string(),
            Value::Float(value, text) if fraction && !text_only => {
                self.refuse(node.span, trail, format!("`{text}` is no whole number of bytes"));
                format!("{:.0}", value.trunc())
            }
            Value::Float(_, text) if !text_only => {
                return self.bad(node.span, trail, format!("`{text}` is no whole number of bytes"));
            }
            _ if text_only => return self.mismatch(&node, trail, "a string"),
            _ => return self.mismatch(&node, trail, "a size such as `64m`"),
        };
        let lax = match ByteSize::lax(&text) {
            Ok(size) => Node::str(size.to_string(), node.span),
            Err(error) => return self.bad(node.span, trail, error),
        };
        match text.parse::<ByteSize>() {
            Ok(ByteSize(-1)) | Err(UnitError::Negative(_))
                if node.as_str().is_none() && matches!(trail, Trail::Key(Trail::Key(_, "tmpfs"), _)) =>
            {
                return self.bad(node.span, trail, format!("`{text}` is negative"));
            }
            Ok(ByteSize(-1)) if !matches!(trail, Trail::Key(_, "memswap_limit")) => {
                self.refuse(node.span, trail, "-1 (unlimited) is only possible for memswap_limit");
            }
            Ok(_) => {}
            Err(error) => self.refuse(node.span, trail, error),
        }
        Some(lax)
    }

    /// Permissions: a number as it is, text as octal digits.
    pub(super) fn mode(&mut self, node: Node, as_text: bool, trail: &Trail<'_>) -> Option<Node> {
        let value = match &node.value {
            Value::Int(value, _) => Some(*value),
            Value::Str(text) if as_text => i64::from_str_radix(text, 8).ok(),
            _ => return self.mismatch(&node, trail, "file permissions such as `0440`"),
        };
        let Some(value) = value.filter(|value| (0..=i64::from(u32::MAX)).contains(value)) else {
            let text = node.scalar_text().unwrap_or_default();
            return self.bad(
                node.span,
                trail,
                format!("`{text}` are no file permissions; write octal digits such as `0440`"),
            );
        };
        if value > 0o7777 {
            self.refuse(node.span, trail, format!("`{value:o}` is above 7777"));
        }
        Some(if as_text { Node::str(format!("0{value:o}"), node.span) } else { Node::int(value, node.span) })
    }

    pub(super) fn word(&mut self, node: Node, words: &'static [&'static str], trail: &Trail<'_>) -> Option<Node> {
        let node = self.string(node, trail)?;
        let text = node.as_str().unwrap_or_default();
        if words.contains(&text) {
            return Some(node);
        }
        let message = format!("{trail} cannot be `{text}`");
        let part = words.iter().find(|word| text.len() > 2 && word.contains(&text.to_lowercase()));
        let hint =
            part.map(|word| format!("did you mean `{word}`?")).or_else(|| words::suggest(text, words.iter().copied()));
        let hint = hint.unwrap_or_else(|| format!("possible: {}", words.join(", ")));
        self.session.error_hint(Kind::Value, node.span, message, hint);
        None
    }
}
