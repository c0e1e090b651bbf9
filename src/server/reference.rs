//! The flags of the server and of its gateway, as help, the manual and completions show them.

use std::ffi::OsString;

use super::flags::{self, FlagKind, Group, Support};
use super::relay;

/// One flag. `kind` is pflag's word for its type, empty for a switch.
pub struct Reference {
    pub group: &'static str,
    pub name: &'static str,
    pub kind: &'static str,
    /// What a number counts, if the kind does not say it.
    pub unit: &'static str,
    pub default: &'static str,
    /// Values to choose from, which need not be all.
    pub values: Vec<String>,
    pub is_path: bool,
    /// The environment variable that stands for it, if one does.
    pub variable: Option<String>,
    pub help: String,
}

/// The flags of `serve`, by group.
pub fn serve_flags() -> Vec<Reference> {
    let in_group = |(group, title): &(Group, &'static str)| {
        let shown = flags::FLAGS.iter().filter(|flag| flag.group == *group);
        let shown = shown.filter(|flag| !flag.help.is_empty());
        shown.map(|flag| reference(title, flag)).collect::<Vec<Reference>>()
    };
    Group::ALL.iter().flat_map(in_group).collect()
}

fn reference(group: &'static str, flag: &'static flags::Flag) -> Reference {
    let kind = match flag.kind {
        FlagKind::Bool => "",
        FlagKind::Uint | FlagKind::Uint32 => "uint",
        FlagKind::Int => "int",
        FlagKind::Duration => "duration",
        _ => "string",
    };
    let mut help = flag.help.to_owned();
    let note = match flag.support {
        Support::Honoured => "",
        Support::Ignored => " Accepted without effect.",
        Support::Default => " Only the default is supported yet.",
    };
    for more in [flag.more, note.trim_start()].into_iter().filter(|more| !more.is_empty()) {
        help.push_str(&format!(" {more}"));
    }
    let mut values: Vec<String> = flag.values.iter().map(|value| (*value).to_owned()).collect();
    if flag.kind == FlagKind::Gates {
        let gates = flags::GATES.iter().map(|(name, stage, on, support)| {
            let note = match support {
                Support::Honoured => "",
                Support::Ignored => ", without effect",
                Support::Default => ", only the default is supported yet",
            };
            format!("{name} ({}, default {on}{note})", stage.to_lowercase())
        });
        help.push_str(&format!(" The gates: {}.", gates.collect::<Vec<_>>().join("; ")));
        values = flags::GATES.iter().map(|(name, _, on, _)| format!("{name}={}", !on)).collect();
    }
    // A server that took its version from the environment would end at once.
    let variable = (flag.name != "version").then(|| flags::environment_name(flag.name));
    let is_path = flag.kind == FlagKind::Path;
    let (name, unit, default) = (flag.name, flag.unit, flag.default);
    Reference { group, name, kind, unit, default, values, is_path, variable, help }
}

/// The flags of `gateway start`.
pub fn gateway_flags() -> Vec<Reference> {
    let reference = |flag: &'static relay::Flag| Reference {
        group: "Options",
        name: flag.name,
        kind: flag.kind,
        unit: "",
        default: flag.default,
        values: Vec::new(),
        is_path: flag.name.ends_with("-file"),
        variable: None,
        help: flag.help.to_owned(),
    };
    relay::FLAGS.iter().map(reference).collect()
}

/// The command whose help is asked for by words that begin with `serve` or `gateway`; None if the
/// words ask for something else, or are faulty.
pub fn help_topic(arguments: &[OsString]) -> Option<&'static [&'static str]> {
    let words: Vec<String> =
        arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let (command, flags) = words.split_first()?;
    match command.as_str() {
        "serve" if matches!(flags::parse(flags), Err(flags::Stop::Help)) => Some(&["serve"]),
        "gateway" => relay::help_topic(flags),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_that_is_shown_is_in_a_group_once() {
        let mut found: Vec<&str> = serve_flags().iter().map(|flag| flag.name).collect();
        let mut shown: Vec<&str> = flags::FLAGS
            .iter()
            .filter(|flag| !flag.help.is_empty())
            .map(|flag| flag.name)
            .collect();
        found.sort_unstable();
        shown.sort_unstable();
        assert_eq!(found, shown);
    }

    #[test]
    fn help_is_asked_for_as_the_server_reads_its_words() {
        let topic = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            help_topic(&words).map(|path| path.join(" "))
        };
        for line in ["serve -h", "serve --help", "serve -help", "serve --name=a -h"] {
            assert_eq!(topic(line).as_deref(), Some("serve"), "{line}");
        }
        assert_eq!(topic("gateway").as_deref(), Some("gateway"));
        assert_eq!(topic("gateway start -h").as_deref(), Some("gateway start"));
        for line in ["serve", "serve --name -h", "serve --no-such -h", "gateway start", "get -h"] {
            assert_eq!(topic(line), None, "{line}");
        }
    }
}
