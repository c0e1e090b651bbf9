//! Every answer in every output format: simple, fields, json, protobuf, table.
//!
//! Whether a format exists for an answer is found out only here, after the call took effect, as in
//! etcdctl.

use prost::Message;

use super::exit::{Exit, Failure, Outcome};
use super::go;
use super::json::{self, Object};
use super::printer::Printer;
use super::table::table;
use crate::client::WatchBatch;
use crate::pb::authpb::permission::Type;
use crate::pb::response_op::Response;
use crate::{pb::*, types::SignedHex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Simple,
    Fields,
    Json,
    Protobuf,
    Table,
}

impl Format {
    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"simple" => Self::Simple,
            b"fields" => Self::Fields,
            b"json" => Self::Json,
            b"protobuf" => Self::Protobuf,
            b"table" => Self::Table,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Fields => "fields",
            Self::Json => "json",
            Self::Protobuf => "protobuf",
            Self::Table => "table",
        }
    }
}

/// Shows answers in the chosen format.
#[derive(Clone)]
pub(super) struct Display {
    pub format: Format,
    pub hex: bool,
    /// `get --print-value-only`.
    pub value_only: bool,
    pub out: Printer,
}

type Form<'a> = Option<&'a dyn Fn() -> Vec<u8>>;

/// The forms that an answer has.
#[derive(Default)]
struct Forms<'a> {
    simple: Form<'a>,
    fields: Form<'a>,
    json: Form<'a>,
    protobuf: Form<'a>,
    table: Form<'a>,
}

/// Text that may hold a user's bytes.
#[derive(Default)]
struct Text(Vec<u8>);

impl Text {
    fn line(&mut self, line: impl AsRef<[u8]>) -> &mut Self {
        self.0.extend_from_slice(line.as_ref());
        self.0.push(b'\n');
        self
    }

    fn field(&mut self, name: &str, value: impl std::fmt::Display) -> &mut Self {
        self.line(format!("\"{name}\" : {value}"))
    }

    fn quoted(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        self.field(name, go::quote(value.as_ref()))
    }
}

impl Display {
    fn show(&self, forms: Forms<'_>) -> Outcome {
        let form = match self.format {
            Format::Simple => forms.simple,
            Format::Fields => forms.fields,
            Format::Json => forms.json,
            Format::Protobuf => forms.protobuf,
            Format::Table => forms.table,
        };
        let Some(form) = form else {
            let text = format!("{} not supported as output format", self.format.name());
            return Err(Failure::new(Exit::BadFeature, text));
        };
        let mut bytes = form();
        if self.format == Format::Json {
            bytes.push(b'\n');
        }
        self.out.out(bytes);
        Ok(())
    }

    fn kv(&self, text: &mut Text, kv: &KeyValue) {
        let shown = |bytes: &[u8]| match self.hex {
            true => bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>().into(),
            false => bytes.to_vec(),
        };
        if !self.value_only {
            text.line(shown(&kv.key));
        }
        text.line(shown(&kv.value));
    }

    fn kv_fields(&self, text: &mut Text, prefix: &str, kv: &KeyValue) {
        text.quoted(&format!("{prefix}Key"), &kv.key)
            .field(&format!("{prefix}CreateRevision"), kv.create_revision)
            .field(&format!("{prefix}ModRevision"), kv.mod_revision)
            .field(&format!("{prefix}Version"), kv.version)
            .quoted(&format!("{prefix}Value"), &kv.value)
            .field(&format!("{prefix}Lease"), self.lease_id(kv.lease));
    }

    fn lease_id(&self, id: i64) -> String {
        if self.hex { format!("{:016x}", SignedHex(id)) } else { id.to_string() }
    }

    fn id(&self, id: u64) -> String {
        if self.hex { format!("{id:x}") } else { id.to_string() }
    }

    fn header(&self, text: &mut Text, header: &Option<ResponseHeader>) {
        let header = header.unwrap_or_default();
        text.field("ClusterID", self.id(header.cluster_id));
        text.field("MemberID", self.id(header.member_id));
        if header.revision > 0 {
            text.field("Revision", header.revision);
        }
        text.field("RaftTerm", header.raft_term);
    }

    fn with_header(
        &self,
        header: &Option<ResponseHeader>,
        rest: impl FnOnce(&mut Text),
    ) -> Vec<u8> {
        let mut text = Text::default();
        self.header(&mut text, header);
        rest(&mut text);
        text.0
    }

    pub(super) fn get(&self, response: &RangeResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| self.get_simple(response)),
            fields: Some(&|| self.get_fields(response)),
            json: Some(&|| json::range(response).into()),
            protobuf: Some(&|| response.encode_to_vec()),
            table: None,
        })
    }

    fn get_simple(&self, response: &RangeResponse) -> Vec<u8> {
        let mut text = Text::default();
        response.kvs.iter().for_each(|kv| self.kv(&mut text, kv));
        text.0
    }

    fn get_fields(&self, response: &RangeResponse) -> Vec<u8> {
        self.with_header(&response.header, |text| {
            response.kvs.iter().for_each(|kv| self.kv_fields(text, "", kv));
            text.field("More", response.more).field("Count", response.count);
        })
    }

    pub(super) fn put(&self, response: &PutResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| self.put_simple(response)),
            fields: Some(&|| self.put_fields(response)),
            json: Some(&|| json::put(response).into()),
            protobuf: Some(&|| response.encode_to_vec()),
            table: None,
        })
    }

    fn put_simple(&self, response: &PutResponse) -> Vec<u8> {
        let mut text = Text::default();
        text.line("OK");
        response.prev_kv.iter().for_each(|kv| self.kv(&mut text, kv));
        text.0
    }

    fn put_fields(&self, response: &PutResponse) -> Vec<u8> {
        self.with_header(&response.header, |text| {
            response.prev_kv.iter().for_each(|kv| self.kv_fields(text, "Prev", kv));
        })
    }

    pub(super) fn delete(&self, response: &DeleteRangeResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| self.delete_simple(response)),
            fields: Some(&|| self.delete_fields(response)),
            json: Some(&|| json::delete(response).into()),
            protobuf: Some(&|| response.encode_to_vec()),
            table: None,
        })
    }

    fn delete_simple(&self, response: &DeleteRangeResponse) -> Vec<u8> {
        let mut text = Text::default();
        text.line(response.deleted.to_string());
        response.prev_kvs.iter().for_each(|kv| self.kv(&mut text, kv));
        text.0
    }

    fn delete_fields(&self, response: &DeleteRangeResponse) -> Vec<u8> {
        self.with_header(&response.header, |text| {
            text.field("Deleted", response.deleted);
            response.prev_kvs.iter().for_each(|kv| self.kv_fields(text, "Prev", kv));
        })
    }

    pub(super) fn txn(&self, response: &TxnResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| self.txn_simple(response)),
            fields: Some(&|| self.txn_fields(response)),
            json: Some(&|| json::txn(response).into()),
            protobuf: Some(&|| response.encode_to_vec()),
            table: None,
        })
    }

    fn txn_simple(&self, response: &TxnResponse) -> Vec<u8> {
        let mut text = Text::default();
        text.line(if response.succeeded { "SUCCESS" } else { "FAILURE" });
        for op in &response.responses {
            text.line("");
            text.0.extend(match &op.response {
                Some(Response::ResponseRange(response)) => self.get_simple(response),
                Some(Response::ResponsePut(response)) => self.put_simple(response),
                Some(Response::ResponseDeleteRange(response)) => self.delete_simple(response),
                Some(Response::ResponseTxn(response)) => self.txn_simple(response),
                None => Vec::new(),
            });
        }
        text.0
    }

    fn txn_fields(&self, response: &TxnResponse) -> Vec<u8> {
        self.with_header(&response.header, |text| {
            text.field("Succeeded", response.succeeded);
            for op in &response.responses {
                text.0.extend(match &op.response {
                    Some(Response::ResponseRange(response)) => self.get_fields(response),
                    Some(Response::ResponsePut(response)) => self.put_fields(response),
                    Some(Response::ResponseDeleteRange(response)) => self.delete_fields(response),
                    Some(Response::ResponseTxn(response)) => self.txn_fields(response),
                    None => Vec::new(),
                });
            }
        })
    }

    pub(super) fn watch(&self, batch: &WatchBatch) -> Outcome {
        self.show(Forms {
            simple: Some(&|| self.watch_simple(batch)),
            fields: Some(&|| self.watch_fields(batch)),
            json: Some(&|| watch_json(batch).into()),
            protobuf: Some(&|| {
                WatchResponse {
                    header: Some(batch.header),
                    events: batch.events.clone(),
                    compact_revision: batch.compact_revision,
                    canceled: batch.canceled,
                    ..WatchResponse::default()
                }
                .encode_to_vec()
            }),
            table: None,
        })
    }

    fn watch_simple(&self, batch: &WatchBatch) -> Vec<u8> {
        let mut text = Text::default();
        for event in &batch.events {
            text.line(event.r#type().as_str_name());
            event.prev_kv.iter().for_each(|kv| self.kv(&mut text, kv));
            self.kv(&mut text, event.kv.as_ref().unwrap_or(&KeyValue::default()));
        }
        text.0
    }

    fn watch_fields(&self, batch: &WatchBatch) -> Vec<u8> {
        self.with_header(&Some(batch.header), |text| {
            for event in &batch.events {
                text.field("Type", event.r#type().as_str_name());
                event.prev_kv.iter().for_each(|kv| self.kv_fields(text, "Prev", kv));
                self.kv_fields(text, "", event.kv.as_ref().unwrap_or(&KeyValue::default()));
            }
        })
    }

    pub(super) fn lease_grant(&self, response: &LeaseGrantResponse) -> Outcome {
        let (id, ttl, shown) = (response.id, response.ttl, SignedHex(response.id));
        self.show(Forms {
            simple: Some(&|| format!("lease {shown:016x} granted with TTL({ttl}s)\n").into()),
            fields: Some(&|| {
                self.with_header(&response.header, |text| {
                    text.field("ID", self.lease_id(id)).field("TTL", ttl);
                })
            }),
            json: Some(&|| {
                flat(&response.header)
                    .raw("ID", id.to_string())
                    .raw("TTL", ttl.to_string())
                    .raw("Error", json::string(response.error.as_bytes()))
                    .end()
                    .into()
            }),
            protobuf: Some(&|| bare(&response.header)),
            table: None,
        })
    }

    pub(super) fn lease_revoke(&self, id: i64, response: &LeaseRevokeResponse) -> Outcome {
        if self.format == Format::Protobuf {
            // etcdctl's own slip: the lease is revoked, the answer cannot be shown.
            let text = "marshal unsupported for type *clientv3.LeaseRevokeResponse";
            let header = response.header.unwrap_or_default();
            return Err(Failure::new(
                Exit::BadFeature,
                format!(
                    "{text} (&{{header:<cluster_id:{} member_id:{} revision:{} raft_term:{}>}})",
                    header.cluster_id, header.member_id, header.revision, header.raft_term
                ),
            ));
        }
        self.show(Forms {
            simple: Some(&|| format!("lease {:016x} revoked\n", SignedHex(id)).into()),
            fields: Some(&|| self.with_header(&response.header, |_| {})),
            json: Some(&|| json::answer(&response.header).end().into()),
            ..Forms::default()
        })
    }

    pub(super) fn lease_keep_alive(&self, response: &LeaseKeepAliveResponse) -> Outcome {
        let (id, ttl, shown) = (response.id, response.ttl, SignedHex(response.id));
        self.show(Forms {
            simple: Some(&|| format!("lease {shown:016x} keepalived with TTL({ttl})\n").into()),
            fields: Some(&|| {
                self.with_header(&response.header, |text| {
                    text.field("ID", self.lease_id(id)).field("TTL", ttl);
                })
            }),
            json: Some(&|| {
                flat(&response.header)
                    .raw("ID", id.to_string())
                    .raw("TTL", ttl.to_string())
                    .end()
                    .into()
            }),
            protobuf: Some(&|| bare(&response.header)),
            table: None,
        })
    }

    pub(super) fn lease_time_to_live(
        &self,
        response: &LeaseTimeToLiveResponse,
        keys: bool,
    ) -> Outcome {
        let (id, shown) = (response.id, SignedHex(response.id));
        let (ttl, granted) = (response.ttl, response.granted_ttl);
        self.show(Forms {
            simple: Some(&|| {
                if granted == 0 && ttl == -1 {
                    return format!("lease {shown:016x} already expired\n").into();
                }
                let mut line =
                    format!("lease {shown:016x} granted with TTL({granted}s), remaining({ttl}s)")
                        .into_bytes();
                if keys {
                    line.extend_from_slice(b", attached keys([");
                    line.extend_from_slice(&response.keys.join(&b' '));
                    line.extend_from_slice(b"])");
                }
                line.push(b'\n');
                line
            }),
            fields: Some(&|| {
                self.with_header(&response.header, |text| {
                    text.field("ID", self.lease_id(id)).field("TTL", ttl);
                    text.field("GrantedTTL", granted);
                    for key in &response.keys {
                        text.quoted("Key", key);
                    }
                })
            }),
            json: Some(&|| {
                let keys = response.keys.iter().map(|key| json::base64(key)).collect();
                let keys = match response.keys.is_empty() {
                    true => "null".into(),
                    false => json::array(keys),
                };
                flat(&response.header)
                    .raw("id", id.to_string())
                    .raw("ttl", ttl.to_string())
                    .raw("granted-ttl", granted.to_string())
                    .raw("keys", keys)
                    .end()
                    .into()
            }),
            protobuf: Some(&|| bare(&response.header)),
            table: None,
        })
    }

    pub(super) fn leases(&self, response: &LeaseLeasesResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| {
                let mut text = Text::default();
                text.line(format!("found {} leases", response.leases.len()));
                for lease in &response.leases {
                    text.line(format!("{:016x}", SignedHex(lease.id)));
                }
                text.0
            }),
            fields: Some(&|| {
                self.with_header(&response.header, |text| {
                    for lease in &response.leases {
                        text.field("ID", self.lease_id(lease.id));
                    }
                })
            }),
            json: Some(&|| {
                let leases = response.leases.iter();
                let leases =
                    leases.map(|lease| Object::new().raw("id", lease.id.to_string()).end());
                flat(&response.header).raw("leases", json::array(leases.collect())).end().into()
            }),
            protobuf: Some(&|| bare(&response.header)),
            table: None,
        })
    }

    pub(super) fn alarm(&self, response: &AlarmResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| {
                let mut text = Text::default();
                for alarm in &response.alarms {
                    let mut parts = Vec::new();
                    if alarm.member_id != 0 {
                        parts.push(format!("memberID:{}", alarm.member_id));
                    }
                    if alarm.alarm != 0 {
                        parts.push(format!("alarm:{}", alarm.alarm().as_str_name()));
                    }
                    text.line(parts.join("  "));
                }
                text.0
            }),
            fields: Some(&|| {
                self.with_header(&response.header, |text| {
                    for alarm in &response.alarms {
                        text.field("MemberID", self.id(alarm.member_id));
                        text.field("AlarmType", alarm.alarm().as_str_name()).line("");
                    }
                })
            }),
            json: Some(&|| {
                let alarms = response.alarms.iter().map(json::alarm).collect();
                json::answer(&response.header).list("alarms", alarms).end().into()
            }),
            protobuf: Some(&|| response.encode_to_vec()),
            table: None,
        })
    }

    pub(super) fn member_list(&self, response: &MemberListResponse) -> Outcome {
        let rows = || response.members.iter().map(member_row).collect::<Vec<_>>();
        let header = ["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];
        self.show(Forms {
            simple: Some(&|| lines(&rows())),
            fields: Some(&|| {
                self.with_header(&response.header, |text| {
                    for member in &response.members {
                        text.field("ID", self.id(member.id)).quoted("Name", &member.name);
                        for url in &member.peer_ur_ls {
                            text.quoted("PeerURL", url);
                        }
                        for url in &member.client_ur_ls {
                            text.quoted("ClientURL", url);
                        }
                        text.field("IsLearner", member.is_learner).line("");
                    }
                })
            }),
            json: Some(&|| self.members_json(&response.header, None, &response.members)),
            protobuf: Some(&|| response.encode_to_vec()),
            table: Some(&|| table(&header, &rows()).into()),
        })
    }

    fn members_json(
        &self,
        header: &Option<ResponseHeader>,
        member: Option<&Member>,
        members: &[Member],
    ) -> Vec<u8> {
        if !self.hex {
            return json::answer(header)
                .some("member", member.map(json::member))
                .list("members", members.iter().map(json::member).collect())
                .end()
                .into();
        }
        Object::new()
            .raw("header", json::header_hex(&header.unwrap_or_default()))
            .some("member", member.map(json::member_hex))
            .raw("members", json::array(members.iter().map(json::member_hex).collect()))
            .end()
            .into()
    }

    pub(super) fn member_add(&self, response: &MemberAddResponse) -> Outcome {
        let member = response.member.clone().unwrap_or_default();
        let cluster = response.header.unwrap_or_default().cluster_id;
        let learner = if member.is_learner { " as learner " } else { " " };
        self.show(Forms {
            simple: Some(&|| {
                format!("Member {:16x} added{learner}to cluster {cluster:16x}\n", member.id).into()
            }),
            json: Some(&|| self.members_json(&response.header, Some(&member), &response.members)),
            protobuf: Some(&|| response.encode_to_vec()),
            ..Forms::default()
        })
    }

    /// An answer that etcdctl words as "Member … `done` … cluster …".
    pub(super) fn member_changed<R: Message>(
        &self,
        id: u64,
        done: &str,
        response: &R,
        header: &Option<ResponseHeader>,
        members: &[Member],
    ) -> Outcome {
        let cluster = header.unwrap_or_default().cluster_id;
        self.show(Forms {
            simple: Some(&|| format!("Member {id:16x} {done} cluster {cluster:16x}\n").into()),
            json: Some(&|| self.members_json(header, None, members)),
            protobuf: Some(&|| response.encode_to_vec()),
            ..Forms::default()
        })
    }

    pub(super) fn endpoint_health(&self, all: &[Health]) -> Outcome {
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

    pub(super) fn endpoint_status(&self, all: &[(String, StatusResponse)]) -> Outcome {
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

    pub(super) fn endpoint_hash(&self, all: &[(String, HashKvResponse)]) -> Outcome {
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

    pub(super) fn move_leader(&self, from: u64, to: u64, response: &MoveLeaderResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| format!("Leadership transferred from {from:x} to {to:x}\n").into()),
            json: Some(&|| json::answer(&response.header).end().into()),
            protobuf: Some(&|| response.encode_to_vec()),
            ..Forms::default()
        })
    }

    pub(super) fn downgrade(&self, action: &str, response: &DowngradeResponse) -> Outcome {
        let version = &response.version;
        self.show(Forms {
            simple: Some(&|| {
                format!("Downgrade {action} success, cluster version {version}\n").into()
            }),
            json: Some(&|| json::answer(&response.header).text("version", version).end().into()),
            protobuf: Some(&|| response.encode_to_vec()),
            ..Forms::default()
        })
    }

    /// An answer that is its header and one sentence.
    pub(super) fn done<R: Message>(
        &self,
        sentence: impl Into<Vec<u8>>,
        response: &R,
        header: &Option<ResponseHeader>,
    ) -> Outcome {
        let mut sentence = sentence.into();
        sentence.push(b'\n');
        self.show(Forms {
            simple: Some(&|| sentence.clone()),
            fields: Some(&|| self.with_header(header, |_| {})),
            json: Some(&|| json::answer(header).end().into()),
            protobuf: Some(&|| response.encode_to_vec()),
            table: None,
        })
    }

    pub(super) fn role_list(&self, response: &AuthRoleListResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| lines_of(&response.roles)),
            fields: Some(&|| {
                self.with_header(&response.header, |text| {
                    let roles: String = response
                        .roles
                        .iter()
                        .map(|role| format!(" {}", go::quote(role.as_bytes())))
                        .collect();
                    text.line(format!("\"Roles\" :{roles}"));
                })
            }),
            json: Some(&|| names_json(&response.header, "roles", &response.roles)),
            protobuf: Some(&|| response.encode_to_vec()),
            table: None,
        })
    }

    pub(super) fn role_get(&self, role: &str, response: &AuthRoleGetResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| role_simple(role, response)),
            fields: Some(&|| {
                self.with_header(&response.header, |text| {
                    for perm in &response.perm {
                        // Two blanks, as etcdctl prints them.
                        text.field("PermType", format!(" {}", perm.perm_type().as_str_name()));
                        text.quoted("Key", &perm.key).quoted("RangeEnd", &perm.range_end);
                    }
                })
            }),
            json: Some(&|| {
                let perm = response.perm.iter().map(json::permission).collect();
                json::answer(&response.header).list("perm", perm).end().into()
            }),
            protobuf: Some(&|| response.encode_to_vec()),
            table: None,
        })
    }

    pub(super) fn user_get(&self, user: &str, response: &AuthUserGetResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| {
                let roles: String = response.roles.iter().map(|role| format!(" {role}")).collect();
                format!("User: {user}\nRoles:{roles}\n").into()
            }),
            json: Some(&|| names_json(&response.header, "roles", &response.roles)),
            protobuf: Some(&|| response.encode_to_vec()),
            ..Forms::default()
        })
    }

    pub(super) fn user_list(&self, response: &AuthUserListResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| lines_of(&response.users)),
            json: Some(&|| names_json(&response.header, "users", &response.users)),
            protobuf: Some(&|| response.encode_to_vec()),
            ..Forms::default()
        })
    }

    pub(super) fn auth_status(&self, response: &AuthStatusResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| {
                let (enabled, revision) = (response.enabled, response.auth_revision);
                format!("Authentication Status: {enabled}\nAuthRevision: {revision}\n").into()
            }),
            json: Some(&|| {
                json::answer(&response.header)
                    .bool("enabled", response.enabled)
                    .number("authRevision", response.auth_revision)
                    .end()
                    .into()
            }),
            protobuf: Some(&|| response.encode_to_vec()),
            ..Forms::default()
        })
    }
}

/// One endpoint's health.
#[derive(Clone, Debug)]
pub(super) struct Health {
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
    let bytes = |bytes: i64| go::size(bytes.unsigned_abs());
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

fn member_row(member: &Member) -> Vec<String> {
    vec![
        format!("{:x}", member.id),
        if member.name.is_empty() { "unstarted" } else { "started" }.to_string(),
        member.name.clone(),
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
        member.is_learner.to_string(),
    ]
}

fn lines(rows: &[Vec<String>]) -> Vec<u8> {
    rows.iter().map(|row| row.join(", ") + "\n").collect::<String>().into()
}

fn lines_of(names: &[String]) -> Vec<u8> {
    names.iter().map(|name| format!("{name}\n")).collect::<String>().into()
}

fn names_json(header: &Option<ResponseHeader>, name: &str, names: &[String]) -> Vec<u8> {
    let names = names.iter().map(|name| json::string(name.as_bytes())).collect();
    json::answer(header).list(name, names).end().into()
}

fn list_or_null(items: Vec<String>) -> Vec<u8> {
    if items.is_empty() { "null".into() } else { json::array(items).into() }
}

/// An object that begins with the header's own fields.
fn flat(header: &Option<ResponseHeader>) -> Object {
    json::with_header(Object::new(), header.as_ref())
}

/// Of a lease's answers etcdctl encodes the header alone.
fn bare(header: &Option<ResponseHeader>) -> Vec<u8> {
    header.unwrap_or_default().encode_to_vec()
}

fn watch_json(batch: &WatchBatch) -> String {
    let events = match batch.events.is_empty() {
        true => "null".into(),
        false => json::array(batch.events.iter().map(json::event).collect()),
    };
    Object::new()
        .raw("Header", json::header(&batch.header))
        .raw("Events", events)
        .raw("CompactRevision", batch.compact_revision.to_string())
        .raw("Canceled", batch.canceled.to_string())
        .raw("Created", "false")
        .raw("CancelReason", json::string(batch.cancel_reason.as_bytes()))
        .end()
}

fn role_simple(role: &str, response: &AuthRoleGetResponse) -> Vec<u8> {
    let mut text = Text::default();
    text.line(format!("Role {role}"));
    let everything = role == "root" && response.perm.is_empty();
    for (title, other) in [("KV Read:", Type::Read), ("KV Write:", Type::Write)] {
        text.line(title);
        if everything {
            text.line("\t[, <open ended>");
        }
        for perm in &response.perm {
            if perm.perm_type() == other || perm.perm_type() == Type::Readwrite {
                text.line(
                    [b"\t".as_slice(), &range_text(&perm.key, &perm.range_end, true)].concat(),
                );
            }
        }
    }
    text.0
}

/// A key or range as etcdctl words it in `role`.
pub(super) fn range_text(key: &[u8], end: &[u8], name_prefix: bool) -> Vec<u8> {
    if end.is_empty() {
        return key.to_vec();
    }
    let mut text = match end {
        [0] => [b"[", key, b", <open ended>"].concat(),
        end => [b"[", key, b", ", end, b")"].concat(),
    };
    if name_prefix && !key.is_empty() && crate::client::prefix_end(key) == end {
        text.extend_from_slice(&[b" (prefix ", key, b")"].concat());
    }
    text
}
