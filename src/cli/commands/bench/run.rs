//! One run: the state that all of its callers share, and the requests that they send.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::keyspace::{put_op, value};
use super::plan::{LoadKind, PREFIX, Plan};
use super::renewals::{LEASE_SECONDS, Renewal};
use crate::cli::explain::explain;
use crate::client::{Client, Deadline, Error, prefix_end, rpc};
use crate::clock::{Clock, SystemClock};
use crate::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::{Compare, LeaseGrantRequest, PutRequest, RangeRequest, TxnRequest};

pub(super) struct Run {
    pub plan: Plan,
    pub keys: Vec<Bytes>,
    pub value: Bytes,
    pub clock: Arc<SystemClock>,
    pub start: Duration,
    pub sent: AtomicU64,
    pub done: AtomicU64,
    pub errors: AtomicU64,
    pub first_error: Mutex<Option<String>>,
    /// Leases to revoke.
    pub leases: Mutex<Vec<i64>>,
    /// Opened before the clock starts, one for each caller.
    pub renewals: Mutex<Vec<Renewal>>,
    /// Number of events that must arrive; `u64::MAX` until all puts are done.
    pub expected: AtomicU64,
    /// Time of the latest answer to any caller, in nanoseconds.
    last_answer: AtomicU64,
    /// Notified when no caller was answered for the plan's patience. The run then ends: the server is
    /// gone.
    server_gone: Notify,
    /// Arrival of the latest event, in nanoseconds.
    pub last_arrival: AtomicU64,
}

impl Run {
    pub(super) fn new(plan: &Plan, clock: Arc<SystemClock>) -> Self {
        Self {
            keys: (0..plan.keys).map(|index| plan.key(index)).collect(),
            value: value(plan),
            clock,
            start: Duration::ZERO,
            sent: AtomicU64::new(0),
            done: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            first_error: Mutex::new(None),
            leases: Mutex::default(),
            renewals: Mutex::default(),
            expected: AtomicU64::new(u64::MAX),
            last_answer: AtomicU64::new(0),
            server_gone: Notify::new(),
            last_arrival: AtomicU64::new(0),
            plan: plan.clone(),
        }
    }

    /// Waits until the next request is due. Returns false when the plan is fulfilled.
    pub(super) async fn next_turn(&self) -> bool {
        let turn = self.sent.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now().saturating_sub(self.start);
        let over = match self.plan.total {
            0 => now >= self.plan.duration,
            total => turn >= total,
        };
        if over {
            self.sent.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        if let Some(pause) =
            Duration::from_secs(1).checked_mul(u32::try_from(turn).unwrap_or(u32::MAX))
            && self.plan.rate > 0
        {
            let due = pause.div_f64(self.plan.rate as f64);
            sleep(due.saturating_sub(now)).await;
        }
        true
    }

    pub(super) fn failed(&self, error: &Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.first_error.lock().get_or_insert_with(|| explain(error).text);
        if !error.is_silence() {
            return self.answered();
        }
        let answered = Duration::from_nanos(self.last_answer.load(Ordering::Relaxed));
        if self.clock.now().saturating_sub(answered) >= self.plan.patience {
            self.server_gone.notify_one();
        }
    }

    pub(super) fn answered(&self) {
        let now = u64::try_from(self.clock.now().as_nanos()).unwrap_or(u64::MAX);
        self.last_answer.fetch_max(now, Ordering::Relaxed);
    }

    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.plan.patience)
    }

    /// The results of all tasks. None if the server stopped answering before they ended.
    pub(super) async fn join_all_or_gone<T: 'static>(
        &self,
        mut callers: JoinSet<T>,
    ) -> Option<Vec<T>> {
        let mut all = Vec::with_capacity(callers.len());
        loop {
            tokio::select! {
                one = callers.join_next() => match one {
                    Some(Ok(one)) => all.push(one),
                    Some(Err(_)) => {}
                    None => return Some(all),
                },
                () = self.server_gone.notified() => return None,
            }
        }
    }

    /// The key at a random place.
    pub(super) fn key(&self, random: u64) -> Bytes {
        self.keys[(random % self.keys.len() as u64) as usize].clone()
    }

    fn put(&self, key: Bytes) -> PutRequest {
        PutRequest { key, value: self.value.clone(), ..PutRequest::default() }
    }

    /// Sends one request of the plan, whose keys `random` picks. `renewal` is the caller's own lease.
    pub(super) async fn request(
        &self,
        client: &Client,
        renewal: &mut Option<Renewal>,
        random: u64,
    ) -> Result<(), Error> {
        let deadline = self.deadline();
        match self.plan.kind {
            LoadKind::Put | LoadKind::Watch => {
                client.call(&rpc::PUT, self.put(self.key(random)), deadline).await?;
            }
            LoadKind::Range => self.range(client, random).await?,
            LoadKind::Txn => {
                client.call(&rpc::TXN, self.txn(random), deadline).await?;
            }
            LoadKind::Lease => {
                let request = LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 };
                let lease = client.call(&rpc::LEASE_GRANT, request, deadline).await?;
                self.leases.lock().push(lease.id);
            }
            LoadKind::KeepAlive => match renewal {
                Some(open) => {
                    if let Err(error) = open.renew(deadline).await {
                        *renewal = None;
                        return Err(error);
                    }
                }
                None => *renewal = Some(self.open_renewal(client).await?),
            },
        }
        Ok(())
    }

    pub(super) async fn open_renewal(&self, client: &Client) -> Result<Renewal, Error> {
        let renewal = Renewal::open(client, self.deadline()).await?;
        self.leases.lock().push(renewal.id);
        Ok(renewal)
    }

    /// Reads as many keys as the plan says, from a random one on.
    async fn range(&self, client: &Client, random: u64) -> Result<(), Error> {
        let wanted = self.plan.range_keys;
        let starts = self.keys.len().saturating_sub(wanted) as u64 + 1;
        let range_end = match wanted {
            1 => Bytes::new(),
            _ => prefix_end(PREFIX.as_bytes()).into(),
        };
        let request = RangeRequest {
            key: self.keys[(random % starts) as usize].clone(),
            range_end,
            // A range of all keys has no limit, as that of a client that wants all has none.
            limit: if wanted == self.keys.len() { 0 } else { wanted as i64 },
            serializable: self.plan.serializable,
            ..RangeRequest::default()
        };
        let deadline = self.deadline();
        let mut found = 0;
        if self.plan.is_streamed {
            let requests = Box::pin(tokio_stream::once(request));
            let mut stream = client.stream(&rpc::RANGE_STREAM, requests, false, deadline).await?;
            while let Some(piece) = client.next(&mut stream, deadline).await? {
                found += piece.range_response.map_or(0, |piece| piece.kvs.len());
            }
        } else {
            found = client.call(&rpc::RANGE, request, deadline).await?.kvs.len();
        }
        match found < wanted {
            true => Err(Error::Other(format!("a range of {wanted} keys has found {found}"))),
            false => Ok(()),
        }
    }

    /// A transaction that puts neighbours of a random key if that exists.
    fn txn(&self, random: u64) -> TxnRequest {
        let first = (random % self.keys.len() as u64) as usize;
        let compare = Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Mod.into(),
            key: self.keys[first].clone(),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::ModRevision(0)),
        };
        let keys = self.keys.iter().cycle().skip(first).take(self.plan.ops);
        let success = keys.map(|key| put_op(self.put(key.clone()))).collect();
        TxnRequest { compare: vec![compare], success, failure: Vec::new() }
    }
}
