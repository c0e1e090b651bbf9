//! Messages without the words of Go and gRPC that etcdctl's have.

/// A message without the words of Go and gRPC that etcdctl's messages contain.
pub(super) fn plain(message: &[u8]) -> Vec<u8> {
    // What is not UTF-8 names a file or a key, and is left as it is.
    std::str::from_utf8(message).map_or_else(|_| message.to_vec(), |text| plain_text(text).into())
}

pub(super) fn plain_text(text: &str) -> String {
    const MARSHALING: &str = "grpc: error while marshaling: string field contains invalid UTF-8";
    let of_grpc = text.strip_prefix("rpc error: code = ").and_then(|it| it.split_once(" desc = "));
    match of_grpc.map_or(text, |(_, why)| why) {
        MARSHALING => "names must be valid UTF-8".to_owned(),
        "unsupported output format" => {
            "unsupported output format; -o takes simple, table, fields, json, jsonl, yaml or \
             protobuf, and not every command has all of them"
                .to_owned()
        }
        text => match directory_in_use(text) {
            Some(dir) => format!(
                "{dir} exists and is not empty; give --data-dir a new directory, or set that one aside first"
            ),
            None => with_places_of_ids(without_strconv(text)),
        },
    }
}

/// The directory that a restore does not write into.
fn directory_in_use(text: &str) -> Option<&str> {
    text.strip_prefix("data-dir ")?.strip_suffix(" not empty or could not be read")
}

/// Puts plain words in the place of `strconv.ParseInt: parsing "x": invalid syntax`.
fn without_strconv(text: &str) -> String {
    let parts = || {
        let (before, rest) = text.split_once("strconv.")?;
        let (_, rest) = rest.split_once(": parsing ")?;
        let (shown, after) = [": invalid syntax", ": value out of range"]
            .into_iter()
            .find_map(|why| rest.split_once(why).map(|(shown, after)| ((shown, why), after)))?;
        let words = match shown.1 {
            ": invalid syntax" => "is not a number",
            _ => "is out of range",
        };
        Some(format!("{before}{} {words}{after}", shown.0))
    };
    parts().unwrap_or_else(|| text.to_owned())
}

/// Puts the command that shows ids in the place of their form, which nobody types from memory.
fn with_places_of_ids(text: String) -> String {
    let places = [("bad member ID", "rusd member list"), ("bad lease ID", "rusd lease list")];
    let place = places.iter().find(|(start, _)| text.starts_with(start));
    match (place, text.strip_suffix(", expecting ID in Hex")) {
        (Some((_, command)), Some(rest)) => format!("{rest}; '{command}' shows the ids"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_words_are_left_out() {
        for (message, words) in [
            (
                "bad lease ID arg (strconv.ParseInt: parsing \"xyz\": invalid syntax), expecting ID in Hex",
                "bad lease ID arg (\"xyz\" is not a number); 'rusd lease list' shows the ids",
            ),
            ("strconv.ParseInt: parsing \"9\": value out of range", "\"9\" is out of range"),
            (
                "rpc error: code = Internal desc = grpc: error while marshaling: string field contains \
                 invalid UTF-8",
                "names must be valid UTF-8",
            ),
            ("open /x: no such file or directory", "open /x: no such file or directory"),
        ] {
            assert_eq!(String::from_utf8(plain(message.as_bytes())).unwrap(), words);
        }
        assert_eq!(plain(b"\xff"), b"\xff");
    }
}
