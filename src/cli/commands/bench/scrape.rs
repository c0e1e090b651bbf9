//! CPU time and memory of a server, from its `/metrics`.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::PEER_ANSWER_BYTES_MAX;

/// Resources that a server says it uses; None where it does not say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<f64>,
}

const PATIENCE: Duration = Duration::from_secs(2);

/// Reads the usage of an endpoint; values that cannot be read are None.
pub(crate) async fn usage(endpoint: &str) -> Usage {
    let address = endpoint.trim_start_matches("http://").trim_end_matches('/');
    match timeout(PATIENCE, fetch(address)).await {
        Ok(Ok(page)) => parse(&page),
        _ => Usage::default(),
    }
}

/// The sums over all members of a cluster. A value that one member lacks is None, since a sum
/// without it would mislead.
pub(super) async fn usage_of_all(endpoints: &[String]) -> Usage {
    let mut all = Usage { cpu_seconds: Some(0.0), resident_bytes: Some(0.0) };
    for endpoint in endpoints {
        let one = usage(endpoint).await;
        let sum = |all: Option<f64>, one: Option<f64>| Some(all? + one?);
        all.cpu_seconds = sum(all.cpu_seconds, one.cpu_seconds);
        all.resident_bytes = sum(all.resident_bytes, one.resident_bytes);
    }
    all
}

/// Fetches the metrics over HTTP/1.0, which has no chunked encoding to parse.
async fn fetch(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = Vec::new();
    stream.take(PEER_ANSWER_BYTES_MAX as u64).read_to_end(&mut page).await?;
    String::from_utf8(page).map_err(std::io::Error::other)
}

fn parse(page: &str) -> Usage {
    let value = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    };
    Usage {
        cpu_seconds: value("process_cpu_seconds_total"),
        resident_bytes: value("process_resident_memory_bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_member_that_says_nothing_leaves_no_sum() {
        let nobody = usage_of_all(&["http://127.0.0.1:1".to_owned()]).await;
        assert_eq!((nobody.cpu_seconds, nobody.resident_bytes), (None, None));
    }

    #[test]
    fn values_are_found_among_others() {
        let page = "# TYPE x gauge\nprocess_cpu_seconds_total 1.5\r\nprocess_cpu 3\n\
                    process_resident_memory_bytes 3.1e+07\n";
        let usage = parse(page);
        assert_eq!(usage.cpu_seconds, Some(1.5));
        assert_eq!(usage.resident_bytes, Some(31_000_000.0));
    }
}
