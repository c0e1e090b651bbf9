//! `cert`: makes, shows and checks certificates.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::cert::{
    self, CertRequest, Certificate, Finding, Generated, Item, KeyType, Purpose, Subject,
};
use crate::cli::confirm;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::format::{Display, Format};
use crate::cli::record::{Records, Value};
use crate::client::{Address, Config, Target};
use crate::clock::Clock as _;
use crate::go;
use crate::limits::CERTIFICATE_DAYS_LEFT_MIN;
use crate::tls::{self, CertificateDer, Shown};

/// `cert gen`.
pub(super) fn make(context: Context) -> Outcome {
    let display = context.display_of_flags()?;
    let is_data = is_data(&display)?;
    let order = order(&context)?;
    if order.replaces && order.dir.exists() {
        let dir = order.dir.as_os_str().as_bytes();
        let what =
            b": certificates and keys of the same names are replaced, and an authority that \
                     is replaced makes all its certificates worthless.";
        confirm::confirm(&context, [b"--force in ".as_slice(), dir, what].concat())?;
    }
    let made = cert::make(&order, &*context.clock).map_err(Failure::error)?;
    if is_data {
        let files: Vec<_> =
            made.files.iter().map(|(path, what)| json!({ "path": path, "what": what })).collect();
        print(&display, &json!({ "ca": made.ca, "files": files }));
        return Ok(());
    }
    for (path, what) in &made.files {
        context.printer.sentences(&format!("{}: {what}", path.display()));
    }
    if made.is_cut_short {
        context.printer.line("They end with the authority, which is earlier than ordered.");
    }
    context.printer.out(advice(&order, &made));
    Ok(())
}

fn order(context: &Context) -> Result<CertRequest, Failure> {
    if !context.args.is_empty() {
        return Err(Failure::arguments("cert gen takes no arguments; names go with --hosts"));
    }
    let text = |name| context.flags.string(name);
    let words = |name: &str| -> Vec<String> {
        // A default with several words is one value of the list, so words are split again.
        let list = context.flags.strings(name).join(",");
        let words = list.split(',').map(|word| word.trim().to_owned());
        words.filter(|word| !word.is_empty()).collect()
    };
    let purpose = |name: &String| {
        let text = || format!("--only takes server, peer and client, not {name}");
        Purpose::parse(name).ok_or_else(|| Failure::arguments(text()))
    };
    let path = |name| context.flags.path(name).map(PathBuf::from);
    let ca = match (path("ca-cert"), path("ca-key")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(Failure::arguments("--ca-cert and --ca-key go together")),
    };
    let key_type = KeyType::parse(text("key-type"));
    Ok(CertRequest {
        dir: path("dir").unwrap_or_default(),
        hosts: words("hosts"),
        clients: words("clients"),
        purposes: words("only").iter().map(purpose).collect::<Result<_, _>>()?,
        ca,
        days: number(context, "days"),
        ca_days: number(context, "ca-days"),
        key_type: key_type.ok_or_else(|| Failure::arguments("unknown --key-type"))?,
        replaces: context.flags.bool("force"),
    })
}

fn number(context: &Context, name: &str) -> u64 {
    u64::try_from(context.flags.int(name)).unwrap_or_default()
}

/// Instructions for the use of the new certificates.
fn advice(order: &CertRequest, made: &Generated) -> String {
    let (ca, dir) = (made.ca.display(), order.dir.display());
    let has = |purpose| order.purposes.contains(&purpose);
    let mut text = String::new();
    if has(Purpose::Server) {
        text += &format!(
            "\nA server with it, on https URLs:\n  rusd serve --cert-file {dir}/server.crt --key-file \
             {dir}/server.key \\\n    --trusted-ca-file {ca} --client-cert-auth"
        );
        if has(Purpose::Peer) {
            text += &format!(
                " \\\n    --peer-cert-file {dir}/peer.crt --peer-key-file {dir}/peer.key \\\n    \
                 --peer-trusted-ca-file {ca} --peer-client-cert-auth"
            );
        }
        text += " ...\n";
    }
    if let Some(client) = order.clients.first().filter(|_| has(Purpose::Client)) {
        text += &format!(
            "\nA client:\n  rusd --endpoints https://... --cacert {ca} \\\n    --cert \
             {dir}/{client}.crt --key {dir}/{client}.key ...\n"
        );
    }
    text
}

/// Whether the answer is data, and not sentences.
fn is_data(display: &Display) -> Result<bool, Failure> {
    match display.format {
        Format::Simple => Ok(false),
        Format::Json | Format::Yaml | Format::Jsonl => Ok(true),
        _ => {
            let text = "cert prints as simple, json, yaml or jsonl only";
            Err(Failure::new(Exit::BadFeature, text))
        }
    }
}

fn print(display: &Display, data: &serde_json::Value) {
    match display.format {
        Format::Json => display.out.line(data.to_string()),
        _ => display.records(&match Value::from(data) {
            Value::List(all) => Records::Many(all),
            one => Records::One(one),
        }),
    }
}

fn now(context: &Context) -> u64 {
    context.clock.unix_nanos() / 1_000_000_000
}

/// `cert show`.
pub(super) async fn show(mut context: Context) -> Outcome {
    let config = context.config_as_given().await?;
    let is_data = is_data(&context.display)?;
    if context.args.is_empty() {
        return Err(Failure::arguments("cert show requires a file or an endpoint"));
    }
    let mut all = Vec::new();
    for index in 0..context.args.len() {
        let (file, source) = (context.path(index), shown_name(context.arg(index)));
        let items = match is_file(file) {
            true => cert::read(file, now(&context)).map_err(Failure::error)?,
            false => {
                let (_, shown) = look(&context.text(index)?, &config).await?;
                let describe = |one| cert::describe(one, now(&context));
                let chain = shown.chain.iter().filter_map(describe);
                let items: Vec<Item> = chain.map(|one| Item::Certificate(Box::new(one))).collect();
                if items.is_empty() {
                    let why = shown.refusal.unwrap_or_else(|| "it shows no certificate".into());
                    return Err(Failure::error(format!("{source}: {why}")));
                }
                items
            }
        };
        if is_data {
            all.push(json!({ "source": source, "items": items }));
            continue;
        }
        for item in &items {
            context.printer.out(format!("{source}: {}", shown_item(item)));
        }
    }
    if is_data {
        print(&context.display, &json!(all));
    }
    Ok(())
}

/// Whether an argument is a path and not an endpoint: it exists, or has no colon.
fn is_file(source: &Path) -> bool {
    source.exists() || !source.as_os_str().as_bytes().contains(&b':')
}

/// A file name as text, quoted if it is not UTF-8.
fn shown_name(name: &[u8]) -> String {
    std::str::from_utf8(name).map_or_else(|_| go::quote(name), str::to_owned)
}

fn shown_item(item: &Item) -> String {
    let line = |name: &str, value: &str| match value {
        "" => String::new(),
        value => format!("  {name}: {value}\n"),
    };
    match item {
        Item::Certificate(certificate) => shown_certificate(certificate),
        Item::Key(key) => {
            format!(
                "private key\n{}{}",
                line("kind", &key.kind),
                line("key SHA-256", &key.key_sha256)
            )
        }
        Item::RevocationList(list) => [
            "revocation list\n".to_owned(),
            line("issuer", &list.issuer),
            line("of", &list.this_update),
            line("next", &list.next_update),
            line("revoked", &list.revoked.join(", ")),
        ]
        .concat(),
    }
}

fn shown_certificate(certificate: &Certificate) -> String {
    let mut text = match (certificate.is_authority, certificate.is_self_signed) {
        (true, true) => "certificate of a root authority\n".to_owned(),
        (true, false) => "certificate of an authority\n".to_owned(),
        (false, true) => "self-signed certificate\n".to_owned(),
        (false, false) => "certificate\n".to_owned(),
    };
    let usages = match certificate.usages.as_slice() {
        [] => "any".to_owned(),
        usages => usages.join(", "),
    };
    let left = match certificate.days_left {
        days if days < 0 => format!("EXPIRED {} days ago", -days),
        days => format!("{days} days left"),
    };
    let validity = format!("{} to {}, {left}", certificate.not_before, certificate.not_after);
    for (name, value) in [
        ("subject", &certificate.subject),
        ("issuer", &certificate.issuer),
        ("serial", &certificate.serial),
        ("names", &certificate.dns_names.join(", ")),
        ("addresses", &certificate.addresses.join(", ")),
        ("for", &usages),
        ("valid", &validity),
        ("key", &certificate.key),
        ("SHA-256", &certificate.sha256),
        ("SHA-1", &certificate.sha1),
        ("key SHA-256", &certificate.key_sha256),
    ] {
        if !value.is_empty() {
            text += &format!("  {name}: {value}\n");
        }
    }
    text
}

/// Makes a TLS handshake with an endpoint. Returns its host and the certificates that it sent.
async fn look(endpoint: &str, config: &Config) -> Result<(String, Shown), Failure> {
    let target = Target::parse(endpoint, true);
    let files = config.tls.files();
    let failed = |error: &dyn std::fmt::Display| Failure::error(format!("{endpoint}: {error}"));
    let late = || failed(&"dial timeout");
    let host = target.server_name();
    let shown = match &target.address {
        Address::Tcp(address) => {
            let dialled = timeout(config.dial_timeout, TcpStream::connect(address)).await;
            let stream = dialled.map_err(|_| late())?.map_err(|error| failed(&error))?;
            tls::show_certificates(&files, stream, &host).await
        }
        Address::Unix(path) => {
            let dialled = timeout(config.dial_timeout, UnixStream::connect(path)).await;
            let stream = dialled.map_err(|_| late())?.map_err(|error| failed(&error))?;
            tls::show_certificates(&files, stream, &host).await
        }
    };
    Ok((host, shown.map_err(|error| failed(&error))?))
}

/// `cert check`.
pub(super) async fn check(mut context: Context) -> Outcome {
    let config = context.config_as_given().await?;
    let is_data = is_data(&context.display)?;
    let Checked { subject, findings, warnings } = match context.args.len() {
        0 => of_files(&context, &config)?,
        1 => with_server(&context, &config).await?,
        _ => return Err(Failure::arguments("cert check takes one endpoint at most")),
    };
    if is_data {
        let is_ok = findings.is_empty();
        let data =
            json!({ "subject": subject, "ok": is_ok, "findings": findings, "warnings": warnings });
        print(&context.display, &data);
    } else {
        for Finding { problem, text } in &findings {
            context.printer.sentences(&format!("{subject}: {problem}: {text}"));
        }
        for Finding { problem, text } in &warnings {
            context.printer.sentences(&format!("{subject}: warning: {problem}: {text}"));
        }
        if findings.is_empty() && warnings.is_empty() {
            context.printer.line(format!("{subject}: nothing is wrong"));
        }
    }
    match findings.is_empty() {
        true => Ok(()),
        false => Err(Failure::silent(Exit::Error)),
    }
}

struct Checked {
    subject: String,
    /// Why a handshake would fail.
    findings: Vec<Finding>,
    /// What will make it fail soon.
    warnings: Vec<Finding>,
}

fn ending(chain: &[CertificateDer<'_>], context: &Context) -> Vec<Finding> {
    cert::ending(chain, now(context), CERTIFICATE_DAYS_LEFT_MIN)
}

fn of_files(context: &Context, config: &Config) -> Result<Checked, Failure> {
    let Some(path) = &config.tls.cert else {
        return Err(Failure::arguments("cert check requires --cert, or an endpoint"));
    };
    let purpose = Purpose::parse(context.flags.string("for")).unwrap_or(Purpose::Server);
    let own = own(context, config, purpose)?;
    let subject = shown_name(path.as_os_str().as_bytes());
    let warnings = ending(&own.chain, context);
    Ok(Checked { subject, findings: cert::check(&own), warnings })
}

/// The certificate that the flags name, to be judged as the other side would judge it.
fn own(context: &Context, config: &Config, purpose: Purpose) -> Result<Subject, Failure> {
    let key = config.tls.key.as_ref().map(tls::key).transpose();
    let crl = context.flags.path("crl").map(tls::revoked).transpose();
    // Without --cacert the authorities of the other side are unknown, so the chain is not verified.
    let roots = config.tls.ca.as_ref().map(|path| tls::roots(Some(path))).transpose();
    let host = context.flags.string("host");
    Ok(Subject {
        chain: tls::chain(config.tls.cert.as_deref().unwrap_or(Path::new("")))
            .map_err(Failure::error)?,
        key: key.map_err(Failure::error)?,
        roots: roots.map_err(Failure::error)?,
        revoked: crl.map_err(Failure::error)?.unwrap_or_default(),
        host: Some(host.to_owned()).filter(|host| !host.is_empty()),
        purposes: vec![purpose],
        now: now(context),
    })
}

async fn with_server(context: &Context, config: &Config) -> Result<Checked, Failure> {
    let endpoint = context.text(0)?;
    let (host, shown) = look(&endpoint, config).await?;
    let mut findings = Vec::new();
    let mut warnings = ending(&shown.chain, context);
    if shown.chain.is_empty() && speaks_plain_text(&endpoint, config).await {
        let text = "this port speaks plain text: there is no TLS, and no certificate to check";
        findings.push(Finding { problem: "plain-text", text: text.to_owned() });
        return Ok(Checked { subject: endpoint, findings, warnings });
    }
    if !shown.chain.is_empty() {
        let ca = config.tls.ca.as_ref();
        let host = match context.flags.string("host") {
            "" => host,
            host => host.to_owned(),
        };
        let subject = Subject {
            chain: shown.chain,
            roots: Some(tls::roots(ca).map_err(Failure::error)?),
            host: Some(host),
            purposes: vec![Purpose::Server],
            now: now(context),
            ..Subject::default()
        };
        findings = cert::check(&subject);
    }
    if let Some(refusal) = shown.refusal {
        findings.push(Finding { problem: "refused-by-server", text: refusal });
    }
    if config.tls.cert.is_some() {
        // The server's authorities may differ from --cacert, so this chain is not verified against
        // them.
        let own = Subject { roots: None, host: None, ..own(context, config, Purpose::Client)? };
        let of_own = |Finding { problem, text }: Finding| Finding {
            problem,
            text: format!("own certificate: {text}"),
        };
        findings.extend(cert::check(&own).into_iter().map(of_own));
        warnings.extend(ending(&own.chain, context).into_iter().map(of_own));
    }
    Ok(Checked { subject: endpoint, findings, warnings })
}

/// Whether a port answers a request of HTTP in plain text. One that refuses a handshake for another
/// reason, or that answers so only to send its client to TLS, does not.
async fn speaks_plain_text(endpoint: &str, config: &Config) -> bool {
    let target = Target::parse(endpoint, true);
    let Address::Tcp(address) = &target.address else { return false };
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let host = &target.authority;
        let request = format!("GET /version HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(config.dial_timeout, ask).await;
    // Go's servers answer plain text on a port for TLS with 400.
    answer.is_ok_and(|answer| {
        answer.is_ok_and(|it| it.starts_with(b"HTTP/1.") && !it.ends_with(b"400"))
    })
}
