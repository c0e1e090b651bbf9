//! The one definition of every command and flag: parsing, help, completions and the man page are
//! all read from these `clap` commands.
//!
//! What a flag takes is its value name, in pflag's words: `string`, `strings`, `int`, `uint`,
//! `duration`; a flag without one is a bool. A string with a value hint takes any bytes, others UTF-8
//! alone. A flag that subcommands inherit is `global`.

use clap::{Arg, ArgAction, Command, ValueHint};

use crate::cert::KeyType;

/// The program whose name the process bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Etcdctl,
    Etcdutl,
    Rusd,
}

impl Program {
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcdctl => "etcdctl",
            Self::Etcdutl => "etcdutl",
            Self::Rusd => "rusd",
        }
    }
}

/// The headings of the root's help, and the commands under each.
pub(super) const GROUPS: &[(&str, &[&str])] = &[
    ("Server commands", &["serve"]),
    ("Key-value commands", &["compaction", "del", "get", "lease", "put", "txn", "watch"]),
    (
        "Cluster maintenance commands",
        &[
            "alarm",
            "defrag",
            "downgrade",
            "endpoint",
            "export",
            "hashkv",
            "import",
            "member",
            "migrate",
            "move-leader",
            "rebuild",
            "snapshot",
            "space",
        ],
    ),
    ("Concurrency commands", &["elect", "lock"]),
    ("Authentication commands", &["auth", "cert", "role", "user"]),
    (
        "Utility commands",
        &["bench", "check", "completion", "help", "make-mirror", "man", "options", "version"],
    ),
];

/// The whole tree of a program.
pub(super) fn root(program: Program) -> Command {
    match program {
        Program::Etcdctl => Maker("etcdctl").etcdctl(),
        Program::Etcdutl => Maker("etcdutl").etcdutl(),
        Program::Rusd => {
            let maker = Maker("rusd");
            let [_, hashkv, migrate, snapshot] = maker.offline();
            let on_files: Vec<Command> = snapshot.get_subcommands().cloned().collect();
            maker
                .etcdctl()
                .mut_subcommand("snapshot", |snapshot| snapshot.subcommands(on_files))
                .mut_subcommand("defrag", |defrag| {
                    let help = "defragment this directory, of a stopped member, instead";
                    defrag.arg(path("data-dir", "", help))
                })
                .mut_subcommand("check", |check| check.subcommand(maker.check_data()))
                .subcommands([hashkv, migrate])
                .subcommands(maker.moving())
                .subcommands(maker.rusd())
        }
    }
    .about(match program {
        Program::Etcdctl => "A simple command line client for etcd3.",
        Program::Etcdutl => "",
        Program::Rusd => "etcd's key-value store, its client and its tools in one binary.",
    })
}

/// A bool that is false unless given.
fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

/// A bool that is true unless given as false.
fn switch(name: &'static str, help: &'static str) -> Arg {
    flag(name, help).action(ArgAction::Set).default_value("true")
}

fn value(name: &'static str, kind: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).value_name(kind).default_value(default)
}

fn string(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    value(name, "string", default, help)
}

/// A string that need not be UTF-8.
fn bytes(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    string(name, default, help).value_hint(ValueHint::Other)
}

/// A file or a directory, whose name need not be UTF-8.
fn path(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    string(name, default, help).value_hint(ValueHint::AnyPath)
}

fn int(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    value(name, "int", default, help)
}

fn uint(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    value(name, "uint", default, help)
}

fn duration(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    value(name, "duration", default, help)
}

fn among(arg: Arg, values: &'static [&'static str]) -> Arg {
    arg.value_parser(clap::builder::PossibleValuesParser::new(values))
}

const FORMATS: &[&str] = &["fields", "json", "protobuf", "simple", "table"];
const SHELLS: &[&str] = &["bash", "zsh", "fish", "powershell"];

/// Flags that every client command takes; help hides them, `options` lists them.
fn globals() -> Vec<Arg> {
    let flags = vec![
        value("endpoints", "strings", "127.0.0.1:2379", "gRPC endpoints"),
        flag("debug", "enable client-side debug logging"),
        among(
            bytes(
                "write-out",
                "simple",
                "set the output format (fields, json, protobuf, simple, table)",
            )
            .short('w'),
            FORMATS,
        ),
        flag("hex", "print byte strings as hex encoded strings"),
        duration("dial-timeout", "2s", "dial timeout for client connections"),
        duration(
            "command-timeout",
            "5s",
            "timeout for short running command (excluding dial timeout)",
        ),
        duration("keepalive-time", "2s", "keepalive time for client connections"),
        duration("keepalive-timeout", "6s", "keepalive timeout for client connections"),
        int(
            "max-request-bytes",
            "0",
            "client-side request send limit in bytes (if 0, it defaults to 2.0 MiB (2 * 1024 * \
             1024).)",
        ),
        int(
            "max-recv-bytes",
            "0",
            "client-side response receive limit in bytes (if 0, it defaults to \"math.MaxInt32\")",
        ),
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
    ];
    flags.into_iter().map(|flag| flag.global(true).hide(true)).collect()
}

/// Makes commands whose texts name the program they are called by.
struct Maker(&'static str);

impl Maker {
    fn text(&self, text: &str) -> String {
        text.replace("etcdctl", self.0)
    }

    fn command(&self, name: &'static str, line: &str, short: &str) -> Command {
        Command::new(name)
            .override_usage(line.to_string())
            .about(self.text(short))
            .disable_help_flag(true)
            .disable_help_subcommand(true)
    }

    fn group(
        &self,
        name: &'static str,
        line: &str,
        short: &str,
        commands: Vec<Command>,
    ) -> Command {
        let long = short.split(". Use `").next().unwrap_or(short).to_string();
        self.command(name, line, short).long_about(long).subcommands(commands)
    }

    /// The order shows where near names are suggested for a mistyped one.
    fn etcdctl(&self) -> Command {
        let [compaction, get, put, del] = self.key_values();
        let [defrag, move_leader, snapshot] = self.maintenance();
        let options = ("options", "Show the global command-line flags");
        let version = ("version", "Prints the version of etcdctl");
        let [options, version] =
            [options, version].map(|(name, short)| self.command(name, name, short));
        self.command(self.0, self.0, "")
            .args(globals())
            .subcommands([get, put, del, self.txn(), compaction, self.alarm(), defrag])
            .subcommands([self.endpoint(), move_leader, self.watch(), version, self.lease()])
            .subcommands([self.member(), snapshot, self.make_mirror()])
            .subcommands(self.concurrency())
            .subcommands([self.auth(), self.user(), self.role(), self.check()])
            .subcommands([self.completion(), self.downgrade(), options, self.help()])
    }

    fn key_values(&self) -> [Command; 4] {
        [
            self.command(
                "compaction",
                "compaction [options] <revision>",
                "Compacts the event history in etcd",
            )
            .arg(flag(
                "physical",
                "'true' to wait for compaction to physically remove all old revisions",
            )),
            self.get(),
            self.put(),
            self.command(
                "del",
                "del [options] <key> [range_end]",
                "Removes the specified key or range of keys [key, range_end)",
            )
            .args([
                flag("prefix", "delete keys with matching prefix"),
                flag("prev-kv", "return deleted key-value pairs"),
                flag(
                    "from-key",
                    "delete keys that are greater than or equal to the given key using byte compare",
                ),
                flag("range", "delete range of keys"),
            ]),
        ]
    }

    fn get(&self) -> Command {
        self.command("get", "get [options] <key> [range_end]", "Gets the key or a range of keys")
            .args([
                among(bytes("consistency", "l", "Linearizable(l) or Serializable(s)"), &["l", "s"]),
                among(
                    bytes("order", "", "Order of results; ASCEND or DESCEND (ASCEND by default)"),
                    &["ASCEND", "DESCEND"],
                ),
                among(
                    bytes("sort-by", "", "Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION"),
                    &["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"],
                ),
                int("limit", "0", "Maximum number of results"),
                flag("prefix", "Get keys with matching prefix"),
                flag(
                    "from-key",
                    "Get keys that are greater than or equal to the given key using byte compare",
                ),
                int("rev", "0", "Specify the kv revision"),
                flag("keys-only", "Get only the keys"),
                flag("count-only", "Get only the count"),
                flag(
                    "print-value-only",
                    "Only write values when using the \"simple\" output format",
                ),
                int("min-create-rev", "0", "Minimum create revision"),
                int("max-create-rev", "0", "Maximum create revision"),
                int("min-mod-rev", "0", "Minimum modification revision"),
                int("max-mod-rev", "0", "Maximum modification revision"),
                flag("stream", "Use the RangeStream RPC"),
            ])
    }

    fn put(&self) -> Command {
        self.command(
            "put",
            "put [options] <key> <value> (<value> can also be given from stdin)",
            "Puts the given key into the store",
        )
        .long_about(PUT_LONG)
        .args([
            bytes("lease", "0", "lease ID (in hexadecimal) to attach to the key"),
            flag("prev-kv", "return the previous key-value pair before modification"),
            flag("ignore-value", "updates the key using its current value"),
            flag("ignore-lease", "updates the key using its current lease"),
        ])
    }

    fn txn(&self) -> Command {
        self.command("txn", "txn [options]", "Txn processes all the requests in one transaction")
            .long_about(self.text(TXN_LONG))
            .arg(flag("interactive", "Input transaction in interactive mode").short('i'))
    }

    fn watch(&self) -> Command {
        self.command(
            "watch",
            "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
            "Watches events stream on keys or prefixes",
        )
        .args([
            flag("interactive", "Interactive mode").short('i'),
            flag("prefix", "Watch on a prefix if prefix is set"),
            int("rev", "0", "Revision to start watching"),
            flag("prev-kv", "get the previous key-value pair before the event happens"),
            flag("progress-notify", "get periodic watch progress notification from server"),
        ])
    }

    fn lease(&self) -> Command {
        let short = "Lease related commands. Use `etcdctl lease --help` to see subcommands";
        self.group(
            "lease",
            "lease <subcommand>",
            short,
            vec![
                self.command("grant", "grant <ttl>", "Creates leases"),
                self.command("revoke", "revoke <leaseID>", "Revokes leases"),
                self.command(
                    "timetolive",
                    "timetolive <leaseID> [options]",
                    "Get lease information",
                )
                .arg(flag("keys", "Get keys attached to this lease")),
                self.command("list", "list", "List all active leases"),
                self.command(
                    "keep-alive",
                    "keep-alive [options] <leaseID>",
                    "Keeps leases alive (renew)",
                )
                .arg(flag(
                    "once",
                    "Resets the keep-alive time to its original value and cobrautl.Exits \
                     immediately",
                )),
            ],
        )
    }

    fn alarm(&self) -> Command {
        let short = "Alarm related commands. Use `etcdctl alarm --help` to see subcommands";
        self.group(
            "alarm",
            "alarm <subcommand>",
            short,
            vec![
                self.command("disarm", "disarm", "Disarms all alarms"),
                self.command("list", "list", "Lists all alarms"),
            ],
        )
    }

    fn downgrade(&self) -> Command {
        let short = "Downgrade related commands. Use `etcdctl downgrade --help` to see subcommands";
        self.group(
            "downgrade",
            "downgrade <TARGET_VERSION>",
            short,
            vec![
                self.command(
                    "validate",
                    "validate <TARGET_VERSION>",
                    "Validate downgrade capability before starting downgrade",
                ),
                self.command(
                    "enable",
                    "enable <TARGET_VERSION>",
                    "Start a downgrade action to cluster",
                ),
                self.command("cancel", "cancel", "Cancel the ongoing downgrade action to cluster"),
            ],
        )
    }

    fn endpoint(&self) -> Command {
        let short = "Endpoint related commands. Use `etcdctl endpoint --help` to see subcommands";
        self.group(
            "endpoint",
            "endpoint <subcommand>",
            short,
            vec![
                self.command(
                    "health",
                    "health",
                    "Checks the healthiness of endpoints specified in `--endpoints` flag",
                ),
                self.command(
                    "status",
                    "status",
                    "Prints out the status of endpoints specified in `--endpoints` flag",
                )
                .long_about(ENDPOINT_STATUS_LONG),
                self.command(
                    "hashkv",
                    "hashkv",
                    "Prints the KV history hash for each endpoint in --endpoints",
                )
                .arg(int(
                    "rev",
                    "0",
                    "maximum revision to hash (default: latest revision)",
                )),
            ],
        )
        .arg(flag("cluster", "use all endpoints from the cluster member list").global(true))
    }

    fn member(&self) -> Command {
        let short = "Membership related commands. Use `etcdctl member --help` to see subcommands";
        self.group(
            "member",
            "member <subcommand>",
            short,
            vec![
                self.command("add", "add <memberName> [options]", "Adds a member into the cluster")
                    .args([
                        bytes("peer-urls", "", "comma separated peer URLs for the new member."),
                        flag("learner", "indicates if the new member is raft learner"),
                    ]),
                self.command("remove", "remove <memberID>", "Removes a member from the cluster"),
                self.command(
                    "update",
                    "update <memberID> [options]",
                    "Updates a member in the cluster",
                )
                .arg(bytes(
                    "peer-urls",
                    "",
                    "comma separated peer URLs for the updated member.",
                )),
                self.command("list", "list", "Lists all members in the cluster")
                    .long_about(MEMBER_LIST_LONG)
                    .arg(among(
                        bytes("consistency", "l", "Linearizable(l) or Serializable(s)"),
                        &["l", "s"],
                    )),
                self.command(
                    "promote",
                    "promote <memberID>",
                    "Promotes a non-voting member in the cluster",
                )
                .long_about(
                    "Promotes a non-voting learner member to a voting one in the cluster.\n",
                ),
            ],
        )
    }

    fn maintenance(&self) -> [Command; 3] {
        let snapshot = self
            .command("snapshot", "snapshot <subcommand>", "Manages etcd node snapshots")
            .after_help(self.text(SNAPSHOT_EXAMPLES));
        let save = self
            .command(
                "save",
                "save <filename>",
                "Stores an etcd node backend snapshot to a given file",
            )
            .after_help(self.text(SNAPSHOT_EXAMPLES));
        [
            self.command(
                "defrag",
                "defrag",
                "Defragments the storage of the etcd members with given endpoints",
            )
            .arg(flag("cluster", "use all endpoints from the cluster member list").global(true)),
            self.command(
                "move-leader",
                "move-leader <transferee-member-id>",
                "Transfers leadership to another etcd cluster member.",
            ),
            snapshot.subcommand(save),
        ]
    }

    fn concurrency(&self) -> [Command; 2] {
        [
            self.command(
                "lock",
                "lock <lockname> [exec-command arg1 arg2 ...]",
                "Acquires a named lock",
            )
            .arg(int("ttl", "10", "timeout for session")),
            self.command(
                "elect",
                "elect <election-name> [proposal]",
                "Observes and participates in leader election",
            )
            .arg(flag("listen", "observation mode").short('l')),
        ]
    }

    fn auth(&self) -> Command {
        let short =
            "Enable or disable authentication. Use `etcdctl auth --help` to see subcommands";
        self.group(
            "auth",
            "auth <enable or disable>",
            short,
            vec![
                self.command("enable", "enable", "Enables authentication"),
                self.command("disable", "disable", "Disables authentication"),
                self.command("status", "status", "Returns authentication status"),
            ],
        )
    }

    fn role(&self) -> Command {
        let short = "Role related commands. Use `etcdctl role --help` to see subcommands";
        self.group(
            "role",
            "role <subcommand>",
            short,
            vec![
                self.command("add", "add <role name>", "Adds a new role"),
                self.command("delete", "delete <role name>", "Deletes a role"),
                self.command("get", "get <role name>", "Gets detailed information of a role"),
                self.command("list", "list", "Lists all roles"),
                self.command(
                    "grant-permission",
                    "grant-permission [options] <role name> <permission type> <key> [endkey]",
                    "Grants a key to a role",
                )
                .args([
                    flag("prefix", "grant a prefix permission"),
                    flag(
                        "from-key",
                        "grant a permission of keys that are greater than or equal to the given \
                         key using byte compare",
                    ),
                ]),
                self.command(
                    "revoke-permission",
                    "revoke-permission <role name> <key> [endkey]",
                    "Revokes a key from a role",
                )
                .args([
                    flag("prefix", "revoke a prefix permission"),
                    flag(
                        "from-key",
                        "revoke a permission of keys that are greater than or equal to the given \
                         key using byte compare",
                    ),
                ]),
            ],
        )
    }

    fn user(&self) -> Command {
        let short = "User related commands. Use `etcdctl user --help` to see subcommands";
        self.group(
            "user",
            "user <subcommand>",
            short,
            vec![
                self.command(
                    "add",
                    "add <user name or user:password> [options]",
                    "Adds a new user",
                )
                .args([
                    switch(
                        "interactive",
                        "Read password from stdin instead of interactive terminal",
                    ),
                    bytes("new-user-password", "", "Supply password from the command line flag"),
                    flag("no-password", "Create a user without password (CN based auth only)"),
                ]),
                self.command("delete", "delete <user name>", "Deletes a user"),
                self.command(
                    "get",
                    "get <user name> [options]",
                    "Gets detailed information of a user",
                )
                .arg(flag("detail", "Show permissions of roles granted to the user")),
                self.command("list", "list", "Lists all users"),
                self.command("passwd", "passwd <user name> [options]", "Changes password of user")
                    .arg(switch(
                        "interactive",
                        "If true, read password from stdin instead of interactive terminal",
                    )),
                self.command(
                    "grant-role",
                    "grant-role <user name> <role name>",
                    "Grants a role to a user",
                ),
                self.command(
                    "revoke-role",
                    "revoke-role <user name> <role name>",
                    "Revokes a role from a user",
                ),
            ],
        )
    }

    fn check(&self) -> Command {
        let after = || {
            [
                flag("auto-compact", "Compact storage with last revision after test is finished."),
                flag("auto-defrag", "Defragment storage after test is finished."),
            ]
        };
        let short = "commands for checking properties of the etcd cluster. Use `etcdctl check \
                     --help` to see subcommands";
        self.group(
            "check",
            "check <subcommand>",
            short,
            vec![
                self.command("perf", "perf [options]", "Check the performance of the etcd cluster")
                    .args([
                        bytes("load", "s", CHECK_PERF_LOAD),
                        bytes(
                            "prefix",
                            "/etcdctl-check-perf/",
                            "The prefix for writing the performance check's keys.",
                        ),
                    ])
                    .args(after()),
                self.command("datascale", "datascale [options]", CHECK_DATASCALE)
                    .long_about(
                        "If no endpoint is provided, localhost will be used. If multiple \
                         endpoints are provided, first endpoint will be used.",
                    )
                    .args([
                        bytes("load", "s", CHECK_DATASCALE_LOAD),
                        bytes(
                            "prefix",
                            "/etcdctl-check-datascale/",
                            "The prefix for writing the datascale check's keys.",
                        ),
                    ])
                    .args(after()),
            ],
        )
    }

    fn make_mirror(&self) -> Command {
        self.command(
            "make-mirror",
            "make-mirror [options] <destination>",
            "Makes a mirror at the destination etcd cluster",
        )
        .args([
            bytes("prefix", "", "Key-value prefix to mirror"),
            int("rev", "0", "Specify the kv revision to start to mirror"),
            uint(
                "max-txn-ops",
                "128",
                "Maximum number of operations permitted in a transaction during syncing updates.",
            ),
            bytes(
                "dest-prefix",
                "",
                "destination prefix to mirror a prefix to a different prefix in the destination \
                 cluster",
            ),
            flag("no-dest-prefix", "mirror key-values to the root of the destination cluster"),
            path(
                "dest-cert",
                "",
                "Identify secure client using this TLS certificate file for the destination \
                 cluster",
            ),
            path("dest-key", "", "Identify secure client using this TLS key file"),
            path(
                "dest-cacert",
                "",
                "Verify certificates of TLS enabled secure servers using this CA bundle",
            ),
            switch("dest-insecure-transport", "Disable transport security for client connections"),
            bytes(
                "dest-user",
                "",
                "Destination username[:password] for authentication (prompt if password is not \
                 supplied)",
            ),
            bytes(
                "dest-password",
                "",
                "Destination password for authentication (if this option is used, --user option \
                 shouldn't include password)",
            ),
        ])
    }

    fn completion(&self) -> Command {
        let line = "completion [bash|zsh|fish|powershell]";
        let command = self
            .command("completion", line, "Generate completion script")
            .arg(among(Arg::new("shell"), SHELLS));
        if self.0 == "etcdutl" { command } else { command.long_about(self.text(COMPLETION_LONG)) }
    }

    fn help(&self) -> Command {
        self.command("help", "help [command]", "Help about any command").long_about(self.text(
            "Help provides help for any command in the application.\nSimply type etcdctl help \
             [path to command] for full details.",
        ))
    }

    fn etcdutl(&self) -> Command {
        self.command(self.0, self.0, "")
            .args([
                duration(
                    "timeout",
                    "10s",
                    "time to wait to obtain a file lock on db file, 0 to block indefinitely",
                )
                .global(true),
                among(
                    bytes(
                        "write-out",
                        "simple",
                        "set the output format (fields, json, protobuf, simple, table)",
                    )
                    .short('w'),
                    FORMATS,
                )
                .global(true),
            ])
            .subcommands(self.offline())
            .subcommands([
                self.completion(),
                self.help(),
                self.command("version", "version", "Prints the version of etcdutl"),
            ])
    }

    fn offline(&self) -> [Command; 4] {
        [
            self.command("defrag", "defrag", "Defragments the storage of the etcd").arg(
                path("data-dir", "", "Required. Defragments a data directory not in use by etcd.")
                    .required(true),
            ),
            self.command(
                "hashkv",
                "hashkv <filename>",
                "Prints the KV history hash of a given file",
            )
            .arg(int(
                "rev",
                "0",
                "maximum revision to hash (default: latest revision)",
            )),
            self.command(
                "migrate",
                "migrate",
                "Migrates schema of etcd data dir files to make them compatible with different \
                 etcd version",
            )
            .args([
                path("data-dir", "", "Path to the etcd data dir").required(true),
                string(
                    "target-version",
                    "",
                    "Target etcd version to migrate contents of data dir. Minimal value 3.5. \
                     Format \"X.Y\" for example 3.6.",
                )
                .required(true),
                flag(
                    "force",
                    "Ignore migration failure and forcefully override storage version. Not \
                     recommended.",
                ),
            ]),
            self.command("snapshot", "snapshot <subcommand>", "Manages etcd node snapshots")
                .subcommands([
                    self.command(
                        "status",
                        "status <filename>",
                        "Gets backend snapshot status of a given file",
                    )
                    .long_about(SNAPSHOT_STATUS_LONG),
                    self.restore(),
                ]),
        ]
    }

    fn check_data(&self) -> Command {
        self.command(
            "data",
            "data --data-dir DIR",
            "Reads all files of a stopped member and names what is damaged",
        )
        .long_about(CHECK_DATA_LONG)
        .args([
            path("data-dir", "", "the member's data directory, which is only read").required(true),
            path("wal-dir", "", "the member's log, if it is not in its data directory"),
            flag("in-child", "the reading itself, in a process of its own").hide(true),
        ])
    }

    /// The ways in and out, which etcd's tools do not have.
    fn moving(&self) -> [Command; 2] {
        [
            self.command(
                "import",
                "import --from-data-dir DIR --data-dir DIR",
                "Makes a rusd member of a stopped etcd member, with its ids and its log",
            )
            .args([
                path("from-data-dir", "", "etcd's data directory, which is only read"),
                path("from-wal-dir", "", "etcd's log, if it is not in its data directory"),
                path("data-dir", "", "the new data directory"),
                path("wal-dir", "", "where the log goes, if not into the data directory"),
            ]),
            self.command(
                "export",
                "export --data-dir DIR <filename>",
                "Writes a stopped member's state as a snapshot file, from which etcdutl restores",
            )
            .args([
                path("data-dir", "", "the member's data directory").required(true),
                path("wal-dir", "", "the member's log, if it is not in its data directory"),
            ]),
        ]
    }

    fn restore(&self) -> Command {
        self.command(
            "restore",
            "restore <filename> --data-dir {output dir} [options]",
            "Restores an etcd member snapshot to an etcd directory",
        )
        .args([
            path("data-dir", "", "Path to the output data directory"),
            path("wal-dir", "", "Path to the WAL directory (use --data-dir if none given)"),
            string(
                "initial-cluster",
                "default=http://localhost:2380",
                "Initial cluster configuration for restore bootstrap",
            ),
            string(
                "initial-cluster-token",
                "etcd-cluster",
                "Initial cluster token for the etcd cluster during restore bootstrap",
            ),
            string(
                "initial-advertise-peer-urls",
                "http://localhost:2380",
                "List of this member's peer URLs to advertise to the rest of the cluster",
            ),
            string("name", "default", "Human-readable name for this member"),
            flag(
                "skip-hash-check",
                "Ignore snapshot integrity hash value (required if copied from data directory)",
            ),
            flag("mark-compacted", MARK_COMPACTED),
            uint("bump-revision", "0", "How much to increase the latest revision after restore"),
            uint(
                "initial-memory-map-size",
                "10737418240",
                "Initial memory map size of the database in bytes. It uses the default value if \
                 not defined or defined to 0",
            ),
        ])
    }

    /// What only rusd has.
    fn rusd(&self) -> [Command; 6] {
        [
            self.command(
                "rebuild",
                "rebuild --data-dir DIR --endpoints URLS",
                "Puts a new member in the place of this stopped, damaged one",
            )
            .long_about(REBUILD_LONG)
            .args([
                path("data-dir", "", "the damaged member's data directory").required(true),
                path("wal-dir", "", "its log, if it is not in its data directory"),
                string("member", "", "its id, if its log does not say it any more"),
                flag("no-wait", "do not wait until the new member has caught up to promote it"),
            ]),
            self.command("space", "space", "Shows what the bytes of a member's store are").args([
                flag("cluster", "use all endpoints from the cluster member list").global(true),
                int("prefixes", "10", "how many of the largest prefixes are shown"),
                int("depth", "2", "slashes that a prefix goes on to"),
            ]),
            self.command("serve", "serve [etcd's flags]", "Runs the server; takes etcd's flags"),
            self.bench(),
            self.cert(),
            self.command("man", "man", "Prints the manual page"),
        ]
    }

    fn cert(&self) -> Command {
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

    fn bench(&self) -> Command {
        self.command(
            "bench",
            "bench <put|range|txn|watch|lease> [options]",
            "Measures any etcd endpoint, or compares two",
        )
        .long_about(BENCH_LONG)
        .args([
            int("clients", "64", "concurrent callers"),
            int("conns", "8", "connections that the callers share"),
            int("key-size", "32", "bytes of a key"),
            int("val-size", "256", "bytes of a value"),
            int("keys", "10000", "how many different keys are used"),
            int("range-size", "1", "keys that one range asks for"),
            int("watchers", "100", "watchers of the watch benchmark"),
            flag("serializable", "range without asking the leader"),
            int("total", "0", "requests to send; with 0 the duration decides"),
            duration("duration", "10s", "how long to send"),
            int("rate", "0", "requests per second of all callers together; 0 is no limit"),
            string("compare", "", "endpoints of a second server or cluster, measured in turn"),
            int("rounds", "5", "rounds of a comparison for each server"),
            among(string("output", "simple", "simple or json").short('o'), &["simple", "json"]),
        ])
    }
}

const CERT_KEYS: &str = "kind of the keys (ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072, rsa-4096)";

const REBUILD_LONG: &str = "Run on the machine of a damaged, stopped member. Checks that the others \
                            can do without it, removes it from the cluster, adds a learner with the \
                            same peer URLs, moves the damaged files aside, and waits until the server \
                            that you start again has caught up, to promote it. Run again, it goes on \
                            where it was interrupted.";
const CHECK_DATA_LONG: &str = "Reads each page of the store, each record of the log and the index \
                               checkpoint, verifies checksums, order and references, and compares \
                               store, log and membership. Nothing is changed. Exits with 0 if all is \
                               sound.";
const CERT_CHECK_LONG: &str = "\
Says why a handshake would fail, each reason on a line of its own, and ends with 1; or that it would
not, and ends with 0.

With files, of --cert and --key as --cacert's clients or servers see them:

$ cert check --cert server.crt --key server.key --cacert ca.crt --for server --host m1.example.org

With a server, as a client that has --cert, --key and --cacert:

$ cert check m1.example.org:2379 --cert client.crt --key client.key --cacert ca.crt
";

const PUT_LONG: &str = "
Puts the given key into the store.

When <value> begins with '-', <value> is interpreted as a flag.
Insert '--' for workaround:

$ put <key> -- <value>
$ put -- <key> <value>

If <value> isn't given as a command line argument and '--ignore-value' is not specified,
this command tries to read the value from standard input.

If <lease> isn't given as a command line argument and '--ignore-lease' is not specified,
this command tries to read the value from standard input.

For example,
$ cat file | put <key>
will store the content of the file to <key>.
";

const TXN_LONG: &str = "\
Txn reads multiple etcd requests from standard input and applies them as a single atomic transaction.

A transaction consists of three components:
1) a list of conditions,
2) a list of requests to apply if all the conditions are true,
3) a list of requests to apply if any condition is false.

Example interactive stdin usage:

---
etcdctl txn -i
# compares:
mod(\"key1\") > \"0\"

# success requests (get, put, delete):
put key1 \"overwrote-key1\"

# failure requests (get, put, delete):
put key1 \"created-key1\"
put key2 \"some extra key\"
---

Refer to https://github.com/etcd-io/etcd/blob/main/etcdctl/README.md#txn-options.";

const ENDPOINT_STATUS_LONG: &str = "\
When --write-out is set to simple, this command prints out comma-separated status lists for each endpoint.
The items in the lists are endpoint, ID, version, db size, is leader, is learner, raft term, raft index, raft applied index, errors.
";

const MEMBER_LIST_LONG: &str = "\
When --write-out is set to simple, this command prints out comma-separated member lists for each endpoint.
The items in the lists are ID, Status, Name, Peer Addrs, Client Addrs, Is Learner.
";

const SNAPSHOT_EXAMPLES: &str = "  # Save snapshot to a given file
  etcdctl snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot from given address and save it to file
  etcdctl snapshot save --endpoints=127.0.0.1:3000 /backup/etcd-snapshot.db
  
  # Get snapshot from given address with certificates
  etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/etcd/ca.crt --cert=/etc/etcd/etcd.crt --key=/etc/etcd/etcd.key snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot with certain user and password
  etcdctl --user=root --password=password123 snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot from given address with timeout
  etcdctl --endpoints=https://127.0.0.1:2379 --dial-timeout=20s snapshot save /backup/etcd-snapshot.db
  
  # Save snapshot with desirable time format
  etcdctl snapshot save /mnt/backup/etcd/backup_$(date +%Y%m%d_%H%M%S).db";

const SNAPSHOT_STATUS_LONG: &str = "";

const MARK_COMPACTED: &str = "Mark the latest revision after restore as the point of scheduled \
    compaction (required if --bump-revision > 0, disallowed otherwise)";

const CHECK_PERF_LOAD: &str = "The performance check's workload model. Accepted workloads: \
    s(small), m(medium), l(large), xl(xLarge). Different workload models use different \
    configurations in terms of number of clients and expected throughput.";

const CHECK_DATASCALE: &str = "Check the memory usage of holding data for different workloads on \
    a given server endpoint.";

const CHECK_DATASCALE_LOAD: &str = "The datascale check's workload model. Accepted workloads: \
    s(small), m(medium), l(large), xl(xLarge)";

const COMPLETION_LONG: &str = "To load completions:

Bash:

  $ source <(etcdctl completion bash)

  # To load completions for each session, execute once:
  # Linux:
  $ etcdctl completion bash > /etc/bash_completion.d/etcdctl
  # macOS:
  $ etcdctl completion bash > /usr/local/etc/bash_completion.d/etcdctl

Zsh:

  # If shell completion is not already enabled in your environment,
  # you will need to enable it.  You can execute the following once:

  $ echo \"autoload -U compinit; compinit\" >> ~/.zshrc

  # To load completions for each session, execute once:
  $ etcdctl completion zsh > \"${fpath[1]}/_etcdctl\"

  # You will need to start a new shell for this setup to take effect.

fish:

  $ etcdctl completion fish | source

  # To load completions for each session, execute once:
  $ etcdctl completion fish > ~/.config/fish/completions/etcdctl.fish

PowerShell:

  PS> etcdctl completion powershell | Out-String | Invoke-Expression

  # To load completions for every new session, run:
  PS> etcdctl completion powershell > etcdctl.ps1
  # and source this file from your PowerShell profile.
";

const BENCH_LONG: &str = "\
Measures requests per second, latency and, where the server publishes it, CPU time per request and memory.

  put    writes values to random keys
  range  reads single keys or ranges
  txn    compares and writes in one transaction
  watch  writes under many watchers and times each event's arrival
  lease  grants leases

The connections are spread over all endpoints, and CPU time and memory are those of all of them together.
With --compare the two servers or clusters are measured in turn in short rounds, and medians and ratios are printed.";

/// What may stand in a transaction.
pub(super) fn operations() -> Command {
    let maker = Maker("etcdctl");
    let [_, get, put, del] = maker.key_values();
    Command::new("txn").subcommands([get, put, del])
}
