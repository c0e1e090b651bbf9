//! The commands that etcd does not have.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command, ValueHint};

use super::{Maker, among, bytes, flag, inherited, int, path, string, uint, value};
use crate::cert::KeyType;
use crate::cli::terminal::Colour;
use crate::server::{self, Reference};

impl Maker {
    /// rusd's own commands.
    pub(super) fn rusd(&self) -> [Command; 10] {
        [
            self.doctor(),
            self.command(
                "rebuild",
                "rebuild [--data-dir DIR | --member ID|NAME] --endpoints URLS",
                "Puts a new member in the place of a stopped one that is damaged or lost",
            )
            .long_about(REBUILD_LONG)
            .args([
                path(
                    "data-dir",
                    "",
                    "the damaged member's data directory; none if its disk is lost",
                ),
                path("wal-dir", "", "its log, if it is not in its data directory"),
                string("member", "", "its id or its name, if no log says whose it is"),
                value(
                    "peer-urls",
                    "strings",
                    "",
                    "peer URLs of the new member, if they differ or the list has lost them",
                ),
                flag("no-wait", "do not wait until the new member has caught up to promote it"),
            ]),
            self.join(),
            self.command("space", "space", "Shows what the bytes of a member's store are").args([
                inherited(flag("cluster", "use all endpoints from the cluster member list")),
                int("prefixes", "10", "how many of the largest prefixes are shown"),
                int("depth", "2", "slashes that a prefix goes on to"),
            ]),
            self.gateway(),
            self.serve(),
            self.bench(),
            self.cert(),
            self.command("link", "link <dir>", "")
                // Not through `text`, which would put this program's name into it.
                .about("Makes the links etcd, etcdctl and etcdutl in a directory")
                .long_about(LINK_LONG)
            .arg(flag("force", "replace files of these names that are no links to this binary")),
            self.command("man", "man [page]", "Prints a manual page, or writes all of them")
                .long_about(MAN_LONG)
                .args([
                    among(Arg::new("page"), &["rusd", "serve", "operate", "format"]),
                    path("dir", "", "write all pages into this directory; below one called man, into man1, man5 and man7"),
                ]),
        ]
    }

    fn join(&self) -> Command {
        self.command(
            "join",
            "join --name NAME --data-dir DIR --peer-urls URLS --endpoints URLS",
            "Prepares a data directory so that its server joins a running cluster",
        )
        .long_about(JOIN_LONG)
        .args([
            string("name", "", "the member's name").required(true),
            path("data-dir", "", "the member's data directory").required(true),
            value("peer-urls", "strings", "", "the member's peer URLs").required(true),
            string("initial-cluster", "", "members that may start without a running cluster"),
            flag("replace", "take the place of a member whose data is lost"),
        ])
    }

    /// The server, whose flags are read by itself.
    fn serve(&self) -> Command {
        self.command("serve", "serve [flags]", "Runs the server; takes etcd's flags")
            .long_about(SERVE_LONG)
            .args(server::serve_flags().into_iter().map(reference))
    }

    fn gateway(&self) -> Command {
        let start = self
            .command("start", "start [options]", "Starts the gateway")
            .long_about(GATEWAY_LONG)
            .args(server::gateway_flags().into_iter().map(reference));
        let short = "Passes TCP connections on to a cluster; takes the flags of etcd gateway";
        self.group("gateway", "gateway <subcommand>", short, vec![start])
    }

    fn doctor(&self) -> Command {
        self.command(
            "doctor",
            "doctor [--endpoints URLS] [--data-dir DIR]",
            "Finds what is wrong with a cluster or a directory, and says what to run",
        )
        .long_about(DOCTOR_LONG)
        .args([
            path("data-dir", "", "look at this directory, and at a cluster only with --endpoints"),
            path("wal-dir", "", "its log, if it is not in its data directory"),
            path("bundle", "", "write what support needs to this file, a .tar.gz"),
        ])
    }

    pub(super) fn cert(&self) -> Command {
        self.group(
            "cert",
            "cert <subcommand>",
            "Makes, shows and checks certificates",
            vec![
                self.command(
                    "gen",
                    "gen [options]",
                    "Makes an authority, and server, peer and client certificates",
                )
                .args([
                    path("dir", "certs", "directory for the files"),
                    value(
                        "hosts",
                        "strings",
                        "localhost,127.0.0.1,::1",
                        "names and addresses of all members",
                    ),
                    value(
                        "clients",
                        "strings",
                        "client",
                        "common names of clients: with auth, users",
                    ),
                    value("only", "strings", "server,peer,client", "which certificates to make"),
                    path("ca-cert", "", "certificate of an authority that exists"),
                    path("ca-key", "", "its key"),
                    uint("days", "365", "how long certificates are valid"),
                    uint("ca-days", "3650", "how long a new authority is valid"),
                    among(string("key-type", "ecdsa-p256", CERT_KEYS), KeyType::NAMES),
                    flag("force", "replace files that exist"),
                ]),
                self.command(
                    "show",
                    "show <file or host:port>...",
                    "Says what is in a file, or what a server shows",
                ),
                self.command(
                    "check",
                    "check [host:port] [options]",
                    "Says why a handshake would fail: of files, or with a server",
                )
                .long_about(CERT_CHECK_LONG)
                .args([
                    string("host", "", "whom the certificate must be for"),
                    path("crl", "", "revocation list, in PEM or DER"),
                    among(
                        string("for", "server", "what the certificate is for"),
                        &["client", "peer", "server"],
                    ),
                ]),
            ],
        )
    }
}

/// Global flags for terminals.
pub(super) fn screen() -> [Arg; 2] {
    let help = "colour the output (auto, always, never); auto means on a terminal, unless NO_COLOR \
                is set or TERM is dumb";
    [
        among(bytes("color", "auto", help), Colour::NAMES),
        flag("yes", "do not ask before an action that cannot be undone").short('y'),
    ]
}

pub(super) fn decode() -> Arg {
    flag("decode", "show values of Kubernetes and JSON in readable form")
}

/// A flag of the server's own table.
fn reference(flag: Reference) -> Arg {
    let arg = Arg::new(flag.name).long(flag.name).help(flag.help).help_heading(flag.group);
    let arg = match flag.variable {
        Some(variable) => arg.env(variable),
        None => arg,
    };
    let arg = match (flag.kind, flag.unit) {
        ("", _) if flag.default.is_empty() => arg.action(ArgAction::SetTrue),
        ("", _) => arg.action(ArgAction::Set).default_value(flag.default),
        (kind, "") => arg.value_name(kind).default_value(flag.default),
        (kind, unit) => arg.value_names([kind, unit]).default_value(flag.default),
    };
    let arg = if flag.is_path {
        arg.value_hint(ValueHint::AnyPath)
    } else if flag.kind == "string" {
        arg.value_hint(ValueHint::Other)
    } else {
        arg
    };
    if flag.values.is_empty() {
        return arg;
    }
    arg.value_parser(PossibleValuesParser::new(flag.values))
}

const SERVE_LONG: &str = "\
Runs the server, as etcd does with the same flags, variables and configuration file.

A flag may be written with one dash or two, its value after = or as the next word. A switch takes a value only
after =, as in --pre-vote=false. A duration is a number with a unit, such as 300ms, 5s or 1h30m. Each flag has
its variable; a flag and its variable together are refused, and --config-file stands for all others.";

const GATEWAY_LONG: &str = "\
Passes TCP connections on to the client ports of a cluster, without a look at what is in them.
It reads no variables.";

const MAN_LONG: &str = "\
Prints rusd(1), or the page that is named: serve is rusd-serve(1), operate is rusd-operate(7), format is
rusd-format(5). To read one: rusd man serve | man -l -";

const CERT_KEYS: &str = "kind of the keys (ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072, rsa-4096)";

const LINK_LONG: &str = "Makes links to this binary, by which it is etcd, etcdctl and etcdutl. Files \
                         of these names that are something else are left alone, and then no link is \
                         made. Says whether the directory is in PATH.";

const DOCTOR_LONG: &str = "\
Looks for what is wrong with a cluster, with a directory of a stopped member, or with both, and says
what to run. Prints one line if nothing is.

$ rusd doctor --endpoints https://m1.example.org:2379 --cacert ca.crt
$ rusd doctor --data-dir /var/lib/rusd

All members are asked at once, for a second at most each. With auth, give --user root or a
certificate of root: others are not told of alarms and users. Works against etcd as well, which
tells less.

Each finding has a severity (error, warning, note), whom it is about, the cause, a command, and a
section of docs/handbook.md. The exit code is 0 if there are notes at most, 1 with warnings, and 2
with errors. docs/doctor.md describes the output as JSON, and what is in a bundle: the same, the
members' metrics and the files' sizes, and no keys, values, names of users, passwords or tokens.
";

const REBUILD_LONG: &str = "Run on the machine of a damaged, stopped member. Checks that the others \
                            can do without it, removes it from the cluster, adds a learner with the \
                            same peer URLs, moves the damaged files aside, and waits until the server \
                            that you start again has caught up, to promote it. Run again, it goes on \
                            where it was interrupted. If the disk is lost, run it anywhere, with \
                            --member and without --data-dir: it says how to start the new member.";

const JOIN_LONG: &str = "Run before each start of a server, for example in an init container. Does nothing to a \
                         directory that holds a member. Else adds the member to the cluster that \
                         answers at the endpoints, unless it is in its list already, and notes its \
                         id in the directory. If no cluster answers, the members that \
                         --initial-cluster lists may start as a new one; any other must wait. With \
                         --replace, a member that has run before and lost its data is removed, and a \
                         new one added in its place, if the others can do without it.";

const CERT_CHECK_LONG: &str = "\
Says why a handshake would fail, each reason on a line of its own, and ends with 1; or that it would
not, and ends with 0.

With files, of --cert and --key as --cacert's clients or servers see them:

$ rusd cert check --cert server.crt --key server.key --cacert ca.crt --for server --host m1.example.org

With a server, as a client that has --cert, --key and --cacert:

$ rusd cert check m1.example.org:2379 --cert client.crt --key client.key --cacert ca.crt
";
