//! One member for clients to talk to.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{child, ports};

/// `rusd serve` on free ports, killed when dropped.
pub struct Member {
    child: Child,
    pub endpoint: String,
    peer: String,
    pub dir: tempfile::TempDir,
}

impl Member {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [endpoint, peer] =
            [ports::free(), ports::free()].map(|port| format!("127.0.0.1:{port}"));
        let child = spawn(&dir, &endpoint, &peer);
        let member = Self { child, endpoint, peer, dir };
        member.wait_until_healthy();
        member
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, at the same place.
    pub fn restart(&mut self) {
        self.child = spawn(&self.dir, &self.endpoint, &self.peer);
        self.wait_until_healthy();
    }

    fn wait_until_healthy(&self) {
        let patience = Instant::now() + Duration::from_secs(60);
        while Instant::now() < patience {
            if let Ok(mut stream) = TcpStream::connect(&self.endpoint) {
                let mut answer = String::new();
                let request = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(request.as_bytes());
                let _ = stream.read_to_string(&mut answer);
                if answer.contains("\"health\":\"true\"") {
                    return;
                }
            }
            sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        panic!("the member does not become healthy:\n{log}");
    }
}

fn spawn(dir: &tempfile::TempDir, client: &str, peer: &str) -> Child {
    let url = |address: &str| format!("http://{address}");
    let log = File::options().create(true).append(true).open(dir.path().join("log")).unwrap();
    child::command(child::RUSD)
        .arg("serve")
        .args(["--data-dir", dir.path().join("data").to_str().unwrap()])
        .args(["--listen-client-urls", &url(client)])
        .args(["--advertise-client-urls", &url(client)])
        .args(["--listen-peer-urls", &url(peer)])
        .args(["--initial-advertise-peer-urls", &url(peer)])
        .args(["--initial-cluster", &format!("default={}", url(peer))])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
