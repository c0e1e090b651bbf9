//! Watches when the certificates of this member end: a metric counts down, and under the name rusd
//! the log warns once a day in the last month. A renewed file is found by itself, since all files are
//! read every minute.
//!
//! Files are read on blocking threads, and nothing waits for them: one on a network may never answer.

use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::config::{Config, StartedAs};
use super::tls;
use crate::cert::{self, Item};
use crate::clock::{self, Clock as _, SystemClock};
use crate::limits::{
    CERTIFICATE_DAYS_LEFT_MIN, CERTIFICATE_LOOK_INTERVAL, CERTIFICATE_READ_INTERVAL,
};
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

/// Warns of certificates now and once a day until `stop`.
pub(super) async fn warn(node: Node, config: Config, mut stop: watch::Receiver<bool>) {
    let files = files(&config.tls);
    if config.started_as == StartedAs::Etcd || files.is_empty() {
        return;
    }
    let clock = SystemClock::new();
    loop {
        let (files, seconds) = (files.clone(), clock.unix_nanos() / 1_000_000_000);
        let look = move || warn_of(&files, seconds);
        let rest = async {
            // A panic within it is the supervisor's to tell.
            let _ = node.supervisor().blocking("certificates", look).await;
            clock.sleep(CERTIFICATE_LOOK_INTERVAL).await;
        };
        tokio::select! {
            () = rest => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Warns of certificates that end soon, and of those that have ended.
fn warn_of(files: &[(&'static str, &'static str, PathBuf)], seconds: u64) {
    for (_, flag, path) in files {
        // A file that cannot be read is told of where it is used.
        for item in cert::read(path, seconds).unwrap_or_default() {
            let Item::Certificate(certificate) = item else { continue };
            let days = certificate.days_left;
            if days >= CERTIFICATE_DAYS_LEFT_MIN {
                continue;
            }
            let (path, subject, ends) =
                (path.display().to_string(), &certificate.subject, &certificate.not_after);
            let hint = "replace the files, which are read again by themselves; see the handbook, \
                        \"Certificate expires\"";
            if days < 0 {
                tracing::error!(path, flag, subject, ends, hint, "a certificate has expired");
            } else {
                tracing::warn!(
                    path,
                    flag,
                    subject,
                    ends,
                    "days-left" = days,
                    hint,
                    "a certificate expires soon"
                );
            }
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
