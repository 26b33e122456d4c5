//! The rules as `nft` lists them, compared with files: what each feature adds is seen in a change's diff.
//! `UPDATE_GOLDEN=1 cargo test --lib net::golden` writes them anew.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::testbed::{container, dual_container, host, network};
use super::{Gateway, Host, PortMapping, Protocol, Subnet};

fn nft(words: &str) -> String {
    let output = Command::new("nft").args(words.split(' ')).output().expect("the Debian package nftables");
    assert!(output.status.success(), "nft {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn compare(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/net/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs_err::write(&path, found).unwrap();
    }
    let expected = fs_err::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{} differs; UPDATE_GOLDEN=1 writes it anew", path.display());
}

/// The elements of all sets and maps that have any, a line each.
fn elements() -> String {
    let mut text = String::new();
    let mut set = String::new();
    let mut inside = false;
    for line in nft("-s list ruleset").lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("set ").or_else(|| line.strip_prefix("map ")) {
            set = name.trim_end_matches(" {").to_owned();
        }
        if let Some(rest) = line.strip_prefix("elements = ") {
            let _ = write!(text, "{set} = {rest}");
            inside = true;
        } else if inside {
            let _ = write!(text, " {line}");
        }
        if inside && line.ends_with('}') {
            text.push('\n');
            inside = false;
        }
    }
    text
}

#[test]
fn the_chains_are_as_written_down() {
    host(|host| {
        network(host, 1, |_| {});
        let listed = nft("-s list ruleset");
        let chains = listed.split_inclusive("\n\t}\n").filter(|block| block.contains("\tchain "));
        compare("chains.nft", &chains.collect::<String>());
    });
}

#[test]
fn each_feature_adds_its_elements_and_no_rule() {
    type Feature = (&'static str, fn(&Host));
    let features: [Feature; 12] = [
        ("a network", |host| drop(network(host, 1, |_| {}))),
        ("internal", |host| drop(network(host, 1, |bridge| bridge.internal = true))),
        ("without masquerading", |host| drop(network(host, 1, |bridge| bridge.masquerade = false))),
        ("two networks", |host| {
            network(host, 1, |_| {});
            network(host, 2, |_| {});
        }),
        ("routed, with a port open", |host| {
            network(host, 1, |bridge| bridge.outward.ipv4 = Gateway::Routed);
            opened(host, "10.1.0.2");
            opened(host, "fd00:1::2");
        }),
        ("unprotected for IPv6", |host| drop(network(host, 1, |bridge| bridge.outward.ipv6 = Gateway::Unprotected))),
        ("chosen sources and a trusted interface", |host| {
            network(host, 1, |bridge| {
                bridge.outward.sources = vec!["192.0.2.9".parse().unwrap(), "2001:db8::9".parse().unwrap()];
                bridge.outward.trusted = vec!["eth7".to_owned()];
            });
        }),
        ("a container", |host| {
            network(host, 1, |_| {});
            container(host, 1, 2);
        }),
        ("a container of both families", |host| {
            network(host, 1, |bridge| {
                let gateway = Some("fd00:1::1".parse().unwrap());
                bridge.subnets.push(Subnet { cidr: "fd00:1::/64".parse().unwrap(), gateway });
            });
            dual_container(host, 1, 2);
        }),
        ("published everywhere", |host| {
            network(host, 1, |_| {});
            published(host, Protocol::Tcp, "0.0.0.0", "10.1.0.2");
            published(host, Protocol::Udp, "0.0.0.0", "10.1.0.2");
            published(host, Protocol::Tcp, "::", "fd00:1::2");
        }),
        ("published on one address", |host| {
            network(host, 1, |_| {});
            published(host, Protocol::Tcp, "127.0.0.1", "10.1.0.2");
            published(host, Protocol::Tcp, "2001:db8::1", "fd00:1::2");
        }),
        ("the host's services", |host| {
            network(host, 1, |_| {});
            let users = ["10.1.0.2".parse().unwrap(), "fd00:1::2".parse().unwrap()];
            host.firewall().allow_host(&users, true).unwrap();
        }),
    ];
    let (send, receive) = std::sync::mpsc::channel();
    for (name, make) in features {
        let send = send.clone();
        host(move |host| {
            make(host);
            send.send(format!("# {name}\n{}\n", elements())).unwrap();
        });
    }
    drop(send);
    compare("elements.txt", &receive.iter().collect::<String>());
}

fn opened(host: &Host, container: &str) {
    let container_ip = container.parse().unwrap();
    let mapping =
        PortMapping { host_ip: None, host_port: 0, protocol: Protocol::Tcp, container_ip, container_port: 80 };
    host.firewall().publish(&[mapping]).unwrap();
}

fn published(host: &Host, protocol: Protocol, address: &str, container: &str) {
    let host_ip = Some(address.parse().unwrap()).filter(|ip: &std::net::IpAddr| !ip.is_unspecified());
    let container_ip = container.parse().unwrap();
    let mapping = PortMapping { host_ip, host_port: 8080, protocol, container_ip, container_port: 80 };
    host.firewall().publish(&[mapping]).unwrap();
}

#[test]
fn the_administrator_s_chain_is_never_flushed() {
    host(|host| {
        let bridge = network(host, 1, |_| {});
        nft("add rule inet stack stack-user ip saddr 192.0.2.9 counter drop");
        let kept = || nft("-s list chain inet stack stack-user").contains("192.0.2.9");
        network(host, 2, |_| {});
        host.ensure_bridge(&bridge).unwrap();
        nft("flush chain inet stack forward");
        host.heal(&super::Wanted { bridges: vec![bridge], ..super::Wanted::default() }).unwrap();
        assert!(kept());
        assert!(nft("-s list chain inet stack forward").contains("stack-user"), "the control: it is put back");
        host.remove_bridge("stb1").unwrap();
        host.remove_bridge("stb2").unwrap();
        assert!(kept(), "it outlives all networks");
    });
}
