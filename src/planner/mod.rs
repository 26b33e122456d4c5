//! The planner: what is wanted and what is there, turned into a [`Plan`]; pure.
//!
//! [`plan`] compares a [`Project`](crate::spec::model::Project) with an [`Observed`] state and returns a graph of
//! typed [`Step`]s, each with its [`Cause`]. It reads no clock, no file and no environment, so equal inputs give equal
//! plans. There is no undo: every action is idempotent, and planning again is the repair after a failure.
//!
//! * [`observed`] is the input that the engine gathers, [`options`] what the user asked for.
//! * [`decide`] judges every container, network and volume; [`up`], [`down`] and [`lifecycle`] lay the steps out.
//! * [`schedule`] hands out the steps of a plan as they become ready; the engine executes them.
//! * [`simulate`] models what a step does to an observed state; the property tests and dry runs use it.
//! * [`render`] prints a plan for people.

mod action;
mod builder;
mod decide;
mod diff;
mod down;
mod fates;
mod graph;
mod hash;
mod layout;
mod lifecycle;
mod names;
mod observed;
mod options;
mod plan;
mod preparation;
mod render;
mod schedule;
mod simulate;
mod up;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod samples;

pub use action::{Action, Anonymous, Cause, Goal, Reference, Replaced, Step};
pub use diff::Change;
pub use hash::{network_definition, network_hash, volume_definition, volume_hash};
pub use names::{container_name, image_name, is_named, network_name, oneoff_name, volume_name};
pub use observed::{ContainerView, Health, MountedVolume, NetworkView, Observed, State, VolumeView};
pub use options::{Down, Images, PlanOptions, Recreate, Up, Verb};
pub use plan::{Plan, Problem, StepId, Warning, plan};
pub use render::{Line, line, render};
pub use schedule::Schedule;
pub use simulate::{apply, simulate};
