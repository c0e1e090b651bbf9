//! Lists of words as Go's encoding/csv splits them, by which the flags' library reads lists.

/// The fields of one line. The error is in the words of encoding/csv.
pub fn parse_csv(text: &str) -> Result<Vec<Vec<u8>>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let bare = |column: usize| {
        format!("parse error on line 1, column {column}: bare \" in non-quoted-field")
    };
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (field, tail) = csv_quoted(quoted).ok_or_else(|| {
                format!(
                    "parse error on line 1, column {}: extraneous or missing \" in quoted-field",
                    text.len() + 1
                )
            })?;
            fields.push(field.into());
            rest = tail;
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let field = &rest[..end];
            if let Some(at) = field.find('"') {
                return Err(bare(text.len() - rest.len() + at + 1));
            }
            fields.push(field.as_bytes().to_vec());
            rest = &rest[end..];
        }
        match rest.strip_prefix(',') {
            Some(tail) => rest = tail,
            None => return Ok(fields),
        }
    }
}

/// The content of a quoted field from behind its opening quote, and the text after the closing one.
fn csv_quoted(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let at = rest.find('"')?;
        field.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.chars().next() {
            Some('"') => {
                field.push('"');
                rest = &rest[1..];
            }
            None | Some(',') => return Some((field, rest)),
            Some(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_split_at_commas_outside_quotes() {
        assert_eq!(parse_csv("a,\"b,c\",d").unwrap(), [b"a".as_slice(), b"b,c", b"d"]);
        assert!(parse_csv("").unwrap().is_empty());
        assert_eq!(
            parse_csv("a\"b").unwrap_err(),
            "parse error on line 1, column 2: bare \" in non-quoted-field"
        );
    }
}
