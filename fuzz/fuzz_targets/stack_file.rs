//! YAML to a project.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stack_fuzz::{hold, load_files};

fuzz_target!(|data: &[u8]| hold(load_files([("stack.yaml", data)])));
