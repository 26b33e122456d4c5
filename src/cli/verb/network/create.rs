//! `stack network create`.

use std::collections::BTreeMap;
use std::io::Write;

use clap::{ArgAction, Args};
use ipnet::IpNet;

use crate::cli::error::{Error, Outcome};
use crate::cli::project::Context;
use crate::engine::networks;
use crate::net::Host;
use crate::spec::model::{self, Ipam, IpamPool};

/// A new network.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Its name
    name: String,
    /// Driver; bridge is the only one
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// Subnet, such as 10.1.0.0/24 (default: a free one)
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<String>,
    /// The host's address on the subnet that holds it
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<String>,
    /// Part of its subnet that addresses are given from
    #[arg(long, value_name = "CIDR")]
    ip_range: Vec<String>,
    /// An address that is taken already
    #[arg(long, value_name = "NAME=ADDRESS")]
    aux_address: Vec<String>,
    /// IPv6, too
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false", action = ArgAction::Set, require_equals = true)]
    ipv6: bool,
    /// IPv4
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "true", action = ArgAction::Set, require_equals = true)]
    ipv4: bool,
    /// No way out
    #[arg(long)]
    internal: bool,
    /// Accepted as docker does: every network can be used by all
    #[arg(long)]
    attachable: bool,
    /// Label
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Option of the driver
    #[arg(short = 'o', long = "opt", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// Address management; default is the only one
    #[arg(long, default_value = "default")]
    ipam_driver: String,
}

impl Create {
    pub(super) fn run(&self, context: &Context) -> Outcome {
        if self.driver != "bridge" || self.ipam_driver != "default" {
            let (what, which) =
                if self.driver == "bridge" { ("ipam driver", &self.ipam_driver) } else { ("driver", &self.driver) };
            return Err(Error::new(format!("the network {what} `{which}` is not supported")).hint("leave it out"));
        }
        let wanted = model::Network {
            name: self.name.clone(),
            driver: Some(self.driver.clone()),
            driver_opts: pairs(&self.options)?,
            ipam: Some(Ipam { config: self.pools()?, ..Ipam::default() }).filter(|ipam| !ipam.config.is_empty()),
            internal: self.internal,
            attachable: self.attachable,
            enable_ipv4: Some(self.ipv4),
            enable_ipv6: Some(self.ipv6),
            labels: pairs(&self.label)?,
            ..model::Network::default()
        };
        let network = networks::create(&context.paths, &Host::current(), &wanted)?;
        writeln!(context.ui.out(), "{}", network.id)?;
        Ok(0)
    }

    /// Gateways, ranges and taken addresses belong to the subnet that holds them.
    fn pools(&self) -> Result<Vec<IpamPool>, Error> {
        let mut pools = Vec::new();
        for subnet in &self.subnet {
            let parsed: IpNet = subnet.parse().map_err(|_| Error::new(format!("invalid subnet `{subnet}`")))?;
            pools.push((parsed, IpamPool { subnet: Some(subnet.clone()), ..IpamPool::default() }));
        }
        let mut holder = |what: &str, text: &str, change: &mut dyn FnMut(&mut IpamPool)| {
            let address = text.parse::<IpNet>().map(|net| net.addr()).or_else(|_| text.parse());
            let address = address.map_err(|_| Error::new(format!("invalid {what} `{text}`")))?;
            match pools.iter_mut().find(|(subnet, _)| subnet.contains(&address)) {
                Some((_, pool)) => {
                    change(pool);
                    Ok(())
                }
                None => Err(Error::new(format!("no matching subnet for {what} {text}"))
                    .hint("name the subnet that it lies in with --subnet")),
            }
        };
        for gateway in &self.gateway {
            holder("gateway", gateway, &mut |pool| pool.gateway = Some(gateway.clone()))?;
        }
        for range in &self.ip_range {
            holder("range", range, &mut |pool| pool.ip_range = Some(range.clone()))?;
        }
        for (name, address) in pairs(&self.aux_address)? {
            holder("address", &address, &mut |pool| {
                pool.aux_addresses.insert(name.clone(), address.clone());
            })?;
        }
        Ok(pools.into_iter().map(|(_, pool)| pool).collect())
    }
}

/// `NAME=VALUE` words; without a value it is empty.
fn pairs(words: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let pair = |word: &String| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        if name.is_empty() {
            return Err(Error::new(format!("`{word}` names nothing")).hint("write NAME=VALUE"));
        }
        Ok((name.to_owned(), value.to_owned()))
    };
    words.iter().map(pair).collect()
}
