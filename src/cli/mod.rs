//! What a user sees: flags, printing, exit codes.
//!
//! * `args` parses the command line, `help` arranges `--help`.
//! * `project` loads the stack file or finds the project's name; each file in `verb` is one verb.
//! * `ui` decides where colours go; `table`, `template` and `time` shape data.
//! * `error` is the one place where errors become text and exit codes.

use std::process::ExitCode;

mod args;
mod error;
mod help;
mod project;
mod table;
mod template;
mod time;
mod ui;
mod verb;

use args::{Cli, Verb};
use error::{Error, Outcome};
use project::Context;
use ui::Ui;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let code = match args::parse(std::env::args_os()) {
        Ok(cli) => {
            let ui = Ui::new(cli.global.ansi, cli.global.progress);
            run(cli).unwrap_or_else(|error| error.report(ui))
        }
        Err(usage) => {
            // A closed standard output or error leaves nobody to tell.
            let _ = usage.print();
            u8::from(usage.use_stderr())
        }
    };
    ExitCode::from(code)
}

fn run(cli: Cli) -> Outcome {
    let context = Context::new(cli.global)?;
    match cli.verb {
        Verb::Config(verb) => verb.run(&context),
        Verb::Image(verb) => verb.run(&context),
        Verb::Version(verb) => verb.run(&context),
    }
}

/// Runs a verb that talks to a supervisor. One thread is enough: a command mostly waits.
#[expect(dead_code, reason = "the verbs that talk to a supervisor come next")]
fn block_on(verb: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Error::from(e).context("cannot start the event loop"))?.block_on(verb)
}
