//! Builds with a real store and real RUN steps; needs root and the Debian package busybox-static.
//!
//! No harness: the builder starts its shim from this very binary, so `main` must look at its first argument before any
//! thread exists.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test, if without a harness"
)]

mod bed;
mod files;
mod steps;

use bed::{Bed, Outcome, busybox};
use stack::runtime::shim;

type Test = (&'static str, fn(&Bed) -> Outcome);

const TESTS: &[Test] = &[
    ("an_unchanged_build_starts_nothing", steps::an_unchanged_build_starts_nothing),
    ("instructions", steps::instructions),
    ("targets_and_contexts", steps::targets_and_contexts),
    ("content_decides_over_the_cache", steps::content_decides_over_the_cache),
    ("health_and_configuration", steps::health_and_configuration),
    ("mounts", steps::mounts),
    ("certificates_are_seen_and_not_kept", steps::certificates_are_seen_and_not_kept),
    ("ways_out", steps::ways_out),
    ("mistakes_name_their_line", steps::mistakes_name_their_line),
    ("copy_places_as_docker", files::copy_places_as_docker),
    ("nothing_leads_out", files::nothing_leads_out),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == shim::ARGUMENT) {
        shim::main(&args[1..]);
    }
    if !rustix::process::geteuid().is_root() || busybox().is_none() {
        println!("skipped: needs root and busybox-static");
        return;
    }
    stack::sys::process::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET).unwrap();
    stack::sys::mount::make_all_private().unwrap();
    let wanted = |name: &str| args.iter().all(|arg| arg.starts_with('-') || name.contains(arg.as_str()));
    let mut failed = false;
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        let outcome = test(&Bed::new());
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        if let Err(message) = outcome {
            println!("{message}");
            failed = true;
        }
    }
    std::process::exit(i32::from(failed));
}
