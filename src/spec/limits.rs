//! Bounds on hostile input, in one place.

use serde::Serialize;

/// Largest stack file in bytes.
pub const FILE_BYTES: u64 = 10 << 20;
/// Most bytes of all files of one load together.
pub const ALL_BYTES: u64 = 32 << 20;
/// Most nodes of one file once its aliases are expanded.
pub const NODES: usize = 100_000;
/// Most nodes of all files together, what `include` and `extends` copy counted each time.
pub const ALL_NODES: usize = 500_000;
/// Deepest nesting of one file.
pub const DEPTH: usize = 200;
/// Most files that `include` and `extends` may pull in.
pub const FILES: usize = 500;
/// Longest chain of services that extend each other.
pub const EXTENDS: usize = 100;
/// Longest value after interpolation, in bytes.
pub const VALUE_BYTES: usize = 1 << 20;
/// Most bytes that interpolation may make in all.
pub const INTERPOLATED_BYTES: usize = 16 << 20;
/// Deepest nesting of `${A:-${B:-…}}`.
pub const INTERPOLATION_DEPTH: usize = 50;
/// Largest `.env`, `env_file` or `label_file` in bytes.
pub const ENV_FILE_BYTES: u64 = 1 << 20;
/// Most ports one short entry may stand for.
pub const PORTS_PER_ENTRY: usize = 4096;
/// Most containers of one service.
pub const REPLICAS: i64 = 10_000;
/// Most errors that are reported at once.
pub const ERRORS: usize = 50;
/// Most warnings that are reported at once.
pub const WARNINGS: usize = 200;

/// One bound, as `stack limits` prints it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Limit {
    /// Its name.
    pub name: &'static str,
    /// The most that is accepted.
    pub most: u64,
    /// What is counted: `bytes`, `values`, `levels`, …
    pub unit: &'static str,
    /// What it bounds.
    pub what: &'static str,
}

/// All bounds.
pub const TABLE: [Limit; 15] = [
    limit("file", FILE_BYTES, "bytes", "one stack file"),
    limit("env-file", ENV_FILE_BYTES, "bytes", "one .env, env_file or label_file"),
    limit("all-files", ALL_BYTES, "bytes", "all files of one stack, each time that one is read"),
    limit("files", FILES as u64, "files", "what include and extends pull in"),
    limit("extends", EXTENDS as u64, "services", "a chain of services that extend each other"),
    limit("nodes", NODES as u64, "values", "one file, aliases expanded"),
    limit("all-nodes", ALL_NODES as u64, "values", "all files, what include and extends copy counted each time"),
    limit("depth", DEPTH as u64, "levels", "nesting of one file"),
    limit("interpolation-depth", INTERPOLATION_DEPTH as u64, "levels", "nesting of ${A:-${B:-…}}"),
    limit("value", VALUE_BYTES as u64, "bytes", "one value after interpolation"),
    limit("interpolated", INTERPOLATED_BYTES as u64, "bytes", "all values that interpolation makes"),
    limit("ports", PORTS_PER_ENTRY as u64, "ports", "one entry of ports"),
    limit("replicas", REPLICAS as u64, "containers", "one service"),
    limit("errors", ERRORS as u64, "errors", "reported at once"),
    limit("warnings", WARNINGS as u64, "warnings", "reported at once"),
];

const fn limit(name: &'static str, most: u64, unit: &'static str, what: &'static str) -> Limit {
    Limit { name, most, unit, what }
}
