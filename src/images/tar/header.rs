//! The 512-byte header: fields and numbers, read strictly.

use super::BLOCK;

/// A header block whose checksum is right.
#[derive(Debug)]
pub(super) struct Header {
    block: [u8; BLOCK],
}

type Why = &'static str;

impl Header {
    pub(super) fn read(block: &[u8; BLOCK]) -> Result<Header, Why> {
        let header = Header { block: *block };
        let stored = number(header.field(148, 8)).map_err(|_| "its header checksum is no number")?;
        let others = || block[..148].iter().chain(&block[156..]);
        let unsigned: i128 = others().map(|&b| i128::from(b)).sum::<i128>() + 8 * 32;
        let signed: i128 = others().map(|&b| i128::from(b.cast_signed())).sum::<i128>() + 8 * 32;
        if stored == unsigned || stored == signed {
            Ok(header)
        } else {
            Err("wrong header checksum: this is no tar archive, or a damaged one")
        }
    }

    fn field(&self, at: usize, len: usize) -> &[u8] {
        &self.block[at..at + len]
    }

    fn is_posix(&self) -> bool {
        self.field(257, 6) == b"ustar\0"
    }

    pub(super) fn is_gnu(&self) -> bool {
        self.field(257, 8) == b"ustar  \0"
    }

    pub(super) fn kind(&self) -> u8 {
        self.block[156]
    }

    /// Name, joined with the prefix where the format has one.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(self.field(0, 100));
        match text(self.field(345, 155)) {
            prefix if self.is_posix() && !prefix.is_empty() => [prefix, b"/", name].concat(),
            _ => name.to_vec(),
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(self.field(157, 100)).to_vec()
    }

    pub(super) fn size(&self) -> Result<u64, Why> {
        size(number(self.field(124, 12))?)
    }

    pub(super) fn mode(&self) -> Result<u32, Why> {
        // Some writers put the file type into the field as well.
        u32::try_from(number(self.field(100, 8))?).map(|mode| mode & 0o7777).map_err(|_| "its mode is out of range")
    }

    pub(super) fn uid(&self) -> Result<u64, Why> {
        u64::try_from(number(self.field(108, 8))?).map_err(|_| "its owner is out of range")
    }

    pub(super) fn gid(&self) -> Result<u64, Why> {
        u64::try_from(number(self.field(116, 8))?).map_err(|_| "its group is out of range")
    }

    pub(super) fn mtime(&self) -> Result<i64, Why> {
        i64::try_from(number(self.field(136, 12))?).map_err(|_| "its time is out of range")
    }

    /// Device numbers, major and minor.
    pub(super) fn device(&self) -> Result<(u32, u32), Why> {
        let part = |at| {
            number(self.field(at, 8)).and_then(|n| u32::try_from(n).map_err(|_| "its device number is out of range"))
        };
        if !self.is_posix() && !self.is_gnu() {
            return Err("it is a device without numbers");
        }
        Ok((part(329)?, part(337)?))
    }

    /// GNU sparse: the four segments held in the header, whether more blocks follow, and the file's full size.
    pub(super) fn sparse(&self) -> Result<(&[u8], bool, u64), Why> {
        Ok((self.field(386, 96), self.block[482] != 0, size(number(self.field(483, 12))?)?))
    }
}

/// Bytes up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

fn size(n: i128) -> Result<u64, Why> {
    i64::try_from(n).ok().and_then(|n| u64::try_from(n).ok()).ok_or("its size is out of range")
}

/// A numeric field: octal digits padded with blanks and NULs, or GNU's base-256.
pub(super) fn number(field: &[u8]) -> Result<i128, Why> {
    if let Some(&first @ 0x80..) = field.first() {
        let start = if first & 0x40 == 0 { i128::from(first & 0x3f) } else { i128::from(first.cast_signed()) };
        return Ok(field[1..].iter().fold(start, |n, &b| n << 8 | i128::from(b)));
    }
    let blank = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = field[start..].split(blank).next().unwrap_or_default();
    digits.iter().try_fold(0, |n, &b| match b {
        b'0'..=b'7' => Ok(n << 3 | i128::from(b - b'0')),
        _ => Err("a number in its header is malformed"),
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"   644 \0"), Ok(0o644));
        assert_eq!(number(b"\0\0\0\0"), Ok(0));
        assert_eq!(number(b"77777777"), Ok(0o77_777_777));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x05"), Ok(5));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Ok(-2));
        assert_eq!(number(&[0xff; 12]), Ok(-1));
        assert!(number(b"00000zz\0").is_err());
        assert!(number(b"-1\0").is_err());
    }
}
