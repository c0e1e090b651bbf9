//! rusd-serve(1): the server's flags by group, and its gateway's.

use clap::Command;

use super::roff::{example, head, option, section, subsection};
use crate::cli::options::{by_heading, own};

pub(super) fn page(root: &Command) -> String {
    let mut out = head("RUSD-SERVE", 1);
    out.push_str(HEAD);
    section(&mut out, "Options");
    let Some(serve) = root.find_subcommand("serve") else { return out };
    for (title, flags) in by_heading(own(&[root, serve])) {
        subsection(&mut out, &title);
        flags.iter().for_each(|flag| option(&mut out, flag));
    }
    out.push_str(GATEWAY);
    let gateway = root.find_subcommand("gateway");
    let start =
        gateway.and_then(|gateway| Some([root, gateway, gateway.find_subcommand("start")?]));
    for (_, flags) in start.map(|path| by_heading(own(&path))).unwrap_or_default() {
        flags.iter().for_each(|flag| option(&mut out, flag));
    }
    out.push_str(TAIL);
    section(&mut out, "Examples");
    if let Some(text) = serve.get_after_help() {
        example(&mut out, &text.to_string());
    }
    out.push_str(END);
    out
}

const HEAD: &str = r#".SH NAME
rusd\-serve \- server of etcd's key\-value store
.SH SYNOPSIS
.B rusd serve
.RI [ flags ]
.br
.B rusd gateway start
.RI [ options ]
.SH DESCRIPTION
.B rusd serve
runs one member of a cluster, or a server by itself.
It takes etcd's flags, variables and configuration file, and serves etcd's
API: gRPC and JSON for clients,
.IR /metrics ,
.IR /health ,
.I /livez
and
.I /readyz
on the same port.
Without any flag it listens on
.I http://localhost:2379
for clients and on
.I http://localhost:2380
for other members, and keeps its data in
.I default.etcd
in the current directory.
Through a link named
.BR etcd ,
the command is
.B etcd
.IR flags .
.PP
A flag may be written with one dash or two, its value after
.B =
or as the next word.
A switch takes a value only after
.BR = ,
as in
.BR \-\-pre\-vote=false .
If a flag is given twice, the last one counts.
A duration is a number with a unit, such as 300ms, 5s or 1h30m.
A list is separated by commas.
Words that are no flag are refused.
.PP
For each flag there is a variable, which is named with it.
A flag and its variable together are refused.
.B \-\-config\-file
names a file in YAML or JSON that stands for all other flags and variables;
its keys are the names of the
flags, and its durations are nanoseconds or texts.
.PP
.B serve
must be the first argument.
.PP
Clients get an answer once the member is part of its cluster; the log then says
.IR "ready to serve client requests" .
How to run a cluster is told in
.BR rusd\-operate (7).
"#;

const GATEWAY: &str = r#".SH GATEWAY
.B rusd gateway start
passes TCP connections on to the client ports of a cluster, without a look at
what is in them.
A member that refuses connections is set aside for a while.
The gateway reads no variables.
"#;

const TAIL: &str = r#".SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT
Stop: leadership is handed on, requests under way are answered, and all is on
disk when the process ends.
The process then ends by that signal.
.TP
.B SIGQUIT
Say on standard error what each thread does, and end with status 2.
.TP
.B SIGHUP
End at once. Nothing that was acknowledged is lost.
.TP
.BR SIGUSR1 ", " SIGUSR2
Nothing.
Certificates, authorities and revocation lists are read again when their files
change.
.SH ENVIRONMENT
.TP
.BI ETCD_ FLAG
Stands for the flag of that name in capitals, with
.B _
in the place of
.BR \- .
.TP
.BR NOTIFY_SOCKET ", " WATCHDOG_USEC
Set by systemd for units of type
.BR notify :
the server says when it is ready and when it stops, and answers the watchdog
while it works.
.SH FILES
.TP
.IR name .etcd
The data directory, unless
.B \-\-data\-dir
names another. See
.BR rusd\-format (5).
.TP
.IR data\-dir /rusd.lock
Locked while a server uses the directory; holds its process id.
.SH EXIT STATUS
.TP
.B 0
The member was removed from its cluster, or help or the version was asked for.
.TP
.B 1
The server could not start or could not go on; the last line of the log says
why.
.TP
.B 2
A flag that cannot be read, or SIGQUIT.
.PP
A server that is stopped ends by the signal that stopped it.
"#;

const END: &str = r#".SH SEE ALSO
.BR rusd (1),
.BR rusd\-format (5),
.BR rusd\-operate (7)
"#;
