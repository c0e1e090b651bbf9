//! The network between members: a port in front of each member's peer port, which can be cut off
//! from some of the others. Who calls stands in the first request of a connection.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::ports;

/// Pairs of members' places: nothing goes from the one to the other.
type Cuts = HashSet<(usize, usize)>;

#[derive(Clone)]
pub struct Network {
    cuts: Arc<watch::Sender<Cuts>>,
    /// Members' places by id.
    members: Arc<Mutex<HashMap<u64, usize>>>,
}

impl Network {
    pub fn new() -> Self {
        Self { cuts: Arc::new(watch::Sender::new(Cuts::new())), members: Arc::default() }
    }

    /// The URL at which others reach the member at this place, whose own peer port this is.
    pub fn front(&self, at: usize, peer_port: u16) -> String {
        let port = ports::free();
        let network = self.clone();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let network = network.clone();
                tokio::spawn(async move { network.forward(stream, peer_port, at).await });
            }
        });
        format!("http://127.0.0.1:{port}")
    }

    /// Says which member is at this place.
    pub fn name(&self, at: usize, id: u64) {
        self.members.lock().unwrap().insert(id, at);
    }

    /// Cuts every connection between members of different groups.
    pub fn split(&self, groups: &[&[usize]]) {
        let mut cuts = Cuts::new();
        for group in groups {
            for other in groups.iter().filter(|other| *other != group) {
                cuts.extend(group.iter().flat_map(|from| other.iter().map(move |to| (*from, *to))));
            }
        }
        self.cuts.send_replace(cuts);
    }

    /// Nothing reaches any of `to` from `from` any more; the other way is open.
    pub fn silence(&self, from: &[usize], to: &[usize]) {
        let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to)));
        self.cuts.send_replace(pairs.collect());
    }

    pub fn heal(&self) {
        self.cuts.send_replace(Cuts::new());
    }

    async fn forward(&self, mut from: TcpStream, port: u16, at: usize) -> Option<()> {
        let mut head = Vec::new();
        while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            if from.read_buf(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        let text = String::from_utf8_lossy(&head).to_lowercase();
        let caller = text.lines().find_map(|line| line.strip_prefix("x-server-from: "));
        let caller = caller.and_then(|id| u64::from_str_radix(id.trim(), 16).ok());
        // It may get its name only while the connection stands.
        let place = || self.members.lock().unwrap().get(&caller?).copied();
        let there = |cuts: &Cuts| place().is_some_and(|caller| cuts.contains(&(caller, at)));
        let back = |cuts: &Cuts| place().is_some_and(|caller| cuts.contains(&(at, caller)));
        let mut to = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let (mut from_read, mut from_write) = from.split();
        let (mut to_read, mut to_write) = to.split();
        let requests = async {
            self.until(|cuts| !there(cuts)).await;
            to_write.write_all(&head).await?;
            self.pump(&mut from_read, &mut to_write, there).await
        };
        let answers = self.pump(&mut to_read, &mut from_write, back);
        let both = |cuts: &Cuts| there(cuts) && back(cuts);
        tokio::select! {
            _ = requests => {}
            _ = answers => {}
            () = self.until(both) => {}
        }
        None
    }

    async fn until(&self, holds: impl FnMut(&Cuts) -> bool) {
        // What it gives is a guard, which must not live on.
        drop(self.cuts.subscribe().wait_for(holds).await);
    }

    /// Passes on what comes, until the end or until the way was cut and is open again.
    async fn pump(
        &self,
        from: &mut (impl AsyncReadExt + Unpin),
        to: &mut (impl AsyncWriteExt + Unpin),
        is_cut: impl Fn(&Cuts) -> bool,
    ) -> io::Result<()> {
        tokio::select! {
            done = tokio::io::copy(from, to) => done.map(drop),
            () = self.until(&is_cut) => {
                self.until(|cuts| !is_cut(cuts)).await;
                Ok(())
            }
        }
    }
}
