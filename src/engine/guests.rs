//! User namespaces of containers: who gets one, which ids are a stack's, and how mounts show theirs.
//!
//! Every stack has a range of ids of its own, which nobody else on this machine has, and 0 in its containers is the
//! first of it. Layers and volumes hold the containers' own ids, shown through mounts that map them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use fs_err as fs;

use super::paths::Paths;
use super::state::{Container, MountRecord, Record, UserNamespace};
use super::volumes;
use crate::images::{Guest, Store};
use crate::runtime::caps;
use crate::runtime::launch::Ids;
use crate::spec::model::Service;
use crate::sys::file::{Lock, write_atomic};
use crate::sys::userns::Extent;
use crate::sys::{mount, userns};

/// Ids of one stack.
const COUNT: u32 = 1 << 16;
/// Above what is customary for users, containers of others and services, below what is reserved for foreign trees.
const FIRST: u32 = 0x7000_0000;
/// How many stacks there may be.
const RANGES: u32 = 0x0ffe;

/// Rights that mean something beyond a user namespace: who asks for them needs the host's.
const BEYOND: [&str; 21] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "DAC_READ_SEARCH",
    "IPC_LOCK",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "PERFMON",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYSLOG",
];

/// Users and groups of a namespace.
type Maps = (Vec<Extent>, Vec<Extent>);

/// The namespaces that mounts are mapped by, each made once.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    made: Mutex<BTreeMap<Maps, Arc<OwnedFd>>>,
}

/// Who files belong to, or a process runs as: user and group.
pub(crate) type Pair = (u32, u32);

impl Guests {
    fn namespace(&self, maps: Maps) -> io::Result<Arc<OwnedFd>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(namespace) = made.get(&maps) {
            return Ok(namespace.clone());
        }
        let namespace = Arc::new(userns::make(&maps.0, &maps.1)?);
        made.insert(maps, namespace.clone());
        Ok(namespace)
    }

    /// The namespace for what holds the container's own ids: layers, volumes.
    pub(crate) fn own(&self, ids: Ids) -> io::Result<Arc<OwnedFd>> {
        self.namespace((vec![ids.extent()], vec![ids.extent()]))
    }

    /// Maps the ids of a volume.
    pub(crate) fn map_volume(&self, ids: Ids, tree: BorrowedFd<'_>) -> io::Result<()> {
        mount::map_ids(tree, self.own(ids)?.as_fd(), true)
    }

    /// Maps the ids of a bind mount. What belongs to a user of this machine belongs to the service's user inside.
    pub(crate) fn map_bind(&self, ids: Ids, tree: BorrowedFd<'_>, owner: Option<Pair>, user: Pair) -> io::Result<()> {
        let Some(owner) = owner else { return self.map_volume(ids, tree) };
        let namespace = self.namespace((swapped(ids, owner.0, user.0), swapped(ids, owner.1, user.1)))?;
        mount::map_ids(tree, namespace.as_fd(), true)?;
        mount::restrict(tree, mount::NOSUID, true)
    }

    /// Says whether a container gets a user namespace, and if not, why.
    pub(crate) fn decide(
        &self,
        paths: &Paths,
        store: &Store,
        record: &Record,
        neighbours: &[Container],
    ) -> io::Result<UserNamespace> {
        if let Some(reason) = asked_for_host(record) {
            return Ok(UserNamespace { reason: Some(reason), ..UserNamespace::default() });
        }
        let joins = &record.joins;
        for other in [&joins.net, &joins.pid, &joins.ipc, &joins.uts].into_iter().flatten() {
            if let Some(other) = neighbours.iter().find(|container| container.record.id == *other) {
                let ids = other.record.user_namespace.ids;
                let reason = format!("it shares namespaces with {}, which is in the host's", other.record.name);
                return Ok(UserNamespace { ids, reason: ids.is_none().then_some(reason), fallback: false });
            }
        }
        let ids = range(paths, &record.project)?;
        Ok(match self.impossible(paths, store, record, ids)? {
            None => UserNamespace { ids: Some(ids), ..UserNamespace::default() },
            reason => {
                let fallback = record.config.userns_mode.as_deref() == Some("private");
                UserNamespace { ids: None, reason, fallback }
            }
        })
    }

    fn impossible(&self, paths: &Paths, store: &Store, record: &Record, ids: Ids) -> io::Result<Option<String>> {
        if let Some(reason) = needs_host(record) {
            return Ok(Some(reason));
        }
        let namespace = match self.own(ids) {
            Ok(namespace) => namespace,
            Err(e) => return Ok(Some(format!("this kernel makes no user namespace: {e}"))),
        };
        if let Some(verdict) = verdict(paths, || {
            let guest = Guest { namespace: namespace.as_fd(), root: ids.base };
            store.try_guest(guest).err().map(|e| e.to_string())
        })? {
            return Ok(Some(verdict));
        }
        let mut sources = Vec::new();
        for mount in &record.mounts {
            match mount.kind.as_str() {
                "bind" => sources.push(Path::new(&mount.source).to_owned()),
                "volume" => sources.extend(volumes::find(paths, &mount.source)?.map(|it| volumes::data(paths, &it))),
                _ => {}
            }
        }
        let image = store.find(&record.image_id).map_err(io::Error::other)?;
        if image.is_some_and(|image| image.host) {
            sources.push("/usr".into());
        }
        for source in sources {
            let there = source.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
            let tried = mount::clone_tree(there, there == source)
                .and_then(|tree| mount::map_ids(tree.as_fd(), namespace.as_fd(), there == source));
            if let Err(e) = tried {
                return Ok(Some(format!("ids can't be mapped in {}: {e}", source.display())));
            }
        }
        Ok(None)
    }
}

/// What the service asks for that only the host's user namespace has.
fn asked_for_host(record: &Record) -> Option<String> {
    let service: &Service = &record.config;
    let joins = &record.joins;
    let host = |mode: &Option<String>| mode.as_deref() == Some("host");
    if service.userns_mode.as_deref() == Some("host") {
        return Some("`userns_mode: host`".to_owned());
    }
    if service.privileged.unwrap_or(false) {
        return Some("`privileged: true`".to_owned());
    }
    for (name, mode) in [("network_mode", &joins.net), ("pid", &joins.pid), ("ipc", &joins.ipc)] {
        if host(mode) {
            return Some(format!("`{name}: host`"));
        }
    }
    None
}

/// What the service has that means nothing in a user namespace.
fn needs_host(record: &Record) -> Option<String> {
    let held = caps::mask(&record.process.caps).unwrap_or_default();
    if let Some(name) = BEYOND.iter().find(|name| caps::holds(held, name)) {
        return Some(format!("the capability {name} means nothing in a user namespace"));
    }
    // Older kernels let only this machine's root set them.
    if let Some(name) = record.config.sysctls.keys().find(|name| !name.starts_with("net")) {
        return Some(format!("the kernel parameter {name} is for this machine's root to set"));
    }
    let numbers = record.process.user.split(':').chain(record.process.groups.iter().map(String::as_str));
    let beyond = numbers.filter_map(|text| text.parse::<u32>().ok()).find(|number| *number >= COUNT);
    beyond.map(|number| format!("its user or group {number} is beyond the {COUNT} ids of a stack"))
}

/// The container's ids with two of them exchanged: `owner` of this machine is `user` inside. Who would have been that
/// inside, and the root if it isn't the user, are somebody of the stack's own.
fn swapped(ids: Ids, owner: u32, user: u32) -> Vec<Extent> {
    if owner == 0 {
        return vec![ids.extent()];
    }
    let mut stored = BTreeMap::from([(0, ids.base)]);
    if owner < ids.count {
        stored.insert(owner, ids.base + owner);
    }
    stored.insert(user, owner);
    let (mut extents, mut next) = (Vec::new(), 0);
    for (inner, stored) in stored {
        if inner > next {
            extents.push(Extent { inside: next, outside: ids.base + next, count: inner - next });
        }
        extents.push(Extent { inside: stored, outside: ids.base + inner, count: 1 });
        next = inner + 1;
    }
    extents.push(Extent { inside: next, outside: ids.base + next, count: ids.count - next });
    // What is stored under a number that is somebody else's now can't be shown.
    let single: Vec<u32> = extents.iter().filter(|extent| extent.count == 1).map(|extent| extent.inside).collect();
    extents.into_iter().flat_map(|extent| without(extent, &single)).collect()
}

/// Leaves single ids out of a run, as each may be mapped once only.
fn without(extent: Extent, single: &[u32]) -> Vec<Extent> {
    if extent.count == 1 {
        return vec![extent];
    }
    let mut holes: Vec<u32> =
        single.iter().copied().filter(|id| (extent.inside..extent.inside + extent.count).contains(id)).collect();
    holes.sort_unstable();
    let (mut parts, mut next) = (Vec::new(), extent.inside);
    for hole in holes.into_iter().chain([extent.inside + extent.count]) {
        if hole > next {
            parts.push(Extent { inside: next, outside: extent.outside + (next - extent.inside), count: hole - next });
        }
        next = hole + 1;
    }
    parts
}

/// The user of this machine that a bind mount's source belongs to; none where it shows its numbers as they are.
///
/// What lies in a user's project is that user's, whatever a container did to it.
pub(crate) fn owner_of(source: &Path, project: &Path) -> Option<Pair> {
    let owner = |path: &Path| rustix::fs::stat(path).map(|stat| (stat.st_uid, stat.st_gid)).ok();
    let own = owner(source).filter(|owner| owner.0 != 0)?;
    if source.starts_with(project)
        && let Some(owner) = owner(project).filter(|owner| owner.0 != 0)
    {
        return Some(owner);
    }
    let person = |owner: &Pair| (1000..60_000).contains(&owner.0);
    Some(own).filter(person).or_else(|| source.ancestors().filter_map(owner).filter(person).last())
}

/// Makes a missing folder for a bind mount; in a user's folder it is that user's.
pub(crate) fn make_source(source: &Path) -> io::Result<()> {
    let above = source.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::stat(above)?;
    let missing: Vec<&Path> = source.ancestors().take_while(|path| *path != above).collect();
    fs::create_dir_all(source)?;
    for path in missing {
        std::os::unix::fs::lchown(path, Some(stat.st_uid), Some(stat.st_gid))?;
    }
    Ok(())
}

/// Why mounts can't be mapped here, as found once for this kernel.
fn verdict(paths: &Paths, find: impl FnOnce() -> Option<String>) -> io::Result<Option<String>> {
    let file = paths.lib.join("idmap.json");
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let known = || {
        let known: (String, Option<String>) = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
        Some(known.1).filter(|_| known.0 == kernel)
    };
    if let Some(verdict) = known() {
        return Ok(verdict);
    }
    // Containers that are made at the same time would try in each other's way.
    let _lock = Lock::exclusive(&paths.lib.join("idmap.lock"))?;
    if let Some(verdict) = known() {
        return Ok(verdict);
    }
    let verdict = find();
    write_atomic(&file, &serde_json::to_vec(&(kernel, &verdict))?, false)?;
    Ok(verdict)
}

/// The ids of a project, given to it now if it has none.
pub(crate) fn range(paths: &Paths, project: &str) -> io::Result<Ids> {
    let file = paths.lib.join("ids.json");
    let _lock = Lock::exclusive(&paths.lib.join("ids.lock"))?;
    let mut given: BTreeMap<String, u32> = match fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(e) => return Err(e),
    };
    if let Some(base) = given.get(project) {
        return Ok(Ids { base: *base, count: COUNT });
    }
    let others = foreign();
    let mut taken: Vec<u32> = given.values().copied().collect();
    let free = |taken: &[u32]| {
        let first = start(&paths.instance(), project);
        let bases = (0..RANGES).map(|step| FIRST + (first + step) % RANGES * COUNT);
        bases.into_iter().find(|base| {
            let meets = |(first, count): &(u32, u32)| *first < base + COUNT && base - first.min(base) < *count;
            !taken.contains(base) && !others.iter().any(meets)
        })
    };
    let mut base = free(&taken);
    if base.is_none() {
        given.retain(|project, _| paths.desired(project).exists());
        taken = given.values().copied().collect();
        base = free(&taken);
    }
    let base = base.ok_or_else(|| io::Error::other(format!("all {RANGES} ranges of ids are in use")))?;
    given.insert(project.to_owned(), base);
    write_atomic(&file, &serde_json::to_vec(&given)?, true)?;
    Ok(Ids { base, count: COUNT })
}

/// Where the search for a project's range begins, so that it tends to be the same again.
fn start(instance: &str, project: &str) -> u32 {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(format!("{instance}/{project}").as_bytes());
    hash.iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte)) % RANGES
}

/// Runs of ids that others have: those given to users for their own namespaces, and users.
fn foreign() -> Vec<(u32, u32)> {
    let mut runs = Vec::new();
    for file in ["/etc/subuid", "/etc/subgid"] {
        for line in fs::read_to_string(file).unwrap_or_default().lines() {
            let mut fields = line.split(':').skip(1).map(|field| field.parse().ok());
            if let (Some(Some(first)), Some(Some(count))) = (fields.next(), fields.next()) {
                runs.push((first, count));
            }
        }
    }
    for line in fs::read_to_string("/etc/passwd").unwrap_or_default().lines() {
        runs.extend(line.split(':').nth(2).and_then(|id| id.parse().ok()).map(|id| (id, 1)));
    }
    runs
}

/// Whether a mount's source belongs to a user, and who of the container that is then.
pub(crate) fn bind_owner(mount: &MountRecord, record: &Record) -> Option<Pair> {
    let project = record.labels.get("com.docker.compose.project.working_dir").map_or("/", String::as_str);
    owner_of(Path::new(&mount.source), Path::new(project)).filter(|_| project != "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: Ids = Ids { base: 1_000_000, count: 65_536 };

    fn inside(extents: &[Extent], stored: u32) -> Option<u32> {
        let found = extents.iter().find(|e| (e.inside..e.inside + e.count).contains(&stored));
        found.map(|e| e.outside + stored - e.inside - IDS.base)
    }

    #[test]
    fn an_owner_is_the_services_user_and_others_are_as_they_are() {
        let root = swapped(IDS, 1000, 0);
        assert_eq!(inside(&root, 1000), Some(0));
        assert_eq!(inside(&root, 999), Some(999));
        assert_eq!(inside(&root, IDS.base + 1000), Some(1000));
        assert_eq!(inside(&root, 0), None);
        let user = swapped(IDS, 1000, 33);
        assert_eq!((inside(&user, 1000), inside(&user, 33), inside(&user, 999)), (Some(33), None, Some(999)));
        assert_eq!(inside(&user, IDS.base), Some(0));
        let same = swapped(IDS, 1000, 1000);
        assert_eq!((inside(&same, 1000), inside(&same, 0), inside(&same, 1)), (Some(1000), None, Some(1)));
        assert_eq!(inside(&swapped(IDS, 200_000, 0), 200_000), Some(0));
        assert_eq!(swapped(IDS, 0, 33), vec![IDS.extent()]);
        for extents in [root, user, same] {
            userns::make(&extents, &extents).unwrap();
        }
    }

    #[test]
    fn what_is_possible_is_tried_once() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(Some(folder.path())).unwrap();
        fs::create_dir_all(&paths.lib).unwrap();
        let tries = std::sync::atomic::AtomicU32::new(0);
        let find = || {
            tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::thread::park_timeout(std::time::Duration::from_millis(20));
            Some("no".to_owned())
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(verdict(&paths, find).unwrap().as_deref(), Some("no")));
            }
        });
        assert_eq!(tries.into_inner(), 1);
    }

    /// M14: whoever asks at the same time, no two stacks get the same ids, nor those of anybody else.
    #[test]
    fn m14_ranges_are_disjoint() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(Some(folder.path())).unwrap();
        fs::create_dir_all(&paths.lib).unwrap();
        let bases: Vec<u32> = std::thread::scope(|scope| {
            let ask = |worker: u32| {
                let paths = paths.clone();
                scope.spawn(move || {
                    (0..125).map(|n| range(&paths, &format!("p{worker}-{n}")).unwrap().base).collect::<Vec<_>>()
                })
            };
            let workers: Vec<_> = (0..8).map(ask).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        let unique: std::collections::BTreeSet<u32> = bases.iter().copied().collect();
        assert_eq!((bases.len(), unique.len()), (1000, 1000));
        assert!(bases.iter().all(|base| base % COUNT == 0 && *base >= FIRST));
        assert_eq!(range(&paths, "p3-7").unwrap().base, range(&paths, "p3-7").unwrap().base);
        for (first, count) in foreign() {
            assert!(bases.iter().all(|base| first >= base + COUNT || first + count <= *base));
        }
    }
}
