//! Entry of the `stack` binary: a hidden first argument decides which process this is, before any thread exists.

use std::process::ExitCode;

use stack::sys::{fault, memory};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    match args.split_first() {
        Some((first, rest)) if first == stack::runtime::shim::ARGUMENT => {
            fault::begin("shim");
            stack::runtime::shim::main(rest)
        }
        Some((first, rest)) if first == stack::engine::supervisor::ARGUMENT => {
            fault::begin("supervisor");
            stack::engine::supervisor::main(rest)
        }
        _ => {
            fault::begin("command");
            memory::give_back_large_buffers();
            stack::cli::main()
        }
    }
}
