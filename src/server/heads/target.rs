//! The target of a request, as Go reads it, in a form that hyper reads alike.

use http::Uri;

use crate::limits::HTTP1_TARGET_BYTES_MAX;

/// A path that is redirected to the root, as Go does with an absolute target without a path.
const NO_PATH: &[u8] = b"//";

/// The target that stands for this one; None if it may stay as it is. Fails if Go refuses it.
pub(super) fn adapted(method: &[u8], target: &[u8]) -> Result<Option<Vec<u8>>, ()> {
    let is_plain = target.first() == Some(&b'/') && target.iter().all(|byte| is_plain(*byte));
    if is_plain && target.len() <= HTTP1_TARGET_BYTES_MAX || target == b"*" {
        return Ok(None);
    }
    if target.is_empty() || target.iter().any(u8::is_ascii_control) {
        return Err(());
    }
    let (path, query) = match target.iter().position(|byte| *byte == b'?') {
        Some(at) => target.split_at(at),
        None => (target, &[][..]),
    };
    let mut out = Vec::with_capacity(target.len() + 16);
    if path.first() == Some(&b'/') {
        put_path(path, &mut out)?;
    } else if method == b"CONNECT" {
        let (_, path) = authority(path)?;
        put_path(if path.is_empty() { b"/" } else { path }, &mut out)?;
    } else {
        absolute(path, &mut out)?;
    }
    put_escaped(query, &mut out);
    // No path or query of this server is that long.
    out.truncate(HTTP1_TARGET_BYTES_MAX);
    Uri::try_from(out.as_slice()).map_err(|_| ())?;
    Ok(Some(out))
}

/// A target with a scheme. Where it names no host, the header does.
fn absolute(target: &[u8], out: &mut Vec<u8>) -> Result<(), ()> {
    let end = target.iter().position(|byte| *byte == b':').ok_or(())?;
    let (scheme, rest) = (&target[..end], &target[end + 1..]);
    let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    if !scheme.first().is_some_and(u8::is_ascii_alphabetic) || !scheme.iter().all(is_scheme) {
        return Err(());
    }
    let Some(rest) = rest.strip_prefix(b"//") else {
        return put_path(if rest.first() == Some(&b'/') { rest } else { NO_PATH }, out);
    };
    let (host, path) = authority(rest)?;
    if !host.is_empty() {
        out.extend_from_slice(b"http://");
        out.extend_from_slice(host);
    }
    put_path(if path.is_empty() { NO_PATH } else { path }, out)
}

/// The host, with its port, and the path behind it.
fn authority(target: &[u8]) -> Result<(&[u8], &[u8]), ()> {
    let end = target.iter().position(|byte| *byte == b'/').unwrap_or(target.len());
    let (authority, path) = target.split_at(end);
    let host = authority.rsplit(|byte| *byte == b'@').next().unwrap_or_default();
    let behind = match host.iter().rposition(|byte| *byte == b']') {
        Some(at) => &host[at + 1..],
        None => &host[host.iter().position(|byte| *byte == b':').unwrap_or(host.len())..],
    };
    let is_port =
        behind.is_empty() || behind[0] == b':' && behind[1..].iter().all(u8::is_ascii_digit);
    if is_port { Ok((host, path)) } else { Err(()) }
}

/// Appends a path, whose escapes must be whole.
fn put_path(path: &[u8], out: &mut Vec<u8>) -> Result<(), ()> {
    for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
        let digits = path.get(at + 1..at + 3).ok_or(())?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(());
        }
    }
    put_escaped(path, out);
    Ok(())
}

/// Appends bytes, of which those that hyper refuses are escaped. To Go they mean the same.
fn put_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        if is_plain(*byte) || *byte == b'%' {
            out.push(*byte);
        } else {
            let [high, low] = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
            out.extend_from_slice(&[b'%', high, low]);
        }
    }
}

/// Whether a byte of a path or query may stay as it is.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@?".contains(&byte)
}
