//! `stack up`.

use clap::Args;
use jiff::Timestamp;

use crate::cli::attached::Attached;
use crate::cli::error::{Error, Outcome};
use crate::cli::flag_from_env;
use crate::cli::lock;
use crate::cli::prefix::Look;
use crate::cli::prepare::{self, ImageFlags};
use crate::cli::project::{Context, require_kernel, require_root};
use crate::cli::screen;
use crate::cli::session::{carry_out, with_consent};
use crate::cli::watching::{How, Watching};
use crate::engine::control::{self, Request};

/// Create and start what the stack file says; change only what differs.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Services to bring up, with what they depend on (default: all)
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// Start in the background and return
    #[arg(short, long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    images: ImageFlags,
    #[command(flatten)]
    changes: Changes,
    /// Create, but don't start
    #[arg(long)]
    no_start: bool,
    /// Seconds before a container that must go is killed
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Return when all services run, or are healthy where they have a health check; implies -d
    #[arg(long)]
    wait: bool,
    /// Seconds to wait at most
    #[arg(long, value_name = "SECONDS")]
    wait_timeout: Option<u64>,
    #[command(flatten)]
    foreground: Foreground,
    /// Agree to changes that lose data
    #[arg(short, long)]
    yes: bool,
    /// Show in the end where the time went
    #[arg(long)]
    timeline: bool,
    /// Obey keys on a terminal: `w` switches dev mode on and off, `d` leaves the stack running and ends (default: true)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    menu: Option<bool>,
}

/// What may change, and how far.
#[derive(Debug, Default, Args)]
pub(crate) struct Changes {
    /// Recreate containers even if nothing changed
    #[arg(long)]
    force_recreate: bool,
    /// Keep containers even if their service changed
    #[arg(long, conflicts_with = "force_recreate")]
    no_recreate: bool,
    /// Recreate what the services depend on, too
    #[arg(long, conflicts_with = "no_recreate")]
    always_recreate_deps: bool,
    /// Make anonymous volumes anew instead of taking them over
    #[arg(short = 'V', long)]
    renew_anon_volumes: bool,
    /// Leave what the services depend on alone
    #[arg(long)]
    pub(super) no_deps: bool,
    /// Run that many containers of a service; repeatable
    #[arg(long, value_name = "SERVICE=N")]
    scale: Vec<String>,
    /// Remove containers of services that the file does not have
    #[arg(long)]
    remove_orphans: bool,
    /// Host ports: as the `file` says, `auto` for any that are free, `none` at all (for parallel runs in CI)
    #[arg(
        long,
        value_enum,
        value_name = "WHICH",
        default_value = "file",
        hide_default_value = true,
        hide_possible_values = true
    )]
    ports: Ports,
}

/// The host ports that services publish.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Ports {
    /// As the file says
    #[default]
    File,
    /// Any that are free
    Auto,
    /// None
    None,
}

/// What an `up` in the foreground shows and when it ends.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "In the foreground")]
struct Foreground {
    /// Stop everything when a container ends
    #[arg(long, conflicts_with = "detach")]
    abort_on_container_exit: bool,
    /// Stop everything when a container ends with an exit code other than 0
    #[arg(long, conflicts_with_all = ["detach", "abort_on_container_exit"])]
    abort_on_container_failure: bool,
    /// Return that service's exit code; implies --abort-on-container-exit
    #[arg(long, value_name = "SERVICE", conflicts_with = "detach")]
    exit_code_from: Option<String>,
    /// Show these services' logs only; repeatable
    #[arg(long, value_name = "SERVICE", conflicts_with = "attach_dependencies")]
    attach: Vec<String>,
    /// Don't show this service's logs; repeatable
    #[arg(long, value_name = "SERVICE")]
    no_attach: Vec<String>,
    /// Show the logs of what the services depend on, too
    #[arg(long)]
    attach_dependencies: bool,
    /// No colours
    #[arg(long)]
    no_color: bool,
    /// No container names
    #[arg(long)]
    no_log_prefix: bool,
    /// Say when each line was written
    #[arg(long)]
    timestamps: bool,
    /// Keep the services up to date with the files that their `develop.watch` names
    #[arg(short, long, conflicts_with_all = ["detach", "wait", "no_start", "abort_on_container_exit", "abort_on_container_failure"])]
    watch: bool,
}

impl Up {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let asked = Timestamp::now();
        let mut loaded = context.load(&self.services)?;
        let fore = &self.foreground;
        for name in fore.exit_code_from.iter().chain(&fore.attach).chain(&fore.no_attach) {
            if !loaded.all_services.contains(name) {
                return Err(Error::new(format!("no such service: {name}")));
            }
        }
        require_root()?;
        require_kernel()?;
        lock::pin(context, &mut loaded, self.images.locked)?;
        let chosen = prepare::selected(&loaded, &self.services, self.changes.no_deps)?;
        let mut up = prepare::up(&loaded, &self.services, self.changes.no_deps)?;
        self.changes.apply(&mut up, &loaded)?;
        // Before anything is built: what changes from now on is acted on.
        let how = How { prune: true, quiet: self.images.quiet_build, logs: true };
        let begin = async || Watching::new(context, &loaded, &self.services, how).await;
        let mut watching = if fore.watch { Some(begin().await?) } else { None };
        prepare::images(context, &loaded, &chosen, &self.images).await?;
        up.no_start = self.no_start;
        up.timeout = self.timeout;
        up.wait = self.wait || self.wait_timeout.is_some();
        up.wait_timeout = self.wait_timeout;
        up.yes = self.yes;
        up.asked = Some(asked);
        let project = loaded.project.name.clone();
        if self.detach || self.no_start || up.wait || context.global.dry_run {
            let carried = async |up| carry_out(context, &project, &Request::Up(Box::new(up)), "up").await;
            with_consent(up, carried).await?;
            if self.timeline && !context.global.dry_run {
                super::timeline::show(context, &project, false)?;
            }
            return Ok(0);
        }
        let shows = |name: &String| {
            let named = self.services.is_empty() || fore.attach_dependencies || self.services.contains(name);
            let wanted = if fore.attach.is_empty() { named } else { fore.attach.contains(name) };
            let by_file = loaded.project.services.get(name).is_some_and(|service| service.attach == Some(false));
            wanted && !fore.no_attach.contains(name) && (!by_file || fore.attach.contains(name))
        };
        let attached = Attached {
            context,
            project: &project,
            shown: chosen.iter().filter(|name| shows(name)).cloned().collect(),
            stopped: self.services.clone(),
            abort_on_exit: fore.abort_on_container_exit || fore.exit_code_from.is_some(),
            abort_on_failure: fore.abort_on_container_failure,
            exit_code_from: fore.exit_code_from.clone(),
            timeout: self.timeout,
            look: Look { colour: !fore.no_color, prefix: !fore.no_log_prefix, timestamps: fore.timestamps },
            chosen,
        };
        let menu =
            self.menu.unwrap_or_else(|| std::env::var_os("COMPOSE_MENU").is_none() || flag_from_env("COMPOSE_MENU"));
        let watched = async |up| Box::pin(screen::run(&attached, up, &mut watching, &begin, menu)).await;
        with_consent(up, watched).await
    }
}

impl Changes {
    /// Sets the request's options.
    pub(crate) fn apply(&self, up: &mut control::Up, loaded: &crate::spec::Loaded) -> Result<(), Error> {
        up.force_recreate = self.force_recreate;
        up.no_recreate = self.no_recreate;
        up.always_recreate_deps = self.always_recreate_deps;
        up.renew_anon_volumes = self.renew_anon_volumes;
        up.remove_orphans = self.remove_orphans || crate::cli::flag_from_env("COMPOSE_REMOVE_ORPHANS");
        up.scale = prepare::scale(loaded, &self.scale)?;
        for service in up.project.services.values_mut() {
            match self.ports {
                Ports::File => {}
                Ports::Auto => service.ports.iter_mut().for_each(|port| port.published = None),
                Ports::None => service.ports.clear(),
            }
        }
        Ok(())
    }
}
