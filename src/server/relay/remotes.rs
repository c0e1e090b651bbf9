//! Where connections go: by priority and weight as SRV records have them (RFC 2782), in turn
//! otherwise, and past those that refused lately.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::clock::Clock;
use crate::{dns, go, limits};

/// Of a hundred connections, those that go to a remote without a weight while others have one.
const UNWEIGHTED_PERCENT: u64 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub host: String,
    pub port: u16,
    pub priority: u16,
    pub weight: u16,
}

impl From<dns::Service> for Remote {
    fn from(service: dns::Service) -> Self {
        let dns::Service { host, port, priority, weight } = service;
        Self { host, port, priority, weight }
    }
}

impl Remote {
    pub(super) fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// Connects to a remote within `limits::RELAY_DIAL_TIMEOUT`. The error is Go's text.
pub(super) async fn dial(remote: &Remote) -> Result<TcpStream, String> {
    let failed = |why: String| format!("dial tcp {}: {why}", remote.address());
    let dialled = TcpStream::connect((remote.host.trim_end_matches('.'), remote.port));
    match tokio::time::timeout(limits::RELAY_DIAL_TIMEOUT, dialled).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(failed(match error.kind() {
            io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            _ => go::reason(&error),
        })),
        Err(_) => Err(failed("i/o timeout".to_owned())),
    }
}

pub(super) struct Remotes {
    all: Vec<Remote>,
    state: Mutex<State>,
    retry_delay: Duration,
    clock: Arc<dyn Clock>,
}

struct State {
    is_active: Vec<bool>,
    /// Counts choices without weights, for taking turns.
    turn: usize,
}

impl Remotes {
    pub(super) fn new(all: Vec<Remote>, retry_delay: Duration, clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new(State { is_active: vec![true; all.len()], turn: 0 });
        Self { all, state, retry_delay, clock }
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.all.iter().map(Remote::address).collect()
    }

    /// The number of the remote that the next connection goes to; None if all have refused.
    fn pick(&self) -> Option<usize> {
        let mut state = self.state.lock();
        let active = || (0..self.all.len()).filter(|number| state.is_active[*number]);
        let best = active().map(|number| self.all[number].priority).min()?;
        let (weighted, unweighted): (Vec<usize>, Vec<usize>) = active()
            .filter(|number| self.all[*number].priority == best)
            .partition(|number| self.all[*number].weight > 0);
        let is_rare = || self.clock.random() % 100 < UNWEIGHTED_PERCENT;
        if weighted.is_empty() || (!unweighted.is_empty() && is_rare()) {
            let picked = unweighted[state.turn % unweighted.len()];
            state.turn = state.turn.wrapping_add(1);
            return Some(picked);
        }
        let weight = |number: &usize| u64::from(self.all[*number].weight);
        let mut chosen = self.clock.random() % weighted.iter().map(weight).sum::<u64>();
        weighted.into_iter().find(|number| match chosen.checked_sub(weight(number)) {
            Some(rest) => {
                chosen = rest;
                false
            }
            None => true,
        })
    }

    /// Connects to a remote. One that cannot be reached is passed over until the monitor has
    /// reached it; None if there is no other.
    pub(super) async fn dial(&self) -> Option<TcpStream> {
        while let Some(number) = self.pick() {
            match dial(&self.all[number]).await {
                Ok(stream) => return Some(stream),
                Err(error) => {
                    self.state.lock().is_active[number] = false;
                    tracing::warn!(
                        address = self.all[number].address(),
                        interval = go::duration(self.retry_delay),
                        error,
                        "deactivated endpoint"
                    );
                }
            }
        }
        None
    }

    /// Tries the remotes that could not be reached, again and again.
    pub(super) async fn monitor(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.retry_delay).await;
            self.try_again().await;
        }
    }

    async fn try_again(&self) {
        let is_active = self.state.lock().is_active.clone();
        let silent = (0..self.all.len()).filter(|number| !is_active[*number]);
        futures_util::future::join_all(silent.map(async |number| {
            let address = self.all[number].address();
            match dial(&self.all[number]).await {
                Ok(_) => {
                    self.state.lock().is_active[number] = true;
                    tracing::info!(address, "activated");
                }
                Err(error) => tracing::warn!(
                    address,
                    interval = go::duration(self.retry_delay),
                    error,
                    "failed to activate endpoint (stay inactive for another interval)"
                ),
            }
        }))
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn remotes(list: &[(u16, u16)]) -> Remotes {
        let remote = |(number, &(priority, weight)): (usize, &(u16, u16))| Remote {
            host: format!("h{number}"),
            port: 1,
            priority,
            weight,
        };
        let all = list.iter().enumerate().map(remote).collect();
        Remotes::new(all, Duration::from_secs(1), Arc::new(SystemClock::new()))
    }

    /// How often each remote is picked in ten thousand times.
    fn picked(remotes: &Remotes) -> Vec<u32> {
        let mut counts = vec![0; remotes.all.len()];
        (0..10_000).for_each(|_| counts[remotes.pick().unwrap()] += 1);
        counts
    }

    #[test]
    fn remotes_are_picked_by_priority_and_weight_and_in_turn() {
        assert_eq!(picked(&remotes(&[(0, 0), (0, 0), (1, 9)])), [5000, 5000, 0]);
        let by_weight = picked(&remotes(&[(5, 10), (5, 30), (5, 0), (9, 99)]));
        assert!((2000..3000).contains(&by_weight[0]), "{by_weight:?}");
        assert!((6900..8000).contains(&by_weight[1]), "{by_weight:?}");
        assert!((1..400).contains(&by_weight[2]), "{by_weight:?}");
        assert_eq!(by_weight[3], 0);
    }

    #[tokio::test]
    async fn one_that_refuses_is_passed_over_until_it_is_reached() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let remote = Remote { host: "127.0.0.1".into(), port, priority: 0, weight: 0 };
        let clock = Arc::new(SystemClock::new());
        let remotes = Remotes::new(vec![remote], Duration::from_secs(1), clock);
        assert!(remotes.dial().await.is_some());
        drop(listener);
        assert!(remotes.dial().await.is_none());
        assert_eq!(remotes.pick(), None);
        remotes.try_again().await;
        assert_eq!(remotes.pick(), None);
        let _listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        remotes.try_again().await;
        assert_eq!(remotes.pick(), Some(0));
    }
}
