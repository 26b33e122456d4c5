//! Other firewalls of the host: Docker's, firewalld's, ufw's.
//!
//! A packet that one forward hook accepts still passes all others, and where one of them drops what it does not know
//! (dockerd sets the policy of `FORWARD` to drop), no rule of ours can save it. Each of these programs keeps a place for
//! the rules of others; there, and only where it is needed, each bridge gets a rule for either direction, whose comment
//! names the bridge and its network. What the rules let pass has been through our own forward chain, or will be.

use super::error::Error;
use super::netlink::Channel;
use super::nft::{Chain, Family, Key, Rule, Table, Transaction, Verdict, chains, ifname, rules};
use super::ruleset::{self, BRIDGES, INET};

/// The number of the forward hook.
const FORWARD: u32 = 2;
/// What the comments of our rules start with; the bridge's name follows, then its network.
const COMMENT: &str = "stack: bridge ";
/// Another program may change the rules between a look and a change.
const TRIES: usize = 4;

/// Where a firewall wants the rules of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    table: Table,
    chain: &'static str,
    /// Before the chain's own rules, or behind those of the administrator.
    first: bool,
}

const fn place(family: Family, table: &'static str, chain: &'static str, first: bool) -> Place {
    Place { table: Table { family, name: table }, chain, first }
}

/// In each table the first that exists is taken.
const PLACES: [Place; 5] = [
    place(Family::Ip, "filter", "DOCKER-USER", false),
    place(Family::Ip6, "filter", "DOCKER-USER", false),
    place(Family::Ip, "filter", "ufw-before-forward", false),
    place(Family::Ip6, "filter", "ufw6-before-forward", false),
    place(Family::Inet, "firewalld", "filter_FORWARD", true),
];

/// A bridge that others' rules shall let through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guest<'a> {
    /// Its name.
    pub(super) bridge: &'a str,
    /// Whose it is.
    pub(super) owner: &'a str,
}

/// Puts the rules of bridges where they are needed and missing, and takes out those of bridges that are gone; whether
/// anything had to change. What cannot be changed is left; [`obstacles`] names it.
pub(super) fn admit(channel: &Channel, guests: &[Guest<'_>]) -> Result<bool, Error> {
    retry(|| {
        let _lock = ruleset::lock()?;
        let ours = ruleset::elements_of(channel, INET, BRIDGES);
        let lives = |bridge: &str| ours.iter().any(|element| element.key == ifname(bridge));
        let mut changed = false;
        for place in needed(&chains(channel)?) {
            let mut transaction = Transaction::new();
            let listed = rules(channel, place.table, Some(place.chain))?;
            let own = |comment: &str| comment.strip_prefix(COMMENT).map(|rest| bridge_of(rest).to_owned());
            for rule in &listed {
                if own(&rule.comment).is_some_and(|bridge| !lives(&bridge)) {
                    transaction.delete_rule(place.table, place.chain, rule.handle);
                    changed = true;
                }
            }
            let before = listed.last().filter(|last| last.returns && !place.first).map(|last| last.handle);
            for guest in guests {
                let there = listed.iter().filter(|rule| own(&rule.comment).as_deref() == Some(guest.bridge)).count();
                for rule in pair(guest).iter().skip(there) {
                    match (place.first, before) {
                        (false, None) => transaction.rule(place.table, place.chain, rule),
                        _ => transaction.insert_rule(place.table, place.chain, rule, before),
                    }
                    changed = true;
                }
            }
            match transaction.commit(channel) {
                // A table that belongs to the socket of its program is closed to us.
                Err(Error::Netlink { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {}
                other => other?,
            }
        }
        Ok(changed)
    })
}

/// Takes a bridge's rules out of wherever they are.
pub(super) fn dismiss(channel: &Channel, bridge: &str) -> Result<(), Error> {
    retry(|| {
        let _lock = ruleset::lock()?;
        let chains = chains(channel)?;
        for place in PLACES.iter().filter(|place| chains.iter().any(|chain| place.is(chain))) {
            let mut transaction = Transaction::new();
            for rule in rules(channel, place.table, Some(place.chain))? {
                if rule.comment.strip_prefix(COMMENT).map(bridge_of) == Some(bridge) {
                    transaction.delete_rule(place.table, place.chain, rule.handle);
                }
            }
            transaction.commit(channel)?;
        }
        Ok(())
    })
}

/// Chains of others that drop forwarded packets and let nobody put in a word for this bridge: `family table chain`, as
/// `nft` names them.
pub(super) fn obstacles(channel: &Channel, bridge: &str) -> Result<Vec<String>, Error> {
    let chains = chains(channel)?;
    let mut admitted = Vec::new();
    for place in needed(&chains) {
        let listed = rules(channel, place.table, Some(place.chain))?;
        if listed.iter().any(|rule| rule.comment.strip_prefix(COMMENT).map(bridge_of) == Some(bridge)) {
            admitted.push(place);
        }
    }
    let stuck = chains.iter().filter(|chain| drops_forwarded(chain));
    let stuck = stuck.filter(|chain| !admitted.iter().any(|place| place.shares_table(chain)));
    Ok(stuck.map(name).collect())
}

/// Chains of others that drop forwarded packets, as `nft` names them, and where each takes rules of ours, if anywhere.
pub(super) fn dropping(channel: &Channel) -> Result<Vec<(String, Option<String>)>, Error> {
    let chains = chains(channel)?;
    let places = needed(&chains);
    let named = |chain: &Chain| {
        let place = places.iter().find(|place| place.shares_table(chain));
        (name(chain), place.map(|place| place.chain.to_owned()))
    };
    Ok(chains.iter().filter(|chain| drops_forwarded(chain)).map(named).collect())
}

fn name(chain: &Chain) -> String {
    format!("{} {} {}", family(chain.family), chain.table, chain.name)
}

/// One place for each table that would drop our packets.
fn needed(chains: &[Chain]) -> Vec<Place> {
    let mut needed: Vec<Place> = Vec::new();
    for place in PLACES {
        let there = chains.iter().any(|chain| place.is(chain));
        let drops = chains.iter().any(|chain| place.shares_table(chain) && drops_forwarded(chain));
        // firewalld's chain ends in a rule that rejects, whatever its policy.
        if there && (drops || place.first) && !needed.iter().any(|other| other.table == place.table) {
            needed.push(place);
        }
    }
    needed
}

fn drops_forwarded(chain: &Chain) -> bool {
    chain.hook == Some(FORWARD) && chain.drops && matches!(family(chain.family), "ip" | "ip6" | "inet")
}

fn family(number: u8) -> &'static str {
    match number {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => "other",
    }
}

impl Place {
    fn is(&self, chain: &Chain) -> bool {
        self.shares_table(chain) && chain.name == self.chain
    }

    fn shares_table(&self, chain: &Chain) -> bool {
        self.table.family as u8 == chain.family && self.table.name == chain.table
    }
}

/// Out of the bridge, and into it; written as `iptables` would, which must be able to read its table.
fn pair(guest: &Guest<'_>) -> [Rule; 2] {
    let comment = format!("{COMMENT}{} of {}", guest.bridge, guest.owner);
    [Key::IifName, Key::OifName].map(|key| {
        let name = [guest.bridge.as_bytes(), &[0]].concat();
        Rule::new().meta(key).eq(&name).counted().then(Verdict::Accept).comment(&comment)
    })
}

/// The bridge's name in a comment, without [`COMMENT`].
fn bridge_of(rest: &str) -> &str {
    rest.split(' ').next().unwrap_or_default()
}

/// Looks again where a rule or chain went between a look and a change.
fn retry<T>(mut change: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut tries = 1;
    loop {
        match change() {
            Err(Error::Netlink { source, .. }) if tries < TRIES && is_race(&source) => tries += 1,
            other => return other,
        }
    }
}

fn is_race(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR | libc::EAGAIN))
}
