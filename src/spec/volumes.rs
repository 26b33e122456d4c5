//! Short syntax of mounts: `[source:]target[:options]`.

/// A short mount, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ShortVolume {
    pub(crate) source: Option<String>,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    pub(crate) nocopy: bool,
    pub(crate) propagation: Option<String>,
    pub(crate) selinux: Option<String>,
    /// Options that mean nothing.
    pub(crate) unknown: Vec<String>,
}

/// Why a short mount cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("the mount is empty")]
    Empty,
    #[error("a part between colons is empty; the form is [source:]target[:options]")]
    EmptyPart,
    #[error("too many colons; the form is [source:]target[:options]")]
    Colons,
}

impl ShortVolume {
    /// Whether the source is a path of the host rather than the name of a volume.
    pub(crate) fn is_bind(&self) -> bool {
        self.source.as_deref().is_some_and(is_path)
    }
}

/// Reads a short mount.
pub(crate) fn parse(text: &str) -> Result<ShortVolume, VolumeError> {
    if text.is_empty() {
        return Err(VolumeError::Empty);
    }
    if text.len() <= 2 && !text.contains(':') {
        return Ok(ShortVolume { target: clean(text), ..ShortVolume::default() });
    }
    let parts = split(text);
    if parts.iter().any(|part| part.is_empty()) {
        return Err(VolumeError::EmptyPart);
    }
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(VolumeError::Colons),
    };
    let mut volume = ShortVolume { source: source.map(str::to_owned), target: clean(target), ..ShortVolume::default() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => volume.read_only = true,
            "rw" => volume.read_only = false,
            "nocopy" => volume.nocopy = true,
            "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave" => {
                volume.propagation = Some(option.to_owned());
            }
            "z" | "Z" => volume.selinux = Some(option.to_owned()),
            _ => volume.unknown.push(option.to_owned()),
        }
    }
    Ok(volume)
}

/// Cuts at colons, but not inside `${…}` nor after the letter of a Windows drive.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (at, c) in text.char_indices() {
        match c {
            '{' if text[..at].ends_with('$') => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ':' if depth == 0 && !is_drive(&text[start..=at]) => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Whether `text` is one letter and a colon.
fn is_drive(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(char::is_alphabetic) && chars.next() == Some(':') && chars.next().is_none()
}

/// Whether a source names a path rather than a volume.
pub(crate) fn is_path(source: &str) -> bool {
    source.starts_with(['.', '/', '~']) || is_windows(source)
}

/// Whether a path is one of Windows: `c:\x`, `\\server\share`.
pub(crate) fn is_windows(path: &str) -> bool {
    let drive = path.char_indices().nth(1).is_some_and(|(at, c)| is_drive(&path[..at + c.len_utf8()]));
    path.starts_with("\\\\") || drive
}

/// Whether a path is one of Windows and needs no base: `c:\\x`, `c:/x`, `\\\\server\\share`.
pub(crate) fn is_windows_absolute(path: &str) -> bool {
    is_windows(path) && path.chars().nth(2).is_some_and(|c| matches!(c, '/' | '\\')) || path.starts_with("\\\\")
}

/// A path of a container without `.`, `..` and doubled or trailing slashes.
pub(crate) fn clean(path: &str) -> String {
    if path.is_empty() || path.contains('\\') {
        return path.to_owned();
    }
    super::session::clean(std::path::Path::new(path)).display().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form() {
        let volume = parse("vol:/data/:ro,z").unwrap();
        assert_eq!((volume.source.as_deref(), volume.target.as_str()), (Some("vol"), "/data"));
        assert!(volume.read_only && !volume.is_bind());
        assert!(parse("./x:/data").unwrap().is_bind());
        assert!(parse("c:\\x:/data").unwrap().is_bind());
        assert_eq!(parse("/data").unwrap().source, None);
        assert_eq!(parse("${A:-x}:/data").unwrap().source.as_deref(), Some("${A:-x}"));
        assert_eq!(parse("/a:/b:foo,ro").unwrap().unknown, ["foo"]);
    }

    #[test]
    fn refusals() {
        for text in ["", ":", "::", ":/data", "/a:/b:ro:x", "/ab:"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
