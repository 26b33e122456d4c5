//! Entry of the `stack` binary.

fn main() {}
