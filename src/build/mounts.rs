//! What `RUN --mount` brings into a step.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::agent::{self, Forward};
use super::builder::Builder;
use super::cache::Key;
use super::error::{Error, Problem};
use super::ignore::{Ignore, clean};
use super::instruction::{Mount, MountKind, Sharing};
use super::place::Placer;
use super::run::read_only;
use super::scope;
use super::source::Origin;
use super::state::State;
use super::tree;
use crate::images::{Digest, Writable};
use crate::runtime::launch::{self, MountFlags, Slot};
use crate::sys::file::Lock;
use crate::sys::mount::{clone_tree, clone_tree_at};

/// How often a cache in use is asked for.
const RETRY: Duration = Duration::from_millis(50);

/// The mounts of a step with variables expanded and origins found.
#[derive(Debug)]
pub(crate) struct Mounts(Vec<Wanted>);

#[derive(Debug)]
struct Wanted {
    mount: Mount,
    /// Absolute.
    target: String,
    origin: Option<Origin>,
    /// What a mounted source holds; part of the key.
    content: Option<Digest>,
}

/// Mounts ready for a launch, and what must be held while it runs.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) mounts: Vec<launch::Mount>,
    pub(crate) env: Vec<String>,
    pub(crate) locks: Vec<Lock>,
    pub(crate) forwards: Vec<Forward>,
    /// Where the step finds its first ssh agent.
    pub(crate) agent: Option<String>,
}

impl Mounts {
    pub(crate) fn new(builder: &Builder<'_>, state: &State, mounts: &[Mount], index: usize) -> Result<Self, Error> {
        let mut wanted = Vec::new();
        for mount in mounts {
            let mut expander = scope::expander(builder.escape, &state.config.config.env, &state.args);
            let mut word = |text: &String| scope::word(&mut expander, text);
            let mut mount = mount.clone();
            mount.target = word(&mount.target)?;
            mount.source = word(&mount.source)?;
            mount.from = mount.from.as_ref().map(&mut word).transpose()?;
            mount.id = mount.id.as_ref().map(&mut word).transpose()?;
            if mount.source.split('/').any(|name| name == "..") {
                let hint = "name the path from the root of its origin";
                return Err(Problem::new(format!("the source `{}` leads out", mount.source)).hint(hint).into());
            }
            let target = match mount.kind {
                MountKind::Ssh if mount.target.is_empty() => {
                    let before = wanted.iter().filter(|wanted: &&Wanted| wanted.mount.kind == MountKind::Ssh).count();
                    format!("/run/buildkit/ssh_agent.{before}")
                }
                _ => target(&mount, state)?,
            };
            let origin = match mount.kind {
                MountKind::Bind => Some(builder.origin(mount.from.as_deref(), index)?),
                MountKind::Cache if mount.from.is_some() => Some(builder.origin(mount.from.as_deref(), index)?),
                _ => None,
            };
            let content = match &origin {
                Some(origin) if mount.kind == MountKind::Bind => Some(content(builder, origin, &mount.source)?),
                _ => None,
            };
            wanted.push(Wanted { mount, target, origin, content });
        }
        Ok(Self(wanted))
    }

    /// Adds what a step's result depends on: never what a cache or a secret holds.
    pub(crate) fn add_to(&self, key: &mut Key) {
        for wanted in &self.0 {
            let mount = &wanted.mount;
            key.text(&format!("{:?} {:?} {:?}", mount.kind, mount.read_only, mount.env));
            key.list(&[&wanted.target, &mount.source, mount.id.as_deref().unwrap_or_default()]);
            key.text(mount.from.as_deref().unwrap_or_default());
            key.text(&wanted.content.map(|digest| digest.to_string()).unwrap_or_default());
        }
    }

    /// Opens everything; descriptors are appended to `fds`.
    pub(crate) async fn prepare(&self, builder: &Builder<'_>, fds: &mut Vec<OwnedFd>) -> Result<Prepared, Error> {
        let mut prepared = Prepared::default();
        for wanted in &self.0 {
            match wanted.mount.kind {
                MountKind::Bind => {
                    prepared.mounts.push(tree_mount(
                        fds,
                        bind(builder, wanted)?,
                        wanted,
                        wanted.mount.read_only != Some(false),
                    ));
                }
                MountKind::Cache => {
                    let (folder, lock) = cache(builder, wanted).await?;
                    prepared.locks.extend(lock);
                    let tree = clone_tree(&folder, false).map_err(Error::io("mount the cache", &folder))?;
                    prepared.mounts.push(tree_mount(fds, tree, wanted, wanted.mount.read_only == Some(true)));
                }
                MountKind::Tmpfs => prepared.mounts.push(launch::Mount::Tmpfs {
                    target: wanted.target.clone(),
                    size: wanted.mount.size,
                    mode: 0o1777,
                    uid: 0,
                    gid: 0,
                    flags: MountFlags { nosuid: true, nodev: true, ..MountFlags::default() },
                }),
                MountKind::Secret => secret(builder, wanted, &mut prepared)?,
                MountKind::Ssh => agent(builder, wanted, fds, &mut prepared)?,
            }
        }
        Ok(prepared)
    }
}

fn tree_mount(fds: &mut Vec<OwnedFd>, tree: OwnedFd, wanted: &Wanted, only_read: bool) -> launch::Mount {
    fds.push(tree);
    launch::Mount::Tree { slot: Slot(fds.len() - 1), target: wanted.target.clone(), flags: read_only(only_read) }
}

fn target(mount: &Mount, state: &State) -> Result<String, Error> {
    let target = match (mount.kind, mount.target.as_str()) {
        (MountKind::Secret, "") => format!("/run/secrets/{}", secret_id(mount)),
        (_, target) => state.absolute(target).trim_end_matches('/').to_owned(),
    };
    if target.is_empty() {
        return Err(Problem::new("nothing can be mounted over /").hint("give another target").into());
    }
    Ok(target)
}

fn content(builder: &Builder<'_>, origin: &Origin, source: &str) -> Result<Digest, Error> {
    if let Some(layers) = origin.layers() {
        let mut key = Key::new("mounted");
        key.layers(layers);
        key.text(source);
        return Ok(key.finish());
    }
    let tree = builder.tree(origin)?;
    let selected = tree.at(source)?;
    tree::digest(&tree, &selected, &tree.list(&selected, &Ignore::default())?)
}

/// The tree of a bind mount. One that may be written to is a copy or an overlay, so that the source stays as it is.
fn bind(builder: &Builder<'_>, wanted: &Wanted) -> Result<OwnedFd, Error> {
    let Some(origin) = &wanted.origin else { return Err(Problem::new("a bind mount needs a source").into()) };
    let source = &wanted.mount.source;
    let writable = wanted.mount.read_only == Some(false);
    if let Origin::Layers(image, _) = origin
        && clean(&format!("/{source}")) == "/"
    {
        let pair = builder.scratch()?.upper()?;
        let layer = Writable { upper: &pair.upper, work: &pair.work, volatile: true };
        return Ok(builder.store.rootfs(image, writable.then_some(layer))?.mount);
    }
    let tree = builder.tree(origin)?;
    let selected = tree.at(source)?;
    if !writable {
        let handle = selected.handle(Path::new("")).map_err(Error::io("open", source))?;
        // Kernels before 6.15 don't clone a part of a mount that is attached nowhere.
        if let Ok(cloned) = clone_tree_at(handle.as_fd(), Path::new(""), false) {
            return Ok(cloned);
        }
    }
    let copy = builder.scratch()?.upper()?.upper;
    let root = rustix::fs::open(&copy, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(std::io::Error::from).map_err(Error::io("open", &copy))?;
    let nodes = tree.list(&selected, &Ignore::default())?;
    let placer = Placer::new(root.as_fd(), None, None);
    if selected.is_dir() {
        placer.content(&selected, &nodes, "/content")?;
    } else if let Some(node) = nodes.first() {
        placer.file(&selected, node, "/content")?;
    }
    clone_tree(&copy.join("content"), false).map_err(Error::io("mount", copy))
}

/// The folder of a cache, made if missing, and its lock where it is not shared.
async fn cache(builder: &Builder<'_>, wanted: &Wanted) -> Result<(PathBuf, Option<Lock>), Error> {
    let parent = builder.request.lib.join("build/caches");
    fs_err::create_dir_all(&parent).map_err(Error::io("make the folder", &parent))?;
    let id = wanted.mount.id.as_deref().unwrap_or(&wanted.target);
    let name = Digest::of(id.as_bytes()).hex();
    let mut serial = 0;
    let (name, lock) = loop {
        let name = if serial == 0 { name.clone() } else { format!("{name}-{serial}") };
        if wanted.mount.sharing == Sharing::Shared {
            break (name, None);
        }
        let path = parent.join(format!("{name}.lock"));
        match Lock::try_exclusive(&path).map_err(Error::io("lock the cache", &path))? {
            Some(lock) => break (name, Some(lock)),
            None if wanted.mount.sharing == Sharing::Private => serial += 1,
            None => tokio::time::sleep(RETRY).await,
        }
    };
    let folder = parent.join(name);
    if !folder.exists() {
        fill(builder, wanted, &folder)?;
    }
    Ok((folder, lock))
}

/// Makes a cache aside and puts it into place, so that nobody sees a part of it.
fn fill(builder: &Builder<'_>, wanted: &Wanted, folder: &Path) -> Result<(), Error> {
    let made = builder.scratch()?.upper()?.upper;
    let root = rustix::fs::open(&made, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(std::io::Error::from).map_err(Error::io("open", &made))?;
    if let Some(origin) = &wanted.origin {
        let tree = builder.tree(origin)?;
        let selected = tree.at(&wanted.mount.source)?;
        let nodes = tree.list(&selected, &Ignore::default())?;
        Placer::new(root.as_fd(), None, None).content(&selected, &nodes, "/")?;
    }
    let dress = || -> std::io::Result<()> {
        std::os::unix::fs::fchown(&root, Some(wanted.mount.uid), Some(wanted.mount.gid))?;
        Ok(rustix::fs::fchmod(&root, Mode::from_raw_mode(wanted.mount.mode.unwrap_or(0o755)))?)
    };
    dress().map_err(Error::io("set the owner of", &made))?;
    match fs_err::rename(&made, folder) {
        // Another build was quicker.
        Err(_) if folder.exists() => Ok(()),
        other => other.map_err(Error::io("make the cache", folder)),
    }
}

fn agent(builder: &Builder<'_>, wanted: &Wanted, fds: &mut Vec<OwnedFd>, prepared: &mut Prepared) -> Result<(), Error> {
    let id = wanted.mount.id.as_deref().unwrap_or(agent::DEFAULT);
    let Some(agent) = builder.request.agents.get(id) else {
        if wanted.mount.required {
            let hint = format!("give it by --ssh {id} or `ssh:` under build");
            return Err(Problem::new(format!("the ssh agent `{id}` was not given")).hint(hint).into());
        }
        return Ok(());
    };
    let socket = builder.scratch()?.upper()?.upper.join("agent");
    let forward = Forward::new(&socket, agent, &wanted.mount).map_err(Error::io("listen at", &socket))?;
    prepared.forwards.push(forward);
    let tree = clone_tree(&socket, false).map_err(Error::io("mount the socket", &socket))?;
    prepared.mounts.push(tree_mount(fds, tree, wanted, false));
    prepared.agent.get_or_insert_with(|| wanted.target.clone());
    Ok(())
}

fn secret_id(mount: &Mount) -> &str {
    let from_target = mount.target.rsplit('/').next().unwrap_or_default();
    mount.id.as_deref().unwrap_or(from_target)
}

fn secret(builder: &Builder<'_>, wanted: &Wanted, prepared: &mut Prepared) -> Result<(), Error> {
    let mount = &wanted.mount;
    let id = secret_id(mount);
    let Some(secret) = builder.request.secrets.get(id) else {
        if mount.required {
            let hint = format!("give it by --secret id={id},src=FILE or `secrets:` under build");
            return Err(Problem::new(format!("the secret `{id}` was not given")).hint(hint).into());
        }
        return Ok(());
    };
    if let Some(name) = &mount.env {
        let value = std::str::from_utf8(&secret.0).ok().filter(|value| !value.contains('\0'));
        let value =
            value.ok_or_else(|| Problem::new(format!("the secret `{id}` is not text and can't be a variable")))?;
        prepared.env.push(format!("{name}={value}"));
        if mount.target.is_empty() {
            return Ok(());
        }
    }
    prepared.mounts.push(launch::Mount::File {
        target: wanted.target.clone(),
        content: secret.0.clone(),
        mode: mount.mode.unwrap_or(0o400),
        uid: mount.uid,
        gid: mount.gid,
        read_only: true,
    });
    Ok(())
}
