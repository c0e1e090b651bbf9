//! Answers about leases.

use prost::Message;

use super::{Display, Exit, Failure, Format, Forms, Outcome, Text, header_record, lease_text};
use crate::cli::json::{self, Object};
use crate::cli::record::{Fields, Records, Value};
use crate::pb::{
    LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse,
    LeaseTimeToLiveResponse, ResponseHeader,
};
use crate::types::SignedHex;

impl Display {
    pub(in crate::cli) fn lease_grant(&self, response: &LeaseGrantResponse) -> Outcome {
        let (id, ttl, shown) = (response.id, response.ttl, SignedHex(response.id));
        self.show(Forms {
            simple: Some(&|| format!("lease {shown:016x} granted with TTL({ttl}s)\n").into()),
            fields: Some(&|| self.life_fields(&response.header, id, ttl)),
            json: Some(&|| {
                life_json(&response.header, id, ttl)
                    .raw("Error", json::string(response.error.as_bytes()))
                    .end()
                    .into()
            }),
            protobuf: Some(&|| bare(&response.header)),
            records: Some(&|| Records::One(life_record(id, ttl))),
            ..Forms::default()
        })
    }

    pub(in crate::cli) fn lease_revoke(&self, id: i64, response: &LeaseRevokeResponse) -> Outcome {
        if self.format == Format::Protobuf {
            // etcdctl has no protobuf form of this answer: it fails although the lease is revoked.
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
            records: Some(&|| {
                let fields = Fields::new().with("id", lease_text(id));
                Records::One(header_record(fields, &response.header).end())
            }),
            ..Forms::default()
        })
    }

    pub(in crate::cli) fn lease_keep_alive(&self, response: &LeaseKeepAliveResponse) -> Outcome {
        let (id, ttl, shown) = (response.id, response.ttl, SignedHex(response.id));
        self.show(Forms {
            simple: Some(&|| format!("lease {shown:016x} keepalived with TTL({ttl})\n").into()),
            fields: Some(&|| self.life_fields(&response.header, id, ttl)),
            json: Some(&|| life_json(&response.header, id, ttl).end().into()),
            protobuf: Some(&|| bare(&response.header)),
            records: Some(&|| Records::Some(vec![life_record(id, ttl)])),
            ..Forms::default()
        })
    }

    fn life_fields(&self, header: &Option<ResponseHeader>, id: i64, ttl: i64) -> Vec<u8> {
        self.with_header(header, |text| {
            text.field("ID", self.lease_id(id)).field("TTL", ttl);
        })
    }

    pub(in crate::cli) fn lease_time_to_live(
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
            records: Some(&|| Records::One(time_to_live_record(response, keys))),
            ..Forms::default()
        })
    }

    pub(in crate::cli) fn leases(&self, response: &LeaseLeasesResponse) -> Outcome {
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
            records: Some(&|| {
                let record = |id| Fields::new().with("id", lease_text(id)).end();
                Records::Many(response.leases.iter().map(|lease| record(lease.id)).collect())
            }),
            ..Forms::default()
        })
    }
}

fn life_record(id: i64, ttl: i64) -> Value {
    Fields::new().with("id", lease_text(id)).with("ttlSeconds", ttl).end()
}

fn time_to_live_record(response: &LeaseTimeToLiveResponse, keys: bool) -> Value {
    let key = |key: &bytes::Bytes| Fields::new().bytes("key", key).end();
    let attached: Option<Vec<_>> = keys.then(|| response.keys.iter().map(key).collect());
    Fields::new()
        .with("id", lease_text(response.id))
        .with("grantedTtlSeconds", response.granted_ttl)
        .with("remainingSeconds", response.ttl)
        .maybe("keys", attached)
        .end()
}

/// A JSON object that begins with the fields of the header.
fn flat(header: &Option<ResponseHeader>) -> Object {
    json::with_header(Object::new(), header.as_ref())
}

/// The JSON object of an answer with a lease's id and TTL.
fn life_json(header: &Option<ResponseHeader>, id: i64, ttl: i64) -> Object {
    flat(header).raw("ID", id.to_string()).raw("TTL", ttl.to_string())
}

/// The protobuf form of a lease's answer: the header alone, as in etcdctl.
fn bare(header: &Option<ResponseHeader>) -> Vec<u8> {
    header.unwrap_or_default().encode_to_vec()
}
