//! Starting, failing to start, ending.

use stack::runtime::Error;

use crate::rig::with_rig;

#[test]
fn a_container_runs_logs_and_exits() {
    with_rig(async |rig| {
        let launch = rig.launch("one", "echo out; echo err >&2; hostname; id -u; pwd; exit 3");
        let (status, _) = rig.run(&launch).await;
        assert_eq!((status.code, status.signal), (3, None));
        assert_eq!(rig.log("one", Some("stdout")), "out\nhost-one\n0\n/\n");
        assert_eq!(rig.log("one", Some("stderr")), "err\n");
    });
}

#[test]
fn a_missing_command_is_127_and_leaves_nothing() {
    with_rig(async |rig| {
        for (command, code, text) in [
            ("nothing-like-this", 127, "executable file not found in $PATH"),
            ("/bin/nothing", 127, "no such file or directory"),
            ("/etc/passwd", 126, "permission denied"),
            ("/tmp", 126, "permission denied"),
        ] {
            let mut launch = rig.launch("bad", "");
            launch.process.args = vec![command.to_owned()];
            rig.client.create(&launch, vec![rig.root_tree()]).await.unwrap();
            let Err(Error::Launch(error)) = rig.client.start("bad").await else { panic!("{command} started") };
            assert_eq!(error.code, code, "{error}");
            assert!(error.message.contains(text), "{error}");
            assert!(rig.client.list().await.unwrap().is_empty());
        }
    });
}

#[test]
fn a_signal_ends_with_128_and_its_number() {
    with_rig(async |rig| {
        rig.start(&rig.launch("killed", "echo up; sleep 60")).await;
        rig.wait_for_log("killed", "up").await;
        rig.client.signal("killed", 9).await.unwrap();
        let status = rig.wait("killed").await;
        assert_eq!((status.code, status.signal), (137, Some(9)));
    });
}
