//! What it takes to watch 50,000 files in 2,500 folders, beside an ignored tree of the same size: time, memory, and what
//! it costs while nothing happens. `cargo bench --bench watching`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "the figures are its output, and there is no other")]

use std::path::Path;
use std::time::{Duration, Instant};

use fs_err as fs;
use serde_json::json;
use stack::engine::watch::{Rule, Tree};
use stack::spec::model::Service;

const FOLDERS: usize = 2_500;
const FILES: usize = 20;
const RUNS: usize = 9;
const IDLE: Duration = Duration::from_secs(5);

fn main() {
    let folder = std::env::temp_dir().join(format!("stack-watching-{}", std::process::id()));
    for tree in ["src", "src/node_modules"] {
        grow(&folder.join(tree));
    }
    let rule = json!({"path": folder.join("src"), "action": "restart", "ignore": ["node_modules"]});
    let service: Service = serde_json::from_value(json!({"develop": {"watch": [rule]}})).unwrap();
    let (rules, _) = Rule::of("api", &service, &[]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let inside = runtime.enter();
    let before = memory();
    let mut tree = Tree::new(&rules).unwrap();
    let (folders, memory) = (tree.folders(), memory() - before);
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let begin = Instant::now();
        let another = Tree::new(&rules).unwrap();
        times.push(begin.elapsed());
        drop(another);
    }
    times.sort_unstable();
    drop(inside);
    let busy = cpu();
    runtime.block_on(async { tokio::time::timeout(IDLE, tree.next()).await.unwrap_err() });
    println!(
        "{} files: {folders} folders watched in {:.1} ms with {memory} KiB; {} ticks of CPU in {} idle seconds",
        FOLDERS * FILES,
        times[RUNS / 2].as_secs_f64() * 1e3,
        cpu() - busy,
        IDLE.as_secs()
    );
    fs::remove_dir_all(folder).unwrap();
}

fn grow(root: &Path) {
    for number in 0..FOLDERS {
        let folder = root.join(format!("{}/{}", number / 50, number % 50));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..FILES {
            fs::write(folder.join(format!("file-{file}.rs")), "").unwrap();
        }
    }
}

/// Resident memory in KiB.
fn memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Clock ticks of CPU time so far.
fn cpu() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
