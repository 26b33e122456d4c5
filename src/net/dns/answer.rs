//! What becomes of a question: pure, from bytes to a decision.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::names::Names;

/// Answers are good for one use: containers come and go.
const TTL: u32 = 0;
/// What fits into a datagram without EDNS (RFC 1035) and with (as DNS flag day 2020 has it).
const PLAIN_LIMIT: u16 = 512;
const EDNS_LIMIT: u16 = 1232;
/// Bytes before the question.
pub(super) const HEADER: usize = 12;

/// What to do with a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Send this back.
    Reply(Vec<u8>),
    /// Ask the host's servers.
    Relay {
        /// Sent back where they don't answer.
        failure: Vec<u8>,
        /// Largest datagram that the client takes.
        limit: usize,
    },
    /// Not a question; an answer would only help an attacker.
    Ignore,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    /// Networks whose names it may see.
    pub(super) networks: &'a [String],
    /// Names that only it knows, and what they stand for.
    pub(super) links: &'a BTreeMap<String, String>,
    /// Whether unknown names may be asked for outside.
    pub(super) relay: bool,
    /// Whether answers may be of any size.
    pub(super) stream: bool,
    /// Where among several addresses an answer starts.
    pub(super) turn: usize,
}

/// Decides on a question.
pub(super) fn decide(bytes: &[u8], names: &Names, asker: Asker<'_>) -> Decision {
    if bytes.len() < HEADER || bytes[2] & 0x80 != 0 {
        return Decision::Ignore;
    }
    let Ok(request) = Message::from_vec(bytes) else { return refuse_unread(bytes) };
    let limit = match (&request.edns, asker.stream) {
        (_, true) => u16::MAX,
        (Some(edns), false) => edns.max_payload().clamp(PLAIN_LIMIT, EDNS_LIMIT),
        (None, false) => PLAIN_LIMIT,
    };
    let reply = |code, answers| Decision::Reply(encode(&request, code, answers, limit));
    if request.metadata.op_code != OpCode::Query {
        return reply(ResponseCode::NotImp, Vec::new());
    }
    let [query] = request.queries.as_slice() else { return reply(ResponseCode::FormErr, Vec::new()) };
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return reply(ResponseCode::BADVERS, Vec::new());
    }
    let transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
    if query.query_class() != DNSClass::IN || transfer {
        return reply(ResponseCode::Refused, Vec::new());
    }
    match lookup(query, names, asker) {
        Some(answers) => reply(ResponseCode::NoError, answers),
        None if asker.relay => Decision::Relay {
            failure: encode(&request, ResponseCode::ServFail, Vec::new(), limit),
            limit: limit.into(),
        },
        None => reply(ResponseCode::NXDomain, Vec::new()),
    }
}

/// Cuts an answer from outside down to its header and question, marked as truncated, if it is longer than `limit`.
pub(super) fn fit(mut answer: Vec<u8>, limit: usize) -> Vec<u8> {
    if answer.len() <= limit {
        return answer;
    }
    let question = question(&answer).map_or(HEADER, |question| HEADER + question.len());
    answer.truncate(question);
    answer[2] |= 0x02;
    answer[4..6].copy_from_slice(&u16::from(question > HEADER).to_be_bytes());
    answer[6..HEADER].fill(0);
    answer
}

/// The bytes of a message's only question: name, type, class.
pub(super) fn question(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut end = HEADER;
    loop {
        match *message.get(end)? {
            0 => return message.get(HEADER..end + 5),
            length @ 1..64 => end += usize::from(length) + 1,
            _ => return None,
        }
    }
}

/// Records for a question about a known name (none, if it has none of that type), `None` for an unknown one.
fn lookup(query: &Query, names: &Names, asker: Asker<'_>) -> Option<Vec<Record>> {
    let record = |data| Record::from_rdata(query.name().clone(), TTL, data);
    if query.query_type() == RecordType::PTR {
        let address = query.name().parse_arpa_name().ok().filter(|net| net.prefix_len() == net.max_prefix_len())?;
        let name = names.name_of(asker.networks, address.addr())?;
        return Some(vec![record(RData::PTR(PTR(Name::from_ascii(format!("{name}.")).ok()?)))]);
    }
    let text = query.name().to_ascii().to_ascii_lowercase();
    let text = text.trim_end_matches('.');
    let text = asker.links.get(text).map_or(text, String::as_str);
    let mut addresses = match text {
        "localhost" => vec![IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()],
        _ => names.addresses(asker.networks, text)?,
    };
    let wanted = query.query_type();
    addresses.retain(|address| match wanted {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    });
    if !addresses.is_empty() {
        let turn = asker.turn % addresses.len();
        addresses.rotate_left(turn);
    }
    let data = |address| match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    Some(addresses.into_iter().map(|address| record(data(address))).collect())
}

fn encode(request: &Message, code: ResponseCode, answers: Vec<Record>, limit: u16) -> Vec<u8> {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    if code != ResponseCode::FormErr {
        response.add_queries(request.queries.iter().take(1).cloned());
    }
    response.add_answers(answers);
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(EDNS_LIMIT).set_rcode_high(code.high());
        response.set_edns(edns);
    }
    let encoded = response.to_vec().unwrap_or_default();
    if encoded.len() <= usize::from(limit) { encoded } else { response.truncate().to_vec().unwrap_or_default() }
}

/// An answer to what can't be read: its id, and that it can't.
fn refuse_unread(bytes: &[u8]) -> Decision {
    let id = u16::from_be_bytes([bytes[0], bytes[1]]);
    let mut response = Message::response(id, OpCode::Query);
    response.metadata.message_type = MessageType::Response;
    response.metadata.response_code = ResponseCode::FormErr;
    response.to_vec().map_or(Decision::Ignore, Decision::Reply)
}

#[cfg(test)]
mod tests;
