//! A host, containers and an outside world made of network namespaces, for tests against the real kernel.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use super::link::{self, Veth};
use super::netlink::{self, Batch, Channel};
use super::nft::Transaction;
use super::ruleset;
use super::{Bridge, Endpoint, Host, Outward, Subnet};
use crate::sys::netns::with_netns;

/// Longer than the kernel waits before it repeats a lost SYN: links need a moment to come up.
const PATIENCE: Duration = Duration::from_millis(1500);
const DATAGRAM_TRIES: u32 = 3;

/// Runs a test on a thread whose network namespace is a host of its own.
pub(super) fn host(test: impl FnOnce(&Host) + Send + 'static) {
    let worker = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let channel = Channel::route().unwrap();
        let mut batch = Batch::default();
        link::raise(&mut batch, 1, "lo");
        channel.execute(&batch).unwrap();
        test(&Host::current());
    });
    worker.join().unwrap();
}

/// A fresh network namespace.
pub(super) fn namespace() -> OwnedFd {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        fs_err::File::open("/proc/thread-self/ns/net").unwrap().into_parts().0.into()
    };
    thread::spawn(make).join().unwrap()
}

/// Runs `f` inside a namespace.
pub(super) fn inside<T: Send>(netns: &OwnedFd, f: impl FnOnce() -> T + Send) -> T {
    with_netns(netns.as_fd(), f).unwrap()
}

/// A network `10.<n>.0.0/24` with its bridge.
pub(super) fn network(host: &Host, n: u8, change: impl FnOnce(&mut Bridge)) -> Bridge {
    let mut bridge = Bridge {
        name: format!("stb{n}"),
        alias: format!("project{n}/default"),
        subnets: vec![Subnet { cidr: format!("10.{n}.0.0/24").parse().unwrap(), gateway: Some([10, n, 0, 1].into()) }],
        internal: false,
        icc: true,
        mtu: None,
        masquerade: true,
        outward: Outward::default(),
    };
    change(&mut bridge);
    host.ensure_bridge(&bridge).unwrap();
    bridge
}

/// A container at `10.<n>.0.<last>` of network `n`.
pub(super) fn container(host: &Host, n: u8, last: u8) -> OwnedFd {
    let netns = namespace();
    host.attach(netns.as_fd(), &[endpoint(n, last)], false).unwrap();
    netns
}

/// The same, with `fd00:<n>::<last>` besides.
pub(super) fn dual_container(host: &Host, n: u8, last: u8) -> OwnedFd {
    let (netns, mut endpoint) = (namespace(), endpoint(n, last));
    endpoint.addresses.push(format!("fd00:{n}::{last}/64").parse().unwrap());
    endpoint.gateways.push(format!("fd00:{n}::1").parse().unwrap());
    host.attach(netns.as_fd(), &[endpoint], false).unwrap();
    netns
}

fn endpoint(n: u8, last: u8) -> Endpoint {
    Endpoint {
        bridge: format!("stb{n}"),
        ifname: "eth0".to_owned(),
        host_ifname: format!("v{n}x{last}"),
        addresses: vec![format!("10.{n}.0.{last}/24").parse().unwrap()],
        gateways: vec![[10, n, 0, 1].into()],
        mac: None,
        settings: Vec::new(),
    }
}

/// Another machine at 192.0.2.2 and 2001:db8::2, the host being 192.0.2.1 and 2001:db8::1 on `up0` and its router to everywhere. The other machine has
/// routes to the containers, as an attacker in the same LAN would set them.
pub(super) fn outside() -> OwnedFd {
    let netns = namespace();
    let channel = Channel::route().unwrap();
    let mut batch = Batch::default();
    let raw = u32::try_from(netns.as_raw_fd()).unwrap();
    let mac = [2, 0, 0, 0, 0, 2];
    link::make_veth(&mut batch, &Veth { host: "up0", inside: "lan0", master: 0, mtu: 1400, mac, netns: raw });
    channel.execute(&batch).unwrap();
    set_up(&channel, "up0", &[("192.0.2.1/24", "192.0.2.2"), ("2001:db8::1/64", "2001:db8::2")]);
    let other = [("192.0.2.2/24", "192.0.2.1"), ("2001:db8::2/64", "2001:db8::1")];
    inside(&netns, || set_up(&Channel::route().unwrap(), "lan0", &other));
    netns
}

fn set_up(channel: &Channel, name: &str, addresses: &[(&str, &str)]) {
    let index = link::links(channel).unwrap().into_iter().find(|link| link.name == name).unwrap().index;
    let mut batch = Batch::default();
    link::raise(&mut batch, index, name);
    for (address, gateway) in addresses {
        link::add_address(&mut batch, index, address.parse().unwrap());
        link::add_default_route(&mut batch, index, gateway.parse().unwrap());
    }
    channel.execute(&batch).unwrap();
}

/// Serves TCP on `port` of the calling thread's namespace for the rest of the test: says the client's address.
pub(super) fn serve(netns: &OwnedFd, port: u16) {
    let listener = inside(netns, || TcpListener::bind(("::", port)).unwrap());
    echo(listener);
}

/// Serves TCP on `port` of the current namespace.
pub(super) fn serve_here(port: u16) {
    echo(TcpListener::bind(("::", port)).unwrap());
}

fn echo(listener: TcpListener) {
    thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = write!(stream, "{}", peer.ip().to_canonical());
        }
    });
}

/// Serves UDP like [`serve`].
pub(super) fn serve_udp(netns: &OwnedFd, port: u16) {
    reply_udp(netns, port, |peer| peer.ip().to_canonical().to_string());
}

/// Serves UDP with always the same answer.
pub(super) fn serve_udp_saying(netns: &OwnedFd, port: u16, answer: &'static str) {
    reply_udp(netns, port, |_| answer.to_owned());
}

fn reply_udp(netns: &OwnedFd, port: u16, answer: impl Fn(SocketAddr) -> String + Send + 'static) {
    let socket = inside(netns, || UdpSocket::bind(("::", port)).unwrap());
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(answer(peer).as_bytes(), peer);
        }
    });
}

/// Connects from the current namespace; the address that the server saw, or why not.
pub(super) fn ask(address: &str) -> Result<IpAddr, std::io::ErrorKind> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| error.kind())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.kind())?;
    Ok(text.parse().unwrap())
}

/// The same over UDP.
pub(super) fn ask_udp(address: &str) -> Result<IpAddr, std::io::ErrorKind> {
    exchange(&UdpSocket::bind("0.0.0.0:0").unwrap(), address)
}

/// Asks over UDP with a socket of one's own.
pub(super) fn exchange(socket: &UdpSocket, address: &str) -> Result<IpAddr, std::io::ErrorKind> {
    socket.set_read_timeout(Some(PATIENCE / DATAGRAM_TRIES)).unwrap();
    socket.connect(address).map_err(|error| error.kind())?;
    let mut bytes = [0; 64];
    let mut ask = || socket.send(b"?").and_then(|_| socket.recv(&mut bytes));
    let length = (1..DATAGRAM_TRIES).fold(ask(), |last, _| last.or_else(|_| ask())).map_err(|error| error.kind())?;
    Ok(std::str::from_utf8(&bytes[..length]).unwrap().parse().unwrap())
}

/// The same over UDP from a certain address.
pub(super) fn ask_udp_from(source: &str, address: &str) -> Result<IpAddr, std::io::ErrorKind> {
    let socket = UdpSocket::bind((source, 0)).unwrap();
    exchange(&socket, address)
}

/// Gives an interface of the current namespace one more address.
pub(super) fn add_address(name: &str, address: &str) {
    change(name, |batch, index| link::add_address(batch, index, address.parse().unwrap()));
}

/// Changes the hardware address of an interface of the current namespace.
pub(super) fn change_mac(name: &str, mac: [u8; 6]) {
    change(name, |batch, index| {
        let mut header = [0; 16];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        batch.add("change the address", libc::RTM_NEWLINK, netlink::ACK, &header, |message| {
            message.put(libc::IFLA_ADDRESS, &mac);
        });
    });
}

/// Leads packets for `destination` to `gateway`, in the current namespace.
pub(super) fn route_to(destination: [u8; 4], gateway: [u8; 4], name: &str) {
    change(name, |batch, index| {
        let header = [2, 32, 0, 0, libc::RT_TABLE_MAIN, 3, 0, libc::RTN_UNICAST, 0, 0, 0, 0];
        let flags = netlink::ACK | netlink::CREATE;
        batch.add("add a route", libc::RTM_NEWROUTE, flags, &header, |message| {
            message.put(libc::RTA_DST, &destination).put(libc::RTA_GATEWAY, &gateway).put_u32(libc::RTA_OIF, index);
        });
    });
}

/// Removes all firewall tables of the current namespace, as `nft flush ruleset` does.
pub(super) fn flush_tables() {
    let mut transaction = Transaction::new();
    for table in [ruleset::INET, ruleset::BRIDGE] {
        transaction.delete_table(table);
    }
    transaction.commit(&Channel::netfilter().unwrap()).unwrap();
}

fn change(name: &str, fill: impl FnOnce(&mut Batch, u32)) {
    let channel = Channel::route().unwrap();
    let index = link::links(&channel).unwrap().into_iter().find(|link| link.name == name).unwrap().index;
    let mut batch = Batch::default();
    fill(&mut batch, index);
    channel.execute(&batch).unwrap();
}
