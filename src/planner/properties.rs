//! The promises of the planner, over generated projects and arbitrary observed states.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::samples::{PROJECT, observed, project, up_options};
use super::*;
use crate::spec::model::{Condition, Project};

fn reaches(plan: &Plan, from: StepId, to: StepId) -> bool {
    let mut seen = BTreeSet::from([from]);
    let mut stack = vec![from];
    while let Some(id) = stack.pop() {
        if id == to {
            return true;
        }
        stack.extend(plan.after(id).filter(|next| seen.insert(*next)));
    }
    false
}

fn picked(plan: &Plan, wanted: impl Fn(&Action) -> bool) -> Vec<StepId> {
    plan.ids().filter(|id| wanted(&plan.step(*id).action)).collect()
}

fn starts(plan: &Plan, service: &str) -> Vec<StepId> {
    picked(plan, |action| {
        matches!(action, Action::StartContainer { .. } | Action::UnpauseContainer { .. })
            && action.service() == Some(service)
    })
}

fn stops(plan: &Plan, service: &str) -> Vec<StepId> {
    picked(plan, |action| matches!(action, Action::StopContainer { .. }) && action.service() == Some(service))
}

/// Every step is part of the topological order, so there is no cycle.
fn assert_acyclic(plan: &Plan) {
    assert_eq!(plan.steps().len(), plan.len());
}

fn assert_ordered(project: &Project, plan: &Plan) {
    for (name, service) in &project.services {
        for (dependency, how) in graph::dependencies(service) {
            for &stop in &stops(plan, name) {
                for &later in &stops(plan, &dependency) {
                    assert!(reaches(plan, stop, later), "{name} stops before {dependency}");
                }
            }
            for &start in &starts(plan, name) {
                for &earlier in &starts(plan, &dependency) {
                    assert!(reaches(plan, earlier, start), "{name} starts after {dependency}");
                    if how.condition == Condition::ServiceStarted {
                        continue;
                    }
                    let waits = picked(
                        plan,
                        |action| matches!(action, Action::WaitFor { service, .. } if *service == dependency),
                    );
                    let between = |wait: &StepId| reaches(plan, earlier, *wait) && reaches(plan, *wait, start);
                    assert!(waits.iter().any(between), "{name} waits for {dependency}");
                }
            }
        }
    }
}

/// A container starts after it was prepared, each step after the one before, and what it depends on comes first.
fn assert_prepared(project: &Project, plan: &Plan) {
    for (name, service) in &project.services {
        let prepares =
            picked(plan, |action| matches!(action, Action::Prepare { .. }) && action.service() == Some(name.as_str()));
        for &prepare in &prepares {
            let Action::Prepare { container, step } = &plan.step(prepare).action else { continue };
            let shared = !service.pre_start[*step].per_replica;
            let starting = picked(plan, |action| {
                matches!(action, Action::StartContainer { container: started }
                    if started.service == *name && (shared || started == container))
            });
            assert!(!starting.is_empty(), "nothing is prepared that does not start");
            for start in starting {
                assert!(reaches(plan, prepare, start), "{name} is prepared before it starts");
            }
            for (dependency, _) in graph::dependencies(service) {
                for earlier in starts(plan, &dependency) {
                    assert!(reaches(plan, earlier, prepare), "{name} is prepared after {dependency} started");
                }
            }
        }
        let alike = |a: &StepId, b: &StepId| plan.step(*a).action == plan.step(*b).action;
        // Two containers that want the same name are a problem of its own.
        let once = prepares.iter().all(|a| prepares.iter().all(|b| a == b || !alike(a, b)));
        assert!(once || !plan.problems.is_empty(), "each step runs once");
    }
}

/// Only what this project made is touched.
fn assert_own(project: &Project, observed: &Observed, plan: &Plan) {
    for id in plan.ids() {
        let action = &plan.step(id).action;
        match action {
            Action::RemoveNetwork { name } => {
                let network = &observed.networks[name];
                assert_eq!(network.owner.as_ref(), Some(&project.name));
                assert!(network.users.is_empty());
            }
            Action::RemoveVolume { name } => {
                assert_eq!(observed.volumes[name].owner.as_ref(), Some(&project.name));
                assert!(plan.step(id).destructive);
            }
            _ => {}
        }
        if let Some(id) = action.container().and_then(|container| container.id.as_ref()) {
            assert!(observed.containers.contains_key(id));
        }
    }
}

/// Takes steps one by one, choosing among the ready ones by `dice`, and stops after `limit`.
fn walk(project: &Project, observed: &Observed, plan: &Plan, dice: &[usize], limit: usize) -> Observed {
    let mut state = observed.clone();
    let mut schedule = Schedule::new(plan);
    let mut ready = schedule.take_ready();
    for turn in 0..limit {
        if ready.is_empty() {
            break;
        }
        let id = ready.remove(dice[turn % dice.len()] % ready.len());
        apply(project, &mut state, &plan.step(id).action);
        schedule.finish(id);
        ready.extend(schedule.take_ready());
    }
    state
}

fn any_state() -> impl Strategy<Value = (Project, Observed)> {
    project().prop_flat_map(observed)
}

/// What a plan does, unless it runs again what ended well and was asked for by name.
fn actions(plan: &Plan, options: &PlanOptions) -> Vec<String> {
    let again = |step: &Step| {
        step.cause == Cause::NotRunning { state: State::Exited { code: 0 } }
            && step.action.service().is_some_and(|service| options.services.contains(service))
    };
    let steps = plan.steps();
    if steps.iter().any(|(_, step)| again(step)) {
        return Vec::new();
    }
    steps.into_iter().map(|(_, step)| format!("{step:?}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn carried_out_in_any_order_a_plan_leaves_nothing_to_do(
        (project, observed) in any_state(), options in up_options(), dice in prop::collection::vec(0usize..100, 1..8),
    ) {
        let first = plan(&project, &observed, &options);
        assert_acyclic(&first);
        if first.problems.is_empty() {
            let state = simulate(&project, &observed, &first);
            prop_assert_eq!(actions(&plan(&project, &state, &options), &options), Vec::<String>::new());
            let state = walk(&project, &observed, &first, &dice, usize::MAX);
            prop_assert_eq!(actions(&plan(&project, &state, &options), &options), Vec::<String>::new());
        }
    }

    #[test]
    fn planning_again_repairs_an_interrupted_execution(
        (project, observed) in any_state(), options in up_options(),
        dice in prop::collection::vec(0usize..100, 1..8), done in 0usize..20,
    ) {
        let first = plan(&project, &observed, &options);
        if first.problems.is_empty() {
            let half = walk(&project, &observed, &first, &dice, done);
            let second = plan(&project, &half, &options);
            prop_assert_eq!(&second.problems, &Vec::new());
            let state = simulate(&project, &half, &second);
            prop_assert_eq!(actions(&plan(&project, &state, &options), &options), Vec::<String>::new());
        }
    }

    #[test]
    fn up_orders_starts_and_stops_and_touches_only_its_own((project, observed) in any_state(), options in up_options()) {
        let plan = plan(&project, &observed, &options);
        assert_acyclic(&plan);
        assert_ordered(&project, &plan);
        assert_prepared(&project, &plan);
        assert_own(&project, &observed, &plan);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn down_after_up_leaves_only_volumes((project, observed) in any_state(), volumes: bool) {
        let up = PlanOptions { verb: Verb::Up(Up { remove_orphans: true, ..Up::default() }), ..PlanOptions::default() };
        let state = simulate(&project, &observed, &plan(&project, &observed, &up));
        let verb = Verb::Down(Down { volumes, remove_orphans: true, images: None });
        let down = PlanOptions { verb, ..PlanOptions::default() };
        let taken = plan(&project, &state, &down);
        assert_acyclic(&taken);
        assert_ordered(&project, &taken);
        assert_own(&project, &state, &taken);
        let left = simulate(&project, &state, &taken);
        prop_assert!(left.containers.is_empty());
        let own = Some(PROJECT.to_owned());
        prop_assert!(left.networks.values().all(|network| network.owner != own || !network.users.is_empty()));
        prop_assert!(!volumes || left.volumes.values().all(|volume| volume.owner != own));
        prop_assert_eq!(actions(&plan(&project, &left, &down), &down), Vec::<String>::new());
    }

    #[test]
    fn other_verbs_keep_the_order_too((project, observed) in any_state(), verb in 0u8..4, no_deps: bool) {
        let verb = match verb {
            0 => Verb::Stop,
            1 => Verb::Start,
            2 => Verb::Restart { no_deps },
            _ => Verb::Remove { stop: true, volumes: false, containers: BTreeSet::new() },
        };
        let restart = matches!(verb, Verb::Restart { .. });
        let options = PlanOptions { verb, ..PlanOptions::default() };
        let plan = plan(&project, &observed, &options);
        assert_acyclic(&plan);
        if !restart {
            assert_ordered(&project, &plan);
        }
        assert_own(&project, &observed, &plan);
    }

    #[test]
    fn a_change_touches_only_what_depends_on_it((project, observed) in any_state(), changed in 0usize..6) {
        let options = PlanOptions::default();
        let first = plan(&project, &observed, &options);
        if !first.problems.is_empty() {
            return Ok(());
        }
        let state = simulate(&project, &observed, &first);
        let name = samples::service_name(changed % project.services.len());
        let mut edited = project.clone();
        if let Some(service) = edited.services.get_mut(&name) {
            service.environment.insert("V".into(), Some("new".into()));
        }
        let second = plan(&edited, &state, &options);
        let mut may = BTreeSet::from([name]);
        loop {
            let more = edited.services.iter().filter(|(other, service)| {
                let follows = graph::dependencies(service).iter().any(|(dependency, how)| {
                    may.contains(dependency) && (how.restart || graph::shared(service).contains_key(dependency.as_str()))
                });
                let runs_again = may.iter().any(|dependent| completes(&edited, dependent, other));
                !may.contains(*other) && (follows || runs_again)
            });
            let more: Vec<String> = more.map(|(other, _)| other.clone()).collect();
            if more.is_empty() {
                break;
            }
            may.extend(more);
        }
        for (_, step) in second.steps() {
            let waits = matches!(step.action, Action::WaitFor { .. });
            let touched = step.action.service().unwrap_or_default();
            prop_assert!(waits || may.contains(touched), "{:?}", step);
        }
    }
}

/// Whether a service starts only after another one has completed, which then runs again.
fn completes(project: &Project, dependent: &str, other: &str) -> bool {
    let dependencies = &project.services[dependent].depends_on;
    dependencies.get(other).is_some_and(|how| how.condition == Condition::ServiceCompletedSuccessfully)
}

/// A chain of services with a few more edges, each on a common network.
fn large(count: usize) -> Project {
    let mut project = Project { name: PROJECT.into(), ..Project::default() };
    project.networks.insert("default".into(), crate::spec::model::Network::default());
    for index in 0..count {
        let mut service = crate::spec::model::Service { image: Some("image".into()), ..Default::default() };
        service.environment.insert("INDEX".into(), Some(index.to_string()));
        service.networks.insert("default".into(), None);
        for dependency in [index / 2, index.saturating_sub(1)].into_iter().filter(|other| *other != index) {
            let how =
                crate::spec::model::Dependency { condition: Condition::ServiceHealthy, restart: false, required: true };
            service.depends_on.insert(format!("s{dependency}"), how);
        }
        project.services.insert(format!("s{index}"), service);
    }
    project
}

/// Planning is linear: the figures themselves are measured by the bench.
#[test]
fn large_projects_are_planned_whole() {
    let project = large(1000);
    let options = PlanOptions::default();
    let observed = Observed::default();
    let first = plan(&project, &observed, &options);
    assert_eq!(picked(&first, |action| matches!(action, Action::StartContainer { .. })).len(), 1000);
    assert_eq!(
        actions(&plan(&project, &simulate(&project, &observed, &first), &options), &options),
        Vec::<String>::new()
    );
}
