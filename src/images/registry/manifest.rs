//! Reading what a registry says an image is: strictly, for everything else follows from it.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::config::{ImageConfig, Platform};
use super::super::index::{DOCKER_INDEX_TYPE, Descriptor, INDEX_TYPE, Index, MANIFEST_TYPE, Manifest};
use super::super::{Digest, Layer};

pub(super) const DOCKER_MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What is taken, as an `Accept` header.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Most layers of an image: as many as overlay mounts.
const MAX_LAYERS: usize = 499;
/// No blob is larger.
const MAX_BLOB: u64 = 64 << 30;
/// No configuration is larger.
pub(super) const MAX_CONFIG: u64 = 4 << 20;

/// A manifest or an index, told apart.
#[derive(Debug)]
pub(super) enum Document {
    Index(Index),
    Manifest(Manifest),
}

/// The fields by which a document says what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<IgnoredAny>,
    #[serde(default)]
    layers: Option<IgnoredAny>,
    #[serde(default)]
    manifests: Option<IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<IgnoredAny>,
}

/// Reads a document that came as `content_type`; its media type besides, or what is wrong.
pub(super) fn read(bytes: &[u8], content_type: Option<&str>) -> Result<(String, Document), String> {
    let shape: Shape = serde_json::from_slice(bytes).map_err(|e| format!("the document cannot be read: {e}"))?;
    if shape.schema_version == 1 || shape.fs_layers.is_some() {
        return Err(
            "it is an image of Docker's schema 1, which is not supported: push it again with a newer client".into()
        );
    }
    if shape.schema_version != 2 {
        return Err(format!("its schema version is {}, not 2", shape.schema_version));
    }
    let came_as = content_type.map(|text| text.split(';').next().unwrap_or(text).trim().to_owned());
    let came_as = came_as.filter(|text| is_known(text));
    if let (Some(said), Some(came_as)) = (&shape.media_type, &came_as)
        && said != came_as
    {
        return Err(format!("it came as {came_as}, but calls itself {}", printable(said)));
    }
    let parsed = |e: serde_json::Error| format!("the document cannot be read: {e}");
    match (shape.manifests.is_some(), shape.layers.is_some() || shape.config.is_some()) {
        (true, true) => Err("it is both a manifest and an index".into()),
        (false, false) => Err("it is neither a manifest nor an index".into()),
        (is_index, _) => {
            let default = if is_index { INDEX_TYPE } else { MANIFEST_TYPE };
            let media_type = shape.media_type.or(came_as).unwrap_or_else(|| default.to_owned());
            if is_index != matches!(media_type.as_str(), INDEX_TYPE | DOCKER_INDEX_TYPE) || !is_known(&media_type) {
                return Err(format!("its form is not that of a {}", printable(&media_type)));
            }
            let document = if is_index {
                Document::Index(serde_json::from_slice(bytes).map_err(parsed)?)
            } else {
                Document::Manifest(serde_json::from_slice(bytes).map_err(parsed)?)
            };
            Ok((media_type, document))
        }
    }
}

fn is_known(media_type: &str) -> bool {
    matches!(media_type, INDEX_TYPE | DOCKER_INDEX_TYPE | MANIFEST_TYPE | DOCKER_MANIFEST_TYPE)
}

fn printable(text: &str) -> String {
    super::super::error::printable(text.as_bytes())
}

/// Checks that a manifest is that of an image whose layers can be had and mounted.
pub(super) fn check(manifest: &Manifest) -> Result<(), String> {
    let config = &manifest.config.media_type;
    let is_image = config.is_empty() || config.contains("image.config") || config.contains("container.image");
    if !is_image {
        return Err(format!("it is no image: its configuration is a {}", printable(config)));
    }
    if manifest.config.size > MAX_CONFIG {
        return Err(format!("its configuration has {} bytes", manifest.config.size));
    }
    if manifest.layers.len() > MAX_LAYERS {
        return Err(format!("it has {} layers; at most {MAX_LAYERS} can be mounted", manifest.layers.len()));
    }
    for layer in &manifest.layers {
        let kind = layer.media_type.as_str();
        if kind.contains("foreign") || kind.contains("nondistributable") {
            return Err(format!(
                "layer {} is kept elsewhere ({}), which is not supported",
                layer.digest,
                printable(kind)
            ));
        }
        let known = ["layer.v1.tar", "rootfs.diff.tar"].iter().any(|part| kind.contains(part));
        if !known || kind.contains("encrypted") {
            return Err(format!("layer {} is a {}, which is not supported", layer.digest, printable(kind)));
        }
        if layer.size > MAX_BLOB {
            return Err(format!("layer {} has {} bytes; at most {MAX_BLOB} are taken", layer.digest, layer.size));
        }
    }
    Ok(())
}

/// Puts manifest and configuration together.
pub(super) fn layers(manifest: &Manifest, config: &ImageConfig) -> Result<Vec<Layer>, String> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(format!(
            "its manifest has {} layers, but its configuration {}",
            manifest.layers.len(),
            diff_ids.len()
        ));
    }
    let layer = |(at, diff_id): (&Descriptor, &Digest)| Layer {
        digest: at.digest,
        diff_id: *diff_id,
        size: at.size,
        media_type: at.media_type.clone(),
    };
    Ok(manifest.layers.iter().zip(diff_ids).map(layer).collect())
}

/// The entry of an index for a platform, or those that there are.
pub(super) fn choose<'a>(index: &'a Index, platform: &Platform) -> Result<&'a Descriptor, String> {
    index.select(platform).ok_or_else(|| {
        let known = index.manifests.iter().filter_map(|manifest| manifest.platform.as_ref());
        let known: Vec<String> = known.filter(|known| known.os != "unknown").map(ToString::to_string).collect();
        if known.is_empty() { "none".to_owned() } else { printable(&known.join(", ")) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(layer: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"digest":"{D}","size":1}},"layers":[{layer}]}}"#
        )
    }

    #[test]
    fn forms_are_told_apart() {
        let good = manifest("");
        assert!(matches!(read(good.as_bytes(), Some(MANIFEST_TYPE)), Ok((_, Document::Manifest(_)))));
        assert!(matches!(
            read(good.as_bytes(), Some("application/json; charset=utf-8")),
            Ok((_, Document::Manifest(_)))
        ));
        assert!(matches!(read(br#"{"schemaVersion":2,"manifests":[]}"#, None), Ok((_, Document::Index(_)))));
        assert!(read(good.as_bytes(), Some(INDEX_TYPE)).is_err());
        for bad in [
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            r#"{"schemaVersion":2,"layers":[],"layers":[]}"#,
            &format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX_TYPE}","layers":[],"config":{{}}}}"#),
            &good[..50],
            "[]",
        ] {
            assert!(read(bad.as_bytes(), None).is_err(), "{bad}");
        }
        assert!(read("{\"a\":".repeat(100_000).as_bytes(), None).is_err());
    }

    #[test]
    fn only_layers_that_can_be_had() {
        let layer = |kind: &str, size: &str| format!(r#"{{"mediaType":"{kind}","digest":"{D}","size":{size}}}"#);
        let checked = |layers: &str| match read(manifest(layers).as_bytes(), None) {
            Ok((_, Document::Manifest(manifest))) => check(&manifest),
            other => Err(format!("{other:?}")),
        };
        let gzip = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        assert!(checked(&layer(gzip, "5")).is_ok());
        for bad in [
            layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "5"),
            layer("application/vnd.oci.image.layer.nondistributable.v1.tar", "5"),
            layer("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "5"),
            layer(gzip, "-1"),
            layer(gzip, "99999999999999"),
            vec![layer(gzip, "5"); 500].join(","),
        ] {
            assert!(checked(&bad).is_err(), "{bad}");
        }
    }
}
