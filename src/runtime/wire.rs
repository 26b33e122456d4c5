//! The language between a supervisor and its shim: JSON in frames, descriptors beside them.

use serde::{Deserialize, Serialize};

use super::error::LaunchError;
use super::launch::{ExitStatus, Launch, Process, Resources};
use super::shim::{Adopt, Entry, Event};

/// A request, answered once under the same number.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Numbered<T> {
    /// Chosen by the asker.
    pub(crate) number: u64,
    /// The request.
    pub(crate) body: T,
}

/// What a supervisor asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Set the fault of the crash tests.
    Arm {
        text: String,
    },
    Create(Box<Launch>),
    Start {
        id: String,
    },
    Exec {
        id: String,
        process: Box<Process>,
    },
    Signal {
        id: String,
        signal: i32,
    },
    KillAll {
        id: String,
    },
    Update {
        id: String,
        resources: Box<Resources>,
    },
    Freeze {
        id: String,
        frozen: bool,
    },
    /// Copies of what a later shim needs to keep its sockets: the listener of its filter, then the sockets.
    Kept {
        id: String,
    },
    /// Those come along, from an earlier shim.
    KeepOn {
        id: String,
    },
    /// Keep none of its sockets any more.
    LetGo {
        id: String,
    },
    Attach {
        id: String,
    },
    CloseInput {
        id: String,
    },
    Store {
        key: String,
    },
    Take {
        key: String,
    },
    Discard {
        key: String,
    },
    List,
    /// Supervisors are started from the program that comes along.
    Succeed,
    Forget {
        id: String,
    },
    /// Descriptors: its network namespace and what writes to its input, as far as said.
    Adopt {
        adopt: Box<Adopt>,
        netns: bool,
        input: bool,
    },
    Shutdown,
}

/// What a shim says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    Reply(Numbered<Reply>),
    Event(Event),
}

/// An answer. Descriptors come in the order named.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Done; whatever descriptors were asked for come along.
    Done,
    /// Descriptors: pidfd, then the network namespace if it is the container's own.
    Created {
        pid: i32,
        start_time: u64,
        /// What of its limits this machine can't hold.
        #[serde(default)]
        losses: Vec<String>,
    },
    /// The limits are changed, but for these.
    Updated(Vec<String>),
    /// Descriptors: pidfd, then the terminal's master if there is one.
    Exec { exec_id: String, pid: i32 },
    /// What the shim knows.
    Entries(Vec<Entry>),
    /// The start failed.
    Launch(LaunchError),
    /// No such container.
    Unknown(String),
    /// Wrong state.
    State { id: String, state: String },
    /// Anything else.
    Failed(String),
}

/// How the child of a clone reports to the shim, over a socket that closes when its exec succeeds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// A terminal's master comes along.
    Terminal,
    /// The listener of its system call filter comes along.
    Listener,
    /// It failed and ends.
    Failed(LaunchError),
}

/// The end of a process before its fate is known to be a container's or an exec's.
pub(crate) fn exit_status(code: i32, signal: Option<i32>) -> ExitStatus {
    ExitStatus { code: signal.map_or(code, |signal| 128 + signal), signal, oom: false }
}

/// Bytes as text where they are text, so that files in a message stay small and readable.
pub(crate) mod bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => bytes.serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Ok(match Either::deserialize(deserializer)? {
            Either::Text(text) => text.into_bytes(),
            Either::Bytes(bytes) => bytes,
        })
    }
}
