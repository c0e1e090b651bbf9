//! Host and port of a URL, as Go's net/url reads and writes them. All members and tools have to
//! accept the URLs that etcd accepts, and a URL that etcd cannot parse must never become a
//! member's.

/// Parses the authority, which stands between `//` and the path, and returns it in the form in
/// which Go writes it. The error is the text that Go puts after `parse "…": `.
pub fn parse_authority(text: &str) -> Result<String, String> {
    let (user, host) = match text.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, text),
    };
    let port = match host.strip_prefix('[') {
        Some(_) => {
            let end = host.rfind(']').ok_or("missing ']' in host")?;
            &host[end + 1..]
        }
        None => host.rfind(':').map_or("", |at| &host[at..]),
    };
    let is_port = |port: &str| {
        port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
    };
    if !port.is_empty() && !is_port(port) {
        return Err(format!("invalid port {port:?} after host"));
    }
    let host = escape(&unescape(host)?);
    Ok(user.map_or(host.clone(), |user| format!("{user}@{host}")))
}

/// Decodes percent escapes. In a host these may stand only for bytes beyond ASCII and for the
/// percent sign; in the zone of an IPv6 address, for any byte.
fn unescape(host: &str) -> Result<Vec<u8>, String> {
    let bytes = host.as_bytes();
    let zone = if host.starts_with('[') { host.find("%25") } else { None };
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte != b'%' {
            // From the zone on Go allows more characters.
            if byte.is_ascii() && must_be_escaped(byte) && zone.is_none_or(|zone| at < zone) {
                let shown = char::from(byte);
                return Err(format!("invalid character {:?} in host name", shown.to_string()));
            }
            out.push(byte);
            at += 1;
            continue;
        }
        let code = bytes.get(at + 1..at + 3).and_then(|code| std::str::from_utf8(code).ok());
        let number = code.filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()));
        let number = number.and_then(|code| u8::from_str_radix(code, 16).ok());
        let is_allowed = |number: &u8| {
            !number.is_ascii() || *number == b'%' || zone.is_some_and(|zone| at > zone)
        };
        let Some(number) = number.filter(is_allowed) else {
            let shown = bytes[at..bytes.len().min(at + 3)].escape_ascii().to_string();
            return Err(format!("invalid URL escape \"{shown}\""));
        };
        out.push(number);
        at += 3;
    }
    Ok(out)
}

fn escape(host: &[u8]) -> String {
    let mut out = String::with_capacity(host.len());
    for byte in host {
        match byte {
            byte if must_be_escaped(*byte) => out.push_str(&format!("%{byte:02X}")),
            byte => out.push(char::from(*byte)),
        }
    }
    out
}

fn must_be_escaped(byte: u8) -> bool {
    !byte.is_ascii_alphanumeric() && !b"-_.~!$&'()*+,;=:[]<>\"".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_and_written_as_in_go() {
        for (text, written) in [
            ("127.0.0.1:2380", "127.0.0.1:2380"),
            ("exämple:1", "ex%C3%A4mple:1"),
            ("ex%c3%a4mple:1", "ex%C3%A4mple:1"),
            ("a%25b:1", "a%25b:1"),
            ("A:1", "A:1"),
            ("[::1]:1", "[::1]:1"),
            ("[fe80::1%25lo]:1", "[fe80::1%25lo]:1"),
            ("user:pw@a:1", "user:pw@a:1"),
            ("a", "a"),
            ("a:", "a:"),
        ] {
            assert_eq!(parse_authority(text).as_deref(), Ok(written), "{text}");
        }
        for (text, reason) in [
            ("127.0.0.1:http", "invalid port \":http\" after host"),
            ("[::1]x", "invalid port \"x\" after host"),
            ("[::1:50999", "missing ']' in host"),
            ("a b:1", "invalid character \" \" in host name"),
            ("a\\b:1", "invalid character \"\\\\\" in host name"),
            ("%zz:1", "invalid URL escape \"%zz\""),
            ("%41:1", "invalid URL escape \"%41\""),
            ("%:1", "invalid URL escape \"%:1\""),
            ("a%", "invalid URL escape \"%\""),
        ] {
            assert_eq!(parse_authority(text).unwrap_err(), reason, "{text}");
        }
    }
}
