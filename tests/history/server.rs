//! The shipped binary as a server that lives as long as the value.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rusd::pb::RangeRequest;
use rusd::pb::kv_client::KvClient;
use tonic::transport::Channel;

use super::ports;

pub(crate) struct Server {
    child: Child,
    pub(crate) endpoint: String,
    _dir: tempfile::TempDir,
}

fn free_address() -> String {
    format!("127.0.0.1:{}", ports::free())
}

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (client, peer) = (free_address(), free_address());
        let url = |address: &str| format!("http://{address}");
        let child = Command::new(env!("CARGO_BIN_EXE_rusd"))
            .arg("serve")
            .args(["--data-dir", dir.path().join("data").to_str().unwrap()])
            .args(["--listen-client-urls", &url(&client)])
            .args(["--advertise-client-urls", &url(&client)])
            .args(["--listen-peer-urls", &url(&peer)])
            .args(["--initial-advertise-peer-urls", &url(&peer)])
            .args(["--initial-cluster", &format!("default={}", url(&peer))])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, endpoint: client, _dir: dir };
        server.wait_until_ready().await;
        server
    }

    async fn wait_until_ready(&self) {
        for _ in 0..600 {
            let endpoint = Channel::from_shared(format!("http://{}", self.endpoint)).unwrap();
            if let Ok(channel) = endpoint.connect().await {
                let mut kv = KvClient::new(channel);
                let request = RangeRequest { key: "x".into(), ..Default::default() };
                if kv.range(request).await.is_ok() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server at {} does not answer", self.endpoint);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
