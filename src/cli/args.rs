//! The command line: global flags, which stand before or after the verb, and one variant per verb.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::help;
use super::ui::{Ansi, ProgressMode};
use super::verb;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "stack",
    bin_name = "stack",
    version,
    about = "Run multi-container stacks from Compose files, without a daemon",
    disable_help_subcommand = true,
    max_term_width = 120
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Stack file; repeat to merge several, `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
    /// Project name (default: the file's `name`, else its folder's)
    #[arg(short, long, value_name = "NAME")]
    pub(crate) project_name: Option<String>,
    /// Folder that relative paths start from (default: the first file's)
    #[arg(long, value_name = "DIR")]
    pub(crate) project_directory: Option<PathBuf>,
    /// Read variables from this file instead of `.env`; repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Switch on the services of a profile; repeatable, `*` means all
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Vec<String>,
    /// When to use colours and terminal control: auto, always or never
    #[arg(long, value_enum, value_name = "WHEN", hide_possible_values = true)]
    pub(crate) ansi: Option<Ansi>,
    /// How to show progress: auto, tty, plain, json or quiet
    #[arg(long, value_enum, value_name = "MODE", hide_possible_values = true)]
    pub(crate) progress: Option<ProgressMode>,
    /// Keep all state below this folder instead of /run/stack and /var/lib/stack
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Keep networks, volumes, configs and secrets that no service uses
    #[arg(long)]
    pub(crate) all_resources: bool,
    /// Show what the verb would do, and why; change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Accepted for compatibility: work is always as parallel as the file allows
    #[arg(long, value_name = "N", allow_negative_numbers = true, hide = true)]
    pub(crate) parallel: Option<i32>,
    /// Join the names of containers and built images with `_`, as Compose 1 did
    #[arg(long)]
    pub(crate) compatibility: bool,
}

impl Global {
    /// Flags after the verb add to lists and replace single values given before it.
    fn merge(self, after: Self) -> Self {
        fn chain<T>(mut before: Vec<T>, after: Vec<T>) -> Vec<T> {
            before.extend(after);
            before
        }
        Self {
            file: chain(self.file, after.file),
            project_name: after.project_name.or(self.project_name),
            project_directory: after.project_directory.or(self.project_directory),
            env_file: chain(self.env_file, after.env_file),
            profile: chain(self.profile, after.profile),
            ansi: after.ansi.or(self.ansi),
            progress: after.progress.or(self.progress),
            root: after.root.or(self.root),
            all_resources: self.all_resources || after.all_resources,
            dry_run: self.dry_run || after.dry_run,
            parallel: after.parallel.or(self.parallel),
            compatibility: self.compatibility || after.compatibility,
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create and start what the stack file says; change only what differs
    Up(Box<verb::up::Up>),
    /// Stop and remove containers and networks
    Down(verb::down::Down),
    /// Show what `up` would do, and why; change nothing
    Plan(Box<verb::plan::Plan>),
    /// Explain the state of services: why they run, wait, ended or were made anew
    Why(verb::why::Why),
    /// Show where the time of the last `up` went, and which steps it waited for
    Timeline(verb::timeline::Timeline),
    /// List containers
    Ps(verb::ps::Ps),
    /// Show what containers wrote
    Logs(verb::logs::Logs),
    /// List the stacks of this machine
    Ls(verb::ls::Ls),
    /// Start existing containers
    Start(verb::lifecycle::Start),
    /// Stop containers, dependents first
    Stop(verb::lifecycle::Stop),
    /// Stop and start containers
    Restart(verb::lifecycle::Restart),
    /// Send a signal to containers
    Kill(verb::lifecycle::Kill),
    /// Freeze the processes of services
    Pause(verb::lifecycle::Pause),
    /// Let frozen processes go on
    Unpause(verb::lifecycle::Unpause),
    /// Change the limits of services' containers
    Update(Box<verb::update::Update>),
    /// Create containers without starting them
    Create(Box<verb::create::Create>),
    /// Set how many containers services have
    Scale(verb::create::Scale),
    /// Wait until services end; return the last one's exit code
    Wait(verb::wait::Wait),
    /// Bring services up, and keep them up to date with changed files
    Watch(verb::watch::Watch),
    /// Run a command in a running container
    Exec(verb::exec::Exec),
    /// Run a one-off command in a new container of a service
    Run(Box<verb::run::Run>),
    /// Be in front of a service's process: see what it writes, type what it reads
    Attach(verb::attach::Attach),
    /// Copy files between containers and this machine
    Cp(verb::cp::Cp),
    /// Write a container's files as a tar archive
    Export(verb::snapshot::Export),
    /// Make an image of a container
    Commit(verb::snapshot::Commit),
    /// List what a container's processes changed
    Diff(verb::snapshot::Diff),
    /// List the processes in containers
    Top(verb::top::Top),
    /// Show what containers use
    Stats(verb::stats::Stats),
    /// Follow what happens to the stack's containers
    Events(verb::events::Events),
    /// Fetch the images of services
    Pull(verb::pull::Pull),
    /// Bring the images of services to their registries
    Push(verb::push::Push),
    /// Write down in `stack.lock` which images the services use, by digest
    Lock(verb::lock::LockImages),
    /// Log in to a registry
    Login(verb::login::Login),
    /// Forget the login to a registry
    Logout(verb::login::Logout),
    /// Build the images of services
    Build(verb::build::Build),
    /// List the images that the stack's containers were made from
    Images(verb::images::Images),
    /// Remove stopped containers
    Rm(verb::lifecycle::Rm),
    /// Print where a service's port is published
    Port(verb::port::Port),
    /// Print the stack file as it is understood, merged and filled in
    #[command(alias = "convert")]
    Config(verb::config::Config),
    /// Print the limits of stack files
    Limits(verb::limits::Limits),
    /// List the stack's volumes
    Volumes(verb::resources::Volumes),
    /// Work with volumes of all stacks
    #[command(subcommand_required = true)]
    Volume(verb::resources::Volume),
    /// Work with networks of all stacks
    #[command(subcommand_required = true)]
    Network(verb::network::Network),
    /// See and free the space that images, containers, volumes and build caches take
    #[command(subcommand_required = true)]
    System(verb::system::System),
    /// Work with images
    #[command(subcommand_required = true)]
    Image(verb::image::Image),
    /// Run containers of bundles, as containerd, podman and other engines ask an OCI runtime to
    #[command(subcommand_required = true)]
    Oci(Box<verb::oci::Oci>),
    /// Try out what stacks need of this machine
    Doctor(verb::doctor::Doctor),
    /// Print a script that completes command lines
    Completion(verb::completion::Completion),
    /// Print the version
    Version(verb::version::Version),
    /// Not there: bring a stack file to a registry
    #[command(hide = true)]
    Publish(verb::absent::Absent),
    /// Not there: turn a stack file into another tool's
    #[command(hide = true)]
    Bridge(verb::absent::Absent),
    /// Not there: what docker compose tries out
    #[command(hide = true)]
    Alpha(verb::absent::Absent),
}

impl Verb {
    /// Whether a plan of what it does can be shown instead of doing it.
    pub(crate) fn has_plan(&self) -> bool {
        matches!(
            self,
            Self::Up(_)
                | Self::Down(_)
                | Self::Plan(_)
                | Self::Create(_)
                | Self::Scale(_)
                | Self::Start(_)
                | Self::Stop(_)
                | Self::Restart(_)
                | Self::Kill(_)
                | Self::Rm(_)
                | Self::Pause(_)
                | Self::Unpause(_)
        )
    }
}

/// The verb whose flags are those of other runtimes.
const OCI: &str = "oci";

/// Parses a command line, the program's name first.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if matches.subcommand_name() == Some(OCI) {
        return Ok(cli);
    }
    let after = innermost(&matches);
    cli.global = cli.global.merge(Global::from_arg_matches(after)?);
    Ok(cli)
}

/// The parser: every verb takes the global flags, too, but for short forms that mean something else there.
pub(crate) fn command() -> Command {
    let root = Cli::command();
    let global = Global::augment_args(Command::new("global"));
    let verbs: Vec<String> =
        root.get_subcommands().map(|verb| verb.get_name().to_owned()).filter(|name| name != OCI).collect();
    let root = help::grouped(root);
    verbs.into_iter().fold(root, |root, name| root.mut_subcommand(name, |verb| with_globals(verb, &global)))
}

fn with_globals(verb: Command, global: &Command) -> Command {
    let inner: Vec<String> = verb.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    if !inner.is_empty() {
        return inner.into_iter().fold(verb, |verb, name| verb.mut_subcommand(name, |verb| with_globals(verb, global)));
    }
    let taken: Vec<char> = verb.get_arguments().filter_map(clap::Arg::get_short).collect();
    let args = global.get_arguments().map(|arg| match arg.get_short() {
        Some(short) if taken.contains(&short) => arg.clone().short(None),
        _ => arg.clone(),
    });
    verb.args(args)
}

/// The matches of the verb, or of the verb's verb.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| innermost(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Cli {
        parse(line.split(' ').map(OsString::from)).unwrap()
    }

    #[test]
    fn the_parser_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_and_after_the_verb() {
        let cli = parsed("stack -f a.yaml --profile x up -f b.yaml -p name --profile y -d");
        assert_eq!(cli.global.file, [PathBuf::from("a.yaml"), PathBuf::from("b.yaml")]);
        assert_eq!(cli.global.profile, ["x", "y"]);
        assert_eq!(cli.global.project_name.as_deref(), Some("name"));
        assert!(matches!(cli.verb, Verb::Up(up) if up.detach));
    }

    #[test]
    fn a_flag_after_the_verb_wins() {
        assert_eq!(parsed("stack -p a ps -p b").global.project_name.as_deref(), Some("b"));
        assert_eq!(parsed("stack -p a ps").global.project_name.as_deref(), Some("a"));
    }

    #[test]
    fn short_flags_of_a_verb_win() {
        let cli = parsed("stack logs -f web --file x.yaml");
        assert_eq!(cli.global.file, [PathBuf::from("x.yaml")]);
        assert!(matches!(cli.verb, Verb::Logs(logs) if logs.follow && logs.services == ["web"]));
    }

    #[test]
    fn usage_errors_name_the_culprit() {
        for (line, culprit) in [("stack frobnicate", "frobnicate"), ("stack up --bogus", "--bogus")] {
            let error = parse(line.split(' ').map(OsString::from)).unwrap_err().to_string();
            assert!(error.contains(culprit), "{error}");
        }
    }
}
