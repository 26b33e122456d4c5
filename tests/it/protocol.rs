//! What goes over the wire to registries: rights, waits, redirections, mounts and uploads, as a registry sees them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use stack::images::Digest;

use crate::registry::{run, with_image};
use crate::sandbox::{Ran, Sandbox};
use crate::stub::{Answer, Asked, Stub};

/// `me:secret` as a header.
const BASIC: &str = "Basic bWU6c2VjcmV0";

/// A sandbox, and a registry to which its image was pushed; the image's name there.
fn published(ballast: usize) -> (Sandbox, Stub, String) {
    let sandbox = with_image("services: {}", "tiny", ballast);
    let stub = Stub::start();
    let name = format!("{}/lib/tiny:1", stub.at);
    sandbox.stack(&format!("image tag tiny {name}")).ok();
    sandbox.stack(&format!("image push {name}")).ok();
    (sandbox, stub, name)
}

/// Pulls as if the store had nothing.
fn pull(sandbox: &Sandbox, name: &str) -> Ran {
    sandbox.stack("image prune -af").ok();
    sandbox.stack(&format!("image pull {name}"))
}

/// The times between requests.
fn gaps(asked: &[Asked]) -> Vec<Duration> {
    asked.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at)).collect()
}

#[test]
fn a_registry_that_is_busy_or_broken_is_given_time() {
    let (sandbox, stub, name) = published(9);
    stub.rule(|asked, before| match before {
        0 | 1 if asked.is("GET", "/manifests/") => Some(Answer::new(429).with("Retry-After", "1")),
        0..3 if asked.is("GET", "/blobs/") => Some(Answer::new([500, 502, 503][before])),
        _ => None,
    });
    pull(&sandbox, &name).ok();
    let waits = gaps(&stub.of("GET", "/manifests/"));
    assert!(waits.len() == 2 && waits.iter().all(|wait| *wait >= Duration::from_secs(1)), "{waits:?}");
    let blobs: Vec<String> = stub.of("GET", "/blobs/").iter().map(|asked| asked.target.clone()).collect();
    for blob in &blobs {
        let waits = gaps(&stub.of("GET", blob));
        assert!(waits.len() == 3 && waits.iter().all(|wait| *wait >= Duration::from_millis(250)), "{waits:?}");
        assert!(waits[2] >= Duration::from_secs(1), "they grow: {waits:?}");
    }

    // A date is a wish, too.
    stub.rule(|asked, before| {
        let then = Timestamp::now() + SignedDuration::from_secs(3);
        let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&then).unwrap();
        (before == 0 && asked.is("GET", "/manifests/")).then(|| Answer::new(429).with("Retry-After", date))
    });
    pull(&sandbox, &name).ok();
    let waits = gaps(&stub.of("GET", "/manifests/"));
    assert!(waits[0] > Duration::from_millis(1500), "{waits:?}");

    // Nobody waits for a day, or for ever.
    stub.rule(|asked, _| asked.is("GET", "/manifests/").then(|| Answer::new(429).with("Retry-After", "86400")));
    pull(&sandbox, &name).fails(&["limits the rate of requests and asks to wait 86400 s", "stack login", "mirror"]);
    assert_eq!(stub.of("GET", "/manifests/").len(), 1);
    stub.rule(|asked, _| asked.is("GET", "/manifests/").then(|| Answer::new(503).body("overloaded")));
    pull(&sandbox, &name).fails(&["answered 503", "fetching the manifest"]);
    assert_eq!(stub.of("GET", "/manifests/").len(), 5);

    // Whatever is asked, once more helps.
    let sent = AtomicBool::new(false);
    stub.rule(move |asked, before| {
        let first = match asked.method.as_str() {
            "HEAD" => false,
            // Each goes to a place of its own.
            "PATCH" => !sent.swap(true, Ordering::SeqCst),
            _ => before == 0,
        };
        first.then(|| Answer::new(503))
    });
    pull(&sandbox, &name).ok();
    sandbox.stack(&format!("image tag {name} {}/lib/other:1", stub.at)).ok();
    sandbox.stack(&format!("image push {}/lib/other:1", stub.at)).ok();
    assert!(stub.content("/v2/lib/other/manifests/1").is_some());
}

/// Lets in who has a token of `/token`; each is good for `uses` requests.
fn guarded(stub: &Stub, uses: usize) {
    let at = stub.at.clone();
    let tokens: Mutex<BTreeMap<String, usize>> = Mutex::default();
    stub.rule(move |asked, before| {
        let mut tokens = tokens.lock().unwrap();
        if asked.path() == "/token" {
            tokens.insert(format!("Bearer t{before}"), uses);
            return Some(Answer::new(200).body(format!("{{\"token\": \"t{before}\"}}")));
        }
        let left = asked.header("authorization").and_then(|token| tokens.get_mut(token)).filter(|left| **left > 0);
        if let Some(left) = left {
            *left -= 1;
            return None;
        }
        let challenge = format!("Bearer realm=\"http://{at}/token\",service=\"the service\",scope=\"x:y:z\"");
        Some(Answer::new(401).with("WWW-Authenticate", challenge))
    });
}

#[test]
fn tokens_are_for_what_is_done_and_passwords_for_who_gives_them() {
    let (sandbox, stub, name) = published(9);
    guarded(&stub, 1000);
    pull(&sandbox, &name).ok();
    let token = &stub.of("GET", "/token")[0];
    assert_eq!(token.target, "/token?service=the%20service&scope=repository:lib/tiny:pull");
    assert_eq!(token.header("authorization"), None);

    guarded(&stub, 1000);
    sandbox.stack_input("secret", &format!("login -u me --password-stdin {}", stub.at)).ok();
    assert!(stub.of("GET", "/token").iter().any(|asked| asked.header("authorization") == Some(BASIC)));
    guarded(&stub, 1000);
    pull(&sandbox, &name).ok();
    let other = format!("{}/lib/other:1", stub.at);
    sandbox.stack(&format!("image tag {name} {other}")).ok();
    sandbox.stack(&format!("image push {other}")).ok();
    let tokens = stub.of("GET", "/token");
    let scopes: Vec<&str> = tokens.iter().map(|asked| asked.target.split_once("&scope=").unwrap().1).collect();
    assert_eq!(scopes, ["repository:lib/tiny:pull", "repository:lib/other:pull,push&scope=repository:lib/tiny:pull"]);
    for asked in stub.asked() {
        let basic = asked.header("authorization").is_some_and(|value| value.starts_with("Basic"));
        assert_eq!(basic, asked.path() == "/token", "{asked:?}");
    }

    // One that runs out in the middle is followed by another.
    guarded(&stub, 2);
    pull(&sandbox, &name).ok();
    assert!(stub.of("GET", "/token").len() >= 2);

    // An identity token stands for the user.
    let logins = format!("{{\"auths\": {{\"{}\": {{\"identitytoken\": \"idt\"}}}}}}", stub.at);
    guarded(&stub, 1000);
    sandbox.stack("image prune -af").ok();
    sandbox.stack_env(&[("DOCKER_AUTH_CONFIG", &logins)], &format!("image pull {name}")).ok();
    let form = String::from_utf8(stub.of("POST", "/token")[0].body.clone()).unwrap();
    for part in ["grant_type=refresh_token", "refresh_token=idt", "scope=repository:lib/tiny:pull", "service="] {
        assert!(form.contains(part), "{form}");
    }

    // A realm elsewhere gets no password.
    let thief = Stub::start();
    let realm = format!("Bearer realm=\"http://localhost:{}/token\"", thief.at.rsplit(':').next().unwrap());
    stub.rule(move |_, _| Some(Answer::new(401).with("WWW-Authenticate", realm.clone())));
    pull(&sandbox, &name).fails(&["the password is not for a token service of somebody else"]);
    assert!(thief.asked().is_empty());
}

#[test]
fn storage_elsewhere_gets_no_rights() {
    let (sandbox, stub, name) = published(100_000);
    sandbox.stack_input("secret", &format!("login -u me --password-stdin {}", stub.at)).ok();
    let (storage, registry, place) = (Stub::start(), stub.clone(), stub.at.clone());
    // The storage has what the registry has, and wants its query as it is.
    storage.rule(move |asked, before| {
        assert!(asked.target.ends_with("?signature=a%2Fb%3D&x=1"), "{asked:?}");
        let bytes = registry.content(asked.path()).unwrap();
        let begin = asked
            .header("range")
            .map_or(0, |range| range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap());
        // The first answer of each ends early.
        let part = if before == 0 && bytes.len() > 50_000 { &bytes[..50_000] } else { &bytes[begin..] };
        let range = format!("bytes {begin}-{}/{}", bytes.len() - 1, bytes.len());
        let answer = Answer::new(if begin > 0 { 206 } else { 200 }).with("Content-Range", range);
        let answer = answer.with("Content-Length", (bytes.len() - begin).to_string());
        Some(answer.with("Set-Cookie", "who=you").body(part))
    });
    let at = storage.at.clone();
    stub.rule(move |asked, _| {
        if asked.header("authorization") != Some(BASIC) {
            return Some(Answer::new(401).with("WWW-Authenticate", "Basic realm=\"r\""));
        }
        let status = if asked.path().ends_with(['0', '1', '2', '3', '4', '5', '6', '7']) { 307 } else { 302 };
        let there = format!("http://{at}{}?signature=a%2Fb%3D&x=1", asked.path());
        asked.is("GET", "/blobs/").then(|| Answer::new(status).with("Location", there))
    });
    pull(&sandbox, &name).ok();
    assert!(storage.asked().len() >= 2, "{:?}", storage.asked());
    for asked in storage.asked() {
        assert!(asked.header("authorization").is_none() && asked.header("cookie").is_none(), "{asked:?}");
    }
    // To itself, by a path alone, the registry may redirect with the rights that it gave.
    let moved = |asked: &Asked| asked.path().replace("/lib/tiny/", "/moved/");
    let copy = stub.clone();
    stub.rule(move |asked, _| {
        if asked.header("authorization") != Some(BASIC) {
            return Some(Answer::new(401).with("WWW-Authenticate", "Basic realm=\"r\""));
        }
        if let Some(bytes) = asked.path().contains("/moved/").then(|| asked.path().replace("/moved/", "/lib/tiny/")) {
            return Some(Answer::new(200).body(copy.content(&bytes).unwrap()));
        }
        asked.is("GET", "/blobs/").then(|| Answer::new(301).with("Location", moved(asked)))
    });
    pull(&sandbox, &name).ok();
    assert!(stub.asked().iter().any(|asked| asked.path().contains("/moved/")), "{place}");
}

#[test]
fn old_manifests_are_refused_in_words() {
    let sandbox = Sandbox::new();
    let stub = Stub::start();
    let old = br#"{"schemaVersion": 1, "name": "lib/old", "tag": "1", "architecture": "amd64", "fsLayers": [], "history": []}"#;
    for kind in ["v1+json", "v1+prettyjws"] {
        let kind = format!("application/vnd.docker.distribution.manifest.{kind}");
        stub.put("/v2/lib/old/manifests/1", &kind, old.to_vec());
        let refused = sandbox.stack(&format!("image pull {}/lib/old:1", stub.at));
        refused.fails(&["an image of Docker's schema 1, which is not supported", "newer client"]);
    }
    let accepted = stub.of("GET", "/manifests/")[0].header("accept").unwrap().to_owned();
    assert!(accepted.contains("oci.image.index.v1") && !accepted.contains("distribution.manifest.v1"), "{accepted}");
}

/// Logins are kept by the helper that `credsStore` names, and nowhere else.
#[test]
fn a_store_of_logins_keeps_them_all() {
    let (sandbox, stub, name) = published(9);
    stub.rule(|asked, _| {
        let denied = Answer::new(401).with("WWW-Authenticate", "Basic realm=\"r\"");
        (asked.header("authorization") != Some(BASIC)).then_some(denied)
    });
    // What it was told is in a file for each registry.
    let helper = r#"#!/bin/sh
cd "$(dirname "$0")"
case $1 in
store) cat >kept ;;
get)
    read -r server
    grep -q "\"$server\"" kept 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; }
    cat kept ;;
erase) rm -f kept ;;
*) exit 1 ;;
esac
echo "$1" >>calls
"#;
    let helper = sandbox.file("bin/docker-credential-fake", helper);
    run(&sandbox, "chmod", &format!("755 {}", helper.display()));
    let config = sandbox.file("docker/config.json", r#"{"credsStore": "fake", "HttpHeaders": {"X": "y"}}"#);
    let search = format!("{}:/usr/bin:/bin", sandbox.path("bin").display());
    let folder = config.parent().unwrap().display().to_string();
    let variables = [("DOCKER_CONFIG", folder.as_str()), ("PATH", &search)];
    let with_helper = |words: &str| sandbox.stack_env(&variables, words);
    let text = || fs_err::read_to_string(&config).unwrap();

    sandbox.stack("image prune -af").ok();
    with_helper(&format!("image pull {name}")).fails(&["denies access", "stack login"]);
    let login = format!("echo secret | {} login -u me --password-stdin {}", crate::sandbox::STACK, stub.at);
    let kept = sandbox.shell(&variables, &login).ok();
    assert!(kept.out.contains("Login Succeeded") && !kept.err.contains("unencrypted"), "{kept}");
    let told = fs_err::read_to_string(sandbox.path("bin/kept")).unwrap();
    assert!(told.contains("\"Username\":\"me\"") && told.contains("\"Secret\":\"secret\""), "{told}");
    assert!(!text().contains("c2VjcmV0") && text().contains("HttpHeaders") && text().contains(&stub.at), "{}", text());
    with_helper(&format!("image pull {name}")).ok();
    with_helper(&format!("logout {}", stub.at)).ok();
    assert!(!sandbox.path("bin/kept").exists() && !text().contains(&stub.at), "{}", text());
    sandbox.stack("image prune -af").ok();
    with_helper(&format!("image pull {name}")).fails(&["denies access"]);

    // A helper that isn't there, or fails, is named.
    sandbox.file("docker/config.json", r#"{"credsStore": "absent"}"#);
    with_helper(&format!("image pull {name}"))
        .fails(&["credential helper `absent` failed", "docker-credential-absent"]);
    sandbox.file("docker/config.json", r#"{"credsStore": "../bin/fake"}"#);
    with_helper(&format!("image pull {name}")).fails(&["its name must be no path"]);
}

#[test]
fn what_another_repository_has_is_mounted_not_sent() {
    let (sandbox, stub, name) = published(9);
    let other = format!("{}/team/copy:2", stub.at);
    sandbox.stack(&format!("image tag {name} {other}")).ok();
    let registry = stub.clone();
    stub.rule(move |asked, _| {
        let digest = asked.target.split_once("?mount=")?.1.split('&').next()?.replace("%3A", ":");
        let bytes = registry.content(&format!("/v2/lib/tiny/blobs/{digest}"))?;
        registry.put(&format!("/v2/team/copy/blobs/{digest}"), "", bytes);
        Some(Answer::new(201).with("Location", format!("/v2/team/copy/blobs/{digest}")))
    });
    sandbox.stack(&format!("image push {other}")).ok();
    let mounts = stub.of("POST", "mount=");
    assert!(!mounts.is_empty() && mounts.iter().all(|asked| asked.target.contains("&from=lib/tiny")), "{mounts:?}");
    // The configuration is small, and known by no layer.
    let sent: usize = stub.of("PATCH", "/uploads/").iter().map(|asked| asked.body.len()).sum();
    assert!(sent < 2000, "{sent} bytes were sent");
    pull(&sandbox, &other).ok();

    // A registry that doesn't mount takes it all.
    let third = format!("{}/team/third:3", stub.at);
    sandbox.stack(&format!("image tag {other} {third}")).ok();
    stub.rule(|_, _| None);
    sandbox.stack(&format!("image push {third}")).ok();
    let sent: usize = stub.of("PATCH", "/uploads/").iter().map(|asked| asked.body.len()).sum();
    assert!(sent > 2000 && !stub.of("POST", "mount=").is_empty(), "{sent} bytes were sent");
    pull(&sandbox, &third).ok();
}

#[test]
fn an_upload_that_breaks_goes_on_where_it_was() {
    const SIZE: usize = 3 << 20;
    const FIRST: usize = 1 << 20;
    let (sandbox, stub, name) = published(SIZE);
    let other = format!("{}/lib/other:1", stub.at);
    sandbox.stack(&format!("image tag {name} {other}")).ok();
    let length = |asked: &Asked| asked.header("content-length").map_or(0, |text| text.parse::<usize>().unwrap());
    stub.rule(move |asked, before| {
        (before == 0 && asked.method == "PATCH" && length(asked) > SIZE).then(|| Answer::cut(FIRST))
    });
    let pushed = sandbox.stack(&format!("image push {other}")).ok();
    assert!(pushed.err.contains("Retrying"), "{pushed}");
    let large: Vec<Asked> =
        stub.of("PATCH", "/uploads/").into_iter().filter(|asked| asked.body.len() >= FIRST).collect();
    assert_eq!(large.len(), 2, "one request, and its rest");
    let range = large[1].header("content-range").unwrap().to_owned();
    assert_eq!(range, format!("{FIRST}-{}", FIRST + large[1].body.len() - 1));
    let whole = [large[0].body.as_slice(), &large[1].body].concat();
    assert_eq!(stub.content(&format!("/v2/lib/other/blobs/{}", Digest::of(&whole))), Some(whole));
    pull(&sandbox, &other).ok();

    // A registry that lost what came gets it again from the beginning.
    let third = format!("{}/lib/third:1", stub.at);
    sandbox.stack(&format!("image tag {other} {third}")).ok();
    let lost = AtomicBool::new(false);
    stub.rule(move |asked, _| {
        if asked.is("GET", "/uploads/") {
            return Some(Answer::new(404));
        }
        let large = asked.method == "PATCH" && length(asked) > SIZE;
        (large && !lost.swap(true, Ordering::SeqCst)).then(|| Answer::cut(FIRST))
    });
    sandbox.stack(&format!("image push {third}")).ok();
    pull(&sandbox, &third).ok();
}
