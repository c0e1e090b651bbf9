//! The note of damage: in memory while the store is open, and in the file `DAMAGED` for the next
//! start.

use std::path::Path;
use std::sync::OnceLock;

use crate::files;

/// File name of the note, beside CURRENT.
pub(super) const FILE: &str = "DAMAGED";

/// The first damage that was found, if any.
#[derive(Default)]
pub(super) struct Damage {
    pub(super) found: OnceLock<String>,
}

/// The text of `DAMAGED`, if the file is there and readable.
pub(super) fn noted_damage(db: &Path) -> Option<String> {
    let text = files::read_small(&db.join(FILE)).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
