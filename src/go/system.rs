//! Errors of the operating system in Go's words.

use std::io;

/// The text of an error. Go's texts of the system's errors are the C library's in lower case,
/// without the number that Rust adds; any other error keeps its text.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(_) => text.split(" (os error").next().unwrap_or_default().to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_errors_are_lower_case_and_others_stay() {
        assert_eq!(reason(&io::Error::from_raw_os_error(2)), "no such file or directory");
        assert_eq!(reason(&io::Error::from_raw_os_error(5)), "input/output error");
        assert_eq!(reason(&io::Error::other("/A is no file")), "/A is no file");
    }
}
