//! Every `unsafe` block and raw system call of the project, one file per subject. Knows no containers.
#![allow(unsafe_code)]

pub mod bpf;
pub mod caps;
pub mod exe;
pub mod fanotify;
pub mod fault;
pub mod file;
pub mod frame;
pub mod kernel;
pub mod memory;
pub mod mntns;
pub mod mount;
pub mod netns;
pub mod path;
pub mod probe;
pub mod process;
pub mod ready;
pub mod schedule;
pub mod seccomp;
pub mod terminal;
pub mod tree;
pub mod usage;
pub mod userns;
