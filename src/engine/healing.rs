//! What others take away from the stack's networks comes back: the kernel tells of each change, nobody looks on a timer.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::control::{Action, Failure, Kind};
use super::endpoints::wires;
use super::hosts::{addresses, reaches_host};
use super::networks;
use super::ports::{mappings, targets};
use super::state::Status;
use super::supervisor::{Supervisor, blocking, tracing_line};
use crate::net::{Changes, Wanted};

impl Supervisor {
    /// Listens from now on, and puts back what went while nobody did.
    pub(crate) fn watch_network(self: &Rc<Self>) {
        let changes = match Changes::open() {
            Ok(changes) => changes,
            Err(e) => return tracing_line(&format!("what others change in the network goes unnoticed: {e}")),
        };
        let this = self.clone();
        tokio::task::spawn_local(async move {
            let mut takes_over = true;
            loop {
                if let Err(e) = this.heal_network(takes_over).await {
                    tracing_line(&e.message);
                }
                takes_over = false;
                if let Err(e) = changes.next().await {
                    return tracing_line(&format!("what others change in the network goes unnoticed from now on: {e}"));
                }
            }
        });
    }

    /// Puts back what is missing. What the last supervisor had not finished, or begun to take apart, when it died is
    /// nobody's doing.
    async fn heal_network(&self, takes_over: bool) -> Result<(), Failure> {
        // Nothing may leave between the look and the repair, or the repair would bring it back.
        let _alone = self.network.write().await;
        let wanted = self.wanted_network()?;
        if wanted.bridges.is_empty() {
            return Ok(());
        }
        let host = self.host.clone();
        let healed = blocking(move || host.heal(&wanted)).await?;
        let healed = healed.map_err(|e| Failure::new(format!("the network could not be repaired: {e}")))?;
        if takes_over && !healed.is_empty() {
            tracing_line(&format!("put in order while taking over: {}", healed.join(", ")));
        } else if !healed.is_empty() {
            let message = format!("put back what another program removed: {}", healed.join(", "));
            tracing_line(&message);
            self.report(Kind::Network, &self.project, "", "", Action::Warning { message });
        }
        Ok(())
    }

    /// What the stack has in the host's network now.
    fn wanted_network(&self) -> Result<Wanted, Failure> {
        let mut wanted = Wanted::default();
        let mut used = BTreeSet::new();
        for container in self.containers() {
            let record = &container.record;
            // Of one that has ended, what is still there is about to be taken apart.
            let lives = matches!(container.state.status, Status::Running | Status::Paused | Status::Restarting);
            if !lives || !self.holds_network(&record.id) {
                continue;
            }
            let own = addresses(record);
            used.extend(record.endpoints.iter().map(|endpoint| endpoint.network.clone()));
            wanted.endpoints.extend(wires(record));
            wanted.ports.extend(mappings(&container.state.ports, &targets(record)));
            wanted.host_users.extend(own.into_iter().filter(|_| reaches_host(record)));
        }
        let all = networks::list(&self.paths).map_err(|e| Failure::new(format!("the networks: {e}")))?;
        let ours = all.iter().filter(|network| network.project == self.project || used.contains(&network.name));
        wanted.bridges = ours.map(networks::Network::to_bridge).collect();
        Ok(wanted)
    }
}
