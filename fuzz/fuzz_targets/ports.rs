//! The short form of ports.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stack_fuzz::{hold, load_files, service};

fuzz_target!(|text: &str| hold(load_files([("stack.yaml", service("ports", &serde_json::json!([text])).as_slice())])));
