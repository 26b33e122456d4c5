use std::collections::BTreeSet;
use std::thread;

use super::*;

fn manager() -> (tempfile::TempDir, Ipam) {
    let dir = tempfile::tempdir().unwrap();
    let ipam = Ipam::open(dir.path()).unwrap();
    (dir, ipam)
}

fn request(name: &str, pools: Vec<PoolRequest>) -> NetworkRequest {
    NetworkRequest {
        name: name.to_owned(),
        owner: "shop".to_owned(),
        bridge: format!("st-{name}"),
        pools,
        ipv4: true,
        ipv6: false,
    }
}

fn pool(subnet: &str) -> PoolRequest {
    PoolRequest { subnet: Some(subnet.parse().unwrap()), ..PoolRequest::default() }
}

fn owner(name: &str) -> LeaseRequest {
    LeaseRequest { owner: name.to_owned(), ..LeaseRequest::default() }
}

fn busy(cidr: &str, interface: &str) -> Busy {
    Busy { cidr: cidr.parse().unwrap(), interface: interface.to_owned() }
}

#[test]
fn chosen_subnets_overlap_nothing_and_return() {
    let (_dir, ipam) = manager();
    let taken = [busy("172.24.0.0/16", "vpn0"), busy("172.25.0.0/25", "eth0"), busy("172.25.2.0/24", "st-two")];
    let one = ipam.allocate(&request("one", vec![]), &taken).unwrap();
    assert_eq!(one[0].cidr.to_string(), "172.25.1.0/24");
    assert_eq!(one[0].gateway, Some("172.25.1.1".parse().unwrap()));
    assert_eq!(ipam.allocate(&request("one", vec![]), &taken).unwrap(), one);
    let two = ipam.allocate(&request("two", vec![]), &taken).unwrap();
    assert_eq!(two[0].cidr.to_string(), "172.25.2.0/24", "its own bridge is no obstacle");
    ipam.release_network("one").unwrap();
    assert_eq!(ipam.allocate(&request("three", vec![]), &taken).unwrap(), one);
}

#[test]
fn wished_subnets_may_not_overlap_and_the_error_says_what() {
    let (_dir, ipam) = manager();
    ipam.allocate(&request("one", vec![pool("10.77.12.0/24")]), &[]).unwrap();
    let error = ipam.allocate(&request("two", vec![pool("10.77.0.0/16")]), &[]).unwrap_err().to_string();
    assert!(error.contains("10.77.0.0/16 of network two overlaps 10.77.12.0/24, used by network one"), "{error}");
    let lan = [busy("10.78.1.0/24", "eth1")];
    let error = ipam.allocate(&request("two", vec![pool("10.78.1.0/24")]), &lan).unwrap_err().to_string();
    assert!(error.contains("used by interface eth1"), "{error}");
    ipam.allocate(&request("two", vec![pool("10.78.1.128/25")]), &lan).unwrap();
}

#[test]
fn hundreds_of_networks_fit_and_the_end_is_named() {
    let (_dir, ipam) = manager();
    let narrow = [busy("172.24.0.0/13", "a"), busy("10.200.0.0/13", "b"), busy("192.168.0.0/17", "c")];
    for n in 0..128 {
        ipam.allocate(&request(&format!("n{n}"), vec![]), &narrow).unwrap();
    }
    let error = ipam.allocate(&request("last", vec![]), &narrow).unwrap_err().to_string();
    assert!(error.starts_with("no free subnet for network last: of the 4224 in "), "{error}");
    assert!(error.contains("networks use 128, and addresses and routes of this host the others"), "{error}");
}

#[test]
fn ranges_gateways_and_auxiliary_addresses_are_honoured() {
    let (_dir, ipam) = manager();
    let wish = PoolRequest {
        ip_range: Some("10.77.5.128/30".parse().unwrap()),
        gateway: Some("10.77.5.254".parse().unwrap()),
        aux_addresses: vec![("router".to_owned(), "10.77.5.129".parse().unwrap())],
        ..pool("10.77.5.0/24")
    };
    let subnets = ipam.allocate(&request("lan", vec![wish]), &[]).unwrap();
    assert_eq!(subnets[0].gateway, Some("10.77.5.254".parse().unwrap()));
    let mut leased = Vec::new();
    for name in ["a", "b", "c"] {
        leased.push(ipam.lease("lan", &owner(name)).unwrap()[0].to_string());
    }
    assert_eq!(leased, ["10.77.5.128/24", "10.77.5.130/24", "10.77.5.131/24"]);
    let error = ipam.lease("lan", &owner("d")).unwrap_err().to_string();
    assert!(error.contains("all 3 of 10.77.5.128/30"), "{error}");

    let fixed = |name: &str, address: &str| LeaseRequest { ipv4: Some(address.parse().unwrap()), ..owner(name) };
    assert_eq!(ipam.lease("lan", &fixed("d", "10.77.5.10")).unwrap()[0].to_string(), "10.77.5.10/24");
    for (address, reason) in [
        ("10.77.5.10", "taken by d"),
        ("10.77.5.254", "taken by the gateway"),
        ("10.77.5.129", "auxiliary address router"),
        ("10.77.6.1", "not inside a subnet of network lan (10.77.5.0/24): invalid address"),
        ("10.77.5.255", "not inside"),
    ] {
        let error = ipam.lease("lan", &fixed("e", address)).unwrap_err().to_string();
        assert!(error.contains(reason), "{address}: {error}");
    }
}

#[test]
fn leases_stay_with_their_owner_and_are_not_handed_on_at_once() {
    let (_dir, ipam) = manager();
    ipam.allocate(&request("net", vec![pool("10.9.0.0/29")]), &[]).unwrap();
    let first = ipam.lease("net", &owner("a")).unwrap();
    assert_eq!(first[0].to_string(), "10.9.0.2/29");
    ipam.lease("net", &owner("b")).unwrap();
    assert_eq!(ipam.lease("net", &owner("a")).unwrap(), first);
    ipam.release("net", "a").unwrap();
    ipam.release("net", "a").unwrap();
    ipam.release("gone", "a").unwrap();
    assert_eq!(ipam.lease("net", &owner("c")).unwrap()[0].to_string(), "10.9.0.4/29");
    for name in ["d", "e", "a"] {
        ipam.lease("net", &owner(name)).unwrap();
    }
    assert_eq!(ipam.lease("net", &owner("a")).unwrap(), first);
    assert!(ipam.lease("net", &owner("f")).is_err());
    assert!(matches!(ipam.lease("gone", &owner("f")), Err(Error::UnknownNetwork { .. })));
}

#[test]
fn both_families_get_an_address() {
    let (_dir, ipam) = manager();
    let wish = NetworkRequest { ipv6: true, ..request("dual", vec![pool("fd00:77:9::/64")]) };
    let subnets = ipam.allocate(&wish, &[]).unwrap();
    assert_eq!(subnets.len(), 2);
    let leased = ipam.lease("dual", &owner("a")).unwrap();
    assert_eq!(leased.iter().map(ToString::to_string).collect::<Vec<_>>(), ["172.24.0.2/24", "fd00:77:9::2/64"]);
    let chosen = NetworkRequest { ipv6: true, ipv4: false, ..request("six", vec![]) };
    let subnets = ipam.allocate(&chosen, &[]).unwrap();
    assert!(subnets[0].cidr.to_string().starts_with("fd"));
}

#[test]
fn simultaneous_leases_are_all_different() {
    let (_dir, ipam) = manager();
    ipam.allocate(&request("net", vec![]), &[]).unwrap();
    let lease = |n: usize| {
        let ipam = ipam.clone();
        thread::spawn(move || {
            (0..8).map(|m| ipam.lease("net", &owner(&format!("{n}-{m}"))).unwrap()).collect::<Vec<_>>()
        })
    };
    let workers: Vec<_> = (0..8).map(lease).collect();
    let leased: BTreeSet<_> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).flatten().collect();
    assert_eq!(leased.len(), 64);
}

#[test]
fn a_damaged_file_is_an_error_that_names_it() {
    let (dir, ipam) = manager();
    fs::write(dir.path().join("leases.json"), "{").unwrap();
    let error = ipam.allocate(&request("one", vec![]), &[]).unwrap_err().to_string();
    assert!(error.contains("leases.json"), "{error}");
}
