//! Words for commands that a person pastes into a shell.

/// The word, in quotes if it needs them. Names from the network may hold anything, so control
/// characters are left out.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/:=,.-_@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => {
            let shown: String = word.chars().filter(|c| !c.is_control()).collect();
            format!("'{}'", shown.replace('\'', "'\\''"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(quoted("http://m1:2379"), "http://m1:2379");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted("$(reboot)\x1b[31m"), "'$(reboot)[31m'");
        assert_eq!(quoted(""), "''");
    }
}
