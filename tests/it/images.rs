//! Images: import, list, inspect, remove; build.

use crate::sandbox::Sandbox;

#[test]
fn what_nothing_needs_is_seen_and_goes() {
    let sandbox = Sandbox::with("services: { app: { image: one, command: [sleep, \"99\"] } }");
    sandbox.busybox_tar();
    sandbox.stack("image import busybox.tar one").ok();
    sandbox.stack("up -d").ok();
    sandbox.shell(&[], "head -c 3000000 /dev/urandom > rootfs/large; tar -C rootfs -cf two.tar .").ok();
    sandbox.stack("image import two.tar two").ok();
    let row = |kind: &str| -> Vec<String> {
        let table = sandbox.stack("system df").ok().out;
        let line = table.lines().find(|line| line.starts_with(kind)).unwrap_or_else(|| panic!("{table}"));
        line[kind.len()..].split_whitespace().map(str::to_owned).collect()
    };
    let before = row("Images");
    assert_eq!(before[..2], ["2", "1"], "{before:?}");
    assert_eq!(row("Containers")[..2], ["1", "1"]);
    let pruned = sandbox.stack("system prune -af").ok();
    assert!(pruned.out.contains("Untagged: two:latest") && pruned.out.contains("Total reclaimed space: "), "{pruned}");
    let after = row("Images");
    assert!(after[..2] == ["1", "1"] && after[2] != before[2], "{before:?} {after:?}");
    // What runs isn't touched, and can be made anew.
    sandbox.stack("up -d --force-recreate -t 0").ok();
    sandbox.until_state("app", "running");
    let history = sandbox.stack("image history one").ok();
    assert!(history.out.contains("imported from an archive"), "{history}");
}

#[test]
fn anonymous_volumes_without_a_container_go_if_asked() {
    let sandbox = Sandbox::with(
        "services: { app: { image: stack/host, init: true, command: [sleep, inf], volumes: [\"/a\", \"named:/n\"] } }\nvolumes: { named: {} }",
    );
    let names = || -> Vec<String> { sandbox.stack("volume ls -q").ok().out.lines().map(str::to_owned).collect() };
    sandbox.stack("up -d").ok();
    let used = names();
    assert_eq!(used.len(), 2);
    let pruned = sandbox.stack("system prune -f --volumes").ok();
    assert!(names() == used && !pruned.out.contains("volume"), "{pruned}");
    sandbox.stack("rm -s -f app").ok();
    sandbox.stack("system prune -f").ok();
    assert_eq!(names(), used);
    let pruned = sandbox.stack("system prune -f --volumes").ok();
    assert_eq!(pruned.out.matches("Deleted volume: ").count(), 1, "{pruned}");
    assert_eq!(names(), [format!("{}_named", sandbox.project)]);
    sandbox.stack("down -v").ok();
}

/// Archives go to other tools and come back, in every form.
#[test]
fn archives_are_those_of_others() {
    let sandbox = Sandbox::with("services: {}");
    sandbox.busybox_tar();
    sandbox.stack("image import busybox.tar one:1").ok();
    let id = sandbox.stack("image inspect one:1").ok();
    let id = id.out.lines().find(|line| line.contains("\"Id\"")).unwrap().to_owned();
    let sh = |line: &str| sandbox.shell(&[], line).ok();
    sandbox.stack("image save one:1 -o saved.tar").ok();
    sh("skopeo copy -q oci-archive:saved.tar:1 oci:layout:1 && skopeo copy -q docker-archive:saved.tar dir:dir");
    sh(
        "skopeo copy -q oci:layout:1 oci-archive:oci.tar:one:2 && skopeo copy -q oci:layout:1 docker-archive:docker.tar:one:3",
    );
    sh("gzip -k docker.tar; zstd -q oci.tar");
    for (archive, name) in
        [("oci.tar", "one:2"), ("docker.tar", "one:3"), ("docker.tar.gz", "one:3"), ("oci.tar.zst", "one:2")]
    {
        sandbox.stack("image rm one:1 one:2 one:3");
        let loaded = sandbox.stack(&format!("image load -i {archive}")).ok();
        assert!(loaded.out.contains(name), "{archive} {loaded}");
        let inspected = sandbox.stack(&format!("image inspect {name}")).ok();
        assert!(inspected.out.contains(&id), "{archive}: {id} in {inspected}");
    }
}

#[test]
fn an_imported_image_runs_and_goes() {
    let sandbox = Sandbox::with("services: { app: { image: tiny, command: [\"echo\", \"from tiny\"] } }");
    sandbox.busybox_tar();
    sandbox.stack("image import busybox.tar tiny").ok();
    let list = sandbox.stack("image ls").ok().out;
    assert!(list.contains("tiny") && list.contains("latest"), "{list}");
    assert!(sandbox.stack("image inspect tiny").ok().out.contains("sha256:"));
    let ran = sandbox.stack("up").ok();
    assert!(ran.out.contains("from tiny"), "{ran}");
    sandbox.stack("down").ok();
    sandbox.stack("image rm tiny").ok();
    assert!(!sandbox.stack("image ls").ok().out.contains("tiny"));
    sandbox.stack("image inspect tiny").fails(&["tiny"]);
}

#[test]
fn a_dockerfile_is_built_and_its_steps_are_kept() {
    let sandbox = Sandbox::with("services: { app: { build: ., image: built } }");
    sandbox.busybox_tar();
    sandbox.file(
        "Dockerfile",
        r#"FROM scratch AS base
ADD busybox.tar /
ARG WORD=world
ENV GREETING="hello $WORD"
FROM base AS maker
WORKDIR /made
RUN echo "$GREETING" > file
FROM base
COPY --from=maker --chown=5:6 --chmod=640 /made/file /file
COPY . /context
LABEL a=b
USER 5:6
WORKDIR /context
EXPOSE 80
CMD ["sh", "-c", "cat /file; ls; id -u"]
"#,
    );
    sandbox.file("kept", "");
    sandbox.file("ignored", "");
    sandbox.file(".dockerignore", "*\n!kept\n!busybox.tar\n");
    sandbox.stack("build").ok();
    let id = |sandbox: &Sandbox| sandbox.stack("image inspect built").ok().out;
    let first = id(&sandbox);
    let ran = sandbox.stack("up --no-log-prefix").ok();
    assert!(ran.out.contains("hello world\n") && ran.out.contains("kept") && ran.out.contains("\n5\n"), "{ran}");
    assert!(!ran.out.contains("ignored"), "{ran}");
    let again = sandbox.stack("build").ok();
    assert!(again.err.contains("CACHED"), "{again}");
    assert_eq!(id(&sandbox), first, "nothing changed");
}

#[test]
fn a_failing_step_is_named_with_its_line() {
    let sandbox = Sandbox::with("services: { app: { build: . } }");
    sandbox.busybox_tar();
    sandbox.file("Dockerfile", "FROM scratch\nADD busybox.tar /\nRUN echo seen; exit 3\n");
    sandbox.stack("build").fails(&["exit 3", "Dockerfile:3"]);
    sandbox.file("Dockerfile", "FROM scratch\nRUUN true\n");
    sandbox.stack("build").fails(&["RUUN", "Dockerfile:2"]);
}
