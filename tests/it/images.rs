//! Images: import, list, inspect, remove; build.

use crate::sandbox::Sandbox;

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
