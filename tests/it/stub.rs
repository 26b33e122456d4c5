//! A registry whose answers a test decides, and that remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use stack::images::Digest;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Takes so many bytes of the request's body, and breaks the connection.
    cut: Option<usize>,
}

/// Decides about a request, before which so many of the same method and path came; none leaves it to the registry.
type Rule = dyn Fn(&Asked, usize) -> Option<Answer> + Send + Sync;

/// The registry.
#[derive(Clone)]
pub(crate) struct Stub {
    pub(crate) at: String,
    state: Arc<Mutex<State>>,
}

struct State {
    rule: Arc<Rule>,
    asked: Vec<Asked>,
    /// Blobs, manifests and uploads by their path, with their type.
    content: BTreeMap<String, (String, Vec<u8>)>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    /// Whether it is of that method, and its target contains that part.
    pub(crate) fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }
}

impl Answer {
    pub(crate) fn new(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Vec::new(), cut: None }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Answer {
        self.body = body.into();
        self
    }

    pub(crate) fn cut(bytes: usize) -> Answer {
        Answer { cut: Some(bytes), ..Answer::new(0) }
    }
}

impl Stub {
    /// Listens in the calling thread's network namespace; a good registry at first.
    pub(crate) fn start() -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = State { rule: Arc::new(|_, _| None), asked: Vec::new(), content: BTreeMap::new() };
        let stub = Stub { at: listener.local_addr().unwrap().to_string(), state: Arc::new(Mutex::new(state)) };
        let server = stub.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = server.clone();
                std::thread::spawn(move || server.serve(client));
            }
        });
        stub
    }

    /// Forgets what it was asked, and from now on follows a rule.
    pub(crate) fn rule(&self, rule: impl Fn(&Asked, usize) -> Option<Answer> + Send + Sync + 'static) {
        let mut state = self.state.lock().unwrap();
        (state.rule, state.asked) = (Arc::new(rule), Vec::new());
    }

    /// What it was asked since the last rule.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    /// Requests of that kind.
    pub(crate) fn of(&self, method: &str, part: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.is(method, part)).collect()
    }

    /// What it has at a path.
    pub(crate) fn content(&self, path: &str) -> Option<Vec<u8>> {
        self.state.lock().unwrap().content.get(path).map(|(_, bytes)| bytes.clone())
    }

    /// Gives it content.
    pub(crate) fn put(&self, path: &str, kind: &str, bytes: Vec<u8>) {
        self.state.lock().unwrap().content.insert(path.to_owned(), (kind.to_owned(), bytes));
    }

    fn serve(&self, client: TcpStream) -> io::Result<()> {
        let mut out = client.try_clone()?;
        let mut input = BufReader::new(client);
        loop {
            let mut line = Vec::new();
            input.read_until(b'\n', &mut line)?;
            let line = String::from_utf8_lossy(&line);
            let mut words = line.split_whitespace().map(str::to_owned);
            let (Some(method), Some(target)) = (words.next(), words.next().filter(|word| word.starts_with('/'))) else {
                // Nothing more, or TLS.
                return out.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
            };
            let mut headers = BTreeMap::new();
            loop {
                let mut line = String::new();
                input.read_line(&mut line)?;
                let Some((name, value)) = line.trim().split_once(':') else { break };
                headers.insert(name.to_lowercase(), value.trim().to_owned());
            }
            let mut asked = Asked { method, target, headers, body: Vec::new(), at: Instant::now() };
            let length = asked.header("content-length").map_or(0, |text| text.parse().unwrap());
            let rule = Arc::clone(&self.state.lock().unwrap().rule);
            let decided = rule(&asked, self.before(&asked));
            let taken = decided.as_ref().and_then(|answer| answer.cut).unwrap_or(length);
            asked.body = vec![0; taken];
            input.read_exact(&mut asked.body)?;
            let mut state = self.state.lock().unwrap();
            state.asked.push(asked.clone());
            if decided.as_ref().is_some_and(|answer| answer.cut.is_some()) {
                let upload = state.content.entry(asked.path().to_owned()).or_default();
                upload.1.extend(&asked.body);
                return Ok(());
            }
            let answer = decided.unwrap_or_else(|| state.usual(&asked));
            drop(state);
            let mut head = format!("HTTP/1.1 {} Answer\r\n", answer.status).into_bytes();
            for (name, value) in &answer.headers {
                write!(head, "{name}: {value}\r\n")?;
            }
            // One that promises more than it gives breaks off.
            let promised = answer.headers.iter().any(|(name, _)| name == "Content-Length");
            if answer.status != 204 && !promised {
                write!(head, "Content-Length: {}\r\n", answer.body.len())?;
            }
            head.extend(b"\r\n");
            out.write_all(&head)?;
            if asked.method != "HEAD" {
                out.write_all(&answer.body)?;
            }
            if promised {
                return Ok(());
            }
        }
    }

    fn before(&self, asked: &Asked) -> usize {
        let state = self.state.lock().unwrap();
        state.asked.iter().filter(|other| other.method == asked.method && other.path() == asked.path()).count()
    }
}

impl State {
    /// What a good registry answers.
    fn usual(&mut self, asked: &Asked) -> Answer {
        let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
        let size = |bytes: &[u8]| format!("0-{}", bytes.len().saturating_sub(1));
        match asked.method.as_str() {
            "GET" if path.contains("/uploads/") => match self.content.get(path) {
                Some((_, bytes)) => Answer::new(204).with("Location", path).with("Range", size(bytes)),
                None => Answer::new(404),
            },
            "GET" | "HEAD" if path == "/v2/" => Answer::new(200),
            "GET" | "HEAD" => match self.content.get(path) {
                Some((kind, bytes)) => {
                    let begin = asked.header("range").and_then(|text| text.strip_prefix("bytes=")?.split('-').next());
                    let begin = begin.map_or(0, |begin| begin.parse().unwrap());
                    let part = format!("bytes {begin}-{}/{}", bytes.len() - 1, bytes.len());
                    let answer = Answer::new(if begin > 0 { 206 } else { 200 }).with("Content-Type", kind);
                    let answer = answer.with("Docker-Content-Digest", Digest::of(bytes).to_string());
                    let answer = if begin > 0 { answer.with("Content-Range", part) } else { answer };
                    answer.body(&bytes[begin..])
                }
                None => Answer::new(404),
            },
            "POST" => {
                let place = format!("{path}{}", self.content.len());
                self.content.insert(place.clone(), (String::new(), Vec::new()));
                Answer::new(202).with("Location", place)
            }
            "PATCH" => {
                let (_, bytes) = self.content.get_mut(path).unwrap();
                bytes.extend(&asked.body);
                Answer::new(202).with("Location", path).with("Range", size(bytes))
            }
            "PUT" => {
                let digest = query.split('&').find_map(|pair| pair.strip_prefix("digest="));
                let (place, bytes) = match digest {
                    Some(digest) => {
                        let (_, bytes) = self.content.remove(path).unwrap();
                        assert_eq!(Digest::of(&bytes).to_string(), digest, "what was uploaded");
                        (format!("{}/{digest}", path.split("/uploads/").next().unwrap()), bytes)
                    }
                    None => (path.to_owned(), asked.body.clone()),
                };
                let kind = asked.header("content-type").unwrap_or_default().to_owned();
                if digest.is_none() {
                    let by_digest = format!("{}/{}", path.rsplit_once('/').unwrap().0, Digest::of(&bytes));
                    self.content.insert(by_digest, (kind.clone(), bytes.clone()));
                }
                self.content.insert(place, (kind, bytes));
                Answer::new(201)
            }
            _ => Answer::new(405),
        }
    }
}
