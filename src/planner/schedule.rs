//! Hands out the steps of a plan as they become ready.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{Plan, StepId};

/// The progress of one execution of a plan. The caller takes ready steps, runs them in any order or all at once, and
/// reports each as finished or failed. What waits for a failed step is skipped; independent steps go on.
#[derive(Debug)]
pub struct Schedule<'plan> {
    plan: &'plan Plan,
    waiting: BTreeMap<StepId, usize>,
    ready: BTreeSet<StepId>,
    running: BTreeSet<StepId>,
}

impl<'plan> Schedule<'plan> {
    /// Begins: the steps that wait for nothing are ready.
    pub fn new(plan: &'plan Plan) -> Self {
        let mut schedule = Self { plan, waiting: BTreeMap::new(), ready: BTreeSet::new(), running: BTreeSet::new() };
        for id in plan.ids() {
            match plan.before(id).count() {
                0 => schedule.ready.insert(id),
                count => schedule.waiting.insert(id, count).is_none(),
            };
        }
        schedule
    }

    /// Takes all steps that are ready now; each must later be reported.
    pub fn take_ready(&mut self) -> Vec<StepId> {
        let taken: Vec<StepId> = std::mem::take(&mut self.ready).into_iter().collect();
        self.running.extend(&taken);
        taken
    }

    /// Reports a step as done.
    pub fn finish(&mut self, id: StepId) {
        if !self.running.remove(&id) {
            return;
        }
        for next in self.plan.after(id) {
            let Some(count) = self.waiting.get_mut(&next) else { continue };
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&next);
                self.ready.insert(next);
            }
        }
    }

    /// Reports a step as failed and returns the steps that will not be taken because of it.
    pub fn fail(&mut self, id: StepId) -> Vec<StepId> {
        self.running.remove(&id);
        let mut skipped = Vec::new();
        let mut stack: Vec<StepId> = self.plan.after(id).collect();
        while let Some(next) = stack.pop() {
            if self.waiting.remove(&next).is_some() {
                skipped.push(next);
                stack.extend(self.plan.after(next));
            }
        }
        skipped.sort_unstable();
        skipped
    }

    /// Takes back every step that wasn't handed out yet: an interrupted execution only finishes what runs.
    pub fn cancel(&mut self) {
        self.ready.clear();
        self.waiting.clear();
    }

    /// Whether nothing is running or left.
    pub fn is_done(&self) -> bool {
        self.ready.is_empty() && self.running.is_empty() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::action::{Action, Cause, Step};
    use super::*;

    fn diamond() -> (Plan, [StepId; 4]) {
        let mut plan = Plan::default();
        let ids = ["a", "b", "c", "d"].map(|name| {
            let action = Action::RemoveNetwork { name: name.into() };
            plan.add(Step { action, cause: Cause::Requested, destructive: false })
        });
        plan.order(ids[0], ids[1]);
        plan.order(ids[0], ids[2]);
        plan.order(ids[1], ids[3]);
        plan.order(ids[2], ids[3]);
        (plan, ids)
    }

    #[test]
    fn hands_out_steps_when_all_before_them_are_done() {
        let (plan, [a, b, c, d]) = diamond();
        let mut schedule = Schedule::new(&plan);
        assert_eq!(schedule.take_ready(), vec![a]);
        assert_eq!(schedule.take_ready(), vec![]);
        schedule.finish(a);
        assert_eq!(schedule.take_ready(), vec![b, c]);
        schedule.finish(c);
        assert_eq!(schedule.take_ready(), vec![]);
        schedule.finish(b);
        assert_eq!(schedule.take_ready(), vec![d]);
        schedule.finish(d);
        assert!(schedule.is_done());
    }

    #[test]
    fn a_failure_skips_dependents_only() {
        let (plan, [a, b, c, d]) = diamond();
        let mut schedule = Schedule::new(&plan);
        schedule.take_ready();
        schedule.finish(a);
        schedule.take_ready();
        assert_eq!(schedule.fail(b), vec![d]);
        assert!(!schedule.is_done());
        schedule.finish(c);
        assert!(schedule.is_done());
    }
}
