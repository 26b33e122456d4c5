//! Containers that leave the network at about the same time leave it in one transaction: what the kernel asks for
//! looking through its tables is the same for fifty as for one.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::supervisor::{Supervisor, blocking, tracing_line};
use crate::net::{self, Host, PortMapping};

/// What the firewall knows of one container, or of several.
#[derive(Debug, Default)]
pub(crate) struct Departure {
    /// The host's ends of its interfaces.
    pub(crate) ifnames: Vec<String>,
    /// Its published ports.
    pub(crate) mappings: Vec<PortMapping>,
    /// Its addresses, if it may reach the host's services.
    pub(crate) host_users: Vec<IpAddr>,
}

/// Departures that wait for the one under way to end.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    waiting: RefCell<Vec<(Departure, oneshot::Sender<()>)>>,
    under_way: Cell<bool>,
}

impl Supervisor {
    /// Makes the firewall forget a container. Returns when it has; what can't be done is noted in the supervisor's log.
    pub(crate) async fn depart(self: &Rc<Self>, departure: Departure) {
        let (done, gone) = oneshot::channel();
        self.departures.waiting.borrow_mut().push((departure, done));
        if !self.departures.under_way.replace(true) {
            let this = self.clone();
            tokio::task::spawn_local(async move {
                this.let_depart().await;
                this.departures.under_way.set(false);
            });
        }
        let _ = gone.await;
    }

    async fn let_depart(&self) {
        loop {
            let waiting = self.departures.waiting.take();
            if waiting.is_empty() {
                return;
            }
            let mut together = Departure::default();
            let mut askers = Vec::with_capacity(waiting.len());
            for (departure, asker) in waiting {
                together.ifnames.extend(departure.ifnames);
                together.mappings.extend(departure.mappings);
                together.host_users.extend(departure.host_users);
                askers.push(asker);
            }
            let host = self.host.clone();
            match blocking(move || forget(&host, &together)).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => tracing_line(&format!("leaving the network: {e}")),
                Err(e) => tracing_line(&e.message),
            }
            // Nobody who asked may have gone away; if so, there is nothing to tell.
            for asker in askers {
                let _ = asker.send(());
            }
        }
    }
}

fn forget(host: &Host, departure: &Departure) -> Result<(), net::Error> {
    if !departure.mappings.is_empty() {
        host.firewall().unpublish(&departure.mappings)?;
    }
    if !departure.host_users.is_empty() {
        host.firewall().allow_host(&departure.host_users, false)?;
    }
    host.detach(&departure.ifnames)
}
