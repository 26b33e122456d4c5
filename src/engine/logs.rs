//! Reading and following containers' log files: docker's json-file lines, across rotations.
//!
//! The shim appends one JSON object per line to `json.log` and renames it to `json.log.1` (and that to `json.log.2`, …)
//! when it is full. A [`LogReader`] walks one container's files from the oldest wanted line to the end, and goes on from
//! there when asked again; [`Logs`] merges several readers by time and sleeps until one of their files changes.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use fs_err as fs;
use jiff::Timestamp;
use serde::Deserialize;

use super::changes::Changes;

/// Which of a process's outputs a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, and everything of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line that a container wrote, or the last piece of one that it never ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// From which output.
    pub stream: Stream,
    /// When its end was written.
    pub time: Timestamp,
    /// Its text without the newline.
    pub text: String,
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest line kept.
    Oldest,
    /// That many lines before the end.
    Tail(usize),
    /// At some line before the first of that time, not far from it.
    Since(Timestamp),
}

/// An entry as it is stored; a line longer than the writer's buffer is several entries.
#[derive(Deserialize)]
struct Entry {
    log: String,
    stream: Stream,
    time: Timestamp,
}

/// Bytes looked at in one go.
const BLOCK: u64 = 64 << 10;

/// Longest line handed out in one piece, in bytes.
const LONGEST: usize = 16 << 20;

/// Reads one container's log.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: Option<BufReader<fs::File>>,
    /// An entry whose end is not written yet.
    entry: Vec<u8>,
    /// Lines whose end is not written yet: of standard output and of standard error.
    parts: [Option<LogLine>; 2],
}

impl LogReader {
    /// A reader of `path` (the newest file) that begins at `start`. A missing file is an empty log.
    pub fn open(path: &Path, start: Start) -> io::Result<Self> {
        let mut reader = Self { path: path.to_owned(), file: None, entry: Vec::new(), parts: [None, None] };
        let files = reader.files()?;
        reader.file = match start {
            Start::Oldest => files.into_iter().next_back(),
            Start::Tail(lines) => seek_tail(files, lines)?,
            Start::Since(time) => seek_time(files, time)?,
        }
        .map(BufReader::new);
        Ok(reader)
    }

    /// The next line that is complete; none at the end of what is written so far.
    pub fn next_line(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            if self.file.is_none() {
                self.file = self.files()?.into_iter().next_back().map(BufReader::new);
            }
            let Some(file) = &mut self.file else { return Ok(None) };
            file.read_until(b'\n', &mut self.entry)?;
            if self.entry.last() == Some(&b'\n') {
                let entry = serde_json::from_slice(&self.entry);
                self.entry.clear();
                // A torn entry (the machine lost power) is skipped: the lines after it are worth more.
                if let Some(line) = entry.ok().and_then(|entry| self.join(entry)) {
                    return Ok(Some(line));
                }
            } else if !self.next_file()? {
                return Ok(None);
            }
        }
    }

    /// What was written of lines that never ended. To be called when no more will come.
    pub fn rest(&mut self) -> impl Iterator<Item = LogLine> + use<> {
        std::mem::take(&mut self.parts).into_iter().flatten()
    }

    /// Adds an entry to its stream's line, and gives that out once it is whole.
    fn join(&mut self, entry: Entry) -> Option<LogLine> {
        let part = &mut self.parts[usize::from(entry.stream == Stream::Stderr)];
        let mut line = part.take().unwrap_or(LogLine { stream: entry.stream, time: entry.time, text: String::new() });
        line.time = entry.time;
        line.text += &entry.log;
        let ended = line.text.ends_with('\n');
        if ended {
            line.text.pop();
        }
        if ended || line.text.len() >= LONGEST {
            return Some(line);
        }
        *part = Some(line);
        None
    }

    /// At a file's end: opens the file after it, if it was rotated. Whether there was one.
    fn next_file(&mut self) -> io::Result<bool> {
        let Some(current) = &self.file else { return Ok(false) };
        let inode = current.get_ref().metadata()?.ino();
        let newest = match fs::metadata(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        if newest.ino() == inode {
            return Ok(false);
        }
        // The writer may have added to the file between our last read and its rotation.
        let position = self.file.as_mut().map_or(Ok(0), Seek::stream_position)?;
        if self.file.as_ref().is_some_and(|file| file.get_ref().metadata().is_ok_and(|now| now.len() > position)) {
            return Ok(true);
        }
        let files = self.files()?;
        let mut newer: VecDeque<fs::File> = VecDeque::new();
        for file in files {
            if file.metadata()?.ino() == inode {
                break;
            }
            newer.push_back(file);
        }
        // Where the file has been rotated away altogether, all that are left are newer.
        self.entry.clear();
        self.file = newer.pop_back().map(BufReader::new);
        Ok(self.file.is_some())
    }

    /// The log's files, newest first.
    fn files(&self) -> io::Result<Vec<fs::File>> {
        let rotated = (1..).map(|number| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        });
        let mut files = Vec::new();
        for path in std::iter::once(self.path.clone()).chain(rotated) {
            match fs::File::open(&path) {
                Ok(file) => files.push(file),
                // Between two renames the newest is missing for a moment; the older ones still count.
                Err(e) if e.kind() == io::ErrorKind::NotFound && path == self.path => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                Err(e) => return Err(e),
            }
        }
        Ok(files)
    }
}

/// The file (of `files`, newest first) in which the last `lines` lines begin, positioned there.
fn seek_tail(files: Vec<fs::File>, lines: usize) -> io::Result<Option<fs::File>> {
    let mut missing = lines;
    let mut last = None;
    for mut file in files {
        let (start, found) = tail_offset(&mut file, missing)?;
        // A line may have begun in the file before: all its pieces count.
        let nothing = missing == 0 && start == file.metadata()?.len();
        if nothing && last.is_some() {
            break;
        }
        missing -= found;
        file.seek(SeekFrom::Start(start))?;
        last = Some(file);
        if start > 0 {
            break;
        }
    }
    Ok(last)
}

/// The file (of `files`, newest first) with the first lines since `time`, positioned at most a block before them.
fn seek_time(files: Vec<fs::File>, time: Timestamp) -> io::Result<Option<fs::File>> {
    let mut last = None;
    for mut file in files {
        let (mut from, mut to) = (0, file.metadata()?.len());
        while to - from > BLOCK {
            let middle = from + (to - from) / 2;
            file.seek(SeekFrom::Start(middle))?;
            let mut reader = BufReader::new(&mut file);
            let mut entry = Vec::new();
            let begin = middle + reader.read_until(b'\n', &mut entry)? as u64;
            entry.clear();
            reader.read_until(b'\n', &mut entry)?;
            match serde_json::from_slice::<Entry>(&entry) {
                Ok(entry) if entry.time < time => from = begin,
                _ => to = middle,
            }
        }
        file.seek(SeekFrom::Start(from))?;
        last = Some(file);
        if from > 0 {
            break;
        }
    }
    Ok(last)
}

/// Where in `file` its last `lines` lines begin, and how many of them it has.
fn tail_offset(file: &mut fs::File, lines: usize) -> io::Result<(u64, usize)> {
    let mut end = file.metadata()?.len();
    let mut found = 0;
    let (mut length, mut block) = (BLOCK, Vec::new());
    while end > 0 {
        let start = end.saturating_sub(length);
        block.resize(usize::try_from(end - start).unwrap_or_default(), 0);
        file.file().read_exact_at(&mut block, start)?;
        // Where the first entry begins that is whole.
        let first = match block[..block.len() - 1].iter().position(|byte| *byte == b'\n') {
            _ if start == 0 => 0,
            Some(newline) => newline + 1,
            None => {
                length *= 2;
                continue;
            }
        };
        let mut at = end;
        for entry in block[first..].split_inclusive(|byte| *byte == b'\n').rev() {
            // Pieces of a line that is longer than the writer's buffer count once.
            if serde_json::from_slice(entry).is_ok_and(|entry: Entry| entry.log.ends_with('\n')) {
                if found == lines {
                    return Ok((at, found));
                }
                found += 1;
            }
            at -= entry.len() as u64;
        }
        (end, length) = (start + first as u64, BLOCK);
    }
    Ok((0, found))
}

/// Several containers' logs, merged by time.
#[derive(Debug)]
pub struct Logs {
    sources: Vec<Source>,
    changes: Changes,
}

#[derive(Debug)]
struct Source {
    key: usize,
    reader: LogReader,
    /// The line that comes next from here.
    head: Option<LogLine>,
}

impl Logs {
    /// No log yet. Needs a running tokio runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self { sources: Vec::new(), changes: Changes::new()? })
    }

    /// Adds a log; its lines will carry `key`.
    pub fn add(&mut self, key: usize, path: &Path, start: Start) -> io::Result<()> {
        if let Some(folder) = path.parent().filter(|folder| folder.is_dir()) {
            self.changes.watch(folder)?;
        }
        self.sources.push(Source { key, reader: LogReader::open(path, start)?, head: None });
        Ok(())
    }

    /// The oldest line not given out yet, with its key; none at the end of what is written so far.
    pub fn next_line(&mut self) -> io::Result<Option<(usize, LogLine)>> {
        for source in &mut self.sources {
            if source.head.is_none() {
                source.head = source.reader.next_line()?;
            }
        }
        let oldest = self
            .sources
            .iter_mut()
            .filter(|source| source.head.is_some())
            .min_by_key(|source| source.head.as_ref().map(|line| line.time));
        Ok(oldest.and_then(|source| source.head.take().map(|line| (source.key, line))))
    }

    /// What a container wrote of lines that it never ended. Call it when it has, after [`Self::next_line`] gave none.
    pub fn rest(&mut self, key: usize) -> Vec<LogLine> {
        self.sources.iter_mut().filter(|source| source.key == key).flat_map(|source| source.reader.rest()).collect()
    }

    /// Returns when one of the logs has grown since the last call.
    pub async fn changed(&self) -> io::Result<()> {
        self.changes.next().await
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn entry(text: &str, second: i64) -> String {
        let time = Timestamp::from_second(second).unwrap();
        format!("{}\n", serde_json::json!({"log": text, "stream": "stdout", "time": time}))
    }

    fn append(path: &Path, text: &str) {
        fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn texts(reader: &mut LogReader) -> Vec<String> {
        std::iter::from_fn(|| reader.next_line().unwrap()).map(|line| line.text).collect()
    }

    #[test]
    fn reads_across_rotations_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("json.log");
        append(&path, &(entry("a\n", 1) + &entry("b\n", 2)));
        let mut reader = LogReader::open(&path, Start::Oldest).unwrap();
        assert_eq!(texts(&mut reader), ["a", "b"]);
        append(&path, &entry("c\n", 3));
        fs::rename(&path, folder.path().join("json.log.1")).unwrap();
        assert_eq!(texts(&mut reader), ["c"]);
        append(&path, &entry("d\n", 4));
        fs::rename(folder.path().join("json.log.1"), folder.path().join("json.log.2")).unwrap();
        fs::rename(&path, folder.path().join("json.log.1")).unwrap();
        append(&path, &entry("e\n", 5));
        assert_eq!(texts(&mut reader), ["d", "e"]);
    }

    #[test]
    fn tails_over_several_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("json.log");
        append(&folder.path().join("json.log.1"), &(entry("a\n", 1) + &entry("b\n", 2)));
        append(&path, &(entry("c\n", 3) + &entry("d\n", 4)));
        let tail = |lines| texts(&mut LogReader::open(&path, Start::Tail(lines)).unwrap());
        assert_eq!(tail(0), [""; 0]);
        assert_eq!(tail(1), ["d"]);
        assert_eq!(tail(2), ["c", "d"]);
        assert_eq!(tail(3), ["b", "c", "d"]);
        assert_eq!(tail(9), ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_line_in_pieces_is_one_of_the_tail() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("json.log");
        let piece = "x".repeat(50_000);
        append(&folder.path().join("json.log.1"), &(entry("a\n", 1) + &entry(&piece, 2) + &entry(&piece, 2)));
        append(&path, &(entry(&piece, 2) + &entry("\n", 2) + &entry("b\n", 3) + &entry("no end", 4)));
        let tail = |lines| texts(&mut LogReader::open(&path, Start::Tail(lines)).unwrap());
        assert_eq!(tail(0), [""; 0]);
        assert_eq!(tail(1), ["b"]);
        assert_eq!(tail(2), [piece.repeat(3).as_str(), "b"]);
        assert_eq!(tail(3), ["a", &piece.repeat(3), "b"]);
    }

    #[test]
    fn long_lines_are_joined_and_torn_entries_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("json.log");
        let whole = entry("late\n", 3);
        append(&path, &(entry("one ", 1) + &entry("line\n", 2) + &whole[..10]));
        let mut reader = LogReader::open(&path, Start::Oldest).unwrap();
        assert_eq!(texts(&mut reader), ["one line"]);
        append(&path, &(whole[10..].to_owned() + &entry("no end", 4)));
        assert_eq!(texts(&mut reader), ["late"]);
        assert_eq!(reader.rest().map(|line| line.text).collect::<Vec<_>>(), ["no end"]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn merges_by_time_and_wakes_on_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.log"), folder.path().join("b.log"));
        append(&a, &(entry("1\n", 1) + &entry("3\n", 3)));
        append(&b, &(entry("2\n", 2) + &entry("4\n", 4)));
        let mut logs = Logs::new().unwrap();
        logs.add(0, &a, Start::Oldest).unwrap();
        logs.add(1, &b, Start::Oldest).unwrap();
        let lines: Vec<_> =
            std::iter::from_fn(|| logs.next_line().unwrap()).map(|(key, line)| (key, line.text)).collect();
        assert_eq!(lines, [(0, "1".into()), (1, "2".into()), (0, "3".into()), (1, "4".into())]);
        append(&a, &entry("5\n", 5));
        logs.changed().await.unwrap();
        assert_eq!(logs.next_line().unwrap().unwrap().1.text, "5");
        assert_eq!(logs.rest(0), []);
    }
}
