//! One connection to a client URL, as a plain program would open it: name, port, TLS, HTTP. Each
//! step that fails has a reason of its own, which a gRPC client's error does not tell apart.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{DATE, HOST};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};

use super::facts::{Unreached, Why};
use super::scrape::Metrics;
use crate::client::{Address, Config, Target};
use crate::clock;
use crate::limits::PEER_ANSWER_BYTES_MAX;
use crate::tls::{self, CertificateDer, ClientFiles, Connector};

/// What a member says over HTTP.
#[derive(Default)]
pub(super) struct Told {
    pub metrics: Option<Metrics>,
    /// Its command line, as etcd shows it.
    pub command_line: Vec<String>,
    /// How far its clock is ahead, and how exact that is, in seconds.
    pub clock: Option<(f64, f64)>,
    pub round_trip: Duration,
    /// The certificates that it shows, the leaf first.
    pub chain: Vec<CertificateDer<'static>>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

fn unreached(why: Why, text: impl ToString) -> Unreached {
    Unreached { why, text: text.to_string() }
}

/// Why a name, a port or a socket does not connect.
fn of_dial(error: &io::Error) -> Unreached {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => Why::Refused,
        io::ErrorKind::TimedOut => Why::TimedOut,
        _ => Why::Other,
    };
    unreached(why, tls::cause(error))
}

/// Why a handshake fails, or the first read after it, by which a server with TLS 1.3 refuses.
fn of_tls(error: &(dyn std::error::Error + 'static)) -> Unreached {
    let text = tls::cause(error);
    unreached(why_of_tls(&text), text)
}

/// The kind of a handshake's failure, by Go's words for it or by those of rustls.
pub(super) fn why_of_tls(text: &str) -> Why {
    let known = [
        ("signed by unknown authority", Why::UnknownAuthority),
        ("has expired or is not yet valid", Why::Expired),
        ("not valid for this name", Why::WrongName),
        ("does not look like a TLS handshake", Why::PlainServer),
        ("certificate required", Why::CertificateRequired),
        ("bad certificate", Why::CertificateRequired),
        ("unknown certificate authority", Why::CertificateRequired),
        ("expired certificate", Why::CertificateRequired),
        ("CertificateRequired", Why::CertificateRequired),
        ("BadCertificate", Why::CertificateRequired),
        ("CertificateExpired", Why::CertificateRequired),
        ("UnknownCA", Why::CertificateRequired),
    ];
    let why = known.iter().find(|(part, _)| text.contains(part)).map(|(_, why)| *why);
    why.unwrap_or(Why::OtherTls)
}

async fn dial(address: &Address) -> Result<Box<dyn Stream>, Unreached> {
    match address {
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| of_dial(&error))?;
            Ok(Box::new(stream))
        }
        Address::Tcp(host) => {
            let found = lookup_host(host.as_str()).await;
            let found: Vec<_> =
                found.map_err(|error| unreached(Why::UnknownHost, error))?.collect();
            let stream =
                TcpStream::connect(found.as_slice()).await.map_err(|error| of_dial(&error))?;
            // The error is ignored: it would only be slower.
            let _ = stream.set_nodelay(true);
            Ok(Box::new(stream))
        }
    }
}

/// Whether a name resolves and something listens there.
pub(super) async fn reach(config: &Config, url: &str) -> Result<(), Unreached> {
    dial(&Target::parse(url, config.tls.is_default()).address).await.map(drop)
}

/// Asks a client URL over HTTP. The caller bounds the time. `told` keeps what was learned before a
/// step failed.
pub(super) async fn ask(config: &Config, url: &str, told: &mut Told) -> Result<(), Unreached> {
    let target = Target::parse(url, config.tls.is_default());
    let begun = clock::instant();
    let stream = dial(&target.address).await?;
    told.round_trip = clock::instant().saturating_duration_since(begun);
    let stream: Box<dyn Stream> = match target.tls {
        false => stream,
        true => {
            let files = ClientFiles { protocol: "http/1.1", ..config.tls.files() };
            let connector = Connector::new(files).map_err(|error| of_tls(&error))?;
            let secured = connector.connect(stream, &target.server_name()).await;
            let secured = secured.map_err(|error| of_tls(&error))?;
            let chain = secured.get_ref().1.peer_certificates().unwrap_or_default();
            told.chain = chain.iter().map(|one| one.clone().into_owned()).collect();
            Box::new(secured)
        }
    };
    let failed = |error: &hyper::Error| match target.tls {
        true => of_tls(error),
        false => unreached(Why::Other, tls::cause(error)),
    };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let asked = async {
        let sent = clock::wall_nanos();
        let (headers, body) = get(&mut sender, &target.authority, "/metrics").await?;
        let came = clock::wall_nanos();
        told.metrics = std::str::from_utf8(&body).ok().and_then(Metrics::parse);
        told.clock = difference(&headers, told.metrics.as_ref(), sent, came);
        // Only a server that shows no settings as metrics is asked for its command line.
        let has_settings = told
            .metrics
            .as_ref()
            .is_none_or(|metrics| metrics.labelled("rusd_setting").next().is_some());
        if !has_settings {
            // A server without it tells less.
            let vars = get(&mut sender, &target.authority, "/debug/vars").await;
            let (_, vars) = vars.unwrap_or_default();
            let vars: serde_json::Value = serde_json::from_slice(&vars).unwrap_or_default();
            let words = vars["cmdline"].as_array().into_iter().flatten();
            told.command_line = words.filter_map(|word| Some(word.as_str()?.to_owned())).collect();
        }
        Ok(())
    };
    match select(pin!(asked), pin!(connection)).await {
        Either::Left((asked, _)) => asked.map_err(|error: hyper::Error| failed(&error)),
        Either::Right((Err(error), _)) => Err(failed(&error)),
        // What came before the end can still be read.
        Either::Right((Ok(()), asked)) => asked.await.map_err(|error| failed(&error)),
    }
}

async fn get(
    sender: &mut SendRequest<Empty<Bytes>>,
    host: &str,
    path: &str,
) -> Result<(HeaderMap, Bytes), hyper::Error> {
    let request = Request::get(path).header(HOST, host).body(Empty::new());
    let response = sender.send_request(request.unwrap_or_default()).await?;
    let (parts, body) = response.into_parts();
    // An answer that is too long, or breaks off, is none.
    let body = Limited::new(body, PEER_ANSWER_BYTES_MAX).collect().await;
    Ok((parts.headers, body.map(|body| body.to_bytes()).unwrap_or_default()))
}

/// How far the other clock is ahead, if it was read in the middle between the question and the
/// answer. A header has whole seconds, which it rounds down.
fn difference(
    headers: &HeaderMap,
    metrics: Option<&Metrics>,
    sent: u64,
    came: u64,
) -> Option<(f64, f64)> {
    let (sent, came) = (sent as f64 / 1e9, came as f64 / 1e9);
    let (middle, half) = (f64::midpoint(sent, came), (came - sent).max(0.0) / 2.0);
    if let Some(theirs) = metrics.and_then(|metrics| metrics.value("rusd_wall_clock_seconds")) {
        return Some((theirs - middle, half));
    }
    let date = headers.get(DATE)?.to_str().ok()?;
    Some((date_seconds(date)? + 0.5 - middle, half + 0.5))
}

/// Seconds since 1970 of a date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date_seconds(date: &str) -> Option<f64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut words = date.split([' ', ':']).skip(1);
    let number = |word: Option<&str>| Some(i64::from(word?.parse::<u16>().ok()?));
    let day = number(words.next())?;
    let month = words.next().filter(|month| month.len() == 3)?;
    let month = i64::try_from(MONTHS.find(month)? / 3).ok()?;
    let year = number(words.next())?;
    let (hour, minute) = (number(words.next())?, number(words.next())?);
    let second = number(words.next())?;
    // Months count from March, so that a leap day is the last of its year.
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        assert_eq!(date_seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777.0));
        assert_eq!(date_seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0.0));
        assert_eq!(date_seconds("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000.0));
        assert_eq!(date_seconds("yesterday"), None);
        assert_eq!(date_seconds(&format!("Thu, 01 Jan {} 00:00:00 GMT", i64::MAX)), None);
        assert_eq!(date_seconds("Thu, 01 XX 1970 00:00:00 GMT"), None);
    }

    #[test]
    fn a_clock_is_compared_with_the_middle_of_the_question() {
        let second = 1_000_000_000;
        let metrics = Metrics::of(&[("rusd_wall_clock_seconds", 110.0)]);
        let (ahead, exact) =
            difference(&HeaderMap::new(), Some(&metrics), 100 * second, 102 * second).unwrap();
        assert!((ahead - 9.0).abs() < 1e-6 && (exact - 1.0).abs() < 1e-6, "{ahead} {exact}");
        let mut headers = HeaderMap::new();
        headers.insert(DATE, "Thu, 01 Jan 1970 00:01:40 GMT".parse().unwrap());
        let (ahead, exact) = difference(&headers, None, 100 * second, 100 * second).unwrap();
        assert!((ahead - 0.5).abs() < 1e-6 && exact >= 0.5, "{ahead} {exact}");
        assert_eq!(difference(&HeaderMap::new(), None, 0, 0), None);
    }
}
