//! A plan: steps, what must be finished before what, and what the user should hear.

use petgraph::Direction;
use petgraph::algo::toposort;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use super::action::{Action, Step};
use super::options::{PlanOptions, Verb};
use super::{Observed, down, lifecycle, up};
use crate::spec::model::Project;

/// Identifies a step within its plan.
pub type StepId = NodeIndex;

/// What to do, as a graph: an edge leads from a step to one that must wait for it.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    graph: StableDiGraph<Step, ()>,
    /// Reasons why the plan can't be carried out as a whole. The engine refuses it then.
    pub problems: Vec<Problem>,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

/// A reason why a plan can't be carried out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[serde(tag = "problem", rename_all = "snake_case")]
pub enum Problem {
    /// A service was named that the file doesn't have.
    #[error("no such service: {service}")]
    UnknownService {
        /// Its name.
        service: String,
    },
    /// Services depend on each other in a circle.
    #[error("services depend on each other in a circle: {}", services.join(", "))]
    Cycle {
        /// The services of which none can be first.
        services: Vec<String>,
    },
    /// An external network is missing.
    #[error("network {name} declared as external, but could not be found; make it first, or drop `external: true`")]
    MissingNetwork {
        /// Its real name.
        name: String,
    },
    /// An external volume is missing.
    #[error("external volume {name:?} not found; make it first, or drop `external: true`")]
    MissingVolume {
        /// Its real name.
        name: String,
    },
    /// A container of another project has the name.
    #[error(
        "container name {name:?} of service {service} is in use by project {owner:?}; rename it or remove that one"
    )]
    NameTaken {
        /// The service that wants it.
        service: String,
        /// The name.
        name: String,
        /// The project that holds it.
        owner: String,
    },
    /// A container has to be made, and its image isn't there.
    #[error("image {image} of service {service} is not in the store; build it, or import it with `stack image import`")]
    MissingImage {
        /// The service.
        service: String,
        /// The image's reference.
        image: String,
    },
    /// `start` of a service without containers.
    #[error("service {service:?} has no container to start; create it with `stack up` or `stack create`")]
    NothingToStart {
        /// The service.
        service: String,
    },
}

/// Something the user should know though it doesn't stop the plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[serde(tag = "warning", rename_all = "snake_case")]
pub enum Warning {
    /// Containers of services that the file doesn't have.
    #[error(
        "found containers of services that the file does not have: {}; remove them with --remove-orphans",
        containers.join(", ")
    )]
    Orphans {
        /// Their names.
        containers: Vec<String>,
    },
    /// A network of that name exists and isn't this project's; it is used as it is.
    #[error("network {name} was not made by this project; say `external: true` to use it without this warning")]
    ForeignNetwork {
        /// Its real name.
        name: String,
    },
    /// A volume of that name exists and isn't this project's; it is used as it is.
    #[error("volume {name} was not made by this project; say `external: true` to use it without this warning")]
    ForeignVolume {
        /// Its real name.
        name: String,
    },
    /// A network stays because containers are still attached to it.
    #[error("network {name} stays: it is in use by {}", containers.join(", "))]
    NetworkInUse {
        /// Its real name.
        name: String,
        /// The containers.
        containers: Vec<String>,
    },
    /// A volume's or network's definition changed, and it stays as it is on request.
    #[error("the definition of {name} changed, and it is kept as it is")]
    KeptAsIs {
        /// Its real name.
        name: String,
    },
}

/// Compares what is wanted with what is there and lays out what to do.
pub fn plan(project: &Project, observed: &Observed, options: &PlanOptions) -> Plan {
    match &options.verb {
        Verb::Up(asked) => up::plan(project, observed, options, asked),
        Verb::Down(asked) => down::plan(project, observed, options, asked),
        _ => lifecycle::plan(project, observed, options),
    }
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.graph.node_count() == 0
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// The step of an id of this plan.
    pub fn step(&self, id: StepId) -> &Step {
        &self.graph[id]
    }

    /// All steps in an order in which they could be taken one by one.
    pub fn steps(&self) -> Vec<(StepId, &Step)> {
        let order = toposort(&self.graph, None).unwrap_or_default();
        order.into_iter().map(|id| (id, &self.graph[id])).collect()
    }

    /// The ids of all steps, in the order they were laid out.
    pub fn ids(&self) -> impl Iterator<Item = StepId> + '_ {
        self.graph.node_indices()
    }

    /// The steps that must be finished before this one.
    pub fn before(&self, id: StepId) -> impl Iterator<Item = StepId> + '_ {
        self.graph.neighbors_directed(id, Direction::Incoming)
    }

    /// The steps that wait for this one.
    pub fn after(&self, id: StepId) -> impl Iterator<Item = StepId> + '_ {
        self.graph.neighbors_directed(id, Direction::Outgoing)
    }

    /// Whether carrying it out would change anything: to wait changes nothing.
    pub fn changes(&self) -> bool {
        self.graph.node_weights().any(|step| !matches!(step.action, Action::WaitFor { .. }))
    }

    /// Whether some step may lose data that nothing can bring back.
    pub fn is_destructive(&self) -> bool {
        self.graph.node_weights().any(|step| step.destructive)
    }

    pub(super) fn add(&mut self, step: Step) -> StepId {
        self.graph.add_node(step)
    }

    /// Records that `first` must be finished before `then` begins.
    pub(super) fn order(&mut self, first: StepId, then: StepId) {
        if first != then {
            self.graph.update_edge(first, then, ());
        }
    }
}

/// A step in the form that `stack plan --format json` prints.
#[derive(Serialize)]
struct Line<'a> {
    id: usize,
    #[serde(flatten)]
    step: &'a Step,
    after: Vec<usize>,
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut lines = serializer.serialize_seq(Some(self.len()))?;
        for (id, step) in self.steps() {
            let mut after: Vec<usize> = self.before(id).map(NodeIndex::index).collect();
            after.sort_unstable();
            lines.serialize_element(&Line { id: id.index(), step, after })?;
        }
        lines.end()
    }
}
