//! TLS: certificates that end soon, and the ways in which a handshake fails.

use super::fixture::{Found, Server, good, rusd};
use super::shop::Shop;

/// Seconds until the certificate of the server ends.
const TEN_DAYS: i64 = 10 * 86_400 + 3600;

#[test]
fn certificates_that_end_soon_are_named_by_all_who_should() {
    let shop = Shop::new();
    let now = time::OffsetDateTime::now_utc();
    shop.sell("short", |params| params.not_after = now + time::Duration::seconds(TEN_DAYS));
    let root = tempfile::tempdir().unwrap();
    let mut server = Server::new(&root, "one");
    let plain = Server::new(&root, "metrics").client;
    server.client = server.client.replace("http:", "https:");
    let initial = format!("one={}", server.peer);
    let [cert, key, ca] = ["short.crt", "short.key", "ca.crt"].map(|file| shop.path(file));
    server.start(&[
        "--initial-cluster",
        &initial,
        "--cert-file",
        &cert,
        "--key-file",
        &key,
        "--trusted-ca-file",
        &ca,
        "--client-cert-auth",
        "--listen-metrics-urls",
        &plain,
    ]);
    let mut probe = Server::new(&root, "probe");
    probe.client = plain.clone();
    probe.data = server.data.clone();
    probe.wait_for("/health", "\"health\":\"true\"");
    // The files are read beside the start.
    probe.wait_for("/metrics", "{certificate=\"server-ca\"}");

    // The member itself: its metric and its log.
    let metrics = super::member::get(probe.address(), "/metrics");
    let left = |name: &str| -> i64 {
        let series = format!("rusd_certificate_expiry_seconds{{certificate=\"{name}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
        line.unwrap_or_else(|| panic!("no {series} in {metrics}")).trim().parse().unwrap()
    };
    assert!((TEN_DAYS - 600..=TEN_DAYS).contains(&left("server")), "{}", left("server"));
    assert!(left("server-ca") > 40 * 86_400);
    let log = std::fs::read_to_string(server.data.with_extension("log")).unwrap();
    let lines: Vec<&str> =
        log.lines().filter(|it| it.contains("a certificate expires soon")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("\"flag\":\"--cert-file\""));

    let (own_cert, own_key) = (shop.path("client.crt"), shop.path("client.key"));
    let own = ["--cert", &own_cert, "--key", &own_key, "--cacert", &ca];
    let of =
        |endpoint: &str, more: &[&str]| Found::by(&[&["--endpoints", endpoint], more].concat());
    let found = of(&server.client, &own);
    found.are(&["certificates: Certificate expires"]);
    assert_eq!((found.code, found.json["findings"].as_array().unwrap().len()), (1, 1));
    assert!(found.cause("certificates", "one").contains("ends in 10 days"));

    // Those who do not get in are told why, and of the certificate that the server shows.
    let soon = "certificates: Certificate expires";
    of(&server.client, &["--cacert", &ca]).are(&["unreachable: Certificate required", soon]);
    let other = shop.path("other.crt");
    let strange = ["--cert", &own_cert, "--key", &own_key, "--cacert", &other];
    of(&server.client, &strange).are(&["unreachable: Unknown authority", soon]);
    let in_plain = server.client.replace("https:", "http:");
    of(&in_plain, &[]).are(&["unreachable: Plain text against TLS", soon]);
    let tls_to_plain = plain.replace("http:", "https:");
    of(&tls_to_plain, &own).are(&["unreachable: Plain text against TLS"]);

    others_warn(&server, probe.address(), &own, &[&cert, &key, &ca]);
}

/// The other commands that look at certificates.
fn others_warn(server: &Server, plain: &str, own: &[&str], [cert, key, ca]: &[&str; 3]) {
    let address = server.address().to_owned();
    let warned = good(&[&["cert", "check", &address], own].concat());
    assert!(warned.contains("warning: ends-soon: ") && warned.contains("in 10 days"), "{warned}");
    let warned = good(&["cert", "check", "--cert", cert, "--key", key, "--cacert", ca]);
    assert!(warned.contains("warning: ends-soon: "), "{warned}");
    let named = rusd(&["cert", "check", plain]);
    let said = String::from_utf8(named.stdout).unwrap();
    assert_eq!(named.status.code(), Some(1));
    assert!(said.contains("plain-text: this port speaks plain text"), "{said}");
}
