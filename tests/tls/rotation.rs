//! Files that change while clients come, and clients that take their time.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rcgen::{KeyPair, SerialNumber};
use rusd::limits::TLS_HANDSHAKES_MAX;
use rusd::tls::{self, CertificateDer, ClientFiles, Connector};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::server::{BOTH, PATIENCE, Port, Server, client, mutual};
use super::shop::{Form, Shop};

/// The certificate that a port shows.
async fn shown(server: &Server, shop: &Shop, port: Port) -> CertificateDer<'static> {
    let stream = server.dial(port).await;
    let shown = tls::show_certificates(&client(shop, "client"), stream, "localhost").await.unwrap();
    assert_eq!(shown.refusal, None);
    shown.chain[0].clone()
}

/// Clients that come all the time, on both ports, each time with a new connection.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn new(server: &Arc<Server>, files: &ClientFiles) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let worker = |port: Port| {
            let (server, stop, served) =
                (Arc::clone(server), Arc::clone(&stop), Arc::clone(&served));
            let connector = Connector::new(files.clone()).unwrap();
            tokio::spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match server.ask(port, &connector, "localhost").await {
                        Ok(()) => drop(served.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.push(format!("{port:?}: {error}")),
                    }
                }
                failures
            })
        };
        let tasks = [BOTH, BOTH].concat().into_iter().map(worker).collect();
        Self { stop, served, tasks }
    }

    /// Waits until some more requests of the load were served.
    async fn goes_on(&self) {
        let goal = self.served.load(Ordering::Relaxed) + 20;
        let more = async {
            while self.served.load(Ordering::Relaxed) < goal {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, more).await.expect("the load stands still");
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            assert_eq!(task.await.unwrap(), [""; 0]);
        }
        self.served.load(Ordering::Relaxed)
    }
}

/// A file as those who rotate write one: beside it, then in its place.
fn replace(shop: &Shop, name: &str, bytes: impl AsRef<[u8]>) {
    let new = shop.write(&format!("{name}.new"), bytes);
    fs::rename(new, shop.path(name)).unwrap();
}

/// Ports get another certificate, then its key: in between they do not fit.
async fn change_the_pair(server: &Server, shop: &Shop, load: &Load) {
    let first = shown(server, shop, Port::Client).await;
    shop.sell("next", |_| {});
    replace(shop, "server.crt", fs::read(shop.path("next.crt")).unwrap());
    load.goes_on().await;
    assert_eq!(shown(server, shop, Port::Client).await, first, "the pair before stays");
    replace(shop, "server.key", "-----BEGIN PRIVATE KEY-----\ncut");
    load.goes_on().await;
    assert_eq!(shown(server, shop, Port::Peer).await, first);
    server.says("the ones before stay in use").await;
    replace(shop, "server.key", fs::read(shop.path("next.key")).unwrap());
    load.goes_on().await;
    for port in BOTH {
        assert_ne!(shown(server, shop, port).await, first, "the new pair is shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_change_and_no_request_fails() {
    let shop = Shop::new();
    shop.sell("guest", |it| it.serial_number = Some(SerialNumber::from(300)));
    let (none, _) = shop.list(&shop.authority, &[]);
    let mut flags = mutual(&shop);
    let crl = shop.write("crl", none);
    flags.extend([format!("--client-crl-file={crl}"), format!("--peer-crl-file={crl}")]);
    let server = Arc::new(Server::start("https", &flags).await);
    // Clients keep their authorities in a file of their own.
    fs::copy(shop.path("ca.crt"), shop.path("believed.crt")).unwrap();
    let files = ClientFiles { ca: shop.path("believed.crt").into(), ..client(&shop, "client") };
    let load = Load::new(&server, &files);
    load.goes_on().await;

    change_the_pair(&server, &shop, &load).await;

    // A list, then a broken one, which takes nobody off the one before.
    let guest = client(&shop, "guest");
    assert_eq!(server.meet(Port::Client, &guest, "localhost").await, Ok(()));
    let (_, list) = shop.list(&shop.authority, &[300]);
    for bytes in [list.as_str(), "garbage"] {
        replace(&shop, "crl", bytes);
        load.goes_on().await;
        for port in BOTH {
            assert!(server.meet(port, &guest, "localhost").await.is_err(), "{bytes}");
        }
    }

    // Another authority: first believed on both sides, then the only one.
    let both = fs::read_to_string(shop.path("ca.crt")).unwrap()
        + &fs::read_to_string(shop.path("other.crt")).unwrap();
    replace(&shop, "believed.crt", &both);
    replace(&shop, "ca.crt", &both);
    replace(&shop, "crl", shop.list(&shop.authority, &[300]).0);
    load.goes_on().await;
    let pair = KeyPair::generate().unwrap();
    shop.sell_by("next", &shop.foreign, &pair, Form::Pkcs8, |_| {});
    for end in ["crt", "key"] {
        replace(
            &shop,
            &format!("server.{end}"),
            fs::read(shop.path(&format!("next.{end}"))).unwrap(),
        );
        load.goes_on().await;
    }
    let stranger = KeyPair::generate().unwrap();
    shop.sell_by("stranger", &shop.foreign, &stranger, Form::Pkcs8, |_| {});
    for port in BOTH {
        assert_eq!(server.meet(port, &client(&shop, "stranger"), "localhost").await, Ok(()));
    }
    let served = load.end().await;
    assert!(served > 100, "{served}");
    replace(&shop, "ca.crt", fs::read(shop.path("other.crt")).unwrap());
    for port in BOTH {
        assert_eq!(server.meet(port, &client(&shop, "stranger"), "localhost").await, Ok(()));
        assert!(server.meet(port, &files, "localhost").await.is_err(), "the old authority");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_finish_a_handshake_holds_nobody_up() {
    const SLOW: usize = 60;
    let shop = Shop::new();
    let server = Server::start("https", &mutual(&shop)).await;
    let mut slow = Vec::new();
    for at in 0..SLOW {
        let mut stream = server.dial(BOTH[at % 2]).await;
        // Nothing, or how a handshake of 512 bytes begins.
        if at % 3 > 0 {
            stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await.unwrap();
        }
        slow.push(stream);
    }
    for port in BOTH {
        for _ in 0..5 {
            assert_eq!(server.meet(port, &client(&shop, "client"), "localhost").await, Ok(()));
        }
    }
    // The server ends them, and not because they said anything.
    for mut stream in slow {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it is still open");
    }
    assert_eq!(server.meet(Port::Client, &client(&shop, "client"), "localhost").await, Ok(()));
}

/// More handshakes than there are places, which all begin and never end: others still get in.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_stop_halfway_make_room() {
    // Each is an open file of this process.
    super::files::spare();
    let shop = Shop::new();
    let server = Server::start("https", &mutual(&shop)).await;
    let mut slow = Vec::new();
    for _ in 0..TLS_HANDSHAKES_MAX + 100 {
        let mut stream = server.dial(Port::Client).await;
        stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await.unwrap();
        slow.push(stream);
    }
    for _ in 0..3 {
        let met = server.meet(Port::Client, &client(&shop, "client"), "localhost").await;
        assert_eq!(met, Ok(()));
    }
    let log = server.log();
    assert!(log.contains("others wait for the place of this slow handshake"), "{log}");
}
