//! `stack network`.

use serde_json::Value;

use crate::lan::run;
use crate::poll::until_true;
use crate::sandbox::Sandbox;

#[test]
fn networks_are_made_shown_and_removed() {
    let sandbox = Sandbox::new();
    let name = format!("{}-mine", sandbox.project);
    let id = sandbox
        .stack(&format!(
            "network create --subnet 10.99.0.0/24 --gateway 10.99.0.9 --ip-range 10.99.0.64/26 --aux-address r=10.99.0.64 --subnet fd00:99::/64 --ipv6 --internal --label a=b -o com.docker.network.driver.mtu=1400 {name}"
        ))
        .ok()
        .out;
    assert_eq!(id.trim().len(), 64);
    sandbox.stack(&format!("network create {name}")).fails(&["exists already"]);
    sandbox.stack("network create host").fails(&["a meaning of its own"]);
    sandbox.stack("network create -d overlay x").fails(&["driver `overlay` is not supported"]);
    sandbox.stack("network create --gateway 10.1.0.1 x").fails(&["no matching subnet"]);
    sandbox.stack("network create --subnet 10.99.0.128/25 x").fails(&["overlaps 10.99.0.0/24", &name]);
    let inspected: Value = serde_json::from_str(&sandbox.stack(&format!("network inspect {name}")).ok().out).unwrap();
    let network = &inspected[0];
    assert_eq!(network["Name"], name.as_str());
    assert_eq!((&network["Internal"], &network["EnableIPv6"]), (&Value::Bool(true), &Value::Bool(true)));
    let pool = &network["IPAM"]["Config"][0];
    assert_eq!((&pool["Gateway"], &pool["IPRange"]), (&Value::from("10.99.0.9"), &Value::from("10.99.0.64/26")));
    assert_eq!(pool["AuxiliaryAddresses"]["r"], "10.99.0.64");
    assert_eq!(network["Labels"]["a"], "b");
    let by_id = sandbox.stack(&format!("network inspect -f {{{{.Name}}}} {}", &id[..12])).ok().out;
    assert_eq!(by_id.trim(), name);
    assert!(sandbox.stack("network ls").ok().out.contains(&name));
    assert_eq!(sandbox.stack("network ls -q --filter label=a=c").ok().out, "");
    let listed: Value = serde_json::from_str(&sandbox.stack("network ls --format json -f label=a").ok().out).unwrap();
    assert_eq!(listed["Name"], name.as_str());
    assert_eq!(sandbox.stack(&format!("network rm {name}")).ok().out.trim(), name);
    sandbox.stack(&format!("network rm {name}")).fails(&["not found", "network ls"]);
    sandbox.stack(&format!("network rm -f {name}")).ok();
}

#[test]
fn containers_come_and_go_while_they_run() {
    let sandbox = Sandbox::greeting(
        "services:\n  web: { <<: *server, networks: [inner], ports: [\"18080:80\"] }\n  near: { <<: *idle, networks: [outer, inner] }\nnetworks: { inner: { internal: true }, outer: {} }\n",
        &["web"],
    );
    let (project, web) = (sandbox.project.clone(), format!("{}-web-1", sandbox.project));
    let extra = format!("{project}-extra");
    sandbox.stack(&format!("network create --subnet 10.98.0.0/24 --ipv6 {extra}")).ok();
    sandbox.stack(&format!("network connect --alias side --ip 10.98.0.50 {extra} {web}")).ok();
    sandbox.stack(&format!("network connect {extra} {web}")).fails(&["is on network", "already"]);
    sandbox.stack(&format!("network connect {extra} {project}-near-1")).ok();
    sandbox.stack(&format!("network connect nowhere {web}")).fails(&["nowhere not found"]);
    sandbox.stack(&format!("network connect {extra} nobody")).fails(&["no such container: nobody"]);
    let addresses = sandbox.inside("web", "ip -br addr show eth1; ip route; ip -6 route");
    for text in ["10.98.0.50/24", "default via 10.98.0.1 dev eth1", "default via fd"] {
        assert!(addresses.contains(text), "{text} in {addresses}");
    }
    assert!(sandbox.inside("near", "getent ahostsv4 side").contains("10.98.0.50"));
    until_true("ports lead to the network with a way out", || sandbox.host_hears("127.0.0.1", 18080) == "10.98.0.1");
    let shown = sandbox.stack(&format!("network inspect {extra}")).ok().out;
    assert!(shown.contains(&web) && shown.contains("10.98.0.50/24"), "{shown}");
    sandbox.stack("up -d").ok();
    assert!(sandbox.inside("web", "ip -br link").contains("eth1"), "`up` leaves further networks alone");
    sandbox.stack(&format!("network rm {extra}")).fails(&["is used by", &web, "network disconnect"]);
    sandbox.stack("network prune -f").ok();
    assert!(sandbox.stack("network ls -q").ok().out.contains(&extra), "used ones stay");

    sandbox.stack(&format!("network disconnect {project}_outer {project}-near-1")).ok();
    let routes = sandbox.inside("near", "ip route");
    assert!(routes.contains("default via 10.98.0.1"), "another network leads out now: {routes}");
    for container in [&web, &format!("{project}-near-1")] {
        sandbox.stack(&format!("network disconnect {extra} {container}")).ok();
    }
    sandbox.stack(&format!("network disconnect {extra} {web}")).fails(&["is not on network"]);
    assert!(!sandbox.inside("web", "ip -br link").contains("eth1"));
    assert!(sandbox.inside("near", "getent ahostsv4 web").contains("STREAM"), "the other network is untouched");
    assert!(sandbox.stack("network prune -f").ok().out.contains(&extra));
    assert!(!sandbox.stack("network ls -q").ok().out.contains(&extra));
}

#[test]
fn an_isolated_network_has_no_gateway() {
    let sandbox = Sandbox::greeting(
        "services:\n  web: { <<: *server, networks: [inner] }\n  near: { <<: *idle, networks: [inner] }\nnetworks: { inner: { internal: true, driver_opts: { com.docker.network.bridge.gateway_mode_ipv4: isolated } } }\n",
        &["web"],
    );
    assert!(sandbox.hears("near", "web", 80).starts_with("172."));
    assert_eq!(run("ip", &["-4", "-o", "addr", "show", "scope", "global"]), "", "the host has no address there");
}

#[test]
fn a_port_that_another_stack_has_is_found_before_anything_starts() {
    let file = "services:\n  first: { image: stack/host, command: [sleep, infinity], init: true }\n  web: { image: stack/host, command: [sleep, infinity], init: true, depends_on: [first], ports: [\"18080:80\", \"18053:53/udp\"] }\n";
    let sandbox = Sandbox::with(file);
    sandbox.stack("up -d").ok();
    let other = format!("{}b", sandbox.project);
    let holder = format!("already in use by stack `{}`", sandbox.project);
    let refused = |text: &str| {
        sandbox.file("other.yaml", text);
        let ran = sandbox.stack(&format!("-f other.yaml -p {other} up -d")).fails(&[&holder]);
        assert!(
            !sandbox.stack(&format!("-p {other} ps -q")).out.contains(char::is_alphanumeric),
            "nothing runs: {ran}"
        );
    };
    refused(file);
    refused(&file.replace("18080:80", "[::1]:18080:80").replace("18053", "18054"));
    refused(&file.replace("18080:80", "18081:80"));
    sandbox.stack("down -t 0").ok();
    sandbox.stack(&format!("-f other.yaml -p {other} up -d")).ok();
}

#[test]
fn a_port_that_a_program_has_names_it() {
    let sandbox = Sandbox::with(
        "services:\n  web: { image: stack/host, command: [sleep, infinity], init: true, ports: [\"18080:80\", \"18053:53/udp\"] }\n",
    );
    let tcp = std::net::TcpListener::bind("[::1]:18080").unwrap();
    let own = format!("in use by process {} (", std::process::id());
    sandbox.stack("up -d").fails(&["18080/tcp is already", &own, "stack.yaml:2"]);
    drop(tcp);
    let udp = std::net::UdpSocket::bind("127.0.0.1:18053").unwrap();
    sandbox.stack("up -d").fails(&["18053/udp is already", &own]);
    assert!(!sandbox.stack("ps -aq").out.contains(char::is_alphanumeric), "nothing was made");
    drop(udp);
    sandbox.stack("up -d").ok();
}
