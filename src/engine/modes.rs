//! Network modes and options in the words that everything else knows: networks that a service is attached to, and
//! addresses that its ports are published on.

use std::net::Ipv4Addr;

use crate::spec::model::{Network, Port, Project, Service};

/// Makes the networks that `network_mode: bridge` and `network_mode: NAME` mean, and the modes that networks named `host`
/// and `none` mean; gives ports the host address that their network has for them.
pub fn settle(project: &mut Project) {
    let bridges = project.networks.values_mut().filter(|network| network.external && network.name == "bridge");
    for network in bridges {
        *network = Network { name: format!("{}_bridge", project.name), ..Network::default() };
    }
    let mut services = std::mem::take(&mut project.services);
    for service in services.values_mut() {
        if let Some(name) = network_of(service) {
            let key = attach(project, &name);
            service.network_mode = None;
            service.networks.insert(key, None);
        } else if let Some(mode) = mode_of(project, service) {
            service.networks.clear();
            service.network_mode = Some(mode);
        }
        bind(project, service);
    }
    project.services = services;
    let used = |key: &String| project.services.values().any(|service| service.networks.contains_key(key));
    let built_in: Vec<String> =
        project.networks.keys().filter(|key| special(project, key).is_some() && !used(key)).cloned().collect();
    for key in built_in {
        project.networks.remove(&key);
    }
}

/// Gives the services that say nothing of user namespaces this mode.
pub fn user_namespaces(project: &mut Project, mode: &str) {
    for service in project.services.values_mut() {
        service.userns_mode.get_or_insert_with(|| mode.to_owned());
    }
}

/// Ports without a host address of their own are published for the host alone.
pub fn publish_on_loopback(project: &mut Project) {
    for service in project.services.values_mut() {
        let ports = std::mem::take(&mut service.ports);
        for port in ports {
            let fixed = port.published.as_ref().is_some_and(|published| published != "0" && !published.contains('-'));
            if port.host_ip.is_some() {
                service.ports.push(port);
                continue;
            }
            let on = |address: &str| Port { host_ip: Some(address.to_owned()), ..port.clone() };
            service.ports.push(on("127.0.0.1"));
            // A port of the machine's choice would be another one for each address.
            service.ports.extend(fixed.then(|| on("::1")));
        }
    }
}

/// The network that a `network_mode` names.
fn network_of(service: &Service) -> Option<String> {
    let mode = service.network_mode.as_deref()?;
    let other = matches!(mode, "" | "host" | "none") || mode.starts_with("service:") || mode.starts_with("container:");
    (!other).then(|| mode.to_owned())
}

/// The key of the network of that real name. Docker's `bridge` is the project's own default network here.
fn attach(project: &mut Project, name: &str) -> String {
    let (key, network) = if matches!(name, "bridge" | "default") {
        ("default", Network { name: format!("{}_default", project.name), ..Network::default() })
    } else {
        let known = project.networks.iter().find(|(_, network)| network.name == name);
        if let Some((key, _)) = known {
            return key.clone();
        }
        (name, Network { name: name.to_owned(), external: true, ..Network::default() })
    };
    project.networks.entry(key.to_owned()).or_insert(network);
    key.to_owned()
}

/// The mode that a service's only network stands for.
fn mode_of(project: &Project, service: &Service) -> Option<String> {
    service.networks.keys().find_map(|key| special(project, key)).map(str::to_owned)
}

/// Docker's built-in networks, by their names or drivers.
fn special(project: &Project, key: &str) -> Option<&'static str> {
    let network = project.networks.get(key)?;
    let named = |name: &str| network.driver.as_deref() == Some(name) || (network.external && network.name == name);
    ["host", "none"].into_iter().find(|name| named(name))
}

/// Ports without a host address of their own get that of the network.
fn bind(project: &Project, service: &mut Service) {
    let options = service.networks.keys().filter_map(|key| Some(&project.networks.get(key)?.driver_opts));
    let mut bindings = options.filter_map(|options| options.get("com.docker.network.bridge.host_binding_ipv4"));
    let Some(binding) = bindings.find_map(|text| text.parse::<Ipv4Addr>().ok()) else { return };
    for port in service.ports.iter_mut().filter(|port| port.host_ip.is_none() && !binding.is_unspecified()) {
        port.host_ip = Some(binding.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(mode: Option<&str>, network: Option<&str>) -> Service {
        Service {
            network_mode: mode.map(str::to_owned),
            networks: network.map(|key| (key.to_owned(), None)).into_iter().collect(),
            ..Service::default()
        }
    }

    #[test]
    fn modes_become_networks_and_networks_modes() {
        let mut project = Project { name: "p".to_owned(), ..Project::default() };
        let external = |name: &str| Network { name: name.to_owned(), external: true, ..Network::default() };
        project.networks.insert("outer".to_owned(), external("host"));
        project.networks.insert("known".to_owned(), external("shared"));
        let modes = [
            ("a", Some("bridge"), None),
            ("b", Some("shared"), None),
            ("c", Some("elsewhere"), None),
            ("d", None, Some("outer")),
            ("e", Some("service:a"), None),
        ];
        for (name, mode, network) in modes {
            project.services.insert(name.to_owned(), service(mode, network));
        }
        settle(&mut project);
        let networks = |name: &str| project.services[name].networks.keys().cloned().collect::<Vec<_>>();
        let mode = |name: &str| project.services[name].network_mode.clone();
        assert_eq!((networks("a"), mode("a")), (vec!["default".to_owned()], None));
        assert_eq!((networks("b"), mode("b")), (vec!["known".to_owned()], None));
        assert_eq!((networks("c"), mode("c")), (vec!["elsewhere".to_owned()], None));
        assert_eq!((networks("d"), mode("d")), (vec![], Some("host".to_owned())));
        assert_eq!((networks("e"), mode("e")), (vec![], Some("service:a".to_owned())));
        assert_eq!(project.networks.keys().map(String::as_str).collect::<Vec<_>>(), ["default", "elsewhere", "known"]);
        assert!(project.networks["elsewhere"].external && !project.networks["default"].external);
    }
}
