//! What listens: members of several kinds, and ports at which no etcd is.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, SanType, date_time_ymd};

use super::member::{self, Process, alone, flags, free_address};
use super::shop::Shop;
use super::table::PATIENCE;

/// A member with certificates of a shop; dropped, it is killed.
pub struct Secured {
    _process: Process,
    _dir: tempfile::TempDir,
    pub address: String,
}

/// A member that shows the certificate `name`, with these flags more.
pub fn secured(shop: &Shop, name: &str, more: &[String]) -> Secured {
    let dir = tempfile::tempdir().unwrap();
    let [address, peer] = [free_address(), free_address()];
    let (client_url, peer_url) = (format!("https://{address}"), format!("http://{peer}"));
    let mut command = member::serve();
    command.args(flags("one", &dir.path().join("data"), &client_url, &peer_url));
    command.args(alone("one", &peer_url)).args(more);
    command.arg(format!("--cert-file={}", shop.path(&format!("{name}.crt"))));
    command.arg(format!("--key-file={}", shop.path(&format!("{name}.key"))));
    let log = dir.path().join("log");
    let mut process = Process::start(&mut command, File::create(&log).unwrap());
    let patience = Instant::now() + PATIENCE;
    let said = || std::fs::read_to_string(&log).unwrap();
    while !said().contains("ready to serve client requests") {
        assert!(process.try_wait().unwrap().is_none(), "no start: {}", said());
        assert!(Instant::now() < patience, "no start: {}", said());
        sleep(Duration::from_millis(20));
    }
    Secured { _process: process, _dir: dir, address }
}

/// A shop that also has expired certificates, and one for another host.
pub fn shop() -> Shop {
    let shop = Shop::new();
    let expired = |it: &mut CertificateParams| {
        it.not_before = date_time_ymd(2020, 1, 1);
        it.not_after = date_time_ymd(2021, 2, 3);
    };
    shop.sell("expired", expired);
    shop.sell("early", |it| it.not_before = date_time_ymd(2090, 1, 1));
    shop.sell("elsewhere", |it| {
        it.subject_alt_names = vec![SanType::DnsName("elsewhere.example".try_into().unwrap())];
    });
    let pair = rcgen::KeyPair::generate().unwrap();
    shop.sell_by("stranger", &shop.foreign, &pair, super::shop::Form::Pkcs8, |_| {});
    shop
}

/// A port whose connections the kernel takes, and where nothing is ever said.
pub fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// A port where each connection gets this answer and ends.
pub fn answering(answer: &'static [u8]) -> String {
    let (listener, address) = silent();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer);
        }
    });
    address
}
