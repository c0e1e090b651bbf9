//! What rusd says of an error in the place of etcdctl's words: what failed, and what to do.
//!
//! `KNOWN` has an entry for every text of etcd's that a client may get. Errors of connecting have
//! no text of etcd's: their causes are typed, and each has a hint. Everything here ends in one line
//! without Go's words.

mod causes;
mod plain;

use super::exit::{Exit, Failure};
use crate::client::Error;
use causes::unreachable;
use plain::{plain, plain_text};

/// An error for people.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub exit: Exit,
    pub text: String,
}

/// The words for a command's failure; None if the command has told it itself.
pub(super) fn failure(failure: Failure) -> (Exit, Option<Vec<u8>>) {
    match (failure.cause, failure.message) {
        (Some(error), Some(_)) => {
            let told = explain(&error);
            (told.exit, Some(told.text.into()))
        }
        (_, Some(message)) => (failure.exit, Some(plain(message.bytes()))),
        (_, None) => (failure.exit, None),
    }
}

/// The words for an error of the client.
pub(super) fn explain(error: &Error) -> Told {
    let (exit, text) = match error {
        Error::Unreachable(all) => (Exit::BadConnection, unreachable(all)),
        Error::Deadline => (Exit::Error, DEADLINE.to_owned()),
        Error::Canceled => (Exit::Interrupted, "interrupted".to_owned()),
        Error::Status(status) | Error::Stream(status) => {
            return of_status(status.code(), status.message());
        }
        Error::Tls(text) => (Exit::BadArguments, text.clone()),
        Error::Other(text) => return of_text(text),
    };
    Told { exit, text }
}

/// The words for a reason in etcd's, of a watch that the server has ended.
pub(super) fn reason(text: &str) -> String {
    let of_grpc = text.strip_prefix("rpc error: code = ").and_then(|it| it.split_once(" desc = "));
    of_text(of_grpc.map_or(text, |(_, why)| why)).text
}

const DEADLINE: &str = "no answer in time (--command-timeout, or --dial-timeout for the login). The \
                        cluster may have no leader, or too much to do: 'rusd doctor' shows it. \
                        A large answer over a slow line needs a longer --command-timeout";

/// What to print for a text of etcd's.
#[derive(Clone, Copy)]
enum Words {
    /// etcd's own text says what is wrong, and there is nothing to add.
    AsIs,
    /// What is wrong and what to do, in the place of etcd's text.
    Say(&'static str),
    /// The same for a call without a login, or with a wrong one.
    Login(&'static str),
}

use Words::{AsIs, Login, Say};

/// Texts of etcd's server, without "etcdserver: " if they begin so.
const KNOWN: &[(&str, Words)] = &[
    ("key is not provided", Say("the key is empty; a key has at least one byte")),
    (
        "key not found",
        Say("key not found; --ignore-value and --ignore-lease need a key that exists"),
    ),
    (
        "value is provided",
        Say("--ignore-value keeps the value that the key has; give no value with it"),
    ),
    (
        "lease is provided",
        Say("--ignore-lease keeps the lease that the key has; give no --lease with it"),
    ),
    (
        "too many operations in txn request",
        Say(
            "the transaction has too many operations; split it, or raise --max-txn-ops of the servers",
        ),
    ),
    (
        "duplicate key given in txn request",
        Say("the transaction writes a key twice; each key may be written once"),
    ),
    ("invalid client api version", AsIs),
    ("invalid sort option", AsIs),
    (
        "given member URLs are invalid",
        Say("the peer URLs are not valid; one has the form http://HOST:PORT or https://HOST:PORT"),
    ),
    (
        "request is too large",
        Say(
            "the request is too large for the server; send less, or raise --max-request-bytes there",
        ),
    ),
    (
        "user name is empty",
        Login(
            "login needed: the cluster has users, and no name was given. Log in with --user \
             NAME[:PASSWORD], or with a client certificate (--cert, --key)",
        ),
    ),
    ("role name is empty", Say("the name of the role is empty")),
    (
        "authentication failed, invalid user ID or password",
        Login(
            "cannot log in: wrong user name or password. Check --user and --password; 'rusd user \
             passwd NAME', called by root, sets a new one",
        ),
    ),
    ("permission not given", Say("the permission is missing in the request")),
    (
        "invalid auth management",
        Say(
            "this change would lock root out, so it is refused; while auth is enabled, root keeps its role",
        ),
    ),
    (
        "revision of auth store is old",
        Login("users or roles have changed since the login; call again"),
    ),
    (
        "wrong downgrade target version format",
        Say("the version to downgrade to has the wrong form; 3.6 is one"),
    ),
    (
        "invalid downgrade target version",
        Say(
            "the cluster cannot be downgraded to that version; it goes down by one minor version at a time",
        ),
    ),
    ("unknown alarm action", AsIs),
    (
        "mvcc: required revision has been compacted",
        Say(
            "the revision has been compacted: its history is gone, or is being deleted. Ask for a later one, or for the present (no --rev)",
        ),
    ),
    (
        "mvcc: required revision is a future revision",
        Say("there is no such revision yet; 'rusd endpoint status -w json' shows the present one"),
    ),
    ("too large lease TTL", Say("the TTL is too large; at most 9000000000 seconds are allowed")),
    (
        "mvcc: database space exceeded",
        Say(
            "the store is full (alarm NOSPACE): writes are refused. 'rusd space' shows what takes the \
             room; compact, defrag, then 'rusd alarm disarm'",
        ),
    ),
    (
        "too many requests",
        Say("the server has too many requests under way; call again later, or at another endpoint"),
    ),
    ("requested lease not found", Say("there is no such lease; it has expired, or was revoked")),
    ("member not found", Say("there is no such member; 'rusd member list' shows their ids")),
    ("lease already exists", AsIs),
    (
        "member ID already exist",
        Say("there is a member with this id already; 'rusd member list' shows all"),
    ),
    (
        "Peer URLs already exists",
        Say("a member has these peer URLs already; 'rusd member list' shows all"),
    ),
    (
        "re-configuration failed due to not enough started members",
        Say(
            "too few members are running for this change: it could cost the cluster its quorum. Start \
             the missing ones first ('rusd endpoint health --cluster')",
        ),
    ),
    (
        "can only promote a learner member",
        Say("this member votes already; only a learner can be promoted"),
    ),
    ("can only promote a learner member which is in sync with leader", Say(NOT_UP_TO_DATE)),
    (
        "too many learner members in cluster",
        Say(
            "the cluster has as many learners as it may have (--max-learners); promote or remove one first",
        ),
    ),
    ("cluster ID mismatch", Say("the member belongs to another cluster")),
    (
        "root user does not exist",
        Say(
            "there is no user root, so auth would lock everybody out; 'rusd user add root' makes one",
        ),
    ),
    (
        "root user does not have root role",
        Say("the user root does not have the role root; 'rusd user grant-role root root' gives it"),
    ),
    ("user name already exists", Say("there is a user with this name already")),
    ("user name not found", Say("there is no such user; 'rusd user list' shows all")),
    ("role name already exists", Say("there is a role with this name already")),
    ("role name not found", Say("there is no such role; 'rusd role list' shows all")),
    (
        "role is not granted to the user",
        Say("the user does not have this role; 'rusd user get NAME' shows them"),
    ),
    (
        "permission is not granted to the role",
        Say(
            "the role does not have this permission; 'rusd role get NAME' shows them, and key and end must be equal",
        ),
    ),
    (
        "authentication is not enabled",
        Say("auth is not enabled, so there is nobody to log in; 'rusd auth enable' enables it"),
    ),
    (
        "not leader",
        Say(
            "this member is not the leader; ask that one ('rusd endpoint status --cluster' shows it)",
        ),
    ),
    (
        "not capable",
        Say("the cluster's version does not have this call yet; some members are older"),
    ),
    (
        "rpc not supported for learner",
        Say(
            "this member is a learner and does not answer such a call; name a voting member with --endpoints",
        ),
    ),
    (
        "bad leader transferee",
        Say("that member cannot lead: it is no voting member, or is not reached"),
    ),
    (
        "cluster version not found during downgrade",
        Say("the cluster has no version yet; try again once all its members are up"),
    ),
    (
        "cluster has a downgrade job in progress",
        Say("a downgrade is under way already; 'rusd downgrade cancel' ends it"),
    ),
    ("no inflight downgrade job", Say("no downgrade is under way")),
    (
        "permission denied",
        Say(
            "permission denied: the user may not do this, or not with these keys. 'rusd user get NAME \
             --detail', called by root, shows what it may",
        ),
    ),
    (
        "invalid auth token",
        Login(
            "login needed: the token is not valid, or no longer. Log in with --user NAME[:PASSWORD]",
        ),
    ),
    (
        "corrupt cluster",
        Say("a member's data are damaged, or differ from the others' (alarm CORRUPT), so this is \
             refused. 'rusd endpoint hashkv --cluster' shows who differs; on its machine, once it is \
             stopped, 'rusd check data' looks for damage and 'rusd rebuild' mends it"),
    ),
    ("watch canceled", AsIs),
    ("request canceled", AsIs),
    (
        "no leader",
        Say(
            "the cluster has no leader now: a majority of its members must run and reach each other. \
             'rusd doctor' shows who is missing",
        ),
    ),
    ("leader changed", Say("the leader has changed meanwhile; call again")),
    ("server stopped", Say("the server is shutting down; call again, or at another endpoint")),
    ("request timed out", Say(TIMED_OUT)),
    ("request timed out, possibly due to previous leader failure", Say(TIMED_OUT)),
    ("request timed out, possibly due to connection lost", Say(TIMED_OUT)),
    (
        "request timed out, waiting for the applied index took too long",
        Say(
            "the server took too long to catch up with its log; it may be overloaded. Call again later",
        ),
    ),
    (
        "unhealthy cluster",
        Say(
            "the cluster is not healthy enough for this change. 'rusd endpoint health --cluster' shows \
             who is missing; a member counts five seconds after it has connected; \
             --strict-reconfig-check of the servers wants it so",
        ),
    ),
    (
        "auth: authentication failed, password was given for no password user",
        Login(
            "cannot log in: this user has no password. Log in with a client certificate for its name \
             (--cert, --key), without --user",
        ),
    ),
];

const NOT_UP_TO_DATE: &str = "the learner is not up to date with the leader yet; try again once it \
                              is. If it stays so, see the handbook, \"Learner not promoted\"";
const TIMED_OUT: &str = "the request timed out in the cluster, and may still take effect. It may have \
                         lost its leader or have too much to do: 'rusd doctor' shows it";

fn of_status(code: tonic::Code, message: &str) -> Told {
    use tonic::Code;
    let rest = message.strip_prefix("etcdserver: ").unwrap_or(message);
    if let Some((_, words)) = KNOWN.iter().find(|(text, _)| *text == rest) {
        let (exit, text) = match words {
            AsIs => (Exit::Error, rest),
            Say(text) => (Exit::Error, *text),
            Login(text) => (Exit::BadConnection, *text),
        };
        return Told { exit, text: text.into() };
    }
    if let Some(status) = http_status(rest) {
        let text = format!(
            "the server answers, but not with gRPC (HTTP status {status}). Is this the port for \
             clients, 2379 by default?"
        );
        return Told { exit: Exit::BadConnection, text };
    }
    let exit = match code {
        Code::Unauthenticated => Exit::BadConnection,
        _ => Exit::Error,
    };
    let advice = match code {
        Code::ResourceExhausted if rest.starts_with("trying to send") => {
            "send less, or raise this command's --max-request-bytes"
        }
        Code::ResourceExhausted if rest.starts_with("grpc: received") => {
            "ask for less (--limit), or raise --max-recv-bytes"
        }
        Code::ResourceExhausted => "call again later",
        Code::Unavailable => "the server went away or is not ready; call again",
        Code::DeadlineExceeded => "call again, or raise --command-timeout",
        Code::Unimplemented => "the server does not have this call; it may be older, or no etcd",
        Code::Unauthenticated => "log in with --user NAME[:PASSWORD]",
        Code::PermissionDenied => "the user may not do this",
        Code::Aborted | Code::Cancelled => "call again",
        Code::DataLoss => {
            "the data may be damaged: 'rusd endpoint hashkv --cluster' compares the members"
        }
        Code::Internal => "the server's log may say more",
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange => "",
    };
    let rest = plain_text(rest);
    let text = match (rest.as_str(), advice) {
        ("", "") => format!("the server refuses the call ({code:?}) and does not say why"),
        ("", advice) => advice.to_owned(),
        (rest, "") => rest.to_owned(),
        (rest, advice) => format!("{rest}; {advice}"),
    };
    Told { exit, text }
}

/// The status of an answer of plain HTTP, in the texts that tonic makes of one.
fn http_status(message: &str) -> Option<&str> {
    let marks = ["response with status: ", "mapped from HTTP status code "];
    marks.iter().find_map(|mark| message.split_once(mark)).map(|(_, status)| status)
}

/// What is wrong with `--endpoints` without a server.
pub(super) const NO_SERVER: &str =
    "--endpoints names no server; it takes HOST:PORT, several with commas";

/// A text that the client made. Some begin as those of the server do.
fn of_text(text: &str) -> Told {
    match text {
        "etcdclient: no available endpoints" => Told { exit: Exit::Usage, text: NO_SERVER.into() },
        text if text.starts_with("etcdserver: ") => of_status(tonic::Code::Unknown, text),
        text => Told { exit: Exit::Error, text: plain_text(text) },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::{Code, Status};

    use super::*;
    use crate::client::{Cause, Unreached};
    use crate::tls::Fault;

    #[test]
    fn reasons_and_plain_texts_have_no_words_of_go() {
        let denied =
            reason("rpc error: code = PermissionDenied desc = etcdserver: permission denied");
        assert!(denied.starts_with("permission denied: the user may not do this"), "{denied}");
        let text = plain_text("data-dir \"m1\" not empty or could not be read");
        assert!(text.starts_with("\"m1\" exists and is not empty; give --data-dir"), "{text}");
        assert!(plain_text("unsupported output format").contains("jsonl"));
    }

    fn said(error: &Error) -> String {
        explain(error).text
    }

    /// Whether a text is what a person should see: one line, without the words of Go and gRPC.
    fn is_plain(text: &str) -> bool {
        let odd = [
            "\n",
            "rpc error",
            "{",
            "desc =",
            "context deadline",
            "strconv",
            "etcdserver",
            "etcdclient",
        ];
        !odd.iter().any(|odd| text.contains(odd)) && !text.is_empty()
    }

    #[test]
    fn every_text_of_etcds_has_its_words() {
        let of_server =
            crate::rpc::Error::texts().filter_map(|text| text.strip_prefix("etcdserver: "));
        let missing: Vec<_> = crate::client::KNOWN
            .iter()
            .copied()
            .chain(of_server)
            .filter(|text| !KNOWN.iter().any(|(known, _)| known == text))
            .collect();
        assert!(missing.is_empty(), "no words for {missing:?}");
        for (text, _) in KNOWN {
            let error = Error::Status(Status::unknown(format!("etcdserver: {text}")));
            assert!(is_plain(&said(&error)), "{text}: {}", said(&error));
            assert_eq!(
                KNOWN.iter().filter(|(other, _)| other == text).count(),
                1,
                "{text} stands twice"
            );
        }
    }

    #[test]
    fn every_code_is_told_without_its_name() {
        for number in 0..=16 {
            let code = Code::from_i32(number);
            for message in ["something odd", ""] {
                let text = said(&Error::Stream(Status::new(code, message)));
                assert!(is_plain(&text) && text.contains(message), "{code:?}: {text}");
            }
        }
        let unauthenticated = explain(&Error::Status(Status::unauthenticated("x")));
        assert_eq!(unauthenticated.exit, Exit::BadConnection);
        assert!(is_plain(&said(&Error::Deadline)));
    }

    #[test]
    fn an_answer_of_plain_http_is_no_etcds() {
        for (message, status) in [
            (
                "protocol error: received message with invalid compression flag: 52 (valid flags are \
                 0 and 1) while receiving response with status: 404 Not Found",
                "404 Not Found",
            ),
            ("grpc-status header missing, mapped from HTTP status code 404", "404"),
        ] {
            let told = explain(&Error::Status(Status::internal(message)));
            let text = format!("not with gRPC (HTTP status {status})");
            assert!(told.exit == Exit::BadConnection && told.text.contains(&text), "{told:?}");
        }
    }

    fn every_cause() -> Vec<Cause> {
        let second = Duration::from_secs(1);
        let faults = [
            Fault::UnknownAuthority,
            Fault::Expired(None),
            Fault::NotYetValid(Some(0)),
            Fault::WrongName("b".into(), vec!["a".into()]),
            Fault::WrongUsage,
            Fault::NotTls,
            Fault::CertificateRequired,
            Fault::ClientExpired,
            Fault::ClientUnknown,
            Fault::ClientRefused("revoked certificate"),
            Fault::Other("odd".into()),
        ];
        let plain = [
            Cause::Refused,
            Cause::NoSocket,
            Cause::UnknownHost,
            Cause::NameSilent(second),
            Cause::NoRoute,
            Cause::Unconnected(second),
            Cause::Silent(second),
            Cause::Closed,
            Cause::SpeaksTls,
            Cause::NotGrpc,
            Cause::BadAddress,
            Cause::Other("odd".into()),
        ];
        plain.into_iter().chain(faults.map(Cause::Tls)).collect()
    }

    #[test]
    fn every_cause_is_told_with_what_to_try() {
        for cause in every_cause() {
            let endpoint = "https://a:1".to_owned();
            let one = vec![Unreached { endpoint, cause: cause.clone() }];
            let text = said(&Error::Unreachable(one.clone()));
            assert!(
                text.starts_with("cannot connect to https://a:1: ") && is_plain(&text),
                "{text}"
            );
            let endpoint = "b:2".to_owned();
            let both = [one, vec![Unreached { endpoint, cause: Cause::Refused }]].concat();
            let text = said(&Error::Unreachable(both));
            let parts =
                ["any endpoint: https://a:1: ", &cause.to_string(), "; b:2: connection refused. "];
            assert!(parts.iter().all(|part| text.contains(part)) && is_plain(&text), "{text}");
        }
    }
}
