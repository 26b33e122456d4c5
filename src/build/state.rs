//! A stage as built so far: configuration, layers and history; and the instructions that change only these.

use jiff::Timestamp;

use super::error::{Error, Problem};
use super::instruction::{Command, Healthcheck, Kind};
use super::scope::{self, Arguments};
use crate::images::{self, Digest, Empty, History, Image, ImageConfig, Layer};

/// The search path of images that don't set one.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most ports of one EXPOSE range.
const MAX_PORTS: u16 = 1024;

/// A stage under construction.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) config: ImageConfig,
    pub(crate) layers: Vec<Layer>,
    pub(crate) args: Arguments,
    /// True once the stage itself has a CMD, which an ENTRYPOINT then keeps.
    cmd_set: bool,
    /// When the youngest layer was made.
    pub(crate) newest: Option<Timestamp>,
}

impl State {
    /// `FROM scratch`
    pub(crate) fn scratch() -> Self {
        let mut config = ImageConfig::scratch();
        config.config.env.push(DEFAULT_PATH.to_owned());
        config.config.working_dir.push('/');
        Self { config, layers: Vec::new(), args: Arguments::default(), cmd_set: false, newest: None }
    }

    /// `FROM image`
    pub(crate) fn image(image: &Image) -> Self {
        let mut config = image.config.clone();
        if scope::in_environment(&config.config.env, "PATH").is_none() {
            config.config.env.insert(0, DEFAULT_PATH.to_owned());
        }
        let layers = image.layers.clone();
        Self { config, layers, args: Arguments::default(), cmd_set: false, newest: image.created }
    }

    /// `FROM stage`
    pub(crate) fn stage(base: &Self) -> Self {
        Self { cmd_set: false, ..base.clone() }
    }

    /// What the store mounts: the layers so far under no name.
    pub(crate) fn as_image(&self) -> Image {
        let mut config = self.config.clone();
        config.rootfs.diff_ids = self.layers.iter().map(|layer| layer.diff_id).collect();
        Image {
            id: Digest::of(b""),
            digest: Digest::of(b""),
            names: Vec::new(),
            sources: Vec::new(),
            config,
            layers: self.layers.clone(),
            created: None,
            host: false,
        }
    }

    /// Adds a step to the history, with its layer if it made one.
    pub(crate) fn commit(&mut self, text: &str, created: Option<Timestamp>, layer: Option<Layer>) {
        self.config.history.push(History {
            created,
            created_by: text.to_owned(),
            empty_layer: layer.is_none(),
            ..History::default()
        });
        if let Some(layer) = layer {
            self.newest = self.newest.max(created);
            self.layers.push(layer);
        }
    }

    /// The shell of shell-form commands.
    pub(crate) fn shell(&self) -> Vec<String> {
        if self.config.config.shell.is_empty() {
            return ["/bin/sh", "-c"].map(str::to_owned).to_vec();
        }
        self.config.config.shell.clone()
    }

    /// A path from the working directory, absolute and clean, a final slash kept.
    pub(crate) fn absolute(&self, path: &str) -> String {
        let joined = format!("{}/{path}", self.config.config.working_dir);
        let clean = super::ignore::clean(if path.starts_with('/') { path } else { &joined });
        let clean = format!("/{}", clean.trim_start_matches('/'));
        let folder = path.ends_with('/') || path.ends_with("/.") || path == "." || path == "..";
        if folder && clean != "/" { format!("{clean}/") } else { clean }
    }

    /// Applies an instruction that changes nothing but the configuration; false if it is another one.
    pub(crate) fn configure(&mut self, kind: &Kind, escape: char) -> Result<bool, Error> {
        let env = self.config.config.env.clone();
        let args = self.args.clone();
        let shell = self.shell();
        let mut expander = scope::expander(escape, &env, &args);
        let mut word = |text: &String| scope::word(&mut expander, text);
        let config = &mut self.config.config;
        match kind {
            Kind::Env(pairs) => {
                for (name, value) in pairs {
                    scope::set_environment(&mut config.env, &word(name)?, &word(value)?);
                }
            }
            Kind::Label(pairs) => {
                for (name, value) in pairs {
                    config.labels.insert(word(name)?, word(value)?);
                }
            }
            Kind::Expose(ports) => {
                for text in ports {
                    for port in word(text)?.split_whitespace() {
                        config.exposed_ports.extend(exposed(port)?.into_iter().map(|port| (port, Empty {})));
                    }
                }
            }
            Kind::User(user) => config.user = non_empty(word(user)?, "USER")?,
            Kind::Volume(paths) => {
                for path in paths {
                    config.volumes.insert(non_empty(word(path)?, "VOLUME")?, Empty {});
                }
            }
            Kind::StopSignal(signal) => {
                let signal = word(signal)?;
                let problem = || Problem::new(format!("`{signal}` is not a signal")).hint("write a name or number");
                let known = signal.is_ascii() && crate::sys::process::signal_number(&signal).is_some();
                known.then_some(()).ok_or_else(problem)?;
                config.stop_signal = signal;
            }
            Kind::Shell(shell) => config.shell.clone_from(shell),
            Kind::Cmd(command) => {
                config.cmd = words(command, &shell);
                self.cmd_set = true;
            }
            Kind::Entrypoint(command) => {
                config.entrypoint = words(command, &shell);
                if !self.cmd_set {
                    config.cmd = None;
                }
            }
            Kind::Healthcheck(check) => config.healthcheck = Some(healthcheck(check)),
            Kind::Onbuild(text) => config.on_build.push(text.clone()),
            Kind::Maintainer(name) => self.config.author.clone_from(name),
            Kind::From(_) | Kind::Run(_) | Kind::Copy(_) | Kind::Arg(_) | Kind::Workdir(_) => return Ok(false),
        }
        Ok(true)
    }
}

fn non_empty(value: String, keyword: &str) -> Result<String, Problem> {
    if value.trim().is_empty() {
        let hint = "a variable in it may not be set";
        return Err(Problem::new(format!("{keyword} is empty once expanded")).hint(hint));
    }
    Ok(value)
}

fn words(command: &Command, shell: &[String]) -> Option<Vec<String>> {
    match command {
        Command::Shell(line) if line.is_empty() => None,
        Command::Shell(line) => Some(shell.iter().cloned().chain([line.clone()]).collect()),
        Command::Exec(words) => Some(words.clone()),
    }
}

fn healthcheck(check: &Healthcheck) -> images::Healthcheck {
    let Healthcheck::Check { command, interval, timeout, start_period, start_interval, retries } = check else {
        return images::Healthcheck { test: vec!["NONE".to_owned()], ..images::Healthcheck::default() };
    };
    let nanoseconds = |duration: &Option<std::time::Duration>| {
        duration.map_or(0, |duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    };
    let test = match command {
        Command::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        Command::Exec(words) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
    };
    images::Healthcheck {
        test,
        interval: nanoseconds(interval),
        timeout: nanoseconds(timeout),
        start_period: nanoseconds(start_period),
        start_interval: nanoseconds(start_interval),
        retries: i64::from(retries.unwrap_or(0)),
    }
}

/// `80`, `53/udp`, `8000-8010/tcp` as single ports.
fn exposed(text: &str) -> Result<Vec<String>, Problem> {
    let problem = || {
        Problem::new(format!("`{text}` is not a port to expose"))
            .hint("write 80, 53/udp or 8000-8010; host ports are published by `ports:` or -p")
    };
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(problem());
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last): (u16, u16) = match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first > 0 && first <= last && last - first < MAX_PORTS => (first, last),
        _ => return Err(problem()),
    };
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Dockerfile;

    fn configured(text: &str) -> State {
        let file = Dockerfile::parse("Dockerfile", &format!("FROM scratch\n{text}")).unwrap();
        let mut state = State::scratch();
        for instruction in &file.instructions[1..] {
            assert!(state.configure(&instruction.kind, file.escape).unwrap(), "{}", instruction.text);
        }
        state
    }

    #[test]
    fn configuration_follows_the_instructions() {
        let state = configured(
            "ENV A=1 B=\"two words\"\nENV D=$A$B\nENV A=9 C=$A\nLABEL l1=x l2=\"y z\"\nEXPOSE 80 53/UDP 8000-8002\nUSER app\n\
             VOLUME /a \"/b\"\nSTOPSIGNAL SIGQUIT\nCMD x y\nENTRYPOINT [\"e\"]\nHEALTHCHECK --interval=5s --retries=2 CMD [\"c\"]\n",
        );
        let config = &state.config.config;
        assert_eq!(config.env[1..], ["A=9", "B=two words", "D=1two words", "C=1"]);
        assert_eq!(config.labels["l2"], "y z");
        assert_eq!(
            config.exposed_ports.keys().collect::<Vec<_>>(),
            ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"]
        );
        assert_eq!(config.cmd.as_deref().unwrap(), ["/bin/sh", "-c", "x y"]);
        let check = config.healthcheck.as_ref().unwrap();
        assert_eq!((check.interval, check.retries), (5_000_000_000, 2));
    }

    #[test]
    fn an_entrypoint_drops_an_inherited_command() {
        let mut state = State::stage(&configured("CMD a\n"));
        state.configure(&Kind::Entrypoint(Command::Exec(vec!["e".to_owned()])), '\\').unwrap();
        assert_eq!(state.config.config.cmd, None);
    }

    #[test]
    fn paths_start_at_the_working_directory() {
        let mut state = State::scratch();
        state.config.config.working_dir = "/work/dir".to_owned();
        for (path, wanted) in
            [("x", "/work/dir/x"), (".", "/work/dir/"), ("../", "/work/"), ("/a/../b/", "/b/"), ("/", "/")]
        {
            assert_eq!(state.absolute(path), wanted, "{path}");
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        for port in ["0", "x", "80/xyz", "9-8", "1-65535", "127.0.0.1:80:80"] {
            assert!(exposed(port).is_err(), "{port}");
        }
    }
}
