//! Dockerfile instructions that change a configuration, as `docker import --change` and `commit --change` take them.

use super::config::{Empty, Healthcheck, RunConfig};
use super::error::Error;

/// Applies one line: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `HEALTHCHECK`, `LABEL`, `ONBUILD`, `SHELL`, `STOPSIGNAL`, `USER`,
/// `VOLUME` or `WORKDIR`.
pub(super) fn apply(line: &str, config: &mut RunConfig) -> Result<(), Error> {
    change(line.trim(), config).map_err(|why| Error::Change { line: line.to_owned(), why: why.to_owned() })
}

type Why = &'static str;

fn change(line: &str, config: &mut RunConfig) -> Result<(), Why> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    if rest.is_empty() {
        return Err("it says nothing after the instruction's name");
    }
    match name.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(rest, &config.shell)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest, &config.shell)),
        "ENV" => {
            for (name, value) in pairs(rest)? {
                let prefix = format!("{name}=");
                config.env.retain(|old| !old.starts_with(&prefix));
                config.env.push(prefix + &value);
            }
        }
        "EXPOSE" => {
            for port in words(rest)? {
                let port = if port.contains('/') { port } else { port + "/tcp" };
                config.exposed_ports.insert(port, Empty {});
            }
        }
        "LABEL" => config.labels.extend(pairs(rest)?),
        "USER" => rest.clone_into(&mut config.user),
        "VOLUME" => {
            let paths = list(rest).map_or_else(|| words(rest), Ok)?;
            config.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        }
        "WORKDIR" => {
            let directory = unquote(rest)?;
            config.working_dir = match (directory.starts_with('/'), config.working_dir.trim_end_matches('/')) {
                (true, _) => directory,
                (false, base) => format!("{base}/{directory}"),
            };
        }
        "STOPSIGNAL" => rest.clone_into(&mut config.stop_signal),
        "SHELL" => config.shell = list(rest).ok_or("it must be a JSON list of words")?,
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        _ => return Err("an image's configuration has no such instruction"),
    }
    Ok(())
}

/// A JSON list, or a line for the shell.
fn command(text: &str, shell: &[String]) -> Vec<String> {
    list(text).unwrap_or_else(|| {
        let shell = if shell.is_empty() { vec!["/bin/sh".to_owned(), "-c".to_owned()] } else { shell.to_vec() };
        [shell, vec![text.to_owned()]].concat()
    })
}

fn list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// `NAME=value` pairs, or the old form `NAME value` for one.
fn pairs(text: &str) -> Result<Vec<(String, String)>, Why> {
    let words = words(text)?;
    if words.first().is_some_and(|first| !first.contains('=')) {
        let (name, value) = text.split_once(char::is_whitespace).ok_or("a name needs a value")?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it must be NAME=value"),
    };
    words.into_iter().map(pair).collect()
}

/// Words with quotes and backslashes taken away.
fn words(text: &str) -> Result<Vec<String>, Why> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote isn't closed");
    }
    words.extend(word);
    Ok(words)
}

fn unquote(text: &str) -> Result<String, Why> {
    Ok(words(text)?.join(" "))
}

fn healthcheck(text: &str) -> Result<Healthcheck, Why> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).ok_or("a command must follow the options")?;
        let (name, value) = option.split_once('=').ok_or("an option must be --name=value")?;
        match name {
            "interval" => check.interval = nanoseconds(value)?,
            "timeout" => check.timeout = nanoseconds(value)?,
            "start-period" => check.start_period = nanoseconds(value)?,
            "start-interval" => check.start_interval = nanoseconds(value)?,
            "retries" => check.retries = value.parse().map_err(|_| "retries must be a number")?,
            _ => return Err("no such option of a health check"),
        }
        rest = after.trim_start();
    }
    if rest.eq_ignore_ascii_case("none") {
        check.test = vec!["NONE".to_owned()];
        return Ok(check);
    }
    let (cmd, command) = rest.split_once(char::is_whitespace).ok_or("it must be NONE or CMD and a command")?;
    if !cmd.eq_ignore_ascii_case("cmd") {
        return Err("it must be NONE or CMD and a command");
    }
    check.test = match list(command.trim()) {
        Some(words) => [vec!["CMD".to_owned()], words].concat(),
        None => vec!["CMD-SHELL".to_owned(), command.trim().to_owned()],
    };
    Ok(check)
}

/// A duration as Go writes it: `1m30s`, `500ms`.
fn nanoseconds(text: &str) -> Result<i64, Why> {
    const WHY: Why = "a duration must look like 1m30s or 500ms";
    let duration: jiff::SignedDuration = text.parse().map_err(|_| WHY)?;
    i64::try_from(duration.as_nanos()).ok().filter(|n| *n >= 0).ok_or(WHY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(lines: &[&str]) -> RunConfig {
        let mut config = RunConfig::default();
        for line in lines {
            apply(line, &mut config).unwrap_or_else(|e| panic!("{e}"));
        }
        config
    }

    #[test]
    fn each_instruction_changes_its_part() {
        let config = changed(&[
            r#"CMD ["a", "b c"]"#,
            "ENTRYPOINT run it",
            r#"env A=1 B="two words" C='x y' D=a\ b"#,
            "ENV A changed now",
            "EXPOSE 80 53/udp",
            "LABEL a=b c.d=\"e f\"",
            "USER app:app",
            r#"VOLUME ["/data"]"#,
            "VOLUME /x /y",
            "WORKDIR /srv",
            "WORKDIR app",
            "STOPSIGNAL SIGQUIT",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f http://localhost/",
            "ONBUILD RUN x",
        ]);
        assert_eq!(config.cmd.unwrap(), ["a", "b c"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "run it"]);
        assert_eq!(config.env, ["B=two words", "C=x y", "D=a b", "A=changed now"]);
        assert_eq!(config.exposed_ports.into_keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.labels["c.d"], "e f");
        assert_eq!(config.volumes.into_keys().collect::<Vec<_>>(), ["/data", "/x", "/y"]);
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv/app", "app:app"));
        let check = config.healthcheck.unwrap();
        assert_eq!((check.interval, check.retries), (90_000_000_000, 3));
        assert_eq!(check.test, ["CMD-SHELL", "curl -f http://localhost/"]);
    }

    #[test]
    fn mistakes_are_named() {
        for line in [
            "",
            "CMD",
            "RUN x",
            "COPY a b",
            "ENV \"A=1",
            "LABEL =x",
            "HEALTHCHECK CMD",
            "HEALTHCHECK --retries=x CMD y",
            "SHELL sh",
        ] {
            assert!(apply(line, &mut RunConfig::default()).is_err(), "{line}");
        }
    }
}
