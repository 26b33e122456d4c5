use super::*;
use crate::net::dns::names;

fn table() -> Names {
    let record = |network: &str, names: &[&str], address: &str| names::Record {
        network: network.to_owned(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        addresses: vec![address.parse().unwrap()],
    };
    [
        record("shop_front", &["shop-web-1", "web", "Www.Example"], "10.1.0.2"),
        record("shop_front", &["shop-web-2", "web"], "10.1.0.3"),
        record("shop_front", &["shop-six-1", "six"], "fd00::2"),
        record("shop_back", &["shop-db-1", "db"], "10.2.0.2"),
    ]
    .into_iter()
    .collect()
}

fn front() -> [String; 1] {
    ["shop_front".to_owned()]
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn ask_as(request: &[u8], turn: usize, relay: bool, stream: bool) -> Decision {
    let links = BTreeMap::from([("site".to_owned(), "web".to_owned())]);
    decide(request, &table(), Asker { networks: &front(), links: &links, relay, stream, turn })
}

fn reply(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    match ask_as(&query(name, kind), 0, false, false) {
        Decision::Reply(bytes) => {
            let message = Message::from_vec(&bytes).unwrap();
            assert_eq!(message.metadata.id, 7);
            (message.metadata.response_code, message.answers.iter().map(|answer| answer.data.to_string()).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_of_own_networks_are_known_in_any_case() {
    let two = (ResponseCode::NoError, vec!["10.1.0.2".to_owned(), "10.1.0.3".to_owned()]);
    assert_eq!(reply("web.", RecordType::A), two);
    assert_eq!(reply("WEB.", RecordType::A), two);
    assert_eq!(reply("web.shop_front.", RecordType::A), two);
    assert_eq!(reply("www.example.", RecordType::A).1, ["10.1.0.2"]);
    assert_eq!(reply("six.", RecordType::AAAA).1, ["fd00::2"]);
    assert_eq!(reply("localhost.", RecordType::A).1, ["127.0.0.1"]);
    assert_eq!(reply("site.", RecordType::A), two, "by a link");
}

#[test]
fn a_known_name_without_such_records_is_empty_and_exists() {
    assert_eq!(reply("web.", RecordType::AAAA), (ResponseCode::NoError, vec![]));
    assert_eq!(reply("web.", RecordType::MX), (ResponseCode::NoError, vec![]));
}

#[test]
fn other_networks_are_unknown() {
    assert_eq!(reply("db.", RecordType::A).0, ResponseCode::NXDomain);
    assert_eq!(reply("db.shop_back.", RecordType::A).0, ResponseCode::NXDomain);
    assert!(matches!(ask_as(&query("db.", RecordType::A), 0, true, false), Decision::Relay { .. }));
}

#[test]
fn addresses_have_names() {
    assert_eq!(reply("2.0.1.10.in-addr.arpa.", RecordType::PTR).1, ["shop-web-1.shop_front."]);
    assert_eq!(reply("2.0.2.10.in-addr.arpa.", RecordType::PTR).0, ResponseCode::NXDomain);
}

#[test]
fn several_addresses_take_turns() {
    let first = |turn| match ask_as(&query("web.", RecordType::A), turn, false, false) {
        Decision::Reply(bytes) => Message::from_vec(&bytes).unwrap().answers[0].data.to_string(),
        other => panic!("{other:?}"),
    };
    assert_ne!(first(0), first(1));
    assert_eq!(first(0), first(2));
}

#[test]
fn long_answers_are_cut_for_datagrams_only() {
    let many: Names = (0..200)
        .map(|n| names::Record {
            network: "shop_front".to_owned(),
            names: vec!["many".to_owned()],
            addresses: vec![IpAddr::from([10, 9, 0, n])],
        })
        .collect();
    let length = |stream| {
        let asker = Asker { networks: &front(), links: &BTreeMap::new(), relay: false, stream, turn: 0 };
        match decide(&query("many.", RecordType::A), &many, asker) {
            Decision::Reply(bytes) => (bytes.len(), Message::from_vec(&bytes).unwrap().metadata.truncation),
            other => panic!("{other:?}"),
        }
    };
    let (cut, truncated) = length(false);
    assert!(cut <= 512 && truncated);
    let (whole, truncated) = length(true);
    assert!(whole > 3000 && !truncated);
}

#[test]
fn answers_from_outside_are_cut_to_what_the_client_takes() {
    let mut answer = query("example.com.", RecordType::A);
    answer[2] |= 0x80;
    let short = answer.clone();
    answer.resize(2000, 1);
    let cut = fit(answer, 512);
    assert_eq!(cut.len(), short.len());
    assert!(Message::from_vec(&cut).unwrap().metadata.truncation);
    assert_eq!(fit(short.clone(), 512), short);
}

#[test]
fn whatever_cannot_be_read_is_refused_or_ignored() {
    let good = query("web.", RecordType::A);
    for length in 0..good.len() {
        match ask_as(&good[..length], 0, true, false) {
            Decision::Ignore => assert!(length < HEADER),
            Decision::Reply(bytes) => assert!(bytes.len() <= good.len()),
            other @ Decision::Relay { .. } => panic!("{length}: {other:?}"),
        }
    }
    let code = |request: &[u8]| match ask_as(request, 0, true, false) {
        Decision::Reply(bytes) => bytes[3] & 0x0f,
        other => panic!("{other:?}"),
    };
    let mut pointer_to_itself = good[..HEADER].to_vec();
    pointer_to_itself.extend_from_slice(&[0xc0, 0x0c, 0, 1, 0, 1]);
    assert_eq!(code(&pointer_to_itself), 1);
    let mut none = good.clone();
    none[5] = 0;
    assert_eq!(code(&none), 1);
    let mut update = good.clone();
    update[2] = 0x28;
    assert!(matches!(code(&update), 1 | 4));
    assert_eq!(code(&query("web.", RecordType::AXFR)), 5);
    let mut response = good.clone();
    response[2] |= 0x80;
    assert_eq!(ask_as(&response, 0, true, false), Decision::Ignore);
}

proptest::proptest! {
    #[test]
    fn no_message_is_answered_with_more_than_it_takes(
        noise in proptest::collection::vec(proptest::num::u8::ANY, 0..600),
        changes in proptest::collection::vec((0_usize..40, proptest::num::u8::ANY), 0..8),
        cut in 0_usize..60,
    ) {
        let mut changed = query("web.shop_front.", RecordType::A);
        for (at, byte) in changes {
            if let Some(place) = changed.get_mut(at) {
                *place = byte;
            }
        }
        changed.truncate(cut);
        for message in [&noise, &changed] {
            for relay in [true, false] {
                match ask_as(message, 0, relay, false) {
                    Decision::Reply(bytes) | Decision::Relay { failure: bytes, .. } => {
                        proptest::prop_assert!(bytes.len() <= usize::from(EDNS_LIMIT) && bytes[..2] == message[..2]);
                        proptest::prop_assert!(bytes[2] & 0x80 != 0);
                    }
                    Decision::Ignore => {}
                }
            }
            let _ = question(message);
            if message.len() >= HEADER {
                proptest::prop_assert!(fit(message.clone(), 512).len() <= 512.max(HEADER + 260));
            }
        }
    }
}
