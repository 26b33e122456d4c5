//! Networks as docker shows them.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::cli::select::is_up;
use crate::cli::template::Row;
use crate::engine::networks::Network as Made;
use crate::engine::state::Container;
use crate::spec::model::{self, IpamPool};

/// Docker's fields of a listed network, and some of ours.
pub(super) fn summary(network: &Made) -> Row {
    let subnets: Vec<String> = network.bridge.subnets.iter().map(|(subnet, _)| subnet.to_string()).collect();
    let labels: Vec<String> = network.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let ipv6 = network.bridge.subnets.iter().any(|(subnet, _)| matches!(subnet, IpNet::V6(_)));
    let fields = [
        ("ID", network.id.chars().take(12).collect()),
        ("Name", network.name.clone()),
        ("Driver", "bridge".to_owned()),
        ("Scope", "local".to_owned()),
        ("Project", network.project.clone()),
        ("Subnets", subnets.join(", ")),
        ("Bridge", network.bridge.name.clone()),
        ("Internal", network.bridge.internal.to_string()),
        ("IPv6", ipv6.to_string()),
        ("Labels", labels.join(",")),
        ("CreatedAt", network.created.to_string()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

/// Docker's fields of an inspected network.
pub(super) fn details(network: &Made, users: &[Container]) -> Row {
    let wanted: model::Network = serde_json::from_value(network.definition.clone()).unwrap_or_default();
    let asked = wanted.ipam.unwrap_or_default();
    let has = |ipv4: bool| network.bridge.subnets.iter().any(|(subnet, _)| subnet.addr().is_ipv4() == ipv4);
    let pool = |(subnet, gateway): &(IpNet, Option<std::net::IpAddr>)| {
        let mut pool = Map::from_iter([("Subnet".to_owned(), json!(subnet.to_string()))]);
        let of_it = |pool: &&IpamPool| pool.subnet.as_ref().and_then(|text| text.parse().ok()) == Some(*subnet);
        if let Some(asked) = asked.config.iter().find(of_it) {
            pool.extend(asked.ip_range.iter().map(|range| ("IPRange".to_owned(), json!(range))));
            if !asked.aux_addresses.is_empty() {
                pool.insert("AuxiliaryAddresses".to_owned(), json!(asked.aux_addresses));
            }
        }
        pool.extend(gateway.map(|gateway| ("Gateway".to_owned(), json!(gateway.to_string()))));
        Value::from(pool)
    };
    let containers: Map<String, Value> = users
        .iter()
        .filter(|container| is_up(container))
        .flat_map(|container| container.record.endpoints.iter().map(move |endpoint| (container, endpoint)))
        .filter(|(_, endpoint)| endpoint.network == network.name)
        .map(|(container, endpoint)| {
            let address = |v6: bool| endpoint.addresses.iter().find(|text| text.contains(':') == v6);
            let entry = json!({
                "Name": container.record.name,
                "MacAddress": endpoint.mac,
                "IPv4Address": address(false).map_or("", String::as_str),
                "IPv6Address": address(true).map_or("", String::as_str),
                "Aliases": endpoint.aliases,
            });
            (container.record.id.clone(), entry)
        })
        .collect();
    let fields = [
        ("Name", json!(network.name)),
        ("Id", json!(network.id)),
        ("Created", json!(network.created)),
        ("Scope", json!("local")),
        ("Driver", json!("bridge")),
        ("EnableIPv4", json!(has(true))),
        ("EnableIPv6", json!(has(false))),
        (
            "IPAM",
            json!({"Driver": "default", "Options": asked.options, "Config": network.bridge.subnets.iter().map(pool).collect::<Vec<_>>()}),
        ),
        ("Internal", json!(network.bridge.internal)),
        ("Attachable", json!(wanted.attachable)),
        ("Ingress", json!(false)),
        ("ConfigFrom", json!({"Network": ""})),
        ("ConfigOnly", json!(false)),
        ("Containers", Value::from(containers)),
        ("Options", json!(wanted.driver_opts)),
        ("Labels", json!(network.labels)),
        ("Bridge", json!(network.bridge.name)),
        ("Project", json!(network.project)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
