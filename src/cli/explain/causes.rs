//! Why no endpoint can be reached, and what to try.

use crate::client::{Cause, Unreached};
use crate::tls::Fault;

/// The error of endpoints that cannot be reached, in one line.
pub(super) fn unreachable(all: &[Unreached]) -> String {
    let [first, others @ ..] = all else { return "--endpoints names no server".to_owned() };
    let hint = hint(&first.endpoint, &first.cause);
    if others.is_empty() {
        let Unreached { endpoint, cause } = first;
        return format!("cannot connect to {endpoint}: {cause}. {hint}");
    }
    let list: Vec<_> = all.iter().map(ToString::to_string).collect();
    let list = format!("cannot connect to any endpoint: {}", list.join("; "));
    let is_same = |other: &Unreached| {
        std::mem::discriminant(&other.cause) == std::mem::discriminant(&first.cause)
    };
    match others.iter().all(is_same) {
        true => format!("{list}. {hint}"),
        false => format!("{list}. 'rusd endpoint status' asks each one alone"),
    }
}

/// What to try.
fn hint(endpoint: &str, cause: &Cause) -> String {
    let bare = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    match cause {
        Cause::Refused | Cause::NoSocket => {
            "Is a server running there? Start one with 'rusd serve', or name another with --endpoints"
                .to_owned()
        }
        Cause::UnknownHost if is_of_another_scheme(endpoint) => {
            "An endpoint begins with http://, https://, unix:// or unixs://, or is HOST:PORT".to_owned()
        }
        Cause::UnknownHost => "Check the name in --endpoints".to_owned(),
        Cause::NameSilent(_) => {
            "Check the name in --endpoints and the name server, or give an address".to_owned()
        }
        Cause::NoRoute => "Check the address in --endpoints and the network".to_owned(),
        Cause::Unconnected(_) => "Check the address, whether its machine runs, and a firewall on the \
                                  way; --dial-timeout is how long it may take"
            .to_owned(),
        Cause::Silent(_) => "A member that was started answers only once there is a quorum: see its \
                             log, and whether the others run. If nothing is missing, it hangs; \
                             --dial-timeout is how long an answer may take"
            .to_owned(),
        Cause::Closed => "The server may be starting or stopping: call again, or wait for it with \
                          --wait 30s; if that does not help, is this the port for clients, and does \
                          it want TLS (https:// or http:// in --endpoints)?"
            .to_owned(),
        Cause::SpeaksTls => format!(
            "Use https://{bare} in --endpoints, with --cacert FILE for the authority of its certificate"
        ),
        Cause::NotGrpc => "Is this the port for clients, 2379 by default?".to_owned(),
        Cause::BadAddress => "An endpoint is HOST:PORT, such as 127.0.0.1:2379".to_owned(),
        Cause::Tls(fault) => of_fault(bare, fault),
        Cause::Other(_) => format!("'rusd cert check {bare}' may say more"),
    }
}

fn is_of_another_scheme(endpoint: &str) -> bool {
    let schemes = ["http://", "https://", "unix://", "unixs://"];
    endpoint.contains(":/") && !schemes.iter().any(|scheme| endpoint.starts_with(scheme))
}

fn of_fault(bare: &str, fault: &Fault) -> String {
    match fault {
        Fault::UnknownAuthority => {
            "Name its authority with --cacert FILE; --insecure-skip-tls-verify trusts anybody".to_owned()
        }
        Fault::Expired(_) => {
            "Renew it on the server ('rusd cert gen' makes one), and check the clocks".to_owned()
        }
        Fault::NotYetValid(_) => "Check the clocks of both machines".to_owned(),
        Fault::WrongName(..) => "Use one of its names in --endpoints, or make a certificate for this \
                                name ('rusd cert gen --hosts')"
            .to_owned(),
        Fault::WrongUsage => format!("'rusd cert check {bare}' shows what it is for"),
        Fault::NotTls => format!(
            "Use http://{bare} in --endpoints, without --cacert, --cert, --key and \
             --insecure-transport=false, and without the variables for them (ETCDCTL_CACERT and so on)"
        ),
        Fault::CertificateRequired => {
            "Give one that its authority has signed, with --cert FILE and --key FILE".to_owned()
        }
        Fault::ClientExpired => {
            "See its dates ('rusd cert show FILE' for the file of --cert), and check the clocks".to_owned()
        }
        Fault::ClientUnknown => {
            "Give one that an authority of the server (--trusted-ca-file) has signed, with --cert and --key"
                .to_owned()
        }
        Fault::ClientRefused(_) => format!(
            "Check the file of --cert: its end, its usage, its names and whether it is revoked ('rusd \
             cert check {bare}')"
        ),
        Fault::Other(_) => format!("'rusd cert check {bare}' may say more"),
    }
}
