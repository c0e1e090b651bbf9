//! Answers of KV and watch.

use prost::Message;

use super::{Display, Forms, Outcome, Text};
use crate::cli::json::{self, Object};
use crate::client::WatchBatch;
use crate::pb::response_op::Response;
use crate::pb::{
    DeleteRangeResponse, KeyValue, PutResponse, RangeResponse, TxnResponse, WatchResponse,
};

impl Display {
    pub(in crate::cli) fn get(&self, response: &RangeResponse) -> Outcome {
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

    pub(in crate::cli) fn put(&self, response: &PutResponse) -> Outcome {
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

    pub(in crate::cli) fn delete(&self, response: &DeleteRangeResponse) -> Outcome {
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

    pub(in crate::cli) fn txn(&self, response: &TxnResponse) -> Outcome {
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

    pub(in crate::cli) fn watch(&self, batch: &WatchBatch) -> Outcome {
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
