//! Hostile registries and layers: the suites in `../shared/attacks` (or `$ATTACKS`), where that is there.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::poll::until_true;
use crate::sandbox::{STACK, Sandbox};
use crate::store;

const AT: &str = "127.0.0.1:5999";

/// How long a client may take with a registry that never gets better.
const PATIENCE: Duration = Duration::from_secs(75);

/// Faults that a good client gets over; with all others it must give up.
const OVERCOME: [&str; 12] = [
    "ok",
    "blob-truncate-once",
    "blob-range-lie",
    "blob-slow",
    "blob-gzip-transport",
    // This registry's layer is right all the same.
    "diffid",
    "429",
    "500-once",
    "redirect-host",
    "auth-expire",
    "auth-scope-wide",
    // Nobody asks for its tags.
    "tags-endless",
];

/// One that halves what is left each time: a client may get to its end, or give up.
const EITHER: &str = "blob-truncate";

/// What is said about some of the others.
const SAID: [(&str, &str); 16] = [
    ("manifest-confusion", "both a manifest and an index"),
    ("manifest-digest", "has the digest"),
    ("manifest-huge", "larger than 4194304 bytes"),
    ("manifest-schema1", "schema 1"),
    ("manifest-10k-layers", "10000 layers"),
    ("desc-digest-path", "isn't a digest"),
    ("desc-digest-alg", "isn't a digest"),
    ("desc-urls", "kept elsewhere"),
    ("blob-digest", "has the digest"),
    ("429-forever", "limits the rate of requests and asks to wait 86400 s"),
    ("500-forever", "503"),
    ("redirect-loop", "too many redirections"),
    ("redirect-file", "only http and https"),
    ("redirect-metadata", "not followed"),
    ("auth-basic-realm", "must"),
    ("auth-loop", "denies access"),
];

/// The folder of the suites; nothing, and said so, where it is missing.
fn suite() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/attacks");
    let at = std::env::var_os("ATTACKS").map_or(default, PathBuf::from);
    if at.is_dir() {
        return Some(at);
    }
    // Not through the harness, which shows nothing of a test that passes.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {} is missing", at.display());
    None
}

/// A server of the test's own. Dropped, it ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes an OCI layout of one small image and serves it with all faults.
fn evil(sandbox: &Sandbox, suite: &Path) -> Server {
    fs_err::create_dir_all(sandbox.path("files")).unwrap();
    let mut bytes = vec![0; 6 << 10];
    fs_err::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    fs_err::write(sandbox.path("files/f"), bytes).unwrap();
    let script = format!(
        "tar -C files -czf i.tar . && {STACK} image import i.tar x && {STACK} image save x -o x.tar && mkdir layout && tar -C layout -xf x.tar"
    );
    sandbox.shell(&[], &script).ok();
    let program = suite.join("evil_registry.py");
    let port = AT.rsplit(':').next().unwrap();
    let layout = sandbox.path("layout");
    let mut command = sandbox.command("python3", &[program.to_str().unwrap(), port, layout.to_str().unwrap()]);
    let log = fs_err::File::create(sandbox.path("requests")).unwrap();
    let server = Server(command.stdout(Stdio::null()).stderr(log.into_parts().0).spawn().unwrap());
    until_true("the registry listens", || TcpStream::connect(AT).is_ok());
    server
}

/// Whether a store is sound, and has the image if it was pulled.
fn check_store(root: &Path, pulled: bool) -> Result<(), String> {
    match store::check(root)? {
        found if found == (usize::from(pulled), usize::from(pulled)) => Ok(()),
        (images, layers) => Err(format!("{images} images, {layers} layers")),
    }
}

#[test]
fn no_registry_gets_anything_wrong_into_the_store() {
    let Some(suite) = suite() else { return };
    let sandbox = Sandbox::new();
    let _server = evil(&sandbox, &suite);
    let list = sandbox.shell(&[], &format!("python3 {} --list", suite.join("evil_registry.py").display())).ok();
    let faults: Vec<&str> = list.out.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(faults.len() >= 45, "{faults:?}");

    // All other faults count as uses of its token: it comes first.
    sandbox.stack(&format!("image pull {AT}/auth-expire/x:1")).ok();
    let begun = Instant::now();
    let pulls: Vec<(&str, PathBuf, Child)> = faults
        .into_iter()
        .filter(|fault| !["auth-expire", "blob-stall"].contains(fault))
        .map(|fault| {
            let root = sandbox.path(&format!("roots/{fault}"));
            let name = format!("{AT}/{fault}/x:1");
            let mut command = sandbox.command(STACK, &["image", "pull", &name]);
            command.env("STACK_ROOT", &root).stdout(Stdio::null()).process_group(0);
            let log = fs_err::File::create(sandbox.path(&format!("{fault}.log"))).unwrap();
            (fault, root, command.stderr(log.into_parts().0).spawn().unwrap())
        })
        .collect();
    let mut wrong = BTreeMap::new();
    for (fault, root, mut pull) in pulls {
        let status = loop {
            match pull.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if begun.elapsed() > PATIENCE => {
                    pull.kill().unwrap();
                    pull.wait().unwrap();
                    break None;
                }
                None => std::thread::park_timeout(Duration::from_millis(20)),
            }
        };
        let text = fs_err::read_to_string(sandbox.path(&format!("{fault}.log"))).unwrap();
        let good = OVERCOME.contains(&fault) || (fault == EITHER && status.is_some_and(|status| status.success()));
        let mut errors = Vec::new();
        match status {
            None => errors.push(format!("still running after {PATIENCE:?}")),
            Some(status) if status.code() != Some(i32::from(!good)) => errors.push(format!("ended with {status}")),
            Some(_) => {}
        }
        errors.extend(check_store(&root, good).err());
        if !good && !text.contains("error: cannot pull") {
            errors.push("no error is shown".to_owned());
        }
        if text.contains('\x1b') {
            errors.push("an escape sequence reached the terminal".to_owned());
        }
        let said = SAID.iter().find(|(name, _)| *name == fault);
        errors.extend(said.filter(|(_, said)| !text.contains(said)).map(|(_, said)| format!("{said:?} isn't said")));
        if !errors.is_empty() {
            wrong.insert(fault, format!("{}\n{text}", errors.join("; ")));
        }
    }
    let report: Vec<String> = wrong.iter().map(|(fault, text)| format!("{fault}: {text}")).collect();
    assert!(wrong.is_empty(), "{}", report.join("\n"));

    // A pull asks for nothing but what it needs, and of nobody else.
    let log = fs_err::read_to_string(sandbox.path("requests")).unwrap();
    // Its threads write at the same time, and complain about connections that end.
    let lines = log.lines().filter(|line| line.starts_with("{\""));
    let requests = lines.flat_map(|line| serde_json::Deserializer::from_str(line).into_iter::<Value>().flatten());
    for request in requests {
        assert!(matches!(request["m"].as_str(), Some("GET" | "HEAD")), "{request}");
        assert!(!request["p"].as_str().unwrap().contains("push"), "{request}");
    }
}

#[test]
fn an_interrupt_ends_a_pull_that_hangs_at_once() {
    let Some(suite) = suite() else { return };
    let sandbox = Sandbox::new();
    let _server = evil(&sandbox, &suite);
    sandbox.stack("image rm x").ok();
    let pulling = sandbox.start(&format!("image pull {AT}/blob-stall/x:1"));
    pulling.until_said("Pulling 6");
    let asked = Instant::now();
    pulling.signal(Signal::SIGINT);
    let ran = pulling.finish();
    assert_eq!(ran.code, 130, "{ran}");
    // The server hangs for much longer.
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(store::partial(&sandbox.root()), 1);
    sandbox.stack("image prune -f").ok();
    assert_eq!(store::partial(&sandbox.root()), 0);
    check_store(&sandbox.root(), false).unwrap();
}

#[test]
fn hostile_layers_do_nothing_outside() {
    let Some(suite) = suite() else { return };
    let sandbox = Sandbox::new();
    let file = |name: &str| suite.join(name).display().to_string();
    let tars = sandbox.path("tars").display().to_string();
    let canary = sandbox.path("canary").display().to_string();
    sandbox.shell(&[], &format!("python3 {} {tars} --canary {canary}", file("gen_tars.py"))).ok();
    let judge = format!("python3 {} {tars} -q -- {STACK} image unpack {{tar}} {{root}}", file("oracle.py"));
    let judged = sandbox.shell(&[("CANARY", &canary)], &judge);
    let slow = |line: &&str| {
        line.split_once(" rc=").is_some_and(|(_, why)| why.split("; ").count() == 1 && why.contains(" slow: "))
    };
    // `tests/layers.sh` judges the time that the optimised program takes, alone on the machine.
    let excused = judged.out.lines().filter(slow).count();
    let passed = judged.out.lines().last().and_then(|line| line.split(' ').next()?.parse::<usize>().ok());
    assert!(passed.is_some_and(|passed| passed + excused >= 97), "{judged}");
    assert!(judged.out.ends_with(&format!(" {excused} failed\n")), "{judged}");
}
