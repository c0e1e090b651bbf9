//! The one definition of every command and flag: parsing, help, completions and the man page are
//! all read from these `clap` commands.
//!
//! The value name of a flag is its type, in pflag's words: `string`, `strings`, `int`, `uint`,
//! `duration`; `bytes` and `seconds` are shown as `int` under etcd's names; a flag without one is a
//! bool. A second value name is the unit of a number. A string with a value hint takes any bytes,
//! one without a hint UTF-8 alone. A flag that subcommands inherit is `global`. A flag's heading and
//! variable, and a command's examples (`after_help`), are shown under the name rusd.
//!
//! The placeholders in a command's usage line say what its arguments are: completions offer keys for
//! `<key>`, members for `<memberID>` and so on, as `completion` lists them.

mod auth;
mod bench;
mod client;
mod globals;
mod offline;
mod own;
mod texts;

use clap::{Arg, ArgAction, Command, ValueHint};

use own::{decode, screen};

/// The program that `argv[0]` names.
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

/// Headings of the root's help, and the commands under each.
pub(super) const GROUPS: &[(&str, &[&str])] = &[
    ("Server commands", &["gateway", "serve"]),
    ("Key-value commands", &["compaction", "del", "get", "lease", "put", "txn", "watch"]),
    (
        "Cluster maintenance commands",
        &[
            "alarm",
            "defrag",
            "doctor",
            "downgrade",
            "endpoint",
            "export",
            "hashkv",
            "import",
            "join",
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
        &[
            "bench",
            "check",
            "completion",
            "help",
            "link",
            "make-mirror",
            "man",
            "options",
            "version",
        ],
    ),
];

/// The flags that all commands have, by the order of their titles.
pub(super) fn global_flags(root: &Command) -> Vec<&Arg> {
    let mut flags: Vec<&Arg> = root.get_arguments().collect();
    flags.sort_by_key(|flag| flag.get_help_heading().map(globals::place));
    flags
}

/// Whether a path leads to a server that reads its flags by itself, and takes none of a client's.
pub(super) fn starts_by_itself(path: &[&Command]) -> bool {
    path.get(1).is_some_and(|command| matches!(command.get_name(), "serve" | "gateway"))
}

/// The commands of a program, as a tree.
pub(super) fn root(program: Program) -> Command {
    match program {
        Program::Etcdctl => {
            let maker = Maker("etcdctl");
            let restore = maker.restore();
            maker.etcdctl().mut_subcommand("snapshot", |snapshot| snapshot.subcommand(restore))
        }
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
                .mut_subcommand("get", |get| get.arg(decode()))
                .mut_subcommand("watch", |watch| watch.arg(decode()))
                .mut_arg("write-out", |_| rusds_write_out().global(true).hide(true))
                .args(screen().map(|arg| arg.global(true).hide(true)))
                .args(globals::rusds())
                .subcommands([hashkv, migrate])
                .subcommands(maker.moving())
                .subcommands(maker.rusd())
                .mut_args(globals::told)
                .mut_subcommands(|command| texts::attach(command, ""))
        }
    }
    .about(match program {
        Program::Etcdctl => "A simple command line client for etcd3.",
        Program::Etcdutl => "",
        Program::Rusd => "etcd's key-value store, its client and its tools in one binary.",
    })
}

/// A bool that defaults to false.
fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

/// A bool that defaults to true.
fn switch(name: &'static str, help: &'static str) -> Arg {
    flag(name, help).action(ArgAction::Set).default_value("true")
}

fn value(name: &'static str, kind: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).value_name(kind).default_value(default)
}

fn string(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    value(name, "string", default, help)
}

/// A value of any bytes.
fn bytes(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    string(name, default, help).value_hint(ValueHint::Other)
}

/// The path of a file or directory, in any bytes.
fn path(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    string(name, default, help).value_hint(ValueHint::AnyPath)
}

fn int(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    value(name, "int", default, help)
}

/// A number of bytes; an int where etcd has it.
fn size(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    value(name, "bytes", default, help)
}

/// Whole seconds; an int where etcd has it.
fn seconds(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    value(name, "seconds", default, help)
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

/// A flag of a command that those below it have, too. A variable may stand for it there.
fn inherited(arg: Arg) -> Arg {
    let name = arg.get_id().as_str().to_uppercase().replace('-', "_");
    arg.global(true).env(format!("ETCDCTL_{name}"))
}

/// The flag for the output format.
fn write_out() -> Arg {
    let help = "set the output format (fields, json, protobuf, simple, table)";
    among(bytes("write-out", "simple", help).short('w'), FORMATS)
}

/// The same with rusd's own formats and letter.
fn rusds_write_out() -> Arg {
    let help =
        "set the output format (fields, json, jsonl, protobuf, simple, table, yaml), also -w";
    among(bytes("write-out", "simple", help).short('o').short_alias('w'), RUSDS_FORMATS)
}

const FORMATS: &[&str] = &["fields", "json", "protobuf", "simple", "table"];
const RUSDS_FORMATS: &[&str] = &["fields", "json", "jsonl", "protobuf", "simple", "table", "yaml"];
const SHELLS: &[&str] = &["bash", "zsh", "fish", "powershell"];
const OWN_SHELLS: &[&str] = &["bash", "zsh", "fish", "powershell", "elvish"];

/// Makes commands whose texts name the program by which they are called.
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
}

/// The operations that a line of `txn` may have, as commands.
pub(super) fn operations() -> Command {
    let maker = Maker("etcdctl");
    let [_, get, put, del] = maker.key_values();
    Command::new("txn").subcommands([get, put, del])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_each_command_once() {
        let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        listed.sort_unstable();
        let root = root(Program::Rusd);
        let mut commands: Vec<&str> = root.get_subcommands().map(Command::get_name).collect();
        commands.sort_unstable();
        assert_eq!(listed, commands);
    }
}
