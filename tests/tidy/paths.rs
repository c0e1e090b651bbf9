//! The paths that a source names, such as `crate::store::Error`.

/// All paths of a text, those in groups written out.
pub fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("::") {
        let start = rest[..at].rfind(|c: char| !is_name(c)).map_or(0, |before| before + 1);
        let (path, end) = path(&rest[start..]);
        found.extend(path.into_iter().map(|path| path.into_iter().map(str::to_owned).collect()));
        rest = &rest[start + end..];
    }
    found
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The paths that begin here, and where they end.
fn path(text: &str) -> (Vec<Vec<&str>>, usize) {
    let length = text.find(|c: char| !is_name(c)).unwrap_or(text.len());
    let (name, after) = text.split_at(length);
    let Some(rest) = after.strip_prefix("::") else { return (vec![vec![name]], length) };
    let mut end = length + 2;
    let inner = if let Some(rest) = rest.strip_prefix('{') {
        let (inner, length) = group(rest);
        end += 1 + length;
        inner
    } else {
        let (inner, length) = path(rest);
        end += length;
        inner
    };
    (inner.into_iter().map(|inner| [vec![name], inner].concat()).collect(), end)
}

/// The paths of a group whose brace has opened, and where it ends.
fn group(text: &str) -> (Vec<Vec<&str>>, usize) {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        at += text[at..].find(|c: char| is_name(c) || c == '}').unwrap_or(text.len() - at);
        if !text[at..].starts_with(is_name) {
            return (found, (at + 1).min(text.len()));
        }
        let (inner, end) = path(&text[at..]);
        found.extend(inner);
        at += end;
        // `as` gives another name, which nobody outside needs to follow.
        let rest = text[at..].trim_start();
        if let Some(alias) = rest.strip_prefix("as ") {
            let length = alias.find(|c: char| !is_name(c)).unwrap_or(alias.len());
            if let Some(last) = found.last_mut() {
                *last.last_mut().unwrap() = &alias[..length];
            }
            at = text.len() - alias.len() + length;
        }
    }
}
