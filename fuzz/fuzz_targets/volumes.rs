//! The short form of mounts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stack_fuzz::{hold, load_files, service};

fuzz_target!(|text: &str| hold(load_files([(
    "stack.yaml",
    service("volumes", &serde_json::json!([text])).as_slice()
)])));
