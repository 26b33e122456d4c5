//! `stack attach`.

use std::io::IsTerminal;

use clap::Args;
use tokio::signal::unix::{self, SignalKind};

use crate::cli::error::{Error, Outcome};
use crate::cli::interrupt::Interrupts;
use crate::cli::prefix::{Look, Printer};
use crate::cli::project::Context;
use crate::cli::select;
use crate::cli::session::{open, reply};
use crate::cli::streams::{DetachKeys, send_input};
use crate::cli::terminal::{self, RawMode};
use crate::engine::control::{Reply, Request};
use crate::engine::logs::{Logs, Start};

/// Be in front of a service's process: see what it writes, type what it reads.
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Service
    service: String,
    /// The service's container of this number
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// Only see
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the process
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
          default_missing_value = "true", hide_possible_values = true)]
    sig_proxy: bool,
    /// Keys that let go of the process
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: String,
}

impl Attach {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let keys = DetachKeys::parse(&self.detach_keys).ok_or_else(|| {
            Error::new(format!("invalid detach keys `{}`", self.detach_keys)).hint("write keys such as ctrl-p,ctrl-q")
        })?;
        let target = context.target()?;
        let containers = context.containers(&target.name)?;
        let container = select::running(&target, &containers, &self.service, self.index)?;
        let id = &container.record.id;
        let tty = container.record.process.tty;
        let mut logs = Logs::new()?;
        logs.add(0, &context.paths.log(id), Start::Tail(0))?;
        let look = Look { colour: false, prefix: false, timestamps: false };
        let mut printer = Printer::new(context.ui, look, []);
        let mut interrupts = Interrupts::new()?;
        let client = open(context, &target.name, &Request::Attach { container: id.clone() }, &[]).await?;
        let mut resized = unix::signal(SignalKind::window_change())?;
        let (mut raw, mut terminal, mut detached) = (None, None, None);
        let code = loop {
            tokio::select! {
                next = reply(&client) => match next? {
                    (Reply::Started { .. }, fds) => if let Some(input) = fds.into_iter().next().filter(|_| !self.no_stdin) {
                        if tty && std::io::stdout().is_terminal() {
                            terminal::resize(&input)?;
                            raw = RawMode::enter()?;
                            terminal = Some(input.try_clone()?);
                        }
                        detached = Some(send_input(input, raw.is_some().then(|| keys.clone())));
                    },
                    (Reply::Exited { code }, _) => break code,
                    (Reply::Failed(failure), _) => return Err(failure.into()),
                    _ => {}
                },
                changed = logs.changed() => changed?,
                number = interrupts.next() => {
                    if !self.sig_proxy {
                        break 0;
                    }
                    super::run::signal(context, &target.name, id, number);
                },
                _ = resized.recv() => if let Some(terminal) = &terminal {
                    terminal::resize(terminal)?;
                },
                () = crate::cli::process::pressed(&mut detached) => break 0,
            }
            while let Some((_, line)) = logs.next_line()? {
                printer.line("", &line)?;
            }
            printer.flush()?;
        };
        while let Some((_, line)) = logs.next_line()? {
            printer.line("", &line)?;
        }
        logs.rest(0).iter().try_for_each(|line| printer.line("", line))?;
        printer.flush()?;
        drop(raw);
        Ok(u8::try_from(code).unwrap_or(1))
    }
}
