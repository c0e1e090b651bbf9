//! Answers about snapshot files.

use serde_json::json;

use super::{Display, Forms, Outcome};
use crate::cli::record::{Fields, Records};
use crate::cli::size;
use crate::cli::table::table;
use crate::mvcc::KeyValueHash;

/// What a snapshot file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct FileStatus {
    pub hash: u32,
    pub revision: u64,
    pub keys: usize,
    pub size: u64,
    pub version: String,
}

impl Display {
    pub(in crate::cli) fn file_status(&self, status: &FileStatus) -> Outcome {
        const HEADER: [&str; 5] = ["hash", "revision", "total keys", "total size", "version"];
        let FileStatus { hash, revision, keys, size, version } = status;
        let cells = || {
            let (hash, size) = (format!("{hash:x}"), size::shown(*size));
            vec![hash, revision.to_string(), keys.to_string(), size, version.clone()]
        };
        self.show(Forms {
            simple: Some(&|| (cells().join(", ") + "\n").into()),
            table: Some(&|| table(&HEADER, &[cells()]).into()),
            fields: Some(&|| {
                format!(
                    "\"Hash\" : {hash}\n\"Revision\" : {revision}\n\"Keys\" : {keys}\n\
                     \"Size\" : {size}\n\"Version\" : {version}\n"
                )
                .into()
            }),
            json: Some(&|| {
                format!(
                    "{{\"hash\":{hash},\"revision\":{revision},\"totalKey\":{keys},\
                     \"totalSize\":{size},\"version\":{}}}",
                    json!(version)
                )
                .into()
            }),
            records: Some(&|| {
                let fields = Fields::new().with("hash", *hash).with("revision", *revision);
                let fields = fields.with("keys", *keys as u64).with("sizeBytes", *size);
                Records::One(fields.with("version", version).end())
            }),
            ..Forms::default()
        })
    }

    /// The hash of the history in a file.
    pub(in crate::cli) fn file_hash(&self, found: &KeyValueHash) -> Outcome {
        const HEADER: [&str; 3] = ["hash", "hash revision", "compact revision"];
        let KeyValueHash { hash, revision, compact_revision } = found;
        self.show(Forms {
            simple: Some(&|| format!("{hash}, {revision}, {compact_revision}\n").into()),
            table: Some(&|| {
                let cells = [hash.to_string(), revision.to_string(), compact_revision.to_string()];
                table(&HEADER, &[cells.to_vec()]).into()
            }),
            fields: Some(&|| {
                format!(
                    "\"Hash\" : {hash}\n\"Hash revision\" : {revision}\n\
                     \"Compact revision\" : {compact_revision}\n"
                )
                .into()
            }),
            json: Some(&|| {
                format!(
                    "{{\"hash\":{hash},\"hashRevision\":{revision},\
                     \"compactRevision\":{compact_revision}}}"
                )
                .into()
            }),
            records: Some(&|| {
                let fields = Fields::new().with("hash", *hash).with("hashRevision", *revision);
                Records::One(fields.with("compactRevision", *compact_revision).end())
            }),
            ..Forms::default()
        })
    }
}
