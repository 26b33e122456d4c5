//! How a registry wants to be asked: its challenge, and the token or password that answers it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode, Uri};
use serde::Deserialize;

use super::super::Error;
use super::client::Client;
use super::credentials::Credentials;
use super::settings::host_of;
use super::transport::{self, Lost, authority};
use super::{Failure, answer};

/// Largest answer of a token service.
const MAX_ANSWER: usize = 1 << 20;

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// A token service's answer.
#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Client<'_> {
    /// Finds out what to send as `Authorization` after a 401.
    pub(super) async fn authorize(&self, challenges: &HeaderMap) -> Result<HeaderValue, Error> {
        let lines = challenges.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let all: Vec<Challenge> = lines.flat_map(parse).collect();
        let bearer = all.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        match bearer.or(all.first()) {
            Some(Challenge::Bearer { realm, service }) => self.token(realm, service.as_deref()).await,
            Some(Challenge::Basic) => match &self.credentials {
                Some(credentials) => basic(credentials),
                None => Err(self.denied(String::new())),
            },
            None => Err(self.protocol("asking who we are", "it says 401, but not how to log in".to_owned())),
        }
    }

    /// Asks a token service for the right to do what this client is for, and for nothing else.
    async fn token(&self, realm: &str, service: Option<&str>) -> Result<HeaderValue, Error> {
        let bad = |why: &'static str| Failure::Redirect { host: self.host(), to: clean(realm), why };
        let uri: Uri = realm.parse().map_err(|_| bad("its token service is no address"))?;
        let secure = uri.scheme_str() == Some("https");
        if !(secure || uri.scheme_str() == Some("http") && self.is_plain()) {
            return Err(bad("its token service must be asked over https").into());
        }
        let near = authority(&uri);
        if self.credentials.is_some() && !same_owner(host_of(&self.host()), host_of(&near)) {
            return Err(bad("the password is not for a token service of somebody else").into());
        }
        let mut query: Vec<(&str, &str)> = service.map(|service| ("service", service)).into_iter().collect();
        query.extend(self.scopes.iter().map(|scope| ("scope", scope.as_str())));
        let refresh = self.credentials.as_ref().filter(|credentials| credentials.is_token);
        let request = if let Some(credentials) = refresh {
            query.extend([("grant_type", "refresh_token"), ("client_id", "stack")]);
            query.push(("refresh_token", &credentials.secret));
            let form = encode(&query);
            Request::builder()
                .method(Method::POST)
                .uri(uri)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(transport::bytes(form))
        } else {
            let joint = if realm.contains('?') { '&' } else { '?' };
            let mut request = Request::builder().uri(format!("{realm}{joint}{}", encode(&query)));
            if let Some(credentials) = &self.credentials {
                request = request.header(AUTHORIZATION, basic(credentials)?);
            }
            request.body(transport::empty())
        };
        let request = request.map_err(|_| bad("its token service is no address"))?;
        let response = match self.net.send(request, self.reach_of_others()).await.map_err(|lost| self.blamed(lost)) {
            Ok(response) => response,
            Err(Lost::NotTls) => return Err(Failure::Tls { host: near, why: "it speaks no TLS".to_owned() }.into()),
            Err(Lost::Failure(error)) => return Err(error),
        };
        let doing = "asking for a token";
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let detail = answer::detail(response, self.net.settings.stall).await;
                return Err(self.denied(detail));
            }
            _ => return Err(self.refused(response, doing).await),
        }
        let mut body = Vec::new();
        answer::read(response.into_body(), &mut body, MAX_ANSWER, &near, doing, self.net.settings.stall).await?;
        let granted: Granted =
            serde_json::from_slice(&body).map_err(|_| self.protocol(doing, "it is no token".to_owned()))?;
        let token = if granted.token.is_empty() { granted.access_token } else { granted.token };
        let value = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut value = value.map_err(|_| self.protocol(doing, "it is no token".to_owned()))?;
        if token.is_empty() {
            return Err(self.protocol(doing, "the token is empty".to_owned()));
        }
        value.set_sensitive(true);
        Ok(value)
    }
}

/// A user's name and password as a header.
pub(super) fn basic(credentials: &Credentials) -> Result<HeaderValue, Error> {
    let text = STANDARD.encode(format!("{}:{}", credentials.user, credentials.secret));
    let mut value = HeaderValue::from_str(&format!("Basic {text}")).map_err(|_| Failure::Configuration {
        path: "login".to_owned(),
        why: "the password cannot be sent".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether two hosts have the same owner, as far as names tell: the last two labels are the same. `registry-1.docker.io`
/// sends to `auth.docker.io`.
fn same_owner(one: &str, other: &str) -> bool {
    fn domain(host: &str) -> &str {
        host.rmatch_indices('.').nth(1).map_or(host, |(at, _)| &host[at + 1..])
    }
    let is_name = |host: &str| host.parse::<std::net::IpAddr>().is_err();
    one == other || (is_name(one) && is_name(other) && one.contains('.') && domain(one) == domain(other))
}

fn clean(text: &str) -> String {
    super::super::error::printable(text.as_bytes())
}

/// Reads a `WWW-Authenticate` header: schemes, each followed by `name=value` or `name="value"`, separated by commas.
fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header;
    while !rest.trim_start_matches([' ', ',', '\t']).is_empty() {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        let end = rest.find([' ', ',', '=']).unwrap_or(rest.len());
        let word = rest[..end].to_lowercase();
        rest = &rest[end..];
        let Some(value) = rest.strip_prefix('=') else {
            found.push((word, Vec::new()));
            continue;
        };
        let value_text;
        if let Some(quoted) = value.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            value_text = quoted[..end].to_owned();
            rest = quoted.get(end + 1..).unwrap_or("");
        } else {
            let end = value.find([' ', ',']).unwrap_or(value.len());
            value_text = value[..end].to_owned();
            rest = &value[end..];
        }
        if let Some((_, parameters)) = found.last_mut() {
            parameters.push((word, value_text));
        } else {
            break;
        }
    }
    let known = found.into_iter().filter_map(|(scheme, parameters)| {
        let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        match scheme.as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer { realm: get("realm")?, service: get("service") }),
            _ => None,
        }
    });
    known.collect()
}

/// `a=b&c=d`, everything but letters, digits and `-._~:/` escaped.
pub(super) fn encode(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte);
        text.bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect()
    };
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = Challenge::Bearer { realm: "https://a/token".into(), service: Some("s, t".into()) };
        assert_eq!(parse(r#"Bearer realm="https://a/token",service="s, t",scope="repository:x:pull""#), [bearer]);
        assert_eq!(parse(r#"Basic realm="x", charset="UTF-8""#), [Challenge::Basic]);
        assert_eq!(parse("Negotiate, Basic realm=x"), [Challenge::Basic]);
        assert_eq!(parse("Bearer error=x"), []);
        for nonsense in ["", ",,,", "=", "=\"", "a=\"b", "Bearer realm=\"", "\"\"\"", "Basic=,="] {
            let _ = parse(nonsense);
        }
    }

    #[test]
    fn passwords_stay_with_their_owner() {
        for (one, other) in [("registry-1.docker.io", "auth.docker.io"), ("a.example", "a.example"), ("::1", "::1")] {
            assert!(same_owner(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("a.example", "evil"),
            ("127.0.0.1", "169.254.169.254"),
            ("10.1.0.1", "9.2.0.1"),
            ("localhost", "x.localhost"),
        ] {
            assert!(!same_owner(one, other), "{one} {other}");
        }
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(
            encode(&[("a", "b c&d"), ("scope", "repository:x/y:pull,push")]),
            "a=b%20c%26d&scope=repository:x/y:pull,push"
        );
    }
}
