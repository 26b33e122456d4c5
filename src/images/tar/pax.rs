//! PAX records: `length key=value\n`.

use super::{Segment, Time, Xattrs, sparse};

/// What PAX records say about the next entry.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Xattrs,
    pub(super) sparse: Sparse,
}

/// GNU's sparse records.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub(super) major: u64,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// The map, where it is in the records (formats 0.0 and 0.1).
    pub(super) map: Vec<Segment>,
}

type Why = &'static str;

impl Records {
    /// Reads the records of one extended header on top of those already there.
    pub(super) fn read(&mut self, body: &[u8]) -> Result<(), Why> {
        let mut offset = None;
        each(body, |key, value| match key {
            b"path" => name(value).map(|path| self.path = path),
            b"linkpath" => name(value).map(|link| self.link = link),
            b"size" => decimal(value).map(|n| self.size = Some(n)),
            b"uid" => decimal(value).map(|n| self.uid = Some(n)),
            b"gid" => decimal(value).map(|n| self.gid = Some(n)),
            b"mtime" => time(value).map(|t| self.mtime = Some(t)),
            b"GNU.sparse.major" => decimal(value).map(|n| self.sparse.major = n),
            b"GNU.sparse.name" => name(value).map(|path| self.sparse.name = path),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => decimal(value).map(|n| self.sparse.real_size = Some(n)),
            b"GNU.sparse.map" => sparse::read_map(value).map(|map| self.sparse.map = map),
            b"GNU.sparse.offset" => decimal(value).map(|n| offset = Some(n)),
            b"GNU.sparse.numbytes" => {
                let offset = offset.take().ok_or("its sparse map is malformed")?;
                decimal(value).map(|len| self.sparse.map.push(Segment { offset, len }))
            }
            _ => {
                if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.retain(|(name, _)| name != attribute);
                    self.xattrs.push((attribute.to_vec(), value.to_vec()));
                }
                Ok(())
            }
        })
    }
}

/// Checks a global header: one that would change what or where the entries are is refused, the rest has no effect.
pub(super) fn check_global(body: &[u8]) -> Result<(), Why> {
    each(body, |key, _| {
        let steers = matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid")
            || key.starts_with(b"GNU.sparse.")
            || key.starts_with(b"SCHILY.xattr.");
        if steers { Err("a global PAX header sets names, sizes, owners or attributes") } else { Ok(()) }
    })
}

fn each<'a>(mut body: &'a [u8], mut take: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), Why>) -> Result<(), Why> {
    const MALFORMED: Why = "a PAX record is malformed";
    while !body.is_empty() {
        let blank = body.iter().take(20).position(|&b| b == b' ').ok_or(MALFORMED)?;
        let len = decimal(&body[..blank]).ok().and_then(|n| usize::try_from(n).ok()).ok_or(MALFORMED)?;
        let record = body.get(blank + 1..len).and_then(|record| record.strip_suffix(b"\n")).ok_or(MALFORMED)?;
        let equals = record.iter().position(|&b| b == b'=').filter(|&at| at > 0).ok_or(MALFORMED)?;
        take(&record[..equals], &record[equals + 1..])?;
        body = &body[len..];
    }
    Ok(())
}

/// A path; empty takes an earlier record back.
fn name(value: &[u8]) -> Result<Option<Vec<u8>>, Why> {
    if value.contains(&0) {
        return Err("a PAX path holds a NUL");
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

pub(super) fn decimal(value: &[u8]) -> Result<u64, Why> {
    const WHY: Why = "a number in a PAX record is malformed";
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let n: u64 = digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten().ok_or(WHY)?;
    i64::try_from(n).map(|_| n).map_err(|_| WHY)
}

/// Seconds with a fraction, perhaps negative: `1700000000.25`, `-0.5`.
fn time(value: &[u8]) -> Result<Time, Why> {
    let (negative, value) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
    let mut parts = value.splitn(2, |&b| b == b'.');
    let whole = decimal(parts.next().unwrap_or_default())?.cast_signed();
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err("a time in a PAX record is malformed");
    }
    let nanos = (0..9).fold(0, |n, i| n * 10 + u32::from(fraction.get(i).map_or(0, |digit| digit - b'0')));
    Ok(match (negative, nanos) {
        (false, nanos) => Time { seconds: whole, nanos },
        (true, 0) => Time { seconds: -whole, nanos },
        (true, nanos) => Time { seconds: -whole - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time(b"1700000000.25"), Ok(Time { seconds: 1_700_000_000, nanos: 250_000_000 }));
        assert_eq!(time(b"-0.5"), Ok(Time { seconds: -1, nanos: 500_000_000 }));
        assert_eq!(time(b"-2"), Ok(Time { seconds: -2, nanos: 0 }));
        assert_eq!(time(b"1.1234567891"), Ok(Time { seconds: 1, nanos: 123_456_789 }));
        assert!(time(b"x").is_err() && time(b"").is_err() && time(b"1.-5").is_err());
    }

    #[test]
    fn records_are_read_whole_or_refused() {
        let mut records = Records::default();
        records.read(b"9 path=x\n13 size=4711\n25 SCHILY.xattr.user.a=b\n").unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"x"[..]));
        assert_eq!(records.size, Some(4711));
        assert_eq!(records.xattrs, [(b"user.a".to_vec(), b"b".to_vec())]);
        for bad in [
            &b"99 path=x"[..],
            b"x",
            b"5 a=b\n",
            b"9 path=x ",
            b"3 =\n",
            b"10 size=-1\n",
            b"00000000000000000000000 a=b\n",
        ] {
            assert!(Records::default().read(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(check_global(b"12 size=512\n").is_err());
        assert!(check_global(b"13 comment=x\n").is_ok());
    }
}
