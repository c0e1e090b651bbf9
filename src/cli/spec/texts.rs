//! What the name rusd adds to the definitions of commands: examples, and titles above groups of
//! flags. etcd's texts beside them stay etcd's, since etcdctl prints them, too.
//!
//! A command that defines `after_help` or headings by itself under our name needs no line here.

use clap::Command;

/// Adds what is told of a command and of those below it. `parents` is the path to it, empty for a
/// command of the root.
pub(super) fn attach(command: Command, parents: &str) -> Command {
    let path = format!("{parents} {}", command.get_name()).trim_start().to_owned();
    let examples = EXAMPLES.iter().find(|(of, _)| *of == path).map(|(_, text)| *text);
    let is_group = command.get_subcommands().next().is_some();
    let mut command = match examples {
        Some(text) => command.after_help(indented(text)),
        // etcd's examples are those of one of its commands.
        None if is_group => command.after_help(None),
        None => command,
    };
    if let Some((_, text)) = ABOUTS.iter().find(|(of, _)| *of == path) {
        command = command.long_about(*text);
    }
    for (_, title, names) in HEADINGS.iter().filter(|(of, ..)| *of == path) {
        command = command.mut_args(|arg| match names.contains(&arg.get_id().as_str()) {
            true => arg.help_heading(*title),
            false => arg,
        });
    }
    command.mut_subcommands(|command| attach(command, &path))
}

fn indented(text: &str) -> String {
    text.trim().lines().map(|line| format!("  {line}\n")).collect()
}

/// Command, and its description in the place of etcd's.
const ABOUTS: &[(&str, &str)] = &[
    ("txn", "\
Applies a transaction, which it reads from standard input: lines of compares, an empty line, the operations that are
done if all compares hold, an empty line, the operations that are done if one does not, an empty line.

A compare is one of

  value(\"key\") = \"text\"
  version(\"key\") > \"0\"
  create(\"key\") = \"0\"
  mod(\"key\") < \"1000\"
  lease(\"key\") = \"694d9a8c2b7a2a06\"

An operation is get, put or del with the options of these commands. With -i it asks for each part."),
    ("completion", "\
Prints a script that completes commands, options, values, files and names that the cluster knows, such as keys, members
and users. These it asks the cluster for, which takes half a second at most."),
    ("put", "\
Puts the key into the store, in the place of the value that it has. Without a value on the command line it is read
from standard input. A value that begins with a dash is taken for an option; it goes behind --."),
    ("lease keep-alive", "Renews a lease, so that it does not end, until it is interrupted."),
    ("snapshot save", "\
Saves all keys of one member in a file, with their history, leases, users and roles. The file gets its name when it is
complete and verified."),
    ("defrag", "\
Gives space that is free in the store back to the disk. Reads and writes go on meanwhile. It needs as much free space on
the disk as the store has in use."),
    ("compaction", "\
Forgets all history before a revision: values that were overwritten or deleted by then cannot be read or watched any
more. The space becomes free within the store; defrag gives it back to the disk."),
];

/// Command, title, flags.
const HEADINGS: &[(&str, &str, &[&str])] = &[
    ("get", "Which keys", &["prefix", "from-key", "limit", "rev", "consistency"]),
    ("get", "By revision", &["min-create-rev", "max-create-rev", "min-mod-rev", "max-mod-rev"]),
    ("get", "Order", &["order", "sort-by"]),
    ("get", "What is shown", &["keys-only", "count-only", "print-value-only", "decode", "stream"]),
    ("make-mirror", "Source", &["prefix", "rev", "max-txn-ops"]),
    (
        "make-mirror",
        "Destination",
        &[
            "dest-prefix",
            "no-dest-prefix",
            "dest-cert",
            "dest-key",
            "dest-cacert",
            "dest-insecure-transport",
            "dest-user",
            "dest-password",
        ],
    ),
    ("cert gen", "What is made", &["dir", "hosts", "clients", "only", "force"]),
    ("cert gen", "Authority", &["ca-cert", "ca-key", "ca-days"]),
    ("cert gen", "Kind", &["days", "key-type"]),
    (
        "snapshot restore",
        "Files",
        &["data-dir", "wal-dir", "skip-hash-check", "initial-memory-map-size"],
    ),
    (
        "snapshot restore",
        "The new member",
        &["name", "initial-cluster", "initial-cluster-token", "initial-advertise-peer-urls"],
    ),
    ("snapshot restore", "Revisions", &["bump-revision", "mark-compacted"]),
];

/// Command, its examples. A line that begins with # is told to a person, any other is a command
/// line.
const EXAMPLES: &[(&str, &str)] = &[
    ("get", "
# One key
rusd get config/a
# All keys below a prefix, without their values
rusd get --prefix --keys-only config/
# All that is stored, and how it was at revision 7
rusd get --from-key ''
rusd get --rev 7 config/a
# What scripts read
rusd get -w json config/a
"),
    ("put", "
rusd put config/a 1
# A value from a file, and one that begins with a dash
rusd put config/b < /etc/hostname
rusd put config/c -- -1
# A key that goes when its lease ends
rusd put --lease 694d9a8c2b7a2a06 service/a 10.0.0.1:80
"),
    ("del", "
rusd del config/a
# All keys below a prefix, shown as they were
rusd del --prefix --prev-kv config/
"),
    ("txn", "
# Compares, an empty line, what is done if they hold, an empty line, what is done else
printf '%s\\n' 'value(\"a\") = \"1\"' '' 'put a 2' '' 'get a' '' | rusd txn
# Asks for them
rusd txn -i
"),
    ("watch", "
rusd watch --prefix config/
# From revision 7 on, with what each change replaced
rusd watch --rev 7 --prev-kv config/a
# A command for each change, whose variables ETCD_WATCH_… say what it was
rusd watch config/a -- sh -c 'echo $ETCD_WATCH_KEY is $ETCD_WATCH_VALUE'
"),
    ("compaction", "
# Forget what was before revision 1000, and wait until it is gone
rusd compaction --physical 1000
"),
    ("lease grant", "
# A lease of 60 seconds; its id is for put --lease
rusd lease grant 60
"),
    ("lease revoke", "
# End the lease and delete its keys
rusd lease revoke 694d9a8c2b7a2a06
"),
    ("lease timetolive", "
rusd lease timetolive --keys 694d9a8c2b7a2a06
"),
    ("lease list", "
rusd lease list
"),
    ("lease keep-alive", "
# Renew it until interrupted, or once
rusd lease keep-alive 694d9a8c2b7a2a06
rusd lease keep-alive --once 694d9a8c2b7a2a06
"),
    ("lock", "
# Hold the lock until interrupted
rusd lock jobs/backup
# Hold it while a command runs
rusd lock jobs/backup -- sh -c 'echo I have $ETCD_LOCK_KEY'
"),
    ("elect", "
# Stand for election, and see who leads
rusd elect jobs/leader host-a
rusd elect --listen jobs/leader
"),
    ("alarm list", "
rusd alarm list
"),
    ("alarm disarm", "
# After space was made; see rusd space
rusd alarm disarm
"),
    ("defrag", "
rusd defrag --cluster
# A stopped member
rusd defrag --data-dir /var/lib/rusd
"),
    ("endpoint health", "
rusd endpoint health --cluster
"),
    ("endpoint status", "
rusd endpoint status --cluster -w table
"),
    ("endpoint hashkv", "
# Equal on all members
rusd endpoint hashkv --cluster
# While writes go on, at a revision that all of them have
rusd endpoint hashkv --cluster --rev 1000
"),
    ("move-leader", "
# Asked of the leader, with the id of the member that is to lead
rusd move-leader 8211f1d0f64f3269 --endpoints 127.0.0.1:2379
"),
    ("member list", "
rusd member list -w table
"),
    ("member add", "
# First as a learner, which has no vote
rusd member add m4 --learner --peer-urls https://m4.example.org:2380
"),
    ("member promote", "
# Once it has caught up
rusd member promote 8211f1d0f64f3269
"),
    ("member update", "
rusd member update 8211f1d0f64f3269 --peer-urls https://m4.example.org:2380
"),
    ("member remove", "
rusd member remove 8211f1d0f64f3269
"),
    ("snapshot save", "
# From one member, which holds all data
rusd snapshot save --endpoints 127.0.0.1:2379 backup.db
"),
    ("snapshot status", "
rusd snapshot status -w table backup.db
"),
    ("snapshot restore", "
# A cluster of one member
rusd snapshot restore backup.db --data-dir /var/lib/rusd
# One of three: the same file, once on each machine with its own name and URL
rusd snapshot restore backup.db --data-dir /var/lib/rusd --name m1 \\
  --initial-advertise-peer-urls http://10.0.0.1:2380 --initial-cluster-token restored-1 \\
  --initial-cluster m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380,m3=http://10.0.0.3:2380
"),
    ("make-mirror", "
# Copy all keys below a prefix, and go on with their changes
rusd make-mirror --prefix config/ other.example.org:2379
"),
    ("hashkv", "
rusd hashkv backup.db
"),
    ("migrate", "
rusd migrate --data-dir /var/lib/etcd --target-version 3.6
"),
    ("import", "
rusd import --from-data-dir /var/lib/etcd --data-dir /var/lib/rusd
"),
    ("export", "
rusd export --data-dir /var/lib/rusd backup.db
"),
    ("rebuild", "
# Stopped and damaged; the endpoints are those of the others
rusd rebuild --data-dir /var/lib/rusd --endpoints 10.0.0.2:2379,10.0.0.3:2379

# Its disk is lost, with its directory
rusd rebuild --member m1 --endpoints 10.0.0.2:2379,10.0.0.3:2379
"),
    ("join", "
# Before each start of a member's server, such as in an init container
rusd join --name m2 --data-dir /var/lib/rusd --peer-urls http://10.0.0.2:2380 \\
  --initial-cluster m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380,m3=http://10.0.0.3:2380 \\
  --endpoints 10.0.0.1:2379,10.0.0.3:2379
"),
    ("space", "
rusd space
# The largest prefixes, to the third slash, on all members
rusd space --cluster --prefixes 20 --depth 3
"),
    ("downgrade validate", "
rusd downgrade validate 3.6
"),
    ("downgrade enable", "
rusd downgrade enable 3.6
"),
    ("downgrade cancel", "
rusd downgrade cancel
"),
    ("auth enable", "
# The user root first, or nobody can undo it
rusd user add root:secret
rusd user grant-role root root
rusd auth enable
"),
    ("auth disable", "
rusd auth disable --user root:secret
"),
    ("auth status", "
rusd auth status
"),
    ("user add", "
rusd user add alice
# Known by the common name of a certificate alone
rusd user add bob --no-password
"),
    ("user delete", "
rusd user delete alice
"),
    ("user get", "
rusd user get alice --detail
"),
    ("user list", "
rusd user list
"),
    ("user passwd", "
rusd user passwd alice
"),
    ("user grant-role", "
rusd user grant-role alice reader
"),
    ("user revoke-role", "
rusd user revoke-role alice reader
"),
    ("role add", "
rusd role add reader
"),
    ("role delete", "
rusd role delete reader
"),
    ("role get", "
rusd role get reader
"),
    ("role list", "
rusd role list
"),
    ("role grant-permission", "
# read, write or readwrite
rusd role grant-permission --prefix reader read config/
"),
    ("role revoke-permission", "
rusd role revoke-permission --prefix reader config/
"),
    ("cert gen", "
# An authority, and all certificates of three members and a client
rusd cert gen --dir certs --hosts m1.example.org,m2.example.org,m3.example.org
# One client more
rusd cert gen --dir certs --ca-cert certs/ca.crt --ca-key certs/ca.key --only client --clients bob
"),
    ("cert show", "
rusd cert show certs/server.crt
rusd cert show m1.example.org:2379
"),
    ("cert check", "
rusd cert check --cert certs/server.crt --key certs/server.key --cacert certs/ca.crt --host m1.example.org
rusd cert check m1.example.org:2379 --cacert certs/ca.crt
"),
    ("check perf", "
rusd check perf --load s
"),
    ("check datascale", "
rusd check datascale --load s
"),
    ("check data", "
# The member must be stopped
rusd check data --data-dir /var/lib/rusd
"),
    ("bench put", "
rusd bench put --clients 100 --total 100000
# Two servers in turn
rusd bench put --endpoints 127.0.0.1:2379 --compare 127.0.0.1:12379
"),
    ("bench range", "
rusd bench range --endpoints 127.0.0.1:2379 -o json
# All keys at once, by a stream
rusd bench range --clients 5 --total 100 --range-size 10000 --stream
"),
    ("bench txn", "
rusd bench txn --clients 100 --ops 4
"),
    ("bench watch", "
# Fifty events a second to each of 1000 watchers
rusd bench watch --clients 8 --rate 50 --watchers 1000
"),
    ("bench lease", "
rusd bench lease --clients 100
"),
    ("bench keep-alive", "
rusd bench keep-alive --clients 100
"),
    ("bench table", "
# rusd and etcd in turn
rusd bench table --endpoints 127.0.0.1:2379 --compare 127.0.0.1:12379
# A quick look at two rows
rusd bench table --row put-100,get-100 --rounds 2 --duration 1s
"),
    ("bench ceiling", "
rusd bench ceiling --endpoints 127.0.0.1:2379
"),
    ("bench check", "
rusd bench table --endpoints 127.0.0.1:2379 --compare 127.0.0.1:12379 -o json > baseline.json
# After a change of the first server
rusd bench check baseline.json --endpoints 127.0.0.1:2379 --compare 127.0.0.1:12379
"),
    ("completion", "
# For this shell
source <(rusd completion bash)
# For every new one
rusd completion bash > /etc/bash_completion.d/rusd
rusd completion zsh > \"${fpath[1]}/_rusd\"
rusd completion fish > ~/.config/fish/completions/rusd.fish
rusd completion powershell >> $PROFILE
rusd completion elvish >> ~/.config/elvish/rc.elv
"),
    ("man", "
rusd man | man -l -
rusd man serve | man -l -
rusd man --dir /usr/local/share/man
"),
    ("help", "
rusd help lease grant
rusd help serve
"),
    ("options", "
rusd options
"),
    ("version", "
rusd version
"),
    ("serve", "
# One member, for clients on this machine, with its data in default.etcd
rusd serve
# One of three
rusd serve --name m1 --data-dir /var/lib/rusd \\
  --listen-peer-urls http://10.0.0.1:2380 --initial-advertise-peer-urls http://10.0.0.1:2380 \\
  --listen-client-urls http://10.0.0.1:2379 --advertise-client-urls http://10.0.0.1:2379 \\
  --initial-cluster m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380,m3=http://10.0.0.3:2380
# With TLS on the client port, and certificates asked for
rusd serve --listen-client-urls https://10.0.0.1:2379 \\
  --advertise-client-urls https://10.0.0.1:2379 \\
  --cert-file certs/server.crt --key-file certs/server.key \\
  --trusted-ca-file certs/ca.crt --client-cert-auth
"),
    ("gateway start", "
rusd gateway start --listen-addr 127.0.0.1:23790 --endpoints 10.0.0.1:2379,10.0.0.2:2379
"),
    ("link", "
rusd link /usr/local/bin
"),
    ("doctor", "
# A cluster, a member's directory
rusd doctor --endpoints 10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379
rusd doctor --data-dir /var/lib/rusd
"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::argv::{Flags, Word, find};
    use crate::cli::spec::{Program, root};

    /// The words behind `rusd` in a command line, as a shell would split them.
    fn words(line: &str) -> Vec<Word> {
        let mut begin = line.match_indices("rusd ").map(|(at, _)| at);
        let begin = begin.find(|at| *at == 0 || [b' ', b'('].contains(&line.as_bytes()[at - 1]));
        let line = &line[begin.unwrap_or_else(|| panic!("no rusd in {line}")) + 5..];
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        for letter in line.chars() {
            match (quote, letter) {
                (Some(open), letter) if letter == open => quote = None,
                (Some(_), letter) => word.get_or_insert_default().push(letter),
                (None, '\'' | '"') => {
                    word.get_or_insert_default();
                    quote = Some(letter);
                }
                (None, '|' | '>' | '<' | '&' | ')') => break,
                (None, ' ') => words.extend(word.take()),
                (None, letter) => word.get_or_insert_default().push(letter),
            }
        }
        words.extend(word);
        words.into_iter().map(String::into_bytes).collect()
    }

    fn check(root: &Command, path: &[&Command], findings: &mut Vec<String>) {
        let name: Vec<_> = path[1..].iter().map(|command| command.get_name()).collect();
        let name = name.join(" ");
        let command = path[path.len() - 1];
        for below in command.get_subcommands() {
            check(root, &[path, &[below]].concat(), findings);
        }
        if command.get_subcommands().next().is_some() {
            return;
        }
        let Some(text) = command.get_after_help() else {
            findings.push(format!("{name} has no example"));
            return;
        };
        let text = text.to_string().replace("\\\n", " ");
        let mut is_named = false;
        let is_command = |line: &&str| !line.is_empty() && !line.starts_with('#');
        for line in text.lines().map(str::trim).filter(is_command) {
            let words = words(line);
            let found = find(root, &words);
            let its_name: Vec<_> =
                found.path[1..].iter().map(|command| command.get_name()).collect();
            is_named |= its_name.join(" ") == name;
            if found.command().get_subcommands().next().is_some() {
                findings.push(format!("{line}: there is no such command"));
            }
            if let Err(error) = Flags::of(&found.path).parse(&found.words) {
                findings.push(format!("{line}: {error:?}"));
            }
        }
        if !is_named {
            findings.push(format!("no example of {name} calls it"));
        }
    }

    #[test]
    fn each_command_has_an_example_that_can_be_read() {
        let root = root(Program::Rusd);
        let mut findings = Vec::new();
        check(&root, &[&root], &mut findings);
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }

    #[test]
    fn titles_are_those_of_flags_that_exist() {
        let root = root(Program::Rusd);
        for (path, title, names) in HEADINGS {
            let words: Vec<Word> = path.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            let found = find(&root, &words);
            for name in *names {
                let arg = found.command().get_arguments().find(|arg| arg.get_long() == Some(*name));
                let heading = arg.and_then(|arg| arg.get_help_heading());
                assert_eq!(heading, Some(*title), "{path} --{name}");
            }
        }
    }
}
