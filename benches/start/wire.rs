//! Just enough netlink for the floor: a bridge, a pair of links, an address and a route.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

const GATEWAY: [u8; 4] = [10, 99, 0, 1];
const UP: u32 = libc::IFF_UP as u32;

/// A message that is being written.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: i32, head: &[u8]) -> Self {
        let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags).unwrap_or_default();
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(head);
        Self(bytes)
    }

    fn link(kind: u16, flags: i32, index: u32, up: bool) -> Self {
        let state = if up { UP } else { 0 };
        Self::new(kind, flags, &words(&[0, index, state, state]))
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or_default();
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// The attributes of a message that has no head.
    fn nest(self) -> Vec<u8> {
        self.0[16..].to_vec()
    }

    fn send(mut self, socket: &Socket) -> io::Result<()> {
        let length = u32::try_from(self.0.len()).unwrap_or_default();
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        socket.send(&self.0, 0)?;
        let (answer, _) = socket.recv_from_full()?;
        let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map_or(-libc::EIO, i32::from_ne_bytes);
        if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
    }
}

fn empty() -> Message {
    Message::new(0, 0, &[])
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn index(interface: &str) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(interface)?)
}

/// Makes a bridge that is up.
pub(crate) fn bridge(interface: &str) -> io::Result<()> {
    let info = empty().attribute(libc::IFLA_INFO_KIND, b"bridge").nest();
    let message = Message::link(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, 0, true);
    message.attribute(libc::IFLA_IFNAME, &name(interface)).attribute(libc::IFLA_LINKINFO, &info).send(&open()?)
}

/// Makes a pair of links in one message: one end on the bridge and up, the other as `eth0` in a namespace.
pub(crate) fn plug(bridge: &str, interface: &str, netns: BorrowedFd<'_>) -> io::Result<()> {
    const VETH_INFO_PEER: u16 = 1;
    let netns = netns.as_raw_fd().to_ne_bytes();
    let mut peer = words(&[0; 4]);
    peer.extend(empty().attribute(libc::IFLA_IFNAME, b"eth0\0").attribute(libc::IFLA_NET_NS_FD, &netns).nest());
    let data = empty().attribute(VETH_INFO_PEER, &peer).nest();
    let info = empty().attribute(libc::IFLA_INFO_KIND, b"veth").attribute(libc::IFLA_INFO_DATA, &data).nest();
    Message::link(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, 0, true)
        .attribute(libc::IFLA_IFNAME, &name(interface))
        .attribute(libc::IFLA_MASTER, &index(bridge)?.to_ne_bytes())
        .attribute(libc::IFLA_LINKINFO, &info)
        .send(&open()?)
}

/// Inside: loopback up, `eth0` up, its address, the default route.
pub(crate) fn configure(number: usize) -> io::Result<()> {
    let socket = open()?;
    let [high, low] = u16::try_from(number + 2).unwrap_or_default().to_be_bytes();
    let eth = index("eth0")?;
    for link in [1, eth] {
        Message::link(libc::RTM_SETLINK, 0, link, true).send(&socket)?;
    }
    let mut head = vec![2, 16, 0, 0];
    head.extend(eth.to_ne_bytes());
    let address = [10, 99, high, low];
    Message::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE, &head)
        .attribute(libc::IFA_LOCAL, &address)
        .attribute(libc::IFA_ADDRESS, &address)
        .send(&socket)?;
    // An IPv4 route without destination in the main table, made at boot, to everywhere, to a single host.
    let head = [2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    Message::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE, &head)
        .attribute(libc::RTA_GATEWAY, &GATEWAY)
        .attribute(libc::RTA_OIF, &eth.to_ne_bytes())
        .send(&socket)
}
