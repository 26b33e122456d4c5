//! Bridges, the firewall, and what others make of packets.

use super::{Finding, Verdict};
use crate::net::{self, Host};

const AREA: &str = "network";

pub(super) fn examine() -> Vec<Finding> {
    let survey = match Host::current().survey() {
        Ok(survey) => survey,
        Err(e) => {
            let missing = Finding::ok(AREA, "nftables", "").required(&Err::<(), _>(e));
            return vec![missing.remedy("load it with `modprobe nf_tables`, and run as root")];
        }
    };
    let mut findings = vec![
        Finding::ok(AREA, "bridges, nftables", "made and filled in a namespace of its own")
            .required(&survey.bridge)
            .remedy("load what is missing: `modprobe bridge nf_tables nft_chain_nat nft_masq`"),
    ];
    if survey.bridge.is_ok() {
        findings.push(
            Finding::ok(AREA, "veth", "containers can be attached")
                .required(&survey.attachment)
                .remedy("load what is missing: `modprobe veth nft_redir`"),
        );
    }
    findings.push(forwarding(&survey));
    findings.push(
        Finding::ok(AREA, "IPv6", "there")
            .or_loss(survey.ipv6, "not in this kernel: `enable_ipv6` can't be honoured")
            .remedy("if you need it: don't start the kernel with `ipv6.disable=1`"),
    );
    if survey.ipv6 {
        findings.push(
            Finding::ok(AREA, "IPv6 by interface", "only our bridges and the uplinks forward")
                .or_loss(
                    survey.forwards_ipv6_singly,
                    "the first network with IPv6 makes the whole host forward IPv6; it keeps its own router (accept_ra=2)",
                )
                .remedy("a kernel from 6.17 on has it"),
        );
    }
    let filtered =
        if survey.filters_bridges { "br_netfilter is on: rules of ours let frames pass" } else { "not filtered" };
    findings.push(Finding::ok(AREA, "frames inside of bridges", filtered));
    findings.extend(others(&survey));
    findings
}

fn forwarding(survey: &net::Survey) -> Finding {
    let how = if survey.forwards_ipv4 {
        "on for the whole host (ip_forward=1)"
    } else {
        "off (ip_forward=0): `up` switches it on for our bridges and the uplinks alone"
    };
    Finding::ok(AREA, "IPv4 forwarding", how)
}

/// Firewalls that drop what they don't know.
fn others(survey: &net::Survey) -> Vec<Finding> {
    if survey.drops.is_empty() {
        return vec![Finding::ok(AREA, "other firewalls", "none drops what is forwarded")];
    }
    let finding = |(chain, place): &(String, Option<String>)| {
        match place {
        Some(place) => {
            let how = format!("{chain} drops what is forwarded; `up` puts a rule per bridge into {place}");
            Finding::ok(AREA, "other firewalls", how)
        }
        None => Finding::new(
            AREA,
            "other firewalls",
            Verdict::Fallback,
            format!("{chain} drops what is forwarded, with no place for rules of others: published ports and the way out may be closed"),
        )
        .remedy(format!("let it accept packets from and to interfaces named st-*, for example: nft insert rule {chain} iifname \"st-*\" accept")),
    }
    };
    survey.drops.iter().map(finding).collect()
}
