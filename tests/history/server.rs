//! The shipped binary as a server that lives as long as the value.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rusd::pb::RangeRequest;
use rusd::pb::kv_client::KvClient;
use tonic::Code;
use tonic::transport::Channel;

use super::ports;

pub(crate) struct Server {
    child: Child,
    pub(crate) endpoint: String,
    /// Removed with the server, if it is the server's own.
    _dir: Option<tempfile::TempDir>,
}

pub(crate) fn free_address() -> String {
    format!("127.0.0.1:{}", ports::free())
}

/// The binary under test as a server.
pub(crate) fn rusd() -> Command {
    let mut command = crate::child::command(crate::child::RUSD);
    command.arg("serve");
    command
}

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Self::run(rusd(), &dir.path().join("data"), &free_address()).await;
        server._dir = Some(dir);
        server
    }

    /// Starts a server of one member on a data directory that may hold something.
    pub(crate) async fn run(mut command: Command, data_dir: &Path, peer: &str) -> Self {
        let client = free_address();
        let url = |address: &str| format!("http://{address}");
        let child = command
            .args(["--data-dir", data_dir.to_str().unwrap()])
            .args(["--listen-client-urls", &url(&client)])
            .args(["--advertise-client-urls", &url(&client)])
            .args(["--listen-peer-urls", &url(peer)])
            .args(["--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &format!("default={}", url(peer))])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, endpoint: client, _dir: None };
        server.wait_until_ready().await;
        server
    }

    /// Ends it as an operator does.
    pub(crate) fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap();
    }

    async fn wait_until_ready(&self) {
        for _ in 0..600 {
            let endpoint = Channel::from_shared(format!("http://{}", self.endpoint)).unwrap();
            if let Ok(channel) = endpoint.connect().await {
                let mut kv = KvClient::new(channel);
                let request = RangeRequest { key: "x".into(), ..Default::default() };
                match kv.range(request).await {
                    Ok(_) => return,
                    // It wants to know who asks.
                    Err(status) if status.code() == Code::InvalidArgument => return,
                    Err(_) => {}
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
