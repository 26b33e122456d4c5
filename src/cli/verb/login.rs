//! `stack login` and `stack logout`.

use std::io::{self, BufRead as _, IsTerminal, Write};

use clap::Args;

use crate::cli::error::{Error, Outcome};
use crate::cli::project::Context;
use crate::cli::registry::registries;
use crate::cli::terminal::Silence;
use crate::images::{Credentials, Reference};

/// Log in to a registry.
#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Host of the registry, with its port
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    server: String,
    /// User name (default: asked for)
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password or token; others can see it: better use --password-stdin
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

/// Forget the login to a registry.
#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// Host of the registry, with its port
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    server: String,
}

impl Login {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let domain = domain(&self.server)?;
        let registries = registries()?;
        let known = || registries.credentials(&domain).ok().flatten().map(|credentials| credentials.user);
        let user = match &self.username {
            Some(user) => user.clone(),
            None => ask("Username", known().as_deref())?,
        };
        let secret = match &self.password {
            Some(password) => {
                context.ui.warn("a password on the command line can be seen by others; use --password-stdin")?;
                password.clone()
            }
            None if self.password_stdin => line()?,
            None => {
                let silence = Silence::enter()?;
                let secret = ask("Password", None)?;
                drop(silence);
                writeln!(io::stderr())?;
                secret
            }
        };
        if user.is_empty() || secret.is_empty() {
            return Err(Error::new("a user name and a password are needed to log in"));
        }
        let credentials = Credentials { user, secret, is_token: false };
        let kept = registries.login(&domain, &credentials).await;
        let kept = kept.map_err(|error| match error {
            denied @ crate::images::Error::Registry(_) => Error::from(denied)
                .context(format!("cannot log in to {domain}"))
                .hint("check the user name and the password"),
            other => other.into(),
        })?;
        writeln!(context.ui.out(), "Login Succeeded")?;
        if !kept.starts_with("docker-credential-") {
            context
                .ui
                .warn(format!("the password is in {kept}, unencrypted; a credential helper (`credsStore`) hides it"))?;
        }
        Ok(0)
    }
}

impl Logout {
    pub(crate) fn run(&self, context: &Context) -> Outcome {
        let domain = domain(&self.server)?;
        let text = if registries()?.logout(&domain)? { "Removed the login to" } else { "Not logged in to" };
        writeln!(context.ui.out(), "{text} {domain}")?;
        Ok(0)
    }
}

/// The registry that a host or an address means.
fn domain(server: &str) -> Result<String, Error> {
    let host = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or(host);
    match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => Ok("docker.io".to_owned()),
        // A name without a dot or a port is a host here, too.
        _ if Reference::parse(&format!("{host}:0/x")).is_ok() || Reference::parse(&format!("{host}/x")).is_ok() => {
            Ok(host.to_owned())
        }
        _ => Err(Error::new(format!("`{server}` is no registry")).hint("give a host, with its port if it has one")),
    }
}

/// Asks on the terminal.
fn ask(what: &str, default: Option<&str>) -> Result<String, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::new("there is no terminal to ask for a user name and a password")
            .hint("use `--username NAME --password-stdin`"));
    }
    let shown = default.map_or(String::new(), |default| format!(" ({default})"));
    write!(io::stderr(), "{what}{shown}: ")?;
    io::stderr().flush()?;
    let line = line()?;
    Ok(if line.is_empty() { default.unwrap_or_default().to_owned() } else { line })
}

/// One line of standard input.
fn line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_by_any_spelling() {
        for (text, domain_of) in [
            ("docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("localhost:5000", "localhost:5000"),
            ("https://ghcr.io/v2/", "ghcr.io"),
            ("registry", "registry"),
        ] {
            assert_eq!(domain(text).unwrap(), domain_of);
        }
        for bad in ["", "a b", "-x", "a:b:c"] {
            assert!(domain(bad).is_err(), "{bad}");
        }
    }
}
