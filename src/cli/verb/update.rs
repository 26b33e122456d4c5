//! `stack update`.

use std::io::Write;

use clap::Args;

use crate::cli::error::{Error, Outcome};
use crate::cli::project::Context;
use crate::cli::select::of_services;
use crate::cli::session::carry_out;
use crate::engine::control::Request;
use crate::engine::update::Limits;
use crate::spec::units::ByteSize;

/// Change the limits of services' containers, at once where they run.
///
/// The new limits hold until a container is made anew: those to stay belong into the stack file.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Services
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
    /// Processors, such as 1.5
    #[arg(long, value_name = "N", value_parser = processors)]
    cpus: Option<f64>,
    /// Microseconds of processor time per period; -1 is unlimited
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true, conflicts_with = "cpus")]
    cpu_quota: Option<i64>,
    /// Period of the quota
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<i64>,
    /// Time per period for real-time processes
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<i64>,
    /// Period of the time for real-time processes
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<i64>,
    /// Weight of processor time, 1024 is normal
    #[arg(short, long, value_name = "WEIGHT")]
    cpu_shares: Option<i64>,
    /// Processors to run on, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory, such as 512m
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Memory kept when it is short
    #[arg(long, value_name = "SIZE")]
    memory_reservation: Option<ByteSize>,
    /// Memory and swap together; -1 is unlimited
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = swap)]
    memory_swap: Option<ByteSize>,
    /// Processes and threads; -1 is unlimited
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Weight of block input and output, 10 to 1000
    #[arg(long, value_name = "WEIGHT", value_parser = clap::value_parser!(u16).range(10..=1000))]
    blkio_weight: Option<u16>,
    /// Restart policy: no, always, unless-stopped, on-failure[:N]
    #[arg(long, value_name = "POLICY", value_parser = policy)]
    restart: Option<String>,
}

impl Update {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let target = context.target()?;
        let containers = context.containers(&target.name)?;
        target.check_services(&self.services, &containers)?;
        let limits = self.limits();
        if limits == Limits::default() {
            return Err(Error::new("nothing to update").hint("name a limit, for example `--memory 512m`"));
        }
        let mut names: Vec<&str> =
            of_services(&containers, &self.services).map(|container| container.record.name.as_str()).collect();
        if names.is_empty() {
            return Err(Error::new(format!("project `{}` has no container of these services", target.name))
                .hint("make them with `stack up -d`"));
        }
        names.sort_unstable();
        let request = Request::Update { services: self.services.clone(), limits: Box::new(limits) };
        carry_out(context, &target.name, &request, "update").await?;
        for name in names {
            writeln!(context.ui.out(), "{name}")?;
        }
        Ok(0)
    }

    fn limits(&self) -> Limits {
        Limits {
            cpus: self.cpus,
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period,
            cpu_rt_runtime: self.cpu_rt_runtime,
            cpu_rt_period: self.cpu_rt_period,
            cpu_shares: self.cpu_shares,
            cpuset: self.cpuset_cpus.clone(),
            memory: self.memory,
            memory_reservation: self.memory_reservation,
            memory_swap: self.memory_swap,
            pids: self.pids_limit,
            blkio_weight: self.blkio_weight,
            restart: self.restart.clone(),
        }
    }
}

fn processors(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "it must be a number above 0".to_owned())
}

fn swap(text: &str) -> Result<ByteSize, String> {
    if text == "-1" { Ok(ByteSize(-1)) } else { text.parse().map_err(|e: crate::spec::units::UnitError| e.to_string()) }
}

fn policy(text: &str) -> Result<String, String> {
    let most = text.strip_prefix("on-failure:").map(str::parse::<u32>);
    if matches!(text, "no" | "always" | "unless-stopped" | "on-failure") || matches!(most, Some(Ok(_))) {
        Ok(text.to_owned())
    } else {
        Err("it is one of no, always, unless-stopped, on-failure and on-failure:N".to_owned())
    }
}
