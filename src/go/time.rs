//! Times as the log lines of etcd and of its client show them: `time.Format` with the layout of its encoder.

use std::fmt::Write as _;

/// Microseconds in UTC: `2026-11-22T18:20:11.890616Z`.
pub fn timestamp(unix_nanos: u64) -> String {
    let micros = unix_nanos / 1000;
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut text = String::with_capacity(27);
    // Writing into a string cannot fail.
    let _ = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{micros:06}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    text
}

/// The date of a day counted from 1970-01-01. Years start in March here, so that the leap day is
/// the last of a year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_know_leap_days() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(timestamp(951_782_400_000_001_000), "2000-02-29T00:00:00.000001Z");
        assert_eq!(timestamp(951_827_696_123_456_789), "2000-02-29T12:34:56.123456Z");
        assert_eq!(timestamp(1_795_371_611_890_616_000), "2026-11-22T18:20:11.890616Z");
    }
}
