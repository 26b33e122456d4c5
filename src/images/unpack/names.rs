//! Names in archives.

/// Longest name of one file, as in the kernel.
const NAME_MAX: usize = 255;

/// The parts of a path below the root: without `/` in front, `.`, and `..` that stays inside.
pub(super) fn parts(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    let mut parts = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or("it leads out of the layer")?;
            }
            part if part.len() > NAME_MAX => return Err("it has a name longer than 255 bytes"),
            part if part.contains(&0) => return Err("it has a NUL in its name"),
            part => parts.push(part),
        }
    }
    Ok(parts)
}

/// What a path means in a layer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// Something to unpack.
    Member,
    /// The name beside it that lower layers no longer have.
    Whiteout(&'a [u8]),
    /// The lower layers' members of the directory are gone.
    Opaque,
    /// A note of AUFS's own, to be skipped.
    Skip,
}

/// Tells whiteouts from members.
pub(super) fn meaning<'a>(parts: &[&'a [u8]]) -> Result<Meaning<'a>, &'static str> {
    const MARK: &[u8] = b".wh.";
    let Some((last, directories)) = parts.split_last() else { return Ok(Meaning::Member) };
    if *last == b".wh..wh..opq" {
        return Ok(Meaning::Opaque);
    }
    if parts.iter().any(|part| part.starts_with(b".wh..wh.")) {
        return Ok(Meaning::Skip);
    }
    if directories.iter().any(|part| part.starts_with(MARK)) {
        return Err("it lies below a whiteout");
    }
    match last.strip_prefix(MARK) {
        None => Ok(Meaning::Member),
        Some(b"" | b"." | b"..") => Err("it is a whiteout of no name"),
        Some(name) => Ok(Meaning::Whiteout(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(parts(b"./a//b/./c/").unwrap(), [b"a", b"b", b"c"]);
        assert_eq!(parts(b"/abs/x").unwrap(), [&b"abs"[..], b"x"]);
        assert_eq!(parts(b"a/../b").unwrap(), [b"b"]);
        assert_eq!(parts(b"a..b/..c").unwrap(), [&b"a..b"[..], b"..c"]);
        assert!(parts(b"./").unwrap().is_empty());
        assert!(parts(b"..").is_err() && parts(b"a/../../b").is_err() && parts(&[b'n'; 256]).is_err());
    }

    #[test]
    fn whiteouts_are_told_from_members() {
        let of = |path: &'static [u8]| meaning(&parts(path).unwrap());
        assert_eq!(of(b"d/.wh.x"), Ok(Meaning::Whiteout(b"x")));
        assert_eq!(of(b"d/.wh..wh..opq"), Ok(Meaning::Opaque));
        assert_eq!(of(b".wh..wh.plnk/1.2"), Ok(Meaning::Skip));
        assert_eq!(of(b"d/x.wh.y"), Ok(Meaning::Member));
        assert!(of(b".wh...").is_err() && of(b"d/.wh..").is_err() && of(b"d/.wh.").is_err() && of(b".wh.d/x").is_err());
    }
}
