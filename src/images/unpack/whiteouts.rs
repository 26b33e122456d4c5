//! What a layer takes away from those below.

use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::Form;
use super::unpacker::{Fault, Unpacker};
use crate::images::cursor::{Blocked, Missing, set_opaque};
use crate::images::tree;

impl Unpacker<'_> {
    pub(super) fn whiteout(&mut self, directory: &[&[u8]], name: &[u8]) -> Result<(), Fault> {
        if self.form == Form::Plain {
            let path = [directory, &[name]].concat().join(&b'/');
            return if self.own.contains(&path) { Ok(()) } else { self.remove_lower(directory, name) };
        }
        let parent = self.enter(directory)?;
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)?),
            Err(errno) => Err(errno.into()),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(set_opaque(parent, name)?),
            Ok(_) => Ok(()),
        }
    }

    pub(super) fn opaque(&mut self, directory: &[&[u8]]) -> Result<(), Fault> {
        if self.form == Form::Overlay {
            return match directory.split_last() {
                Some((name, above)) => {
                    self.enter(directory)?;
                    Ok(set_opaque(self.enter(above)?, name)?)
                }
                None => Ok(set_opaque(self.root, b".")?),
            };
        }
        let mut waiting = vec![directory.iter().map(|part| part.to_vec()).collect::<Vec<_>>()];
        while let Some(directory) = waiting.pop() {
            let parts: Vec<&[u8]> = directory.iter().map(Vec::as_slice).collect();
            let fd = match self.here.enter(&parts, Missing::Fail, |_| {}) {
                Ok(fd) => tree::open(fd, b".")?,
                Err(Blocked::Missing) => continue,
                Err(blocked) => return Err(blocked.into()),
            };
            for (name, kind) in tree::list(fd.as_fd())? {
                let inside = [directory.as_slice(), std::slice::from_ref(&name)].concat();
                match (self.own.contains(&inside.join(&b'/')), kind) {
                    (false, _) => self.remove_lower(&parts, &name)?,
                    (true, FileType::Directory) => waiting.push(inside),
                    (true, _) => {}
                }
            }
        }
        Ok(())
    }

    fn remove_lower(&mut self, directory: &[&[u8]], name: &[u8]) -> Result<(), Fault> {
        match self.here.enter(directory, Missing::Fail, |_| {}) {
            Ok(parent) => tree::remove(parent, name)?,
            Err(Blocked::Missing) => return Ok(()),
            Err(blocked) => return Err(blocked.into()),
        }
        self.there.reset();
        Ok(())
    }
}
