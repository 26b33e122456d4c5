//! Dev mode: a saved file reaches the container, and what `develop.watch` asks for is done.

use std::time::Instant;

use nix::sys::signal::Signal;

use crate::poll::until_true;
use crate::sandbox::{Running, Sandbox};

/// A service on `stack/host` that sleeps, with these watch rules.
fn sleeper(rules: &str) -> Sandbox {
    Sandbox::with(&format!(
        r#"
services:
  app:
    image: stack/host
    init: true
    command: ["sleep", "infinity"]
    develop: {{ watch: {rules} }}
"#
    ))
}

fn watching(sandbox: &Sandbox, words: &str) -> Running {
    let running = sandbox.start(words);
    running.until_said("Watch enabled");
    running
}

fn until_inside(sandbox: &Sandbox, test: &str) {
    let args = ["exec", "-T", "app", "sh", "-c", test];
    until_true(&format!("in the container: {test}"), || sandbox.stack_args(&args).code == 0);
}

#[test]
fn a_synced_tree_follows_the_host() {
    let sandbox = sleeper(r#"[{ action: sync, path: ./src, target: /app/src, ignore: ["*.tmp", "**/node_modules"] }]"#);
    sandbox.file("src/a", "1");
    sandbox.file("src/deep/b", "1");
    sandbox.file("src/node_modules/x", "1");
    let watch = watching(&sandbox, "watch");
    let pid = sandbox.pid("app");

    // Written in place, made, ignored.
    sandbox.file("src/a", "2");
    sandbox.file("src/x.tmp", "no");
    sandbox.file("src/node_modules/x", "2");
    sandbox.file("src/new/folder/c", "new");
    until_inside(&sandbox, "grep -q 2 /app/src/a && grep -q new /app/src/new/folder/c");
    watch.until_said("src/a");
    watch.until_said("→ app: synced");

    // An editor's save: a new file takes the old one's name. The container's file stays the same one.
    let inode = sandbox.inside("app", "stat -c %i /app/src/a");
    let aside = sandbox.file("src/a.aside", "3");
    fs_err::rename(aside, sandbox.path("src/a")).unwrap();
    until_inside(&sandbox, "grep -q 3 /app/src/a && ! test -e /app/src/a.aside");
    assert_eq!(sandbox.inside("app", "stat -c %i /app/src/a"), inode);

    // A folder is renamed, a file and a folder go.
    fs_err::rename(sandbox.path("src/new"), sandbox.path("src/newer")).unwrap();
    until_inside(&sandbox, "grep -q new /app/src/newer/folder/c && ! test -e /app/src/new");
    sandbox.file("src/newer/folder/c", "again");
    until_inside(&sandbox, "grep -q again /app/src/newer/folder/c");
    fs_err::remove_dir_all(sandbox.path("src/newer")).unwrap();
    fs_err::remove_file(sandbox.path("src/a")).unwrap();
    until_inside(&sandbox, "! test -e /app/src/newer && ! test -e /app/src/a");

    assert_eq!(sandbox.inside("app", "ls -A /app/src"), "", "what was ignored or never changed is not there");
    assert_eq!(sandbox.pid("app"), pid, "sync restarts nothing");
    watch.signal(Signal::SIGINT);
    watch.finish().code(130);
    assert_eq!(sandbox.field("app", "State"), "running");
}

#[test]
fn only_what_is_included_is_synced_and_single_files_are_too() {
    let sandbox = sleeper(
        r#"[{ action: sync, path: ., target: /app, include: ["src/", "*.toml"] },
            { action: sync, path: ./conf/one, target: /etc/later/two, initial_sync: true }]"#,
    );
    sandbox.file("src/a", "1");
    sandbox.file("conf/one", "first");
    let watch = watching(&sandbox, "watch");
    until_inside(&sandbox, "grep -q first /etc/later/two");
    sandbox.file("other/b", "1");
    sandbox.file("x.toml", "1");
    sandbox.file("stack.yaml.orig", "1");
    sandbox.file("src/a", "2");
    sandbox.file("conf/one", "second");
    until_inside(&sandbox, "test -e /app/src/a && test -e /app/x.toml && grep -q second /etc/later/two");
    until_inside(&sandbox, "! test -e /app/other && ! test -e /app/stack.yaml.orig && ! test -e /app/stack.yaml");
    drop(watch);
}

#[test]
fn a_path_may_come_into_being_and_a_stopped_container_is_synced_too() {
    let sandbox = sleeper(r"[{ action: sync, path: ./late/src, target: /app }]");
    sandbox.stack("up -d").ok();
    let watch = watching(&sandbox, "watch --no-up");
    sandbox.file("late/src/a", "1");
    until_inside(&sandbox, "grep -q 1 /app/a");
    sandbox.stack("stop -t 0").ok();
    sandbox.file("late/src/b", "3");
    watch.until_said("late/src/b → app: synced 1 file");
    sandbox.stack("stop -t 0").ok();
    sandbox.file("late/src/c", "4");
    watch.until_said("late/src/c → app: synced 1 file");
    sandbox.stack("start").ok();
    assert_eq!(sandbox.inside("app", "cat /app/a /app/b /app/c"), "134");
}

#[test]
fn a_restart_comes_with_a_change_and_only_with_one() {
    let sandbox = Sandbox::with(
        r#"
services:
  app:
    image: stack/host
    init: true
    command: ["sleep", "infinity"]
    develop:
      watch:
        - { action: sync+restart, path: ./src, target: /app }
        - { action: restart, path: ./conf }
  behind: { image: stack/host, init: true, command: ["sleep", "infinity"], depends_on: { app: { condition: service_started, restart: true } } }
  aside: { image: stack/host, init: true, command: ["sleep", "infinity"], depends_on: [app] }
"#,
    );
    sandbox.file("src/a", "1");
    sandbox.file("conf/x", "1");
    let watch = watching(&sandbox, "watch");
    let pids = || ["app", "behind", "aside"].map(|service| sandbox.pid(service));
    let first = pids();
    sandbox.file("src/a", "2");
    watch.until_said("src/a → app: synced 1 file, serving again");
    let second = pids();
    assert!(first[0] != second[0] && first[1] != second[1] && first[2] == second[2], "{first:?} {second:?}");
    assert_eq!(sandbox.inside("app", "cat /app/a"), "2");
    sandbox.file("conf/x", "2");
    watch.until_said("conf/x → app: serving again");
    assert_ne!(sandbox.pid("app"), second[0]);
    // What is the same already does not count, whether or not it comes with the next change.
    sandbox.file("src/a", "2");
    sandbox.file("src/b", "1");
    watch.until_said("src/b → app: synced 1 file, serving again");
}

#[test]
fn a_command_runs_after_the_sync_and_its_failure_is_shown() {
    let sandbox = sleeper(
        r#"[{ action: sync+exec, path: ./conf, target: /tmp/conf, exec: {
              command: ["sh", "-c", "cat /tmp/conf/c >> /tmp/seen; echo saw $$WHO in $$PWD; exit $$(cat /tmp/conf/c)"],
              environment: { WHO: it }, working_dir: /usr } }]"#,
    );
    sandbox.file("conf/c", "9");
    let watch = watching(&sandbox, "watch");
    sandbox.file("conf/c", "0");
    watch.until_said("ran `sh -c");
    watch.until_said("app | saw it in /usr");
    assert_eq!(sandbox.inside("app", "cat /tmp/seen"), "0");
    sandbox.file("conf/c", "3");
    watch.until_said("ended with exit code 3");
    sandbox.file("conf/c", "0");
    until_inside(&sandbox, "grep -q 030 /tmp/seen");
}

#[test]
fn a_rebuild_swaps_only_when_it_succeeds() {
    let sandbox = Sandbox::with(
        r#"
services:
  app:
    build: .
    init: true
    command: ["sleep", "1000000"]
    develop: { watch: [{ action: rebuild, path: . , ignore: ["*.md"] }] }
  behind: { image: stack/host, init: true, command: ["sleep", "infinity"], depends_on: { app: { condition: service_started, restart: true } } }
  aside: { image: stack/host, init: true, command: ["sleep", "infinity"], depends_on: [app] }
"#,
    );
    sandbox.busybox_tar();
    fs_err::remove_dir_all(sandbox.path("rootfs")).unwrap();
    sandbox.file("Dockerfile", "FROM scratch\nADD busybox.tar /\nCOPY version /version\n");
    sandbox.file("version", "1");
    let watch = watching(&sandbox, "watch");
    let id = sandbox.ids("app");
    let pids = || ["behind", "aside"].map(|service| sandbox.pid(service));
    let before = pids();
    sandbox.file("version", "2");
    watch.until_said("version → app: built, serving again");
    assert!(pids()[0] != before[0] && pids()[1] == before[1], "who depends on it with `restart: true` is restarted");
    assert_ne!(sandbox.ids("app"), id);
    assert_eq!(sandbox.inside("app", "cat /version"), "2");
    let id = sandbox.ids("app");
    sandbox.file("README.md", "no part of it");
    sandbox.file("Dockerfile", "FROM scratch\nADD busybox.tar /\nRUN echo broken; exit 3\n");
    watch.until_said("Dockerfile → app: failed");
    watch.until_said("cannot build service `app`");
    assert_eq!(sandbox.ids("app"), id, "the old one goes on");
    sandbox.file("Dockerfile", "FROM scratch\nADD busybox.tar /\nCOPY version /version\n# the same again\n");
    watch.until_said("Dockerfile → app: built, the image is the same");
    assert_eq!(sandbox.ids("app"), id);
}

#[test]
fn up_watches_beside_the_logs() {
    let sandbox = Sandbox::with(
        r#"
services:
  app:
    image: stack/host
    command: ["sh", "-c", "echo up-and-running; cat /tmp/src/f; exec sleep 1000000"]
    init: true
    develop: { watch: [{ action: sync+restart, path: ./src, target: /tmp/src, initial_sync: true }] }
"#,
    );
    sandbox.file("src/f", "one\n");
    let up = watching(&sandbox, "up --watch");
    up.until_said("up-and-running");
    until_inside(&sandbox, "grep -q one /tmp/src/f");
    let begun = Instant::now();
    sandbox.file("src/f", "two\n");
    up.until_said("| two");
    assert!(begun.elapsed() < *crate::poll::DEADLINE);
    up.signal(Signal::SIGINT);
    up.finish().code(130);
    assert_eq!(sandbox.field("app", "State"), "exited");
}

#[test]
fn what_cannot_be_watched_is_said() {
    let sandbox = Sandbox::with("services: { app: { image: stack/host, command: [\"true\"] } }\n");
    sandbox.stack("watch").fails(&["none of the services has anything to watch", "develop.watch"]);
    let sandbox = sleeper(r"[{ action: rebuild, path: ./src }]");
    sandbox.stack("up --watch").fails(&["develop.watch[0]", "needs service `app` to have a `build`"]);
    sandbox.stack("watch nothing").fails(&["nothing"]);
    sandbox.stack("up --watch -d").fails(&["--detach"]);
}

#[test]
fn auto_restarts_for_what_others_change_and_never_for_its_own_writes() {
    let sandbox = Sandbox::with(
        r#"
services:
  app:
    image: stack/host
    init: true
    command: ["sh", "-c", "for i in 1 2 3; do echo $$i > /src/made.$$i; done; test -e /src/once || echo 1 > /src/once; while :; do date > /src/busy; sleep 0.02; done"]
    volumes: ["./src:/src"]
    x-stack: { watch: auto }
  other:
    image: stack/host
    init: true
    command: ["sleep", "infinity"]
    volumes: ["./src:/src:ro", "/etc/hostname:/host:ro"]
    x-stack: { watch: auto }
"#,
    );
    for name in ["a", "b", "c", "node_modules/x"] {
        sandbox.file(&format!("src/{name}"), "1");
    }
    let watch = watching(&sandbox, "watch");
    watch.until_said("Watch enabled for app, other (2 folders)");
    let pids = || ["app", "other"].map(|service| sandbox.pid(service));
    let before = pids();
    // All that a program does with files of its own, from its first moment on.
    sandbox.inside(
        "app",
        "cd /src; echo 1 > new; mv new newer; cp newer copy; mv copy b; echo 2 >> c; rm newer; mkdir -p d/e; echo 3 > d/e/f
         rm -r d; ln -s a link; touch made.1; chmod 600 made.2; python3 -c 'open(\"busy2\", \"w\").write(\"x\")'; rm made.3",
    );
    sandbox.file("src/node_modules/x", "2");
    sandbox.file("src/some.log", "2");
    let mut last = before;
    for change in ["write a", "replace a", "remove a", "write once", "write b", "write deep/er/x"] {
        let (how, name) = change.split_once(' ').unwrap();
        let path = format!("src/{name}");
        match how {
            "replace" => {
                let aside = sandbox.file("src/4913", "by an editor");
                fs_err::rename(aside, sandbox.path(&path)).unwrap();
            }
            "remove" => fs_err::remove_file(sandbox.path(&path)).unwrap(),
            _ => drop(sandbox.file(&path, change)),
        }
        until_true(&format!("both are restarted after: {change}"), || {
            let now = sandbox.ids("app").len() + sandbox.ids("other").len();
            now == 2 && pids().iter().zip(&last).all(|(now, last)| now != last)
        });
        last = pids();
    }
    watch.signal(Signal::SIGINT);
    let ran = watch.finish();
    let lines = ran.err.lines().filter(|line| line.contains(" → app: ")).count();
    assert_eq!(lines, 6, "one restart for each change, and none for its own writes: {}", ran.err);
    for own in ["busy", "made.3", "newer", "copy", "src/c", "link", "d/e", "node_modules", "log"] {
        assert!(!ran.err.contains(&format!("{own} →")) && !ran.err.contains(&format!("{own},")), "{own}: {}", ran.err);
    }
}

/// The image has neither `tar` nor `rm`, its program is not root, and nearly everything is ignored by the build.
#[test]
fn what_docker_compose_gets_wrong_is_right() {
    let sandbox = Sandbox::with(
        r#"
services:
  app:
    build: .
    init: true
    user: "1000:1000"
    command: ["sleep", "1000000"]
    develop:
      watch:
        - action: sync+exec
          path: ./src
          target: /app
          initial_sync: true
          ignore: ["**/cache", "deep/*.tmp"]
          exec: { command: ["sh", "-c", "cat /app/deep/b"] }
"#,
    );
    sandbox.busybox_tar();
    fs_err::remove_dir_all(sandbox.path("rootfs")).unwrap();
    sandbox.file("Dockerfile", "FROM scratch\nADD busybox.tar /\n");
    sandbox.file(".dockerignore", "*\n!src\n!busybox.tar\n");
    for name in ["a", "deep/b", "deep/x.tmp", "deep/cache/c", "deep/er/cache/c", "while-nobody-looked"] {
        sandbox.file(&format!("src/{name}"), name);
    }
    let watch = watching(&sandbox, "watch");
    watch.until_said(" at the beginning");
    let inside = |text: &str| sandbox.stack_args(&["exec", "-T", "app", "sh", "-c", text]).ok().out;
    assert_eq!(inside("cd /app; echo * */* */*/*").trim(), "a deep while-nobody-looked deep/b deep/er */*/*");
    sandbox.file("src/deep/b", "new");
    watch.until_said("app | new");
    // The same file, not another one of that name: whoever watches or has mounted just it sees the change.
    let before = inside("ls -i /app/a");
    sandbox.file("src/deep/cache/c", "2");
    let aside = sandbox.file("src/.a.swp", "by an editor");
    fs_err::rename(aside, sandbox.path("src/a")).unwrap();
    until_inside(&sandbox, "read line < /app/a; test \"$line\" = 'by an editor'");
    assert_eq!(inside("ls -i /app/a"), before);
    fs_err::remove_dir_all(sandbox.path("src/deep")).unwrap();
    until_inside(&sandbox, "! test -e /app/deep");
    assert_eq!(inside("echo /app/*").trim(), "/app/a /app/while-nobody-looked");
}

#[test]
fn what_runs_out_is_said_with_what_to_raise() {
    let sandbox = sleeper(r#"[{ action: restart, path: ., ignore: ["ignored"] }]"#);
    for number in 0..20 {
        sandbox.file(&format!("src/{number}/x"), "");
        sandbox.file(&format!("ignored/{number}/x"), "");
    }
    // In a user namespace of its own the limit is nobody else's, and no file system can be marked.
    let limited = |most: u32| {
        let line = format!("echo {most} > /proc/sys/user/max_inotify_watches && exec \"$STACK\" watch --no-up");
        let args = ["--user", "--map-root-user", "--mount", "sh", "-c", &line];
        let mut command = sandbox.command("unshare", &args);
        crate::sandbox::begin(command.env("STACK", crate::sandbox::STACK), &args)
    };
    let ran = limited(10).finish();
    ran.fails(&[
        "the limit of watched folders is used up",
        "max_user_watches",
        "sysctl fs.inotify.max_user_watches=524288",
    ]);
    let enough = limited(30);
    enough.until_said("Watch enabled for app (23 folders)");
}
