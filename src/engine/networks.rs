//! Networks: a description of each, and the bridge it stands for.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use data_encoding::HEXLOWER;
use fs_err as fs;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::control::{Action, Failure, Kind};
use super::options::Options;
use super::paths::Paths;
use super::state::{VERSION, read_json};
use super::supervisor::{Supervisor, blocking};
use crate::net::ipam::{Ipam, NetworkRequest, PoolRequest};
use crate::net::{self, Host, Outward};
use crate::planner;
use crate::spec::model;
use crate::sys::file::write_atomic;

/// A network's description, `<name>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Version of this file.
    pub version: u32,
    /// Real name.
    pub name: String,
    /// Changes each time the network is made.
    pub id: String,
    /// Project that made it; empty if none did.
    pub project: String,
    /// Key in the project's file.
    pub key: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Hash of its definition.
    pub hash: String,
    /// The definition, for saying later what changed.
    #[serde(default)]
    pub definition: serde_json::Value,
    /// Time of creation.
    pub created: Timestamp,
    /// Its bridge.
    pub bridge: Bridge,
}

/// The bridge of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Interface name.
    pub name: String,
    /// Subnets, each with the bridge's own address in it.
    pub subnets: Vec<(IpNet, Option<IpAddr>)>,
    /// No way out.
    pub internal: bool,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// Its members may talk to each other.
    pub icc: bool,
    /// Traffic to outside gets the host's address.
    pub masquerade: bool,
    /// How it and the world meet besides.
    #[serde(default)]
    pub outward: Outward,
    /// The bridge has no IPv4 address: somebody else has the gateway's.
    #[serde(default)]
    pub inhibit_ipv4: bool,
    /// Begins the names of interfaces inside, instead of `eth`.
    #[serde(default)]
    pub interface_prefix: Option<String>,
}

impl Network {
    /// The bridge in the words of the layer below.
    pub(crate) fn to_bridge(&self) -> net::Bridge {
        let own = |cidr: &IpNet| !(self.bridge.inhibit_ipv4 && cidr.addr().is_ipv4());
        let subnet =
            |&(cidr, gateway): &(IpNet, Option<IpAddr>)| net::Subnet { cidr, gateway: gateway.filter(|_| own(&cidr)) };
        let subnets = self.bridge.subnets.iter().map(subnet).collect();
        net::Bridge {
            name: self.bridge.name.clone(),
            alias: owner(&self.project, &self.name),
            subnets,
            internal: self.bridge.internal,
            mtu: self.bridge.mtu,
            icc: self.bridge.icc,
            masquerade: self.bridge.masquerade,
            outward: self.bridge.outward.clone(),
        }
    }
}

/// What a bridge says of whose it is. The kernel keeps 255 bytes, the marks of the layer below among them: of longer
/// names the first part and a digest remain.
fn owner(project: &str, network: &str) -> String {
    const LONGEST: usize = 200;
    let whole = format!("stack:{project}:{network}");
    if whole.len() <= LONGEST {
        return whole;
    }
    let digest = HEXLOWER.encode(&Sha256::digest(&whole));
    format!("{}~{}", &whole[..whole.floor_char_boundary(LONGEST - 17)], &digest[..16])
}

/// All networks, by name.
pub fn list(paths: &Paths) -> io::Result<Vec<Network>> {
    let entries = match fs::read_dir(paths.networks()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut networks = Vec::new();
    for entry in entries {
        if let Some(name) = entry?.file_name().to_string_lossy().strip_suffix(SUFFIX) {
            networks.extend(find(paths, name)?);
        }
    }
    networks.sort_by(|a: &Network, b| a.name.cmp(&b.name));
    Ok(networks)
}

/// A network by name.
pub fn find(paths: &Paths, name: &str) -> io::Result<Option<Network>> {
    let file = paths.networks().join(format!("{name}{SUFFIX}"));
    // A power cut may leave a file without its content; it left no network either.
    match fs::metadata(&file) {
        Ok(metadata) if metadata.len() == 0 => Ok(None),
        _ => read_json(&file),
    }
}

const SUFFIX: &str = ".network.json";
/// The same of one that is being removed.
const GOING: &str = ".network.going";

/// Makes a network of a project's file, or repairs its bridge. Returns what is to be said of it: options without a meaning,
/// and firewall chains of others that keep it from reaching other hosts.
pub fn ensure(
    paths: &Paths,
    host: &Host,
    project: &str,
    key: &str,
    wanted: &model::Network,
) -> Result<Vec<String>, Failure> {
    let found = find(paths, &wanted.name).map_err(|e| Failure::new(e.to_string()))?;
    let network = if let Some(network) = found {
        network
    } else {
        // What is left of an earlier one has the same bridge.
        remove(paths, host, &wanted.name)?;
        describe(paths, host, project, key, wanted)?
    };
    let bridge = network.to_bridge();
    host.ensure_bridge(&bridge).map_err(|e| failure(&wanted.name, &e))?;
    let unknown = Options::parse(&wanted.name, &wanted.driver_opts, wanted.internal)?.unknown;
    let mut warnings: Vec<_> =
        unknown.iter().map(|option| format!("the driver option `{option}` has no effect")).collect();
    if !bridge.internal {
        let chains = host.obstacles(&bridge.name).map_err(|e| failure(&wanted.name, &e))?;
        warnings.extend(chains.iter().map(|chain| {
            format!("the firewall chain `{chain}` drops what containers send to other hosts; add a rule there that accepts it")
        }));
    }
    Ok(warnings)
}

/// Makes a network that belongs to no project.
pub fn create(paths: &Paths, host: &Host, wanted: &model::Network) -> Result<Network, Failure> {
    let name = &wanted.name;
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if !name.bytes().all(valid) || !name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Err(Failure::new(format!("invalid network name {name:?}"))
            .hint("begin with a letter or digit, and use letters, digits, `_`, `.` and `-`"));
    }
    if matches!(name.as_str(), "bridge" | "host" | "none" | "default") {
        return Err(
            Failure::new(format!("the network name {name} has a meaning of its own")).hint("choose another name")
        );
    }
    if let Some(option) = Options::parse(name, &wanted.driver_opts, wanted.internal)?.unknown.first() {
        return Err(Failure::new(format!("network {name}: {option} is no option of the bridge driver")));
    }
    let failed = |e: io::Error| Failure::new(format!("network {name}: {e}"));
    if find(paths, name).map_err(failed)?.is_some() {
        return Err(Failure::new(format!("network {name} exists already")).hint("`stack network inspect` shows it"));
    }
    fs::create_dir_all(paths.networks()).map_err(failed)?;
    let made = ensure(paths, host, "", "", wanted)
        .and_then(|_| find(paths, name).map_err(failed)?.ok_or_else(|| missing(name)));
    if made.is_err() {
        let _ = remove(paths, host, name);
    }
    made
}

/// What to say of a network that isn't there.
pub fn missing(name: &str) -> Failure {
    Failure::new(format!("network {name} not found")).hint("`stack network ls` shows all networks")
}

/// Removes a network, its bridge and its leases. A missing one is no error.
pub fn remove(paths: &Paths, host: &Host, name: &str) -> Result<(), Failure> {
    let io_failure = |e: io::Error| Failure::new(format!("network {name} could not be removed: {e}"));
    let going = paths.networks().join(format!("{name}{GOING}"));
    // From here on nobody uses it, or repairs it, and after a crash it is known what is still to be done.
    match fs::rename(paths.networks().join(format!("{name}{SUFFIX}")), &going) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_failure(e)),
        _ => {}
    }
    let Some(network) = read_json::<Network>(&going).map_err(io_failure)? else { return Ok(()) };
    host.remove_bridge(&network.bridge.name).map_err(|e| failure(name, &e))?;
    let ipam = Ipam::open(&paths.networks()).map_err(|e| failure(name, &e))?;
    ipam.release_network(name).map_err(|e| failure(name, &e))?;
    fs::remove_file(&going).map_err(io_failure)
}

/// Removes what is left of a project's networks whose removal was cut off.
pub(crate) fn sweep(paths: &Paths, host: &Host, project: &str) -> Result<(), Failure> {
    let io_failure = |e: io::Error| Failure::new(format!("what is left of networks could not be removed: {e}"));
    let entries = match fs::read_dir(paths.networks()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io_failure)?,
    };
    for entry in entries {
        let path = entry.map_err(io_failure)?.path();
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(GOING));
        let Some(name) = name else { continue };
        if read_json::<Network>(&path).map_err(io_failure)?.is_some_and(|network| network.project == project) {
            remove(paths, host, name)?;
        }
    }
    Ok(())
}

fn describe(paths: &Paths, host: &Host, project: &str, key: &str, wanted: &model::Network) -> Result<Network, Failure> {
    let name = &wanted.name;
    let options = Options::parse(name, &wanted.driver_opts, wanted.internal)?;
    let bridge_name = options.bridge.unwrap_or_else(|| bridge_name(paths, name));
    let request = NetworkRequest {
        name: name.clone(),
        owner: project.to_owned(),
        bridge: bridge_name.clone(),
        pools: pools(wanted)?,
        ipv4: wanted.enable_ipv4.or(options.enable_ipv4).unwrap_or(true),
        ipv6: wanted.enable_ipv6.or(options.enable_ipv6).unwrap_or(false),
    };
    let busy = host.busy().map_err(|e| failure(name, &e))?;
    let ipam = Ipam::open(&paths.networks()).map_err(|e| failure(name, &e))?;
    let subnets = ipam.allocate(&request, &busy).map_err(|e| failure(name, &e))?;
    let mut labels = wanted.labels.clone();
    if !project.is_empty() {
        labels.insert("com.docker.compose.project".to_owned(), project.to_owned());
        labels.insert("com.docker.compose.network".to_owned(), key.to_owned());
        labels.insert("com.docker.compose.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    }
    let network = Network {
        version: VERSION,
        name: name.clone(),
        id: new_id().map_err(|e| Failure::new(format!("no random number for network {name}: {e}")))?,
        project: project.to_owned(),
        key: key.to_owned(),
        labels,
        hash: planner::network_hash(wanted),
        definition: planner::network_definition(wanted),
        created: Timestamp::now(),
        bridge: Bridge {
            name: bridge_name,
            subnets: subnets
                .into_iter()
                .map(|subnet| {
                    let ipv4 = subnet.cidr.addr().is_ipv4();
                    (subnet.cidr, subnet.gateway.filter(|_| !options.isolated.contains(&ipv4)))
                })
                .collect(),
            internal: wanted.internal,
            mtu: options.mtu,
            icc: options.icc.unwrap_or(true),
            masquerade: options.masquerade.unwrap_or(true),
            outward: options.outward,
            inhibit_ipv4: options.inhibit_ipv4,
            interface_prefix: options.interface_prefix,
        },
    };
    let file = paths.networks().join(format!("{name}{SUFFIX}"));
    let bytes = serde_json::to_vec(&network).map_err(|e| Failure::new(e.to_string()))?;
    // What a project's file says needs no memory of a power cut.
    write_atomic(&file, &bytes, project.is_empty())
        .map_err(|e| Failure::new(format!("network {name} could not be made: {e}")))?;
    Ok(network)
}

fn pools(wanted: &model::Network) -> Result<Vec<PoolRequest>, Failure> {
    fn parse<T: std::str::FromStr>(network: &str, what: &str, text: Option<&String>) -> Result<Option<T>, Failure> {
        let parsed = text.map(|text| text.parse().map_err(|_| (text, ())));
        parsed.transpose().map_err(|(text, ())| Failure::new(format!("network {network}: invalid {what} {text:?}")))
    }
    let Some(ipam) = &wanted.ipam else { return Ok(Vec::new()) };
    let pool = |pool: &model::IpamPool| {
        let name = &wanted.name;
        let taken = pool.aux_addresses.iter().map(|(host, address)| {
            Ok((host.clone(), parse(name, "auxiliary address", Some(address))?.unwrap_or(IpAddr::from([0, 0, 0, 0]))))
        });
        Ok(PoolRequest {
            subnet: parse(name, "subnet", pool.subnet.as_ref())?,
            ip_range: parse(name, "ip_range", pool.ip_range.as_ref())?,
            gateway: parse(name, "gateway", pool.gateway.as_ref())?,
            aux_addresses: taken.collect::<Result<_, Failure>>()?,
        })
    };
    ipam.config.iter().map(pool).collect()
}

/// A bridge name that no other network of any root has: a hash, since names are cut at 15 bytes.
fn bridge_name(paths: &Paths, network: &str) -> String {
    let digest = HEXLOWER.encode(&Sha256::digest(format!("{}\0{network}", paths.instance())));
    format!("st{}", &digest[..10])
}

/// 64 random hexadecimal digits.
pub(crate) fn new_id() -> io::Result<String> {
    let mut halves = [[0_u8; 16]; 2];
    rustix::rand::getrandom(halves.as_flattened_mut(), rustix::rand::GetRandomFlags::empty())?;
    let [high, low] = halves.map(u128::from_be_bytes);
    Ok(format!("{high:032x}{low:032x}"))
}

fn failure(network: &str, error: &net::Error) -> Failure {
    Failure::new(format!("network {network}: {error}"))
}

impl Supervisor {
    /// Makes or repairs a network of the project.
    pub(crate) async fn create_network(&self, key: String, wanted: model::Network) -> Result<(), Failure> {
        let name = wanted.name.clone();
        self.report(Kind::Network, &name, "", "", Action::Creating);
        let _change = self.network.read().await;
        let (paths, host, project) = (self.paths.clone(), self.host.clone(), self.project.clone());
        let warnings = blocking(move || ensure(&paths, &host, &project, &key, &wanted)).await??;
        for message in warnings {
            self.report(Kind::Network, &name, "", "", Action::Warning { message });
        }
        self.report(Kind::Network, &name, "", "", Action::Created);
        Ok(())
    }

    /// Removes a network of the project.
    pub(crate) async fn remove_network(&self, name: String) -> Result<(), Failure> {
        self.report(Kind::Network, &name, "", "", Action::Removing);
        self.departed().await;
        let _change = self.network.read().await;
        let (paths, host, removed) = (self.paths.clone(), self.host.clone(), name.clone());
        blocking(move || remove(&paths, &host, &removed)).await??;
        self.report(Kind::Network, &name, "", "", Action::Removed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_names_its_owner_within_what_the_kernel_keeps() {
        assert_eq!(owner("p", "p_default"), "stack:p:p_default");
        let (project, network) = ("p".repeat(128), format!("{}_default", "p".repeat(128)));
        assert_eq!(owner(&project, &network).len(), 200);
        assert_ne!(owner(&project, &network), owner(&project, &format!("{network}2")));
    }
}
