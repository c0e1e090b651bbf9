//! What the service manager is told, systemd's way: that a member or a gateway serves, that it stops,
//! that it is alive, and that a start takes longer.
//!
//! Messages go to the datagram socket that NOTIFY_SOCKET names. Without that variable nobody
//! listens, and nothing is sent.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::limits;
use crate::node::Node;

/// The service manager, if there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Manager {
    socket: Option<OsString>,
    /// How long it waits for a sign of life before it ends the process.
    watchdog: Option<Duration>,
}

impl Manager {
    pub(super) fn of_environment() -> Self {
        let text = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let watchdog = watchdog(
            text("WATCHDOG_USEC").as_deref(),
            text("WATCHDOG_PID").as_deref(),
            std::process::id(),
        );
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty());
        Self { socket, watchdog }
    }

    /// Says that the member serves, and from then on that it is alive, until `stop`. Any answer to a
    /// serializable read as of `/livez` shows that: a restart mends a member that hangs, and not one
    /// whose store is damaged.
    pub(super) async fn serving(self, node: Node, mut stop: watch::Receiver<bool>) {
        if self.socket.is_none() {
            return;
        }
        let telling = async {
            self.ready().await;
            self.alive(|| async { drop(node.probe(true).await) }).await
        };
        tokio::select! {
            never = telling => match never {},
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// Says that the service is ready, if anybody listens.
    pub(super) async fn ready(&self) {
        if self.socket.is_none() {
            return;
        }
        tracing::info!("notifying init daemon");
        match self.say("READY=1").await {
            Ok(()) => tracing::info!("successfully notified init daemon"),
            Err(error) => tracing::error!(%error, "failed to notify systemd for readiness"),
        }
    }

    /// Sends a sign of life twice in the time that the manager waits, if it waits for any. Each is
    /// sent once `look` has ended, which a process that hangs keeps from ending.
    pub(super) async fn alive<F: Future<Output = ()>>(&self, look: impl Fn() -> F) -> Infallible {
        let Some(patience) = self.watchdog.filter(|_| self.socket.is_some()) else {
            return std::future::pending().await;
        };
        let mut ticks = interval((patience / 2).max(limits::WATCHDOG_INTERVAL_MIN));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_heard = true;
        loop {
            ticks.tick().await;
            look().await;
            let said = self.say("WATCHDOG=1").await;
            if let (Err(error), true) = (&said, is_heard) {
                tracing::warn!(%error, "failed to tell systemd that the process is alive");
            }
            is_heard = said.is_ok();
        }
    }

    /// Says that the process stops by itself or was told to.
    pub(super) async fn stopping(&self) {
        if self.socket.is_some()
            && let Err(error) = self.say("STOPPING=1").await
        {
            tracing::warn!(%error, "failed to tell systemd that the process stops");
        }
    }

    /// Asks for more time as long as `work`, which has an end of its own, goes on.
    pub(super) async fn while_loading<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            never = self.extend(limits::START_EXTENSION_PAUSE, || true) => match never {},
            done = work => done,
        }
    }

    /// Asks for more time as long as the number of entries that the start has applied grows. A member
    /// that waits for its quorum gets no more time than its unit says.
    pub(super) async fn while_applying(&self, applied: impl Fn() -> u64) -> Infallible {
        let mut last = applied();
        let has_moved = move || {
            let now = applied();
            std::mem::replace(&mut last, now) < now
        };
        self.extend(limits::START_EXTENSION_PAUSE, has_moved).await
    }

    async fn extend(&self, pause: Duration, mut is_wanted: impl FnMut() -> bool) -> Infallible {
        if self.socket.is_none() {
            return std::future::pending().await;
        }
        let text = format!("EXTEND_TIMEOUT_USEC={}", limits::START_EXTENSION.as_micros());
        loop {
            if is_wanted() {
                // The error is ignored: READY=1 will fail as well, and its error is logged.
                let _ = self.say(&text).await;
            }
            sleep(pause).await;
        }
    }

    async fn say(&self, text: &str) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let socket = StdDatagram::unbound().and_then(|own| {
            own.connect_addr(&address(socket)?)?;
            own.set_nonblocking(true)?;
            UnixDatagram::from_std(own)
        })?;
        match timeout(limits::NOTIFY_TIMEOUT, socket.send(text.as_bytes())).await {
            Ok(sent) => sent.map(drop),
            Err(late) => Err(late.into()),
        }
    }
}

fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    }
}

/// How long the manager waits for a sign of life of this process; None if it does not wait, or waits
/// for one of another process.
fn watchdog(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let usec = usec.filter(|_| is_ours)?.parse().ok()?;
    Some(Duration::from_micros(usec)).filter(|patience| !patience.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(socket: &OsStr) -> Manager {
        Manager { socket: Some(socket.to_owned()), watchdog: None }
    }

    async fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let patience = Duration::from_secs(60);
        let length = timeout(patience, socket.recv(&mut bytes)).await.expect("silence").unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_listening_socket_hears_what_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        manager(path.as_os_str()).say("READY=1").await.unwrap();
        assert_eq!(heard(&socket).await, "READY=1");
        drop(socket);
        assert!(manager(path.as_os_str()).say("READY=1").await.is_err());
        assert!(manager(OsStr::new("/nowhere/at/all")).say("READY=1").await.is_err());
        assert!(Manager::default().say("READY=1").await.is_ok());
    }

    #[tokio::test]
    async fn an_abstract_socket_is_found() {
        let name = format!("rusd-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = StdDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = UnixDatagram::from_std(socket).unwrap();
        manager(OsStr::new(&format!("@{name}"))).stopping().await;
        assert_eq!(heard(&socket).await, "STOPPING=1");
    }

    #[tokio::test]
    async fn more_time_is_asked_for_as_long_as_something_moves() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = manager(path.as_os_str());
        let mut rounds = 0;
        let has_moved = || {
            rounds += 1;
            rounds < 3
        };
        let asking =
            timeout(Duration::from_secs(1), manager.extend(Duration::from_millis(1), has_moved));
        assert!(asking.await.is_err());
        for _ in 0..2 {
            assert_eq!(heard(&socket).await, "EXTEND_TIMEOUT_USEC=30000000");
        }
        assert!(socket.try_recv(&mut [0; 64]).is_err(), "it was asked for a third time");
        let loading = manager.while_loading(heard(&socket));
        assert_eq!(loading.await, "EXTEND_TIMEOUT_USEC=30000000");
    }

    #[test]
    fn a_watchdog_may_wait_for_another_process() {
        let half_a_second = Some(Duration::from_millis(500));
        assert_eq!(watchdog(Some("500000"), None, 7), half_a_second);
        assert_eq!(watchdog(Some("500000"), Some("7"), 7), half_a_second);
        for (usec, pid) in [
            (None, None),
            (Some("0"), None),
            (Some("soon"), None),
            (Some("-1"), None),
            (Some("500000"), Some("8")),
            (Some("500000"), Some("x")),
        ] {
            assert_eq!(watchdog(usec, pid, 7), None, "{usec:?} {pid:?}");
        }
        assert!(watchdog(Some("18446744073709551615"), None, 7).is_some());
    }
}
