//! Help under the name rusd: by headings, with defaults, variables and examples, and as wide as the
//! terminal.

use clap::{Arg, Command};

use crate::cli::options::{
    Paragraph, Shown, about, by_heading, long_about, own, paragraphs, usage,
};
use crate::cli::spec::{GROUPS, global_flags};

/// The names of flags may take that much beside their texts; longer ones stand above them.
const NAMES_MAX: usize = 34;

/// Stands for a blank at which no line ends.
const BLANK: char = '\u{1}';

/// The texts take that much at least, or they stand below the names.
const TEXT_MIN: usize = 36;

/// The help of the last command of a path.
pub(super) fn page(path: &[&Command], width: usize) -> String {
    let Some(command) = path.last() else { return String::new() };
    let mut out = String::new();
    for (at, paragraph) in paragraphs(&long_about(command)).into_iter().enumerate() {
        out.push_str(if at > 0 { "\n" } else { "" });
        match paragraph {
            Paragraph::Text(text) => wrap(&mut out, &text, 0, width),
            Paragraph::Lines(lines) => {
                lines.iter().for_each(|line| out.push_str(&format!("{line}\n")))
            }
        }
    }
    out.push_str(&format!("\nUsage:\n  {}\n", usage(path)));
    if command.get_subcommands().next().is_some() {
        commands(&mut out, command, path.len() == 1, width);
    }
    if let Some(examples) = command.get_after_help() {
        out.push_str(&format!("\nExamples:\n{}\n", examples.to_string().trim_end()));
    }
    let mut below = command.get_subcommands();
    match (below.next(), below.next()) {
        // A group of one, such as `gateway start`, is told whole.
        (Some(only), None) => flags(&mut out, own(&[path, &[only]].concat()), width),
        _ if path.len() > 1 => flags(&mut out, own(path), width),
        _ => {}
    }
    let names: Vec<&str> = path.iter().map(|command| command.get_name()).collect();
    let names = names.join(" ");
    out.push('\n');
    let more = match path.get(1).map(|command| command.get_name()) {
        None => {
            "Each command: rusd help <command>. The server's flags: rusd help serve. Options of all \
                 client commands: rusd options. Manual: rusd man."
        }
        Some("serve") => "Manual: rusd man serve, rusd man operate.",
        Some("gateway") => "Manual: rusd man serve.",
        Some(_) if command.get_subcommands().next().is_some() => {
            wrap(&mut out, &format!("Each command: {names} <command> --help."), 0, width);
            "Options of all client commands: rusd options."
        }
        Some(_) => "Options of all client commands: rusd options.",
    };
    wrap(&mut out, more, 0, width);
    out
}

/// What an error about a command line shows.
pub(super) fn short(path: &[&Command]) -> String {
    let names: Vec<&str> = path.iter().skip(1).map(|command| command.get_name()).collect();
    let help = ["rusd", "help"].into_iter().chain(names).collect::<Vec<_>>().join(" ");
    format!("Usage: {}\n{help} says more.\n", usage(path))
}

/// The flags that every client command has.
pub(super) fn globals(root: &Command, width: usize) -> String {
    let mut out = String::new();
    let text =
        "Every client command takes these. A variable stands for an option that is not given.";
    wrap(&mut out, text, 0, width);
    flags(&mut out, global_flags(root).into_iter(), width);
    out
}

fn commands(out: &mut String, command: &Command, is_root: bool, width: usize) {
    let mut all: Vec<&Command> = command.get_subcommands().collect();
    all.sort_by_key(|command| command.get_name());
    let longest = all.iter().map(|command| command.get_name().len()).max().unwrap_or_default();
    let mut list = |title: &str, names: Option<&[&str]>| {
        let is_listed = |name: &str| names.is_none_or(|names| names.contains(&name));
        let listed: Vec<_> = all.iter().filter(|command| is_listed(command.get_name())).collect();
        if listed.is_empty() {
            return;
        }
        out.push_str(&format!("\n{title}:\n"));
        for command in listed {
            row(out, &format!("  {}", command.get_name()), &about(command), longest + 4, width);
        }
    };
    if !is_root {
        list("Commands", None);
        return;
    }
    for (title, names) in GROUPS {
        list(title, Some(names));
    }
}

fn flags<'a>(out: &mut String, args: impl Iterator<Item = &'a Arg>, width: usize) {
    for (title, flags) in by_heading(args) {
        let rows: Vec<(String, String)> =
            flags.iter().map(|flag| (left(flag), right(flag))).collect();
        let longest = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or_default();
        out.push_str(&format!("\n{title}:\n"));
        let is_beside = longest <= NAMES_MAX && longest + 2 + TEXT_MIN <= width;
        for (left, right) in rows {
            if is_beside {
                row(out, &left, &right, longest + 2, width);
            } else {
                out.push_str(&format!("{left}\n"));
                wrap(out, &right, 8, width);
            }
        }
    }
}

fn left(flag: &Shown) -> String {
    let indent = if flag.names.starts_with("--") { "      " } else { "  " };
    format!("{indent}{} {}", flag.names, flag.value).trim_end().to_owned()
}

fn right(flag: &Shown) -> String {
    let mut text = flag.help.clone();
    if !flag.default.is_empty() {
        text.push_str(&format!(" [default{BLANK}{}]", flag.default));
    }
    if let Some(variable) = &flag.variable {
        text.push_str(&format!(" [{variable}]"));
    }
    text
}

/// Two columns, the second one wrapped.
fn row(out: &mut String, left: &str, right: &str, column: usize, width: usize) {
    let mut lines = String::new();
    wrap(&mut lines, right, column, width.max(column + TEXT_MIN));
    out.push_str(&format!("{left:column$}{}\n", lines.trim()));
    if lines.trim().is_empty() {
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
}

/// Adds the text as lines of at most that width, each behind `indent` spaces.
fn wrap(out: &mut String, text: &str, indent: usize, width: usize) {
    let spaces = " ".repeat(indent);
    let mut line = String::new();
    for word in text.split_whitespace() {
        let length = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && indent + length > width {
            out.push_str(&format!("{spaces}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(format!("{spaces}{line}").trim_end());
    out.push('\n');
    if out.contains(BLANK) {
        *out = out.replace(BLANK, " ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::argv::{Word, find};
    use crate::cli::spec::{Program, root};

    fn of(line: &str, width: usize) -> String {
        let root = root(Program::Rusd);
        let words: Vec<Word> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        page(&find(&root, &words).path, width)
    }

    #[test]
    fn a_servers_flags_stand_in_groups_with_defaults_units_and_variables() {
        let text = of("serve", 80);
        let mut rest = text.as_str();
        for title in [
            "Member",
            "Clustering",
            "Security",
            "Auth",
            "Profiling and monitoring",
            "Logging",
            "Distributed tracing",
            "Features and feature gates",
            "rusd's own",
            "Unsafe: these can cost data",
        ] {
            let at =
                rest.find(&format!("\n{title}:\n")).unwrap_or_else(|| panic!("{title}: {rest}"));
            rest = &rest[at + 1..];
        }
        assert!(rest.contains("--unsafe-no-fsync") && rest.contains("--force-new-cluster"));
        let flag = "      --election-timeout ms\n        Milliseconds without a heartbeat";
        assert!(text.contains(flag), "{text}");
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for told in [
            "[default 1000] [ETCD_ELECTION_TIMEOUT]",
            "Log files kept. Accepted without effect. [default 5] [ETCD_MAX_WALS]",
            "--initial-cluster-state new|existing",
            "CompactHashCheck (alpha, default false)",
            "FastLeaseKeepAlive (beta, default true, without effect)",
        ] {
            assert!(flat.contains(told), "{told} in {flat}");
        }
        // What the server does not read is not offered.
        assert!(!text.contains("ETCDCTL_") && !text.contains("[ETCD_VERSION]"), "{text}");
    }

    #[test]
    fn pages_are_as_wide_as_they_may() {
        for (line, widths) in
            [("serve", [60, 80, 100]), ("get", [60, 80, 100]), ("", [60, 80, 100])]
        {
            for width in widths {
                let text = of(line, width);
                // Command lines are not broken, so that they can be copied.
                let is_example = |line: &str| {
                    line.contains("rusd ") || line.ends_with('\\') || line.starts_with("  # ")
                };
                let is_word = |line: &str| !line.trim().contains(' ');
                let long = text.lines().filter(|line| line.chars().count() > width);
                let long: Vec<_> =
                    long.filter(|line| !is_example(line) && !is_word(line)).collect();
                let told = long.iter().all(|line| line.contains("--initial-cluster m1="));
                assert!(told, "{line} {width}: {long:#?}");
            }
        }
    }

    #[test]
    fn a_commands_page_has_usage_examples_titles_and_the_way_on() {
        let text = of("get", 80);
        for told in [
            "\nUsage:\n  rusd get [options] <key> [range_end]\n",
            "\nExamples:\n  # One key\n  rusd get config/a\n",
            "\nWhich keys:\n",
            "--consistency l|s",
            "rusd options",
        ] {
            assert!(text.contains(told), "{told} in {text}");
        }
        assert!(
            of("lease", 80).contains("\n  grant       Creates leases\n"),
            "{}",
            of("lease", 80)
        );
        let root = root(Program::Rusd);
        let options = globals(&root, 80);
        for told in ["\nConnection:\n", "\nTLS:\n", "[ETCDCTL_DIAL_TIMEOUT]", "[default 5s]"] {
            assert!(options.contains(told), "{told} in {options}");
        }
    }
}
