//! Processes as /proc shows them: which one listens on a port, and what a process is called.
//!
//! A member that cannot start looks here once, to name who is in the way. What may not be seen, as
//! other users' processes, is left out.

use std::fs;
use std::path::Path;

use crate::limits::PROC_LOOKS_MAX;

/// A process id with the name of its program: `4711 (etcd)`.
pub(super) fn named(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    // A program chooses its name itself.
    let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
    if name.is_empty() { pid.to_string() } else { format!("{pid} ({name})") }
}

/// The process that listens on a TCP port; None if none may be seen.
pub(super) fn of_port(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let sockets: Vec<String> = tables
        .iter()
        .flat_map(|table| {
            let text = fs::read_to_string(table).unwrap_or_default();
            listening(&text, port)
        })
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut looks = 0;
    for pid in pids {
        let files = fs::read_dir(format!("/proc/{pid}/fd"));
        for file in files.into_iter().flatten().flatten() {
            looks += 1;
            if looks > PROC_LOOKS_MAX {
                return None;
            }
            let target = fs::read_link(file.path()).unwrap_or_default();
            if sockets.iter().any(|socket| Path::new(socket) == target) {
                return Some(named(pid));
            }
        }
    }
    None
}

/// The inodes of the sockets that listen on a port, in a table of /proc/net.
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let ending = format!(":{port:04X}");
    let rows = table.lines().skip(1).filter_map(|row| {
        let words: Vec<&str> = row.split_whitespace().collect();
        let listens = words.get(1)?.ends_with(&ending) && *words.get(3)? == LISTEN;
        listens.then(|| words.get(9).map(|inode| (*inode).to_owned()))?
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = of_port(port).unwrap();
        assert!(found.starts_with(&std::process::id().to_string()), "{found}");
        drop(listener);
        assert_eq!(of_port(port), None);
    }
}
