//! Creating and starting containers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use fs_err as fs;
use ipnet::IpNet;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::bundle::{self, Bundle};
use super::control::{Action, Failure};
use super::networks::{self, new_id};
use super::observe::image_reference;
use super::reconcile::Desired;
use super::record::{self, Identity, Surroundings};
use super::state::{
    self, Container, Endpoint, Health, Joins, MountRecord, Published, Record, RunState, Status, VERSION,
};
use super::supervisor::{Supervisor, blocking};
use super::volumes;
use crate::images::Image;
use crate::net::dns;
use crate::net::ipam::LeaseRequest;
use crate::net::publish::{self, Request, Reserved};
use crate::net::{DnsSockets, Endpoint as Wire, PortMapping, Protocol};
use crate::planner::Replaced;
use crate::runtime::launch::Stdio;
use crate::spec::model::{Port, Service};

impl Supervisor {
    /// Makes a container: its record, folders, addresses, volumes. Nothing runs yet.
    pub(crate) async fn create_container(
        self: &Rc<Self>,
        desired: &Arc<Desired>,
        mut identity: Identity,
        service: &Service,
        replaces: Option<Replaced>,
    ) -> Result<String, Failure> {
        let _permit = self.launches.acquire().await;
        let (desired, service) = (desired.clone(), service.clone());
        identity.id = new_id().map_err(|e| Failure::new(format!("no random number: {e}")))?;
        let reference = image_reference(&desired.project, &identity.service, &service);
        let image = self.store.find(&reference).map_err(|e| Failure::new(e.to_string()))?.ok_or_else(|| {
            Failure::new(format!("image {reference} of service {} is not in the store", identity.service))
        })?;
        let neighbours = self.containers();
        let surroundings = self.surroundings(&desired, &identity, &service, &image, replaces, &neighbours)?;
        let record = record::record(&desired, identity, &service, &image, surroundings)?;
        let (paths, store, boot_id) = (self.paths.clone(), self.store.clone(), self.boot_id.clone());
        let container = blocking(move || -> Result<Container, Failure> {
            let failed =
                |e: &dyn std::fmt::Display| Failure::new(format!("container {} could not be made: {e}", record.name));
            // The run state comes first: without a record it tells the next supervisor what was left half-made.
            let state = RunState { version: VERSION, boot_id, ..RunState::default() };
            state::write_run_state(&paths, &record.project, &record.id, &state).map_err(|e| failed(&e))?;
            let home = paths.container(&record.id);
            for folder in ["upper", "work", "log"] {
                fs::create_dir_all(home.join(folder)).map_err(|e| failed(&e))?;
            }
            let objects = paths.file_objects(&record.project, &record.id);
            for key in record.files.keys() {
                fs::create_dir_all(&objects).map_err(|e| failed(&e))?;
                fs::write(objects.join(key), &desired.objects[key]).map_err(|e| failed(&e))?;
            }
            for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
                fill_volume(&paths, &store, &image, &record, mount)?;
            }
            state::write_record(&paths, &record).map_err(|e| failed(&e))?;
            Ok(Container { record, state })
        })
        .await??;
        let id = container.record.id.clone();
        self.insert(container);
        Ok(id)
    }

    fn surroundings(
        &self,
        desired: &Desired,
        identity: &Identity,
        service: &Service,
        image: &Image,
        replaces: Option<Replaced>,
        neighbours: &[Container],
    ) -> Result<Surroundings, Failure> {
        let inherited = replaces.map(|replaced| replaced.volumes).unwrap_or_default();
        let mut mounts = record::mounts(desired, service, image, |target| match inherited.get(target) {
            Some(volume) => Ok(volume.clone()),
            None => new_id().map_err(|e| Failure::new(format!("no random number: {e}"))),
        })?;
        let mut shares = BTreeMap::new();
        let mut other = |reference: &str| -> Result<String, Failure> {
            let found = match reference.split_once(':') {
                Some(("service", name)) => neighbours
                    .iter()
                    .filter(|c| c.record.service == name && !c.record.oneoff)
                    .min_by_key(|c| c.record.number),
                Some(("container", name)) => {
                    neighbours.iter().find(|c| c.record.name == name || c.record.id.starts_with(name))
                }
                _ => None,
            };
            let found = found.ok_or_else(|| {
                Failure::new(format!("service {}: no container of {reference} to share with", identity.service))
            })?;
            shares.insert(found.record.service.clone(), found.record.id.clone());
            Ok(found.record.id.clone())
        };
        let mut join = |mode: Option<&String>| match mode.map(String::as_str) {
            None | Some("" | "private" | "shareable") => Ok(None),
            Some(mode @ ("host" | "none")) => Ok(Some(mode.to_owned())),
            Some(reference) => other(reference).map(Some),
        };
        let joins = Joins {
            net: match service.network_mode.as_deref() {
                Some("host" | "none") => service.network_mode.clone(),
                Some(mode) if mode.starts_with("service:") || mode.starts_with("container:") => {
                    join(service.network_mode.as_ref())?
                }
                _ => None,
            },
            pid: join(service.pid.as_ref())?,
            ipc: join(service.ipc.as_ref())?,
            uts: join(service.uts.as_ref())?,
            cgroup: join(service.cgroup.as_ref())?,
        };
        for reference in &service.volumes_from {
            let (reference, read_only) = match reference.rsplit_once(':') {
                Some((reference, "ro")) => (reference, true),
                Some((reference, "rw")) => (reference, false),
                _ => (reference.as_str(), false),
            };
            let qualified =
                if reference.starts_with("container:") { reference.to_owned() } else { format!("service:{reference}") };
            let id = other(&qualified)?;
            let theirs =
                neighbours.iter().find(|c| c.record.id == id).map(|c| c.record.mounts.clone()).unwrap_or_default();
            for mount in theirs {
                if !mounts.iter().any(|own| own.target == mount.target) {
                    mounts.push(MountRecord { read_only: mount.read_only || read_only, ..mount });
                }
            }
        }
        let endpoints = if joins.net.is_some() { Vec::new() } else { self.endpoints(desired, identity, service)? };
        Ok(Surroundings { endpoints, mounts, joins, shares })
    }

    /// Leases addresses on the service's networks, those of high priority first.
    fn endpoints(&self, desired: &Desired, identity: &Identity, service: &Service) -> Result<Vec<Endpoint>, Failure> {
        let priority = |key: &str| service.networks.get(key).and_then(|a| a.as_ref()?.priority).unwrap_or(0);
        let mut keys: Vec<&String> = service.networks.keys().collect();
        keys.sort_by_key(|key| std::cmp::Reverse(priority(key)));
        let mut endpoints = Vec::new();
        for (index, key) in keys.into_iter().enumerate() {
            let attachment = service.networks.get(key).cloned().flatten().unwrap_or_default();
            let name = crate::planner::network_name(&desired.project, key);
            let failed = |e: &dyn std::fmt::Display| Failure::new(format!("service {}: {e}", identity.service));
            let network = networks::find(&self.paths, &name).map_err(|e| failed(&e))?;
            let network = network.ok_or_else(|| failed(&format!("network {name} is gone")))?;
            let static_address = |text: &Option<String>| -> Result<Option<IpAddr>, Failure> {
                let parse = |text: &String| {
                    text.parse().map_err(|_| failed(&format!("invalid address {text:?} on network {name}")))
                };
                text.as_ref().map(parse).transpose()
            };
            let request = LeaseRequest {
                owner: identity.id.clone(),
                ipv4: static_address(&attachment.ipv4_address)?,
                ipv6: static_address(&attachment.ipv6_address)?,
            };
            let addresses = self.ipam.lease(&name, &request).map_err(|e| failed(&e))?;
            let mut aliases = attachment.aliases.clone();
            if !identity.oneoff {
                aliases.insert(0, identity.service.clone());
            }
            endpoints.push(Endpoint {
                key: key.clone(),
                network: name,
                network_id: network.id,
                bridge: network.bridge.name,
                ifname: attachment.interface_name.unwrap_or_else(|| format!("eth{index}")),
                mac: attachment
                    .mac_address
                    .or_else(|| service.mac_address.clone())
                    .unwrap_or_else(|| mac_of(&addresses)),
                addresses: addresses.iter().map(ToString::to_string).collect(),
                gateway: network.bridge.subnets.iter().find_map(|(_, gateway)| gateway.map(|g| g.to_string())),
                aliases,
                internal: network.bridge.internal,
            });
        }
        keep_one_gateway(service, &mut endpoints);
        Ok(endpoints)
    }

    /// Starts a container that does not run. A running one is left as it is.
    pub(crate) async fn start_container(self: &Rc<Self>, id: &str) -> Result<(), Failure> {
        self.start_with(id, None).await
    }

    /// Starts a container, its standard input, output and error going to `fds` instead of its log.
    pub(crate) async fn start_with(self: &Rc<Self>, id: &str, fds: Option<Vec<OwnedFd>>) -> Result<(), Failure> {
        let lock = self.container_lock(id);
        let _held = lock.lock().await;
        let container = self.container(id)?;
        if matches!(container.state.status, Status::Running | Status::Paused) {
            return Ok(());
        }
        self.tell(&container, Action::Starting);
        let launched = {
            let _permit = self.launches.acquire().await;
            self.launch(&container, fds).await
        };
        match launched {
            Ok(()) => {
                self.watch_health(&container.record);
                self.publish_names();
                if let Ok(container) = self.container(id) {
                    self.tell(&container, Action::Started);
                }
                Ok(())
            }
            Err(failure) => {
                self.change(id, |state| {
                    state.status = if state.started.is_some() { Status::Exited } else { Status::Created };
                    state.exit_code = failure.code;
                    state.error = Some(failure.message.clone());
                    state.ports.clear();
                })?;
                self.release(&container).await;
                self.tell(&container, Action::Error { message: failure.message.clone() });
                Err(failure)
            }
        }
    }

    async fn launch(self: &Rc<Self>, container: &Container, fds: Option<Vec<OwnedFd>>) -> Result<(), Failure> {
        let record = &container.record;
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("container {}: {e}", record.name));
        let kept = self.holds_network(&record.id);
        let (paths, store, owned) = (self.paths.clone(), self.store.clone(), record.clone());
        let Bundle { mut launch, fds: mut slots } =
            blocking(move || bundle::prepare(&paths, &store, &owned, kept)).await??;
        if let Some(given) = fds
            && !record.process.tty
        {
            let first = slots.len();
            let slot = |offset: usize| crate::runtime::launch::Slot(first + offset);
            launch.stdio = Stdio::Fds { stdin: Some(slot(0)), stdout: slot(1), stderr: slot(2) };
            slots.extend(given);
        }
        let shim = self.shim().await?;
        let created = shim.create(&launch, slots).await.map_err(|e| failed(&e))?;
        let mut ports = container.state.ports.clone();
        if !kept && record.joins.net.is_none() {
            let netns = created.netns.ok_or_else(|| failed(&"the runtime gave no network namespace"))?;
            self.attach_network(record, netns).await?;
            ports = self.publish_ports(record).await?;
            self.hold_network(&record.id);
        }
        self.change(&record.id, |state| {
            *state = RunState {
                version: VERSION,
                boot_id: self.boot_id.clone(),
                status: Status::Running,
                pid: created.pid,
                start_time: created.start_time,
                started: Some(Timestamp::now()),
                finished: state.finished,
                health: if record.healthcheck.is_some() { Health::Starting } else { Health::None },
                restarts: state.restarts,
                ports,
                ..RunState::default()
            };
        })?;
        shim.start(&record.id).await.map_err(|e| match e {
            crate::runtime::Error::Launch(error) => failed(&error).code(error.code),
            other => failed(&other),
        })
    }

    async fn attach_network(self: &Rc<Self>, record: &Record, netns: OwnedFd) -> Result<(), Failure> {
        let wires = wires(record);
        let host = self.host.clone();
        let attached = blocking(move || host.attach(netns.as_fd(), &wires, true)).await?;
        let attached = attached.map_err(|e| Failure::new(format!("container {}: {e}", record.name)))?;
        let Some(sockets) = attached.dns else { return Ok(()) };
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("container {}: {e}", record.name));
        let kept = [&sockets.udp, &sockets.tcp].map(|fd| fd.try_clone());
        let kept = kept.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| failed(&e))?;
        self.keep(&dns_key(&record.id), kept).await?;
        self.serve_names(record, sockets)
    }

    /// Answers a container's questions for names.
    pub(crate) fn serve_names(&self, record: &Record, sockets: DnsSockets) -> Result<(), Failure> {
        let outside = record.endpoints.iter().any(|endpoint| !endpoint.internal);
        let asked = &record.config.dns;
        let upstream = match (outside, asked.is_empty()) {
            (false, _) => Vec::new(),
            (true, true) => super::hosts::host_resolver().servers,
            (true, false) => asked.iter().filter_map(|server| server.parse().ok()).collect(),
        };
        let networks = record.endpoints.iter().map(|endpoint| endpoint.network.clone()).collect();
        let client = dns::Client { id: record.id.clone(), networks, upstream };
        self.dns.serve(client, sockets).map_err(|e| Failure::new(format!("container {}: {e}", record.name)))
    }

    /// Tells the resolver who runs now.
    pub(crate) fn publish_names(&self) {
        let mut records = Vec::new();
        for container in self.containers() {
            if !matches!(container.state.status, Status::Running | Status::Paused) {
                continue;
            }
            let record = container.record;
            for endpoint in record.endpoints {
                let mut names = vec![record.name.clone(), super::supervisor::short(&record.id).to_owned()];
                names.extend(endpoint.aliases);
                let addresses =
                    endpoint.addresses.iter().filter_map(|text| text.parse::<IpNet>().ok().map(|net| net.addr()));
                records.push(dns::Record { network: endpoint.network, names, addresses: addresses.collect() });
            }
        }
        self.dns.set_names(records.into_iter().collect());
    }

    async fn publish_ports(self: &Rc<Self>, record: &Record) -> Result<Vec<Published>, Failure> {
        if record.config.ports.is_empty() || record.endpoints.is_empty() {
            return Ok(Vec::new());
        }
        let mut reserved = self.reserved.borrow_mut().remove(&record.name).unwrap_or_default();
        let addresses = super::hosts::addresses(record);
        let (host, service, name) = (self.host.clone(), record.config.ports.clone(), record.name.clone());
        let (published, guards) = blocking(move || -> Result<_, Failure> {
            if reserved.is_empty() {
                reserved = reserve(&host, &name, &service)?;
            }
            let published: Vec<Published> =
                reserved.iter().zip(&service).map(|(held, port)| published(held, port)).collect();
            let mappings = mappings(&published, &addresses);
            host.firewall().publish(&mappings).map_err(|e| Failure::new(format!("container {name}: {e}")))?;
            Ok((published, reserved.into_iter().flat_map(|held| held.guards).collect::<Vec<_>>()))
        })
        .await??;
        // The shim holds the guards, so that no program takes the port while a supervisor restarts.
        self.keep(&ports_key(&record.id), guards).await?;
        Ok(published)
    }

    /// Finds every port that the project's new containers publish, before anything starts. Ports of containers that
    /// run already are theirs to give.
    pub(crate) async fn reserve_ports(&self, wanted: Vec<(String, Vec<Port>)>) -> Result<(), Failure> {
        let ours: Vec<(u16, String)> = self
            .containers()
            .iter()
            .flat_map(|c| c.state.ports.iter().map(|port| (port.host_port, port.protocol.clone())).collect::<Vec<_>>())
            .collect();
        let is_ours = |port: &Port| {
            let number = port.published.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
            ours.iter().any(|(held, protocol)| *held == number && Some(protocol) == port.protocol.as_ref())
        };
        let wanted: Vec<_> = wanted
            .into_iter()
            .filter(|(_, ports)| {
                !ports.is_empty() && !ports.iter().any(|port| is_ours(port) || port.published.is_none())
            })
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let host = self.host.clone();
        let held = blocking(move || {
            let hold = |(name, ports): (String, Vec<Port>)| reserve(&host, &name, &ports).map(|held| (name, held));
            wanted.into_iter().map(hold).collect::<Result<Vec<_>, _>>()
        });
        self.reserved.borrow_mut().extend(held.await??);
        Ok(())
    }
}

/// Where the shim keeps a container's resolver sockets.
pub(crate) fn dns_key(id: &str) -> String {
    format!("dns/{id}")
}

/// Where the shim keeps what holds a container's host ports.
pub(crate) fn ports_key(id: &str) -> String {
    format!("ports/{id}")
}

/// The firewall's mappings of published ports.
pub(crate) fn mappings(published: &[Published], addresses: &[IpAddr]) -> Vec<PortMapping> {
    let mapping = |port: &Published| {
        let host_ip: Option<IpAddr> = port.host_ip.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified());
        let container_ip = addresses.iter().find(|ip| host_ip.is_none_or(|host| host.is_ipv4() == ip.is_ipv4()));
        Some(PortMapping {
            host_ip,
            host_port: port.host_port,
            protocol: port.protocol.parse::<Protocol>().ok()?,
            container_ip: *container_ip?,
            container_port: port.target,
        })
    };
    published.iter().filter_map(mapping).collect()
}

fn reserve(host: &crate::net::Host, name: &str, ports: &[Port]) -> Result<Vec<Reserved>, Failure> {
    let one = |port: &Port| {
        let invalid = |what: &str| Failure::new(format!("container {name}: invalid {what} of port {}", port.target));
        let range = |text: &String| -> Option<RangeInclusive<u16>> {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some(first.parse().ok()?..=last.parse().ok()?)
        };
        let request = Request {
            host_ip: port.host_ip.as_ref().map(|ip| ip.parse().map_err(|_| invalid("host address"))).transpose()?,
            ports: match port.published.as_ref().filter(|text| *text != "0") {
                Some(text) => Some(range(text).ok_or_else(|| invalid("host port"))?),
                None => None,
            },
            protocol: port.protocol.as_deref().unwrap_or("tcp").parse().map_err(|_| invalid("protocol"))?,
        };
        publish::reserve(host, &request).map_err(|e| {
            Failure::new(format!("container {name}: {e}")).hint("stop what uses the port, or publish another one")
        })
    };
    ports.iter().map(one).collect()
}

fn published(held: &Reserved, port: &Port) -> Published {
    Published {
        host_ip: held.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string()),
        host_port: held.port,
        target: port.target,
        protocol: held.protocol.to_string(),
    }
}

/// A container's attachments in the words of the network layer.
fn wires(record: &Record) -> Vec<Wire> {
    let wire = |endpoint: &Endpoint| {
        let digest = Sha256::digest(format!("{}\0{}", record.id, endpoint.network));
        Wire {
            bridge: endpoint.bridge.clone(),
            ifname: endpoint.ifname.clone(),
            host_ifname: digest.iter().take(6).fold("sv".to_owned(), |name, byte| format!("{name}{byte:02x}")),
            addresses: endpoint.addresses.iter().filter_map(|text| text.parse().ok()).collect(),
            gateways: endpoint.gateway.iter().filter_map(|text| text.parse().ok()).collect(),
            mac: parse_mac(&endpoint.mac),
        }
    };
    record.endpoints.iter().map(wire).collect()
}

/// The names of the host's ends of a container's veths.
pub(crate) fn host_ifnames(record: &Record) -> Vec<String> {
    wires(record).into_iter().map(|wire| wire.host_ifname).collect()
}

/// The default route goes through the attachment of the highest `gw_priority`, else the first that leads outside.
fn keep_one_gateway(service: &Service, endpoints: &mut [Endpoint]) {
    let priority = |key: &str| service.networks.get(key).and_then(|a| a.as_ref()?.gw_priority).unwrap_or(0);
    let outside = endpoints.iter().enumerate().filter(|(_, endpoint)| !endpoint.internal);
    let chosen = outside.max_by_key(|(index, endpoint)| (priority(&endpoint.key), std::cmp::Reverse(*index)));
    let chosen = chosen.map(|(index, _)| index);
    for (index, endpoint) in endpoints.iter_mut().enumerate() {
        if Some(index) != chosen {
            endpoint.gateway = None;
        }
    }
}

/// Docker's way: 02:42 and the IPv4 address.
fn mac_of(addresses: &[IpNet]) -> String {
    let octets = addresses.iter().find_map(|net| match net.addr() {
        IpAddr::V4(address) => Some(address.octets()),
        IpAddr::V6(address) => address.octets().last_chunk::<4>().copied(),
    });
    let [a, b, c, d] = octets.unwrap_or_default();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split([':', '-']).map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// Makes a container's volume, and gives an empty one the content that the image has at that place.
fn fill_volume(
    paths: &super::paths::Paths,
    store: &crate::images::Store,
    image: &Image,
    record: &Record,
    mount: &MountRecord,
) -> Result<(), Failure> {
    let failed =
        |e: &dyn std::fmt::Display| Failure::new(format!("volume {} of container {}: {e}", mount.source, record.name));
    if mount.anonymous {
        let volume = volumes::Volume {
            version: VERSION,
            name: mount.source.clone(),
            project: record.project.clone(),
            key: String::new(),
            labels: BTreeMap::from([("com.docker.volume.anonymous".to_owned(), String::new())]),
            driver_opts: BTreeMap::new(),
            hash: String::new(),
            created: Timestamp::now(),
        };
        volumes::ensure(paths, &volume).map_err(|e| failed(&e))?;
    }
    let volume = volumes::find(paths, &mount.source).map_err(|e| failed(&e))?.ok_or_else(|| failed(&"it is gone"))?;
    let data = volumes::data(paths, &volume)?;
    if !mount.nocopy && mount.subpath.is_none() && !image.host && volumes::is_empty(&data).map_err(|e| failed(&e))? {
        store.copy_up(image, &mount.target, &data).map_err(|e| failed(&e))?;
    }
    Ok(())
}
