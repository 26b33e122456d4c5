//! `.env`, `env_file` and its raw form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stack_fuzz::{hold, load_files};

const FILE: &[u8] = b"services:
  a: { image: x, env_file: [some.env], label_file: some.env, environment: { A: '${A-}', B: '${B-}' } }
  b: { image: x, env_file: [{ path: some.env, format: raw }] }
";

fuzz_target!(|data: &[u8]| {
    // The variables of `.env` would fill in the printed file once more: they are only read.
    let _ = load_files([("stack.yaml", FILE), (".env", data), ("some.env", data)]);
    hold(load_files([("stack.yaml", FILE), ("some.env", data)]));
});
