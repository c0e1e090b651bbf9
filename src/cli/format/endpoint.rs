//! Answers of single endpoints: health, status, hash.

use super::{Display, Forms, Outcome, Text, lines};
use crate::cli::grid::{Cell, Column, Grid};
use crate::cli::json::{self, Object};
use crate::cli::record::{Fields, Records, Value};
use crate::cli::size;
use crate::cli::table::table;
use crate::cli::terminal::Style;
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
            records: Some(&|| Records::Many(all.iter().map(health_record).collect())),
            grid: Some(&|| {
                let mut all: Vec<_> = all.iter().collect();
                all.sort_by_key(|health| &health.endpoint);
                Grid::new(&HEALTH_GRID, all.into_iter().map(health_cells))
            }),
            page: None,
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
            records: Some(&|| {
                Records::Many(all.iter().map(|(name, it)| status_record(name, it)).collect())
            }),
            grid: Some(&|| {
                Grid::new(&STATUS_GRID, all.iter().map(|(name, status)| status_cells(name, status)))
            }),
            page: None,
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

    /// The table below a report on space: where a person reads as wide as the terminal.
    pub(in crate::cli) fn space_prefixes(&self, rows: &[[String; 4]]) {
        static COLUMNS: [Column; 4] = [
            Column::new("PREFIX", 0),
            Column::number("KEYS", 0),
            Column::number("LIVE", 1),
            Column::number("HISTORY", 2),
        ];
        if rows.is_empty() {
            return;
        }
        if !self.out.has_reader() {
            let rows: Vec<_> = rows.iter().map(|row| row.to_vec()).collect();
            return self.out.out(table(&["prefix", "keys", "live", "history"], &rows));
        }
        let rows = rows.iter().map(|row| row.iter().map(Cell::from).collect());
        self.out.page(&Grid::new(&COLUMNS, rows).page(self.out.width()));
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
            records: Some(&|| Records::Many(all.iter().map(hash_record).collect())),
            grid: Some(&|| Grid::new(&HASH_GRID, all.iter().map(|one| hash_cells(one, all)))),
            page: None,
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

static HEALTH_GRID: [Column; 4] = [
    Column::new("ENDPOINT", 0),
    Column::new("HEALTH", 0),
    Column::number("TOOK", 1),
    Column::seldom("ERROR", 0),
];

fn health_cells(health: &Health) -> Vec<Cell> {
    let word = match health.error.is_empty() {
        true => Cell::new(Style::Good, "healthy"),
        false => Cell::new(Style::Bad, "unhealthy"),
    };
    vec![
        health.endpoint.as_str().into(),
        word,
        short(&health.took).into(),
        Cell::new(Style::Bad, &health.error),
    ]
}

/// A duration as Go writes it, with one digit behind the point.
fn short(took: &str) -> String {
    let Some((whole, rest)) = took.split_once('.') else { return took.to_owned() };
    let unit = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let digit: String = rest.chars().take(1).collect();
    format!("{whole}.{digit}{unit}")
}

fn health_record(health: &Health) -> Value {
    Fields::new()
        .with("endpoint", &health.endpoint)
        .with("healthy", health.healthy)
        .maybe("took", Some(&health.took).filter(|took| !took.is_empty()))
        .maybe("error", Some(&health.error).filter(|error| !error.is_empty()))
        .end()
}

static HASH_GRID: [Column; 5] = [
    Column::new("ENDPOINT", 0),
    Column::number("HASH", 0),
    Column::number("REVISION", 0),
    Column::number("COMPACTED", 1),
    Column::new("MEMBER", 2),
];

/// Hashes of the same revisions are red where they differ: one of the members has other data.
fn hash_cells(
    (name, hash): &(String, HashKvResponse),
    all: &[(String, HashKvResponse)],
) -> Vec<Cell> {
    let state = |hash: &HashKvResponse| (hash.hash_revision, hash.compact_revision);
    let differs = |other: &HashKvResponse| state(other) == state(hash) && other.hash != hash.hash;
    let style = match all.iter().any(|(_, other)| differs(other)) {
        true => Style::Bad,
        false => Style::Plain,
    };
    vec![
        name.as_str().into(),
        Cell::new(style, hash.hash.to_string()),
        hash.hash_revision.to_string().into(),
        // -1 stands for no compaction.
        hash.compact_revision.max(0).to_string().into(),
        format!("{:x}", hash.header.unwrap_or_default().member_id).into(),
    ]
}

fn hash_record((name, hash): &(String, HashKvResponse)) -> Value {
    Fields::new()
        .with("endpoint", name)
        .id("memberId", hash.header.unwrap_or_default().member_id)
        .with("hash", hash.hash)
        .with("hashRevision", hash.hash_revision)
        .with("compactRevision", hash.compact_revision)
        .end()
}

/// What is asked first stands left: which member, whether it leads, and how full it is.
static STATUS_GRID: [Column; 14] = [
    Column::new("ENDPOINT", 0),
    Column::new("ID", 1),
    Column::new("ROLE", 0),
    Column::new("VERSION", 2),
    Column::new("STORAGE", 8),
    Column::number("DB SIZE", 0),
    Column::number("IN USE", 3),
    Column::number("QUOTA", 4),
    Column::number("TERM", 6),
    Column::number("INDEX", 5),
    Column::number("APPLIED", 7),
    Column::seldom("DOWNGRADE TO", 0),
    Column::new("CLUSTER", 9),
    Column::seldom("ERRORS", 0),
];

fn member_and_cluster(status: &StatusResponse) -> (u64, u64) {
    let header = status.header.unwrap_or_default();
    (header.member_id, header.cluster_id)
}

fn role(status: &StatusResponse) -> (&'static str, Style) {
    match member_and_cluster(status).0 {
        _ if status.is_learner => ("learner", Style::Warning),
        _ if status.leader == 0 => ("no leader", Style::Bad),
        id if status.leader == id => ("leader", Style::Good),
        _ => ("follower", Style::Plain),
    }
}

fn status_cells(name: &str, status: &StatusResponse) -> Vec<Cell> {
    let (member, cluster) = member_and_cluster(status);
    let (role, style) = role(status);
    let bytes = |bytes: i64| -> Cell { size::shown(bytes.unsigned_abs()).into() };
    let downgrade = status.downgrade_info.clone().filter(|info| info.enabled).unwrap_or_default();
    vec![
        name.into(),
        format!("{member:x}").into(),
        Cell::new(style, role),
        status.version.as_str().into(),
        status.storage_version.as_str().into(),
        bytes(status.db_size),
        bytes(status.db_size_in_use),
        if status.db_size_quota == 0 { "none".into() } else { bytes(status.db_size_quota) },
        status.raft_term.to_string().into(),
        status.raft_index.to_string().into(),
        status.raft_applied_index.to_string().into(),
        Cell::new(Style::Warning, downgrade.target_version),
        format!("{cluster:x}").into(),
        Cell::new(Style::Bad, errors(status).join(", ")),
    ]
}

/// The errors of a status, with the id of `memberID:7 alarm:NOSPACE` in hexadecimal.
fn errors(status: &StatusResponse) -> Vec<String> {
    let hexadecimal = |text: &String| {
        let (id, alarm) = text.strip_prefix("memberID:")?.split_once(' ')?;
        Some(format!("memberID:{:x} {alarm}", id.parse::<u64>().ok()?))
    };
    status.errors.iter().map(|text| hexadecimal(text).unwrap_or_else(|| text.clone())).collect()
}

fn status_record(name: &str, status: &StatusResponse) -> Value {
    let (member, cluster) = member_and_cluster(status);
    let downgrade = status.downgrade_info.clone().filter(|info| info.enabled);
    Fields::new()
        .with("endpoint", name)
        .id("memberId", member)
        .id("clusterId", cluster)
        .with("role", role(status).0)
        .id("leaderId", status.leader)
        .with("version", &status.version)
        .with("storageVersion", &status.storage_version)
        .with("dbSizeBytes", status.db_size)
        .with("dbSizeInUseBytes", status.db_size_in_use)
        .with("dbSizeQuotaBytes", status.db_size_quota)
        .with("revision", status.header.unwrap_or_default().revision)
        .with("raftTerm", status.raft_term)
        .with("raftIndex", status.raft_index)
        .with("raftAppliedIndex", status.raft_applied_index)
        .with("errors", errors(status).as_slice())
        .maybe("downgradeTo", downgrade.map(|info| info.target_version))
        .end()
}

fn list_or_null(items: Vec<String>) -> Vec<u8> {
    if items.is_empty() { "null".into() } else { json::array(items).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_errors_are_hexadecimal() {
        let texts = ["memberID:10276657743932975437 alarm:NOSPACE", "etcdserver: no leader"];
        let texts = texts.map(str::to_owned).to_vec();
        let status = StatusResponse { errors: texts, ..StatusResponse::default() };
        let shown = ["memberID:8e9e05c52164694d alarm:NOSPACE", "etcdserver: no leader"];
        assert_eq!(errors(&status), shown);
    }
}
