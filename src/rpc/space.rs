//! Space: what takes up the bytes of the store. The service is rusd's own.

use std::sync::Arc;

use tonic::Status;

use super::Server;
use super::error::status;
use crate::auth::Credentials;
use crate::pb::rusdpb::{SpacePrefix, SpaceRequest, SpaceResponse};
use crate::upkeep::Tally;

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn prefix(prefix: bytes::Bytes, tally: &Tally) -> SpacePrefix {
    SpacePrefix {
        prefix,
        keys: signed(tally.keys),
        live_bytes: signed(tally.live_bytes),
        history_bytes: signed(tally.history_bytes),
    }
}

impl Server {
    pub(super) async fn space(
        self: Arc<Self>,
        who: Credentials,
        request: SpaceRequest,
    ) -> Result<SpaceResponse, Status> {
        let number = |number: i64| usize::try_from(number).unwrap_or(0);
        let (prefixes, depth) = (number(request.prefixes), number(request.depth));
        let usage = self.node.usage(&who, prefixes, depth).await.map_err(status)?;
        let growth = usage.growth.unwrap_or_default();
        Ok(SpaceResponse {
            total_bytes: signed(usage.total_bytes),
            in_use_bytes: signed(usage.in_use_bytes),
            quota_bytes: signed(usage.quota_bytes),
            live_bytes: signed(usage.all.live_bytes),
            keys: signed(usage.all.keys),
            history_bytes: signed(usage.all.history_bytes),
            history_records: signed(usage.all.history_records),
            log_bytes: signed(usage.log_bytes),
            disk_free_bytes: signed(usage.disk_free_bytes),
            revision: usage.revision,
            compact_revision: usage.compact_revision.max(0),
            growth_bytes: growth.0,
            growth_seconds: signed(growth.1.as_secs()),
            prefixes: usage
                .prefixes
                .into_iter()
                .map(|(name, tally)| prefix(name, &tally))
                .collect(),
            others: Some(prefix(bytes::Bytes::new(), &usage.others)),
        })
    }
}
