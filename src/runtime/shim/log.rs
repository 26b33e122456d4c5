//! Docker's `json-file` log: one JSON object per line of output, rotated by size.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use jiff::Timestamp;

/// Longer lines are split, as in Docker; a piece that doesn't end its line has no newline at its end.
pub(super) const LONGEST: usize = 16 << 10;

/// Which output a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Error,
}

/// A log file with its rotated predecessors.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: fs::File,
    size: u64,
    max_size: u64,
    max_files: u32,
    pending: Vec<u8>,
}

impl Log {
    /// Opens for appending.
    pub(super) fn open(path: &Path, max_size: u64, max_files: u32) -> io::Result<Self> {
        let file = append_to(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, max_size, max_files, pending: Vec::new() })
    }

    /// Adds one piece of output. It is in the file after [`Self::flush`].
    pub(super) fn add(&mut self, stream: Stream, piece: &[u8], time: Timestamp) {
        let start = self.pending.len();
        entry(&mut self.pending, stream, piece, time);
        let length = (self.pending.len() - start) as u64;
        if self.max_size > 0 && self.size > 0 && self.size + length > self.max_size {
            let last = self.pending.split_off(start);
            self.flush();
            // A log that can't be rotated goes on growing: losing output would be worse.
            let _ = self.rotate();
            self.pending = last;
        }
        self.size += length;
    }

    /// Writes what was added. On a full disk output is lost, but its container goes on.
    pub(super) fn flush(&mut self) {
        if !self.pending.is_empty() {
            let _ = self.file.write_all(&self.pending);
            self.pending.clear();
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.max_files.saturating_sub(1)).rev() {
            match fs::rename(numbered(number), numbered(number + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        if self.max_files > 1 {
            fs::rename(&self.path, numbered(1))?;
        } else {
            fs::remove_file(&self.path)?;
        }
        self.file = append_to(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true).mode(0o640);
    fs::OpenOptions::from_options(options).open(path)
}

fn entry(line: &mut Vec<u8>, stream: Stream, piece: &[u8], time: Timestamp) {
    line.extend_from_slice(b"{\"log\":\"");
    let text = String::from_utf8_lossy(piece);
    escape(line, text.as_bytes());
    // What isn't text can't stand in JSON; a reader that wants every byte takes them from here.
    if matches!(text, std::borrow::Cow::Owned(_)) {
        line.extend_from_slice(b"\",\"raw\":\"");
        for byte in piece {
            line.extend_from_slice(&[hex(byte >> 4), hex(byte & 15)]);
        }
    }
    line.extend_from_slice(match stream {
        Stream::Output => b"\",\"stream\":\"stdout\",\"time\":\"",
        Stream::Error => b"\",\"stream\":\"stderr\",\"time\":\"",
    });
    let _ = write!(line, "{time:.9}\"}}");
    line.push(b'\n');
}

fn escape(line: &mut Vec<u8>, text: &[u8]) {
    let mut plain = 0;
    for (index, &byte) in text.iter().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' && byte != 0x7f {
            continue;
        }
        line.extend_from_slice(&text[plain..index]);
        plain = index + 1;
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            b'"' => line.extend_from_slice(b"\\\""),
            b'\\' => line.extend_from_slice(b"\\\\"),
            other => line.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(other >> 4), hex(other & 15)]),
        }
    }
    line.extend_from_slice(&text[plain..]);
}

fn hex(digit: u8) -> u8 {
    b"0123456789abcdef"[usize::from(digit)]
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    rest: Vec<u8>,
}

impl Splitter {
    /// Takes a chunk and hands out every whole line, and what grows too long for one.
    pub(super) fn push(&mut self, chunk: &[u8], mut take: impl FnMut(&[u8])) {
        let mut chunk = chunk;
        if !self.rest.is_empty() {
            let missing = chunk.iter().position(|&byte| byte == b'\n').map_or(chunk.len(), |end| end + 1);
            self.rest.extend_from_slice(&chunk[..missing]);
            chunk = &chunk[missing..];
            let joined = std::mem::take(&mut self.rest);
            let used = cut(&joined, &mut take);
            self.rest = joined[used..].to_vec();
        }
        if self.rest.is_empty() {
            let used = cut(chunk, &mut take);
            self.rest.extend_from_slice(&chunk[used..]);
        }
    }

    /// Hands out what is left.
    pub(super) fn finish(&mut self, take: impl FnOnce(&[u8])) {
        if !self.rest.is_empty() {
            take(&std::mem::take(&mut self.rest));
        }
    }
}

/// Hands out whole lines and over-long pieces; returns how many bytes were.
fn cut(bytes: &[u8], take: &mut impl FnMut(&[u8])) -> usize {
    let mut used = 0;
    loop {
        let rest = &bytes[used..];
        let window = &rest[..rest.len().min(LONGEST)];
        let length = match window.iter().position(|&byte| byte == b'\n') {
            Some(end) => end + 1,
            None if rest.len() >= LONGEST => whole_characters(window),
            None => return used,
        };
        take(&rest[..length]);
        used += length;
    }
}

/// How much of the piece doesn't end within a character.
fn whole_characters(piece: &[u8]) -> usize {
    for back in 1..=3.min(piece.len()) {
        let byte = piece[piece.len() - back];
        let needs = match byte {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            0x80..=0xbf => continue,
            _ => 1,
        };
        return if needs > back { piece.len() - back } else { piece.len() };
    }
    piece.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut splitter, mut pieces) = (Splitter::default(), Vec::new());
        for chunk in chunks {
            splitter.push(chunk, |piece| pieces.push(piece.to_vec()));
        }
        splitter.finish(|piece| pieces.push(piece.to_vec()));
        pieces
    }

    #[test]
    fn lines_are_joined_over_chunks() {
        assert_eq!(split(&[b"a\nb", b"c", b"d\ne\n", b"f"]), [&b"a\n"[..], b"bcd\n", b"e\n", b"f"]);
        assert_eq!(split(&[b"\n\n"]), [b"\n", b"\n"]);
    }

    #[test]
    fn long_lines_are_split_between_characters() {
        let line = "ä".repeat(20_000);
        let bytes = [b"x", line.as_bytes()].concat();
        for size in [1000, 7, 65536] {
            let pieces = split(&bytes.chunks(size).collect::<Vec<_>>());
            assert!(pieces.iter().all(|piece| piece.len() <= LONGEST && std::str::from_utf8(piece).is_ok()));
            assert_eq!(pieces.concat(), bytes);
            assert_eq!(pieces.len(), 3);
        }
    }

    #[test]
    fn entries_are_json() {
        let mut line = Vec::new();
        entry(&mut line, Stream::Error, "q\"\\\u{1}\té\n".as_bytes(), Timestamp::UNIX_EPOCH);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["log"], "q\"\\\u{1}\té\n");
        assert_eq!(
            (value["stream"].as_str(), value["time"].as_str()),
            (Some("stderr"), Some("1970-01-01T00:00:00.000000000Z"))
        );
        line.clear();
        entry(&mut line, Stream::Output, b"\xff\n", Timestamp::UNIX_EPOCH);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["raw"], "ff0a");
    }

    #[test]
    fn rotation_keeps_the_number_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::open(&path, 1000, 3).unwrap();
        for number in 0..100 {
            log.add(Stream::Output, format!("line {number}\n").as_bytes(), Timestamp::UNIX_EPOCH);
        }
        log.flush();
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        assert!(names.iter().all(|name| fs::metadata(folder.path().join(name)).unwrap().len() <= 1000));
        assert!(fs::read_to_string(&path).unwrap().contains("line 99\\n"));
    }
}
