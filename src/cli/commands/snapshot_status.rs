//! `snapshot status`: what a snapshot file holds, after a check of all its pages.

use std::collections::HashSet;

use prost::Message as _;
use serde_json::json;

use super::at_rest::patiently;
use crate::bbolt;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::format::Format;
use crate::cli::size;
use crate::cli::table::table;
use crate::go;
use crate::offline::Archive;
use crate::pb::KeyValue;
use crate::transfer::{InstallError, WalkItem};

const HEADER: [&str; 5] = ["hash", "revision", "total keys", "total size", "version"];

#[derive(Debug, Default, PartialEq, Eq)]
struct Status {
    hash: u32,
    revision: u64,
    keys: usize,
    size: u64,
    version: String,
}

pub(super) fn run(context: &Context) -> Outcome {
    if context.args.len() != 1 {
        return Err(Failure::arguments("snapshot status requires exactly one argument"));
    }
    let Some(format) = Format::parse(context.flags.bytes("write-out")) else {
        return Err(Failure::new(Exit::BadFeature, "unsupported output format"));
    };
    let archive = patiently(context, || Archive::open(context.path(0), "stat"))?;
    archive.check().map_err(|error| {
        Failure::error(match error {
            bbolt::Error::NotBbolt(_) => "invalid database".to_owned(),
            other => format!("snapshot file integrity check failed. 1 errors found.\n{other}"),
        })
    })?;
    let status = read(&archive).map_err(Failure::error)?;
    let Status { hash, revision, keys, size, version } = &status;
    let cells = vec![
        format!("{hash:x}"),
        revision.to_string(),
        keys.to_string(),
        size::shown(*size),
        version.clone(),
    ];
    context.printer.out(match format {
        Format::Simple => cells.join(", ") + "\n",
        Format::Table => table(&HEADER, &[cells]),
        Format::Fields => format!(
            "\"Hash\" : {hash}\n\"Revision\" : {revision}\n\"Keys\" : {keys}\n\
             \"Size\" : {size}\n\"Version\" : {version}\n"
        ),
        Format::Json => format!(
            "{{\"hash\":{hash},\"revision\":{revision},\"totalKey\":{keys},\
             \"totalSize\":{size},\"version\":{}}}\n",
            json!(version)
        ),
        Format::Protobuf => {
            let text = "protobuf not supported as output format";
            return Err(Failure::new(Exit::BadFeature, text));
        }
    });
    Ok(())
}

fn read(archive: &Archive) -> Result<Status, InstallError> {
    let mut status = Status { size: archive.file_bytes()?, ..Status::default() };
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
            b"key" => status.count(key, value, &mut alive),
            b"meta" if key == b"storageVersion" => {
                status.version = go::quote(value).trim_matches('"').to_owned();
            }
            _ => {}
        }
    })?;
    status.keys = alive.len();
    Ok(status)
}

impl Status {
    fn count(&mut self, key: &[u8], value: &[u8], alive: &mut HashSet<Vec<u8>>) {
        let main = key.first_chunk().map(|main| u64::from_be_bytes(*main));
        self.revision = main.unwrap_or(self.revision);
        let pair = KeyValue::decode(value).unwrap_or_default();
        if key.len() == 18 && key.ends_with(b"t") {
            alive.remove(pair.key.as_ref() as &[u8]);
        } else {
            alive.insert(pair.key.to_vec());
        }
    }
}
