//! The flags that every client command has.

use clap::Arg;

use super::{bytes, duration, flag, inherited, path, size, string, switch, value, write_out};

/// All global flags. The help of a command hides them; `options` lists them.
pub(super) fn globals() -> Vec<Arg> {
    let flags = calls().into_iter().chain(identity());
    flags.map(|flag| flag.global(true).hide(true)).collect()
}

/// The global flags that etcdctl does not have.
pub(super) fn rusds() -> Vec<Arg> {
    let flags = [duration("wait", "0s", "how long to wait for a server that is not up yet")];
    flags.map(|flag| flag.global(true).hide(true)).into()
}

/// Titles under which `rusd options` and the manual list global flags. Others stand under "Other
/// options".
const HEADINGS: [(&str, &[&str]); 4] = [
    (
        "Connection",
        &[
            "endpoints",
            "discovery-srv",
            "discovery-srv-name",
            "insecure-discovery",
            "wait",
            "dial-timeout",
            "command-timeout",
            "keepalive-time",
            "keepalive-timeout",
            "max-request-bytes",
            "max-recv-bytes",
        ],
    ),
    ("TLS", &["cacert", "cert", "key", "insecure-transport", "insecure-skip-tls-verify"]),
    ("Login", &["user", "password", "auth-jwt-token"]),
    ("Output", &["write-out", "hex", "decode", "color", "yes", "debug"]),
];

/// Adds the title under which our own help lists the flag, and its variable.
pub(super) fn told(flag: Arg) -> Arg {
    let name = flag.get_id().as_str();
    let heading = HEADINGS.iter().find(|(_, names)| names.contains(&name));
    let title = heading.map_or("Other options", |(title, _)| title);
    inherited(flag).help_heading(title)
}

/// The place of a title among those of global flags.
pub(super) fn place(title: &str) -> usize {
    HEADINGS.iter().position(|(known, _)| *known == title).unwrap_or(HEADINGS.len())
}

/// Flags for endpoints, timeouts and output.
fn calls() -> Vec<Arg> {
    vec![
        value("endpoints", "strings", "127.0.0.1:2379", "gRPC endpoints"),
        flag("debug", "enable client-side debug logging"),
        write_out(),
        flag("hex", "print byte strings as hex encoded strings"),
        duration("dial-timeout", "2s", "dial timeout for client connections"),
        duration(
            "command-timeout",
            "5s",
            "timeout for short running command (excluding dial timeout)",
        ),
        duration("keepalive-time", "2s", "keepalive time for client connections"),
        duration("keepalive-timeout", "6s", "keepalive timeout for client connections"),
        size(
            "max-request-bytes",
            "0",
            "client-side request send limit in bytes (if 0, it defaults to 2.0 MiB (2 * 1024 * \
             1024).)",
        ),
        size(
            "max-recv-bytes",
            "0",
            "client-side response receive limit in bytes (if 0, it defaults to \"math.MaxInt32\")",
        ),
    ]
}

/// Flags for TLS, discovery and credentials.
fn identity() -> Vec<Arg> {
    vec![
        switch("insecure-transport", "disable transport security for client connections"),
        switch("insecure-discovery", "accept insecure SRV records describing cluster endpoints"),
        flag(
            "insecure-skip-tls-verify",
            "skip server certificate verification (CAUTION: this option should be enabled only for \
             testing purposes)",
        ),
        path("cert", "", "identify secure client using this TLS certificate file"),
        path("key", "", "identify secure client using this TLS key file"),
        path(
            "cacert",
            "",
            "verify certificates of TLS-enabled secure servers using this CA bundle",
        ),
        bytes(
            "auth-jwt-token",
            "",
            "JWT token used for authentication (if this option is used, --user and --password \
             should not be set)",
        ),
        bytes(
            "user",
            "",
            "username[:password] for authentication (prompt if password is not supplied)",
        ),
        bytes(
            "password",
            "",
            "password for authentication (if this option is used, --user option shouldn't include \
             password)",
        ),
        string(
            "discovery-srv",
            "",
            "domain name to query for SRV records describing cluster endpoints",
        )
        .short('d'),
        string("discovery-srv-name", "", "service name to query when using DNS discovery"),
    ]
}
