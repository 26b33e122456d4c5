//! What ADD does with a local tar archive: its content goes into the target folder.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use tar::EntryType;

use super::error::{Error, Problem};
use super::place::Placer;

/// Largest number of entries that is unpacked.
const MAX_ENTRIES: usize = 5_000_000;

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

/// Recognises an archive by its first bytes; None if it is none.
pub(crate) fn recognise(file: &mut std::fs::File) -> io::Result<Option<Packing>> {
    let mut head = Vec::new();
    file.by_ref().take(512).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(match head.as_slice() {
        [0x1f, 0x8b, 8, ..] => Some(Packing::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::Zstd),
        [b'B', b'Z', b'h', ..] => Some(Packing::Bzip2),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Packing::Xz),
        _ if head.get(257..262) == Some(b"ustar") => Some(Packing::Plain),
        _ => None,
    })
}

/// Unpacks an archive into a folder of the image.
pub(crate) fn unpack(placer: &Placer<'_>, file: std::fs::File, packing: Packing, target: &str) -> Result<(), Error> {
    let broken = |e: io::Error| Problem::new(format!("the archive can't be read: {e}"));
    let reader: Box<dyn Read> = match packing {
        Packing::Plain => Box::new(io::BufReader::new(file)),
        Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(file))),
        Packing::Zstd => Box::new(zstd::Decoder::new(file).map_err(broken)?),
        Packing::Bzip2 | Packing::Xz => {
            let problem = Problem::new("archives packed by bzip2 or xz can't be unpacked yet");
            return Err(problem.hint("pack it with gzip or zstd, or use COPY and unpack it in a RUN").into());
        }
    };
    placer.folder(target)?;
    let mut archive = tar::Archive::new(reader);
    for (count, entry) in archive.entries().map_err(broken)?.enumerate() {
        if count >= MAX_ENTRIES {
            return Err(Problem::new(format!("the archive has more than {MAX_ENTRIES} entries")).into());
        }
        place(placer, &mut entry.map_err(broken)?, target)?;
    }
    Ok(())
}

fn place(placer: &Placer<'_>, entry: &mut tar::Entry<'_, Box<dyn Read>>, target: &str) -> Result<(), Error> {
    let bad = |why: &str| Problem::new(format!("bad entry in the archive: {why}"));
    let raw = entry.path().map_err(|e| bad(&e.to_string()))?.into_owned();
    let Some(path) = inside(&raw) else {
        return Err(bad(&format!("`{}` leads out of the target", raw.display())).into());
    };
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let folder_path = format!("{target}/{parent}");
    if name.is_empty() {
        return Ok(());
    }
    let (folder, _) = placer.folder(&folder_path)?;
    let header = entry.header().clone();
    let failed = |source: io::Error| Error::Io { action: "unpack", path: Path::new(&path).to_owned(), source };
    let number = |value: io::Result<u64>| value.ok().and_then(|value| u32::try_from(value).ok()).unwrap_or(0);
    let (uid, gid) = placer.owner_or((number(header.uid()), number(header.gid())));
    let mode = placer.mode_or(header.mode().unwrap_or(0o644) & 0o7777, header.entry_type() == EntryType::Directory);
    let kind = header.entry_type();
    let parent = folder.as_fd();
    match kind {
        EntryType::Directory => match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(failed(e.into())),
        },
        EntryType::XGlobalHeader => return Ok(()),
        _ => match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(failed(e.into())),
        },
    }
    match kind {
        EntryType::Directory => {}
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600));
            let mut made = std::fs::File::from(made.map_err(|e| failed(e.into()))?);
            io::copy(entry, &mut made).map_err(failed)?;
        }
        EntryType::Symlink => {
            let link = entry.link_name().ok().flatten().ok_or_else(|| bad("a link without a target"))?;
            rustix::fs::symlinkat(link.as_ref(), parent, name).map_err(|e| failed(e.into()))?;
        }
        EntryType::Link => {
            let link = entry.link_name().ok().flatten().ok_or_else(|| bad("a link without a target"))?;
            let link = inside(&link).ok_or_else(|| bad("a hard link that leads out of the target"))?;
            let (from_parent, from_name) = link.rsplit_once('/').unwrap_or(("", &link));
            let (from, _) = placer.folder(&format!("{target}/{from_parent}"))?;
            let linked = rustix::fs::linkat(&from, from_name, parent, name, AtFlags::empty());
            return linked.map_err(|e| failed(e.into()));
        }
        EntryType::Fifo | EntryType::Char | EntryType::Block => {
            let (kind, device) = match kind {
                EntryType::Fifo => (FileType::Fifo, 0),
                other => {
                    let major = header.device_major().ok().flatten().unwrap_or(0);
                    let minor = header.device_minor().ok().flatten().unwrap_or(0);
                    let kind = if other == EntryType::Char { FileType::CharacterDevice } else { FileType::BlockDevice };
                    (kind, rustix::fs::makedev(major, minor))
                }
            };
            rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)
                .map_err(|e| failed(e.into()))?;
        }
        other => return Err(bad(&format!("`{path}` is of an unknown kind {other:?}")).into()),
    }
    let dress = || -> Result<(), Errno> {
        let ids = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(parent, name, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != EntryType::Symlink {
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        let seconds = header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0);
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    };
    dress().map_err(|e| failed(e.into()))
}

/// A clean relative path; None if it leads out.
fn inside(path: &Path) -> Option<String> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str()?),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(names.join("/"))
}
