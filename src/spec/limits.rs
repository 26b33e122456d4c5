//! Bounds on hostile input, in one place.

/// Largest stack file in bytes.
pub const FILE_BYTES: u64 = 10 << 20;
/// Most nodes of one file once its aliases are expanded.
pub const NODES: usize = 100_000;
/// Deepest nesting of one file.
pub const DEPTH: usize = 200;
/// Most files that `include` and `extends` may pull in.
pub const FILES: usize = 500;
/// Longest value after interpolation, in bytes.
pub const VALUE_BYTES: usize = 1 << 20;
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
