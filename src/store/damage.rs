//! The note of damage: in memory while the store is open, and in a file beside it for the next start.

use std::path::Path;
use std::sync::OnceLock;

use crate::files;

pub(super) const FILE: &str = "DAMAGED";

/// Where the store was found damaged, if it was.
#[derive(Default)]
pub(super) struct Damage {
    pub(super) found: OnceLock<String>,
}

/// The note of a damage, if there is one.
pub(super) fn noted_damage(db: &Path) -> Option<String> {
    let text = files::read_small(&db.join(FILE)).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
