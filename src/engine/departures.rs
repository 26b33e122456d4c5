//! Containers that leave the network at about the same time leave it in one transaction: what the kernel asks for
//! looking through its tables is the same for fifty as for one.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use tokio::sync::{Mutex, oneshot};

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
    /// Held while there are departures whose addresses the kernel still tracks connections of.
    unsettled: Mutex<()>,
}

impl Supervisor {
    /// Takes a container out of the firewall. Returns when it is out; what can't be done is noted in the supervisor's
    /// log. Its tracked connections are forgotten afterwards: see [`Supervisor::departed`].
    pub(crate) async fn depart(self: &Rc<Self>, departure: Departure) {
        let (done, gone) = oneshot::channel();
        self.departures.waiting.borrow_mut().push((departure, done));
        let this = self.clone();
        tokio::task::spawn_local(async move { this.let_depart().await });
        let _ = gone.await;
    }

    /// Waits until the addresses of those who left may be given to others.
    pub(crate) async fn departed(&self) {
        drop(self.departures.unsettled.lock().await);
    }

    async fn let_depart(&self) {
        let _unsettled = self.departures.unsettled.lock().await;
        let mut addresses = Vec::new();
        loop {
            let (departures, askers): (Vec<_>, Vec<_>) = self.departures.waiting.take().into_iter().unzip();
            if departures.is_empty() {
                break;
            }
            let _change = self.network.read().await;
            addresses.extend(self.on_host(move |host| take_out(host, departures)).await.unwrap_or_default());
            for asker in askers {
                // Whoever has stopped waiting need not know.
                let _ = asker.send(());
            }
        }
        if !addresses.is_empty() {
            self.on_host(move |host| host.forget_connections(addresses)).await;
        }
    }

    async fn on_host<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Host) -> Result<T, net::Error> + Send + 'static,
    ) -> Option<T> {
        let host = self.host.clone();
        let failure = match blocking(move || work(&host)).await {
            Ok(Ok(result)) => return Some(result),
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.message,
        };
        tracing_line(&format!("leaving the network: {failure}"));
        None
    }
}

/// Takes containers out of the firewall, and returns the addresses they had.
fn take_out(host: &Host, departures: Vec<Departure>) -> Result<Vec<IpAddr>, net::Error> {
    let mut together = Departure::default();
    for departure in departures {
        together.ifnames.extend(departure.ifnames);
        together.mappings.extend(departure.mappings);
        together.host_users.extend(departure.host_users);
    }
    if !together.mappings.is_empty() {
        host.firewall().unpublish(&together.mappings)?;
    }
    if !together.host_users.is_empty() {
        host.firewall().allow_host(&together.host_users, false)?;
    }
    host.detach(&together.ifnames)
}
