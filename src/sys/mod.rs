//! Every `unsafe` block and raw system call of the project, one file per subject. Knows no containers.
#![allow(unsafe_code)]

pub mod file;
pub mod frame;
pub mod netns;
