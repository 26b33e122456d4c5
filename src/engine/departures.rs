//! Containers that leave the network at about the same time leave it in one transaction: what the kernel asks for
//! looking through its tables is the same for fifty as for one. Their tracked connections are forgotten a moment later, or
//! when somebody asks for it: the kernel holds a processor for some 9 ms meanwhile, which whoever waits may use first.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};

use super::supervisor::{Supervisor, blocking, tracing_line};
use crate::net::{self, Host, PortMapping};

/// How long the connections of those who left may stay tracked, unless their addresses are wanted.
const MOMENT: Duration = Duration::from_millis(20);

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
    /// Addresses of those who left, whose connections the kernel still tracks.
    tracked: RefCell<Vec<IpAddr>>,
    /// Held by whoever sees to either.
    busy: Mutex<()>,
}

impl Supervisor {
    /// Takes a container out of the firewall. Returns when it is out; what can't be done is noted in the supervisor's
    /// log. Its tracked connections are forgotten afterwards: see [`Supervisor::departed`].
    pub(crate) async fn depart(self: &Rc<Self>, departure: Departure) {
        let (done, gone) = oneshot::channel();
        self.departures.waiting.borrow_mut().push((departure, done));
        let this = self.clone();
        tokio::task::spawn_local(async move {
            this.let_depart().await;
            tokio::time::sleep(MOMENT).await;
            this.departed().await;
        });
        let _ = gone.await;
    }

    /// Sees to it that the addresses of those who left may be given to others.
    pub(crate) async fn departed(&self) {
        let _busy = self.departures.busy.lock().await;
        let addresses = self.departures.tracked.take();
        if !addresses.is_empty() {
            self.on_host(move |host| host.forget_connections(addresses)).await;
        }
    }

    async fn let_depart(&self) {
        let _busy = self.departures.busy.lock().await;
        loop {
            let (departures, askers): (Vec<_>, Vec<_>) = self.departures.waiting.take().into_iter().unzip();
            if departures.is_empty() {
                break;
            }
            let _change = self.network.read().await;
            let addresses = self.on_host(move |host| take_out(host, departures)).await;
            self.departures.tracked.borrow_mut().extend(addresses.unwrap_or_default());
            for asker in askers {
                // Whoever has stopped waiting need not know.
                let _ = asker.send(());
            }
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
