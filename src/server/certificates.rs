//! Watches when the certificates of this member end, for a metric that counts down. A renewed file is
//! found by itself, since all files are read every minute. The log's warnings are those of `outlook`.

use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::tls;
use crate::cert::{self, Item};
use crate::clock::{self, Clock as _, SystemClock};
use crate::limits::CERTIFICATE_READ_INTERVAL;
use crate::metrics;
use crate::node::Node;
use crate::supervise::Supervisor;

/// The files with certificates: the name of each in the metric, its flag, and its path.
pub(super) fn files(settings: &tls::Settings) -> Vec<(&'static str, &'static str, PathBuf)> {
    let tls::Settings { client, peer, dial, .. } = settings;
    let mut files = vec![
        ("server", "--cert-file", PathBuf::from(&client.cert)),
        ("server-ca", "--trusted-ca-file", PathBuf::from(&client.ca)),
        ("peer", "--peer-cert-file", PathBuf::from(&peer.cert)),
        ("peer-ca", "--peer-trusted-ca-file", PathBuf::from(&peer.ca)),
    ];
    if dial.cert != Path::new(&peer.cert) {
        files.push(("peer-client", "--peer-client-cert-file", dial.cert.clone()));
    }
    files.retain(|(.., path)| !path.as_os_str().is_empty());
    files
}

/// Reads the files now and every minute, until `stopped`.
pub(super) fn watch(
    settings: &tls::Settings,
    node: &Node,
    stopped: watch::Receiver<bool>,
) -> impl Future<Output = ()> + use<> {
    watch_files(files(settings), node.supervisor().clone(), stopped)
}

async fn watch_files(
    files: Vec<(&'static str, &'static str, PathBuf)>,
    supervisor: Supervisor,
    mut stopped: watch::Receiver<bool>,
) {
    let clock = SystemClock::new();
    while !files.is_empty() {
        let wanted = files.clone();
        let read = move || {
            wanted.into_iter().filter_map(|(name, _, path)| Some((name, first_end(&path)?)))
        };
        let rest = async {
            let read = supervisor.blocking("certificates", move || read().collect::<Vec<_>>());
            for (name, ends) in read.await.unwrap_or_default() {
                metrics::set_certificate_end(name, ends);
            }
            clock.sleep(CERTIFICATE_READ_INTERVAL).await;
        };
        tokio::select! {
            // A file on a network that does not answer must not hold up the stop.
            () = rest => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

/// When the first certificate of a file ends, in seconds since 1970. None if the file holds none or
/// cannot be read: TLS itself reports that.
fn first_end(path: &Path) -> Option<i64> {
    let items = cert::read(path, clock::wall_nanos() / 1_000_000_000).ok()?;
    let ends = items.into_iter().filter_map(|item| match item {
        Item::Certificate(certificate) => Some(certificate.ends),
        _ => None,
    });
    ends.min()
}
