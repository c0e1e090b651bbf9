//! The network: what members send goes through the frames of their streams, and is lost, late,
//! repeated, cut off or mangled on its way. Snapshots go piece by piece, questions there and back.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use rusd::http::Http;
use rusd::limits;
use rusd::peer::{Answered, Channel, SnapshotDigest, method_of};
use rusd::raft::{Message, announce, announced};

use super::{Event, World};
use crate::clock::MILLI;
use crate::member::{Life, Member, Worker};
use crate::wire::{
    Given, Out, PROPOSE, Question, READ_INDEX, READ_INDEX_ANSWER, SNAPSHOT, Transfer, Wire, garbage,
};

impl World {
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Who hears whom, as the members see it.
    pub fn rewire(&mut self) {
        let mut links = self.links.lock();
        links.clear();
        for (from, sender) in self.members.iter().enumerate() {
            for (to, receiver) in self.members.iter().enumerate() {
                let both = sender.life.is_some() && receiver.life.is_some();
                if both && !self.cut.contains(&(from, to)) {
                    links.insert((sender.id, receiver.id));
                }
            }
        }
    }

    pub fn position(&self, id: u64) -> Option<usize> {
        self.members.iter().position(|member| member.id == id)
    }

    /// What a member wants sent goes on its way.
    pub fn send(&mut self, number: usize) {
        let Some(life) = &self.members[number].life else { return };
        let Out { messages, questions } = std::mem::take(&mut *life.out.lock());
        for message in messages {
            self.send_message(number, message);
        }
        for question in questions {
            self.send_question(number, question);
        }
    }

    fn send_message(&mut self, number: usize, message: Message) {
        self.oracle.sent(&message);
        let kind = message.msg_type;
        self.note(message.index ^ message.term << 20 ^ (kind as u64) << 40 ^ message.to);
        let to = self.position(message.to);
        let Some(life) = &self.members[number].life else { return };
        let answers = kind == READ_INDEX_ANSWER;
        assert!(!answers || !life.has_no_vote, "m{number} answers a read, and has no vote");
        let is_removed = life.node.peers().is_removed(message.to);
        let there = to.filter(|to| !is_removed && !self.is_cut(number, *to));
        if let (SNAPSHOT, None, Some(to)) = (kind, there, to) {
            return self.report(number, to, false);
        }
        let Some(to) = there else {
            // There is no stream to put it into, and the member notices.
            let life = &self.members[number].life;
            if let Some(life) = life.as_ref().filter(|_| self.chance.one_in(2)) {
                if kind == PROPOSE {
                    message.entries.iter().for_each(|entry| life.steps.unsent(entry));
                } else {
                    let _ = life.steps.handle().report_unreachable(message.to);
                }
                self.arm(number, Worker::Tasks, 0);
            }
            return;
        };
        if kind == SNAPSHOT {
            return self.begin_transfer(number, to, message);
        }
        let channel = Channel::of(&message);
        let key = (number, to, channel as usize);
        let (from_id, to_id) = (self.members[number].id, message.to);
        let mut wire =
            self.wires.remove(&key).unwrap_or_else(|| Wire::new(channel, from_id, to_id));
        if self.has_faults && self.chance.one_in(self.plan.loss_odds) {
            return wire.break_within(&message, &mut self.chance);
        }
        let message = wire.carry(&message, &mut self.chance);
        self.wires.insert(key, wire);
        if self.has_faults && self.chance.one_in(self.plan.garbage_odds) {
            let message = garbage(&message, &mut self.chance);
            self.tell(|| format!("m{number} sends garbage: {message:?}"));
            self.put_on_its_way(number, to, message);
        }
        // What a stream carries once must not arrive twice: raft itself asks for that.
        let once = kind == PROPOSE || kind == READ_INDEX;
        if !once && self.has_faults && self.chance.one_in(self.plan.repeat_odds) {
            self.put_on_its_way(number, to, message.clone());
        }
        self.put_on_its_way(number, to, message);
    }

    fn put_on_its_way(&mut self, from: usize, to: usize, message: Message) {
        let delay = self.delay();
        self.at(delay, Event::Deliver(from, to, Box::new(message)));
    }

    fn delay(&mut self) -> u64 {
        let usual = 100_000 + self.chance.below(MILLI);
        if !self.has_faults || !self.chance.one_in(self.plan.late_odds) {
            return usual;
        }
        let most = *self.chance.pick(&[20, 60, 60, 200, 600, 2000]);
        self.chance.below(most * MILLI)
    }

    pub fn deliver(&mut self, from: usize, to: usize, message: Message) {
        if self.is_cut(from, to) {
            return;
        }
        let sender = self.members[from].id;
        let Some(life) = &self.members[to].life else { return };
        if life.node.peers().is_removed(sender) {
            return;
        }
        self.events += 1;
        life.steps.receive(message);
        self.arm(to, Worker::Raft, 0);
    }

    /// Every member dials the others again and again. Whom one of them knows as removed is told.
    pub fn dial(&self, number: usize) {
        let member = &self.members[number];
        let tells = |(at, other): (usize, &Member)| {
            let knows = |life: &Life| life.node.peers().is_removed(member.id);
            !self.is_cut(number, at)
                && !self.is_cut(at, number)
                && other.life.as_ref().is_some_and(knows)
        };
        if self.oracle.removed.contains_key(&member.id)
            && self.members.iter().enumerate().any(tells)
            && let Some(life) = &member.life
        {
            life.steps.told_of_removal();
        }
    }

    /// A snapshot sets out in the place of raft's message.
    fn begin_transfer(&mut self, from: usize, to: usize, mut message: Message) {
        if self.transfers.values().any(|other| (other.from, other.to) == (from, to)) {
            return;
        }
        let Some(life) = &self.members[from].life else { return };
        let opened = life.steps.snapshots().open().map_err(|error| error.to_string());
        let opened = opened.and_then(|outgoing| {
            announce(&mut message, outgoing.place()).map_err(str::to_owned)?;
            Ok(outgoing)
        });
        let outgoing = match opened {
            Ok(outgoing) => outgoing,
            Err(why) => {
                self.tell(|| format!("m{from} has no snapshot for m{to}: {why}"));
                return self.report(from, to, false);
            }
        };
        self.tell(|| format!("m{from} sends a snapshot to m{to}: {message:?}"));
        self.last_transfer += 1;
        let (digest, key) = (SnapshotDigest::default(), self.last_transfer);
        let transfer =
            Transfer { from, to, message, outgoing, incoming: None, digest, is_damaged: false };
        self.transfers.insert(key, transfer);
        let delay = self.delay();
        self.at(delay, Event::Piece(key));
    }

    /// The sender learns how it went.
    fn report(&mut self, from: usize, to: usize, arrived: bool) {
        let id = self.members[to].id;
        if let Some(life) = &self.members[from].life {
            let _ = life.steps.handle().report_snapshot(id, arrived);
            self.arm(from, Worker::Raft, 0);
        }
    }

    /// The next piece of a snapshot arrives.
    pub fn piece(&mut self, key: u64) {
        let Some(mut transfer) = self.transfers.remove(&key) else { return };
        let (from, to) = (transfer.from, transfer.to);
        let lost = self.has_faults && self.chance.one_in(40);
        let cut = self.is_cut(from, to) || self.members[to].life.is_none();
        self.events += 1;
        if lost || cut {
            self.tell(|| format!("the snapshot of m{from} for m{to} is cut off"));
            return self.report(from, to, false);
        }
        match self.take_piece(&mut transfer) {
            Ok(false) => {
                self.transfers.insert(key, transfer);
                let delay = self.delay();
                self.at(delay, Event::Piece(key));
            }
            Ok(true) => {
                self.tell(|| format!("m{to} has the snapshot of m{from}"));
                self.oracle.checked.snapshots += 1;
                self.arm(to, Worker::Raft, 0);
                let lags_until = self.now + self.chance.below(50 * MILLI);
                let member = &mut self.members[to];
                member.lags_until = member.lags_until.min(lags_until);
                // Apply may come to older entries before raft sees the snapshot.
                let is_awake = self.members[to].frozen_until <= self.now;
                if is_awake && (self.plan.churns || self.chance.one_in(2)) {
                    let batches =
                        if self.plan.churns { limits::APPLY_QUEUE_BATCHES_MAX } else { 1 };
                    for _ in 0..=self.chance.below(batches as u64) {
                        self.work(to, Worker::Apply);
                    }
                }
                self.report(from, to, true);
            }
            Err(why) => {
                self.tell(|| format!("m{to} refuses the snapshot of m{from}: {why}"));
                self.report(from, to, false);
            }
        }
    }

    /// True at the end.
    fn take_piece(&mut self, transfer: &mut Transfer) -> Result<bool, String> {
        let to = transfer.to;
        let receives = |other: &Transfer| other.to == to && other.incoming.is_some();
        let Some(life) = &self.members[to].life else { return Err("it is gone".into()) };
        let incoming = match &mut transfer.incoming {
            Some(incoming) => incoming,
            None if self.transfers.values().any(receives) => return Err("it has another".into()),
            None => {
                let place = announced(&transfer.message, life.steps.handle())?;
                let incoming = life.steps.snapshots().receive(place);
                transfer.incoming.insert(incoming.map_err(|error| error.to_string())?)
            }
        };
        for _ in 0..4 {
            let piece = transfer.outgoing.next_piece().map_err(|error| error.to_string())?;
            let Some(piece) = piece else {
                let digest = transfer.digest.clone().finish();
                let incoming = transfer.incoming.take().ok_or("nothing came")?;
                let finished = incoming.finish(digest).map_err(|error| error.to_string());
                assert!(finished.is_err() || !transfer.is_damaged, "a flipped bit was not found");
                finished?;
                let taken = life.steps.handle().step_snapshot(transfer.message.clone());
                return taken.map(|()| true).map_err(|error| error.to_string());
            };
            transfer.digest.update(&piece);
            let mut bytes = piece.to_vec();
            if self.has_faults && !bytes.is_empty() && self.chance.one_in(60) {
                let at = self.chance.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << self.chance.below(8);
                transfer.is_damaged = true;
            }
            incoming.write(&bytes).map_err(|error| error.to_string())?;
        }
        Ok(false)
    }

    /// A member ended, and what it sent or received with it.
    pub fn drop_transfers(&mut self, number: usize) {
        let all = std::mem::take(&mut self.transfers);
        for (key, transfer) in all {
            if transfer.from == number {
                continue;
            }
            if transfer.to == number {
                let from = transfer.from;
                drop(transfer);
                self.report(from, number, false);
            } else {
                self.transfers.insert(key, transfer);
            }
        }
    }

    fn send_question(&mut self, from: usize, question: Question) {
        let to = self.position(question.to).filter(|to| !self.is_cut(from, *to));
        let lost = self.has_faults && self.chance.one_in(self.plan.loss_odds);
        // Without a way there the asker hears at once that there is none.
        let Some(to) = to.filter(|_| !lost) else { return self.arm(from, Worker::Tasks, 0) };
        let delay = self.delay();
        self.at(delay, Event::Question(from, to, Box::new(question)));
    }

    /// A question arrives, and is answered as the peer port answers it.
    pub fn question(&mut self, from: usize, to: usize, question: Question) {
        self.events += 1;
        let Some(life) = &mut self.members[to].life else {
            return self.arm(from, Worker::Tasks, 0);
        };
        let (http, given) = (Http::new(life.node.clone(), http_config()), Arc::clone(&life.given));
        let Question { path, body, reply, .. } = question;
        life.last_asked += 1;
        let number = life.last_asked;
        life.asked.insert(number, (from, reply));
        life.runtime.spawn(async move {
            let (method, _) = method_of(&path, body.is_some());
            let request = http::Request::builder().method(method).uri(path);
            let request = request.body(Full::new(body.unwrap_or_default()));
            let Ok(request) = request else { return };
            let (parts, body) = http.answer_peer(request).await.into_parts();
            let Ok(body) = body.collect().await;
            let answered =
                Answered { status: parts.status, headers: parts.headers, body: body.to_bytes() };
            given.lock().push((number, answered));
        });
        self.arm(to, Worker::Tasks, 0);
    }

    /// Answers that a member gave go back.
    pub fn send_answers(&mut self, number: usize) {
        let Some(life) = &mut self.members[number].life else { return };
        let given = std::mem::take(&mut *life.given.lock());
        let take = |(asked, answered)| {
            let (asker, reply) = life.asked.remove(&asked)?;
            Some(Given { asker, reply, answered })
        };
        let given: Vec<Given> = given.into_iter().filter_map(take).collect();
        for given in given {
            if self.is_cut(number, given.asker) {
                self.arm(given.asker, Worker::Tasks, 0);
                continue;
            }
            let delay = self.delay();
            self.at(delay, Event::Answer(Box::new(given)));
        }
    }

    pub fn answer(&mut self, given: Given) {
        let Given { asker, reply, answered } = given;
        let _ = reply.send(answered);
        self.arm(asker, Worker::Tasks, 0);
    }
}

fn http_config() -> rusd::http::Config {
    rusd::http::Config {
        origins: Vec::new(),
        hosts: Vec::new(),
        request_timeout: Duration::from_secs(5),
        command_line: Vec::new(),
    }
}
