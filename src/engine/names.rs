//! What containers answer to, and what answers them: their own networks' names, those that other stacks have on the same
//! networks, and the servers for all others.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use fs_err as fs;
use ipnet::IpNet;
use rustix::fs::OFlags;

use super::changes::Changes;
use super::control::Failure;
use super::hosts::{RESOLV_CONF, host_resolver, resolv_conf};
use super::state::{Container, Record, Status, read_json, short};
use super::supervisor::{Supervisor, blocking, tracing_line};
use crate::net::files::ResolvConf;
use crate::net::{DnsSockets, dns};
use crate::sys::file::write_atomic;
use crate::sys::path::open_in_root;

/// More than a C library reads.
const LONGEST_RESOLV_CONF: u64 = 64 << 10;

/// Where the shim keeps a container's resolver sockets.
pub(crate) fn dns_key(id: &str) -> String {
    format!("dns/{id}")
}

impl Supervisor {
    /// Leaves a container's resolver sockets with the shim, and answers on them.
    pub(crate) async fn keep_resolver(self: &Rc<Self>, record: &Record, sockets: DnsSockets) -> Result<(), Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("container {}: {e}", record.name));
        let kept = [&sockets.udp, &sockets.tcp].map(OwnedFd::try_clone);
        let kept = kept.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| failed(&e))?;
        self.keep(&dns_key(&record.id), kept).await?;
        self.serve_names(record, sockets)
    }

    /// Answers a container's questions for names.
    pub(crate) fn serve_names(&self, record: &Record, sockets: DnsSockets) -> Result<(), Failure> {
        let client = client(record, &host_resolver().servers);
        self.dns.serve(client, sockets).map_err(|e| Failure::new(format!("container {}: {e}", record.name)))
    }

    /// Tells the resolver that a container's networks have changed.
    pub(crate) fn update_names(&self, record: &Record) {
        self.dns.update(client(record, &host_resolver().servers));
        self.publish_names();
    }

    /// Tells the resolver, and other stacks on the same networks, who runs now.
    pub(crate) fn publish_names(&self) {
        let mut known: BTreeMap<String, Vec<dns::Record>> = BTreeMap::new();
        let mut shared = BTreeSet::new();
        for container in self.containers() {
            let returns = container.state.status == Status::Restarting && self.returns(&container.record.id);
            if !returns && !matches!(container.state.status, Status::Running | Status::Paused) {
                continue;
            }
            let record = container.record;
            for endpoint in &record.endpoints {
                let mut names = vec![record.name.clone(), short(&record.id).to_owned()];
                names.extend(endpoint.aliases.iter().cloned());
                let addresses =
                    endpoint.addresses.iter().filter_map(|text| text.parse::<IpNet>().ok().map(|net| net.addr()));
                let (network, addresses) = (endpoint.network.clone(), addresses.collect());
                shared.extend(endpoint.foreign.then(|| network.clone()));
                known.entry(network.clone()).or_default().push(dns::Record { network, names, addresses });
            }
        }
        let foreign = self.foreign_names(&known);
        shared.extend(foreign.iter().map(|record| record.network.clone()));
        self.tell_others(known.iter().filter(|(network, _)| shared.contains(*network)));
        self.dns.set_names(known.into_values().flatten().chain(foreign).collect());
    }

    /// Publishes names anew when another stack changes its own on a common network, and asks other servers when the host
    /// does.
    pub(crate) fn watch_names(self: &Rc<Self>) {
        for watched in [self.clone().follow_stacks(), self.clone().follow_servers()] {
            if let Err(e) = watched {
                tracing_line(&format!("changes of names go unnoticed: {e}"));
            }
        }
    }

    fn follow_stacks(self: Rc<Self>) -> io::Result<()> {
        let folder = self.paths.shared_names();
        fs::create_dir_all(&folder)?;
        for (network, _) in entries(&folder)?.into_iter().filter(|(_, project)| *project == self.project) {
            self.told.borrow_mut().entry(network).or_default();
        }
        let changes = Changes::new()?;
        changes.watch(&folder)?;
        tokio::task::spawn_local(async move {
            loop {
                self.publish_names();
                if changes.next().await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    fn follow_servers(self: Rc<Self>) -> io::Result<()> {
        let changes = Changes::new()?;
        let mut before = host_resolver();
        // A symbolic link may change, and so may what it leads to.
        let real = fs::canonicalize(RESOLV_CONF).unwrap_or_else(|_| PathBuf::from(RESOLV_CONF));
        for folder in [Path::new(RESOLV_CONF).parent(), real.parent()].into_iter().flatten() {
            changes.watch(folder)?;
        }
        tokio::task::spawn_local(async move {
            while changes.next().await.is_ok() {
                let now = host_resolver();
                if now == before {
                    continue;
                }
                let containers = self.containers();
                for container in &containers {
                    self.dns.update(client(&container.record, &now.servers));
                }
                let rewrites: Vec<_> =
                    containers.iter().filter_map(|one| rewrite(one, &containers, &before, &now)).collect();
                let _ = blocking(move || rewrites.iter().for_each(Rewrite::run)).await;
                before = now;
            }
        });
        Ok(())
    }

    /// What other stacks say of the networks.
    fn foreign_names(&self, networks: &BTreeMap<String, Vec<dns::Record>>) -> Vec<dns::Record> {
        let folder = self.paths.shared_names();
        let of_others = entries(&folder).unwrap_or_default().into_iter();
        let of_others =
            of_others.filter(|(network, project)| networks.contains_key(network) && *project != self.project);
        let read = |(network, project): (String, String)| -> Option<Vec<dns::Record>> {
            read_json(&file(&folder, &network, &project)).ok().flatten()
        };
        of_others.filter_map(read).flatten().collect()
    }

    /// Writes down for other stacks what has changed since.
    fn tell_others<'a>(&self, shared: impl Iterator<Item = (&'a String, &'a Vec<dns::Record>)>) {
        let folder = self.paths.shared_names();
        let mut before = std::mem::take(&mut *self.told.borrow_mut());
        let mut told = BTreeMap::new();
        for (network, records) in shared {
            let unchanged = before.remove(network).is_some_and(|earlier| earlier == *records);
            let written = unchanged || {
                let bytes = serde_json::to_vec(records).unwrap_or_default();
                write_atomic(&file(&folder, network, &self.project), &bytes, false).is_ok()
            };
            if written {
                told.insert(network.clone(), records.clone());
            }
        }
        for network in before.keys() {
            let _ = fs::remove_file(file(&folder, network, &self.project));
        }
        *self.told.borrow_mut() = told;
    }
}

/// A running container's `/etc/resolv.conf` that is to follow the host's.
struct Rewrite {
    pid: i32,
    old: String,
    new: String,
}

/// What becomes of a container's file. One in another's network has the other's.
fn rewrite(container: &Container, all: &[Container], before: &ResolvConf, now: &ResolvConf) -> Option<Rewrite> {
    let joined = container.record.joins.net.as_deref();
    let source = all.iter().find(|other| Some(other.record.id.as_str()) == joined).unwrap_or(container);
    let (old, new) = (resolv_conf(&source.record, before), resolv_conf(&source.record, now));
    let pid = Some(container.state.pid).filter(|pid| *pid > 0 && old != new)?;
    Some(Rewrite { pid, old, new })
}

impl Rewrite {
    /// Changes the file, unless somebody else did.
    fn run(&self) {
        let change = || -> io::Result<()> {
            let root = fs::File::open(format!("/proc/{}/root", self.pid))?;
            let file = open_in_root(root.as_fd(), Path::new(RESOLV_CONF), OFlags::RDWR | OFlags::NONBLOCK)?;
            let mut file = std::fs::File::from(file);
            let mut text = String::new();
            (&mut file).take(LONGEST_RESOLV_CONF).read_to_string(&mut text)?;
            if text == self.old {
                file.write_all_at(self.new.as_bytes(), 0)?;
                file.set_len(self.new.len() as u64)?;
            }
            Ok(())
        };
        // A container that ends meanwhile needs none.
        let _ = change();
    }
}

/// A container as the resolver knows it.
fn client(record: &Record, host: &[IpAddr]) -> dns::Client {
    let service = &record.config;
    let outside = record.endpoints.iter().any(|endpoint| !endpoint.internal);
    let upstream = match (outside, service.dns.is_empty()) {
        (false, _) => Vec::new(),
        (true, true) => host.to_vec(),
        (true, false) => service.dns.iter().filter_map(|server| server.parse().ok()).collect(),
    };
    let links = service.links.iter().chain(&service.external_links).filter_map(|link| {
        let (name, alias) = link.split_once(':')?;
        Some((alias.to_lowercase(), name.to_lowercase()))
    });
    let networks = record.endpoints.iter().map(|endpoint| endpoint.network.clone()).collect();
    dns::Client { id: record.id.clone(), networks, links: links.collect(), upstream }
}

fn file(folder: &Path, network: &str, project: &str) -> PathBuf {
    folder.join(format!("{network}@{project}"))
}

/// Networks and projects that have a file.
fn entries(folder: &Path) -> io::Result<Vec<(String, String)>> {
    let names = fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pair = |name: String| name.rsplit_once('@').map(|(network, project)| (network.to_owned(), project.to_owned()));
    // Files that are being written have a dot behind the project's name, which never has one.
    Ok(names.filter_map(pair).filter(|(_, project)| !project.contains('.')).collect())
}
