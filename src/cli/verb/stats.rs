//! `stack stats`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use fs_err as fs;
use serde_json::Value;

use super::image::size;
use crate::cli::error::{Error, Outcome};
use crate::cli::project::Context;
use crate::cli::select::is_up;
use crate::cli::table::Table;
use crate::cli::template::{self, Format, Row};
use crate::cli::ui::ProgressMode;
use crate::engine::state::Container;

/// Show what containers use.
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Services to show (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Also containers that don't run
    #[arg(short, long)]
    all: bool,
    /// Show once and return
    #[arg(long)]
    no_stream: bool,
    /// Don't shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Form of the output: table, json or a template
    #[arg(long, value_name = "FORM")]
    format: Option<String>,
}

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Time over which a single look measures the processors.
const GLANCE: Duration = Duration::from_millis(250);

/// What a container has used so far, and uses now.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    /// Processor time in µs.
    cpu: u64,
    memory: u64,
    /// Bytes; the machine's memory where there is no limit.
    limit: u64,
    processes: u64,
    received: u64,
    sent: u64,
    read: u64,
    written: u64,
}

impl Stats {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let format = Format::parse(self.format.as_deref())?;
        let target = context.target()?;
        target.check_services(&self.services, &context.containers(&target.name)?)?;
        let mut before: BTreeMap<String, (Usage, Instant)> = BTreeMap::new();
        let mut first = true;
        loop {
            let mut containers = context.containers(&target.name)?;
            containers.retain(|container| {
                (self.services.is_empty() || self.services.contains(&container.record.service))
                    && (self.all || is_up(container))
            });
            let now: BTreeMap<String, (Usage, Instant)> = containers
                .iter()
                .map(|container| (container.record.id.clone(), (usage(container.state.pid), Instant::now())))
                .collect();
            if !first {
                let rows: Vec<Row> =
                    containers.iter().map(|container| row(container, &before, &now, self.no_trunc)).collect();
                self.show(context, &format, &rows)?;
                if self.no_stream {
                    return Ok(0);
                }
            }
            tokio::time::sleep(if first { GLANCE } else { PERIOD }).await;
            (before, first) = (now, false);
        }
    }

    fn show(&self, context: &Context, format: &Format, rows: &[Row]) -> Result<(), Error> {
        let mut out = context.ui.out();
        match format {
            Format::Table => {
                let header =
                    ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
                let fields = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"];
                let mut table = Table::new(&header);
                for row in rows {
                    table.row(fields.map(|field| row[field].as_str().unwrap_or_default().to_owned()));
                }
                if !self.no_stream && context.ui.progress == ProgressMode::Tty {
                    write!(out, "\x1b[H\x1b[2J")?;
                }
                write!(out, "{}", table.render())?;
            }
            Format::Json => rows.iter().try_for_each(|row| writeln!(out, "{}", Value::Object(row.clone())))?,
            Format::Template { parts, header } => write!(out, "{}", template::render(parts, *header, rows)?)?,
        }
        Ok(out.flush()?)
    }
}

type Looks = BTreeMap<String, (Usage, Instant)>;

fn row(container: &Container, before: &Looks, now: &Looks, whole_id: bool) -> Row {
    let record = &container.record;
    let (usage, at) = now[&record.id];
    let (old, then) = before.get(&record.id).copied().unwrap_or((usage, at));
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let percent = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    let elapsed = u64::try_from(at.duration_since(then).as_micros()).unwrap_or(0);
    let fields = [
        ("BlockIO", format!("{} / {}", size(usage.read), size(usage.written))),
        ("CPUPerc", format!("{:.2}%", percent(usage.cpu.saturating_sub(old.cpu), elapsed))),
        ("Container", record.name.clone()),
        ("ID", record.id.chars().take(if whole_id { record.id.len() } else { 12 }).collect()),
        ("MemPerc", format!("{:.2}%", percent(usage.memory, usage.limit))),
        ("MemUsage", format!("{} / {}", binary(usage.memory), binary(usage.limit))),
        ("Name", record.name.clone()),
        ("NetIO", format!("{} / {}", size(usage.received), size(usage.sent))),
        ("PIDs", usage.processes.to_string()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

/// Bytes as docker shows memory: `1.5MiB`.
fn binary(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or("B");
    for larger in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

/// What the control groups and the network of process `pid` say. What cannot be read counts as nothing: a container
/// may end at any time.
fn usage(pid: i32) -> Usage {
    if pid <= 0 {
        return Usage::default();
    }
    let groups = Groups::of(pid);
    let (received, sent) = network(pid);
    let memory = groups.number("memory", "memory.current").or(groups.number("memory", "memory.usage_in_bytes"));
    let cache =
        ["inactive_file", "total_inactive_file"].iter().find_map(|key| groups.entry("memory", "memory.stat", key));
    let limit = groups.number("memory", "memory.max").or(groups.number("memory", "memory.limit_in_bytes"));
    let machine = machine_memory();
    let (read, written) = groups.blocks();
    Usage {
        cpu: groups
            .entry("cpu", "cpu.stat", "usage_usec")
            .or(groups.number("cpuacct", "cpuacct.usage").map(|nanos| nanos / 1000))
            .unwrap_or(0),
        memory: memory.unwrap_or(0).saturating_sub(cache.unwrap_or(0)),
        limit: limit.filter(|limit| *limit < machine).unwrap_or(machine),
        processes: groups.number("pids", "pids.current").unwrap_or(0),
        received,
        sent,
        read,
        written,
    }
}

/// Where a process's control groups are mounted, by controller; `""` is the unified hierarchy.
struct Groups(BTreeMap<String, PathBuf>);

impl Groups {
    fn of(pid: i32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut folders = BTreeMap::new();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            // At the root of a hierarchy everybody's use is counted.
            if path == "/" {
                continue;
            }
            for controller in controllers.split(',') {
                let folder = mount_point(&mounts, controller);
                folders.extend(folder.map(|folder| (controller.to_owned(), folder.join(path.trim_start_matches('/')))));
            }
        }
        Self(folders)
    }

    /// A controller's file: in its own hierarchy, else in the unified one.
    fn read(&self, controller: &str, file: &str) -> Option<String> {
        [controller, ""].iter().find_map(|name| fs::read_to_string(self.0.get(*name)?.join(file)).ok())
    }

    fn number(&self, controller: &str, file: &str) -> Option<u64> {
        self.read(controller, file)?.trim().parse().ok()
    }

    /// The number after `key` in a file of such pairs.
    fn entry(&self, controller: &str, file: &str, key: &str) -> Option<u64> {
        let text = self.read(controller, file)?;
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Bytes read from and written to block devices. Without a group that counts them, what its processes did: each
    /// has that of the children it waited for, and process 1 waits for all others.
    fn blocks(&self) -> (u64, u64) {
        if let Some(text) = self.read("", "io.stat") {
            let sum = |key: &str| {
                text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum()
            };
            return (sum("rbytes="), sum("wbytes="));
        }
        let sum = |text: &str, word: &str| -> u64 {
            text.lines().filter_map(|line| line.split_once(word)?.1.trim().parse::<u64>().ok()).sum()
        };
        if let Some(text) = self.read("blkio", "blkio.throttle.io_service_bytes") {
            return (sum(&text, " Read "), sum(&text, " Write "));
        }
        let processes = ["pids", "memory", ""].iter().find_map(|controller| self.read(controller, "cgroup.procs"));
        let done: String = processes
            .unwrap_or_default()
            .lines()
            .filter_map(|process| fs::read_to_string(format!("/proc/{process}/io")).ok())
            .map(|text| text.replace("cancelled_write_bytes", ""))
            .collect();
        (sum(&done, "read_bytes:"), sum(&done, "write_bytes:"))
    }
}

/// Where a controller's hierarchy is mounted.
fn mount_point(mounts: &str, controller: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let found = match kind.next()? {
            "cgroup2" => controller.is_empty(),
            "cgroup" => !controller.is_empty() && kind.nth(1)?.split(',').any(|option| option == controller),
            _ => false,
        };
        if found { place.split(' ').nth(4).map(PathBuf::from) } else { None }
    })
}

/// Bytes received and sent by all interfaces but loopback.
fn network(pid: i32) -> (u64, u64) {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("net/dev")).unwrap_or_default();
    let mut total = (0, 0);
    for (name, numbers) in text.lines().filter_map(|line| line.split_once(':')) {
        if name.trim() != "lo" {
            let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
            total.0 += numbers.first().copied().unwrap_or(0);
            total.1 += numbers.get(8).copied().unwrap_or(0);
        }
    }
    total
}

/// Bytes of memory that the machine has.
fn machine_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shown_in_binary_units() {
        assert_eq!([0, 1023, 1536, 64 << 20].map(binary), ["0B", "1023B", "1.5KiB", "64MiB"]);
    }

    #[test]
    fn hierarchies_are_found_by_controller() {
        let mounts = "30 29 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      31 29 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
        assert_eq!(mount_point(mounts, "cpuacct"), Some("/sys/fs/cgroup/cpu".into()));
        assert_eq!(mount_point(mounts, ""), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point(mounts, "memory"), None);
    }
}
