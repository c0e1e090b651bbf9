//! Environment variables that stand for flags.

use std::collections::BTreeMap;

use super::config::{Notice, Stop, invalid};
use super::flags::{self, Flag, Given};
use crate::go;

/// Named like a variable for the flag `--version`, but never read as one.
const VERSION_VARIABLE: &str = "ETCD_VERSION";

/// Sets flags that were not given from their variables. In etcd's order, which decides what is
/// logged first: the flags by name, then the other variables as the environment lists them. Among
/// the latter are those of flags that etcd 3.6 has renamed.
pub(super) fn add(
    given: &mut Given,
    environment: &[(String, String)],
    notices: &mut Vec<Notice>,
) -> Result<(), Stop> {
    let value = |variable: &str| {
        let found = environment.iter().find(|(name, _)| name == variable);
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    };
    let mut used: Vec<String> = Vec::new();
    // Container images name their release with it, which says nothing to this server.
    if let Some(value) = value(VERSION_VARIABLE) {
        let name = VERSION_VARIABLE.to_owned();
        used.push(name.clone());
        notices.push(Notice::VariableSpecial { name, value });
    }
    let by_flag: Vec<String> =
        given.given().map(|(flag, _)| flags::environment_name(flag.name)).collect();
    let by_name: BTreeMap<&str, &'static Flag> =
        flags::FLAGS.iter().map(|flag| (flag.name, flag)).collect();
    let mut bad = None;
    for flag in by_name.into_values() {
        let name = flags::environment_name(flag.name);
        if by_flag.contains(&name) || used.contains(&name) {
            continue;
        }
        let Some(value) = value(&name) else { continue };
        used.push(name.clone());
        match given.set(flag, &value) {
            Ok(()) => notices.push(Notice::VariableUsed { name, value }),
            Err(why) => {
                bad = Some(format!("invalid value {} for {name}: {why}", go::quote(&value)));
            }
        }
    }
    for (name, value) in environment.iter().filter(|(name, _)| !used.contains(name)) {
        if by_flag.contains(name) {
            return Err(Stop::Conflict(name.clone()));
        }
        match old_flag(name).filter(|_| !value.is_empty()).map(|old| given.set_old(&old, value)) {
            Some(Ok(true)) => {
                let (name, value) = (name.clone(), value.clone());
                notices.push(Notice::VariableUsed { name, value });
                continue;
            }
            Some(Err(why)) => {
                bad = Some(format!("invalid value {} for {name}: {why}", go::quote(value)));
                continue;
            }
            Some(Ok(false)) | None => {}
        }
        if name.starts_with("ETCD_") {
            notices.push(Notice::VariableUnknown(format!("{name}={value}")));
        }
    }
    bad.map_or(Ok(()), invalid)
}

/// The flag of etcd 3.5 that a variable stands for.
fn old_flag(variable: &str) -> Option<String> {
    let name = variable.strip_prefix("ETCD_")?;
    name.starts_with("EXPERIMENTAL_").then(|| name.to_lowercase().replace('_', "-"))
}
