//! cp, export, commit, diff: a container's files from outside.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Stdio;

use crate::sandbox::{STACK, Sandbox};

const FILE: &str = r#"
services:
  app:
    image: box:1
    init: true
    command: ["sleep", "infinity"]
    user: "1000:1000"
    tmpfs: [/fast]
    volumes: [data:/data, ./bound:/bound]
  stopped: { image: box:1, command: [busybox, "true"], volumes: [data:/data] }
volumes: { data: {} }
"#;

fn up() -> Sandbox {
    let sandbox = Sandbox::with(FILE);
    sandbox.busybox_tar();
    sandbox.stack("image import busybox.tar box:1").ok();
    sandbox.stack("up -d").ok();
    sandbox.until_state("stopped", "exited");
    sandbox
}

fn read(sandbox: &Sandbox, name: &str) -> String {
    fs_err::read_to_string(sandbox.path(name)).unwrap()
}

#[test]
fn cp_follows_dockers_path_rules() {
    let sandbox = up();
    sandbox.file("f", "hello");
    sandbox.file("d/e/g", "deep");
    let inside = |text: &str| sandbox.stack_args(&["exec", "-T", "-u", "0", "app", "sh", "-c", text]).ok().out;
    inside("mkdir /tmp");
    sandbox.stack("cp f app:/tmp/f").ok();
    sandbox.stack("cp f app:tmp").ok();
    sandbox.stack("cp d app:/tmp/new").ok();
    sandbox.stack("cp d app:/tmp").ok();
    sandbox.stack("cp d/. app:/tmp").ok();
    assert_eq!(inside("cd /tmp; cat f new/e/g d/e/g e/g"), "hellodeepdeepdeep");
    sandbox.stack("cp f app:/tmp/none/f").fails(&["app-1:/tmp/none/f"]);
    sandbox.stack("cp f app:/tmp/none/").fails(&["does not exist"]);
    sandbox.stack("cp d app:/tmp/f").fails(&["not a directory"]);
    sandbox.stack("cp f/ app:/tmp/x").fails(&["not a directory"]);
    sandbox.stack("cp none app:/tmp/x").fails(&["no such file", "none"]);
    sandbox.stack("cp app:/no/such x").fails(&["app-1:/no/such"]);
    sandbox.stack("cp app:/none x").fails(&["no such file"]);
    sandbox.stack("cp ghost:/x x").fails(&["ghost", "app, stopped"]);
    sandbox.stack("cp f d").fails(&["SERVICE:PATH"]);
    sandbox.stack("cp app:/x stopped:/x").fails(&["from one container to another"]);
    sandbox.stack("cp --index 2 f app:/tmp").fails(&["no container with index 2"]);
    sandbox.stack("cp app:/tmp/new out").ok();
    sandbox.stack("cp app:/tmp/new out").ok();
    sandbox.stack("cp app:/tmp/new/. flat").ok();
    sandbox.stack(&format!("cp {}-app-1:/tmp/f byname", sandbox.project)).ok();
    assert_eq!(
        read(&sandbox, "out/e/g") + &read(&sandbox, "out/new/e/g") + &read(&sandbox, "flat/e/g"),
        "deepdeepdeep"
    );
    assert_eq!(read(&sandbox, "byname"), "hello");
}

#[test]
fn cp_sees_volumes_and_memory_and_works_on_stopped_containers() {
    let sandbox = up();
    sandbox.file("f", "hello");
    for place in ["/data/f", "/bound/f", "/fast/f", "/etc/hosts"] {
        sandbox.stack(&format!("cp f app:{place}")).ok();
        assert_eq!(sandbox.inside("app", &format!("cat {place}")), "hello");
    }
    assert_eq!(read(&sandbox, "bound/f"), "hello");
    sandbox.stack("cp stopped:/data/f fromstopped").ok();
    assert_eq!(read(&sandbox, "fromstopped"), "hello");
    sandbox.file("g", "later");
    sandbox.stack("cp g stopped:/data/g").ok();
    assert_eq!(sandbox.inside("app", "cat /data/g"), "later");
    sandbox.stack("cp g stopped:/own").ok();
    sandbox.stack("cp stopped:/own own").ok();
    assert_eq!(read(&sandbox, "own"), "later");
    assert!(sandbox.stack("diff stopped").ok().out.contains("A /own\n"));
}

#[test]
fn cp_streams_archives() {
    let sandbox = up();
    sandbox.file("d/e/g", "deep");
    let script = format!("tar -c d | {STACK} cp - app:/fast && {STACK} cp app:/fast/d - | tar -xO d/e/g");
    let ran = sandbox.command("sh", &["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "deep", "{}", String::from_utf8_lossy(&ran.stderr));
    sandbox.stack_input("no archive", "cp - app:/fast").code(1);
    sandbox.stack_input("", "cp - app:/etc/hosts").fails(&["must be a folder"]);
}

#[test]
fn no_link_leads_out_of_a_container() {
    let sandbox = up();
    let outside = sandbox.path("outside");
    fs_err::create_dir_all(&outside).unwrap();
    fs_err::write(outside.join("secret"), "host").unwrap();
    let target = outside.display();
    let inside = |text: &str| sandbox.stack_args(&["exec", "-T", "-u", "0", "app", "sh", "-c", text]).ok();
    let ln = "busybox ln -s";
    inside(&format!(
        "busybox mkdir -p /tmp; {ln} {target} /tmp/abs; {ln} ../../../../../../..{target} /tmp/up; {ln} /proc/1/root/etc /tmp/magic"
    ));
    sandbox.file("f", "evil");
    for link in ["abs", "up"] {
        sandbox.stack(&format!("cp f app:/tmp/{link}/secret")).code(1);
        sandbox.stack(&format!("cp app:/tmp/{link}/secret stolen")).code(1);
    }
    // Where such a path exists inside, it is the container's.
    inside(&format!("busybox mkdir -p {target}"));
    sandbox.stack("cp f app:/tmp/abs/secret").ok();
    assert_eq!(read(&sandbox, "outside/secret"), "host");
    assert_eq!(sandbox.inside("app", &format!("cat {target}/secret")), "evil");
    // A link itself is copied as a link, its target only with -L.
    sandbox.stack("cp app:/tmp/abs link").ok();
    assert_eq!(fs_err::read_link(sandbox.path("link")).unwrap(), outside);
    sandbox.stack("cp -L app:/tmp/abs/secret followed").ok();
    assert_eq!(read(&sandbox, "followed"), "evil");
    symlink("f", sandbox.path("tofile")).unwrap();
    sandbox.stack("cp -L tofile app:/fast/x").ok();
    assert_eq!(sandbox.inside("app", "cat /fast/x"), "evil");
}

#[test]
fn copies_belong_to_who_asked() {
    let sandbox = up();
    let file = sandbox.file("f", "x");
    std::os::unix::fs::chown(&file, Some(1234), Some(1235)).unwrap();
    sandbox.stack("cp f app:/fast/kept").ok();
    sandbox.stack("cp -a f app:/fast/users").ok();
    let owners = sandbox.inside("app", "busybox stat -c %u:%g /fast/kept /fast/users");
    assert_eq!(owners, "1234:1235\n1000:1000");
    sandbox.stack_args(&["exec", "-T", "-u", "0", "app", "busybox", "chmod", "4755", "/fast/kept"]).ok();
    let sudo = [("SUDO_UID", "4321"), ("SUDO_GID", "4322"), ("SUDO_USER", "someone")];
    sandbox.stack_env(&sudo, "cp app:/fast/kept mine").ok();
    sandbox.stack_env(&sudo, "cp -a app:/fast/kept theirs").ok();
    let owner =
        |name: &str| fs_err::metadata(sandbox.path(name)).map(|meta| (meta.uid(), meta.gid(), meta.mode() & 0o7777));
    assert_eq!(owner("mine").unwrap(), (4321, 4322, 0o755));
    assert_eq!(owner("theirs").unwrap(), (1234, 1235, 0o4755));
    sandbox.stack_env(&sudo, "export -o app.tar app").ok();
    assert_eq!(owner("app.tar").unwrap().0, 4321);
    // So do the sources of bind mounts that are made for them.
    sandbox.stack("down").ok();
    fs_err::remove_dir(sandbox.path("bound")).unwrap();
    sandbox.stack_env(&sudo, "up -d").ok();
    assert_eq!(owner("bound").unwrap().0, 4321);
}

#[test]
fn export_commit_and_diff_show_what_changed() {
    let sandbox = up();
    let inside = |text: &str| sandbox.stack_args(&["exec", "-T", "-u", "0", "app", "sh", "-c", text]).ok();
    inside("echo changed >/mark; echo volume >/data/x; busybox rm /bin/id; busybox mkdir -p /var/empty");
    let diff = sandbox.stack("diff app").ok().out;
    let lines: Vec<&str> = diff.lines().collect();
    assert_eq!(lines, ["C /bin", "D /bin/id", "A /mark", "A /var", "A /var/empty"]);
    let json = sandbox.stack("diff --format json app").ok().out;
    assert!(json.contains(r#"{"Kind":"D","Path":"/bin/id"}"#), "{json}");

    sandbox.stack("export -o app.tar app").ok();
    let tar = |args: &[&str]| {
        let ran = sandbox.command("tar", args).stdout(Stdio::piped()).output().unwrap();
        String::from_utf8(ran.stdout).unwrap()
    };
    assert_eq!(tar(&["-xOf", "app.tar", "mark"]), "changed\n");
    let names = tar(&["-tf", "app.tar"]);
    assert!(names.contains("bin/busybox") && !names.contains("data/x") && !names.contains("bin/id\n"), "{names}");
    sandbox.stack("export -o none/app.tar app").code(1);

    let ran = sandbox.stack("commit -m why -a me -c EXPOSE=1 app made:1");
    ran.fails(&["EXPOSE=1"]);
    sandbox.stack_args(&["commit", "-m", "why", "-a", "me", "-c", "ENV MADE=yes", "app", "made:1"]).ok();
    sandbox.file("two.yaml", "services: { app: { image: made:1, pull_policy: never } }");
    let words = [
        "-p",
        "two",
        "-f",
        "two.yaml",
        "run",
        "--rm",
        "-T",
        "app",
        "sh",
        "-c",
        "cat /mark; echo $MADE; test -e /bin/id || echo gone",
    ];
    let ran = sandbox.stack_args(&words);
    assert_eq!(ran.ok().out, "changed\nyes\ngone\n");
    sandbox.stack("-p two down").ok();
    assert_eq!(sandbox.field("app", "State"), "running");
    // A stopped one, too.
    sandbox.stack("stop app -t 0").ok();
    sandbox.stack("export -o stopped.tar app").ok();
    assert_eq!(tar(&["-xOf", "stopped.tar", "mark"]), "changed\n");
    sandbox.stack("commit app made:2").ok();
    sandbox.stack("diff ghost").fails(&["ghost"]);
}

#[test]
fn a_commit_freezes_its_container_meanwhile() {
    // Nothing is written between the two files of a pair while the container is frozen: both or none are in the image.
    let sandbox = Sandbox::with(
        r#"
services:
  app: { image: box:1, init: true, command: ["sh", "-c", "i=0; while :; do i=$$((i+1)); echo $$i >/a; done"] }
"#,
    );
    sandbox.busybox_tar();
    sandbox.stack("image import busybox.tar box:1").ok();
    sandbox.stack("up -d").ok();
    sandbox.stack("commit app one:1").ok();
    let first = sandbox.inside("app", "cat /a");
    crate::poll::until_true("the container goes on after its commit", || sandbox.inside("app", "cat /a") != first);
}

#[test]
fn permissions_and_hard_links_are_copied() {
    let sandbox = up();
    sandbox.file("d/a", "x");
    fs_err::hard_link(sandbox.path("d/a"), sandbox.path("d/b")).unwrap();
    fs_err::set_permissions(sandbox.path("d/a"), std::fs::Permissions::from_mode(0o640)).unwrap();
    sandbox.stack("cp d app:/fast/d").ok();
    assert_eq!(sandbox.inside("app", "busybox stat -c '%a %h' /fast/d/b"), "640 2");
}
