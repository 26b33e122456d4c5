//! What a store must look like, whatever happened to it.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Whether every blob is what its name says and nothing lies about but beginnings of blobs; how many images are entered, and
/// layers there.
pub(crate) fn check(root: &Path) -> Result<(usize, usize), String> {
    let images = root.join("lib/images");
    for blob in files(&images.join("blobs/sha256")) {
        let output = Command::new("sha256sum").arg(&blob).output().unwrap();
        if !String::from_utf8_lossy(&output.stdout).starts_with(&name(&blob)) {
            return Err(format!("blob {} is something else", name(&blob)));
        }
    }
    let known = ["blobs", "tmp", "index.json", "oci-layout", ".lock", ".lease"];
    let strange = files(&images).into_iter().find(|path| !known.contains(&name(path).as_str()));
    let aside = files(&images.join("tmp")).into_iter().find(|path| path.extension().is_none_or(|end| end != "partial"));
    let layers = files(&root.join("lib/layers"));
    let unfinished = layers.iter().find(|path| name(path).starts_with(".aside"));
    if let Some(path) = strange.or(aside).or(unfinished.cloned()) {
        return Err(format!("{} is left", path.display()));
    }
    let index: Value = serde_json::from_slice(&fs_err::read(images.join("index.json")).unwrap()).unwrap();
    let layers = layers.iter().filter(|path| !name(path).starts_with('.')).count();
    Ok((index["manifests"].as_array().unwrap().len(), layers))
}

/// Blobs that haven't come whole.
pub(crate) fn partial(root: &Path) -> usize {
    files(&root.join("lib/images/tmp")).len()
}

/// Everything that is in the layers: path, kind, owner, size, time and content.
pub(crate) fn layers(root: &Path) -> BTreeMap<PathBuf, String> {
    let all = root.join("lib/layers");
    let mut found = BTreeMap::new();
    let mut todo: Vec<PathBuf> = files(&all).into_iter().filter(|path| !name(path).starts_with('.')).collect();
    while let Some(path) = todo.pop() {
        let stat = fs_err::symlink_metadata(&path).unwrap();
        let mut text =
            format!("{:o} {}:{} {} {}", stat.mode(), stat.uid(), stat.gid(), stat.mtime(), stat.mtime_nsec());
        if stat.file_type().is_char_device() {
            // The mark of a removed file bears the time of its making.
            text = format!("{:o} {}", stat.mode(), stat.rdev());
        } else if stat.is_dir() {
            todo.extend(files(&path));
        } else if stat.is_symlink() {
            text += &fs_err::read_link(&path).unwrap().to_string_lossy();
        } else if stat.is_file() {
            text += &stack::images::Digest::of(&fs_err::read(&path).unwrap()).to_string();
        }
        found.insert(path.strip_prefix(&all).unwrap().to_owned(), text);
    }
    found
}

/// Whether a layer may not be on the disk yet.
pub(crate) fn is_marked(layer: &Path) -> bool {
    rustix::fs::lgetxattr(layer, MARK, &mut [0; 64][..]).is_ok()
}

/// The attribute that tells it, with the boot that the layer was made in.
pub(crate) const MARK: &str = "trusted.stack.boot";

fn files(folder: &Path) -> Vec<PathBuf> {
    fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}
