//! From the record of a container to its launch: mounts opened, limits in numbers, nothing left to decide.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use fs_err as fs;

use super::comeback;
use super::control::Failure;
use super::guests::{Guests, Pair, bind_owner, make_source};
use super::paths::Paths;
use super::state::{self, MountRecord, Record};
use super::volumes;
use super::{filter, hosts, limits};
use crate::images::{Guest, Rootfs, Store, Writable};
use crate::runtime::device::{Device, DeviceRule};
use crate::runtime::launch::{Cgroup, Ids, Launch, Mount, MountFlags, Namespaces, Net, Share, Slot, Stdio};
use crate::runtime::{LaunchError, resolve_user};
use crate::spec::model::FileMount;
use crate::spec::units::ByteSize;
use crate::sys::mntns::Original;
use crate::sys::{mount, path};
use rustix::fs::{Mode, OFlags};

const SHM_SIZE: u64 = 64 << 20;
const LOG_SIZE: u64 = 10 << 20;
const LOG_FILES: u32 = 3;

/// A launch and the descriptors that its slots count.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) launch: Launch,
    pub(crate) fds: Vec<OwnedFd>,
    /// A copy of the root file system, where it can be copied: kept for the container's next start.
    pub(crate) root: Option<OwnedFd>,
}

impl Bundle {
    fn slot(&mut self, fd: OwnedFd) -> Slot {
        self.fds.push(fd);
        Slot(self.fds.len() - 1)
    }
}

/// Opens everything that a container needs. Blocking.
///
/// `mounted` are the volumes with a file system of their own; `root` is the root file system from an earlier run, and
/// `kept` says that the shim still has the container's network from there.
pub(crate) fn prepare(
    paths: &Paths,
    store: &Store,
    guests: &Guests,
    record: &Record,
    mounted: &BTreeMap<String, Original>,
    root: Option<OwnedFd>,
    kept: bool,
) -> Result<Bundle, Failure> {
    let image = store.find(&record.image_id).map_err(|e| Failure::new(e.to_string()))?;
    let image = image.ok_or_else(|| {
        Failure::new(format!("container {}: its image {} is gone", record.name, record.image))
            .hint("run `stack up` to make it anew")
    })?;
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("container {}: {e}", record.name));
    let copy = |root: &OwnedFd| mount::clone_tree_at(root.as_fd(), Path::new(""), false);
    let (rootfs, root) = if let Some(root) = root {
        (Rootfs { mount: copy(&root).map_err(|e| failed(&e))?, binds: Vec::new() }, Some(root))
    } else {
        let home = paths.container(&record.id);
        let writable = Writable { upper: &home.join("upper"), work: &home.join("work"), volatile: false };
        let namespace = record.user_namespace.ids.map(|ids| Ok((guests.own(ids)?, ids))).transpose();
        let namespace = namespace.map_err(|e: io::Error| failed(&e))?;
        let guest = namespace.as_ref().map(|(fd, ids)| Guest { namespace: fd.as_fd(), root: ids.base });
        let rootfs = store.rootfs_for(guest, &image, Some(writable)).map_err(|e| failed(&e))?;
        let root = copy(&rootfs.mount).ok().filter(|_| rootfs.binds.is_empty());
        (rootfs, root)
    };
    let mut bundle = Bundle { launch: launch(paths, record, kept)?, fds: vec![rootfs.mount], root };
    for (tree, target) in rootfs.binds {
        let slot = bundle.slot(tree);
        bundle.launch.mounts.push(Mount::Tree { slot, target, flags: MountFlags::default() });
    }
    let user = match record.user_namespace.ids {
        None => (0, 0),
        Some(_) => user_of(&bundle, record).map_err(|e| failed(&e))?,
    };
    for mount in &record.mounts {
        let mapping = record.user_namespace.ids.map(|ids| Mapping { guests, ids, user, record });
        let opened = open_mount(paths, store, mounted, mapping, &mut bundle, mount).map_err(|failure| Failure {
            message: format!("container {}: {}", record.name, failure.message),
            ..failure
        })?;
        bundle.launch.mounts.push(opened);
    }
    // A container in another's network has the other's names.
    let files = match &bundle.launch.namespaces.net {
        Net::Join(other) => state::find_record(paths, other).ok().flatten().map(|other| hosts::files(&other)),
        _ => Some(hosts::files(record)),
    };
    let file = |(target, content): (&str, String)| small_file(target.to_owned(), content.into_bytes(), 0o644);
    bundle.launch.mounts.extend(files.unwrap_or_default().into_iter().map(file));
    for (kind, mounts, home) in
        [("secret", &record.config.secrets, "/run/secrets"), ("config", &record.config.configs, "")]
    {
        for mount in mounts {
            bundle.launch.mounts.push(file_object(paths, record, kind, mount, home)?);
        }
    }
    Ok(bundle)
}

fn launch(paths: &Paths, record: &Record, kept: bool) -> Result<Launch, Failure> {
    let service = &record.config;
    let privileged = service.privileged.unwrap_or(false);
    let option = |names: &[&str]| service.security_opt.iter().any(|option| names.contains(&option.as_str()));
    let open_paths = privileged || option(&["systempaths=unconfined", "systempaths:unconfined"]);
    Ok(Launch {
        id: record.id.clone(),
        hostname: record.hostname.clone(),
        domainname: service.domainname.clone(),
        namespaces: namespaces(record, kept),
        rootfs: Slot(0),
        read_only: service.read_only.unwrap_or(false),
        mounts: Vec::new(),
        process: record.process.clone(),
        init: service.init.unwrap_or(false),
        cgroup: Cgroup {
            path: limits::group(paths, record),
            borrowed: limits::is_borrowed(service),
            resources: limits::resources(service).map_err(|failure| Failure {
                message: format!("container {}: {}", record.name, failure.message),
                ..failure
            })?,
            device_rules: service.device_cgroup_rules.iter().filter_map(|rule| DeviceRule::parse(rule)).collect(),
        },
        masked: if open_paths { Vec::new() } else { Launch::default_masked() },
        read_only_paths: if open_paths { Vec::new() } else { Launch::default_read_only_paths() },
        sysctls: service.sysctls.clone(),
        seccomp: filter::of(paths, record)?,
        keeps: comeback::keeps(service),
        privileged,
        devices: devices(record)?,
        shm_size: service.shm_size.and_then(|size| u64::try_from(size.0).ok()).unwrap_or(SHM_SIZE),
        stdio: stdio(paths, record),
        ids: record.user_namespace.ids,
    })
}

fn namespaces(record: &Record, kept: bool) -> Namespaces {
    let share = |joined: &Option<String>| match joined.as_deref() {
        None => Share::Private,
        Some("host") => Share::Host,
        Some(id) => Share::Join(id.to_owned()),
    };
    let joins = &record.joins;
    Namespaces {
        net: match joins.net.as_deref() {
            None if kept => Net::Kept,
            None => Net::New,
            Some("host") => Net::Host,
            Some("none") => Net::None,
            Some(id) => Net::Join(id.to_owned()),
        },
        pid: share(&joins.pid),
        ipc: share(&joins.ipc),
        uts: share(&joins.uts),
        cgroup: share(&joins.cgroup),
    }
}

fn devices(record: &Record) -> Result<Vec<Device>, Failure> {
    let mut devices = Vec::new();
    for device in &record.config.devices {
        let permissions = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        let target = if device.target.is_empty() { &device.source } else { &device.target };
        let found = Device::from_host(Path::new(&device.source), target, permissions)
            .map_err(|e| Failure::new(format!("container {}: device {}: {e}", record.name, device.source)))?;
        devices.extend(found);
    }
    Ok(devices)
}

/// Where the output goes, by the service's `logging`.
pub(crate) fn stdio(paths: &Paths, record: &Record) -> Stdio {
    let logging = record.config.logging.clone().unwrap_or_default();
    let stdin = record.config.stdin_open.unwrap_or(false);
    if logging.driver.as_deref() == Some("none") && !stdin && !record.process.tty {
        return Stdio::Null;
    }
    let option = |name: &str| logging.options.get(name).map(String::as_str);
    Stdio::Log {
        path: paths.log(record.log_id()),
        max_size: option("max-size")
            .and_then(|text| text.parse().ok())
            .map_or(LOG_SIZE, |ByteSize(size)| u64::try_from(size).unwrap_or(0)),
        max_files: option("max-file")
            .and_then(|count| count.parse().ok())
            .filter(|count| *count > 0)
            .unwrap_or(LOG_FILES),
        stdin,
    }
}

/// How a container in a user namespace sees the ids of a mount.
#[derive(Clone, Copy)]
struct Mapping<'a> {
    guests: &'a Guests,
    ids: Ids,
    user: Pair,
    record: &'a Record,
}

impl Mapping<'_> {
    fn apply(&self, tree: &OwnedFd, mount: &MountRecord) -> io::Result<()> {
        match mount.kind.as_str() {
            // Its layers are.
            "image" => Ok(()),
            "bind" => self.guests.map_bind(self.ids, tree.as_fd(), bind_owner(mount, self.record), self.user),
            _ => self.guests.map_volume(self.ids, tree.as_fd()),
        }
    }
}

/// User and group that the container's process runs as.
fn user_of(bundle: &Bundle, record: &Record) -> Result<Pair, LaunchError> {
    let root = bundle.fds.first().ok_or_else(|| LaunchError::refused("find the user", "there is no root"))?;
    let user = resolve_user(root.as_fd(), &record.process.user, &[])?;
    Ok((user.uid, user.gid))
}

fn open_mount(
    paths: &Paths,
    store: &Store,
    mounted: &BTreeMap<String, Original>,
    mapping: Option<Mapping<'_>>,
    bundle: &mut Bundle,
    mount: &MountRecord,
) -> Result<Mount, Failure> {
    let alone = mount.recursive.as_deref() == Some("writable");
    let flags = MountFlags { read_only: mount.read_only && !alone, ..MountFlags::default() };
    let failed =
        |e: io::Error| Failure::new(format!("mount {} at {}: mapping its ids: {e}", mount.source, mount.target));
    let namespace = mapping.map(|mapping| mapping.guests.own(mapping.ids)).transpose().map_err(failed)?;
    let guest = namespace.as_ref().zip(mapping);
    let guest = guest.map(|(fd, mapping)| Guest { namespace: fd.as_fd(), root: mapping.ids.base });
    let tree = mount_tree(paths, store, guest, mounted, mount)?;
    if let (Some(tree), Some(mapping)) = (&tree, mapping) {
        mapping.apply(tree, mount).map_err(|e| failed(e).hint("use `userns_mode: host`"))?;
    }
    match tree {
        Some(tree) => {
            if alone && mount.read_only {
                mount::restrict(tree.as_fd(), mount::READ_ONLY, false)
                    .map_err(|e| Failure::new(format!("mount {} at {}: {e}", mount.source, mount.target)))?;
            }
            Ok(Mount::Tree { slot: bundle.slot(tree), target: mount.target.clone(), flags })
        }
        None => Ok(Mount::Tmpfs {
            target: mount.target.clone(),
            size: mount.size,
            mode: mount.mode.unwrap_or(0o1777),
            uid: mount.uid,
            gid: mount.gid,
            flags: MountFlags { nosuid: true, nodev: true, noexec: true, read_only: mount.read_only },
        }),
    }
}

/// What a mount shows, as a detached tree; none for a file system in memory.
pub(crate) fn mount_tree(
    paths: &Paths,
    store: &Store,
    guest: Option<Guest<'_>>,
    mounted: &BTreeMap<String, Original>,
    mount: &MountRecord,
) -> Result<Option<OwnedFd>, Failure> {
    let at = |e: &dyn std::fmt::Display| Failure::new(format!("mount {} at {}: {e}", mount.source, mount.target));
    let subpath = Path::new(mount.subpath.as_deref().unwrap_or_default());
    let tree = match mount.kind.as_str() {
        "tmpfs" => return Ok(None),
        "bind" => {
            let source = Path::new(&mount.source);
            if mount.create_host_path && !source.exists() {
                make_source(source).map_err(|e| at(&e))?;
            }
            mount::clone_tree(source, mount.recursive.as_deref() != Some("disabled"))
                .map_err(|e| at(&e).hint("make the host path, or set `bind.create_host_path: true`"))?
        }
        "image" => {
            let image = store.find(&mount.source).map_err(|e| at(&e))?;
            let image = image.ok_or_else(|| at(&"no such image"))?;
            let tree = store.rootfs_for(guest, &image, None).map_err(|e| at(&e))?.mount;
            match mount.subpath.as_deref() {
                None | Some("") => tree,
                Some(_) => Original::new(tree).and_then(|tree| tree.copy(subpath)).map_err(|e| at(&e))?,
            }
        }
        _ => {
            let volume = volumes::find(paths, &mount.source).map_err(|e| at(&e))?;
            let volume = volume.ok_or_else(|| at(&"the volume is gone"))?;
            match mounted.get(&volume.name) {
                Some(original) => original.copy(subpath),
                None => beneath(&volumes::data(paths, &volume), subpath),
            }
            .map_err(|e| at(&e))?
        }
    };
    if let Some(propagation) = &mount.propagation {
        let attributes =
            mount::Attributes { propagation: propagation_flag(propagation), ..mount::Attributes::default() };
        mount::set_attributes(tree.as_fd(), attributes, propagation.starts_with('r')).map_err(|e| at(&e))?;
    }
    Ok(Some(tree))
}

/// The kernel's flag for `private`, `slave`, `shared` and their recursive forms.
fn propagation_flag(text: &str) -> u64 {
    match text.trim_start_matches('r') {
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        _ => libc::MS_PRIVATE,
    }
}

/// A copy of what is below a folder, never outside of it.
fn beneath(folder: &Path, subpath: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty())?;
    let place = path::open_beneath(folder.as_fd(), subpath, OFlags::PATH)?;
    mount::clone_tree_at(place.as_fd(), Path::new(""), true)
}

fn file_object(paths: &Paths, record: &Record, kind: &str, mount: &FileMount, home: &str) -> Result<Mount, Failure> {
    let key = format!("{kind}:{}", mount.source);
    let content = fs::read(paths.file_objects(&record.project, &record.id).join(&key))
        .map_err(|e| Failure::new(format!("container {}: {kind} {}: {e}", record.name, mount.source)))?;
    let target = match mount.target.as_deref() {
        Some(target) if target.starts_with('/') => target.to_owned(),
        Some(target) => format!("{home}/{target}"),
        None => format!("{home}/{}", mount.source),
    };
    let number = |what: &str, text: &Option<String>, radix, default| match text {
        None => Ok(default),
        Some(text) => u32::from_str_radix(text, radix).map_err(|_| {
            Failure::new(format!("container {}: {kind} {}: invalid {what} {text:?}", record.name, mount.source))
        }),
    };
    Ok(Mount::File {
        target,
        content,
        mode: number("mode", &mount.mode, 8, 0o444)?,
        uid: number("uid", &mount.uid, 10, 0)?,
        gid: number("gid", &mount.gid, 10, 0)?,
        read_only: true,
    })
}

fn small_file(target: String, content: Vec<u8>, mode: u32) -> Mount {
    Mount::File { target, content, mode, uid: 0, gid: 0, read_only: false }
}
