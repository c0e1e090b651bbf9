//! Ports that take more than one protocol, or less than both of gRPC and HTTP.

use rusd::tls::Connector;
use tokio::time::timeout;

use super::commands::{called, good, rusd};
use super::ports;
use super::server::{PATIENCE, Server, client, dial, mutual, one_sided, request};
use super::shop::Shop;

fn url(scheme: &str, port: u16) -> String {
    format!("{scheme}://127.0.0.1:{port}")
}

/// What a port says in clear to who asks for the version; empty if it ends the connection.
async fn in_clear(port: u16) -> String {
    let answer = timeout(PATIENCE, request(dial(port).await)).await.expect("it hangs");
    answer.unwrap_or_default()
}

async fn by_tls(port: u16, shop: &Shop, name: &str) -> Result<(), String> {
    let connector = Connector::new(client(shop, name)).unwrap();
    Server::ask_by(dial(port).await, &connector, "localhost").await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_takes_text_and_tls() {
    let shop = Shop::new();
    shop.sell("client", |_| {});
    let port = ports::free();
    let mut flags = mutual(&shop);
    let (plain, secured) = (url("http", port), url("https", port));
    flags.push(format!("--listen-client-urls={plain},{secured}"));
    let server = Server::start("https", &flags).await;
    let file = |end: &str| shop.path(&format!("client.{end}"));
    let (ca, cert, key) = (shop.path("ca.crt"), file("crt"), file("key"));
    good(&["--endpoints", &plain, "put", "a", "b"]).await;
    let own = ["--cacert", &ca, "--cert", &cert, "--key", &key];
    let told = good(&[&["--endpoints", &secured, "get", "a"], &own[..]].concat()).await;
    assert_eq!(told, "a\nb\n");
    assert!(in_clear(port).await.contains("etcdserver"));
    assert_eq!(by_tls(port, &shop, "client").await, Ok(()));
    assert!(by_tls(port, &shop, "").await.is_err());
    for text in [
        "serving client traffic securely",
        "serving client traffic insecurely",
        "scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth",
        "\"server-name\":\"localhost\",\"error\":\"tls: client didn't provide a certificate\"",
    ] {
        server.says(text).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_may_have_ports_of_its_own() {
    let shop = Shop::new();
    shop.sell("client", |_| {});
    let [grpc, grpc_tls, http, http_tls] = [(); 4].map(|()| ports::free());
    let mut flags = one_sided(&shop, "server");
    let for_grpc = format!("--listen-client-urls={},{}", url("http", grpc), url("https", grpc_tls));
    flags.push(for_grpc.clone());
    let both = [flags.clone(), vec![format!("--listen-client-http-urls={}", url("https", grpc))]];
    let refused = Server::refused("https", &both.concat()).await;
    let expected = format!(
        "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {}",
        url("https", grpc)
    );
    assert!(refused.contains(&expected), "{refused}");
    let for_http = (url("http", http), url("https", http_tls));
    flags.push(format!("--listen-client-http-urls={},{}", for_http.0, for_http.1));
    let _server = Server::start("https", &flags).await;
    let ca = shop.path("ca.crt");
    let at = |endpoint| vec!["--endpoints", endpoint, "--cacert", &ca, "--command-timeout", "1s"];
    let (plain, secured) = (url("http", grpc), url("https", grpc_tls));
    good(&[at(&plain), vec!["put", "a", "b"]].concat()).await;
    assert_eq!(good(&[at(&secured), vec!["get", "a"]].concat()).await, "a\nb\n");
    assert_eq!(in_clear(grpc).await, "");
    assert!(by_tls(grpc_tls, &shop, "").await.is_err());
    assert!(in_clear(http).await.contains("etcdserver"));
    assert_eq!(by_tls(http_tls, &shop, "").await, Ok(()));
    for endpoint in [&for_http.0, &for_http.1] {
        let refused = rusd(&[at(endpoint), vec!["put", "a", "c"]].concat()).await;
        assert_eq!(refused.status.code(), Some(2), "{endpoint}: {refused:?}");
    }
    assert_eq!(good(&[at(&plain), vec!["get", "a"]].concat()).await, "a\nb\n");
}

/// With TLS 1.3 a client is refused after its handshake: no write may be thought lost on the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_client_tries_until_its_time_is_up() {
    let shop = Shop::new();
    shop.sell("client", |_| {});
    let stranger = Shop::new();
    stranger.sell("client", |_| {});
    let server = Server::start("https", &mutual(&shop)).await;
    let file = |end: &str| stranger.path(&format!("client.{end}"));
    let (ca, cert, key, url) = (shop.path("ca.crt"), file("crt"), file("key"), server.client_url());
    let own = ["--endpoints", &url, "--cacert", &ca, "--cert", &cert, "--key", &key];
    let words = [&["put", "a", "b", "--command-timeout", "1s"], &own[..]].concat();
    let refused = called("etcdctl", &words).await;
    assert_eq!(refused.status.code(), Some(1));
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(errors.ends_with("Error: context deadline exceeded\n"), "{errors}");
    assert!(errors.contains("remote error: tls: unknown certificate authority"), "{errors}");
    let reason = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    server.says(reason).await;
}

/// As etcd does on this port, and not on that for clients.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_metrics_comes_from_where_its_certificate_says() {
    use rcgen::SanType;
    let shop = Shop::new();
    for (name, address) in [("here", [127, 0, 0, 1]), ("elsewhere", [10, 9, 9, 9])] {
        shop.sell(name, |it| it.subject_alt_names = vec![SanType::IpAddress(address.into())]);
    }
    let (port, clients) = (ports::free(), ports::free());
    let mut flags = mutual(&shop);
    flags.push(format!("--listen-metrics-urls={}", url("https", port)));
    flags.push(format!("--listen-client-urls={}", url("https", clients)));
    let server = Server::start("https", &flags).await;
    let probe = async |name: &str| {
        let connector = Connector::new(client(&shop, name)).unwrap();
        let stream = connector.connect(dial(port).await, "localhost").await;
        let answer = match stream {
            Ok(stream) => timeout(PATIENCE, request(stream)).await.expect("it hangs"),
            Err(error) => Err(error),
        };
        answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 "))
    };
    assert!(probe("here").await);
    assert!(!probe("elsewhere").await);
    assert_eq!(by_tls(clients, &shop, "elsewhere").await, Ok(()));
    server.says("x509: certificate is valid for 10.9.9.9, not 127.0.0.1").await;
}
