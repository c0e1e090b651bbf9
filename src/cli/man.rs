//! The manual pages. rusd(1) and rusd-serve(1) come from the one definition of commands and flags;
//! the others are prose, which `man/` holds and the binary carries.

mod roff;
mod serve;

use std::fs;
use std::path::Path;

use clap::Command;

use super::argv::{Flags, Word};
use super::exit::{Failure, Outcome};
use super::options::{by_heading, long_about, own, usage};
use super::printer::Printer;
use super::spec::{GROUPS, global_flags, starts_by_itself};
use crate::go;
use roff::{example, fill, head, option, prose, section, subsection};

/// A page: its name as an argument, that of its file, and its text.
type Page = (&'static str, &'static str, fn(&Command) -> String);

const PAGES: [Page; 4] = [
    ("rusd", "rusd.1", commands),
    ("serve", "rusd-serve.1", serve::page),
    ("operate", "rusd-operate.7", |_| include_str!("../../man/rusd-operate.7").to_owned()),
    ("format", "rusd-format.5", |_| include_str!("../../man/rusd-format.5").to_owned()),
];

/// `man [page]` and `man --dir DIR`.
pub(super) fn run(root: &Command, flags: &Flags, args: &[Word], printer: &Printer) -> Outcome {
    if let Some(dir) = flags.path("dir") {
        if !args.is_empty() {
            return Err(Failure::arguments("man --dir writes all pages; it takes no page"));
        }
        return write_all(root, dir, printer);
    }
    let wanted = match args {
        [] => b"rusd",
        [page] => page.as_slice(),
        _ => return Err(Failure::arguments("man takes one page: rusd, serve, operate or format")),
    };
    // The names of files are understood as well: `man rusd-serve`, `man rusd-serve.1`.
    let is_it = |(name, file, _): &&Page| {
        let file = file.as_bytes();
        wanted == name.as_bytes() || wanted == file || wanted == &file[..file.len() - 2]
    };
    match PAGES.iter().find(is_it) {
        Some((_, _, page)) => printer.out(page(root)),
        None => {
            let wanted = go::quote(wanted);
            let text =
                format!("there is no page {wanted}; there are rusd, serve, operate and format");
            return Err(Failure::arguments(text));
        }
    }
    Ok(())
}

/// Writes the pages where `man` finds them: in `man1` and so on if the directory's name says that it
/// has such below it, else in the directory itself.
fn write_all(root: &Command, dir: &Path, printer: &Printer) -> Outcome {
    let has_sections = dir.file_name().is_some_and(|name| name == "man");
    for (_, file, page) in PAGES {
        let dir = match file.rsplit_once('.') {
            Some((_, section)) if has_sections => dir.join(format!("man{section}")),
            _ => dir.to_owned(),
        };
        let (path, unfinished) = (dir.join(file), dir.join(format!("{file}.tmp")));
        let written = fs::create_dir_all(&dir)
            .and_then(|()| fs::write(&unfinished, page(root)))
            .and_then(|()| fs::rename(&unfinished, &path));
        if let Err(error) = written {
            // What was begun would only be in the way; the error that counts is the first one.
            let _ = fs::remove_file(&unfinished);
            let text = format!("cannot write {}: {}", path.display(), go::reason(&error));
            return Err(Failure::error(text));
        }
        printer.line(path.display().to_string());
    }
    Ok(())
}

/// rusd(1): the client and the tools.
fn commands(root: &Command) -> String {
    let mut out = head("RUSD", 1);
    out.push_str(HEAD);
    for (title, names) in GROUPS {
        section(&mut out, title);
        for name in *names {
            if let Some(command) = root.find_subcommand(name) {
                describe(&mut out, &[root, command]);
            }
        }
    }
    section(&mut out, "Options");
    fill(
        &mut out,
        "These are for every command that calls a server. A variable stands for an option that is \
         not given.",
    );
    for (title, flags) in by_heading(global_flags(root).into_iter()) {
        subsection(&mut out, &title);
        flags.iter().for_each(|flag| option(&mut out, flag));
    }
    out.push_str(TAIL);
    out
}

/// Describes the last command of a path and all below it.
fn describe(out: &mut String, path: &[&Command]) {
    let Some(command) = path.last() else { return };
    let mut below: Vec<&Command> = command.get_subcommands().collect();
    below.sort_by_key(|command| command.get_name());
    if below.is_empty() {
        subsection(out, &usage(path));
        if starts_by_itself(path) {
            out.push_str("Runs a server. See\n.BR rusd\\-serve (1).\n");
            return;
        }
        prose(out, &long_about(command));
        for (title, flags) in by_heading(own(path)) {
            if title != "Options" {
                out.push_str(&format!(".PP\n{}:\n", roff::escape(&title)));
            }
            flags.iter().for_each(|flag| option(out, flag));
        }
        if let Some(text) = command.get_after_help() {
            example(out, &text.to_string());
        }
    }
    for command in below {
        describe(out, &[path, &[command]].concat());
    }
}

const HEAD: &str = r#".SH NAME
rusd \- client and tools of etcd's key\-value store
.SH SYNOPSIS
.B rusd
.I command
.RI [ options ]
.RI [ arguments ]
.br
.B rusd serve
.RI [ flags ]
.SH DESCRIPTION
.B rusd
is etcd's key\-value store in one binary: the server
.RB ( "rusd serve" ,
see
.BR rusd\-serve (1)),
the client for it and for etcd, and tools for files at rest.
How to run a cluster is told in
.BR rusd\-operate (7).
.PP
Started through a link named
.BR etcd ,
.B etcdctl
or
.BR etcdutl ,
it is that program, to the texts and the exit status.
.PP
Options may stand anywhere, also behind arguments.
The value of an option follows
.B =
or is the next word; that of a switch follows
.BR = ,
as in
.BR \-\-insecure\-transport=false .
What follows
.B \-\-
is no option.
Commands may be abbreviated as long as they are unique.
A duration is a number with a unit, such as 300ms, 5s or 1h30m.
Keys and values are bytes.
"#;

const TAIL: &str = r#".SH EXIT STATUS
.TP
.B 0
Success.
.TP
.B 1
The server or the command answered an error.
.TP
.B 2
No connection, no login, a failure of TLS, or a command line that cannot be
read.
.TP
.B 3
Invalid input.
.TP
.B 4
A value or an output format that is not supported.
.TP
.B 5
Interrupted.
.TP
.B 128
Missing or bad arguments.
.PP
.B rusd lock
with a command ends with the status of that command.
.SH ENVIRONMENT
.TP
.BI ETCDCTL_ OPTION
Stands for the global option of that name in capitals, with
.B _
in the place of
.BR \- .
An option that is given counts more.
.TP
.B ETCD_CLIENT_DEBUG
Level of the client's own log lines on standard error:
.BR error ,
.BR dpanic ,
.B panic
and
.B fatal
silence its warnings.
.TP
.B NO_COLOR
If it is set, nothing is coloured.
.SH FILES
.TP
.I default.etcd
Data directory of a server that was given neither name nor directory, in the
directory in which it was
started. See
.BR rusd\-format (5).
.SH EXAMPLES
A server, a key, and who takes part:
.PP
.EX
rusd serve &
rusd put greeting hello
rusd get greeting
rusd endpoint status \-\-cluster \-w table
.EE
.PP
A cluster with TLS and a user:
.PP
.EX
export ETCDCTL_ENDPOINTS=https://10.0.0.1:2379,https://10.0.0.2:2379
export ETCDCTL_CACERT=certs/ca.crt
rusd \-\-user alice get \-\-prefix config/
.EE
.PP
Names of commands, options, keys and members at the touch of a key, in bash:
.PP
.EX
source <(rusd completion bash)
.EE
.SH SEE ALSO
.BR rusd\-serve (1),
.BR rusd\-format (5),
.BR rusd\-operate (7)
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::spec::{Program, root};

    #[test]
    fn pages_have_one_head_and_the_sections_of_a_manual() {
        let root = root(Program::Rusd);
        for (name, file, page) in PAGES {
            let text = page(&root);
            let (title, number) = file.rsplit_once('.').unwrap();
            let first = head(&title.to_uppercase(), number.parse().unwrap());
            assert!(text.starts_with(&first), "{name}: {:?} is not {first:?}", text.lines().next());
            for section in ["NAME", "DESCRIPTION", "EXAMPLES", "FILES", "SEE ALSO"] {
                let is_short = name == "operate" && section == "EXAMPLES";
                let has = text.contains(&format!("\n.SH {section}\n"));
                assert!(has || is_short, "{name} has no {section}");
            }
        }
    }
}
