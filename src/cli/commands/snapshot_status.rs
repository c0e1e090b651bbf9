//! `snapshot status`: what a snapshot file holds, after a check of all its pages.

use std::collections::HashSet;

use prost::Message as _;

use super::at_rest::patiently;
use crate::bbolt;
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::format::FileStatus;
use crate::cli::spec::Program;
use crate::go;
use crate::offline::{Archive, Error};
use crate::pb::KeyValue;
use crate::transfer::{InstallError, WalkItem};

pub(super) fn run(context: &Context) -> Outcome {
    if context.args.len() != 1 {
        return Err(Failure::arguments("snapshot status requires exactly one argument"));
    }
    let path = context.path(0);
    let display = context.display_of_flags().map_err(|wrong| match std::fs::metadata(path) {
        // As in etcdutl, a missing file is told before a format that does not exist. This path
        // stands for a store of ours that has no such file.
        Err(error) if !path.ends_with("member/snap/db") => {
            Failure::error(Error::io("stat", path)(error))
        }
        _ => wrong,
    })?;
    let archive = patiently(context, || Archive::open(path, "stat"))?;
    archive.check().map_err(|error| {
        Failure::error(match error {
            bbolt::Error::NotBbolt(_) => "invalid database".to_owned(),
            other => format!("snapshot file integrity check failed. 1 errors found.\n{other}"),
        })
    })?;
    if context.program == Program::Rusd {
        check_end(&archive)?;
    }
    display.file_status(&read(&archive).map_err(Failure::error)?)
}

/// Says that a file was changed after it was saved. etcdutl looks at the pages alone, which does not
/// show a changed byte of a value. A copy of a database file has no checksum.
fn check_end(archive: &Archive) -> Outcome {
    let text = match archive.check_hash() {
        Ok(()) => return Ok(()),
        Err(Error::NoHash) if archive.is_whole() => return Ok(()),
        Err(Error::NoHash) => "it ends within a page: something was cut off or added",
        Err(Error::Hash { .. }) => "its SHA-256 does not match its contents: they were changed",
        Err(error) => return Err(Failure::error(error)),
    };
    Err(Failure::error(format!("the file is damaged: {text}")))
}

fn read(archive: &Archive) -> Result<FileStatus, InstallError> {
    let mut status = FileStatus { size: archive.file_bytes()?, ..FileStatus::default() };
    let mut alive = HashSet::new();
    archive.source().walk(|seen| {
        let (bucket, key, value) = match seen {
            WalkItem::Bucket(name) => {
                status.hash = crc32c::crc32c_append(status.hash, name);
                return;
            }
            WalkItem::Pair { bucket, key, value } => (bucket, key, value),
        };
        status.hash = crc32c::crc32c_append(crc32c::crc32c_append(status.hash, key), value);
        match bucket {
            b"key" => count(&mut status, key, value, &mut alive),
            b"meta" if key == b"storageVersion" => {
                status.version = go::quote(value).trim_matches('"').to_owned();
            }
            _ => {}
        }
    })?;
    status.keys = alive.len();
    Ok(status)
}

fn count(status: &mut FileStatus, key: &[u8], value: &[u8], alive: &mut HashSet<Vec<u8>>) {
    let main = key.first_chunk().map(|main| u64::from_be_bytes(*main));
    status.revision = main.unwrap_or(status.revision);
    let pair = KeyValue::decode(value).unwrap_or_default();
    if key.len() == 18 && key.ends_with(b"t") {
        alive.remove(pair.key.as_ref() as &[u8]);
    } else {
        alive.insert(pair.key.to_vec());
    }
}
