//! `RUN --mount=…` values.

use super::error::Problem;
use super::flags::{boolean, comma_separated, size};
use super::instruction::{Mount, MountKind, Sharing};

/// Reads one value, e.g. `type=cache,target=/root/.cache,sharing=locked`.
pub(crate) fn parse(text: &str) -> Result<Mount, Problem> {
    let fields = comma_separated(text);
    let pairs: Vec<(String, Option<&str>)> = fields
        .iter()
        .filter(|field| !field.is_empty())
        .map(|field| field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value))))
        .map(|(key, value)| (key.to_ascii_lowercase(), value))
        .collect();
    let kind = pairs.iter().rev().find(|(key, _)| key == "type").and_then(|(_, value)| *value).unwrap_or("bind");
    let kind = match kind {
        "bind" => MountKind::Bind,
        "cache" => MountKind::Cache,
        "tmpfs" => MountKind::Tmpfs,
        "secret" => MountKind::Secret,
        "ssh" => MountKind::Ssh,
        _ => {
            let hint = "the types are bind, cache, tmpfs, secret and ssh";
            return Err(Problem::new(format!("there is no mount type `{kind}`")).hint(hint));
        }
    };
    let mut mount = empty(kind);
    for (key, value) in &pairs {
        set(&mut mount, key, *value, text)?;
    }
    check(mount)
}

fn empty(kind: MountKind) -> Mount {
    Mount {
        kind,
        target: String::new(),
        source: String::new(),
        from: None,
        read_only: None,
        id: None,
        sharing: Sharing::default(),
        required: false,
        env: None,
        mode: None,
        uid: 0,
        gid: 0,
        size: None,
    }
}

fn set(mount: &mut Mount, key: &str, value: Option<&str>, whole: &str) -> Result<(), Problem> {
    use MountKind::{Bind, Cache, Secret, Ssh, Tmpfs};
    let wrong = |what: &str| Problem::new(format!("--mount={whole}: {what}"));
    let needed = || value.map(str::to_owned).ok_or_else(|| wrong(&format!("`{key}` needs a value")));
    let number = || needed()?.parse().map_err(|_| wrong(&format!("`{key}` must be a number")));
    match (key, mount.kind) {
        ("type", _) => {}
        ("target" | "dst" | "destination", _) => mount.target = needed()?,
        ("source" | "src", Bind | Cache) => mount.source = needed()?,
        ("from", Bind | Cache) => mount.from = Some(needed()?),
        ("ro" | "readonly", Bind | Cache) => mount.read_only = Some(boolean(key, value.unwrap_or_default())?),
        ("rw" | "readwrite", Bind | Cache) => mount.read_only = Some(!boolean(key, value.unwrap_or_default())?),
        ("id" | "source" | "src", Secret) | ("id", Cache | Ssh) => mount.id = Some(needed()?),
        ("sharing", Cache) => {
            mount.sharing = match needed()?.as_str() {
                "shared" => Sharing::Shared,
                "private" => Sharing::Private,
                "locked" => Sharing::Locked,
                other => return Err(wrong(&format!("sharing is shared, private or locked, not `{other}`"))),
            }
        }
        ("required", Secret | Ssh) => mount.required = boolean(key, value.unwrap_or_default())?,
        ("env", Secret) => mount.env = Some(needed()?),
        ("mode", Cache | Secret | Ssh) => {
            let mode = needed()?;
            let parsed = u32::from_str_radix(&mode, 8).ok().filter(|mode| *mode <= 0o7777);
            mount.mode = Some(parsed.ok_or_else(|| wrong("mode must be an octal number"))?);
        }
        ("uid", Cache | Secret | Ssh) => mount.uid = number()?,
        ("gid", Cache | Secret | Ssh) => mount.gid = number()?,
        ("size", Tmpfs) => {
            let text = needed()?;
            mount.size = Some(size(&text).ok_or_else(|| wrong(&format!("`{text}` is not a size such as 64m")))?);
        }
        _ => return Err(wrong(&format!("this type of mount has no option `{key}`"))),
    }
    Ok(())
}

fn check(mount: Mount) -> Result<Mount, Problem> {
    match mount.kind {
        MountKind::Bind | MountKind::Cache | MountKind::Tmpfs if mount.target.is_empty() => {
            Err(Problem::new("--mount needs a target").hint("add target=/path"))
        }
        MountKind::Secret if mount.id.is_none() && mount.target.is_empty() => {
            Err(Problem::new("--mount=type=secret needs an id or a target").hint("add id=NAME"))
        }
        _ => Ok(mount),
    }
}
