//! Questions before what cannot be undone: `del` of a range, `member remove`, `rebuild`, `user delete`
//! and `role delete`, `auth disable`, `compaction`, `downgrade enable` and `--force`.
//!
//! Only a person at a terminal is asked. A script has nobody to answer, and goes on as under etcd's
//! names; so does a person who says `--yes`.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use super::context::Context;
use super::exit::{Exit, Failure, Outcome};
use super::grid::wrapped;
use super::terminal::shown;

/// More than any answer to a question.
const ANSWER_BYTES_MAX: u64 = 1024;

/// Whether a question would be asked. What it shows need not be found out if it is not.
pub(super) fn asks(context: &Context) -> bool {
    context.printer.is_screen() && io::stdin().is_terminal() && !context.flags.bool("yes")
}

/// Says what will be done and waits for a yes. Anything else ends the command.
pub(super) fn confirm(context: &Context, what: impl AsRef<[u8]>) -> Outcome {
    if !asks(context) {
        return Ok(());
    }
    let lines = wrapped(&shown(what.as_ref()), context.printer.width());
    context.printer.out(format!("{}\nContinue? [y/N] ", lines.join("\n")));
    let mut answer = Vec::new();
    let mut input = io::stdin().lock().take(ANSWER_BYTES_MAX);
    input.read_until(b'\n', &mut answer).map_err(Failure::error)?;
    if !answer.ends_with(b"\n") {
        context.printer.out("\n");
    }
    match answer.trim_ascii().to_ascii_lowercase().as_slice() {
        b"y" | b"yes" => Ok(()),
        _ => Err(Failure::new(Exit::Error, "not confirmed, so nothing was changed")),
    }
}

/// A number with the word for what is counted.
pub(super) fn counted(number: i64, one: &str, many: &str) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = if number < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{text} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(counted(1, "key", "keys"), "1 key");
        assert_eq!(counted(1234567, "key", "keys"), "1,234,567 keys");
        assert_eq!(counted(-100, "key", "keys"), "-100 keys");
    }
}
