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

#[test]
fn lists_and_prunes_take_what_filters_say() {
    let sandbox = Sandbox::with("services: {}");
    sandbox.busybox_tar();
    let import = |name: &str, label: &str| {
        sandbox.stack_args(&["image", "import", "-c", label, "-c", "CMD [\"sh\", \"-c\"]", "busybox.tar", name]).ok()
    };
    import("one", "LABEL kind=base");
    import("team/two:2", "LABEL kind=other");
    let listed = |words: &str| -> Vec<String> {
        let ran = sandbox.stack(&format!("image ls --format {{{{.Repository}}}}:{{{{.Tag}}}} {words}")).ok();
        ran.out.lines().map(str::to_owned).collect()
    };
    let (one, two) = ("one:latest", "team/two:2");
    assert_eq!(listed(""), [one, two]);
    for words in ["one", "o*", "one:latest", "-f label=kind=base", "-f label!=kind=other", "-f before=team/two:2"] {
        assert_eq!(listed(words), [one], "{words}");
    }
    for words in ["*/two", "team/t*:2", "-f reference=*/*", "-f label=kind -f since=one"] {
        assert_eq!(listed(words), [two], "{words}");
    }
    for words in ["two", "-f until=1h", "-f dangling=true", "-f label=kind=base -f since=one"] {
        assert_eq!(listed(words), [""; 0], "{words}");
    }
    assert_eq!(listed("-f reference=one -f reference=*/*").len(), 2);
    let id = sandbox.stack("image ls -q one").ok().out.trim().to_owned();
    let whole = sandbox.stack("image ls -q --no-trunc one").ok().out.trim().to_owned();
    assert!(id.len() == 12 && whole.starts_with(&format!("sha256:{id}")), "{id} {whole}");
    let digests = sandbox.stack("image ls -a --digests").ok().out;
    assert!(digests.starts_with("REPOSITORY") && digests.contains("DIGEST") && digests.contains("<none>"), "{digests}");
    sandbox.stack("image ls -f size=3").fails(&["unsupported filter `size=3`", "reference="]);

    let show = |format: &str| {
        let ran = sandbox.stack_args(&["image", "inspect", "-f", format, "one"]).ok();
        ran.out.trim_end().to_owned()
    };
    assert_eq!(show("{{.Config.Labels.kind}} {{.Config.Cmd}} {{index .RepoTags 0}}"), "base [sh -c] one:latest");
    assert_eq!(show("{{json .Config.Env}} {{len .RootFS.Layers}} {{.Id}}"), format!("null 1 {whole}"));
    assert!(show("json").starts_with("{\"Id\":"));
    sandbox.stack("image inspect -f {{.Nope}} one").fails(&["no field `Nope`", "Architecture"]);
    let history = sandbox.stack("image history --human=false --format {{.Size}}|{{.CreatedSince}} one").ok().out;
    let (size, since) = history.lines().last().unwrap().split_once('|').unwrap();
    assert!(size.parse::<u64>().unwrap() > 1000 && since.starts_with("20"), "{history}");

    sandbox.stack("image prune -af --filter until=1h").ok();
    sandbox.stack("image prune -f --filter label=kind").ok();
    assert_eq!(listed(""), [one, two]);
    let pruned = sandbox.stack("image prune -af --filter label=kind=other").ok();
    assert!(pruned.out.contains("Untagged: team/two:2"), "{pruned}");
    assert_eq!(listed(""), [one]);
    // The one whose name went to another has none, and is dangling.
    import("one", "LABEL kind=new");
    assert_eq!(listed("-f dangling=true"), ["<none>:<none>"]);
    assert_eq!(listed("-f dangling=false"), [one]);
    sandbox.stack("image prune -f --filter label!=kind").ok();
    assert_eq!(listed("").len(), 2);
    sandbox.stack("image prune -f").ok();
    assert_eq!(listed(""), [one]);
    sandbox.stack("image prune -f --filter age=3").fails(&["unsupported filter `age=3`", "until="]);
}

/// As docker's: stopped containers, networks that nobody is on, nameless images, the build cache; or what filters take of it.
#[test]
fn a_prune_of_everything_takes_what_rests() {
    let sandbox = Sandbox::with(
        "services:\n  app: { image: stack/host, init: true, command: [sleep, inf], labels: { keep: very } }\n  \
         job: { image: stack/host, command: [\"true\"] }\n",
    );
    let states = || -> Vec<String> {
        let mut all: Vec<String> =
            sandbox.ps().iter().map(|row| format!("{} {}", row["Service"], row["State"]).replace('"', "")).collect();
        all.sort();
        all
    };
    let networks = || sandbox.stack("network ls -q").ok().out;
    sandbox.stack("up -d").ok();
    sandbox.until_state("job", "exited");
    sandbox.stack("network create lonely").ok();
    sandbox.stack("network create --label keep=very labelled").ok();

    sandbox.stack("system prune -f --filter until=1h").ok();
    sandbox.stack("system prune -f --filter label=none").ok();
    assert_eq!(states(), ["app running", "job exited"]);
    assert!(networks().contains("lonely"));
    sandbox.stack("system prune -f --volumes --filter until=1h").fails(&["until", "--volumes"]);
    sandbox.stack("system prune").fails(&["no terminal to ask at", "`-f`"]);
    assert_eq!(states().len(), 2);

    let pruned = sandbox.stack("system prune -f --filter label!=keep").ok();
    let job = format!("Deleted container: {}-job-1", sandbox.project);
    assert!(pruned.out.contains(&job) && pruned.out.contains("Deleted network: lonely"), "{pruned}");
    assert_eq!(states(), ["app running"]);
    assert!(networks().contains("labelled") && networks().contains("_default"), "{}", networks());
    // What runs keeps its own; what is stopped goes, its network after it.
    sandbox.stack("system prune -f").ok();
    assert_eq!(states(), ["app running"]);
    assert!(!networks().contains("labelled") && networks().contains("_default"), "{}", networks());
    sandbox.stack("stop").ok();
    let pruned = sandbox.stack("system prune -f").ok();
    assert!(pruned.out.contains("-app-1") && pruned.out.contains("_default"), "{pruned}");
    assert!(states().is_empty() && networks().is_empty(), "{}", networks());
    sandbox.stack("up -d").ok();
    assert!(states().contains(&"app running".to_owned()));
    sandbox.stack("down").ok();
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
