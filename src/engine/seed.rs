//! What an image puts into a volume that is empty. In an anonymous volume that nobody has changed since, the next image's
//! content takes its place.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use fs_err as fs;
use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags};

use super::paths::Paths;
use super::state::MountRecord;
use super::volumes::{self, Seed, Volume};
use crate::images::{Image, Store};

/// Gives a volume, if it is empty, the content that the image has where it is mounted. Says so if it has another image's
/// content that somebody has changed: that stays.
pub(crate) fn fill(
    paths: &Paths,
    store: &Store,
    image: &Image,
    volume: Volume,
    mount: &MountRecord,
) -> io::Result<Option<String>> {
    let data = volumes::data(paths, &volume);
    let own = !volume.driver_opts.contains_key("type");
    if !own || mount.nocopy || mount.subpath.is_some() || image.host {
        return Ok(None);
    }
    let copy = |into: &Path| store.copy_up(image, &mount.target, into).map_err(io::Error::other);
    if volumes::is_empty(&data)? {
        copy(&data)?;
        if mount.anonymous && !volumes::is_empty(&data)? {
            sow(paths, volume, image, &data)?;
        }
        return Ok(None);
    }
    let Some(seed) = volume.seed.as_ref().filter(|seed| mount.anonymous && seed.image != image.id.to_string()) else {
        return Ok(None);
    };
    if latest_change(&data)? > seed.changed {
        return Ok(Some(format!(
            "its anonymous volume at {} was changed: it stays as it is, whatever the new image has there (`-V` renews it)",
            mount.target
        )));
    }
    // The old content is there until the new one is whole.
    let fresh = data.with_file_name("_fresh");
    remove(&fresh)?;
    fs::create_dir(&fresh)?;
    copy(&fresh)?;
    rustix::fs::renameat_with(CWD, &fresh, CWD, &data, RenameFlags::EXCHANGE)?;
    sow(paths, volume, image, &data)?;
    remove(&fresh)?;
    Ok(None)
}

/// Writes down what a volume was filled with.
fn sow(paths: &Paths, volume: Volume, image: &Image, data: &Path) -> io::Result<()> {
    let seed = Seed { image: image.id.to_string(), changed: latest_change(data)? };
    volumes::write(paths, &Volume { seed: Some(seed), ..volume })
}

/// The latest change of a folder and of anything in it: the kernel keeps that time, nobody sets it.
fn latest_change(path: &Path) -> io::Result<Timestamp> {
    let metadata = fs::symlink_metadata(path)?;
    let nanoseconds = i32::try_from(metadata.ctime_nsec()).map_err(io::Error::other)?;
    let mut latest = Timestamp::new(metadata.ctime(), nanoseconds).map_err(io::Error::other)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            latest = latest.max(latest_change(&entry?.path())?);
        }
    }
    Ok(latest)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
