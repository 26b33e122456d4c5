//! Fuzzing of everything that reads what somebody else wrote: mutants of seeds, for `FUZZ_SECONDS` per target (a fixed few if
//! unset, so that every run of the tests has some; `make fuzz` takes minutes and another `FUZZ_SEED` each time). A mutant
//! that leads to complaints not seen before joins the seeds: that takes the place of coverage.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde_json::json;

use super::discover::{ProjectFlags, discover};
use super::loader::MapLoader;
use super::units::{ByteSize, Span};
use super::*;

/// Longest mutant.
const MOST: usize = 4096;

/// Inputs of a run of the tests, always the same.
const LEAST: usize = 500;

/// What mutants are made of besides the seeds.
const WORDS: [&str; 64] = [
    ":",
    ": ",
    "- ",
    "\n",
    "\n  ",
    "\n    ",
    "\t",
    " ",
    "\"",
    "'",
    "{",
    "}",
    "[",
    "]",
    ",",
    "#",
    "&a ",
    "*a",
    "<<: *a",
    "!reset ",
    "!override ",
    "!!str ",
    "|\n",
    ">-\n",
    "---\n",
    "...",
    "$",
    "$$",
    "${",
    "${A}",
    "${A:-",
    "${B?x}",
    "${A:+",
    "}",
    "~",
    "null",
    "true",
    "0",
    "-1",
    "1e3",
    "0x10",
    "1_0",
    "99999999999999999999",
    ".5",
    "-",
    "=",
    "/",
    "//",
    "\\",
    "..",
    "80-90",
    "65536",
    "[::1]",
    "tcp",
    "ro",
    "s",
    "ms",
    "GiB",
    "\u{0}",
    "\u{feff}",
    "\u{202e}",
    "\u{1b}[2J",
    "é",
    "\r\n",
];

/// Xorshift: the same seed gives the same run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % sides.max(1)
    }

    /// A range of `length` places, most often a short one.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.roll(length + 1);
        let most = if self.roll(4) == 0 { length } else { 8 };
        start..(start + self.roll(most + 1)).min(length)
    }

    fn mutant(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.roll(seeds.len())].clone();
        for _ in 0..=self.roll(4) {
            let range = self.range(bytes.len());
            let replacement = match self.roll(6) {
                0 => Vec::new(),
                1 => bytes[range.clone()].repeat(2),
                2 => vec![u8::try_from(self.roll(256)).unwrap_or(0)],
                3 => {
                    let other = &seeds[self.roll(seeds.len())];
                    other[self.range(other.len())].to_vec()
                }
                _ => WORDS[self.roll(WORDS.len())].as_bytes().to_vec(),
            };
            let range = if self.roll(2) == 0 { range.start..range.start } else { range };
            bytes.splice(range, replacement);
        }
        bytes.truncate(MOST);
        bytes
    }
}

/// Feeds mutants of `seeds` to `run`, which says in words what came of one.
fn fuzz(seeds: &[&str], run: impl Fn(&[u8]) -> String) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let end = number("FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut dice = Dice(number("FUZZ_SEED").unwrap_or(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let (mut seen, mut count) = (HashSet::new(), 0);
    while count < LEAST || end.is_some_and(|end| Instant::now() < end) {
        let input = if count < seeds.len() { seeds[count].clone() } else { dice.mutant(&seeds) };
        let Ok(said) = catch_unwind(AssertUnwindSafe(|| run(&input))) else {
            panic!("broken by {:?}", String::from_utf8_lossy(&input));
        };
        if seen.insert(said) && seeds.len() < 4000 {
            seeds.push(input);
        }
        count += 1;
    }
    println!("{count} inputs, {} different outcomes", seen.len());
    assert!(seen.len() > 1, "every input came to the same");
}

/// Loads `files` (below `/p`) with a small environment.
fn load_files(files: &[(&str, &[u8])]) -> Result<Loaded, Diagnostics> {
    let loader = MapLoader::new(files.iter().map(|(name, bytes)| (format!("/p/{name}"), *bytes)));
    let environment =
        [("A", "a"), ("E", ""), ("HOME", "/home/u")].map(|(name, value)| (name.into(), value.into())).into();
    let flags = ProjectFlags { cwd: "/p".into(), environment, ..ProjectFlags::default() };
    load(&discover(&flags, &loader)?, &loader)
}

/// A service whose only `key` is `value`.
fn service(key: &str, value: &serde_json::Value) -> Vec<u8> {
    json!({ "services": { "a": { "image": "x", key: value } }, "volumes": { "data": null } }).to_string().into_bytes()
}

/// Whether a key has a dollar sign: those are printed doubled, as docker compose does, but keys are never interpolated.
fn dollar_in_key(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Object(map) => map.iter().any(|(key, value)| key.contains('$') || dollar_in_key(value)),
        _ => false,
    }
}

/// What must be true of every load: complaints name what is wrong and paint nothing; what is printed loads again, to the
/// same. Gives the complaints without what they quote.
fn hold(loaded: Result<Loaded, Diagnostics>) -> String {
    let loaded = match loaded {
        Err(complaints) => {
            assert!(complaints.has_errors(), "refused without an error");
            let shown = complaints.render(false);
            assert!(!shown.contains(['\u{1b}', '\u{202e}']), "a file paints the terminal: {shown:?}");
            let messages =
                complaints.0.iter().map(|complaint| complaint.message.split('`').step_by(2).collect::<String>());
            return messages.map(|message| message.replace(|c: char| c.is_ascii_digit(), "") + "\n").collect();
        }
        Ok(loaded) => loaded,
    };
    let printed = render::yaml(&loaded.project);
    let again = load_files(&[("stack.yaml", printed.as_bytes())])
        .unwrap_or_else(|refused| panic!("what was printed is refused: {refused}\n{printed}"));
    let (first, again) = (render::canonical(&loaded.project), render::canonical(&again.project));
    assert!(first == again || dollar_in_key(&first), "{first}\n{again}\nprinted:\n{printed}");
    printed.split('\n').map(|line| line.split(':').next().unwrap_or_default()).collect()
}

#[test]
fn stack_files() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let folders = fs_err::read_dir(examples).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.flat_map(|folder| ["stack.yaml", "compose.yaml"].map(|name| folder.join(name)));
    let texts: Vec<String> = files.filter_map(|file| fs_err::read_to_string(file).ok()).collect();
    let mut seeds: Vec<&str> = texts.iter().map(String::as_str).collect();
    seeds.push(
        "x-a: &a { environment: { A: '${A:-b}' } }\nservices:\n  a:\n    <<: *a\n    image: x\n    build: { context: ., args: [A] }\n    \
         ports: ['80-81:80-81/udp', { target: 9, published: '9' }]\n    volumes: ['data:/d:ro', './x:/x', { type: tmpfs, target: /t }]\n    \
         depends_on: { b: { condition: service_healthy } }\n    healthcheck: { test: x, interval: 1m30s }\n    \
         deploy: { resources: { limits: { cpus: '0.5', memory: 64m } } }\n    networks: { n: { aliases: [c] } }\n    \
         ulimits: { nofile: { soft: 1, hard: 2 } }\n    secrets: [{ source: s, mode: 0440 }]\n    logging: { driver: local }\n  \
         b: { extends: a, depends_on: !reset [], command: echo 'a b', labels: [a=b], tmpfs: /r }\n\
         volumes: { data: { driver_opts: { a: 1 } } }\nnetworks: { n: { ipam: { config: [{ subnet: 10.1.0.0/16 }] } } }\nsecrets: { s: { file: ./s } }\n",
    );
    fuzz(&seeds, |data| hold(load_files(&[("stack.yaml", data)])));
}

#[test]
fn variable_files() {
    const FILE: &[u8] = b"services:\n  a: { image: x, env_file: [some.env], label_file: some.env, environment: { A: '${A-}', B: '${B-}' } }\n  \
                          b: { image: x, env_file: [{ path: some.env, format: raw }] }\n";
    let seeds = [
        "A=1\nB='x y' # no\nexport C=\"a\\n${A}\"\n# note\nD\nE: f\n",
        "A=\"two\nlines\"\nB=${A:-x}$$\n\u{feff}C=' '\r\nF=\n",
    ];
    fuzz(&seeds, |data| {
        // The variables of `.env` would fill in the printed file once more: they are only read.
        let read = load_files(&[("stack.yaml", FILE), (".env", data), ("some.env", data)]);
        drop(read.map_err(|complaints| complaints.render(true)));
        hold(load_files(&[("stack.yaml", FILE), ("some.env", data)]))
    });
}

#[test]
fn interpolations() {
    let seeds = ["$A ${A}", "${A:-b} ${B-c} ${E:+d} ${E+e} $$", "${A:?f ${B:-x}} ${B?g}", "${B:-${C:-${A}}} $} $1"];
    let value = |data: &[u8]| service("labels", &json!({ "l": String::from_utf8_lossy(data) }));
    fuzz(&seeds, |data| hold(load_files(&[("stack.yaml", &value(data))])));
}

#[test]
fn short_ports() {
    let seeds = ["80", "8080:80/udp", "127.0.0.1:80-82:80-82", "[::1]:1:2/tcp", "8000-8010:80", "1.2.3.4::80"];
    let value = |data: &[u8]| service("ports", &json!([String::from_utf8_lossy(data)]));
    fuzz(&seeds, |data| hold(load_files(&[("stack.yaml", &value(data))])));
}

#[test]
fn short_mounts() {
    let seeds = ["/a", "data:/a:ro", "./x:/y:rw,z,nocopy", "~/x:/y", "C:\\x:/y", "data:/a/../b/:rshared"];
    let value = |data: &[u8]| service("volumes", &json!([String::from_utf8_lossy(data)]));
    fuzz(&seeds, |data| hold(load_files(&[("stack.yaml", &value(data))])));
}

#[test]
fn durations_and_sizes() {
    let seeds = ["1h5m30.02s", "1.5ms", "2w3d", "512m", "1.5 GiB", "-1", "64kb", "9223372036854775807"];
    fuzz(&seeds, |data| {
        let text = &*String::from_utf8_lossy(data);
        let span = text.parse::<Span>().map(|span| {
            assert_eq!(span.to_string().parse(), Ok(span), "{text:?} as {span}");
            span.to_string()
        });
        let size = text.parse::<ByteSize>().map(|size| {
            assert_eq!(size.to_string().parse(), Ok(size), "{text:?} as {size}");
            size.to_string().len()
        });
        format!("{:?} {:?}", span.map(|text| text.len()).ok(), size.ok())
    });
}
