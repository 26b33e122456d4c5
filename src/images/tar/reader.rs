//! Reading an archive, member by member.

use std::io::{self, BufRead};

use super::super::error::{Doing as _, Error, printable};
use super::{BLOCK, Entry, Kind, Segment, Time, header, header::Header, pax, sparse};

/// Most bytes of an extended header or a long name: several attributes of the largest size, and any path.
const MAX_EXTENSION: u64 = 1 << 20;

/// Reads an archive in order, from any stream.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    stream: R,
    /// Bytes of the current member's body not yet read.
    left: u64,
    /// Padding that follows it.
    padding: u64,
    name: Vec<u8>,
    ended: bool,
}

type Why = &'static str;

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(stream: R) -> Reader<R> {
        Reader { stream, left: 0, padding: 0, name: Vec::new(), ended: false }
    }

    /// The next member, skipping what is left of the one before. After the last, the stream has been read to its end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Error> {
        let mut records = pax::Records::default();
        let (mut long_name, mut long_link) = (None, None);
        let mut extended = false;
        loop {
            self.skip_rest()?;
            let Some(header) = self.header(extended)? else { return Ok(None) };
            self.name = header.name();
            let size = header.size().map_err(|why| self.error(why))?;
            match header.kind() {
                b'x' => {
                    let body = self.extension(size)?;
                    records.read(&body).map_err(|why| self.error(why))?;
                }
                b'g' => {
                    let body = self.extension(size)?;
                    pax::check_global(&body).map_err(|why| self.error(why))?;
                    continue;
                }
                b'L' => long_name = Some(header::text(&self.extension(size)?).to_vec()),
                b'K' => long_link = Some(header::text(&self.extension(size)?).to_vec()),
                _ => return self.member(&header, records, long_name, long_link).map(Some),
            }
            extended = true;
        }
    }

    /// Bytes of the current member's body that are at hand; empty at its end. `consume` them.
    pub(crate) fn data(&mut self) -> Result<&[u8], Error> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        if self.fill()? == 0 {
            return Err(self.error("the archive ends inside it"));
        }
        let name = &self.name;
        let bytes = self.stream.fill_buf().doing(|| format!("reading archive entry `{}`", printable(name)))?;
        Ok(&bytes[..bytes.len().min(most)])
    }

    /// Marks bytes of the body as read.
    pub(crate) fn consume(&mut self, n: usize) {
        self.stream.consume(n);
        self.left -= n as u64;
    }

    /// An error about the current member.
    pub(crate) fn error(&self, why: impl Into<String>) -> Error {
        Error::Entry { entry: printable(&self.name), why: why.into() }
    }

    fn member(
        &mut self,
        header: &Header,
        records: pax::Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, Error> {
        let name = records.sparse.name.clone().or(records.path).or(long_name);
        self.name = name.unwrap_or_else(|| header.name());
        self.describe(header, records.size, records.sparse, records.link.or(long_link))
            .and_then(|mut entry| {
                let id = |id: u64| u32::try_from(id).ok().filter(|&id| id != u32::MAX);
                let owner = |given: Option<u64>, field: Result<u64, Why>| given.map_or(field, Ok).map(id);
                entry.uid = owner(records.uid, header.uid()).map_err(Fault::Why)?.ok_or("its owner is out of range")?;
                entry.gid = owner(records.gid, header.gid()).map_err(Fault::Why)?.ok_or("its group is out of range")?;
                let seconds = header.mtime()?;
                entry.mtime = records.mtime.unwrap_or(Time { seconds, nanos: 0 });
                entry.mode = header.mode()?;
                entry.xattrs = records.xattrs;
                Ok(entry)
            })
            .map_err(|fault| match fault {
                Fault::Why(why) => self.error(why),
                Fault::Read(error) => error,
            })
    }

    /// Kind, size and place of the data, which the format spreads over header, records and body.
    fn describe(
        &mut self,
        header: &Header,
        pax_size: Option<u64>,
        pax_sparse: pax::Sparse,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, Fault> {
        if self.name.is_empty() {
            return Err("it has no name".into());
        }
        let stored = pax_size.map_or_else(|| header.size(), Ok)?;
        let link = long_link.unwrap_or_else(|| header.link());
        let kind = match header.kind() {
            b'0' | 0 if self.name.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::Hardlink(link),
            b'2' => Kind::Symlink(link),
            b'3' => header.device().map(|(major, minor)| Kind::Char { major, minor })?,
            b'4' => header.device().map(|(major, minor)| Kind::Block { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return Err("its type is unknown".into()),
        };
        if kind != Kind::File && stored != 0 {
            // Readers disagree on whether the body is there, so they would see different archives.
            return Err("it has a body, which only files may have".into());
        }
        if matches!(&kind, Kind::Symlink(link) | Kind::Hardlink(link) if link.is_empty()) {
            return Err("it is a link to nothing".into());
        }
        self.left = stored;
        self.padding = stored.next_multiple_of(BLOCK as u64) - stored;

        let mut entry = Entry {
            name: self.name.clone(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
            size: stored,
            sparse: None,
        };
        let map = match header.kind() {
            b'S' if header.is_gnu() => Some(self.gnu_sparse(header)?),
            b'S' => return Err("it is sparse in an unknown format".into()),
            _ => self.pax_sparse(pax_sparse)?,
        };
        if let Some((segments, real)) = map {
            if entry.kind != Kind::File {
                return Err("it is sparse but no file".into());
            }
            sparse::check(&segments, self.left, real)?;
            entry.size = real;
            entry.sparse = Some(segments);
        }
        Ok(entry)
    }

    fn gnu_sparse(&mut self, header: &Header) -> Result<(Vec<Segment>, u64), Fault> {
        let (first, mut more, real) = header.sparse()?;
        let mut segments = Vec::new();
        sparse::read_blocks(first, &mut segments)?;
        while more {
            let mut block = [0; BLOCK];
            self.read_exact(&mut block).map_err(Fault::Read)?;
            sparse::read_blocks(&block[..504], &mut segments)?;
            more = block[504] != 0;
        }
        Ok((segments, real))
    }

    fn pax_sparse(&mut self, records: pax::Sparse) -> Result<Option<(Vec<Segment>, u64)>, Fault> {
        let Some(real) = records.real_size else { return Ok(None) };
        if records.major == 0 {
            return Ok(Some((records.map, real)));
        }
        // Format 1.0: the body starts with the number of segments and their numbers, a line each, in whole blocks.
        let mut block = [0; BLOCK];
        let mut used = BLOCK;
        let mut line = || -> Result<u64, Fault> {
            let mut digits = Vec::new();
            loop {
                if used == BLOCK {
                    if self.left < BLOCK as u64 {
                        return Err("its sparse map is cut off".into());
                    }
                    self.read_exact(&mut block).map_err(Fault::Read)?;
                    self.left -= BLOCK as u64;
                    used = 0;
                }
                used += 1;
                match block[used - 1] {
                    b'\n' => return Ok(pax::decimal(&digits)?),
                    digit if digits.len() < 20 => digits.push(digit),
                    _ => return Err("its sparse map is malformed".into()),
                }
            }
        };
        let count = line()?;
        if count > sparse::MAX_SEGMENTS as u64 {
            return Err("its sparse map is too long".into());
        }
        let segments =
            (0..count).map(|_| Ok(Segment { offset: line()?, len: line()? })).collect::<Result<_, Fault>>()?;
        Ok(Some((segments, real)))
    }

    /// The next header; none at the end marker, or where the archive ends without one.
    fn header(&mut self, extended: bool) -> Result<Option<Header>, Error> {
        if self.ended {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        let mut zeros = 0;
        loop {
            let at_end = self.fill()? == 0;
            if at_end && extended {
                return Err(self.error("the archive ends after its extended header"));
            }
            if !at_end {
                self.read_exact(&mut block)?;
                if block != [0; BLOCK] {
                    break;
                }
                zeros += 1;
            }
            if at_end || zeros == 2 {
                self.ended = true;
                self.drain()?;
                return Ok(None);
            }
        }
        if zeros > 0 {
            return Err(self.error("an entry follows a lone zero block"));
        }
        Header::read(&block)
            .map(Some)
            .map_err(|why| Error::Entry { entry: printable(header::text(&block[..100])), why: why.into() })
    }

    /// What follows the end marker belongs to the blob, and to its digest.
    fn drain(&mut self) -> Result<(), Error> {
        loop {
            match self.fill()? {
                0 => return Ok(()),
                n => self.stream.consume(n),
            }
        }
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > MAX_EXTENSION {
            return Err(self.error("its extended header is larger than 1 MiB"));
        }
        let mut body = vec![0; usize::try_from(size.next_multiple_of(BLOCK as u64)).unwrap_or(usize::MAX)];
        self.read_exact(&mut body)?;
        body.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(body)
    }

    fn skip_rest(&mut self) -> Result<(), Error> {
        while self.left > 0 {
            let n = self.data()?.len();
            self.consume(n);
        }
        let mut padding = [0; BLOCK];
        let n = usize::try_from(std::mem::take(&mut self.padding)).unwrap_or_default();
        self.read_exact(&mut padding[..n])
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.stream.read_exact(bytes).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.error("the archive is cut off there"),
            _ => self.reading(e),
        })
    }

    fn fill(&mut self) -> Result<usize, Error> {
        loop {
            match self.stream.fill_buf() {
                Ok(bytes) => return Ok(bytes.len()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.reading(e)),
            }
        }
    }

    fn reading(&self, source: io::Error) -> Error {
        Error::Io { what: format!("reading the archive after entry `{}`", printable(&self.name)), source }
    }
}

/// A member is wrong, or the stream behind it failed.
enum Fault {
    Why(Why),
    Read(Error),
}

impl From<Why> for Fault {
    fn from(why: Why) -> Fault {
        Fault::Why(why)
    }
}
