//! Writing an archive: PAX where ustar falls short, and the same bytes for the same members.

use std::io::{self, Write};

use super::{BLOCK, Entry, Kind};

/// Writes an archive in order, to any stream.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    stream: W,
    /// Bytes of the current member's body still to come.
    left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(stream: W) -> Writer<W> {
        Writer { stream, left: 0, padding: 0 }
    }

    /// Starts a member; exactly `entry.size` bytes of body must follow. Times are written in whole seconds.
    pub(crate) fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.finish_body()?;
        let mut header = [0; BLOCK];
        let mut records = Vec::new();
        let (kind, link): (u8, &[u8]) = match &entry.kind {
            Kind::File => (b'0', b""),
            Kind::Hardlink(target) => (b'1', target),
            Kind::Symlink(target) => (b'2', target),
            Kind::Char { .. } => (b'3', b""),
            Kind::Block { .. } => (b'4', b""),
            Kind::Directory => (b'5', b""),
            Kind::Fifo => (b'6', b""),
        };
        text(&mut header[..100], &entry.name, "path", &mut records);
        text(&mut header[157..257], link, "linkpath", &mut records);
        let size = if entry.kind == Kind::File { entry.size } else { 0 };
        octal(&mut header[100..108], u64::from(entry.mode & 0o7777));
        number(&mut header[108..116], u64::from(entry.uid), "uid", &mut records);
        number(&mut header[116..124], u64::from(entry.gid), "gid", &mut records);
        number(&mut header[124..136], size, "size", &mut records);
        if let Ok(seconds) = u64::try_from(entry.mtime.seconds) {
            number(&mut header[136..148], seconds, "mtime", &mut records);
        } else {
            octal(&mut header[136..148], 0);
            record(&mut records, b"mtime", entry.mtime.seconds.to_string().as_bytes());
        }
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        if let Kind::Char { major, minor } | Kind::Block { major, minor } = entry.kind {
            octal(&mut header[329..337], u64::from(major));
            octal(&mut header[337..345], u64::from(minor));
        }
        for (name, value) in &entry.xattrs {
            record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        if !records.is_empty() {
            let mut extended = [0; BLOCK];
            extended[..15].copy_from_slice(b"PaxHeaders.0/id");
            octal(&mut extended[100..108], 0o644);
            for (at, len) in [(108, 8), (116, 8), (136, 12)] {
                octal(&mut extended[at..at + len], 0);
            }
            octal(&mut extended[124..136], records.len() as u64);
            extended[156] = b'x';
            extended[257..265].copy_from_slice(b"ustar\x0000");
            self.stream.write_all(&summed(&extended))?;
            self.stream.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.stream.write_all(&summed(&header))?;
        self.left = size;
        self.padding = padding(size);
        Ok(())
    }

    /// Ends the archive and gives the stream back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.finish_body()?;
        self.stream.write_all(&[0; 2 * BLOCK])?;
        self.stream.flush()?;
        Ok(self.stream)
    }

    fn finish_body(&mut self) -> io::Result<()> {
        if self.left != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file became shorter while it was archived"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.stream.write_all(&[0; BLOCK][..padding])
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.stream.write_all(&[0; BLOCK][..padding(size)])
    }
}

/// The current member's body.
impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let n = self.stream.write(&bytes[..most])?;
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn padding(size: u64) -> usize {
    usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or_default()
}

/// A text field; what doesn't fit or isn't ASCII goes into a record, as PAX wants.
fn text(field: &mut [u8], value: &[u8], key: &str, records: &mut Vec<u8>) {
    let fits = value.len().min(field.len());
    field[..fits].copy_from_slice(&value[..fits]);
    if fits < value.len() || !value.is_ascii() {
        record(records, key.as_bytes(), value);
    }
}

fn number(field: &mut [u8], value: u64, key: &str, records: &mut Vec<u8>) {
    if value >> (3 * (field.len() - 1)) == 0 {
        octal(field, value);
    } else {
        octal(field, 0);
        record(records, key.as_bytes(), value.to_string().as_bytes());
    }
}

/// Octal digits with leading zeros and a final NUL.
fn octal(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev().skip(1) {
        *digit = b'0' + u8::try_from(value & 7).unwrap_or_default();
        value >>= 3;
    }
}

/// `length key=value\n`, where the length counts itself.
fn record(into: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    into.extend_from_slice(format!("{len} ").as_bytes());
    into.extend_from_slice(key);
    into.push(b'=');
    into.extend_from_slice(value);
    into.push(b'\n');
}

fn summed(header: &[u8; BLOCK]) -> [u8; BLOCK] {
    let mut header = *header;
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|&b| u64::from(b)).sum();
    octal(&mut header[148..155], sum);
    header
}
