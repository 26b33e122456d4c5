//! Who is asked, with whose rights: passwords, tokens, mirrors, proxies. Beside Debian's `docker-registry` there are small
//! servers of the test's own that write down what they are asked.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::registry::{AT, Registry, run, with_image};

/// A request.
#[derive(Clone, Debug)]
struct Asked {
    /// `GET /path`.
    line: String,
    /// By lower-case name.
    headers: BTreeMap<String, String>,
}

/// A server on loopback that answers every request by itself.
struct Small {
    at: String,
    seen: Arc<Mutex<Vec<Asked>>>,
}

impl Small {
    /// Serves; `answer` gets each request and its connection, and writes what it likes.
    fn serve(answer: impl Fn(&Asked, TcpStream) + Send + Sync + 'static) -> Small {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let small = Small { at: listener.local_addr().unwrap().to_string(), seen: Arc::default() };
        let (seen, answer) = (Arc::clone(&small.seen), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || {
                    if let Some(asked) = head(&stream) {
                        seen.lock().unwrap().push(asked.clone());
                        answer(&asked, stream);
                    }
                });
            }
        });
        small
    }

    fn seen(&self) -> Vec<Asked> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// Reads a request's head, one byte at a time: what follows belongs to others. None for what is no HTTP, as TLS.
fn head(mut stream: &TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        std::io::Read::read_exact(&mut stream, &mut byte).ok()?;
        bytes.extend(byte);
        if !bytes[0].is_ascii_uppercase() {
            let _ = (&mut stream).write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.shutdown(Shutdown::Both);
            return None;
        }
    }
    let mut lines = BufReader::new(bytes.as_slice()).lines().map(Result::unwrap);
    let first = lines.next()?;
    let fields = lines.filter_map(|line| line.split_once(": ").map(|(k, v)| (k.to_lowercase(), v.to_owned())));
    Some(Asked { line: first.rsplit_once(' ')?.0.to_owned(), headers: fields.collect() })
}

/// Answers and closes.
fn answer(mut stream: TcpStream, status: &str, headers: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let _ = stream.shutdown(Shutdown::Both);
}

/// The path of a request for a blob, as a file of an OCI layout.
fn blob(asked: &Asked) -> Option<String> {
    asked.line.split_once("/blobs/sha256:").map(|(_, hex)| format!("layout/blobs/sha256/{hex}"))
}

#[test]
fn a_password_goes_to_its_registry_and_nowhere_else() {
    let sandbox = with_image("services: {}", "x", 9);
    sandbox.shell(&[], "mkdir layout").ok();
    sandbox.stack("image save x -o x.tar").ok();
    run(&sandbox, "tar", "-C layout -xf x.tar");
    let index: serde_json::Value =
        serde_json::from_slice(&fs_err::read(sandbox.path("layout/index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    let manifest = fs_err::read(sandbox.path(&format!("layout/blobs/{digest}"))).unwrap();

    let root = sandbox.path("");
    let storage = Small::serve(move |asked, stream| match blob(asked) {
        Some(path) => answer(stream, "200 OK", "", &fs_err::read(root.join(path)).unwrap()),
        None => answer(stream, "404 Not Found", "", b""),
    });
    // Another origin by name, although the same machine.
    let elsewhere = storage.at.replace("127.0.0.1", "localhost");
    let registry = Small::serve(move |asked, stream| {
        if asked.headers.get("authorization").map(String::as_str) != Some("Basic bWU6c2VjcmV0") {
            return answer(stream, "401 Unauthorized", "www-authenticate: Basic realm=\"r\"\r\n", b"");
        }
        match blob(asked) {
            Some(_) => {
                let path = asked.line.split(' ').nth(1).unwrap();
                let to = format!("location: http://{elsewhere}{path}\r\n");
                answer(stream, "307 Temporary Redirect", &to, b"");
            }
            None if asked.line.contains("/manifests/") => {
                let kind = "content-type: application/vnd.oci.image.manifest.v1+json\r\n";
                answer(stream, "200 OK", kind, if asked.line.starts_with("HEAD") { b"" } else { &manifest });
            }
            None => answer(stream, "200 OK", "", b"{}"),
        }
    });
    sandbox.stack("image rm x").ok();
    let logins = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"bWU6c2VjcmV0\"}}}}}}", registry.at);
    sandbox.stack_env(&[("DOCKER_AUTH_CONFIG", &logins)], &format!("image pull {}/a/b:1", registry.at)).ok();
    let (asked, fetched) = (registry.seen(), storage.seen());
    assert!(asked.len() >= 3 && fetched.len() >= 2, "{asked:?} {fetched:?}");
    for request in &fetched {
        assert!(
            !request.headers.contains_key("authorization") && !request.headers.contains_key("cookie"),
            "{request:?}"
        );
    }
    // A challenge that leads the password elsewhere.
    let thief = Small::serve(|_, stream| answer(stream, "200 OK", "", b"{\"token\":\"t\"}"));
    let realm =
        format!("www-authenticate: Bearer realm=\"http://{}/token\"\r\n", thief.at.replace("127.0.0.1", "localhost"));
    let traitor = Small::serve(move |_, stream| answer(stream, "401 Unauthorized", &realm, b""));
    let logins = logins.replace(&registry.at, &traitor.at);
    let pull = format!("image pull {}/a/b:1", traitor.at);
    sandbox.stack_env(&[("DOCKER_AUTH_CONFIG", &logins)], &pull).fails(&["somebody else"]);
    assert!(thief.seen().is_empty());
}

/// What the tokens of the test are signed with.
const SIGN: &str = "dgst -sha256 -sign token.key";

/// A token that Debian's registry takes: for one repository and what was asked.
fn token(sandbox_root: &std::path::Path, scopes: &[String], certificate: &str) -> String {
    let access: Vec<_> = scopes
        .iter()
        .filter_map(|scope| {
            let mut parts = scope.splitn(3, ':');
            let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
            Some(serde_json::json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
        })
        .collect();
    let claims = serde_json::json!({
        "iss": "issuer", "sub": "me", "aud": "service", "exp": 4_000_000_000_u64, "nbf": 1, "iat": 1, "jti": "x",
        "access": access,
    });
    let head = serde_json::json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
    let signed = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let mut openssl = std::process::Command::new("openssl")
        .args(SIGN.split(' '))
        .current_dir(sandbox_root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(signed.as_bytes()).unwrap();
    let signature = openssl.wait_with_output().unwrap().stdout;
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn tokens_are_asked_for_what_is_done_and_nothing_else() {
    let name = format!("{AT}/lib/tiny:1");
    let sandbox = with_image("services: {}", &name, 9);
    run(&sandbox, "openssl", "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=t -keyout token.key -out token.crt");
    let pem = fs_err::read_to_string(sandbox.path("token.crt")).unwrap();
    let certificate: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    let root = sandbox.path("");
    let service = Small::serve(move |asked, stream| {
        let basic = format!("Basic {}", STANDARD.encode("me:secret"));
        if asked.headers.get("authorization") != Some(&basic) {
            return answer(stream, "401 Unauthorized", "", b"{\"details\":\"who are you\"}");
        }
        let scopes: Vec<String> =
            asked.line.split(['?', '&']).filter_map(|pair| pair.strip_prefix("scope=").map(str::to_owned)).collect();
        let body = serde_json::json!({"token": token(&root, &scopes, &certificate), "expires_in": 60});
        answer(stream, "200 OK", "", body.to_string().as_bytes());
    });
    let auth = format!(
        "auth: {{token: {{realm: \"http://{}/token\", service: service, issuer: issuer, rootcertbundle: {}}}}}",
        service.at,
        sandbox.path("token.crt").display()
    );
    let _registry = Registry::start(&sandbox, "", &auth);
    sandbox.stack(&format!("image push {name}")).fails(&["denies access", "who are you", "stack login"]);
    sandbox.stack_input("secret", &format!("login -u me --password-stdin {AT}")).ok();
    service.seen();
    sandbox.stack(&format!("image push {name}")).ok();
    let asked = service.seen();
    assert!(asked.iter().all(|asked| asked.line.contains("scope=repository:lib/tiny:pull,push")), "{asked:?}");
    sandbox.stack(&format!("image rm {name}")).ok();
    sandbox.stack(&format!("image pull {name}")).ok();
    let asked = service.seen();
    assert!(
        !asked.is_empty() && asked.iter().all(|asked| asked.line.ends_with("scope=repository:lib/tiny:pull")),
        "{asked:?}"
    );
}

#[test]
fn mirrors_come_first_and_proxies_are_used() {
    let name = format!("{AT}/lib/tiny:1");
    let sandbox = with_image("services: {}", &name, 9);
    let _registry = Registry::start(&sandbox, "", "");
    sandbox.stack(&format!("image push {name}")).ok();
    sandbox.stack(&format!("image rm {name}")).ok();

    let registries = |text: &str| sandbox.file("registries.json", text).display().to_string();
    let own = registries(&format!(
        "{{\"mirrors\": {{\"docker.io\": [\"http://127.0.0.1:1\", \"http://{AT}\"]}}, \"insecure\": [\"registry.test:5000\"]}}"
    ));
    let mirrored = sandbox.stack_env(&[("STACK_REGISTRIES", &own)], "image pull lib/tiny:1").ok();
    assert!(mirrored.err.contains("mirror 127.0.0.1:1"), "{mirrored}");
    assert!(mirrored.out.contains("lib/tiny:1"), "{mirrored}");
    sandbox.stack("image inspect docker.io/lib/tiny:1").ok();

    // A name that only the proxy can find.
    let proxy = Small::serve(|asked, mut stream| {
        if asked.line != "CONNECT registry.test:5000" {
            return answer(stream, "403 Forbidden", "", b"");
        }
        let mut there = TcpStream::connect(AT).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let (mut from, mut to) = (stream.try_clone().unwrap(), there.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let _ = std::io::copy(&mut there, &mut stream);
        let _ = stream.shutdown(Shutdown::Both);
    });
    let through = format!("http://{}", proxy.at);
    let pull = "image pull registry.test:5000/lib/tiny:1";
    let variables = [("STACK_REGISTRIES", own.as_str()), ("https_proxy", &through), ("HTTP_PROXY", &through)];
    sandbox.stack_env(&variables, pull).ok();
    assert!(!proxy.seen().is_empty());
    let [own, https, http] = variables;
    let direct = sandbox.stack_env(&[own, https, http, ("NO_PROXY", "registry.test")], pull);
    direct.fails(&["cannot find the address of registry.test"]);
    assert!(proxy.seen().is_empty());
}
