//! An image's configuration, as Docker writes it: the OCI fields and those that OCI lacks (health check, shell, on-build).

#![expect(clippy::zero_sized_map_values, reason = "the documents write sets so")]

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::Digest;

/// The document whose digest is the image's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "moment")]
    pub created: Option<Timestamp>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub author: String,
    /// Processor architecture, by Go's name: `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// Variant of the architecture: `v8`.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub variant: String,
    /// Operating system: `linux`.
    #[serde(default)]
    pub os: String,
    /// What a container of it starts with.
    #[serde(default, deserialize_with = "nullable")]
    pub config: RunConfig,
    /// Its layers.
    #[serde(default, deserialize_with = "nullable")]
    pub rootfs: DiffIds,
    /// How it came to be, oldest first.
    #[serde(default, deserialize_with = "nullable")]
    pub history: Vec<History>,
}

impl ImageConfig {
    /// An empty configuration for this machine's architecture.
    pub fn scratch() -> ImageConfig {
        ImageConfig {
            created: None,
            author: String::new(),
            architecture: architecture().to_owned(),
            variant: String::new(),
            os: "linux".to_owned(),
            config: RunConfig::default(),
            rootfs: DiffIds::default(),
            history: Vec::new(),
        }
    }
}

/// This machine's architecture, by Go's name.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// What machine an image is for: `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Processor architecture, by Go's name.
    #[serde(default)]
    pub architecture: String,
    /// Operating system.
    #[serde(default)]
    pub os: String,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn here() -> Platform {
        Platform { architecture: architecture().to_owned(), os: "linux".to_owned(), variant: None }
    }

    /// Reads `os/architecture[/variant]`, or an architecture alone; the names of `uname` are taken, too.
    pub fn parse(text: &str) -> Result<Platform, super::Error> {
        let lower = text.to_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [architecture] if *architecture != "linux" => ("linux", *architecture, None),
            [os] => (*os, self::architecture(), None),
            [os, architecture] => (*os, *architecture, None),
            [os, architecture, variant] => (*os, *architecture, Some((*variant).to_owned())),
            _ => ("", "", None),
        };
        let architecture = match architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "i386" | "i686" => "386",
            "armhf" => "arm",
            other => other,
        };
        let word =
            |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c));
        if !(word(os) && word(architecture) && variant.as_deref().is_none_or(word)) {
            let why = "write OS/ARCHITECTURE, such as linux/arm64".to_owned();
            return Err(super::Error::Unsupported { what: format!("platform `{text}`"), why });
        }
        Ok(Platform { architecture: architecture.to_owned(), os: os.to_owned(), variant })
    }

    /// Whether it is the same, a usual variant being the same as none.
    pub(super) fn is(&self, other: &Platform) -> bool {
        self.fits(other) && self.usual() == other.usual()
    }

    /// Whether both have the same system and architecture, and no other variant is asked for.
    pub(super) fn fits(&self, other: &Platform) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || other.variant.is_none() || self.usual() == other.usual())
    }

    fn usual(&self) -> Option<&str> {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", None) => Some("v8"),
            ("arm", None) => Some("v7"),
            (_, variant) => variant.filter(|variant| !variant.is_empty()),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// The digests of the uncompressed layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffIds {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The digests.
    #[serde(default, deserialize_with = "nullable")]
    pub diff_ids: Vec<Digest>,
}

impl Default for DiffIds {
    fn default() -> DiffIds {
        DiffIds { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// What a container starts with, unless told otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `user[:group]`, names or numbers; empty is root.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub user: String,
    /// Ports: `80/tcp`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Environment: `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// The command's fixed part.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "words")]
    pub entrypoint: Option<Vec<String>>,
    /// The command, or the entrypoint's default arguments.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "words")]
    pub cmd: Option<Vec<String>>,
    /// Paths whose content lives in volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub volumes: BTreeMap<String, Empty>,
    /// Where the command starts; empty is `/`.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub working_dir: String,
    /// Labels, in the order written.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty", deserialize_with = "nullable")]
    pub labels: IndexMap<String, String>,
    /// The signal that asks for an end: `SIGTERM`, `15`.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub stop_signal: String,
    /// How its health is found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// The shell of shell-form instructions; empty is `/bin/sh -c`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub shell: Vec<String>,
    /// Instructions for images built on this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub on_build: Vec<String>,
}

/// The `{}` that sets are written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A health check. Durations are nanoseconds, 0 meaning the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `NONE`, or `CMD` and words, or `CMD-SHELL` and a line; empty inherits.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time a check may take.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time from the start in which failures don't count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between checks during the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make a container unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "moment")]
    pub created: Option<Timestamp>,
    /// By which instruction.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub created_by: String,
    /// By whom.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub author: String,
    /// A remark.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// `null` is the default.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Words: a list, or one string as early Docker wrote it.
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        List(Vec<String>),
        One(String),
    }
    Ok(Option::deserialize(deserializer)?.map(|words| match words {
        Words::List(list) => list,
        Words::One(word) => vec![word],
    }))
}

/// A moment; one that can't be read counts as unknown, for nothing depends on it.
fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_writes_is_read() {
        let text = r#"{"architecture":"amd64","os":"linux","created":"2024-05-01T10:00:00.123456789+02:00","docker_version":"26",
            "config":{"Hostname":"","Env":["PATH=/bin"],"Cmd":["sh"],"Entrypoint":null,"Volumes":null,"ExposedPorts":{"80/tcp":{}},
              "Labels":null,"OnBuild":null,"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":30000000000},"Shell":["/bin/bash","-c"]},
            "rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
            "history":[{"created":"2024-05-01T08:00:00Z","created_by":"x","empty_layer":true}]}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!(config.config.entrypoint, None);
        assert!(config.config.exposed_ports.contains_key("80/tcp"));
        assert_eq!(config.config.healthcheck.as_ref().unwrap().interval, 30_000_000_000);
        assert_eq!(config.created.unwrap().to_string(), "2024-05-01T08:00:00.123456789Z");
        assert!(config.history[0].empty_layer);
        let again: ImageConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn platforms() {
        let read = |text: &str| Platform::parse(text).unwrap();
        assert_eq!(read("linux/arm64/v8").to_string(), "linux/arm64/v8");
        assert_eq!(read("x86_64"), read("linux/amd64"));
        assert!(read("linux/arm64").is(&read("linux/arm64/v8")) && !read("linux/arm/v6").fits(&read("linux/arm/v7")));
        for bad in ["", "a/b/c/d", "linux/", "linux/a b"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn odd_but_seen_forms_are_read() {
        let config: ImageConfig =
            serde_json::from_str(r#"{"config":null,"created":"","rootfs":null,"history":null}"#).unwrap();
        assert_eq!(config.rootfs, DiffIds::default());
        let config: RunConfig = serde_json::from_str(r#"{"Cmd":"echo hi"}"#).unwrap();
        assert_eq!(config.cmd.unwrap(), ["echo hi"]);
    }
}
