//! What a user sees: flags, printing, exit codes.
//!
//! * `args` parses the command line, `help` arranges `--help`.
//! * `project` loads the stack file or finds the project's name; each file in `verb` is one verb.
//! * `registry` shows pulls and pushes, `policy` says when to pull.
//! * `prepare` and `builder` (with `agents` and `bake`) see to the images before `session` asks a supervisor for something
//!   and shows its events.
//! * `process` is in front of a process in a container, whose input and outputs `streams` carries.
//! * `attached` is `up` in the foreground, `watching` dev mode; `prefix` prints log lines; `interrupt`, `terminal` and
//!   `invoker` are the user's side.
//! * `ui` decides where colours go; `table`, `template` and `time` shape data, `progress` shows steps.
//! * `error` is the one place where errors become text and exit codes; `github` is how GitHub Actions wants to hear of them.

use std::process::ExitCode;

mod agents;
mod args;
mod attached;
mod bake;
mod builder;
mod error;
mod filter;
mod github;
mod help;
mod interrupt;
mod invoker;
mod keys;
mod lock;
mod policy;
mod prefix;
mod prepare;
mod process;
mod progress;
mod project;
mod registry;
mod screen;
mod select;
mod session;
mod streams;
mod table;
mod template;
mod terminal;
mod time;
mod ui;
mod verb;
mod watch_work;
mod watching;

use args::{Cli, Verb};
use error::{Error, Outcome};
use project::Context;
use ui::Ui;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let code = match args::parse(verb::oci::spelled_out(std::env::args_os())) {
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
    if let Verb::Oci(oci) = &cli.verb {
        return oci.run();
    }
    if cli.global.dry_run && !cli.verb.has_plan() {
        return Err(Error::new(
            "`--dry-run` needs a verb that changes what runs: up, down, create, scale, start, stop, …",
        )
        .hint("leave it out"));
    }
    let context = Context::new(cli.global)?;
    carry_out(cli.verb, &context).map_err(|error| context.located(error))
}

fn carry_out(verb: Verb, context: &Context) -> Outcome {
    match verb {
        Verb::Up(verb) => block_on(verb.run(context)),
        Verb::Down(verb) => block_on(verb.run(context)),
        Verb::Plan(verb) => block_on(verb.run(context)),
        Verb::Why(verb) => verb.run(context),
        Verb::Timeline(verb) => verb.run(context),
        Verb::Ps(verb) => verb.run(context),
        Verb::Logs(verb) => block_on(verb.run(context)),
        Verb::Ls(verb) => verb.run(context),
        Verb::Start(verb) => block_on(verb.run(context)),
        Verb::Stop(verb) => block_on(verb.run(context)),
        Verb::Restart(verb) => block_on(verb.run(context)),
        Verb::Kill(verb) => block_on(verb.run(context)),
        Verb::Pause(verb) => block_on(verb.run(context)),
        Verb::Unpause(verb) => block_on(verb.run(context)),
        Verb::Rm(verb) => block_on(verb.run(context)),
        Verb::Update(verb) => block_on(verb.run(context)),
        Verb::Create(verb) => block_on(verb.run(context)),
        Verb::Scale(verb) => block_on(verb.run(context)),
        Verb::Wait(verb) => block_on(verb.run(context)),
        Verb::Watch(verb) => block_on(verb.run(context)),
        Verb::Exec(verb) => block_on(verb.run(context)),
        Verb::Run(verb) => block_on(verb.run(context)),
        Verb::Cp(verb) => block_on(verb.run(context)),
        Verb::Export(verb) => block_on(verb.run(context)),
        Verb::Commit(verb) => block_on(verb.run(context)),
        Verb::Diff(verb) => verb.run(context),
        Verb::Attach(verb) => block_on(verb.run(context)),
        Verb::Top(verb) => verb.run(context),
        Verb::Stats(verb) => block_on(verb.run(context)),
        Verb::Volumes(verb) => verb.run(context),
        Verb::Volume(verb) => verb.run(context),
        Verb::Network(verb) => block_on(verb.run(context)),
        Verb::Events(verb) => block_on(verb.run(context)),
        Verb::Pull(verb) => block_on(verb.run(context)),
        Verb::Push(verb) => block_on(verb.run(context)),
        Verb::Lock(verb) => block_on(verb.run(context)),
        Verb::Login(verb) => block_on(verb.run(context)),
        Verb::Logout(verb) => verb.run(context),
        Verb::Build(verb) => block_on(verb.run(context)),
        Verb::Images(verb) => verb.run(context),
        Verb::Port(verb) => verb.run(context),
        Verb::Config(verb) => block_on(verb.run(context)),
        Verb::Limits(verb) => verb.run(context),
        Verb::Image(verb) => block_on(verb.run(context)),
        Verb::System(verb) => block_on(verb.run(context)),
        Verb::Doctor(verb) => verb.run(context),
        Verb::Completion(verb) => verb.run(context),
        Verb::Version(verb) => verb.run(context),
        Verb::Publish(verb) => verb.run(
            "publish",
            "`stack config --no-interpolate` prints the file merged; share that, and `stack push` images",
        ),
        Verb::Bridge(verb) => verb.run("bridge", "`stack config` prints what converters of Compose files take"),
        Verb::Alpha(verb) => {
            verb.run("alpha", "what it tried out there is `stack watch`, `stack scale` and `--dry-run` here")
        }
        Verb::Oci(verb) => verb.run(),
    }
}

/// Runs a verb that talks to a supervisor. One thread is enough: a command mostly waits.
fn block_on(verb: impl Future<Output = Outcome>) -> Outcome {
    let runtime = crate::sys::process::spare_files(crate::sys::process::RUNTIME_FILES);
    let runtime = runtime.and_then(|()| tokio::runtime::Builder::new_current_thread().enable_all().build());
    let runtime = runtime.map_err(|e| Error::from(e).context("cannot start the event loop"))?;
    let outcome = runtime.block_on(verb);
    // A name that is still being looked up keeps nobody waiting.
    runtime.shutdown_background();
    outcome
}

/// Whether an environment variable says yes.
fn flag_from_env(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| is_yes(&value))
}

/// Whether a variable's value means that something is switched on.
fn is_yes(value: &str) -> bool {
    matches!(value.to_lowercase().as_str(), "1" | "t" | "true" | "y" | "yes")
}
