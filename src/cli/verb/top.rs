//! `stack top`.

use std::io::Write;

use clap::Args;
use fs_err as fs;

use crate::cli::error::{Error, Outcome};
use crate::cli::project::Context;
use crate::cli::select::is_up;
use crate::cli::table::Table;
use crate::engine::state::Container;

/// List the processes in containers.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Services to list (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// What /proc counts processor time in per second, on every architecture.
const TICKS: u64 = 100;

/// A process as /proc shows it.
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) uid: u32,
    terminal: String,
    ticks: u64,
    pub(super) command: String,
}

impl Top {
    pub(crate) fn run(&self, context: &Context) -> Outcome {
        let target = context.target()?;
        let containers = context.containers(&target.name)?;
        target.check_services(&self.services, &containers)?;
        let mut table = Table::new(&["SERVICE", "#", "UID", "PID", "PPID", "TTY", "TIME", "CMD"]);
        let wanted = |container: &&Container| {
            is_up(container) && (self.services.is_empty() || self.services.contains(&container.record.service))
        };
        for container in containers.iter().filter(wanted) {
            let record = &container.record;
            let ids = record.user_namespace.ids;
            for process in processes(container.state.pid)? {
                let seconds = process.ticks / TICKS;
                table.row([
                    record.service.clone(),
                    record.number.to_string(),
                    ids.map_or(process.uid, |ids| ids.inside(process.uid)).to_string(),
                    process.pid.to_string(),
                    process.parent.to_string(),
                    process.terminal,
                    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
                    process.command,
                ]);
            }
        }
        write!(context.ui.out(), "{}", table.render())?;
        Ok(0)
    }
}

/// The processes in the control groups of `first`, by number.
fn processes(first: i32) -> Result<Vec<Process>, Error> {
    let Ok(groups) = fs::read_to_string(format!("/proc/{first}/cgroup")) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let inside = fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|own| own == groups);
        // One that ended between two looks is left out.
        found.extend(if inside { process(pid) } else { None });
    }
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

/// A process, unless it has ended.
pub(super) fn process(pid: i32) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.split_whitespace().next())
    };
    // The name in parentheses may hold anything; after its end, fields count from the third.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    let terminal = number(4);
    let command = String::from_utf8_lossy(&arguments).trim_end_matches('\0').replace('\0', " ");
    Some(Process {
        pid,
        parent: i32::try_from(number(1)).unwrap_or(0),
        uid: field("Uid:")?.parse().ok()?,
        terminal: if terminal == 0 {
            "?".into()
        } else {
            format!("pts/{}", terminal & 0xff | terminal >> 12 & 0xfff00)
        },
        ticks: u64::try_from(number(11) + number(12)).unwrap_or(0),
        command: if command.is_empty() { format!("[{}]", field("Name:")?) } else { command },
    })
}
