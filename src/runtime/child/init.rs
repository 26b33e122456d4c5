//! A tiny init: process 1 that passes signals on and reaps orphans, for programs that do neither.

use crate::sys::process;

/// Waits until `main` ends, and returns the exit code to end with.
pub(super) fn run(main: i32) -> i32 {
    // Nothing of the shim may stay open here: neither the socket whose end says that the exec succeeded, nor others'
    // pipes. Its memory is a copy that nobody in the container can read, as it isn't dumpable; but anybody may read its
    // command line, which has paths of the host.
    process::forget_arguments();
    let _ = process::close_from(0);
    let _ = rustix::thread::set_name(c"init");
    loop {
        match process::next_signal() {
            Ok(libc::SIGCHLD) => {
                while let Some(ended) = process::reap() {
                    if ended.pid == main {
                        return ended.signal.map_or(ended.code, |signal| 128 + signal);
                    }
                }
            }
            // What a terminal sends to its whole foreground group reaches the program by itself.
            Ok(libc::SIGTTIN | libc::SIGTTOU | libc::SIGTSTP) | Err(_) => {}
            Ok(signal) => {
                let _ = process::kill(main, signal);
            }
        }
    }
}
