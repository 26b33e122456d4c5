//! How long it takes to plan a project: from nothing, and with everything as it should be. `cargo bench --bench planning`.
#![allow(clippy::print_stdout, reason = "the figures are its output")]

use std::time::{Duration, Instant};

use stack::planner::{Observed, Plan, PlanOptions, plan, simulate};
use stack::spec::model::{Condition, Dependency, Network, Project, Service};

const RUNS: usize = 9;

fn main() {
    for count in [1_000, 10_000] {
        let project = project(count);
        let options = PlanOptions::default();
        let nothing = Observed::default();
        let (first, begin) = median(|| plan(&project, &nothing, &options));
        let state = simulate(&project, &nothing, &first);
        let (again, end) = median(|| plan(&project, &state, &options));
        println!(
            "{count} services: {:.1} ms for {} steps from nothing, {:.1} ms to see that {} are to be taken",
            begin.as_secs_f64() * 1e3,
            first.len(),
            end.as_secs_f64() * 1e3,
            again.len()
        );
    }
}

/// The median of several runs, and what the last one gave.
fn median(run: impl Fn() -> Plan) -> (Plan, Duration) {
    let mut times = Vec::new();
    let mut last = Plan::default();
    for _ in 0..RUNS {
        let begin = Instant::now();
        last = run();
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    (last, times[RUNS / 2])
}

/// Services that each wait for two others, on one network.
fn project(count: usize) -> Project {
    let mut project = Project { name: "bench".into(), ..Project::default() };
    project.networks.insert("default".into(), Network::default());
    for index in 0..count {
        let mut service = Service { image: Some("image".into()), ..Service::default() };
        service.environment.insert("INDEX".into(), Some(index.to_string()));
        service.networks.insert("default".into(), None);
        for other in [index / 2, index.saturating_sub(1)].into_iter().filter(|other| *other != index) {
            let how = Dependency { condition: Condition::ServiceHealthy, restart: false, required: true };
            service.depends_on.insert(format!("s{other}"), how);
        }
        project.services.insert(format!("s{index}"), service);
    }
    project
}
