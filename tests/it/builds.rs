//! What `stack build` offers beside building: a look at Dockerfiles, a bake file, ssh agents and limits for RUN steps.

use serde_json::Value;

use crate::lan::run;
use crate::sandbox::{STACK, Sandbox};

#[test]
fn dockerfiles_are_looked_over_without_building() {
    let sandbox = Sandbox::with("services: { good: { build: good }, odd: { build: odd }, bad: { build: bad } }");
    sandbox.file("good/Dockerfile", "FROM scratch\nCOPY . /\n");
    sandbox.file("odd/Dockerfile", "FROM scratch\nMAINTAINER me\n");
    sandbox.file("bad/Dockerfile", "FROM scratch\nRUUN true\n");
    let good = sandbox.stack("build --check good").ok();
    assert!(good.out.contains("no warnings found"), "{good}");
    let odd = sandbox.stack("build --check odd --build-arg UNUSED=1").fails(&["MAINTAINER", "UNUSED"]);
    assert!(odd.out.contains("2 warnings found"), "{odd}");
    sandbox.stack("build --check").fails(&["MAINTAINER", "RUUN", "Dockerfile:2", "service `bad`"]);
    assert!(!sandbox.root().join("lib").exists(), "nothing was made");
}

#[test]
fn a_bake_file_says_what_would_be_built() {
    let sandbox = Sandbox::with(
        "
services:
  web.ui:
    image: reg.example/ui
    build:
      context: ./ui
      args: { A: '1', B: }
      tags: ['other:2']
      ssh: [default, key=./key]
      secrets: [token]
      additional_contexts: { base: 'service:base' }
      extra_hosts: ['there=10.0.0.1']
  base: { build: { context: ./base, dockerfile_inline: FROM scratch } }
secrets: { token: { file: ./token } }
",
    );
    let printed = sandbox.stack_env(&[("B", "2")], "build --print --push --no-cache web.ui").ok();
    let file: Value = serde_json::from_str(&printed.out).unwrap();
    assert_eq!(file["group"]["default"]["targets"], serde_json::json!(["web_ui"]));
    let target = &file["target"]["web_ui"];
    let at = |path: &str| sandbox.path(path).to_str().unwrap().to_owned();
    assert_eq!(target["context"], at("ui"));
    assert_eq!(target["dockerfile"], at("ui/Dockerfile"));
    assert_eq!(target["args"], serde_json::json!({ "A": "1", "B": "2" }));
    assert_eq!(target["tags"], serde_json::json!(["other:2", "reg.example/ui"]));
    assert_eq!(target["ssh"], serde_json::json!(["default=", format!("key={}", at("key"))]));
    assert_eq!(target["secret"], serde_json::json!([format!("id=token,type=file,src={}", at("token"))]));
    assert_eq!(target["contexts"]["base"], "target:base");
    assert_eq!(target["extra-hosts"]["there"], "10.0.0.1");
    assert_eq!((&target["no-cache"], &target["output"][0]), (&Value::Bool(true), &"type=registry".into()));
    let base = &file["target"]["base"];
    assert_eq!((&base["dockerfile-inline"], &base["output"][0]), (&"FROM scratch".into(), &"type=docker".into()));
    assert_eq!(base["dockerfile"], Value::Null);
}

/// A real agent, and a real client in the step.
#[test]
fn steps_reach_the_callers_ssh_agent() {
    let sandbox = Sandbox::with("services: { app: { build: ., image: built } }");
    sandbox.busybox_tar();
    let line = "ssh-keygen -q -t ed25519 -N '' -C of-the-caller -f key
        for file in $(command -v ssh-add) $(ldd $(command -v ssh-add) | grep -o '/[^ ]*'); do
            cp --parents -L $file rootfs
        done
        ln -s busybox rootfs/bin/stat
        tar -C rootfs -cf all.tar .";
    sandbox.shell(&[], line).ok();
    let step =
        "RUN --mount=type=ssh,uid=5,gid=6,mode=0640,required=true ssh-add -l && stat -c '%a %u %g' $SSH_AUTH_SOCK";
    sandbox.file("Dockerfile", &format!("FROM scratch\nADD all.tar /\nUSER 5\n{step}\n"));

    sandbox.stack("build").fails(&["the ssh agent `default` was not given", "--ssh default", "Dockerfile:4"]);
    sandbox.stack("build --ssh default").fails(&["SSH_AUTH_SOCK is not set"]);
    sandbox.stack("build --ssh default=missing").fails(&["there is no missing"]);
    // Keys in files, and an agent that runs; in the end the file says so.
    let built = sandbox.stack("build --ssh default=key").ok();
    assert!(built.err.contains("of-the-caller (ED25519)") && built.err.contains("640 5 6"), "{built}");
    let line = format!(
        "eval $(ssh-agent) && ssh-add -q key && {STACK} build --no-cache --ssh default; code=$?; ssh-agent -k; exit $code"
    );
    let built = sandbox.shell(&[], &line).ok();
    assert!(built.err.contains("of-the-caller (ED25519)"), "{built}");
    sandbox.file(
        "stack.yaml",
        "services: { app: { build: { context: ., no_cache: true, ssh: [default=./key] }, image: built } }",
    );
    let built = sandbox.stack("build").ok();
    assert!(built.err.contains("of-the-caller (ED25519)") && !built.err.contains("warning"), "{built}");
    // Nothing of it is in the image. That no agent is left is seen at the end of every test.
    let listed = sandbox.stack_args(&["run", "--rm", "app", "sh", "-c", "ls /run; echo $SSH_AUTH_SOCK."]).ok();
    assert_eq!(listed.out, ".\n", "{listed}");
    sandbox.stack("down").ok();
}

#[test]
fn steps_have_the_memory_they_are_given() {
    let sandbox = Sandbox::with("services: { app: { build: . } }");
    sandbox.busybox_tar();
    sandbox.file(
        "Dockerfile",
        "FROM scratch\nADD busybox.tar /\nRUN busybox head -c 60m /dev/zero | busybox tail | busybox wc -c | busybox grep 62914560\n",
    );
    sandbox.stack("build --memory 20m").fails(&["Dockerfile:3"]);
    sandbox.stack("build -m 200m").ok();
}

#[test]
fn steps_have_the_limits_and_the_rights_of_the_file() {
    let sandbox = Sandbox::new();
    sandbox.busybox_tar();
    sandbox.file(
        "Dockerfile",
        "FROM scratch AS one\nADD busybox.tar /\nRUN echo $(ulimit -Sn) $(ulimit -Hn)\n\
        FROM one AS two\nRUN echo again\nRUN --network=host busybox ip link show marker\n",
    );
    run("ip", &["link", "add", "marker", "type", "bridge"]);
    let build = |attributes: &str| {
        let text = format!("services: {{ app: {{ build: {{ context: ., {attributes} }} }} }}");
        sandbox.file("stack.yaml", &text);
        sandbox.stack("build")
    };
    build("ulimits: { nofile: 99 }").fails(&["--network=host is not allowed", "entitlements: [network.host]"]);
    let limited = "ulimits: { nofile: { soft: 111, hard: 222 } }, entitlements: [network.host]";
    let built = build(limited).ok();
    assert!(built.err.contains(" 111 222\n"), "{built}");
    let filtered = build(&format!("{limited}, no_cache_filter: [two]")).ok();
    assert!(filtered.err.contains("CACHED") && filtered.err.contains(" again\n"), "{filtered}");
    assert!(!filtered.err.contains(" 111 222\n") && !build(limited).ok().err.contains(" again\n"), "{filtered}");
    let bake: Value = serde_json::from_str(&sandbox.stack("build --print").ok().out).unwrap();
    assert_eq!(bake["target"]["app"]["ulimits"], serde_json::json!(["nofile=111:222"]));
    assert_eq!(bake["target"]["app"]["entitlements"], serde_json::json!(["network.host"]));
    // What a Docker daemon that nobody configured refuses, and what nothing here can make.
    build("privileged: true").fails(&["service `app`", "security.insecure"]);
    build("entitlements: [security.insecure]").fails(&["security.insecure"]);
    build("entitlements: [everything]").fails(&["no entitlement `everything`"]);
    build("platforms: [linux/s390x]").fails(&["`linux/s390x` can't be built", "linux/"]);
    let own = std::env::consts::ARCH;
    build(&format!("{limited}, platforms: [linux/s390x, linux/{own}]")).ok();
    run("ip", &["link", "del", "marker"]);
}

#[test]
fn what_has_no_counterpart_says_so() {
    let sandbox = Sandbox::with("services: { app: { build: { context: ., dockerfile_inline: FROM scratch } } }");
    let built = sandbox.stack("build --builder other --provenance=mode=max --sbom false").ok();
    for word in ["--builder other", "--provenance"] {
        assert!(built.err.contains(word), "{built}");
    }
    assert!(!built.err.contains("--sbom"), "{built}");
    sandbox.stack("publish --app registry.example/app").fails(&["stack has no `publish`", "stack config"]);
    sandbox.stack("bridge convert").fails(&["stack has no `bridge`"]);
    sandbox.stack("alpha viz --help").fails(&["stack has no `alpha`"]);
}
