//! The resolver inside real namespaces.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use super::*;
use crate::net::testbed::{self, inside};

const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::new(99, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn read(bytes: &[u8]) -> (ResponseCode, Vec<String>) {
    let message = Message::from_vec(bytes).unwrap();
    assert_eq!(message.metadata.id, 99);
    (message.metadata.response_code, message.answers.iter().map(|answer| answer.data.to_string()).collect())
}

fn by_datagram(request: &[u8]) -> (ResponseCode, Vec<String>) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    // Connected: an answer from another port than 53 would not arrive.
    socket.connect(RESOLVER).unwrap();
    let mut bytes = [0; 1500];
    // A full receive buffer drops datagrams, so clients ask again.
    let mut ask = || socket.send(request).and_then(|_| socket.recv(&mut bytes));
    let length = ask().or_else(|_| ask()).unwrap();
    read(&bytes[..length])
}

fn by_stream(request: &[u8]) -> (ResponseCode, Vec<String>) {
    let mut stream = TcpStream::connect(RESOLVER).unwrap();
    stream.write_all(&u16::try_from(request.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(request).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes).unwrap();
    read(&bytes)
}

/// Runs a server for one container in the background; `test` gets the container.
fn with_server(upstream: Vec<IpAddr>, test: impl FnOnce(&OwnedFd) + Send + 'static) {
    testbed::host(move |host| {
        let container = testbed::namespace();
        let sockets = host.attach(container.as_fd(), &[], true).unwrap().dns.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let answering = thread::scope(|scope| {
            let server = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let server = Server::new();
                    let networks = vec!["front".to_owned()];
                    server.set_names(Names::from_iter([Record {
                        network: "front".to_owned(),
                        names: vec!["web".to_owned()],
                        addresses: vec!["10.1.0.2".parse().unwrap()],
                    }]));
                    server
                        .serve(Client { id: "c".to_owned(), networks, links: BTreeMap::new(), upstream }, sockets)
                        .unwrap();
                    stopped.await.ok();
                });
            });
            test(&container);
            drop(stop);
            server.join()
        });
        answering.unwrap();
    });
}

/// A server of the host on 127.0.0.53: says 192.0.2.7 to every question.
fn upstream_server() {
    let udp = UdpSocket::bind("127.0.0.53:53").unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.53:53").unwrap();
    let answer = |request: &[u8]| {
        let mut message = Message::from_vec(request).unwrap().into_response();
        let name = message.queries[0].name().clone();
        let data = hickory_proto::rr::RData::A(hickory_proto::rr::rdata::A([192, 0, 2, 7].into()));
        message.add_answer(hickory_proto::rr::Record::from_rdata(name, 60, data));
        message.to_vec().unwrap()
    };
    thread::spawn(move || {
        let mut bytes = [0; 1500];
        while let Ok((length, peer)) = udp.recv_from(&mut bytes) {
            let mut forged = answer(&bytes[..length]);
            forged[0] ^= 1;
            udp.send_to(&forged, peer).unwrap();
            udp.send_to(&answer(&bytes[..length]), peer).unwrap();
        }
    });
    thread::spawn(move || {
        while let Ok((mut stream, _)) = tcp.accept() {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut bytes = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut bytes).unwrap();
            let answer = answer(&bytes);
            stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
}

#[test]
fn names_are_answered_on_port_53_beside_a_server_of_the_container() {
    with_server(Vec::new(), |container| {
        inside(container, || {
            let _own_udp = UdpSocket::bind("0.0.0.0:53").unwrap();
            let _own_tcp = std::net::TcpListener::bind("0.0.0.0:53").unwrap();
            let known = (ResponseCode::NoError, vec!["10.1.0.2".to_owned()]);
            assert_eq!(by_datagram(&question("web.")), known);
            assert_eq!(by_stream(&question("web.")), known);
            assert_eq!(by_datagram(&question("example.com.")), (ResponseCode::NXDomain, vec![]));
        });
    });
}

#[test]
fn other_names_are_asked_for_outside() {
    with_server(vec!["127.0.0.53".parse().unwrap()], |container| {
        upstream_server();
        inside(container, || {
            let known = (ResponseCode::NoError, vec!["192.0.2.7".to_owned()]);
            assert_eq!(by_datagram(&question("example.com.")), known);
            assert_eq!(by_stream(&question("example.com.")), known);
        });
    });
}

#[test]
fn a_dead_server_is_a_failure_and_a_living_one_behind_it_an_answer() {
    with_server(vec!["127.0.0.54".parse().unwrap()], |container| {
        assert_eq!(inside(container, || by_datagram(&question("example.com."))).0, ResponseCode::ServFail);
    });
    with_server(vec!["127.0.0.54".parse().unwrap(), "127.0.0.53".parse().unwrap()], |container| {
        upstream_server();
        assert_eq!(inside(container, || by_datagram(&question("example.com."))).1, ["192.0.2.7"]);
    });
}

#[test]
fn a_flood_of_rubbish_leaves_the_resolver_answering() {
    with_server(Vec::new(), |container| {
        inside(container, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for seed in 0_u32..2000 {
                let length = seed % 97;
                let noise: Vec<u8> =
                    (0..length).map(|n| (seed.wrapping_mul(2_654_435_761) >> (n % 25)).to_le_bytes()[0]).collect();
                let _ = socket.send_to(&noise, RESOLVER);
            }
            let mut half = TcpStream::connect(RESOLVER).unwrap();
            half.write_all(&[0xff, 0xff, 1, 2, 3]).unwrap();
            assert_eq!(by_datagram(&question("web.")).1, ["10.1.0.2"]);
        });
    });
}
