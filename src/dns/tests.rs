use std::sync::Arc;

use tokio::net::TcpListener;

use super::*;
use crate::clock::SystemClock;

/// Makes the answer to a question; the flag says whether it came over TCP.
type Behaviour = dyn Fn(&[u8], bool) -> Vec<u8> + Send + Sync;

fn record(host: &[u8], priority: u16, port: u16) -> Vec<u8> {
    let mut bytes = vec![192, 12, 0, 33, 0, 1, 0, 0, 0, 9];
    bytes.extend(u16::try_from(6 + host.len()).unwrap().to_be_bytes());
    for number in [priority, 0, port] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(host);
    bytes
}

fn answer(question: &[u8], flags: [u8; 2], records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = question.to_vec();
    bytes[2..4].copy_from_slice(&flags);
    bytes[7] = u8::try_from(records.len()).unwrap();
    records.iter().for_each(|record| bytes.extend(record));
    bytes
}

/// A port that is free for datagrams may be somebody's for streams; then another one is tried.
async fn both_on_a_port() -> (UdpSocket, SocketAddr, TcpListener) {
    for _ in 0..100 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        if let Ok(listener) = TcpListener::bind(address).await {
            return (socket, address, listener);
        }
    }
    panic!("no port is free for both");
}

/// A name server on a free port, for datagrams and streams.
async fn serve(behaviour: Arc<Behaviour>) -> SocketAddr {
    let (socket, address, listener) = both_on_a_port().await;
    let by_stream = Arc::clone(&behaviour);
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            // A forged answer arrives first.
            socket.send_to(&[0; 20], from).await.unwrap();
            socket.send_to(&behaviour(&buffer[..length], false), from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let length = stream.read_u16().await.unwrap();
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await.unwrap();
            let answer = by_stream(&question, true);
            stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    address
}

async fn lookup(conf: &str, domain: &str) -> Result<Vec<Service>, Error> {
    let resolver = Resolver { conf: Conf::parse(conf) };
    resolver.services(&SystemClock::new(), "etcd-server", domain).await
}

#[tokio::test]
async fn records_come_by_priority_and_by_stream_if_they_were_cut() {
    let server = serve(Arc::new(|question, is_stream| {
        if !is_stream {
            return answer(question, [0x83, 0x80], &[]);
        }
        let records = [record(b"\x01b\0", 2, 2380), record(b"\x01a\0", 1, 2381)];
        answer(question, [0x81, 0x80], &records)
    }));
    let services = lookup(&format!("nameserver {}", server.await), "x.test").await.unwrap();
    let shown: Vec<_> = services.iter().map(|it| (it.host.as_str(), it.port)).collect();
    assert_eq!(shown, [("a.", 2381), ("b.", 2380)]);
}

#[tokio::test]
async fn a_suffix_is_tried_and_a_server_that_refuses_is_passed_over() {
    let refuses = serve(Arc::new(|question, _| answer(question, [0x81, 0x85], &[]))).await;
    let knows = serve(Arc::new(|question, _| {
        if question.windows(6).any(|part| part == b"suffix") {
            answer(question, [0x81, 0x80], &[record(b"\x01a\0", 1, 1)])
        } else {
            answer(question, [0x81, 0x83], &[])
        }
    }));
    let conf = format!("nameserver {refuses}\nnameserver {}\nsearch suffix", knows.await);
    assert_eq!(lookup(&conf, "x.test").await.unwrap().len(), 1);
    let shown = "lookup _etcd-server._tcp.x.test.: no such host";
    assert_eq!(lookup(&conf, "x.test.").await.unwrap_err().to_string(), shown);
    let conf = format!("nameserver {refuses}");
    let error = lookup(&conf, "x.test").await.unwrap_err().to_string();
    assert!(error.ends_with("server misbehaving (response code 5)"), "{error}");
}

#[tokio::test]
async fn names_that_nobody_owns_are_asked_for_nowhere() {
    let error = lookup("nameserver 127.0.0.1:1", "nonexistent.invalid").await.unwrap_err();
    assert_eq!(error.to_string(), "lookup _etcd-server._tcp.nonexistent.invalid: no such host");
}

#[tokio::test]
async fn an_address_has_the_names_that_its_reverse_name_points_to() {
    let server = serve(Arc::new(|question, _| {
        let known = b"\x014\x013\x012\x0210\x07in-addr\x04arpa\0\0\x0c";
        if !question.windows(known.len()).any(|part| part == known) {
            return answer(question, [0x81, 0x83], &[]);
        }
        let mut record = vec![192, 12, 0, 12, 0, 1, 0, 0, 0, 9, 0, 8];
        record.extend(b"\x01m\x04test\0");
        answer(question, [0x81, 0x80], &[record])
    }));
    let resolver = Resolver { conf: Conf::parse(&format!("nameserver {}", server.await)) };
    let clock = SystemClock::new();
    let names = resolver.names_of(&clock, [10, 2, 3, 4].into()).await;
    assert_eq!(names, Ok(vec!["m.test.".to_owned()]));
    let names = resolver.names_of(&clock, [10, 2, 3, 5].into()).await;
    assert_eq!(names, Err(Error::NotFound("10.2.3.5".into())));
    let long = reverse("2001:db8::567:89ab".parse().unwrap());
    let expected = "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.";
    assert_eq!(long, expected, "the example of RFC 3596");
}

#[test]
fn a_file_of_hosts_names_addresses() {
    let hosts = "# 10.0.0.1 no\n10.0.0.1\tone one.test # two\n::1 six\n\n10.0.0.1 three\nx y\n";
    assert_eq!(conf::names_in(hosts, [10, 0, 0, 1].into()), ["one", "one.test", "three"]);
    assert_eq!(conf::names_in(hosts, [10, 0, 0, 2].into()), [""; 0]);
}
