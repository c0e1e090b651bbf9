//! Answers of single endpoints: health, status, hash.

use super::{Display, Forms, Outcome, Text, lines};
use crate::cli::json::{self, Object};
use crate::cli::size;
use crate::cli::table::table;
use crate::pb::{HashKvResponse, StatusResponse};

impl Display {
    pub(in crate::cli) fn endpoint_health(&self, all: &[Health]) -> Outcome {
        let error = |health: &Health| (!health.error.is_empty()).then(|| health.error.clone());
        self.show(Forms {
            simple: Some(&|| {
                let mut text = Text::default();
                for health in all {
                    let endpoint = &health.endpoint;
                    match error(health) {
                        None => text.line(format!(
                            "{endpoint} is healthy: successfully committed proposal: took = {}",
                            health.took
                        )),
                        Some(error) => {
                            self.out.err(format!(
                                "{endpoint} is unhealthy: failed to commit proposal: {error}\n"
                            ));
                            &mut text
                        }
                    };
                }
                text.0
            }),
            fields: Some(&|| {
                let mut text = Text::default();
                for health in all {
                    text.quoted("Endpoint", &health.endpoint).field("Health", health.healthy);
                    text.field("Took", &health.took).field("Error", &health.error).line("");
                }
                text.0
            }),
            json: Some(&|| {
                let one = |health: &Health| {
                    Object::new()
                        .raw("endpoint", json::string(health.endpoint.as_bytes()))
                        .raw("health", health.healthy.to_string())
                        .raw("took", json::string(health.took.as_bytes()))
                        .text("error", &health.error)
                        .end()
                };
                list_or_null(all.iter().map(one).collect())
            }),
            protobuf: None,
            table: Some(&|| {
                let row = |health: &Health| {
                    vec![
                        health.endpoint.clone(),
                        health.healthy.to_string(),
                        health.took.clone(),
                        health.error.clone(),
                    ]
                };
                let rows: Vec<_> = all.iter().map(row).collect();
                table(&["endpoint", "health", "took", "error"], &rows).into()
            }),
        })
    }

    pub(in crate::cli) fn endpoint_status(&self, all: &[(String, StatusResponse)]) -> Outcome {
        let rows = || all.iter().map(|(name, status)| status_row(name, status)).collect::<Vec<_>>();
        self.show(Forms {
            simple: Some(&|| lines(&rows())),
            fields: Some(&|| {
                let mut text = Text::default();
                all.iter().for_each(|(name, status)| self.status_fields(&mut text, name, status));
                text.0
            }),
            json: Some(&|| {
                let one = |(name, status): &(String, StatusResponse)| {
                    let name = json::string(name.as_bytes());
                    Object::new().raw("Endpoint", name).raw("Status", json::status(status)).end()
                };
                list_or_null(all.iter().map(one).collect())
            }),
            protobuf: None,
            table: Some(&|| table(&STATUS_COLUMNS, &rows()).into()),
        })
    }

    fn status_fields(&self, text: &mut Text, name: &str, status: &StatusResponse) {
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        self.header(text, &status.header);
        text.quoted("Version", &status.version)
            .quoted("StorageVersion", &status.storage_version)
            .field("DBSize", status.db_size)
            .field("DBSizeInUse", status.db_size_in_use)
            .field("DBSizeQuota", status.db_size_quota)
            .field("Leader", status.leader)
            .field("IsLearner", status.is_learner)
            .field("RaftIndex", status.raft_index)
            .field("RaftTerm", status.raft_term)
            .field("RaftAppliedIndex", status.raft_applied_index)
            .field("Errors", format!("[{}]", status.errors.join(" ")))
            .quoted("Endpoint", name)
            .quoted("DowngradeTargetVersion", &downgrade.target_version)
            .field("DowngradeEnabled", downgrade.enabled)
            .line("");
    }

    pub(in crate::cli) fn endpoint_hash(&self, all: &[(String, HashKvResponse)]) -> Outcome {
        let row = |(name, hash): &(String, HashKvResponse)| {
            vec![name.clone(), hash.hash.to_string(), hash.hash_revision.to_string()]
        };
        let rows = || all.iter().map(row).collect::<Vec<_>>();
        self.show(Forms {
            simple: Some(&|| lines(&rows())),
            fields: Some(&|| {
                let mut text = Text::default();
                for (name, hash) in all {
                    self.header(&mut text, &hash.header);
                    text.quoted("Endpoint", name).field("Hash", hash.hash);
                    text.field("HashRevision", hash.hash_revision).line("");
                }
                text.0
            }),
            json: Some(&|| {
                let one = |(name, hash): &(String, HashKvResponse)| {
                    let name = json::string(name.as_bytes());
                    Object::new().raw("Endpoint", name).raw("HashKV", json::hash_kv(hash)).end()
                };
                list_or_null(all.iter().map(one).collect())
            }),
            protobuf: None,
            table: Some(&|| table(&["endpoint", "hash", "hash_revision"], &rows()).into()),
        })
    }
}

/// The health of one endpoint.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Health {
    pub endpoint: String,
    pub healthy: bool,
    pub took: String,
    pub error: String,
}

const STATUS_COLUMNS: [&str; 16] = [
    "endpoint",
    "ID",
    "version",
    "storage version",
    "db size",
    "in use",
    "percentage not in use",
    "quota",
    "is leader",
    "is learner",
    "raft term",
    "raft index",
    "raft applied index",
    "errors",
    "downgrade target version",
    "downgrade enabled",
];

fn status_row(name: &str, status: &StatusResponse) -> Vec<String> {
    let member = status.header.unwrap_or_default().member_id;
    let downgrade = status.downgrade_info.clone().unwrap_or_default();
    let bytes = |bytes: i64| size::shown(bytes.unsigned_abs());
    let used = (status.db_size_in_use * 100).checked_div(status.db_size).unwrap_or(0);
    vec![
        name.to_string(),
        format!("{member:x}"),
        status.version.clone(),
        status.storage_version.clone(),
        bytes(status.db_size),
        bytes(status.db_size_in_use),
        format!("{}%", 100 - used),
        bytes(status.db_size_quota),
        (status.leader == member).to_string(),
        status.is_learner.to_string(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join(", "),
        downgrade.target_version,
        downgrade.enabled.to_string(),
    ]
}

fn list_or_null(items: Vec<String>) -> Vec<u8> {
    if items.is_empty() { "null".into() } else { json::array(items).into() }
}
