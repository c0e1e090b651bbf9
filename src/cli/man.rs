//! The manual page, from the one definition of commands and flags.

use clap::{Arg, Command};

use super::argv::{FlagKind, default_of, kind_of};
use super::spec::{GROUPS, Program, root};

/// `rusd(1)` in roff.
pub(super) fn page() -> String {
    let root = root(Program::Rusd);
    let mut out = String::from(HEAD);
    for (title, names) in GROUPS {
        out.push_str(&format!(".SH {}\n", escape(&title.to_uppercase())));
        for name in *names {
            if let Some(command) = root.find_subcommand(name) {
                describe(&mut out, "", command);
            }
        }
    }
    out.push_str(".SH GLOBAL OPTIONS\nEvery client command takes these.\n");
    sorted(root.get_arguments()).for_each(|arg| option(&mut out, arg));
    out.push_str(TAIL);
    out
}

const HEAD: &str = ".TH RUSD 1
.SH NAME
rusd \\- etcd's key\\-value store, its client and its tools in one binary
.SH SYNOPSIS
.B rusd serve
[\\fIetcd's flags\\fR]
.br
.B rusd
\\fIcommand\\fR [\\fIoptions\\fR] [\\fIarguments\\fR]
.SH DESCRIPTION
Started by the name
.BR etcd ,
.B etcdctl
or
.B etcdutl
it is that program. By its own name it takes the words of etcdctl, and
.B serve
runs the server. Subcommands may be abbreviated as long as they are unique.
";

const TAIL: &str = ".SH ENVIRONMENT
A variable \\fBETCDCTL_\\fIFLAG\\fR stands for a global option that is not given, with
.B _
for
.BR \\- .
.SH EXIT STATUS
0 success; 1 error; 2 no connection or login; 3 invalid input; 4 unsupported value or output
format; 5 interrupted; 128 bad arguments.
";

fn describe(out: &mut String, parents: &str, command: &Command) {
    let usage = command.get_overridden_usage().map(ToString::to_string).unwrap_or_default();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let about = about.split(". Use `").next().unwrap_or_default();
    if command.get_subcommands().next().is_none() {
        out.push_str(&format!(".SS {}\n{}\n", escape(&format!("{parents}{usage}")), escape(about)));
        sorted(command.get_arguments()).for_each(|arg| option(out, arg));
    }
    let mut subcommands: Vec<_> = command.get_subcommands().collect();
    subcommands.sort_by_key(|command| command.get_name());
    for subcommand in subcommands {
        describe(out, &format!("{parents}{} ", command.get_name()), subcommand);
    }
}

fn sorted<'a>(args: impl Iterator<Item = &'a Arg>) -> impl Iterator<Item = &'a Arg> {
    let mut args: Vec<_> = args.filter(|arg| arg.get_long().is_some()).collect();
    args.sort_by_key(|arg| arg.get_long());
    args.into_iter()
}

fn option(out: &mut String, arg: &Arg) {
    let name = arg.get_long().unwrap_or_default();
    let short = arg.get_short().map(|short| format!("\\-{short}, ")).unwrap_or_default();
    let kind = kind_of(arg);
    let value = match kind {
        FlagKind::Bool => String::new(),
        FlagKind::Bytes => " \\fIstring\\fR".into(),
        _ => format!(" \\fI{}\\fR", format!("{kind:?}").to_lowercase()),
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let default = match default_of(arg).as_str() {
        "" | "0" => String::new(),
        default => format!(" (default {})", escape(default)),
    };
    out.push_str(&format!(
        ".TP\n\\fB{short}\\-\\-{}\\fR{value}\n{}{default}\n",
        escape(name),
        escape(&help)
    ));
}

/// Text in which roff finds no markup.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    text.lines()
        .map(|line| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.into() })
        .collect::<Vec<String>>()
        .join("\n")
}
