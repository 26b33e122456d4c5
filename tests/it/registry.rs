//! Pull and push against Debian's `docker-registry`, with and without TLS and logins, and `skopeo` as a second client.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::DirEntryExt as _;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::poll::{until, until_true};
use crate::sandbox::Sandbox;

/// The registry's address in the sandbox's own network namespace.
pub(crate) const AT: &str = "127.0.0.1:5000";

/// A running registry. Dropped, it ends.
pub(crate) struct Registry(Child);

impl Registry {
    /// Starts one; `http` and `auth` are further lines of its configuration.
    pub(crate) fn start(sandbox: &Sandbox, http: &str, auth: &str) -> Registry {
        let data = sandbox.path("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http:\n  addr: {AT}\n  secret: x\n{http}\n{auth}\n",
            data.display()
        );
        let file = sandbox.file("registry.yml", &text);
        let mut command = sandbox.command("docker-registry", &["serve", file.to_str().unwrap()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the package docker-registry");
        until_true("the registry listens", || TcpStream::connect(AT).is_ok());
        Registry(child)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program of the test's own; it must succeed.
pub(crate) fn run(sandbox: &Sandbox, program: &str, words: &str) -> String {
    let output = sandbox.command(program, &words.split_whitespace().collect::<Vec<_>>()).output().unwrap();
    assert!(output.status.success(), "{program} {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A sandbox whose store has the image `NAME`, with busybox and a file of bytes that don't compress.
pub(crate) fn with_image(text: &str, name: &str, ballast: usize) -> Sandbox {
    let sandbox = Sandbox::with(text);
    sandbox.busybox_tar();
    let mut bytes = vec![0; ballast];
    fs_err::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    fs_err::write(sandbox.path("rootfs/ballast"), bytes).unwrap();
    run(&sandbox, "tar", "-C rootfs -cf image.tar .");
    sandbox.stack(&format!("image import image.tar {name}")).ok();
    sandbox
}

#[test]
fn what_is_pushed_is_pulled_by_up_and_by_others() {
    let name = format!("{AT}/lib/tiny:1");
    let sandbox =
        with_image("services: { app: { image: \"127.0.0.1:5000/lib/tiny:1\", command: [echo, hello] } }", &name, 9);
    let _registry = Registry::start(&sandbox, "", "");
    let pushed = sandbox.stack(&format!("image push {name}")).ok();
    assert!(pushed.err.contains("Pushed"), "{pushed}");
    assert!(sandbox.stack(&format!("image push {name}")).ok().err.contains("Already there"));
    let seen = run(&sandbox, "skopeo", &format!("inspect --tls-verify=false docker://{name}"));
    assert!(seen.contains(pushed.out.trim().split('@').nth(1).unwrap()), "{seen}\n{pushed}");

    let pinned = format!("image: {name}@{}", pushed.out.trim().split('@').nth(1).unwrap());
    assert!(sandbox.stack("config --resolve-image-digests").ok().out.contains(&pinned));
    let locked = sandbox.stack("config --lock-image-digests").ok().out;
    assert_eq!(locked, format!("services:\n  app:\n    {pinned}\n"));

    sandbox.stack(&format!("image rm {name}")).ok();
    sandbox.stack("up -d --pull never").fails(&["no image", "image pull"]);
    let up = sandbox.stack("up --no-log-prefix").ok();
    assert!(up.err.contains("Pulled") && up.out.contains("hello"), "{up}");
    assert!(!sandbox.stack("up").ok().err.contains("Pull"));
    let blobs = || {
        let blobs = fs_err::read_dir(sandbox.root().join("lib/images/blobs/sha256")).unwrap().map(Result::unwrap);
        let mut blobs: Vec<_> = blobs.map(|blob| (blob.ino(), blob.metadata().unwrap().modified().unwrap())).collect();
        blobs.sort_unstable();
        blobs
    };
    let before = blobs();
    assert!(sandbox.stack("pull").ok().err.contains("Up to date"));
    assert_eq!(blobs(), before);
    sandbox.stack("down").ok();

    // By another client, in other forms: an index, and layers in zstd.
    run(
        &sandbox,
        "skopeo",
        &format!("copy --dest-compress-format zstd --format oci --src-tls-verify=false docker://{name} oci:layout:x"),
    );
    run(&sandbox, "skopeo", &format!("copy --dest-tls-verify=false oci:layout:x docker://{AT}/lib/zstd:1"));
    sandbox.stack(&format!("image pull {AT}/lib/zstd:1")).ok();
    let digest = format!("{AT}/lib/tiny@{}", pushed.out.trim().split('@').nth(1).unwrap());
    sandbox.stack(&format!("image pull -q {digest}")).ok();
    sandbox.stack(&format!("image inspect {digest}")).ok();

    // A Dockerfile's base, and the push of what was built.
    sandbox.stack("image prune -af").ok();
    sandbox.file("Dockerfile", &format!("FROM {name}\nRUN echo built > /file\n"));
    sandbox
        .file("stack.yaml", &format!("services: {{ app: {{ build: {{ context: . }}, image: \"{AT}/lib/built\" }} }}"));
    sandbox.stack("build --push").ok();
    assert!(sandbox.stack("push").ok().err.contains("Already there"));
    sandbox.stack(&format!("image rm {AT}/lib/built")).ok();
    let pulled = sandbox.stack("pull").ok();
    assert!(pulled.err.contains("Pulled"), "{pulled}");

    what_is_locked_is_used(&sandbox, &name);
    sandbox.stack(&format!("image pull {AT}/lib/none")).fails(&["no image", "check the name"]);
    sandbox.stack("image pull 127.0.0.1:1/x").fails(&["cannot connect to 127.0.0.1:1", "refused"]);
    sandbox.stack("image pull host.invalid/x").fails(&["cannot find the address of host.invalid"]);
}

/// `stack.lock` holds an image although its name moves on.
fn what_is_locked_is_used(sandbox: &Sandbox, name: &str) {
    sandbox.file("stack.yaml", &format!("services: {{ app: {{ image: \"{name}\", command: [cat, /who] }} }}"));
    sandbox.stack("up --locked").fails(&["there is no", "stack lock"]);
    let locked = sandbox.stack("lock").ok();
    assert!(locked.out.starts_with(&format!("{name} ")) && locked.out.ends_with("(new)\n"), "{locked}");
    let first = fs_err::read_to_string(sandbox.path("stack.lock")).unwrap();
    // Somebody else's new one.
    sandbox.file("rootfs/who", "new");
    run(sandbox, "tar", "-C rootfs -cf new.tar .");
    sandbox.stack(&format!("image import new.tar {name}")).ok();
    sandbox.stack(&format!("image push {name}")).ok();
    let up = sandbox.stack_env(&[("CI", "true")], "up --no-log-prefix").ok();
    assert!(up.err.contains("has moved to") && !up.out.contains("new"), "{up}");
    sandbox.stack("image prune -af").ok();
    let up = sandbox.stack("up --locked --no-log-prefix").ok();
    assert!(!up.out.contains("new"), "{up}");
    assert!(sandbox.stack_env(&[("CI", "true")], "up --locked=false --no-log-prefix").ok().out.contains("new"));
    let moved = sandbox.stack("lock").ok();
    assert!(moved.out.contains(" → "), "{moved}");
    assert_ne!(fs_err::read_to_string(sandbox.path("stack.lock")).unwrap(), first);
    assert!(sandbox.stack("up --locked --no-log-prefix").ok().out.contains("new"));
    // The image of an init container, too.
    let step = format!("pre_start: [{{ image: \"{name}\", command: [cat, /who] }}]");
    sandbox.file("stack.yaml", &format!("services: {{ app: {{ image: stack/host, command: [echo, runs], {step} }} }}"));
    assert!(!sandbox.stack("lock").ok().out.contains("gone"));
    sandbox.file("rootfs/who", "third");
    run(sandbox, "tar", "-C rootfs -cf third.tar .");
    sandbox.stack(&format!("image import third.tar {name}")).ok();
    let up = sandbox.stack("up --locked --no-log-prefix").ok();
    assert!(up.out.contains("new") && !up.out.contains("third"), "{up}");
    assert!(sandbox.stack("up --locked=false --no-log-prefix").ok().out.contains("third"));
    fs_err::write(sandbox.path("stack.lock"), r#"{"version": 1, "images": {}}"#).unwrap();
    sandbox.stack("up --locked").fails(&["which stack.lock doesn't name", "stack.yaml:1"]);
    sandbox.stack("down").ok();
}

#[test]
fn tls_and_logins() {
    let name = format!("{AT}/lib/tiny:1");
    let sandbox = with_image("services: {}", &name, 9);
    run(
        &sandbox,
        "openssl",
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca \
        -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.crt",
    );
    run(
        &sandbox,
        "openssl",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=registry -keyout tls.key -out tls.csr",
    );
    sandbox.file("san", "subjectAltName=IP:127.0.0.1\n");
    run(&sandbox, "openssl", "x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -days 2 -extfile san -out tls.crt");
    sandbox.file("htpasswd", &run(&sandbox, "htpasswd", "-Bbn me secret"));
    let path = |file: &str| sandbox.path(file).display().to_string();
    let tls = format!("  tls: {{certificate: {}, key: {}}}", path("tls.crt"), path("tls.key"));
    let auth = format!("auth: {{htpasswd: {{realm: r, path: {}}}}}", path("htpasswd"));
    let registry = Registry::start(&sandbox, &tls, &auth);

    let push = format!("image push {name}");
    sandbox.stack(&push).fails(&["no trusted connection", "certs.d/127.0.0.1:5000/ca.crt"]);
    let home = sandbox.path("").parent().unwrap().to_owned();
    let certificates = home.join(".docker/certs.d").join(AT);
    fs_err::create_dir_all(&certificates).unwrap();
    fs_err::copy(sandbox.path("ca.crt"), certificates.join("ca.crt")).unwrap();
    sandbox.stack(&push).fails(&["denies access", "stack login 127.0.0.1:5000"]);
    let login = format!("login -u me --password-stdin {AT}");
    sandbox.stack_input("wrong", &login).fails(&["cannot log in", "password"]);
    let kept = sandbox.stack_input("secret\n", &login).ok();
    assert!(kept.out.contains("Login Succeeded") && kept.err.contains("unencrypted"), "{kept}");
    sandbox.stack(&push).ok();
    sandbox.stack(&format!("image rm {name}")).ok();
    sandbox.stack(&format!("image pull {name}")).ok();

    // The same rights from a credential helper, and none after logging out.
    let helper = "#!/bin/sh\n[ \"$1\" = get ] || exit 1\necho '{\"Username\":\"me\",\"Secret\":\"secret\"}'\n";
    let helper = sandbox.file("bin/docker-credential-fake", helper);
    run(&sandbox, "chmod", &format!("755 {}", helper.display()));
    sandbox.file("helped/config.json", &format!("{{\"credHelpers\": {{\"{AT}\": \"fake\"}}}}"));
    run(&sandbox, "cp", &format!("-r {}/.docker/certs.d helped", home.display()));
    sandbox.stack(&format!("logout {AT}")).ok();
    let pull = format!("image pull --platform linux/amd64 {name}");
    sandbox.stack(&format!("image rm {name}")).ok();
    sandbox.stack(&pull).fails(&["denies access"]);
    let search = format!("{}:/usr/bin:/bin", path("bin"));
    sandbox.stack_env(&[("DOCKER_CONFIG", &path("helped")), ("PATH", &search)], &pull).ok();

    // One that wants to know by a certificate who comes.
    drop(registry);
    run(
        &sandbox,
        "openssl",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=me -keyout client.key -out client.csr",
    );
    sandbox.file("usage", "extendedKeyUsage=clientAuth\n");
    run(
        &sandbox,
        "openssl",
        "x509 -req -in client.csr -CA ca.crt -CAkey ca.key -days 2 -extfile usage -out client.cert",
    );
    let tls = format!("{}, clientcas: [{}]}}", tls.trim_end_matches('}'), path("ca.crt"));
    let _registry = Registry::start(&sandbox, &tls, "");
    sandbox.stack(&format!("image rm {name}")).ok();
    sandbox.stack(&pull).fails(&[AT]);
    fs_err::copy(sandbox.path("client.cert"), certificates.join("client.cert")).unwrap();
    sandbox.stack(&pull).fails(&["client.cert", "its key", "is missing"]);
    fs_err::copy(sandbox.path("client.key"), certificates.join("client.key")).unwrap();
    sandbox.stack(&pull).ok();
}

/// A way to the registry on which what comes back stops after so many bytes.
pub(crate) struct Narrow {
    left: Arc<AtomicU64>,
    pub(crate) at: String,
}

impl Narrow {
    /// Listens; `close` closes a connection at the limit, else it stays silent.
    pub(crate) fn open(close: bool) -> Narrow {
        Self::new(close, Duration::ZERO)
    }

    /// Listens, and waits before every 16 KiB.
    pub(crate) fn paced(pace: Duration) -> Narrow {
        Self::new(true, pace)
    }

    fn new(close: bool, pace: Duration) -> Narrow {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let left = Arc::new(AtomicU64::new(u64::MAX));
        let limit = Arc::clone(&left);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(AT) else { return };
                let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut up_from, &mut up_to);
                    let _ = up_to.shutdown(Shutdown::Both);
                });
                let limit = Arc::clone(&limit);
                std::thread::spawn(move || pass(server, client, &limit, close, pace));
            }
        });
        Narrow { left, at }
    }

    pub(crate) fn allow(&self, bytes: u64) {
        self.left.store(bytes, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, limit: &AtomicU64, close: bool, pace: Duration) {
    let mut bytes = [0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        let left = limit.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(n as u64)));
        if left.unwrap() < n as u64 {
            if !close {
                // Until the other end goes.
                let _ = to.read(&mut bytes);
            }
            break;
        }
        std::thread::sleep(pace);
        if to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

#[test]
fn an_interrupted_pull_goes_on_where_it_was() {
    const SIZE: u64 = 8 << 20;
    let name = format!("{AT}/lib/large:1");
    let sandbox = with_image("services: {}", &name, usize::try_from(SIZE).unwrap());
    let _registry = Registry::start(&sandbox, "", "");
    sandbox.stack(&format!("image push {name}")).ok();
    sandbox.stack(&format!("image rm {name}")).ok();
    let aside = sandbox.root().join("lib/images/tmp");
    let partial =
        || -> u64 { fs_err::read_dir(&aside).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum() };
    let silent = Narrow::open(false);
    let pull = format!("image pull {}/lib/large:1", silent.at);
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let before = partial();
        silent.allow(SIZE / 3);
        let pulling = sandbox.start(&pull);
        until("bytes came and no more do", || (partial() > before + SIZE / 6).then_some(()));
        pulling.signal(signal);
        assert_ne!(pulling.finish().code, 0);
        assert!(partial() > before);
    }
    // The rest, over a connection that breaks once more: less than the whole is transferred.
    let breaking = Narrow::open(true);
    breaking.allow(SIZE / 8);
    let left = Arc::clone(&breaking.left);
    std::thread::spawn(move || {
        while left.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        left.store(SIZE / 4 * 3, Ordering::SeqCst);
    });
    let again = sandbox.stack(&format!("image pull {}/lib/large:1", breaking.at)).ok();
    assert!(again.err.contains("from before") && again.err.contains("Retrying"), "{again}");
    assert_eq!(partial(), 0);
    let layers =
        || fs_err::read_dir(sandbox.root().join("lib/layers")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!layers().any(|name| name.to_string_lossy().contains("aside")), "{:?}", layers().collect::<Vec<_>>());
}
