//! The matrix: each case on a port of a running server, or a start of its own.

use std::fs;
use std::io::ErrorKind;
use std::sync::Arc;

use rcgen::{
    ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P384_SHA384, SanType, SerialNumber, date_time_ymd,
};
use rusd::tls::{ClientFiles, Connector, Versions};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::server::{BOTH, PATIENCE, Port, Server, client, mutual, one_sided, request};
use super::shop::{Form, Shop};

/// Whether each case came out as it should, told all at once.
#[derive(Default)]
struct Findings {
    cases: usize,
    wrong: Vec<String>,
}

impl Findings {
    fn expect(&mut self, is_welcome: bool, case: String, met: Result<(), String>) {
        self.cases += 1;
        if met.is_ok() != is_welcome {
            self.wrong.push(format!("{case}: {met:?}"));
        }
    }

    /// Ends the matrix, which must have had so many cases at least.
    fn end(self, least: usize) {
        assert!(self.wrong.is_empty(), "\n{}", self.wrong.join("\n"));
        assert!(self.cases >= least, "{} cases", self.cases);
    }
}

fn versions(min: &str, max: &str, suites: &[&str]) -> Versions {
    let suites = suites.iter().map(|name| (*name).to_owned()).collect();
    Versions { min: min.into(), max: max.into(), suites }
}

/// Certificates good and bad, by name.
fn stock(shop: &Shop) {
    shop.sell("expired", |it| it.not_after = date_time_ymd(2020, 1, 1));
    shop.sell("future", |it| it.not_before = date_time_ymd(2099, 1, 1));
    shop.sell("any-use", |it| it.extended_key_usages.clear());
    shop.sell("only-server", |it| {
        it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    shop.sell("only-client", |it| {
        it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    shop.sell("elsewhere", |it| {
        it.subject_alt_names = vec![SanType::IpAddress([10, 9, 9, 9].into())];
    });
    shop.sell("nowhere", |it| it.subject_alt_names.clear());
    shop.sell("revoked", |it| it.serial_number = Some(SerialNumber::from(200)));
    shop.sell("not-revoked", |it| it.serial_number = Some(SerialNumber::from(201)));
    let pair = || KeyPair::generate().unwrap();
    shop.sell_by("stranger", &shop.foreign, &pair(), Form::Pkcs8, |_| {});
    shop.sell_by("sec1", &shop.authority, &pair(), Form::Sec1, |_| {});
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    shop.sell_by("p384", &shop.authority, &p384, Form::Pkcs8, |_| {});
    shop.sell_rsa("rsa-pkcs1", Form::Pkcs1);
    shop.sell_rsa("rsa-pkcs8", Form::Pkcs8);
    shop.forge("forged");
    shop.list_own("own", |_| {});
    shop.list_own("own-expired", |it| it.not_after = date_time_ymd(2020, 1, 1));
    shop.list_own("own-server", |it| {
        it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    shop.list_own("own-revoked", |it| it.serial_number = Some(SerialNumber::from(200)));
    shop.sell_through("through");
}

/// Which clients a port lets in, and which servers a client believes.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_both_sides() {
    let shop = Shop::new();
    stock(&shop);
    let (der, pem) = shop.list(&shop.authority, &[7, 200]);
    let mut flags = mutual(&shop);
    flags.push(format!("--client-crl-file={}", shop.write("client.crl", der)));
    flags.push(format!("--peer-crl-file={}", shop.write("peer.crl", pem)));
    let server = Server::start("https", &flags).await;
    let mut findings = Findings::default();
    for port in BOTH {
        judge_clients(&server, &shop, port, &mut findings).await;
        for (host, is_right) in
            [("127.0.0.1", true), ("[::1]", false), ("example.org", false), ("10.0.0.1", false)]
        {
            let met = server.meet(port, &client(&shop, "client"), host).await;
            findings.expect(is_right, format!("{port:?}: dialled as {host}"), met);
            let careless = ClientFiles { skip_verify: true, ..client(&shop, "client") };
            let met = server.meet(port, &careless, host).await;
            findings.expect(true, format!("{port:?}: carelessly dialled as {host}"), met);
        }
        let strange = ClientFiles { ca: shop.path("other.crt").into(), ..client(&shop, "client") };
        let met = server.meet(port, &strange, "localhost").await;
        findings.expect(false, format!("{port:?}: a client that believes others"), met);
        for version in ["TLS1.2", "TLS1.3"] {
            let versions = versions(version, version, &[]);
            let files = ClientFiles { versions, ..client(&shop, "client") };
            let met = server.meet(port, &files, "localhost").await;
            findings.expect(true, format!("{port:?}: {version}"), met);
        }
        let plain = timeout(PATIENCE, request(server.dial(port).await)).await.unwrap();
        let met = match plain {
            // As in etcd there is no answer, not even an alert.
            Ok(answer) if answer.is_empty() => Err("the end".to_owned()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(error.to_string()),
            other => panic!("{port:?}: plain text is answered with {other:?}"),
        };
        findings.expect(false, format!("{port:?}: plain text"), met);
    }
    findings.expect(true, "HTTP/2 by ALPN".into(), speaks_http2(&server, &shop).await);
    let log = server.log();
    assert!(log.contains("rejected connection on client endpoint"), "{log}");
    assert!(log.contains("first record does not look like a TLS handshake"), "{log}");
    assert!(log.contains("rejected connection on peer endpoint"), "{log}");
    assert!(!log.contains("panic"), "{log}");
    findings.end(71);
}

/// A port lets in the clients whose certificates are good for it, and nobody else.
async fn judge_clients(server: &Server, shop: &Shop, port: Port, findings: &mut Findings) {
    for (name, is_welcome) in [
        ("client", true),
        ("any-use", true),
        ("only-client", true),
        ("not-revoked", true),
        ("nowhere", true),
        ("sec1", true),
        ("p384", true),
        ("rsa-pkcs1", true),
        ("rsa-pkcs8", true),
        ("through", true),
        ("own", true),
        // Peers have to come from where their certificates say.
        ("elsewhere", port == Port::Client),
        ("", false),
        ("expired", false),
        ("future", false),
        ("only-server", false),
        ("revoked", false),
        ("stranger", false),
        ("forged", false),
        ("own-expired", false),
        ("own-server", false),
        ("own-revoked", false),
        ("through-alone", false),
    ] {
        let met = server.meet(port, &client(shop, name), "localhost").await;
        findings.expect(is_welcome, format!("{port:?}: a client with {name:?}"), met);
    }
}

/// A certificate that expires, or is revoked, between two connections may not pass by a session of
/// before. A server that asks for none may hand out sessions.
#[tokio::test(flavor = "multi_thread")]
async fn no_session_spares_a_client_the_look_at_its_certificate() {
    let shop = Shop::new();
    let ports = |flags: Vec<String>| async move { Server::start("https", &flags).await };
    for (flags, expected) in
        [(mutual(&shop), HandshakeKind::Full), (one_sided(&shop, "server"), HandshakeKind::Resumed)]
    {
        let server = ports(flags).await;
        for version in [&TLS12, &TLS13] {
            let connector = resuming(&shop, version);
            let mut kinds = Vec::new();
            for _ in 0..2 {
                let stream = server.dial(Port::Client).await;
                let name = "localhost".try_into().unwrap();
                let mut stream = connector.connect(name, stream).await.unwrap();
                assert!(request(&mut stream).await.unwrap().contains("etcdserver"));
                kinds.push(stream.get_ref().1.handshake_kind().unwrap());
            }
            assert_eq!(kinds, [HandshakeKind::Full, expected], "{version:?}");
        }
    }
}

/// A client that shows a certificate and would go on with an earlier session.
fn resuming(shop: &Shop, version: &'static SupportedProtocolVersion) -> TlsConnector {
    let read = |name: &str| fs::read(shop.path(name)).unwrap();
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&read("ca.crt")) {
        roots.add(root.unwrap()).unwrap();
    }
    let chain = CertificateDer::pem_slice_iter(&read("client.crt")).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(&read("client.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    TlsConnector::from(Arc::new(config))
}

/// A name server that knows one address, 127.0.0.2: its port.
fn name_server() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let mut answer = buffer[..length].to_vec();
            let is_known = answer[12..].starts_with(b"\x012\x010\x010\x03127\x07in-addr\x04arpa");
            (answer[2], answer[3]) = (0x81, if is_known { 0x80 } else { 0x83 });
            if is_known {
                answer[7] = 1;
                answer.extend([192, 12, 0, 12, 0, 1, 0, 0, 0, 9, 0, 13]);
                answer.extend(b"\x02m1\x04here\x04test\0");
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
    port
}

/// A peer may come from an address that has a name of its certificate, if that name has not this
/// address or is a wildcard.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_peers_address_count() {
    let shop = Shop::new();
    let named = |name: &str| vec![SanType::DnsName(name.try_into().unwrap())];
    for (file, name) in [("own-name", "m1.here.test"), ("wildcard", "*.here.test")] {
        shop.sell(file, |it| it.subject_alt_names = named(name));
    }
    for (file, name) in [("other", "m2.here.test"), ("other-wildcard", "*.there.test")] {
        shop.sell(file, |it| it.subject_alt_names = named(name));
    }
    let conf = shop.write("resolv.conf", format!("nameserver 127.0.0.1:{}\n", name_server()));
    let server = Server::spawn_with("https", &mutual(&shop), &conf).ready().await;
    let mut findings = Findings::default();
    for (from, name, is_welcome) in [
        ([127, 0, 0, 2], "own-name", true),
        ([127, 0, 0, 2], "wildcard", true),
        ([127, 0, 0, 2], "other", false),
        ([127, 0, 0, 2], "other-wildcard", false),
        ([127, 0, 0, 3], "own-name", false),
        ([127, 0, 0, 3], "wildcard", false),
    ] {
        let met = server.meet_from(from, &client(&shop, name)).await;
        findings.expect(is_welcome, format!("{name} from {from:?}"), met);
    }
    let expected =
        "does not match any of DNSNames [\\\"*.here.test\\\"] (lookup 127.0.0.3: no such host)";
    server.says(expected).await;
    findings.end(6);
}

/// A client of `h2` gets the settings of HTTP/2.
async fn speaks_http2(server: &Server, shop: &Shop) -> Result<(), String> {
    let files = ClientFiles { protocol: "h2", ..client(shop, "client") };
    let connector = Connector::new(files).map_err(|error| error.to_string())?;
    let talk = async {
        let mut stream = connector.connect(server.dial(Port::Client).await, "localhost").await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        stream.flush().await?;
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head[3])
    };
    match timeout(PATIENCE, talk).await.map_err(|_| "it hangs".to_owned())? {
        Ok(4) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Versions, and hosts that a client's certificate must be for.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_version_only_and_allowed_hosts() {
    let shop = Shop::new();
    stock(&shop);
    shop.sell("guest", |it| {
        it.subject_alt_names = vec![
            SanType::DnsName("guest.example".try_into().unwrap()),
            SanType::IpAddress([127, 0, 0, 1].into()),
        ];
    });
    let mut flags = mutual(&shop);
    // As tools of old write a key.
    flags.extend(one_sided(&shop, "sec1"));
    flags.push("--tls-min-version=TLS1.3".into());
    flags.push("--client-cert-allowed-hostname=guest.example,other.example".into());
    flags.push("--peer-cert-allowed-hostname=guest.example".into());
    let server = Server::start("https", &flags).await;
    let mut findings = Findings::default();
    for port in BOTH {
        for (name, version, is_welcome) in [
            ("guest", "TLS1.3", true),
            ("guest", "TLS1.2", false),
            ("client", "TLS1.3", false),
            ("elsewhere", "TLS1.3", false),
        ] {
            let versions = versions(version, version, &[]);
            let files = ClientFiles { versions, ..client(&shop, name) };
            let met = server.meet(port, &files, "localhost").await;
            findings.expect(is_welcome, format!("{port:?}: {name} by {version}"), met);
        }
    }
    findings.end(8);
}

/// Suites, common names, and a client port that asks for no certificate.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_with_chosen_suites_and_allowed_names() {
    const SMALL: &str = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
    let shop = Shop::new();
    stock(&shop);
    let mut flags = one_sided(&shop, "rsa-pkcs1");
    flags.push(format!("--peer-trusted-ca-file={}", shop.path("ca.crt")));
    flags.push("--peer-cert-allowed-cn=client,only-client".into());
    flags.push(format!("--cipher-suites={SMALL}"));
    flags.push("--tls-max-version=TLS1.2".into());
    let server = Server::start("https", &flags).await;
    let mut findings = Findings::default();
    for port in BOTH {
        for (what, versions, is_welcome) in [
            ("the suite", versions("TLS1.2", "TLS1.2", &[SMALL]), true),
            ("all suites", versions("", "", &[]), true),
            ("TLS 1.3 only", versions("TLS1.3", "", &[]), false),
            (
                "suites of another kind of key",
                versions("TLS1.2", "TLS1.2", &["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]),
                false,
            ),
        ] {
            let files = ClientFiles { versions, ..client(&shop, "client") };
            let met = server.meet(port, &files, "localhost").await;
            findings.expect(is_welcome, format!("{port:?}: {what}"), met);
        }
        for (name, is_welcome) in
            [("only-client", true), ("p384", port == Port::Client), ("", port == Port::Client)]
        {
            let met = server.meet(port, &client(&shop, name), "localhost").await;
            findings.expect(is_welcome, format!("{port:?}: the name {name:?}"), met);
        }
    }
    findings.end(14);
}

/// TLS where nobody expects it, and certificates that the server makes for itself.
#[tokio::test(flavor = "multi_thread")]
async fn plain_ports_and_made_certificates() {
    let shop = Shop::new();
    let mut findings = Findings::default();
    let server = Server::start("http", &[]).await;
    for port in BOTH {
        let met = server.meet(port, &client(&shop, "client"), "localhost").await;
        findings.expect(false, format!("{port:?}: TLS to a plain port"), met);
        let answer = timeout(PATIENCE, request(server.dial(port).await)).await.unwrap();
        let met = answer.map(drop).map_err(|error| error.to_string());
        findings.expect(true, format!("{port:?}: plain text to a plain port"), met);
    }
    let flags = ["--auto-tls", "--peer-auto-tls", "--self-signed-cert-validity=2"];
    let server = Server::start("https", &flags.map(str::to_owned)).await;
    for (port, kind) in [(Port::Client, "client"), (Port::Peer, "peer")] {
        let key = server.data().join("fixtures").join(kind).join("key.pem");
        assert!(fs::read_to_string(key).unwrap().starts_with("-----BEGIN EC PRIVATE KEY-----"));
        let made = server.data().join("fixtures").join(kind).join("cert.pem");
        let files = ClientFiles { ca: made, ..client(&shop, "") };
        for (host, is_right) in [("127.0.0.1", true), ("localhost", false)] {
            let met = server.meet(port, &files, host).await;
            findings.expect(is_right, format!("{port:?}: made for {host}"), met);
        }
        let met = server.meet(port, &client(&shop, ""), "127.0.0.1").await;
        findings.expect(false, format!("{port:?}: made, and not believed"), met);
    }
    findings.end(10);
}

/// Starts that cannot end well.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_do_not_fit_end_the_start() {
    let shop = Shop::new();
    let pem = fs::read(shop.path("server.crt")).unwrap();
    let cut = shop.write("cut.crt", &pem[..pem.len() / 2]);
    let pem = fs::read(shop.path("server.key")).unwrap();
    let cut_key = shop.write("cut.key", &pem[..pem.len() / 2]);
    let (empty, garbage) = (shop.write("empty", ""), shop.write("garbage", "garbage"));
    let (other_key, missing) = (shop.path("client.key"), shop.path("missing"));
    let mut findings = Findings::default();
    for (flag, value, why) in [
        ("cert-file", &cut, "cut.crt"),
        ("key-file", &cut_key, "cut.key"),
        ("key-file", &other_key, "eyMismatch"),
        ("cert-file", &missing, "no such file or directory"),
        ("key-file", &empty, "empty"),
        ("trusted-ca-file", &garbage, "garbage"),
        ("trusted-ca-file", &missing, "no such file or directory"),
        ("client-crl-file", &garbage, "malformed crl"),
        ("peer-cert-file", &cut, "cut.crt"),
        ("peer-key-file", &cut_key, "cut.key"),
        ("peer-key-file", &other_key, "eyMismatch"),
        ("peer-trusted-ca-file", &empty, "empty"),
        ("peer-crl-file", &empty, "malformed crl"),
        ("tls-min-version", &"TLS1.1".to_owned(), "unexpected TLS version"),
        ("cipher-suites", &"NONE".to_owned(), "unexpected TLS cipher suite"),
    ] {
        let mut flags = mutual(&shop);
        flags.push(format!("--{flag}={value}"));
        let log = Server::refused("https", &flags).await;
        let is_named = if log.contains(why) && !log.contains("panic") { Ok(()) } else { Err(log) };
        findings.expect(true, format!("--{flag}={value}"), is_named);
    }
    let log = Server::refused("https", &["--peer-auto-tls".into()]).await;
    let is_named = if log.contains("must be provided for client url") { Ok(()) } else { Err(log) };
    findings.expect(true, "a client port without a certificate".into(), is_named);
    findings.end(16);
}
