//! Whose rights are used: the Docker client's `config.json`, and the helpers that it names.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::Error;
use super::{Failure, Settings};
use crate::sys::file::write_atomic;

/// A user's rights at one registry. Not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password, or an identity token where `is_token`.
    pub secret: String,
    /// Whether the secret stands for the user by itself.
    pub is_token: bool,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The logins of a user.
#[derive(Debug, Default)]
pub(super) struct Logins {
    path: Option<PathBuf>,
    file: File,
}

/// What concerns us in `config.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Login>,
    #[serde(default)]
    creds_store: String,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Login {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

/// What helpers read and write.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    #[serde(rename = "ServerURL", default)]
    server: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// The user name by which helpers say that a secret is an identity token.
const TOKEN: &str = "<token>";

impl Logins {
    /// Reads the user's configuration; none is no error.
    pub(super) fn read(settings: &Settings) -> Result<Logins, Error> {
        let path = settings.docker.as_ref().map(|folder| folder.join("config.json"));
        let mut logins = Logins { file: File::default(), path };
        if let Some(path) = &logins.path {
            let name = path.display().to_string();
            match fs::read(path) {
                Ok(text) => logins.file = serde_json::from_slice(&text).map_err(|e| bad(&name, &e.to_string()))?,
                Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
                Err(e) => return Err(bad(&name, &e.to_string())),
            }
        }
        if let Some(text) = &settings.logins {
            let more: File = serde_json::from_str(text).map_err(|e| bad("DOCKER_AUTH_CONFIG", &e.to_string()))?;
            logins.file.auths.extend(more.auths);
        }
        Ok(logins)
    }

    /// The rights at a registry; none where nobody is logged in.
    pub(super) fn get(&self, domain: &str) -> Result<Option<Credentials>, Error> {
        let server = server(domain);
        if let Some(helper) = self.helper(domain) {
            return ask(helper, server);
        }
        let of = |key: &String| key == server || host(key) == domain || (domain == "docker.io" && is_hub(host(key)));
        let Some(login) = self.file.auths.iter().find(|(key, _)| of(key)).map(|(_, login)| login) else {
            return Ok(None);
        };
        if !login.identitytoken.is_empty() {
            let secret = login.identitytoken.clone();
            return Ok(Some(Credentials { user: TOKEN.to_owned(), secret, is_token: true }));
        }
        if login.auth.is_empty() {
            let both = !login.username.is_empty() && !login.password.is_empty();
            let (user, secret) = (login.username.clone(), login.password.clone());
            return Ok(both.then_some(Credentials { user, secret, is_token: false }));
        }
        let wrong = || bad("config.json", &format!("the login for {domain} is no base64 of `user:password`"));
        let text = STANDARD.decode(login.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(wrong)?;
        let (user, secret) = text.split_once(':').ok_or_else(wrong)?;
        let secret = secret.trim_end_matches('\0').to_owned();
        Ok(Some(Credentials { user: user.to_owned(), secret, is_token: false }))
    }

    /// Keeps a login: with the helper, or in the file. Where it went.
    pub(super) fn store(&self, domain: &str, credentials: &Credentials) -> Result<String, Error> {
        let server = server(domain);
        if let Some(helper) = self.helper(domain) {
            let user = if credentials.is_token { TOKEN } else { &credentials.user };
            let kept = Kept { server: server.into(), username: user.into(), secret: credentials.secret.clone() };
            let document = serde_json::to_string(&kept).unwrap_or_default();
            run(helper, "store", &document)?.map_err(|why| failed(helper, &why))?;
            self.change(|auths| drop(auths.insert(server.to_owned(), json!({}))))?;
            return Ok(format!("docker-credential-{helper}"));
        }
        let login = if credentials.is_token {
            json!({ "identitytoken": credentials.secret })
        } else {
            json!({ "auth": STANDARD.encode(format!("{}:{}", credentials.user, credentials.secret)) })
        };
        self.change(|auths| drop(auths.insert(server.to_owned(), login)))
    }

    /// Forgets a login; whether there was one.
    pub(super) fn erase(&self, domain: &str) -> Result<bool, Error> {
        let server = server(domain);
        let known = self.get(domain).ok().flatten().is_some();
        if let Some(helper) = self.helper(domain)
            && known
        {
            run(helper, "erase", server)?.map_err(|why| failed(helper, &why))?;
        }
        let of = |key: &str| key == server || host(key) == domain || (domain == "docker.io" && is_hub(host(key)));
        if self.file.auths.keys().any(|key| of(key)) {
            self.change(|auths| auths.retain(|key, _| !of(key)))?;
        }
        Ok(known)
    }

    /// The helper for a registry.
    fn helper(&self, domain: &str) -> Option<&str> {
        let own = self.file.cred_helpers.get(domain).or_else(|| self.file.cred_helpers.get(server(domain)));
        Some(own.unwrap_or(&self.file.creds_store).as_str()).filter(|name| !name.is_empty())
    }

    /// Changes `auths` in the file, leaving everything else in it as it is.
    fn change(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Result<String, Error> {
        let path = self.path.as_deref().ok_or_else(|| bad("HOME", "it is not set, so there is no place for logins"))?;
        let name = path.display().to_string();
        let io = |e: std::io::Error| bad(&name, &e.to_string());
        let mut document: Map<String, Value> = match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| bad(&name, &e.to_string()))?,
            Err(_) => Map::new(),
        };
        let auths = document.entry("auths").or_insert_with(|| json!({}));
        if let Value::Object(auths) = auths {
            change(auths);
        }
        let folder = path.parent().unwrap_or(Path::new("/"));
        make_private(folder).map_err(io)?;
        // Through a link that a user made on purpose.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let text = serde_json::to_vec_pretty(&document).unwrap_or_default();
        write_private(&target, &text).map_err(io)?;
        Ok(name)
    }
}

/// Makes the folder for nobody else, owned as the one above: under sudo it is the user's.
fn make_private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let above = fs::metadata(folder.parent().unwrap_or(Path::new("/")))?;
    std::os::unix::fs::chown(folder, Some(above.uid()), Some(above.gid()))
}

/// Writes the file for nobody else, keeping its owner or taking its folder's.
fn write_private(path: &Path, text: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let owner = fs::metadata(path).or_else(|_| fs::metadata(path.parent().unwrap_or(Path::new("/"))))?;
    write_atomic(path, text, true)?;
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))
}

/// The name under which logins are kept.
fn server(domain: &str) -> &str {
    if domain == "docker.io" { "https://index.docker.io/v1/" } else { domain }
}

/// The host in a key of `auths`, which may be an address.
fn host(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

fn is_hub(host: &str) -> bool {
    matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

fn ask(helper: &str, server: &str) -> Result<Option<Credentials>, Error> {
    let answer = match run(helper, "get", server)? {
        Ok(answer) => answer,
        Err(why) if why.contains("not found") => return Ok(None),
        Err(why) => return Err(failed(helper, &why)),
    };
    let kept: Kept = serde_json::from_str(&answer).map_err(|e| failed(helper, &format!("its answer: {e}")))?;
    if kept.secret.is_empty() {
        return Ok(None);
    }
    let is_token = kept.username == TOKEN;
    Ok(Some(Credentials { user: kept.username, secret: kept.secret, is_token }))
}

/// Runs a helper: what it printed, or why it refused.
fn run(helper: &str, verb: &str, input: &str) -> Result<Result<String, String>, Error> {
    if helper.contains('/') {
        return Err(failed(helper, "its name must be no path"));
    }
    let program = format!("docker-credential-{helper}");
    let cannot = |e: std::io::Error| failed(helper, &format!("{program}: {e}"));
    let mut command = Command::new(&program);
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(cannot)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read answers all the same.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(cannot)?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(Ok(text));
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok(Err(if text.is_empty() { said } else { text }))
}

fn failed(helper: &str, why: &str) -> Error {
    let why = super::super::error::printable(why.as_bytes());
    Failure::Helper { helper: helper.to_owned(), why }.into()
}

fn bad(path: &str, why: &str) -> Error {
    Failure::Configuration { path: path.to_owned(), why: why.to_owned() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(text: &str) -> Logins {
        Logins::read(&Settings { logins: Some(text.to_owned()), ..Settings::default() }).unwrap()
    }

    #[test]
    fn logins_are_found_by_every_spelling() {
        let auth = STANDARD.encode("me:p:w");
        let all = logins(&format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{auth}"}},"https://a.example:5000/v2/":{{"auth":"{auth}"}},
              "b.example":{{"identitytoken":"tok"}},"c.example":{{}}}}}}"#
        ));
        let me = Credentials { user: "me".into(), secret: "p:w".into(), is_token: false };
        assert_eq!(all.get("docker.io").unwrap(), Some(me.clone()));
        assert_eq!(all.get("a.example:5000").unwrap(), Some(me));
        assert!(all.get("b.example").unwrap().unwrap().is_token);
        for none in ["a.example", "c.example", "d.example"] {
            assert_eq!(all.get(none).unwrap(), None, "{none}");
        }
        assert!(logins(r#"{"auths":{"x":{"auth":"%%"}}}"#).get("x").is_err());
    }

    #[test]
    fn what_is_stored_is_found_and_erased_and_the_rest_stays() {
        let home = tempfile::tempdir().unwrap();
        let settings = Settings { docker: Some(home.path().join(".docker")), ..Settings::default() };
        let read = || Logins::read(&settings).unwrap();
        let me = Credentials { user: "me".into(), secret: "pw".into(), is_token: false };
        read().store("x.example", &me).unwrap();
        let path = home.path().join(".docker/config.json");
        let text = fs::read_to_string(&path).unwrap().replacen('{', "{\"proxies\": 1,", 1);
        fs::write(&path, text).unwrap();
        assert_eq!(read().get("x.example").unwrap(), Some(me));
        assert!(read().erase("x.example").unwrap() && !read().erase("x.example").unwrap());
        assert!(fs::read_to_string(&path).unwrap().contains("proxies"));
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
