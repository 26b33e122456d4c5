//! The same by `stack`'s own layers: a shim that makes the container, the network layer that attaches it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use ipnet::IpNet;
use stack::net::{Bridge, Endpoint, Host, Outward, Subnet};
use stack::runtime::caps;
use stack::runtime::launch::{Cgroup, Launch, Mount, Namespaces, Net, Process, Seccomp, Slot, Stdio};
use stack::runtime::shim::{Client, Event, SpawnOptions};

use super::lab::{FILES, IDS, Lab, Times};

const BRIDGE: &str = "stack0";

/// A shim, and a bridge with all of its rules.
pub(crate) struct Runtime {
    client: Client,
    host: Host,
}

impl Runtime {
    pub(crate) fn new(lab: &Lab) -> Self {
        let run_dir = lab.folder.join("run");
        fs_err::create_dir(&run_dir).unwrap();
        let options = SpawnOptions { run_dir, restart_argv: Vec::new() };
        let client = Client::spawn_from(Path::new(env!("CARGO_BIN_EXE_stack")), &options).unwrap();
        let host = Host::current();
        let cidr: IpNet = "10.98.0.0/16".parse().unwrap();
        host.ensure_bridge(&Bridge {
            name: BRIDGE.to_owned(),
            alias: "stack:bench:bench".to_owned(),
            subnets: vec![Subnet { cidr, gateway: Some("10.98.0.1".parse().unwrap()) }],
            internal: false,
            mtu: None,
            icc: true,
            masquerade: true,
            outward: Outward::default(),
        })
        .unwrap();
        Self { client, host }
    }

    /// Runs `program` as container `number` to its end, and lets it go.
    pub(crate) async fn run(&self, lab: &Lab, number: usize, program: &str) -> Times {
        let begin = Instant::now();
        let id = format!("stack-{number}");
        self.start(lab, &id, number, &[program]).await;
        let exec = begin.elapsed();
        loop {
            if let Event::Exited { status, .. } = self.client.next_event().await.unwrap() {
                assert_eq!(status.code, 0);
                break;
            }
        }
        let exit = begin.elapsed();
        self.client.forget(&id).await.unwrap();
        self.host.detach(&[interface(number)]).unwrap();
        Times { exec, exit }
    }

    /// Starts containers that stay.
    pub(crate) async fn hold(&self, lab: &Lab, count: usize) {
        for number in 1000..1000 + count {
            self.start(lab, &format!("stack-{number}"), number, &["/bin/sleep", "1000"]).await;
        }
    }

    pub(crate) async fn end(&self) {
        for entry in self.client.list().await.unwrap() {
            self.client.forget(&entry.id).await.unwrap();
        }
        self.client.shutdown().await.unwrap();
        while self.client.next_event().await.is_some() {}
        self.host.remove_bridge(BRIDGE).unwrap();
    }

    async fn start(&self, lab: &Lab, id: &str, number: usize, args: &[&str]) {
        let root = lab.root(id).unwrap();
        let created = self.client.create(&launch(lab, id, args), vec![root]).await.unwrap();
        let [high, low] = u16::try_from(number + 2).unwrap().to_be_bytes();
        let endpoint = Endpoint {
            bridge: BRIDGE.to_owned(),
            ifname: "eth0".to_owned(),
            host_ifname: interface(number),
            addresses: vec![format!("10.98.{high}.{low}/16").parse().unwrap()],
            gateways: vec!["10.98.0.1".parse().unwrap()],
            mac: None,
            settings: Vec::new(),
        };
        self.host.attach(std::os::fd::AsFd::as_fd(&created.netns.unwrap()), &[endpoint], true).unwrap();
        self.client.start(id).await.unwrap();
    }
}

fn interface(number: usize) -> String {
    format!("s{number}")
}

fn launch(lab: &Lab, id: &str, args: &[&str]) -> Launch {
    let file = |target: &&str| Mount::File {
        target: format!("/{target}"),
        content: Vec::new(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        read_only: false,
    };
    Launch {
        id: id.to_owned(),
        hostname: id.to_owned(),
        domainname: None,
        namespaces: Namespaces { net: Net::New, ..Namespaces::default() },
        rootfs: Slot(0),
        read_only: false,
        mounts: FILES.iter().map(file).collect(),
        process: Process {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            caps: caps::effective(&[], &[], false).unwrap(),
            ..Process::default()
        },
        init: false,
        cgroup: Cgroup { path: format!("{}-stack/{id}", lab.group), ..Cgroup::default() },
        masked: Launch::default_masked(),
        read_only_paths: Launch::default_read_only_paths(),
        sysctls: BTreeMap::new(),
        seccomp: Seccomp::Default,
        keeps: false,
        privileged: false,
        devices: Vec::new(),
        shm_size: 64 << 20,
        stdio: Stdio::Log { path: lab.folder.join(format!("{id}.log")), max_size: 0, max_files: 1, stdin: false },
        ids: Some(IDS),
    }
}
