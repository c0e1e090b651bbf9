//! The shipped binary as a server that lives as long as the value.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rusd::pb::RangeRequest;
use rusd::pb::kv_client::KvClient;
use tonic::Code;
use tonic::transport::Channel;

use super::member::{Process, alone, flags, free_address, serve};

pub(crate) struct Server {
    child: Process,
    pub(crate) endpoint: String,
    /// Removed with the server, if it is the server's own.
    _dir: Option<tempfile::TempDir>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Self::run(serve(), &dir.path().join("data"), &free_address()).await;
        server._dir = Some(dir);
        server
    }

    /// Starts a server of one member on a data directory that may hold something.
    pub(crate) async fn run(mut command: Command, data_dir: &Path, peer: &str) -> Self {
        let client = free_address();
        let urls = [client.as_str(), peer].map(|address| format!("http://{address}"));
        command.args(flags("default", data_dir, &urls[0], &urls[1]));
        command.args(alone("default", &urls[1]));
        let child = Process::start(&mut command, File::create("/dev/null").unwrap());
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
