//! When an image is pulled, and by which way: `pull_policy`, mirrors, proxies; progress at a terminal.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;

use crate::pty::Terminal;
use crate::registry::{AT, Narrow, Registry, run, with_image};
use crate::sandbox::{Ran, Sandbox};

/// Makes the name mean another image at the registry.
fn replace(sandbox: &Sandbox, name: &str, what: &str) {
    sandbox.file("rootfs/who", what);
    run(sandbox, "tar", "-C rootfs -cf image.tar .");
    let other = sandbox.path("other").display().to_string();
    let ours = |words: String| sandbox.stack_env(&[("STACK_ROOT", &other)], &words).ok();
    ours(format!("image import image.tar {name}"));
    ours(format!("image push {name}"));
}

/// Moves the time at which the registry was last asked for every image so many hours back.
fn age(sandbox: &Sandbox, hours: i64) {
    let path = sandbox.root().join("lib/images/index.json");
    let mut index: Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    let then = Timestamp::now() - hours.hours();
    for entry in index["manifests"].as_array_mut().unwrap() {
        entry["annotations"]["io.stack.image.checked"] = then.to_string().into();
    }
    fs_err::write(path, index.to_string()).unwrap();
}

#[test]
fn every_pull_policy_pulls_when_it_says() {
    let name = format!("{AT}/lib/tiny:1");
    let sandbox = with_image("services: {}", &name, 9);
    let _registry = Registry::start(&sandbox, "", "");
    replace(&sandbox, &name, "first");
    let up = |policy: &str, flags: &str| -> Ran {
        let build = if policy == "build" { ", build: ." } else { "" };
        let policy = if policy.is_empty() { String::new() } else { format!(", pull_policy: {policy}") };
        let text = format!("services: {{ app: {{ image: \"{name}\", command: [cat, /who]{policy}{build} }} }}");
        sandbox.file("stack.yaml", &text);
        let ran = sandbox.stack(&format!("up --no-log-prefix {flags}"));
        sandbox.stack("down").ok();
        ran
    };
    let gone = || {
        sandbox.stack("image prune -af").ok();
    };

    // What is missing is pulled, unless it may not be.
    for policy in ["", "always", "missing", "if_not_present", "daily", "weekly", "every_12h"] {
        gone();
        assert!(up(policy, "").ok().out.contains("first"), "{policy}");
    }
    gone();
    up("never", "").fails(&["no image", "pull_policy: never", "stack image pull"]);
    up("always", "--pull never").fails(&["no image"]);
    sandbox.file("Dockerfile", "FROM scratch\nADD image.tar /\nADD built /who\n");
    sandbox.file("built", "built");
    assert!(up("build", "").ok().out.contains("built"));

    // What is there and has changed at the registry.
    gone();
    up("missing", "").ok();
    replace(&sandbox, &name, "second");
    for policy in ["", "missing", "if_not_present", "never", "daily", "weekly", "every_12h", "every_1w2d3h"] {
        assert!(up(policy, "").ok().out.contains("first"), "{policy}");
    }
    assert!(up("never", "--pull always").ok().out.contains("second"));
    for (policy, after) in [("every_12h", 13), ("daily", 25), ("weekly", 7 * 24 + 1), ("always", 0)] {
        let word = format!("{policy} after {after} h");
        replace(&sandbox, &name, &word);
        if after > 0 {
            // Not yet.
            age(&sandbox, after - 2);
            assert!(!up(policy, "").ok().out.contains(&word), "{policy}");
            age(&sandbox, after);
        }
        let ran = up(policy, "").ok();
        assert!(ran.out.contains(&word), "{policy}: {ran}");
    }
    // It was asked just now: not again.
    age(&sandbox, 25);
    up("daily", "").ok();
    replace(&sandbox, &name, "last");
    assert!(!up("daily", "").ok().out.contains("last"));
    sandbox.file("stack.yaml", "services: { app: { image: x, pull_policy: hourly } }");
    sandbox.stack("up").fails(&["`hourly` is unknown", "every_<duration>"]);
}

/// A proxy that leads every tunnel to the registry; its address.
fn proxy() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || tunnel(client));
        }
    });
    at
}

fn tunnel(mut client: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if !head.starts_with(b"CONNECT hidden.invalid:5000 ") {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n");
    }
    let mut server = TcpStream::connect(AT)?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || io::copy(&mut from, &mut to));
    io::copy(&mut server, &mut client).map(drop)
}

#[test]
fn mirrors_and_proxies_are_the_way() {
    let name = format!("{AT}/lib/tiny:1");
    let sandbox = with_image("services: {}", &name, 9);
    let _registry = Registry::start(&sandbox, "", "");
    sandbox.stack(&format!("image push {name}")).ok();
    let mirrors = format!(r#"{{"mirrors": {{"docker.io": ["http://127.0.0.1:1", "http://{AT}"]}}}}"#);
    let settings = sandbox.file("registries.json", &mirrors).display().to_string();
    sandbox.stack("image prune -af").ok();
    // One that doesn't answer is passed over, and said so.
    let pulled = sandbox.stack_env(&[("STACK_REGISTRIES", &settings)], "image pull lib/tiny:1").ok();
    assert!(pulled.err.contains("mirror 127.0.0.1:1") && pulled.out.trim() == "lib/tiny:1", "{pulled}");
    let list = sandbox.stack("image ls --format json").ok();
    assert!(list.out.contains("\"lib/tiny\""), "{list}");

    // Nobody but the proxy knows the address.
    let at = format!("http://{}", proxy());
    let hidden = r#"{"mirrors": {"docker.io": ["http://hidden.invalid:5000"]}, "insecure": ["hidden.invalid:5000"]}"#;
    let settings = sandbox.file("hidden.json", hidden).display().to_string();
    let variables = [("STACK_REGISTRIES", settings.as_str()), ("http_proxy", &at)];
    sandbox.stack("image prune -af").ok();
    let pulled = sandbox.stack_env(&variables, "image pull lib/tiny:1").ok();
    assert!(!pulled.err.contains("mirror"), "{pulled}");
    sandbox.stack("image prune -af").ok();
    let without = [variables[0], variables[1], ("NO_PROXY", "hidden.invalid")];
    sandbox
        .stack_env(&without, "image pull lib/tiny:1")
        .fails(&["mirror hidden.invalid:5000: cannot find the address"]);
}

/// Layer by layer, with rate and time left, redrawn in place; lines elsewhere; nothing with `-q`.
#[test]
fn progress_is_what_its_reader_can_use() {
    const SIZE: usize = 4 << 20;
    let name = format!("{AT}/lib/large:1");
    let sandbox = with_image("services: {}", &name, SIZE);
    let _registry = Registry::start(&sandbox, "", "");
    sandbox.stack(&format!("image push {name}")).ok();
    sandbox.stack("image prune -af").ok();
    let slow = Narrow::paced(Duration::from_millis(10));
    let terminal = Terminal::start(&sandbox, &["image", "pull", &format!("{}/lib/large:1", slow.at)]);
    for shown in ["[+] pull 0/2", "Pulling [", "=>", "MB/5", "MB/s", "s left", "\u{1b}[2K", "Pulled 5"] {
        terminal.until_shown(shown);
    }
    assert_eq!(terminal.finish(), 0);
    sandbox.stack("image prune -af").ok();
    let plain = sandbox.stack(&format!("image pull {name}")).ok();
    assert!(!plain.err.contains('\u{1b}') && plain.err.lines().count() == 4, "{plain}");
    sandbox.stack("image prune -af").ok();
    let quiet = sandbox.stack(&format!("image pull -q {name}")).ok();
    assert!(quiet.err.is_empty() && quiet.out.trim() == name, "{quiet}");
}
