//! etcdctl: the commands that call a server.

use clap::{Arg, Command};

use super::globals::globals;
use super::{
    Maker, OWN_SHELLS, SHELLS, among, bytes, flag, inherited, int, path, seconds, switch, uint,
};

impl Maker {
    /// The order is that in which suggestions for a mistyped command are listed.
    pub(super) fn etcdctl(&self) -> Command {
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

    pub(super) fn key_values(&self) -> [Command; 4] {
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

    pub(super) fn get(&self) -> Command {
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

    pub(super) fn put(&self) -> Command {
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

    pub(super) fn txn(&self) -> Command {
        self.command("txn", "txn [options]", "Txn processes all the requests in one transaction")
            .long_about(self.text(TXN_LONG))
            .arg(flag("interactive", "Input transaction in interactive mode").short('i'))
    }

    pub(super) fn watch(&self) -> Command {
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

    pub(super) fn lease(&self) -> Command {
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

    pub(super) fn alarm(&self) -> Command {
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

    pub(super) fn downgrade(&self) -> Command {
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

    pub(super) fn endpoint(&self) -> Command {
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
        .arg(inherited(flag("cluster", "use all endpoints from the cluster member list")))
    }

    pub(super) fn member(&self) -> Command {
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

    pub(super) fn maintenance(&self) -> [Command; 3] {
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

    pub(super) fn concurrency(&self) -> [Command; 2] {
        [
            self.command(
                "lock",
                "lock <lockname> [exec-command arg1 arg2 ...]",
                "Acquires a named lock",
            )
            .arg(seconds("ttl", "10", "timeout for session")),
            self.command(
                "elect",
                "elect <election-name> [proposal]",
                "Observes and participates in leader election",
            )
            .arg(flag("listen", "observation mode").short('l')),
        ]
    }

    pub(super) fn check(&self) -> Command {
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

    pub(super) fn make_mirror(&self) -> Command {
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

    pub(super) fn completion(&self) -> Command {
        let command = match self.0 {
            "rusd" => self
                .command("completion", OWN_COMPLETION_LINE, "Generate completion script")
                .arg(among(Arg::new("shell"), OWN_SHELLS)),
            _ => self
                .command("completion", COMPLETION_LINE, "Generate completion script")
                .arg(among(Arg::new("shell"), SHELLS)),
        };
        if self.0 == "etcdutl" { command } else { command.long_about(self.text(COMPLETION_LONG)) }
    }

    pub(super) fn help(&self) -> Command {
        self.command("help", "help [command]", "Help about any command").long_about(self.text(
            "Help provides help for any command in the application.\nSimply type etcdctl help \
             [path to command] for full details.",
        ))
    }
}

const COMPLETION_LINE: &str = "completion [bash|zsh|fish|powershell]";
const OWN_COMPLETION_LINE: &str = "completion [bash|zsh|fish|powershell|elvish]";

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
