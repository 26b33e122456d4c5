//! Content of a container's `/etc/hosts` and `/etc/resolv.conf`.

use std::fmt::Write as _;
use std::net::IpAddr;

/// Renders `/etc/hosts`: loopback names, then the `extra` lines, then the container's own names at its addresses.
pub fn hosts(names: &[String], addresses: &[IpAddr], extra: &[(String, IpAddr)]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (name, address) in extra {
        let _ = writeln!(text, "{address}\t{name}");
    }
    if !names.is_empty() {
        for address in addresses {
            let _ = writeln!(text, "{address}\t{}", names.join(" "));
        }
    }
    text
}

/// Renders `/etc/resolv.conf`.
pub fn resolv_conf(servers: &[IpAddr], search: &[String], options: &[String]) -> String {
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

/// What matters in a `/etc/resolv.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Name servers in order.
    pub servers: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads the content of a `/etc/resolv.conf`; lines that mean nothing are skipped, as the C library does.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address: Option<IpAddr> =
                        words.next().and_then(|word| word.split('%').next()).and_then(|word| word.parse().ok());
                    conf.servers.extend(address);
                }
                Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => conf.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        conf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_come_after_extra_ones() {
        let text = hosts(
            &["web".to_owned(), "abc".to_owned()],
            &["10.0.0.2".parse().unwrap()],
            &[("db.example".to_owned(), "192.0.2.1".parse().unwrap())],
        );
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("192.0.2.1\tdb.example\n10.0.0.2\tweb abc\n"));
    }

    #[test]
    fn a_resolver_configuration_survives_a_round_trip() {
        let text = "# made by hand\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver junk\nsearch a.example b.example\noptions ndots:2\n";
        let conf = ResolvConf::parse(text);
        assert_eq!(conf.servers.len(), 2);
        assert_eq!(ResolvConf::parse(&resolv_conf(&conf.servers, &conf.search, &conf.options)), conf);
    }
}
