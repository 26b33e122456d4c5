//! `stack port`.

use std::io::Write;

use clap::Args;

use crate::cli::error::{Error, Outcome};
use crate::cli::project::Context;
use crate::cli::select;

/// Print where a service's port is published.
#[derive(Debug, Args)]
pub(crate) struct Port {
    /// Service
    service: String,
    /// Port in the container
    #[arg(value_name = "PRIVATE_PORT")]
    private: u16,
    /// Protocol, tcp or udp
    #[arg(long, default_value = "tcp")]
    protocol: String,
    /// The service's container of this number
    #[arg(long, value_name = "N")]
    index: Option<u32>,
}

impl Port {
    pub(crate) fn run(&self, context: &Context) -> Outcome {
        let target = context.target()?;
        let containers = context.containers(&target.name)?;
        let container = select::running(&target, &containers, &self.service, self.index)?;
        let protocol = self.protocol.to_lowercase();
        let ports = &container.state.ports;
        let asked = ports.iter().filter(|port| port.target == self.private && port.protocol == protocol);
        let Some(port) = asked.min_by_key(|port| port.host_port == 0) else {
            let known: Vec<String> = ports.iter().map(|port| format!("{}/{}", port.target, port.protocol)).collect();
            let error =
                Error::new(format!("no port {}/{protocol} for container {}", self.private, container.record.name));
            return Err(if known.is_empty() {
                error.hint("it publishes no port")
            } else {
                error.hint(format!("it publishes {}", known.join(", ")))
            });
        };
        if port.host_port == 0 {
            let what = format!("port {}/{protocol} of container {}", self.private, container.record.name);
            return Err(Error::new(format!("{what} is no port of the host"))
                .hint("its network is routed: it answers at the container's own address"));
        }
        let ip = if port.host_ip.contains(':') { format!("[{}]", port.host_ip) } else { port.host_ip.clone() };
        writeln!(context.ui.out(), "{ip}:{}", port.host_port)?;
        Ok(0)
    }
}
