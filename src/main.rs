//! Entry of the `stack` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    stack::cli::main()
}
