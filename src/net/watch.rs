//! Changes that others make: to our tables, to the places of [`super::beside`], to bridges and their addresses.
//!
//! The kernel tells of every change, our own among them. What is told apart here is only what can be worth a look, by
//! [`super::Host::heal`], which compares and then changes nothing if nothing is missing.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use super::error::Error;
use super::netlink::{Reply, messages, u32_at};
use crate::sys::ready::register;

const GROUP_LINKS: u32 = 1;
const GROUP_ADDRESSES_4: u32 = 5;
const GROUP_ADDRESSES_6: u32 = 9;
const GROUP_SETTINGS_4: u32 = 24;
const GROUP_SETTINGS_6: u32 = 25;
const GROUP_TABLES: u32 = 7;
const NEW_SETTING: u16 = 80;
const UP: u32 = 1;
/// Subsystem of nftables in the upper byte of a message's type.
const TABLES: u16 = 10;

/// Quiet that ends a burst of changes, and how long a burst may last before somebody looks.
const QUIET: Duration = Duration::from_millis(40);
const BURST: Duration = Duration::from_millis(250);

/// The kernel's messages about links, addresses and firewall tables of a network namespace. Needs a tokio runtime.
#[derive(Debug)]
pub struct Changes {
    links: AsyncFd<OwnedFd>,
    tables: AsyncFd<OwnedFd>,
}

impl Changes {
    /// Listens in the calling thread's network namespace from now on.
    pub fn open() -> Result<Self, Error> {
        let open = |protocol, groups: &[u32]| -> io::Result<_> {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            for group in groups {
                socket.add_membership(*group)?;
            }
            socket.set_non_blocking(true)?;
            register(socket.as_fd().try_clone_to_owned()?)
        };
        let both = || {
            const GROUPS: [u32; 5] =
                [GROUP_LINKS, GROUP_ADDRESSES_4, GROUP_ADDRESSES_6, GROUP_SETTINGS_4, GROUP_SETTINGS_6];
            let links = open(NETLINK_ROUTE, &GROUPS)?;
            Ok(Self { links, tables: open(NETLINK_NETFILTER, &[GROUP_TABLES])? })
        };
        both().map_err(Error::system("listen to changes of the network"))
    }

    /// Waits for the end of a burst of changes that may be worth a look.
    pub async fn next(&self) -> io::Result<()> {
        self.one().await?;
        let end = Instant::now() + BURST;
        while let Ok(more) = timeout_at(end.min(Instant::now() + QUIET), self.one()).await {
            more?;
        }
        Ok(())
    }

    /// Waits for the next message that counts.
    async fn one(&self) -> io::Result<()> {
        loop {
            let counts = tokio::select! {
                found = receive(&self.links, link_counts) => found?,
                found = receive(&self.tables, table_counts) => found?,
            };
            if counts {
                return Ok(());
            }
        }
    }
}

/// Takes the messages of one datagram; whether one of them counts. Where some were lost, it does.
async fn receive(socket: &AsyncFd<OwnedFd>, counts: impl Fn(&Reply) -> bool) -> io::Result<bool> {
    loop {
        let mut ready = socket.readable().await?;
        let mut bytes = vec![0; 32 * 1024];
        let flags = nix::sys::socket::MsgFlags::empty();
        match ready.try_io(|socket| Ok(nix::sys::socket::recv(socket.as_raw_fd(), &mut bytes, flags)?)) {
            Ok(Ok(length)) => return Ok(messages(&bytes[..length]).iter().any(&counts)),
            Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(true),
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
}

/// Something went, is down, or forwards otherwise than before.
fn link_counts(message: &Reply) -> bool {
    match message.kind {
        libc::RTM_DELLINK | libc::RTM_DELADDR | NEW_SETTING => true,
        libc::RTM_NEWLINK => u32_at(&message.payload, 8) & UP == 0,
        _ => false,
    }
}

/// Something went, or another firewall changed.
fn table_counts(message: &Reply) -> bool {
    let kind = i32::from(message.kind & 0xff);
    message.kind >> 8 == TABLES
        && matches!(
            kind,
            libc::NFT_MSG_NEWCHAIN
                | libc::NFT_MSG_DELTABLE
                | libc::NFT_MSG_DELCHAIN
                | libc::NFT_MSG_DELRULE
                | libc::NFT_MSG_DELSET
                | libc::NFT_MSG_DELSETELEM
        )
}
