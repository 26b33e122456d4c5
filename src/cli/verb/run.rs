//! `stack run`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::error::{Error, Outcome};
use crate::cli::lock;
use crate::cli::prepare::{self, ImageFlags};
use crate::cli::process::{self, Front};
use crate::cli::project::{Context, require_kernel, require_root};
use crate::cli::session::{open, reply};
use crate::cli::terminal;
use crate::engine::control::{self, Reply, Request};
use crate::engine::state;
use crate::spec::model::{BindOptions, MountKind, Port, Service, VolumeMount, VolumeOptions};
use crate::spec::{ports, volumes, words};

/// Run a one-off command in a new container of a service.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Don't wait for it; print the container's name
    #[arg(short, long)]
    detach: bool,
    /// Set a variable, NAME=VALUE; repeatable
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// Set the variables of a file, before those of `--env`; repeatable
    #[arg(long, value_name = "FILE")]
    env_from_file: Vec<PathBuf>,
    /// Add a label, NAME=VALUE; repeatable
    #[arg(short, long, value_name = "LABEL")]
    label: Vec<String>,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// No terminal; by default there is one if the command is run from one
    #[arg(short = 'T', long = "no-tty", alias = "no-TTY")]
    no_tty: bool,
    /// Keep standard input open
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "true",
          default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    interactive: bool,
    /// Take a terminal; accepted for compatibility
    #[arg(short, long, hide = true)]
    tty: bool,
    /// Name of the container
    #[arg(long)]
    name: Option<String>,
    /// As this user, name or number
    #[arg(short, long)]
    user: Option<String>,
    /// In this folder
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Instead of the service's entrypoint
    #[arg(long)]
    entrypoint: Option<String>,
    /// Add a capability; repeatable
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop a capability; repeatable
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Don't start what the service depends on
    #[arg(long)]
    no_deps: bool,
    /// Mount, SOURCE:TARGET[:ro]; repeatable
    #[arg(short, long, value_name = "MOUNT")]
    volume: Vec<String>,
    /// Publish a port, [[IP:]PORT:]PORT; repeatable
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// Publish the service's own ports
    #[arg(short = 'P', long)]
    service_ports: bool,
    /// Answer to the service's names
    #[arg(long)]
    use_aliases: bool,
    #[command(flatten)]
    images: ImageFlags,
    /// Print nothing but the command's output
    #[arg(short, long)]
    quiet: bool,
    /// Remove containers of services that the file does not have
    #[arg(long)]
    remove_orphans: bool,
    /// Service, and the command to run instead of its own
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_names = ["SERVICE", "COMMAND"])]
    command: Vec<String>,
}

impl Run {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let Some((name, args)) = self.command.split_first() else {
            return Err(Error::new("`stack run` needs a service"));
        };
        let mut loaded = context.load(std::slice::from_ref(name))?;
        require_root()?;
        require_kernel()?;
        lock::pin(context, &mut loaded, self.images.locked)?;
        let chosen = prepare::selected(&loaded, std::slice::from_ref(name), self.no_deps)?;
        let front = Front::new(self.no_tty || self.detach, self.interactive);
        let working_dir = loaded.source.working_dir.clone();
        if let Some(service) = loaded.project.services.get_mut(name) {
            self.change(service, args, &front, &working_dir)?;
        }
        prepare::images(context, &loaded, &chosen, &self.images).await?;
        let mut up = prepare::up(&loaded, std::slice::from_ref(name), self.no_deps)?;
        up.remove_orphans = self.remove_orphans;
        up.ignore_orphans = true;
        let project = loaded.project.name.clone();
        let request = Request::Run(Box::new(control::Run {
            up,
            service: name.clone(),
            name: self.name.clone(),
            remove: self.rm,
            service_ports: self.service_ports || !self.publish.is_empty(),
            use_aliases: self.use_aliases,
            detach: self.detach,
            size: terminal::size_of_screen(),
        }));
        if self.detach {
            return detached(context, &project, &request).await;
        }
        let signalled = |id: &str, number| signal(context, &project, id, number);
        front.run(context, &project, &request, signalled).await
    }

    /// Applies the flags to the service.
    fn change(&self, service: &mut Service, args: &[String], front: &Front, working_dir: &Path) -> Result<(), Error> {
        if !args.is_empty() {
            service.command = Some(args.to_vec());
        }
        if let Some(text) = &self.entrypoint {
            let words = words::split(text).map_err(|e| Error::new(format!("--entrypoint `{text}`: {e}")))?;
            service.entrypoint = Some(words);
            if args.is_empty() {
                service.command = Some(Vec::new());
            }
        }
        for (name, value) in process::environment_of_files(&self.env_from_file)? {
            service.environment.insert(name, Some(value));
        }
        for variable in process::environment(&self.env)? {
            if let Some((name, value)) = variable.split_once('=') {
                service.environment.insert(name.to_owned(), Some(value.to_owned()));
            }
        }
        for label in &self.label {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            service.labels.insert(name.to_owned(), value.to_owned());
        }
        service.user = self.user.clone().or(service.user.take());
        service.working_dir = self.workdir.clone().or(service.working_dir.take());
        service.cap_add.extend(self.cap_add.iter().cloned());
        service.cap_drop.extend(self.cap_drop.iter().cloned());
        service.tty = Some(front.tty);
        service.stdin_open = Some(self.interactive);
        service.restart = None;
        for text in &self.volume {
            let mount = mount(text, working_dir)?;
            service.volumes.retain(|old| old.target != mount.target);
            service.volumes.push(mount);
        }
        if !self.service_ports {
            service.ports.clear();
        }
        for text in &self.publish {
            let published = ports::parse(text).map_err(|e| Error::new(format!("--publish `{text}`: {e}")))?;
            service.ports.extend(published.into_iter().map(|port| Port {
                host_ip: port.host_ip,
                target: port.target,
                published: port.published,
                protocol: Some(port.protocol),
                ..Port::default()
            }));
        }
        Ok(())
    }
}

/// Reads `SOURCE:TARGET[:OPTIONS]`; a relative source starts from the project's folder.
fn mount(text: &str, working_dir: &Path) -> Result<VolumeMount, Error> {
    let short = volumes::parse(text).map_err(|e| Error::new(format!("--volume `{text}`: {e}")))?;
    let bind = short.is_bind();
    let source = if bind {
        let source = short.source.unwrap_or_default();
        let path = match source.strip_prefix("~/").zip(crate::cli::project::environment().remove("HOME")) {
            Some((rest, home)) => Path::new(&home).join(rest),
            None => working_dir.join(&source),
        };
        Some(volumes::clean(&path.to_string_lossy()))
    } else {
        short.source
    };
    Ok(VolumeMount {
        kind: if bind { MountKind::Bind } else { MountKind::Volume },
        source,
        target: short.target,
        read_only: short.read_only,
        bind: bind.then(|| BindOptions {
            create_host_path: Some(true),
            propagation: short.propagation,
            selinux: short.selinux,
            ..BindOptions::default()
        }),
        volume: (!bind && short.nocopy).then(|| VolumeOptions { nocopy: true, ..VolumeOptions::default() }),
        ..VolumeMount::default()
    })
}

/// Starts the container and prints its name.
async fn detached(context: &Context, project: &str, request: &Request) -> Outcome {
    let client = open(context, project, request, &[]).await?;
    let mut progress = crate::cli::progress::Progress::new(context.ui, "run");
    loop {
        match reply(&client).await?.0 {
            Reply::Event(event) => progress.event(&event)?,
            Reply::Started { id } => {
                progress.finish()?;
                let containers = context.containers(project)?;
                let name = containers.into_iter().find(|container| container.record.id == id);
                writeln!(context.ui.out(), "{}", name.map_or(id, |container| container.record.name.clone()))?;
                return Ok(0);
            }
            Reply::Failed(failure) => return Err(failure.into()),
            _ => return Ok(0),
        }
    }
}

/// Passes a signal on to a container.
pub(super) fn signal(context: &Context, project: &str, id: &str, number: i32) {
    let containers = state::read_containers(&context.paths, project).unwrap_or_default();
    if let Some(container) = containers.iter().find(|container| container.record.id == id) {
        process::signal(container, number);
    }
}
