//! `stack cp`.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use clap::Args;
use rustix::fs::{FileType, Mode, OFlags};

use crate::cli::error::{Error, Outcome};
use crate::cli::invoker::Invoker;
use crate::cli::progress::{Progress, Stage};
use crate::cli::project::{Context, Target};
use crate::cli::session::root_of;
use crate::engine::rootfs::{Place, Root};
use crate::engine::state::Container;
use crate::images::{self, Owner, Spot};

/// Copy files between a service's containers and this machine.
#[derive(Debug, Args)]
#[command(
    after_help = "One of the two is SERVICE:PATH (or CONTAINER:PATH), the other a path of this machine, or `-` for a \
tar stream.\nA folder is copied into a folder that is there, or becomes one that is not; FOLDER/. stands for what is in it."
)]
pub(crate) struct Cp {
    /// The service's container of this number
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// Containers made by `run`, too
    #[arg(long)]
    all: bool,
    /// Into a container: owned by its user; out of one: keep user and group numbers
    #[arg(short, long)]
    archive: bool,
    /// Follow a symbolic link that the source is
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// What to copy
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Where to
    #[arg(value_name = "DESTINATION")]
    destination: String,
}

/// One side of a copy as it was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Side {
    /// As the user knows it.
    label: String,
    /// Absolute, without `.` and `..`.
    path: PathBuf,
    /// It must be a folder.
    folder: bool,
    /// What is in the folder is meant, not the folder.
    content: bool,
}

impl Side {
    fn new(label: &str, text: &str, start: &Path) -> Self {
        let mut path = PathBuf::from("/");
        for component in start.join(text).components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::ParentDir => drop(path.pop()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        let content = matches!(text, "." | "./") || text.ends_with("/.") || path.parent().is_none();
        Self { label: label.to_owned(), folder: content || text.ends_with('/'), path, content }
    }
}

/// Takes `SERVICE:PATH` apart; a path of this machine has no service. One that contains a colon is written `./a:b`.
fn split(argument: &str) -> (Option<&str>, &str) {
    match argument.split_once(':') {
        Some((service, path)) if !argument.starts_with(['/', '.']) => (Some(service), path),
        _ => (None, argument),
    }
}

impl Cp {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let (source, destination) = (split(&self.source), split(&self.destination));
        let (service, out) = match (source.0, destination.0) {
            (Some(_), Some(_)) => {
                return Err(Error::new("cannot copy from one container to another")
                    .hint("copy through this machine: stack cp a:/x - | stack cp - b:/folder"));
            }
            (None, None) => {
                return Err(Error::new("neither the source nor the destination is in a container")
                    .hint("write one of them as SERVICE:PATH"));
            }
            (Some(service), None) => (service, true),
            (None, Some(service)) => (service, false),
        };
        let target = context.target()?;
        let all = context.containers(&target.name)?;
        let mut containers = self.choose(&target, &all, service)?;
        containers.truncate(if out { 1 } else { usize::MAX });
        let mut progress = Progress::new(context.ui, "cp");
        for container in containers {
            let root = root_of(context, container, false).await?;
            let id = format!("Container {}", container.record.name);
            let what = format!("{} to {}", self.source, self.destination);
            progress.step(&id, Stage::Working, &format!("Copying {what}"))?;
            let copied = if out {
                self.copy_out(container, &root, source.1, destination.1)
            } else {
                root.writing(|| self.copy_in(container, &root, source.1, destination.1))?
            };
            let (stage, word) = if copied.is_ok() { (Stage::Done, "Copied") } else { (Stage::Failed, "Error") };
            progress.step(&id, stage, &format!("{word} {what}"))?;
            if copied.is_err() {
                progress.finish()?;
            }
            copied?;
        }
        progress.finish()?;
        Ok(0)
    }

    /// The containers meant, by service or else by name; lowest number first.
    fn choose<'a>(&self, target: &Target, all: &'a [Container], name: &str) -> Result<Vec<&'a Container>, Error> {
        let counts = |container: &&Container| {
            container.record.service == name && (self.all && self.index.is_none() || !container.record.oneoff)
        };
        let mut found: Vec<&Container> = all.iter().filter(counts).collect();
        found.sort_by_key(|container| (container.record.oneoff, container.record.number));
        if let Some(index) = self.index {
            found.retain(|container| container.record.number == index);
        }
        if found.is_empty() && self.index.is_none() {
            found.extend(all.iter().find(|container| container.record.name == name));
        }
        if found.is_empty() {
            target.check_services(&[name.to_owned()], all)?;
            let number = self.index.map_or_else(String::new, |index| format!(" with index {index}"));
            return Err(Error::new(format!("service `{name}` has no container{number}"))
                .hint(format!("make one with `stack up -d {name}` or `stack create {name}`")));
        }
        Ok(found)
    }

    fn copy_out(&self, container: &Container, root: &Root, from: &str, to: &str) -> Result<(), Error> {
        let from = Side::new(&format!("{}:{from}", container.record.name), from, Path::new("/"));
        if to == "-" {
            return self.stream_out(root, &from);
        }
        let invoker = Invoker::new();
        let owner = if self.archive {
            root.ids().map_or(Owner::Same, Owner::OutOf)
        } else {
            Owner::Id(invoker.uid, invoker.gid)
        };
        copy((root, &from), (&Root::of_host()?, &local(to)?), self.follow_link, owner)
    }

    fn copy_in(&self, container: &Container, root: &Root, from: &str, to: &str) -> Result<(), Error> {
        let label = format!("{}:{to}", container.record.name);
        let to = Side::new(&label, to, Path::new("/"));
        if from == "-" {
            let place = find(root, &to, true)?;
            if !place.is_folder() {
                return Err(Error::new(format!("`{label}` must be a folder to unpack an archive into")));
            }
            let folder = enter(&place)?;
            return Ok(images::unpack_archive_into(io::stdin(), folder.as_fd(), root.ids())?);
        }
        let owner = if self.archive {
            let (uid, gid) = root.user(&container.record.process.user)?;
            let outside = |id| root.ids().map_or(id, |ids| ids.outside(id).unwrap_or(ids.base));
            Owner::Id(outside(uid), outside(gid))
        } else {
            root.ids().map_or(Owner::Same, Owner::Into)
        };
        copy((&Root::of_host()?, &local(from)?), (root, &to), self.follow_link, owner)
    }

    fn stream_out(&self, root: &Root, from: &Side) -> Result<(), Error> {
        if io::stdout().is_terminal() {
            return Err(Error::new("an archive cannot go to a terminal").hint("redirect it: stack cp … - >FILE"));
        }
        let place = existing(root, from, self.follow_link)?;
        let out = io::stdout().lock();
        if from.content || place.name == "." {
            return Ok(images::pack(enter(&place)?.as_fd(), None, root.ids(), out)?);
        }
        Ok(images::pack(place.folder.as_fd(), Some(place.name.as_bytes()), root.ids(), out)?)
    }
}

fn local(text: &str) -> Result<Side, Error> {
    if text.is_empty() {
        return Err(Error::new("the path on this machine is empty"));
    }
    let here = std::env::current_dir().map_err(|e| Error::from(e).context("the current folder is gone"))?;
    Ok(Side::new(text, text, &here))
}

fn find(root: &Root, side: &Side, follow: bool) -> Result<Place, Error> {
    root.find(&side.path, follow || side.folder)
        .map_err(|e| Error::from(e).context(format!("cannot get to `{}`", side.label)))
}

/// The source, which must be there.
fn existing(root: &Root, side: &Side, follow: bool) -> Result<Place, Error> {
    let place = find(root, side, follow)?;
    if place.stat.is_none() {
        return Err(Error::new(format!("no such file or directory: `{}`", side.label)));
    }
    if side.folder && !place.is_folder() {
        return Err(Error::new(format!("not a directory: `{}`", side.label)));
    }
    Ok(place)
}

/// Opens the folder at a place.
fn enter(place: &Place) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&place.folder, place.name.as_bytes(), flags, Mode::empty())?)
}

/// Copies by docker's rules, which are those of `cp -a` but for `FOLDER/.` and that parents must be there.
fn copy((from, source): (&Root, &Side), (to, target): (&Root, &Side), follow: bool, owner: Owner) -> Result<(), Error> {
    let there = existing(from, source, follow)?;
    let place = find(to, target, true)?;
    let refuse = |why: &str| Err(Error::new(format!("cannot copy `{}` to `{}`: {why}", source.label, target.label)));
    let kind = place.stat.as_ref().map(|stat| FileType::from_raw_mode(stat.st_mode));
    let spot = Spot { folder: there.folder.as_fd(), name: there.name.as_bytes() };
    let onto = Spot { folder: place.folder.as_fd(), name: place.name.as_bytes() };
    match kind {
        Some(FileType::Directory) if there.is_folder() && source.content => Ok(images::copy(spot, onto, owner)?),
        Some(FileType::Directory) => {
            let folder = enter(&place)?;
            // The name that was asked for, not the one that a followed link leads to.
            let name = source.path.file_name().unwrap_or_default().as_bytes();
            Ok(images::copy(spot, Spot { folder: folder.as_fd(), name }, owner)?)
        }
        Some(_) if there.is_folder() => refuse("the destination is there and is not a directory"),
        Some(_) if target.folder => refuse("the destination is not a directory"),
        Some(FileType::RegularFile) => Ok(images::copy(spot, onto, owner)?),
        Some(_) => refuse("the destination must be a directory or a regular file"),
        None if target.folder && !there.is_folder() => refuse("the destination directory does not exist"),
        None => Ok(images::copy(spot, onto, owner)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_makes_a_container_path_unless_it_cannot() {
        assert_eq!(split("web:/etc/x"), (Some("web"), "/etc/x"));
        assert_eq!(split("web:x:y"), (Some("web"), "x:y"));
        for local in ["/a:b", "./a:b", "../a:b", "plain", "-"] {
            assert_eq!(split(local), (None, local));
        }
    }

    #[test]
    fn sides_know_what_is_meant() {
        let side = |text: &str| Side::new(text, text, Path::new("/work"));
        assert_eq!(side("a/../b").path, Path::new("/work/b"));
        assert_eq!(side("/../../x").path, Path::new("/x"));
        assert!(side("d/.").content && side(".").content && side("/").content);
        assert!(side("d/").folder && !side("d/").content);
        assert!(!side("d/..").content && !side("d").folder);
    }
}
