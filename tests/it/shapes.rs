//! Images of every shape that is seen in the world, pulled from a registry.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::pulls::publish;
use crate::registry::{AT, Registry, run};
use crate::sandbox::Sandbox;

/// The layer that has a file.
fn layer_with(sandbox: &Sandbox, file: &str) -> PathBuf {
    let all = fs_err::read_dir(sandbox.root().join("lib/layers")).unwrap().map(|entry| entry.unwrap().path());
    all.into_iter().find(|layer| layer.join(file).symlink_metadata().is_ok()).unwrap()
}

fn attribute(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 100];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
    value.truncate(length);
    value
}

/// Hard links across layers, whiteouts, opaque directories, attributes, capabilities, access lists, devices, sparse files,
/// long names, an empty layer; gzip, zstd and plain layers; OCI's manifest and Docker's.
#[test]
fn every_shape_arrives_as_it_was_meant() {
    let sandbox = Sandbox::with(&format!(
        "services: {{ app: {{ image: \"{AT}/lib/shapes:1\", init: true, command: [sleep, inf] }} }}"
    ));
    let _registry = Registry::start(&sandbox, "", "");
    let name = publish(&sandbox, "shapes");
    sandbox.stack("up -d").ok();
    let inside = |text: &str| sandbox.inside("app", text);
    assert_eq!(inside("cat /linked; ls /a /a/old"), "from below/a:\nkept\nold\n\n/a/old:\nnew");
    assert_eq!(inside("stat -c '%a %u:%g %h' /target /linked"), "4755 1234:5678 1\n4755 1234:5678 1");
    assert_eq!(inside("stat -c '%a %Y' /a"), "1777 1700000000");
    assert_eq!(inside("cat /$(cd /; echo nnn*)/n*/n*/n*/n*/n*/n*/n*/n*/n*/n*/n*"), "deep");
    let layer = layer_with(&sandbox, "capable");
    assert_eq!(attribute(&layer.join("capable"), "security.capability")[..6], [1, 0, 0, 2, 0, 4]);
    assert_eq!(attribute(&layer.join("noted"), "user.note"), b"kept");
    assert_eq!(attribute(&layer.join("listed"), "system.posix_acl_access").len(), 4 + 5 * 8);
    let stat = |path: &str| fs_err::symlink_metadata(layer.join(path)).unwrap();
    let (char, block) = (stat("nodes/char"), stat("nodes/block"));
    assert!(
        char.file_type().is_char_device() && char.rdev() == rustix::fs::makedev(1, 3) && char.mode() & 0o777 == 0o666
    );
    assert!(block.file_type().is_block_device() && block.rdev() == rustix::fs::makedev(7, 99));
    assert!(stat("nodes/fifo").file_type().is_fifo());
    assert_eq!(fs_err::read_link(layer.join("far")).unwrap().as_os_str().len(), 3000);
    assert_eq!((stat("fraction").mtime(), stat("fraction").mtime_nsec()), (1_600_000_000, 250_000_000));
    for form in ["gnu", "pax"] {
        let file = format!("{form}-sparse");
        let stat = fs_err::metadata(layer_with(&sandbox, &file).join(&file)).unwrap();
        assert_eq!(stat.size(), 64 << 20);
        assert!(stat.blocks() * 512 < 1 << 20, "{form}: {} blocks", stat.blocks());
        assert_eq!(inside(&format!("dd if=/{file} bs=1024 skip=5120 count=1 2>&- | head -c 6")), "island");
    }
    sandbox.stack("down -t 0").ok();

    // The same in Docker's own form, which has gzip only; and there and back by us.
    publish(&sandbox, "shapes gzip");
    let other = format!("{AT}/lib/other:2");
    let flags = "copy -q --src-tls-verify=false --dest-tls-verify=false --format v2s2";
    run(&sandbox, "skopeo", &format!("{flags} docker://{name} docker://{other}"));
    sandbox.stack("image prune -af").ok();
    sandbox.stack(&format!("image pull {name}")).ok();
    let raw = run(&sandbox, "skopeo", &format!("inspect --raw --tls-verify=false docker://{other}"));
    assert!(raw.contains("application/vnd.docker.distribution.manifest.v2+json"), "{raw}");
    let before = crate::store::layers(&sandbox.root());
    sandbox.stack("image prune -af").ok();
    sandbox.stack(&format!("image pull {other}")).ok();
    assert_eq!(crate::store::layers(&sandbox.root()), before);
    let third = format!("{AT}/lib/third:3");
    sandbox.stack(&format!("image tag {other} {third}")).ok();
    // Its blobs are there already, in the other repository.
    let pushed = sandbox.stack(&format!("image push {third}")).ok();
    assert!(pushed.err.matches("Already there").count() == 6, "{pushed}");
    assert_eq!(
        raw.trim(),
        run(&sandbox, "skopeo", &format!("inspect --raw --tls-verify=false docker://{third}")).trim()
    );
}

/// `platform:` and `--platform` choose from an index, the variant included.
#[test]
fn an_index_has_one_for_each_machine() {
    let sandbox = Sandbox::new();
    let _registry = Registry::start(&sandbox, "", "");
    let name = publish(&sandbox, "platforms");
    let pulled = |platform: &str| {
        sandbox.stack("image prune -af").ok();
        let flag = if platform.is_empty() { String::new() } else { format!("--platform {platform}") };
        sandbox.stack(&format!("image pull -q {flag} {name}")).ok();
        fs_err::read_to_string(layer_with(&sandbox, "which").join("which")).unwrap()
    };
    let here = stack::images::architecture();
    let own = if here == "arm64" { "linux/arm64/v8".to_owned() } else { format!("linux/{here}") };
    assert_eq!(pulled(""), own);
    for (asked, got) in [
        ("linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("aarch64", "linux/arm64/v8"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/s390x", "linux/s390x"),
    ] {
        assert_eq!(pulled(asked), got, "{asked}");
    }
    let missing = sandbox.stack(&format!("image pull --platform linux/riscv64 {name}"));
    missing.fails(&["no variant for linux/riscv64", "linux/arm/v7", "linux/s390x", "--platform"]);
    // By the file, and by the flag against it.
    sandbox.file("stack.yaml", &format!("services: {{ app: {{ image: \"{name}\", platform: linux/s390x }} }}"));
    let which = || fs_err::read_to_string(layer_with(&sandbox, "which").join("which")).unwrap();
    sandbox.stack("image prune -af").ok();
    sandbox.stack("pull").ok();
    assert_eq!(which(), "linux/s390x");
    sandbox.stack("image prune -af").ok();
    sandbox.stack("pull --platform linux/arm/v6").ok();
    assert_eq!(which(), "linux/arm/v6");
}
