//! Layers that a power cut may have torn.
//!
//! A layer gets its name as soon as it is unpacked, long before the kernel has brought all of it to the disk: syncing each one
//! would cost more than unpacking it. So it bears a mark with the boot it was made in, and loses it once its file system was
//! synced, which a supervisor does beside its work. A layer with the mark of another boot isn't trusted: it is unpacked anew
//! from its blob, which was synced before it got a name.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use fs_err as fs;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::error::{Doing as _, Error};
use super::{Store, host, snapshot, tree};
use crate::sys::fault;

/// The attribute that holds the boot. Containers don't see it, and no layer can bring it.
const MARK: &str = "trusted.stack.boot";

impl Store {
    /// Syncs all layers that may not be on the disk yet.
    pub fn settle(&self) -> Result<(), Error> {
        let inner = &self.inner;
        let syncing = || "syncing layers".to_owned();
        let names = tree::list(snapshot::open(&inner.layers)?.as_fd()).doing(|| "listing layers".to_owned())?;
        let names = names.iter().filter_map(|(name, _)| std::str::from_utf8(name).ok());
        // What is made of the machine's own files is quickly made anew.
        let layers = names.filter(|name| !name.starts_with('.') && !host::is_tree(name));
        let layers = layers.map(|name| inner.layers.join(name));
        let marked = layers.filter(|path| matches!(boot_of(path), Ok(Some(_))));
        // One that is gone by now needs nothing.
        let marked: Vec<OwnedFd> = marked.filter_map(|path| snapshot::open(&path).ok()).collect();
        if marked.is_empty() {
            return Ok(());
        }
        fault::point(|| "before syncing layers".to_owned()).doing(syncing)?;
        rustix::fs::syncfs(snapshot::open(&inner.layers)?).doing(syncing)?;
        fault::point(|| "after syncing layers".to_owned()).doing(syncing)?;
        for layer in marked {
            match rustix::fs::fremovexattr(layer, MARK) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno) => return Err(errno).doing(syncing),
            }
        }
        Ok(())
    }
}

/// Marks a layer that hasn't got its name yet.
pub(super) fn mark(layer: impl AsFd) -> Result<(), Error> {
    let marking = || "marking a layer".to_owned();
    rustix::fs::fsetxattr(layer, MARK, boot().doing(marking)?.as_bytes(), XattrFlags::empty()).doing(marking)
}

/// Whether a layer is there, and no power cut can have torn it.
pub(super) fn is_whole(layer: &Path) -> bool {
    match boot_of(layer) {
        Ok(None) => layer.is_dir(),
        Ok(Some(made)) => boot().is_ok_and(|boot| boot.as_bytes() == made),
        Err(_) => false,
    }
}

/// The boot that a layer was made in, where it wasn't synced since.
fn boot_of(layer: &Path) -> Result<Option<Vec<u8>>, Errno> {
    let mut boot = vec![0; 64];
    match rustix::fs::lgetxattr(layer, MARK, &mut boot[..]) {
        Ok(length) => {
            boot.truncate(length);
            Ok(Some(boot))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn boot() -> std::io::Result<&'static str> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(boot);
    }
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(BOOT.get_or_init(|| text.trim().to_owned()))
}
