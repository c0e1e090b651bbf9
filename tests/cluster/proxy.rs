//! The network between members: a port in front of each member's peer port, which can be cut off
//! from some of the others. Who calls stands in the first request of a connection.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::ports;

/// Pairs of caller (a member's id) and called (a member's place) that do not reach each other.
type Cuts = HashSet<(u64, usize)>;

#[derive(Clone)]
pub struct Network {
    cuts: Arc<watch::Sender<Cuts>>,
    members: Arc<Mutex<Vec<u64>>>,
}

impl Network {
    pub fn new() -> Self {
        Self { cuts: Arc::new(watch::Sender::new(Cuts::new())), members: Arc::default() }
    }

    /// The URL at which others reach the member at this place, whose own peer port this is.
    pub fn front(&self, at: usize, peer_port: u16) -> String {
        let port = ports::free();
        let cuts = Arc::clone(&self.cuts);
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(forward(stream, peer_port, at, cuts.subscribe()));
            }
        });
        format!("http://127.0.0.1:{port}")
    }

    /// Members' ids by place.
    pub fn name(&self, members: Vec<u64>) {
        *self.members.lock().unwrap() = members;
    }

    /// Cuts every connection between members of different groups.
    pub fn split(&self, groups: &[&[usize]]) {
        let members = self.members.lock().unwrap().clone();
        let mut cuts = Cuts::new();
        for group in groups {
            for other in groups.iter().filter(|other| *other != group) {
                for (from, to) in
                    group.iter().flat_map(|from| other.iter().map(move |to| (from, to)))
                {
                    cuts.insert((members[*from], *to));
                }
            }
        }
        self.cuts.send_replace(cuts);
    }

    pub fn heal(&self) {
        self.cuts.send_replace(Cuts::new());
    }
}

async fn forward(mut from: TcpStream, port: u16, at: usize, mut cuts: watch::Receiver<Cuts>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        match from.read_buf(&mut head).await {
            Ok(count) if count > 0 => {}
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let caller = text.lines().find_map(|line| line.strip_prefix("x-server-from: "));
    let caller = caller.and_then(|id| u64::from_str_radix(id.trim(), 16).ok()).unwrap_or_default();
    let Ok(mut to) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let both = async {
        to.write_all(&head).await?;
        copy_bidirectional(&mut from, &mut to).await
    };
    tokio::select! {
        _ = both => {}
        _ = cuts.wait_for(|cuts| cuts.contains(&(caller, at))) => {}
    }
}
