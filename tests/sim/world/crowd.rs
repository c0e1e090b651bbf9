//! A crowd of clients that goes on asking one member which is cut off: each loses patience soon, and
//! the next one comes. What they leave behind must not add up.

use std::collections::VecDeque;

use bytes::Bytes;
use rusd::auth::Credentials;
use rusd::node::{Node, Op};
use rusd::pb::{PutRequest, RangeRequest};
use tokio::task::AbortHandle;

use super::{Event, World};
use crate::clock::{MILLI, SECOND};
use crate::member::Worker;

/// How many come at a time.
const COME: usize = 4;
/// What may wait beside the crowd's: clients, duties and the operator.
const OTHERS: usize = 40;
/// A read that nobody settles is given up after five seconds and two election timeouts, in which its
/// member runs: a suspended one counts no ticks.
const READS_LAST: u64 = 8 * SECOND;
/// So many readers are kept before somebody looks for those that hung up.
const READERS_MIN: usize = 2048;

/// Those who ask now, and when all of them came, also those of earlier crowds.
#[derive(Default)]
pub struct Crowd {
    is_there: bool,
    member: usize,
    life: u64,
    until: u64,
    asking: VecDeque<(u64, AbortHandle)>,
    /// When each came, and for how long members had been suspended until then, all together.
    came: VecDeque<(u64, u64)>,
}

async fn ask(node: Node, number: u64) {
    let who = Credentials::default();
    let key = Bytes::from_static(b"k0");
    // Nobody is there any more for the answers.
    match number % 4 {
        0 => {
            let put = PutRequest { key, value: "crowd".into(), ..Default::default() };
            drop(node.propose(&who, Op::Put(put)).await);
        }
        1 => drop(node.lease_time_to_live(&who, 1, false).await),
        _ => drop(node.range(&who, &RangeRequest { key, ..Default::default() }).await),
    }
}

impl World {
    /// They come to a member until then.
    pub fn gather(&mut self, member: usize, until: u64) {
        if !self.crowd.is_there {
            let came = std::mem::take(&mut self.crowd.came);
            let life = self.members[member].lives;
            let asking = VecDeque::new();
            self.crowd = Crowd { is_there: true, member, life, until, asking, came };
            self.at(0, Event::Crowd);
        }
    }

    /// Some come, some go.
    pub fn crowd(&mut self) {
        let mut crowd = std::mem::take(&mut self.crowd);
        let is_over = !self.has_faults || self.now >= crowd.until;
        let now = self.now;
        while crowd.asking.front().is_some_and(|(patience, _)| is_over || *patience <= now) {
            if let Some((_, task)) = crowd.asking.pop_front() {
                task.abort();
            }
        }
        let frozen = self.frozen;
        crowd.came.retain(|(came, before)| came + READS_LAST + (frozen - before) > now);
        self.arm(crowd.member, Worker::Tasks, 0);
        let member = &self.members[crowd.member];
        let Some(life) = member.life.as_ref().filter(|_| member.lives == crowd.life && !is_over)
        else {
            self.crowd = Crowd { is_there: false, ..crowd };
            return;
        };
        for (kind, count) in life.steps.waiting() {
            let most = match kind {
                // These have bounds of their own.
                "jobs that are not durable" | "jobs of the log" | "batches of apply" => continue,
                "proposers" => crowd.asking.len() + OTHERS,
                "readers" => READERS_MIN + crowd.came.len(),
                _ => crowd.came.len() + OTHERS,
            };
            let name = &member.name;
            assert!(count <= most, "{count} {kind} wait in {name}, and no more than {most} may");
        }
        for _ in 0..COME {
            let number = crowd.came.len() as u64 + now;
            let task = life.runtime.spawn(ask(life.node.clone(), number));
            crowd.asking.push_back((now + 30 * MILLI, task.abort_handle()));
            crowd.came.push_back((now, frozen));
        }
        self.oracle.checked.crowded += COME as u64;
        self.crowd = crowd;
        let pause = MILLI + self.chance.below(40 * MILLI);
        self.at(pause, Event::Crowd);
    }
}
