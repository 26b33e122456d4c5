//! The store as a whole, with real overlay mounts (as root).

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use fs_err as fs;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use tempfile::TempDir;

use super::tar::{Entry, Kind, Time, Writer};
use super::*;

fn store() -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, store)
}

/// Collects where no container is.
fn collector(store: &Store) -> Collector<'_> {
    store.collector(|| Ok(Vec::new())).unwrap()
}

fn member(name: &str, kind: Kind, mode: u32) -> Entry {
    let mtime = Time { seconds: 1_700_000_000, nanos: 0 };
    Entry { name: name.into(), kind, mode, uid: 0, gid: 0, mtime, xattrs: Vec::new(), size: 0, sparse: None }
}

/// An archive of directories (names ending in `/`) and files.
fn archive(members: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in members {
        let (kind, mode) = if name.ends_with('/') { (Kind::Directory, 0o755) } else { (Kind::File, 0o644) };
        writer.entry(&Entry { size: content.len() as u64, ..member(name, kind, mode) }).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn import(store: &Store, name: &str, members: &[(&str, &str)]) -> Image {
    store.import(archive(members).as_slice(), Some(&reference(name)), &[]).unwrap()
}

fn read(root: &OwnedFd, path: &str) -> Option<String> {
    let file = rustix::fs::openat(root, path, OFlags::RDONLY, Mode::empty()).ok()?;
    let mut text = String::new();
    std::fs::File::from(file).read_to_string(&mut text).unwrap();
    Some(text)
}

fn write(root: &OwnedFd, path: &str, content: &str) {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    let file = rustix::fs::openat(root, path, flags, Mode::from_raw_mode(0o640)).unwrap();
    std::fs::File::from(file).write_all(content.as_bytes()).unwrap();
}

struct Work(TempDir);

impl Work {
    fn new(beside: &TempDir) -> Work {
        let work = tempfile::tempdir_in(beside.path()).unwrap();
        fs::create_dir(work.path().join("upper")).unwrap();
        fs::create_dir(work.path().join("work")).unwrap();
        Work(work)
    }

    fn mount(&self, store: &Store, image: &Image) -> OwnedFd {
        let (upper, work) = (self.upper(), self.0.path().join("work"));
        store.rootfs(image, Some(Writable { upper: &upper, work: &work, volatile: true })).unwrap().mount
    }

    fn upper(&self) -> std::path::PathBuf {
        self.0.path().join("upper")
    }
}

#[test]
fn an_imported_image_is_found_and_mounted() {
    let (_directory, store) = store();
    let changes = ["CMD [\"/hello\"]".to_owned(), "ENV A=b".to_owned()];
    let tar = zstd::encode_all(archive(&[("d/", ""), ("d/f", "hello")]).as_slice(), 1).unwrap();
    let image = store.import(tar.as_slice(), Some(&reference("base:1")), &changes).unwrap();
    assert_eq!(image.config.config.cmd.as_deref(), Some(&["/hello".to_owned()][..]));
    assert_eq!(image.layers[0].media_type, "application/vnd.oci.image.layer.v1.tar+zstd");
    for text in ["base:1", "docker.io/library/base:1", &image.id.to_string(), &image.id.hex(), &image.id.short()] {
        assert_eq!(store.find(text).unwrap().as_ref(), Some(&image), "{text}");
    }
    assert_eq!(store.find(&format!("base@{}", image.digest)).unwrap().as_ref(), Some(&image));
    assert_eq!(store.find("base").unwrap(), None);
    assert_eq!(store.find("other:1").unwrap(), None);
    assert!(store.find("Bad Name").is_err());

    let rootfs = store.rootfs(&image, None).unwrap();
    assert_eq!(read(&rootfs.mount, "d/f").as_deref(), Some("hello"));
    let refused = rustix::fs::openat(&rootfs.mount, "new", OFlags::WRONLY | OFlags::CREATE, Mode::RWXU);
    assert_eq!(refused.unwrap_err(), rustix::io::Errno::ROFS);
    let row = &store.list().unwrap()[0];
    assert_eq!((row.id, row.size, row.name.clone()), (image.id, image.layers[0].size, Some(reference("base:1"))));
}

#[test]
fn what_a_container_changed_becomes_a_layer() {
    let (directory, store) = store();
    let base =
        import(&store, "base", &[("d/", ""), ("d/gone", "x"), ("d/kept", "y"), ("e/", ""), ("e/old", "z"), ("f", "1")]);
    let work = Work::new(&directory);
    let mount = work.mount(&store, &base);
    write(&mount, "f", "2");
    write(&mount, "new", "n");
    rustix::fs::linkat(&mount, "new", &mount, "twin", AtFlags::empty()).unwrap();
    rustix::fs::unlinkat(&mount, "d/gone", AtFlags::empty()).unwrap();
    rustix::fs::unlinkat(&mount, "e/old", AtFlags::empty()).unwrap();
    rustix::fs::unlinkat(&mount, "e", AtFlags::REMOVEDIR).unwrap();
    rustix::fs::mkdirat(&mount, "e", Mode::RWXU).unwrap();
    drop(mount);
    let diff_ids = base.config.rootfs.diff_ids.clone();
    let layer = store.add_layer_from_upper(&diff_ids, &work.upper()).unwrap().unwrap();
    let layers = [base.layers.clone(), vec![layer.clone()]].concat();
    let image = store.put_image(&base.config, &layers, &[reference("built")]).unwrap();
    assert_eq!(image.config.rootfs.diff_ids.len(), 2);

    let check = |store: &Store| {
        let root = store.rootfs(&store.find("built").unwrap().unwrap(), None).unwrap().mount;
        assert_eq!(read(&root, "f").as_deref(), Some("2"));
        assert_eq!(read(&root, "twin").as_deref(), Some("n"));
        assert_eq!(read(&root, "d/kept").as_deref(), Some("y"));
        assert_eq!((read(&root, "d/gone"), read(&root, "e/old")), (None, None));
        let of = |name| rustix::fs::statat(&root, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        assert_eq!(of("new").st_ino, of("twin").st_ino);
        assert_eq!(of("new").st_mode & 0o777, 0o640);
        assert_eq!(of(".").st_mode & 0o7777, 0o755);
    };
    check(&store);
    // The same from the blob alone.
    let layers = directory.path().join("layers");
    for entry in fs::read_dir(&layers).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        }
    }
    check(&store);
    assert!(!work.upper().exists());

    let idle = Work::new(&directory);
    drop(idle.mount(&store, &image));
    assert_eq!(store.add_layer_from_upper(&image.config.rootfs.diff_ids, &idle.upper()).unwrap(), None);
}

#[test]
fn directories_without_an_entry_look_as_in_the_layer_below() {
    let (_directory, store) = store();
    let mut writer = Writer::new(Vec::new());
    writer.entry(&Entry { uid: 5, ..member("d/", Kind::Directory, 0o1777) }).unwrap();
    writer.entry(&Entry { size: 1, ..member("d/f", Kind::File, 0o600) }).unwrap();
    writer.write_all(b"x").unwrap();
    let base = store.add_layer_from_tar(writer.finish().unwrap().as_slice()).unwrap();
    let mut writer = Writer::new(Vec::new());
    writer.entry(&member("d/g", Kind::Fifo, 0o600)).unwrap();
    writer.entry(&member("d/linked", Kind::Hardlink(b"d/f".to_vec()), 0o600)).unwrap();
    let top = store.add_layer_from_tar(writer.finish().unwrap().as_slice()).unwrap();
    let image = store.put_image(&ImageConfig::scratch(), &[base, top], &[]).unwrap();
    let root = store.rootfs(&image, None).unwrap().mount;
    let stat = rustix::fs::statat(&root, "d", AtFlags::empty()).unwrap();
    assert_eq!((stat.st_mode & 0o7777, stat.st_uid, stat.st_mtime), (0o1777, 5, 1_700_000_000));
    assert_eq!(read(&root, "d/linked").as_deref(), Some("x"));
}

#[test]
fn attributes_survive_both_ways() {
    let (directory, store) = store();
    let capability = [&[1, 0, 0, 2][..], &[0, 4, 0, 0], &[0; 12]].concat();
    let mut writer = Writer::new(Vec::new());
    let xattrs = vec![
        (b"security.capability".to_vec(), capability.clone()),
        (b"user.note".to_vec(), b"n".to_vec()),
        (b"trusted.x".to_vec(), vec![1]),
    ];
    writer.entry(&Entry { uid: 33, gid: 44, xattrs, ..member("ping", Kind::File, 0o4755) }).unwrap();
    writer.entry(&Entry { uid: 7, ..member("link", Kind::Symlink(b"/nowhere".to_vec()), 0o777) }).unwrap();
    writer.entry(&member("null", Kind::Char { major: 1, minor: 3 }, 0o666)).unwrap();
    let image = store.import(writer.finish().unwrap().as_slice(), None, &[]).unwrap();
    let work = Work::new(&directory);
    let mount = work.mount(&store, &image);
    rustix::fs::chownat(&mount, "link", Some(rustix::fs::Uid::from_raw(8)), None, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    write(&mount, "ping", "");
    drop(mount);
    let layer = store.add_layer_from_upper(&image.config.rootfs.diff_ids, &work.upper()).unwrap().unwrap();
    let image = store.put_image(&image.config, &[image.layers[0].clone(), layer], &[]).unwrap();
    let root = store.rootfs(&image, None).unwrap().mount;
    let stat = rustix::fs::statat(&root, "null", AtFlags::SYMLINK_NOFOLLOW).unwrap();
    assert_eq!(
        (FileType::from_raw_mode(stat.st_mode), stat.st_rdev),
        (FileType::CharacterDevice, rustix::fs::makedev(1, 3))
    );
    let ping = rustix::fs::openat(&root, "ping", OFlags::RDONLY, Mode::empty()).unwrap();
    let stat = rustix::fs::fstat(&ping).unwrap();
    // Writing takes set-id bits and capabilities away, as on any file system.
    assert_eq!((stat.st_uid, stat.st_gid), (33, 44));
    assert_eq!(pack::xattrs(ping.as_fd()).unwrap(), [(b"user.note".to_vec(), b"n".to_vec())]);
    let link = rustix::fs::statat(&root, "link", AtFlags::SYMLINK_NOFOLLOW).unwrap();
    assert_eq!(link.st_uid, 8);
}

#[test]
fn names_move_and_content_goes_with_the_last() {
    let (directory, store) = store();
    let first = import(&store, "app", &[("f", "1")]);
    store.tag(&first, &reference("also")).unwrap();
    let second = import(&store, "app", &[("f", "2")]);
    assert_eq!(store.find("app").unwrap().unwrap().id, second.id);
    assert_eq!(store.find("also").unwrap().unwrap().names, [reference("also")]);
    drop(store.rootfs(&first, None).unwrap());

    let used = store.collector(|| Ok(vec![first.id])).unwrap();
    assert!(matches!(used.remove("also", false), Err(Error::InUse(_))));
    let removed = used.remove("also", true).unwrap();
    assert_eq!((removed.untagged, removed.images), (vec![reference("also")], vec![]));
    assert!(store.find(&first.id.hex()).unwrap().is_some());
    assert!(matches!(used.remove(&first.id.hex(), true), Err(Error::InUse(_))));
    drop(used);

    let lease = store.lease().unwrap();
    let shared = collector(&store);
    assert_eq!(shared.remove(&first.id.short(), false).unwrap(), Removed::default());
    assert!(shared.prune(true, None).unwrap().is_none() && store.find(&first.id.hex()).unwrap().is_some());
    drop((lease, shared));
    assert!(collector(&store).prune(false, None).unwrap().unwrap().freed > 0);
    assert_eq!(store.find(&first.id.hex()).unwrap(), None);
    assert_eq!(read(&store.rootfs(&second, None).unwrap().mount, "f").as_deref(), Some("2"));
    let alone = collector(&store);
    let removed = alone.remove("app", false).unwrap();
    assert_eq!(removed.images, [second.id]);
    let blobs = fs::read_dir(directory.path().join("images/blobs/sha256")).unwrap().count();
    assert_eq!((blobs, store.list().unwrap().len()), (0, 0));
    assert!(matches!(alone.remove("app", false), Err(Error::NotFound(_))));
}

#[test]
fn a_failed_unpack_leaves_nothing_and_says_why() {
    let (directory, store) = store();
    let bad = archive(&[("ok", "x"), ("../out", "y")]);
    let layer = store.add_layer_from_tar(bad.as_slice()).unwrap();
    let image = store.put_image(&ImageConfig::scratch(), std::slice::from_ref(&layer), &[]).unwrap();
    let error = store.rootfs(&image, None).unwrap_err().to_string();
    assert!(error.contains("../out") && error.contains("leads out"), "{error}");
    let forged =
        Layer { diff_id: Digest::of(b"other"), ..store.add_layer_from_tar(archive(&[("a", "")]).as_slice()).unwrap() };
    let image = store.put_image(&ImageConfig::scratch(), &[forged], &[]).unwrap();
    assert!(matches!(store.rootfs(&image, None), Err(Error::Mismatch { .. })));
    let left: Vec<_> = fs::read_dir(directory.path().join("layers")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, [".lock"]);
    let missing = Layer { digest: Digest::of(b"missing"), ..layer };
    assert!(matches!(store.put_image(&ImageConfig::scratch(), &[missing], &[]), Err(Error::MissingBlob(_))));
}

#[test]
fn many_threads_unpack_a_layer_once() {
    let (directory, store) = store();
    let files: Vec<(String, String)> = (0..500).map(|i| (format!("f{i}"), i.to_string())).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
    let image = import(&store, "many", &files);
    let inode = || {
        // Each has its own store, as processes have.
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(read(&store.rootfs(&image, None).unwrap().mount, "f499").as_deref(), Some("499"));
        let layer = directory.path().join("layers").join(image.layers[0].diff_id.hex());
        fs::metadata(layer).unwrap().ino()
    };
    let inodes: Vec<u64> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(inode)).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(inodes.iter().all(|inode| *inode == inodes[0]));
}

#[test]
fn an_image_of_many_layers_is_mounted() {
    let (_directory, store) = store();
    let layers: Vec<Layer> = (0..140)
        .map(|i| {
            store.add_layer_from_tar(archive(&[(&format!("f{i}"), "x"), ("last", &i.to_string())]).as_slice()).unwrap()
        })
        .collect();
    let image = store.put_image(&ImageConfig::scratch(), &layers, &[]).unwrap();
    let root = store.rootfs(&image, None).unwrap().mount;
    assert_eq!(read(&root, "last").as_deref(), Some("139"));
    assert_eq!(read(&root, "f0").as_deref(), Some("x"));
}

#[test]
fn an_image_without_layers_is_empty() {
    let (directory, store) = store();
    let image = store.put_image(&ImageConfig::scratch(), &[], &[reference("empty")]).unwrap();
    assert!(
        tree::list(tree::open(store.rootfs(&image, None).unwrap().mount.as_fd(), b".").unwrap().as_fd())
            .unwrap()
            .is_empty()
    );
    let work = Work::new(&directory);
    write(&work.mount(&store, &image), "f", "x");
}

#[test]
fn a_directory_is_copied_into_a_volume() {
    let (directory, store) = store();
    let mut writer = Writer::new(Vec::new());
    writer.entry(&Entry { uid: 9, gid: 10, ..member("data/", Kind::Directory, 0o2750) }).unwrap();
    writer.entry(&Entry { uid: 9, size: 1, ..member("data/a", Kind::File, 0o600) }).unwrap();
    writer.write_all(b"x").unwrap();
    writer.entry(&member("data/b", Kind::Hardlink(b"data/a".to_vec()), 0)).unwrap();
    writer.entry(&member("data/out", Kind::Symlink(b"/etc/passwd".to_vec()), 0o777)).unwrap();
    writer.entry(&member("data/deep/er/", Kind::Directory, 0o700)).unwrap();
    writer.entry(&member("alias", Kind::Symlink(b"/data".to_vec()), 0o777)).unwrap();
    writer.entry(&member("escape", Kind::Symlink(b"/../../../../etc".to_vec()), 0o777)).unwrap();
    let image = store.import(writer.finish().unwrap().as_slice(), None, &[]).unwrap();
    for (path, volume) in [("/data", "v1"), ("/alias", "v2")] {
        let volume = directory.path().join(volume);
        fs::create_dir(&volume).unwrap();
        assert!(store.copy_up(&image, path, &volume).unwrap());
        let root = fs::metadata(&volume).unwrap();
        assert_eq!((root.mode() & 0o7777, root.uid(), root.gid(), root.mtime()), (0o2750, 9, 10, 1_700_000_000));
        let file = fs::metadata(volume.join("a")).unwrap();
        assert_eq!((file.uid(), file.mode() & 0o777, file.nlink(), file.mtime()), (9, 0o600, 2, 1_700_000_000));
        assert_eq!(fs::read_link(volume.join("out")).unwrap(), Path::new("/etc/passwd"));
        assert!(volume.join("deep/er").is_dir());
    }
    let volume = directory.path().join("v3");
    fs::create_dir(&volume).unwrap();
    for path in ["/nothing", "/data/a", "/escape"] {
        assert!(!store.copy_up(&image, path, &volume).unwrap(), "{path}");
    }
}

#[test]
fn this_machine_is_an_image() {
    let (directory, store) = store();
    let image = store.find("stack/host").unwrap().unwrap();
    assert!(image.host);
    assert_eq!(store.find(&image.id.hex()).unwrap().as_ref(), Some(&image));
    let rootfs = store.rootfs(&image, None).unwrap();
    assert!(read(&rootfs.mount, "etc/passwd").unwrap().starts_with("root:x:0:0:"));
    assert_eq!(read(&rootfs.mount, "etc/shadow"), None);
    let mode = |path| rustix::fs::statat(&rootfs.mount, path, AtFlags::SYMLINK_NOFOLLOW).unwrap().st_mode & 0o7777;
    assert_eq!((mode("tmp"), mode("root"), mode("var/tmp"), mode(".")), (0o1777, 0o700, 0o1777, 0o755));
    assert_eq!(rootfs.binds[0].1, "/usr");
    let usr = &rootfs.binds[0].0;
    assert!(rustix::fs::statat(usr, "bin/env", AtFlags::empty()).is_ok());
    let refused = rustix::fs::openat(usr, "new", OFlags::WRONLY | OFlags::CREATE, Mode::RWXU);
    assert_eq!(refused.unwrap_err(), rustix::io::Errno::ROFS);

    // And one can be built on it.
    let work = Work::new(&directory);
    write(&work.mount(&store, &image), "etc/motd", "hi");
    let layer = store.add_layer_from_upper(&image.config.rootfs.diff_ids, &work.upper()).unwrap().unwrap();
    let layers = [image.layers.clone(), vec![layer]].concat();
    let built = store.put_image(&image.config, &layers, &[reference("mine")]).unwrap();
    assert!(built.host);
    let rootfs = store.rootfs(&store.find("mine").unwrap().unwrap(), None).unwrap();
    assert_eq!(read(&rootfs.mount, "etc/motd").as_deref(), Some("hi"));
    assert!(read(&rootfs.mount, "etc/passwd").is_some());
    assert_eq!(rootfs.binds.len(), 1 + usize::from(Path::new("/usr/local").is_dir()));

    let name = reference("stack/host");
    assert!(store.tag(&built, &name).is_err() && collector(&store).remove("stack/host", false).is_err());
    assert!(store.put_image(&built.config, &built.layers, &[name]).is_err());
}

#[test]
fn looking_up_again_reads_nothing_but_notices_others() {
    let (directory, store) = store();
    let image = import(&store, "a", &[("f", "1")]);
    assert_eq!(store.find("a").unwrap().as_ref(), Some(&image));
    // What was read by digest is kept, so it may even be gone.
    fs::remove_file(directory.path().join("images/blobs/sha256").join(image.id.hex())).unwrap();
    assert_eq!(store.find("a").unwrap().as_ref(), Some(&image));
    let other = import(&Store::open(directory.path()).unwrap(), "a", &[("f", "2")]);
    assert_eq!(store.find("a").unwrap().unwrap().id, other.id);
}
