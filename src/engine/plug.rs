//! Containers that come to a network, or leave one, while they run.

use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::sync::Arc;

use fs_err as fs;

use super::control::Failure;
use super::endpoints::wires;
use super::networks;
use super::ports::{mappings, targets};
use super::state::{self, Container, Endpoint, Record, Status};
use super::supervisor::{Supervisor, blocking};
use crate::net;
use crate::spec::model::Attachment;

impl Supervisor {
    /// Attaches a container to one more network. It keeps the default routes that it has.
    pub(crate) async fn connect(
        self: &Rc<Self>,
        id: &str,
        network: &str,
        attachment: Attachment,
    ) -> Result<(), Failure> {
        let lock = self.container_lock(id);
        let _held = lock.lock().await;
        let container = self.container(id)?;
        let mut record = Record::clone(&container.record);
        let name = record.name.clone();
        if record.joins.net.is_some() {
            return Err(Failure::new(format!("container {name} has no network of its own to attach"))
                .hint("leave out its `network_mode` and make it anew"));
        }
        if record.endpoints.iter().any(|endpoint| endpoint.network == network) {
            return Err(Failure::new(format!("container {name} is on network {network} already")));
        }
        let file = networks::find(&self.paths, network).map_err(|e| Failure::new(e.to_string()))?;
        let file = file.ok_or_else(|| networks::missing(network))?;
        let _change = self.network.read().await;
        let (host, bridge) = (self.host.clone(), file.to_bridge());
        blocking(move || host.ensure_bridge(&bridge)).await?.map_err(|e| failed(&name, &e))?;
        let key = if file.key.is_empty() { network.to_owned() } else { file.key };
        let index = free_interface(&record.endpoints);
        let mut endpoint = self.endpoint(id, &key, network, attachment, index)?;
        let leads = |ipv4: bool| record.endpoints.iter().flat_map(|e| &e.gateways).any(|g| g.contains(':') != ipv4);
        endpoint.gateways.retain(|gateway| !endpoint.internal && !leads(!gateway.contains(':')));
        record.endpoints.push(endpoint);
        let before = targets(&container.record);
        let netns = namespace(&container)?;
        self.rewrite(record.clone())?;
        if let Some(netns) = netns {
            let (host, wires) = (self.host.clone(), wires(&record).split_off(record.endpoints.len() - 1));
            let attached = blocking(move || host.attach(netns.as_fd(), &wires, false)).await?;
            if let Err(e) = attached {
                let _ = self.ipam.release(network, id);
                self.rewrite(Record::clone(&container.record))?;
                return Err(failed(&name, &e));
            }
            self.lead_ports(&record, &before).await?;
        }
        self.update_names(&record);
        Ok(())
    }

    /// Takes a container off a network; its default route moves to another one.
    pub(crate) async fn disconnect(self: &Rc<Self>, id: &str, network: &str) -> Result<(), Failure> {
        let lock = self.container_lock(id);
        let _held = lock.lock().await;
        let container = self.container(id)?;
        let mut record = Record::clone(&container.record);
        let name = record.name.clone();
        let Some(index) = record.endpoints.iter().position(|endpoint| endpoint.network == network) else {
            return Err(Failure::new(format!("container {name} is not on network {network}")));
        };
        let _change = self.network.read().await;
        let before = targets(&record);
        let wire = wires(&record).swap_remove(index);
        let gone = record.endpoints.remove(index);
        let moved = self.inherit_gateways(&gone, &mut record.endpoints)?;
        let netns = namespace(&container)?;
        self.rewrite(record.clone())?;
        if let Some(netns) = netns {
            let host = self.host.clone();
            let unplug = move || {
                let addresses = host.unplug(netns.as_fd(), &[wire.host_ifname], &moved)?;
                host.forget_connections(addresses)
            };
            blocking(unplug).await?.map_err(|e| failed(&name, &e))?;
            self.lead_ports(&record, &before).await?;
        }
        self.ipam.release(network, id).map_err(|e| failed(&name, &e))?;
        self.update_names(&record);
        Ok(())
    }

    /// Gives the default routes of an attachment that goes to those that stay.
    fn inherit_gateways(&self, gone: &Endpoint, stay: &mut [Endpoint]) -> Result<Vec<(String, IpAddr)>, Failure> {
        let mut moved = Vec::new();
        for lost in &gone.gateways {
            for endpoint in stay.iter_mut().filter(|endpoint| !endpoint.internal) {
                let found = networks::find(&self.paths, &endpoint.network).map_err(|e| Failure::new(e.to_string()))?;
                let own = endpoint.addresses.iter().filter_map(|text| text.parse().ok()).collect::<Vec<_>>();
                let all = found.map(|network| super::endpoints::gateways(&network.bridge, &own)).unwrap_or_default();
                let same = all.into_iter().find(|gateway| gateway.contains(':') == lost.contains(':'));
                if let Some((gateway, address)) = same.and_then(|text| Some((text.clone(), text.parse().ok()?))) {
                    endpoint.gateways.push(gateway);
                    moved.push((endpoint.ifname.clone(), address));
                    break;
                }
            }
        }
        Ok(moved)
    }

    /// Leads published ports to where they belong now.
    async fn lead_ports(self: &Rc<Self>, record: &Record, before: &[IpAddr]) -> Result<(), Failure> {
        let ports = self.look(&record.id, |container| container.state.ports.clone()).unwrap_or_default();
        let (old, new) = (mappings(&ports, before), mappings(&ports, &targets(record)));
        if old == new {
            return Ok(());
        }
        let host = self.host.clone();
        let led = blocking(move || {
            host.firewall().unpublish(&old)?;
            host.firewall().publish(&new)
        });
        led.await?.map_err(|e| failed(&record.name, &e))
    }

    /// Replaces a container's record.
    fn rewrite(&self, record: Record) -> Result<(), Failure> {
        let name = record.name.clone();
        state::write_record(&self.paths, &record).map_err(|e| Failure::new(format!("container {name}: {e}")))?;
        let state = self.container(&record.id)?.state;
        self.insert(Container { record: Arc::new(record), state });
        Ok(())
    }
}

/// The network namespace of a container that runs.
fn namespace(container: &Container) -> Result<Option<fs::File>, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("container {}: {e}", container.record.name));
    match container.state.status {
        Status::Running | Status::Paused => {
            fs::File::open(format!("/proc/{}/ns/net", container.state.pid)).map(Some).map_err(|e| failed(&e))
        }
        Status::Restarting => Err(failed(&"it is between two runs; try again when it runs")),
        Status::Created | Status::Exited | Status::Dead => Ok(None),
    }
}

/// The first number that no interface has behind its letters.
fn free_interface(endpoints: &[Endpoint]) -> usize {
    let taken = |index: &usize| endpoints.iter().any(|endpoint| endpoint.ifname.ends_with(&index.to_string()));
    (0..=endpoints.len() * 10).find(|index| !taken(index)).unwrap_or(endpoints.len())
}

fn failed(container: &str, error: &net::Error) -> Failure {
    Failure::new(format!("container {container}: {error}"))
}
