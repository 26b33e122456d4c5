//! What a build tells while it runs.

use std::time::Duration;

/// Which stream of a RUN command a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One thing that happened in a build; steps are numbered from 1 in the order in which they are reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// The Dockerfile has something that works but should be changed.
    Warning {
        /// `file:line: …`.
        message: String,
    },
    /// A step begins.
    Started {
        /// Number of the step.
        step: usize,
        /// How many steps there are.
        total: usize,
        /// Name or index of the stage.
        stage: String,
        /// The instruction as written, on one line.
        text: String,
    },
    /// A line that the step's command wrote, without the newline.
    Output {
        /// Number of the step.
        step: usize,
        /// Where it was written to.
        stream: Stream,
        /// The line; bytes that aren't UTF-8 are replaced.
        line: String,
    },
    /// A step is done.
    Finished {
        /// Number of the step.
        step: usize,
        /// True if an earlier result was taken.
        cached: bool,
        /// Time since it started.
        elapsed: Duration,
    },
    /// The image is in the store.
    Exported {
        /// `sha256:…` of its configuration.
        id: String,
        /// Its names.
        names: Vec<String>,
    },
}
