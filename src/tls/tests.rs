use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

type Authority = Issuer<'static, KeyPair>;

/// A directory of certificates of two authorities, of which the second is not trusted.
struct Shop {
    dir: TempDir,
    authority: Authority,
    foreign: Authority,
}

fn authority(dir: &Path, name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    fs::write(dir.join(name), params.self_signed(&key).unwrap().pem()).unwrap();
    Issuer::new(params, key)
}

impl Shop {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (authority, foreign) = (authority(dir.path(), "ca"), authority(dir.path(), "other-ca"));
        let shop = Self { dir, authority, foreign };
        shop.sell("server", |_| {});
        shop.sell("client", |_| {});
        shop
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Makes a certificate and its key, with a change before it is signed.
    fn sell(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        self.sell_by(name, &self.authority, &KeyPair::generate().unwrap(), change);
    }

    fn sell_by(
        &self,
        name: &str,
        issuer: &Authority,
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(key, issuer).unwrap();
        fs::write(self.path(&format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// A list that revokes these serial numbers.
    fn list(&self, issuer: &Authority, serials: &[u64]) -> rcgen::CertificateRevocationList {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(issuer).unwrap()
    }

    fn server(&self) -> ServerFiles {
        ServerFiles {
            cert: self.path("server.crt"),
            key: self.path("server.key"),
            ca: self.path("ca"),
            ..ServerFiles::default()
        }
    }

    fn client(&self, name: &str) -> ClientFiles {
        ClientFiles {
            cert: self.path(&format!("{name}.crt")).into(),
            key: self.path(&format!("{name}.key")).into(),
            ca: self.path("ca").into(),
            protocol: "h2",
            ..ClientFiles::default()
        }
    }
}

/// Connects both sides and sends a text. Returns the common name that the server saw.
async fn talk(acceptor: &Acceptor, connector: &Connector, host: &str) -> Result<String, String> {
    let (near, far) = duplex(64 << 10);
    let server = async {
        let mut accepted =
            acceptor.accept(far, &mut String::new()).await.map_err(|error| error.to_string())?;
        accepted.stream.write_all(b"hello").await.map_err(|error| error.to_string())?;
        accepted.stream.flush().await.map_err(|error| error.to_string())?;
        Ok::<_, String>(accepted.common_name.unwrap_or_default())
    };
    let client = async {
        let mut stream = connector.connect(near, host).await.map_err(|error| error.to_string())?;
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(())
    };
    let (name, heard) = tokio::join!(server, client);
    heard.and(name)
}

async fn meet(server: ServerFiles, client: ClientFiles, host: &str) -> Result<String, String> {
    let acceptor = Acceptor::new(server).map_err(|error| error.to_string())?;
    let connector = Connector::new(client).map_err(|error| error.to_string())?;
    talk(&acceptor, &connector, host).await
}

#[tokio::test]
async fn a_common_name_counts_in_every_encoding() {
    let shop = Shop::new();
    let ends: [(&str, DnValue, &str); 6] = [
        ("utf8", DnValue::Utf8String("häuptling".into()), "häuptling"),
        ("printable", DnValue::PrintableString("alice".try_into().unwrap()), "alice"),
        ("ia5", DnValue::Ia5String("al@ice".try_into().unwrap()), "al@ice"),
        ("teletex", DnValue::TeletexString("alice".try_into().unwrap()), "alice"),
        ("bmp", DnValue::BmpString("häuptling".try_into().unwrap()), "häuptling"),
        // Go does not read this encoding. An empty name is no user, which is safer than a wrong
        // one.
        ("universal", DnValue::UniversalString("alice".try_into().unwrap()), ""),
    ];
    for (file, name, seen) in ends {
        shop.sell(file, |params| {
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
        });
        let met = meet(shop.server(), shop.client(file), "localhost").await;
        assert_eq!(met.as_deref(), Ok(seen), "{file}");
    }
}

#[test]
fn a_pair_that_does_not_fit_is_told_in_gos_words() {
    let shop = Shop::new();
    let write = |name: &str, text: &str| fs::write(shop.path(name), text).unwrap();
    write("junk", "junk\n");
    write("bad.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    write("bad.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    write("ed.key", &other.serialize_pem());
    let switched = "tls: failed to find certificate PEM data in certificate input, but did find a \
                    private key; PEM inputs may have been switched";
    let certificate = "tls: found a certificate rather than a key in the PEM for the private key";
    for (cert, key, said) in [
        ("client.crt", "client.key", None),
        ("client.crt", "server.key", Some("tls: private key does not match public key")),
        ("client.crt", "ed.key", Some("tls: private key type does not match public key type")),
        ("junk", "client.key", Some("tls: failed to find any PEM data in certificate input")),
        ("client.crt", "junk", Some("tls: failed to find any PEM data in key input")),
        ("client.key", "client.key", Some(switched)),
        ("client.crt", "client.crt", Some(certificate)),
        ("bad.crt", "client.key", Some("x509: malformed certificate")),
        ("client.crt", "bad.key", Some("tls: failed to parse private key")),
    ] {
        let found = check_pair(shop.path(cert).as_ref(), shop.path(key).as_ref());
        assert_eq!(found.err().as_deref(), said, "{cert} and {key}");
    }
}

#[tokio::test]
async fn who_may_talk_to_whom() {
    let shop = Shop::new();
    shop.sell("expired", |params| params.not_after = date_time_ymd(2020, 1, 1));
    shop.sell("future", |params| params.not_before = date_time_ymd(2099, 1, 1));
    shop.sell("only-server", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    shop.sell("only-client", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    shop.sell("any-use", |params| params.extended_key_usages.clear());
    shop.sell_by("stranger", &shop.foreign, &KeyPair::generate().unwrap(), |_| {});
    for (name, kind) in [("p384", &PKCS_ECDSA_P384_SHA384), ("ed25519", &PKCS_ED25519)] {
        shop.sell_by(name, &shop.authority, &KeyPair::generate_for(kind).unwrap(), |_| {});
    }
    for (client, is_welcome) in [
        ("client", true),
        ("any-use", true),
        ("p384", true),
        ("ed25519", true),
        ("expired", false),
        ("future", false),
        ("only-server", false),
        ("stranger", false),
    ] {
        let met = meet(shop.server(), shop.client(client), "localhost").await;
        assert_eq!(met.is_ok(), is_welcome, "client {client}: {met:?}");
        if is_welcome {
            assert_eq!(met.unwrap(), client);
        }
    }
    for (server, is_believed) in [
        ("p384", true),
        ("any-use", true),
        ("expired", false),
        ("future", false),
        ("only-client", false),
        ("stranger", false),
    ] {
        let shown = shop.client(server);
        let [cert, key] = [shown.cert, shown.key].map(|path| path.to_str().unwrap().to_owned());
        let files = ServerFiles { cert, key, ..shop.server() };
        let met = meet(files, shop.client("client"), "localhost").await;
        assert_eq!(met.is_ok(), is_believed, "server {server}: {met:?}");
    }
    for (host, is_right) in
        [("127.0.0.1", true), ("[::1]", false), ("example.org", false), ("10.0.0.1", false)]
    {
        let met = meet(shop.server(), shop.client("client"), host).await;
        assert_eq!(met.is_ok(), is_right, "host {host}: {met:?}");
        let careless = ClientFiles { skip_verify: true, ..shop.client("client") };
        assert!(meet(shop.server(), careless, host).await.is_ok());
    }
    let none = std::path::PathBuf::new;
    let nobody = || ClientFiles { cert: none(), key: none(), ..shop.client("client") };
    assert!(meet(shop.server(), nobody(), "localhost").await.is_err());
    let open = ServerFiles { ca: String::new(), ..shop.server() };
    assert_eq!(meet(open, nobody(), "localhost").await, Ok(String::new()));
}

#[tokio::test]
async fn versions_meet_or_part() {
    let shop = Shop::new();
    let versions = |min: &str, max: &str| Versions {
        min: min.to_owned(),
        max: max.to_owned(),
        suites: Vec::new(),
    };
    for (server, client, is_met) in [
        (versions("TLS1.2", "TLS1.2"), versions("", ""), true),
        (versions("TLS1.3", ""), versions("", ""), true),
        (versions("TLS1.3", ""), versions("", "TLS1.2"), false),
        (versions("", "TLS1.2"), versions("TLS1.3", ""), false),
    ] {
        let server = ServerFiles { versions: server, ..shop.server() };
        let client = ClientFiles { versions: client, ..shop.client("client") };
        assert_eq!(meet(server, client, "localhost").await.is_ok(), is_met);
    }
    let suite = |name: &str| Versions {
        min: String::new(),
        max: "TLS1.2".to_owned(),
        suites: vec![name.to_owned()],
    };
    for (name, is_met) in [
        // The server's key is one of ECDSA.
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", true),
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", false),
    ] {
        let server = ServerFiles { versions: suite(name), ..shop.server() };
        assert_eq!(meet(server, shop.client("client"), "localhost").await.is_ok(), is_met);
    }
}

#[tokio::test]
async fn lists_of_names_and_of_the_revoked_are_kept() {
    let shop = Shop::new();
    shop.sell("revoked", |params| params.serial_number = Some(SerialNumber::from(200)));
    shop.sell("other", |params| params.serial_number = Some(SerialNumber::from(201)));
    let crl = shop.path("crl");
    for bytes in [
        shop.list(&shop.authority, &[7, 200]).der().to_vec(),
        shop.list(&shop.authority, &[200]).pem().unwrap().into_bytes(),
        // A list of another authority: only the serial number counts.
        shop.list(&shop.foreign, &[200]).der().to_vec(),
    ] {
        fs::write(&crl, bytes).unwrap();
        let server = || ServerFiles { crl: crl.clone(), ..shop.server() };
        assert!(meet(server(), shop.client("revoked"), "localhost").await.is_err());
        assert!(meet(server(), shop.client("other"), "localhost").await.is_ok());
    }
    for bytes in [&b""[..], b"garbage", b"-----BEGIN X509 CRL-----\nAA\n"] {
        fs::write(&crl, bytes).unwrap();
        assert!(Acceptor::new(ServerFiles { crl: crl.clone(), ..shop.server() }).is_err());
    }
    for (names, hosts, is_welcome) in [
        (vec!["client"], vec![], true),
        (vec!["x", "client"], vec![], true),
        (vec!["x"], vec![], false),
        (vec![], vec!["localhost"], true),
        (vec![], vec!["x", "127.0.0.1"], true),
        (vec![], vec!["example.org"], false),
    ] {
        let all = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let (allowed_names, allowed_hosts) = (all(&names), all(&hosts));
        let server = ServerFiles { allowed_names, allowed_hosts, ..shop.server() };
        let met = meet(server, shop.client("client"), "localhost").await;
        assert_eq!(met.is_ok(), is_welcome, "{names:?} {hosts:?}: {met:?}");
    }
}

#[tokio::test]
async fn files_are_read_again_when_they_change() {
    let shop = Shop::new();
    let acceptor = Acceptor::new(shop.server()).unwrap();
    let connector = Connector::new(shop.client("client")).unwrap();
    let is_met = async || talk(&acceptor, &connector, "localhost").await.is_ok();
    assert!(is_met().await);
    // In the middle of a rotation: another certificate, the old key.
    let (certificate, key) = (shop.path("server.crt"), shop.path("server.key"));
    let old = fs::read(&key).unwrap();
    shop.sell("server", |_| {});
    let new = fs::read(&key).unwrap();
    fs::write(&key, &old).unwrap();
    assert!(is_met().await, "what was read before stays in use");
    fs::write(&certificate, b"-----BEGIN CERTIFICATE-----\nAA").unwrap();
    assert!(is_met().await);
    shop.sell_by("server", &shop.foreign, &KeyPair::generate().unwrap(), |_| {});
    assert!(!is_met().await, "the new pair is shown");
    shop.sell("server", |_| {});
    assert!(is_met().await);
    assert_ne!(new, fs::read(&key).unwrap());
    // Authorities are read again as well.
    fs::copy(shop.path("other-ca"), shop.path("ca")).unwrap();
    assert!(!is_met().await);
}

#[tokio::test]
async fn plain_text_is_refused() {
    let shop = Shop::new();
    let acceptor = Acceptor::new(shop.server()).unwrap();
    let (mut plain, far) = duplex(1024);
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(acceptor.accept(far, &mut String::new()).await.is_err());
}

#[test]
fn broken_files_are_named() {
    let shop = Shop::new();
    let server = |cert: &str, key: &str| {
        let files = ServerFiles { cert: shop.path(cert), key: shop.path(key), ..shop.server() };
        Acceptor::new(files).err().map(|error| error.to_string())
    };
    fs::write(shop.path("empty"), b"").unwrap();
    assert!(server("empty", "server.key").unwrap().contains("empty"));
    assert!(server("server.crt", "empty").unwrap().contains("empty"));
    let missing = server("missing", "server.key").unwrap();
    assert!(missing.ends_with("missing: no such file or directory"), "{missing}");
    assert!(server("server.crt", "client.key").is_some(), "a key of another certificate");
    let alone = ServerFiles { key: String::new(), ..shop.server() };
    let text = Acceptor::new(alone).err().unwrap().to_string();
    assert!(text.starts_with("KeyFile and CertFile must both be present[key: , cert: "), "{text}");
}

fn suites(names: &[&str]) -> Result<usize, String> {
    let suites = names.iter().map(|name| (*name).to_owned()).collect();
    let versions = Versions { suites, ..Versions::default() };
    versions.provider().map(|it| it.cipher_suites.len()).map_err(|error| error.to_string())
}

#[test]
fn suites_are_chosen_by_their_iana_names() {
    let all = suites(&[]).unwrap();
    assert_eq!(suites(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]).unwrap(), 4);
    assert!(all > 4);
    let old = ["TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"];
    assert_eq!(suites(&old).unwrap(), 4);
    assert_eq!(suites(&["NONE"]).unwrap_err(), "unexpected TLS cipher suite \"NONE\"");
    let alone = suites(&["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]).unwrap_err();
    assert!(alone.starts_with("http2: TLSConfig.CipherSuites is missing"), "{alone}");
}

#[test]
fn versions_are_a_range() {
    let of = |min: &str, max: &str| {
        let versions = Versions { min: min.into(), max: max.into(), suites: Vec::new() };
        versions.allowed().map(|allowed| allowed.len()).map_err(|error| error.to_string())
    };
    assert_eq!(of("", ""), Ok(2));
    assert_eq!(of("TLS1.3", ""), Ok(1));
    assert_eq!(of("TLS1.2", "TLS1.2"), Ok(1));
    assert!(of("TLS1.3", "TLS1.2").is_err());
    let text = "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)";
    assert_eq!(of("TLS1.1", ""), Err(text.to_owned()));
}

/// An authority, its certificates of version 1 and version 3 for one key, and that key. No library
/// here makes certificates of version 1.
const VERSIONS: &str = include_str!("../../tests/data/version-1.pem");

#[tokio::test]
async fn a_certificate_of_version_1_is_not_taken() {
    let shop = Shop::new();
    let blocks: Vec<String> = VERSIONS
        .split_inclusive("-----\n")
        .collect::<Vec<_>>()
        .chunks(2)
        .map(|lines| lines.concat())
        .collect();
    let [authority, one, three, key] = &blocks[..] else { panic!("{blocks:?}") };
    for (name, text) in [("old-ca", authority), ("one.crt", one), ("three.crt", three)] {
        std::fs::write(shop.path(name), text).unwrap();
    }
    for name in ["one.key", "three.key"] {
        std::fs::write(shop.path(name), key).unwrap();
    }
    let server = || ServerFiles { ca: shop.path("old-ca"), ..shop.server() };
    let name = meet(server(), shop.client("three"), "localhost").await;
    assert_eq!(name.as_deref(), Ok("leaf"));
    assert!(meet(server(), shop.client("one"), "localhost").await.is_err());
}
