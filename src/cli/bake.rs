//! `stack build --print`: what would be built as a bake file, as docker compose prints it.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::builder::{Flags, arguments, service_build};
use crate::engine::rlimits;
use crate::planner::image_name;
use crate::spec::Loaded;
use crate::spec::model::{Build, Service};

/// The bake file of `services`, and of those whose images they take as contexts.
pub(crate) fn file(loaded: &Loaded, services: &BTreeSet<String>, flags: &Flags, push: bool) -> Value {
    let in_order = loaded.project.services.keys().filter(|name| services.contains(*name));
    let group: Vec<String> = in_order.map(|name| target_name(name)).collect();
    let mut targets = Map::new();
    let mut todo: Vec<String> = services.iter().cloned().collect();
    while let Some(name) = todo.pop() {
        let Some((service, build)) = service_build(loaded, &name) else { continue };
        let others = build.additional_contexts.values().filter_map(|source| source.strip_prefix("service:"));
        todo.extend(others.filter(|other| !targets.contains_key(&target_name(other))).map(str::to_owned));
        targets.insert(target_name(&name), target(loaded, &name, service, build, flags, push));
    }
    json!({ "group": { "default": { "targets": group } }, "target": targets })
}

/// Bake's names have no dots.
fn target_name(service: &str) -> String {
    service.replace('.', "_")
}

fn target(loaded: &Loaded, name: &str, service: &Service, build: &Build, flags: &Flags, push: bool) -> Value {
    let project = &loaded.project;
    let inline = build.dockerfile_inline.as_deref().filter(|text| !text.is_empty());
    let dockerfile = build.dockerfile.as_deref().filter(|path| !path.is_empty()).unwrap_or("Dockerfile");
    let dockerfile = inline.is_none().then(|| Path::new(&build.context).join(dockerfile));
    let contexts: Map<String, Value> = build
        .additional_contexts
        .iter()
        .map(|(key, source)| {
            let other = source.strip_prefix("service:").map(|other| format!("target:{}", target_name(other)));
            (key.clone(), other.unwrap_or_else(|| source.clone()).into())
        })
        .collect();
    let mut labels = build.labels.clone();
    labels.insert("com.docker.compose.project".to_owned(), project.name.clone());
    labels.insert("com.docker.compose.service".to_owned(), name.to_owned());
    let image = image_name(project, name, service);
    let secrets: Vec<String> = build.secrets.iter().filter_map(|mount| secret(loaded, mount)).collect();
    let ssh: Vec<String> = build.ssh.iter().chain(&flags.ssh).map(|agent| agent_value(agent)).collect();
    let hosts: Map<String, Value> = build
        .extra_hosts
        .iter()
        .filter_map(|line| line.split_once('=').or_else(|| line.split_once(':')))
        .map(|(host, address)| (host.to_owned(), address.into()))
        .collect();
    let output = if push && service.image.is_some() { "type=registry" } else { "type=docker" };
    let number = |limit: u64| i64::try_from(limit).unwrap_or(-1);
    let limits = rlimits(&build.ulimits).into_iter();
    let limits: Vec<String> = limits.map(|it| format!("{}={}:{}", it.name, number(it.soft), number(it.hard))).collect();
    let host = (build.network.as_deref() == Some("host")).then_some("network.host");
    let insecure = build.privileged.then_some("security.insecure");
    let entitlements: BTreeSet<&str> =
        build.entitlements.iter().map(String::as_str).chain(host).chain(insecure).collect();
    let all = json!({
        "context": build.context,
        "contexts": contexts,
        "dockerfile": dockerfile,
        "dockerfile-inline": inline,
        "args": arguments(loaded, build, flags),
        "labels": labels,
        "tags": build.tags.iter().chain([&image]).collect::<Vec<_>>(),
        "cache-from": build.cache_from,
        "cache-to": build.cache_to,
        "target": build.target,
        "secret": secrets,
        "ssh": ssh,
        "platforms": build.platforms,
        "pull": build.pull || flags.pull,
        "no-cache": build.no_cache || flags.no_cache,
        "network": build.network,
        "no-cache-filter": build.no_cache_filter,
        "shm-size": build.shm_size.map(|size| size.0.to_string()),
        "extra-hosts": hosts,
        "ulimits": limits,
        "entitlements": entitlements,
        "output": [output],
    });
    match all {
        Value::Object(fields) => fields.into_iter().filter(|(_, value)| !is_empty(value)).collect::<Map<_, _>>().into(),
        other => other,
    }
}

fn secret(loaded: &Loaded, mount: &crate::spec::model::FileMount) -> Option<String> {
    let object = loaded.project.secrets.get(&mount.source)?;
    let id = mount.target.as_ref().unwrap_or(&mount.source);
    match (&object.file, &object.environment) {
        (Some(file), _) => Some(format!("id={id},type=file,src={file}")),
        (None, Some(variable)) => Some(format!("id={id},type=env,env={variable}")),
        (None, None) => None,
    }
}

/// `ID=PATH`, also of an id alone.
fn agent_value(agent: &str) -> String {
    if agent.contains('=') { agent.to_owned() } else { format!("{agent}=") }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
