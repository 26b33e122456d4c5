//! Pulls under hardship: killed anywhere, on a full disk, with too few open files, interrupted, after a power cut.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use rustix::fs::XattrFlags;

use crate::poll::until_true;
use crate::registry::{AT, Registry};
use crate::sandbox::{Ran, STACK, Sandbox};
use crate::store;

/// Makes an image of a layout and brings it to the registry, as it is; its name.
pub(crate) fn publish(sandbox: &Sandbox, what: &str) -> String {
    let kind = what.split(' ').next().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/layout.py");
    let name = format!("{AT}/lib/{kind}:1");
    let copy = "skopeo copy -q --all --preserve-digests --dest-tls-verify=false";
    sandbox
        .shell(
            &[],
            &format!("rm -rf {kind} && python3 {script} {kind} {what} && {copy} oci:{kind}:{kind} docker://{name}"),
        )
        .ok();
    name
}

/// `stack image pull` into a root of its own.
fn pull(sandbox: &Sandbox, root: &Path, name: &str, fault: &str) -> Ran {
    let root = root.to_str().unwrap();
    sandbox.stack_env(&[("STACK_ROOT", root), ("STACK_FAULT", fault)], &format!("image pull {name}"))
}

#[test]
fn whatever_kills_a_pull_the_next_one_completes_it() {
    const LAYERS: usize = 2;
    let sandbox = Sandbox::new();
    let _registry = Registry::start(&sandbox, "", "");
    let name = publish(&sandbox, &format!("plain {LAYERS} 400000"));
    let (whole, trace) = (sandbox.path("whole"), sandbox.path("trace"));
    pull(&sandbox, &whole, &name, &format!("trace@{}", trace.display())).ok();
    assert_eq!(store::check(&whole), Ok((1, LAYERS)));
    let expected = store::layers(&whole);
    let points = fs_err::read_to_string(&trace).unwrap().lines().count();
    assert!(points > 25, "{points} points");
    for (kind, code) in [("kill", 128 + 9), ("err", 1)] {
        // A write that fails is handled alike wherever it is.
        for point in (1..=points).step_by(if kind == "kill" { 1 } else { 3 }) {
            let root = sandbox.path(&format!("{kind}{point}"));
            let place = format!("{kind} at point {point} of {points}");
            let ran = pull(&sandbox, &root, &name, &format!("{kind}@command:{point}"));
            assert_eq!(ran.code, code, "{place}: {ran}");
            if kind == "err" {
                assert!(
                    ran.err.contains("not enough space") || ran.err.contains("No space left on device"),
                    "{place}: {ran}"
                );
                assert!(ran.err.contains("make room"), "{place}: {ran}");
                // Unless the store itself could not be made.
                if root.join("lib/images/index.json").exists() {
                    store::check(&root).unwrap_or_else(|why| panic!("{place}: {why}\n{ran}"));
                }
            }
            let again = pull(&sandbox, &root, &name, "off");
            assert_eq!(again.code, 0, "{place}: the next {again}");
            assert_eq!(store::check(&root), Ok((1, LAYERS)), "{place}");
            assert_eq!(store::partial(&root), 0, "{place}");
            assert_eq!(store::layers(&root), expected, "{place}");
            fs_err::remove_dir_all(root).unwrap();
        }
    }
}

/// A small file system, gone at the end.
struct Small(PathBuf);

impl Small {
    fn mount(path: PathBuf, options: &str) -> Small {
        fs_err::create_dir_all(&path).unwrap();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
        Small(path)
    }

    fn resize(&self, options: &str) {
        mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT, Some(options)).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// The number in front of a text.
fn number_before(text: &str, what: &str) -> u64 {
    let (before, _) = text.split_once(what).unwrap_or_else(|| panic!("{what:?} in {text}"));
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_full_disk_ends_a_pull_clearly_and_room_heals_it() {
    let sandbox = Sandbox::new();
    let _registry = Registry::start(&sandbox, "", "");
    // Bytes that don't compress: 12 MB of blobs, and as much unpacked.
    let name = publish(&sandbox, "plain 3 4000000");
    let small = Small::mount(sandbox.root(), "size=8m");
    let words = format!("image pull {name}");

    let refused = sandbox.stack(&words).fails(&["not enough space in ", "make room"]);
    assert_eq!(number_before(&refused.err, " bytes more are needed") / 1_000_000, 12, "{refused}");
    assert_eq!(store::partial(&sandbox.root()), 0, "nothing is fetched that can't fit");

    // The blobs fit, and some of what they hold.
    small.resize("size=18m");
    let broken = sandbox.stack(&words).fails(&["not enough space in ", "make room"]);
    let (needed, free) =
        (number_before(&broken.err, " bytes more are needed"), number_before(&broken.err, " are free"));
    assert!(free < needed && (1..=4_100_000).contains(&needed), "{broken}");
    let (images, _) = store::check(&sandbox.root()).unwrap();
    assert_eq!(images, 0);
    sandbox.stack("image ls").ok();

    small.resize("size=40m");
    let pulled = sandbox.stack(&words).ok();
    assert!(pulled.err.contains("from before") || pulled.err.contains("Already there"), "{pulled}");
    assert_eq!(store::check(&sandbox.root()), Ok((1, 3)));
    assert_eq!(store::partial(&sandbox.root()), 0);

    // An archive, too, is taken whole or not at all.
    sandbox.stack(&format!("image save {name} -o ../saved.tar")).ok();
    sandbox.stack("image prune -af").ok();
    small.resize("size=6m");
    let load = "image load -i ../saved.tar";
    let broken = sandbox.stack(load).fails(&["not enough space in ", "bytes more are needed", "make room"]);
    assert!(number_before(&broken.err, " bytes more are needed") <= 4_100_000, "{broken}");
    sandbox.stack("image prune -f").ok();
    assert_eq!(store::check(&sandbox.root()), Ok((0, 0)));
    small.resize("size=40m");
    sandbox.stack(load).ok();
    assert_eq!(store::check(&sandbox.root()), Ok((1, 0)));
}

/// Files want room, too, even those without data.
#[test]
fn a_disk_that_takes_no_more_files_breaks_nothing() {
    let sandbox = Sandbox::new();
    let _registry = Registry::start(&sandbox, "", "");
    let name = publish(&sandbox, "plain 3 20000");
    let small = Small::mount(sandbox.root(), "size=10m,nr_inodes=4");
    let mut failed = 0;
    for inodes in 5.. {
        small.resize(&format!("size=10m,nr_inodes={inodes}"));
        let ran = sandbox.stack(&format!("image pull {name}"));
        if ran.code == 0 {
            break;
        }
        failed += 1;
        let said = ["No space left on device", "inodes are used up"].iter().any(|said| ran.err.contains(said));
        assert!(said, "{inodes}: {ran}");
        if sandbox.root().join("lib/images/index.json").exists() {
            assert_eq!(store::check(&sandbox.root()).map(|(images, _)| images), Ok(0), "{inodes}: {ran}");
        }
    }
    assert!(failed > 15, "{failed} pulls failed");
    assert_eq!(store::check(&sandbox.root()), Ok((1, 3)));
}

#[test]
fn too_few_open_files_break_nothing() {
    let sandbox = Sandbox::new();
    let _registry = Registry::start(&sandbox, "", "");
    let name = publish(&sandbox, "plain 6 20000");
    let mut failed = 0;
    for limit in (4..64).step_by(4) {
        let line = format!("ulimit -n {limit}; exec {STACK} image pull {name}");
        let ran = sandbox.shell(&[], &line);
        failed += usize::from(ran.code != 0);
        assert!(ran.code == 0 || ran.err.contains("Too many open files"), "{limit}: {ran}");
        if sandbox.root().join("lib/images/index.json").exists() {
            let (images, _) = store::check(&sandbox.root()).unwrap_or_else(|why| panic!("{limit}: {why}\n{ran}"));
            assert_eq!(images, usize::from(ran.code == 0), "{limit}: {ran}");
        }
    }
    assert!(failed >= 3, "{failed} pulls failed");
    sandbox.stack(&format!("image pull {name}")).ok();
    assert_eq!(store::check(&sandbox.root()), Ok((1, 6)));
}

/// After a power cut a layer may have its name and not all of its content.
#[test]
fn a_layer_that_a_power_cut_tore_is_unpacked_anew() {
    let sandbox = Sandbox::with("services: { app: { image: one, command: [cat, /data] } }");
    sandbox.busybox_tar();
    sandbox.file("rootfs/data", "all of it");
    sandbox.shell(&[], "tar -C rootfs -cf one.tar . && cd rootfs").ok();
    sandbox.stack("image import one.tar one").ok();
    sandbox.stack("up").ok();
    let all = sandbox.root().join("lib/layers");
    let layer = fs_err::read_dir(&all).unwrap().map(|entry| entry.unwrap().path());
    let layer = layer.into_iter().find(|path| path.join("data").exists()).unwrap();
    until_true("the supervisor has synced the layer", || !store::is_marked(&layer));
    let tear = || fs_err::write(layer.join("data"), "").unwrap();
    let cut = || rustix::fs::setxattr(&layer, store::MARK, b"another boot", XattrFlags::empty()).unwrap();

    // It was on the disk: nobody looks at it again.
    tear();
    sandbox.stack("down").ok();
    assert!(!sandbox.stack("up --no-log-prefix").ok().out.contains("all of it"));
    sandbox.stack("down").ok();
    // It was not, and the machine was started since.
    cut();
    let ran = sandbox.stack("up --no-log-prefix").ok();
    assert!(ran.out.contains("all of it"), "{ran}");
    sandbox.stack("down").ok();

    // What was pulled and not used yet: its blob was synced, so the registry isn't needed again.
    let registry = Registry::start(&sandbox, "", "");
    let name = format!("{AT}/lib/one:1");
    sandbox.stack(&format!("image tag one {name}")).ok();
    sandbox.stack(&format!("image push {name}")).ok();
    sandbox.stack("image prune -af").ok();
    assert!(!layer.exists());
    sandbox.stack(&format!("image pull {name}")).ok();
    drop(registry);
    assert!(store::is_marked(&layer), "a pull doesn't wait for the disk");
    sandbox.stack(&format!("image tag {name} one")).ok();
    tear();
    cut();
    let ran = sandbox.stack("up --no-log-prefix").ok();
    assert!(ran.out.contains("all of it"), "{ran}");
    until_true("the supervisor has synced the layer", || !store::is_marked(&layer));
    sandbox.stack("down").ok();
}

/// SIGINT at many moments: the longest time that anything takes to end.
#[test]
fn an_interrupt_ends_everything_about_images_at_once() {
    const LIMIT: Duration = Duration::from_millis(200);
    let sandbox = Sandbox::with("services: { app: { build: ., image: built } }");
    let _registry = Registry::start(&sandbox, "", "");
    let name = publish(&sandbox, "plain 3 8000000");
    sandbox.stack(&format!("image pull {name}")).ok();
    sandbox.stack(&format!("image save {name} -o saved.tar")).ok();
    sandbox.stack(&format!("image tag {name} {AT}/lib/other:1")).ok();
    sandbox.file("Dockerfile", "FROM scratch\nADD saved.tar /\n");
    let mut worst = Vec::new();
    let (push, pull) = (format!("image push {AT}/lib/other:1"), format!("image pull {name}"));
    for words in [push.as_str(), &pull, "image load -i saved.tar", "build"] {
        let (mut interrupted, mut longest) = (0, Duration::ZERO);
        for moment in [5, 20, 60, 120, 250] {
            if words != push {
                sandbox.stack("image prune -af").ok();
            }
            let running = sandbox.start(words);
            std::thread::sleep(Duration::from_millis(moment));
            let asked = Instant::now();
            running.signal(Signal::SIGINT);
            let ran = running.finish();
            longest = longest.max(asked.elapsed());
            interrupted += usize::from(ran.code == 130);
            assert!([0, 130].contains(&ran.code), "{ran}");
        }
        assert!(interrupted > 0, "{words} was never interrupted");
        worst.push((longest, words));
    }
    worst.sort();
    // A machine on which many tests run at once takes its time.
    assert!(worst.iter().filter(|(longest, _)| *longest > LIMIT).count() <= 1 && worst[3].0 < 5 * LIMIT, "{worst:?}");
    sandbox.stack("image prune -af").ok();
    store::check(&sandbox.root()).unwrap();
}
