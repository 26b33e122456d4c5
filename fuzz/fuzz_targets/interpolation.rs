//! `${…}` in a value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stack_fuzz::{hold, load_files, service};

fuzz_target!(|text: &str| hold(load_files([(
    "stack.yaml",
    service("labels", &serde_json::json!({ "l": text })).as_slice()
)])));
