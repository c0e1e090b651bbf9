//! HTTP/2 frames that no library would send.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::fixture::PATIENCE;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
/// A setting.
pub const INITIAL_WINDOW_SIZE: u16 = 4;
/// Flags of HEADERS and DATA.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The client's preface and its first SETTINGS frame.
pub fn hello(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in settings {
        payload.extend(name.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    [PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat()
}

/// A header field as a literal without indexing and without Huffman coding.
pub fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(string(name.as_bytes()));
    bytes.extend(string(value));
    bytes
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match u8::try_from(bytes.len()) {
        Ok(short @ 0..127) => out.push(short),
        _ => {
            out.push(127);
            let mut rest = bytes.len() - 127;
            while rest >= 128 {
                out.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            out.push(rest as u8);
        }
    }
    out.extend(bytes);
    out
}

/// The header block of a gRPC call.
pub fn call(path: &str) -> Vec<u8> {
    [
        // `:method: POST` and `:scheme: http` of the static table.
        vec![0x83, 0x86],
        field(":path", path.as_bytes()),
        field(":authority", b"127.0.0.1"),
        field("content-type", b"application/grpc"),
        field("te", b"trailers"),
    ]
    .concat()
}

/// A gRPC message behind its prefix.
pub fn message(payload: &[u8]) -> Vec<u8> {
    [&[0][..], &(payload.len() as u32).to_be_bytes(), payload].concat()
}

/// A client that sends each message in a frame of its own, as grpc-go does, and reads all answers.
pub struct Client {
    stream: TcpStream,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    windows: Mutex<Windows>,
    changed: Condvar,
    /// Number of bytes of DATA that were received.
    received: AtomicUsize,
}

#[derive(Default)]
struct Windows {
    connection: i64,
    stream: i64,
    /// Why the connection ended.
    ended: Option<String>,
}

/// Initial window of streams and connections in HTTP/2.
const WINDOW_BYTES: i64 = 65_535;

impl Client {
    /// Opens a connection and a call on its stream 1.
    pub fn call(address: &str, path: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let head = frame(HEADERS, END_HEADERS, 1, &call(path));
        stream.write_all(&[hello(&[]), head].concat()).unwrap();
        let shared = Arc::new(Shared::default());
        {
            let mut windows = shared.windows.lock().unwrap();
            (windows.connection, windows.stream) = (WINDOW_BYTES, WINDOW_BYTES);
        }
        let (reader, of_reader) = (stream.try_clone().unwrap(), Arc::clone(&shared));
        thread::spawn(move || {
            let why = read_all(reader, &of_reader).to_string();
            of_reader.windows.lock().unwrap().ended.get_or_insert(why);
            of_reader.changed.notify_all();
        });
        Self { stream, shared }
    }

    /// Sends messages, each in a frame of its own, as the windows permit.
    pub fn send(&mut self, messages: impl Iterator<Item = Vec<u8>>) {
        let mut batch = Vec::new();
        for payload in messages {
            let bytes = message(&payload);
            let length = bytes.len() as i64;
            let mut windows = self.shared.windows.lock().unwrap();
            while windows.ended.is_none() && windows.connection.min(windows.stream) < length {
                drop(windows);
                self.stream.write_all(&std::mem::take(&mut batch)).unwrap();
                windows = self.shared.windows.lock().unwrap();
                if windows.connection.min(windows.stream) < length && windows.ended.is_none() {
                    windows = self.shared.changed.wait_timeout(windows, PATIENCE).unwrap().0;
                }
            }
            assert_eq!(windows.ended, None, "the server has ended the connection");
            windows.connection -= length;
            windows.stream -= length;
            drop(windows);
            batch.extend(frame(DATA, 0, 1, &bytes));
        }
        self.stream.write_all(&batch).unwrap();
    }

    /// Number of bytes of answers so far; fails if the connection has ended.
    pub fn received(&self) -> usize {
        let windows = self.shared.windows.lock().unwrap();
        assert_eq!(windows.ended, None, "the server has ended the connection");
        self.shared.received.load(Ordering::Relaxed)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// Reads frames and updates the windows, until the connection ends. Returns why.
fn read_all(mut stream: TcpStream, shared: &Shared) -> String {
    loop {
        let mut head = [0; 9];
        if let Err(error) = stream.read_exact(&mut head) {
            return error.to_string();
        }
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if let Err(error) = stream.read_exact(&mut payload) {
            return error.to_string();
        }
        let is_on_stream = head[5..] != [0; 4];
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        let mut windows = shared.windows.lock().unwrap();
        let answer = match kind {
            DATA => {
                shared.received.fetch_add(payload.len(), Ordering::Relaxed);
                let more = (payload.len() as u32).to_be_bytes();
                [frame(WINDOW_UPDATE, 0, 0, &more), frame(WINDOW_UPDATE, 0, 1, &more)].concat()
            }
            SETTINGS if flags & 1 == 0 => {
                for setting in payload.chunks(6).filter(|setting| setting[..2] == [0, 4]) {
                    windows.stream += i64::from(number(&setting[2..])) - WINDOW_BYTES;
                }
                frame(SETTINGS, 1, 0, &[])
            }
            PING if flags & 1 == 0 => frame(PING, 1, 0, &payload),
            WINDOW_UPDATE if is_on_stream => {
                windows.stream += i64::from(number(&payload));
                Vec::new()
            }
            WINDOW_UPDATE => {
                windows.connection += i64::from(number(&payload));
                Vec::new()
            }
            RESET => return format!("RST_STREAM {payload:?}"),
            GOAWAY => return String::from_utf8_lossy(&payload).into_owned(),
            HEADERS if flags & END_STREAM != 0 => return "the call has ended".to_owned(),
            _ => Vec::new(),
        };
        drop(windows);
        shared.changed.notify_all();
        if !answer.is_empty()
            && let Err(error) = stream.write_all(&answer)
        {
            return error.to_string();
        }
    }
}
