//! Log lines in the format of etcd's client, so that scripts that read them keep working.

use serde_json::json;

/// Takes finished log lines, without their newline.
pub trait LogSink: Send + Sync {
    fn line(&self, line: String);
}

/// Unix nanoseconds as `2006-01-02T15:04:05.000000Z`.
pub fn timestamp(unix_nanos: u64) -> String {
    let micros = unix_nanos / 1000 % 1_000_000;
    let seconds = unix_nanos / 1_000_000_000;
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Counts in eras
/// of 400 years that begin on 1 March, so that a leap day is the last day of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// One failed attempt of a call.
pub(super) struct FailedAttempt<'a> {
    pub unix_nanos: u64,
    pub logger: &'a str,
    pub target: &'a str,
    pub peer: &'a str,
    pub method: &'a str,
    pub attempt: u32,
    pub error: &'a str,
}

impl FailedAttempt<'_> {
    pub(super) fn line(&self) -> String {
        let text = |value: &str| json!(value).to_string();
        format!(
            "{{\"level\":\"warn\",\"ts\":\"{}\",\"logger\":\"{}\",\
             \"caller\":\"v3/retry_interceptor.go:68\",\
             \"msg\":\"retrying of unary invoker failed\",\"target\":{},\"peer\":{},\
             \"method\":{},\"attempt\":{},\"error\":{}}}",
            timestamp(self.unix_nanos),
            self.logger,
            text(self.target),
            text(self.peer),
            text(self.method),
            self.attempt,
            text(self.error),
        )
    }
}

/// The line for a call that waits for an endpoint without a deadline.
pub(super) struct WaitingLine<'a> {
    pub unix_nanos: u64,
    pub logger: &'a str,
    pub target: &'a str,
    pub error: &'a str,
}

impl WaitingLine<'_> {
    pub(super) fn line(&self) -> String {
        let text = |value: &str| json!(value).to_string();
        format!(
            "{{\"level\":\"warn\",\"ts\":\"{}\",\"logger\":\"{}\",\
             \"msg\":\"no endpoint answers; waiting until one does\",\"target\":{},\"error\":{}}}",
            timestamp(self.unix_nanos),
            self.logger,
            text(self.target),
            text(self.error),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_utc() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(timestamp(951_827_696_123_456_789), "2000-02-29T12:34:56.123456Z");
    }
}
