//! etcdutl: commands for files and directories at rest, and rusd's additions to them.

use clap::Command;

use super::{Maker, duration, flag, int, path, string, uint, write_out};

impl Maker {
    pub(super) fn etcdutl(&self) -> Command {
        self.command(self.0, self.0, "")
            .args([
                duration(
                    "timeout",
                    "10s",
                    "time to wait to obtain a file lock on db file, 0 to block indefinitely",
                )
                .global(true),
                write_out().global(true),
            ])
            .subcommands(self.offline())
            .subcommands([
                self.completion(),
                self.help(),
                self.command("version", "version", "Prints the version of etcdutl"),
            ])
    }

    pub(super) fn offline(&self) -> [Command; 4] {
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

    pub(super) fn check_data(&self) -> Command {
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

    /// Import and export, which etcd's tools do not have.
    pub(super) fn moving(&self) -> [Command; 2] {
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

    pub(super) fn restore(&self) -> Command {
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
}

const CHECK_DATA_LONG: &str = "Reads each page of the store, each record of the log and the index \
                               checkpoint, verifies checksums, order and references, and compares \
                               store, log and membership. Nothing is changed. Exits with 0 if all is \
                               sound.";

const SNAPSHOT_STATUS_LONG: &str = "";

const MARK_COMPACTED: &str = "Mark the latest revision after restore as the point of scheduled \
    compaction (required if --bump-revision > 0, disallowed otherwise)";
