//! Answers of KV and watch.

use std::sync::atomic::Ordering;

use prost::Message;

use super::{Display, Format, Forms, Outcome, Text, lease_text};
use crate::cli::decode::decode;
use crate::cli::grid::{Cell, Column, Grid, cut};
use crate::cli::json::{self, Object};
use crate::cli::record::{Fields, Records, Value};
use crate::cli::size;
use crate::cli::terminal::{Page, Style, shown};
use crate::client::WatchBatch;
use crate::pb::response_op::Response;
use crate::pb::{
    DeleteRangeResponse, Event, EventType, KeyValue, PutResponse, RangeResponse, ResponseOp,
    TxnResponse, WatchResponse,
};

/// What a table shows of a value.
const VALUE_BYTES_MAX: usize = 300;

impl Display {
    pub(in crate::cli) fn get(&self, response: &RangeResponse) -> Outcome {
        let table = || self.kv_grid(&response.kvs).text();
        let grid = || self.kv_grid(&response.kvs);
        self.show(Forms {
            simple: Some(&|| self.get_simple(response)),
            fields: Some(&|| self.get_fields(response)),
            json: Some(&|| json::range(response).into()),
            protobuf: Some(&|| response.encode_to_vec()),
            table: if self.is_rusd { Some(&table) } else { None },
            records: Some(&|| Records::Many(self.kv_values(&response.kvs))),
            page: Some(&|| {
                let mut page = Page::default();
                response.kvs.iter().for_each(|kv| self.kv_page(&mut page, kv));
                page
            }),
            // A table in which values are cut is not what `get` is asked for by default.
            grid: if self.format == Format::Table { Some(&grid) } else { None },
        })
    }

    fn kv_values(&self, kvs: &[KeyValue]) -> Vec<Value> {
        kvs.iter().map(|kv| self.kv_value(kv)).collect()
    }

    /// Pairs as rows, with the beginning of each value.
    fn kv_grid(&self, kvs: &[KeyValue]) -> Grid {
        static COLUMNS: [Column; 5] = [
            Column::new("KEY", 0),
            Column::number("MODIFIED", 1),
            Column::number("VERSION", 2),
            Column::seldom("LEASE", 3),
            Column::cut("VALUE", 0),
        ];
        let row = |kv: &KeyValue| -> Vec<Cell> {
            let lease = if kv.lease == 0 { String::new() } else { lease_text(kv.lease) };
            vec![
                self.shown(&kv.key).into(),
                kv.mod_revision.to_string().into(),
                kv.version.to_string().into(),
                lease.into(),
                self.value_cell(&kv.value),
            ]
        };
        Grid::new(&COLUMNS, kvs.iter().map(row))
    }

    /// A value in a table: as much as a few lines hold.
    fn value_cell(&self, value: &[u8]) -> Cell {
        let shown = match decode(value).filter(|_| self.decodes) {
            Some(decoded) => decoded.value().json().into_bytes(),
            None => self.shown(value),
        };
        if shown.len() <= VALUE_BYTES_MAX {
            return shown.into();
        }
        // A letter that is cut in two would be shown as the bytes that it is not.
        let is_start = |at: &usize| shown[*at] & 0xc0 != 0x80;
        let end = (VALUE_BYTES_MAX - 3..=VALUE_BYTES_MAX).rev().find(is_start);
        let mut cut = shown[..end.unwrap_or(VALUE_BYTES_MAX)].to_vec();
        cut.extend_from_slice(format!("… ({})", size::shown(value.len() as u64)).as_bytes());
        cut.into()
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
            records: Some(&|| Records::One(self.put_record(response))),
            page: Some(&|| self.put_page(response)),
            ..Forms::default()
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
            records: Some(&|| Records::One(self.delete_record(response))),
            page: Some(&|| self.delete_page(response)),
            ..Forms::default()
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
            records: Some(&|| Records::One(self.txn_record(response))),
            page: Some(&|| self.txn_page(response)),
            ..Forms::default()
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
        let table = || self.watch_rows(batch).into();
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
            records: Some(&|| {
                let event = |event| self.event_record(event);
                Records::Some(batch.events.iter().map(event).collect())
            }),
            page: Some(&|| self.watch_page(batch)),
            table: if self.is_rusd { Some(&table) } else { None },
            grid: None,
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

/// Forms of rusd's own.
impl Display {
    fn put_page(&self, response: &PutResponse) -> Page {
        let mut page = Page::default();
        page.text(Style::Plain, "OK\n");
        response.prev_kv.iter().for_each(|kv| self.kv_page(&mut page, kv));
        page
    }

    fn delete_page(&self, response: &DeleteRangeResponse) -> Page {
        let mut page = Page::default();
        page.text(Style::Plain, format!("{}\n", response.deleted));
        response.prev_kvs.iter().for_each(|kv| self.kv_page(&mut page, kv));
        page
    }

    fn txn_page(&self, response: &TxnResponse) -> Page {
        let mut page = Page::default();
        match response.succeeded {
            true => page.text(Style::Good, "SUCCESS"),
            false => page.text(Style::Warning, "FAILURE"),
        };
        page.end_line();
        for op in &response.responses {
            page.end_line();
            match &op.response {
                Some(Response::ResponseRange(response)) => {
                    response.kvs.iter().for_each(|kv| self.kv_page(&mut page, kv));
                }
                Some(Response::ResponsePut(response)) => page.append(self.put_page(response)),
                Some(Response::ResponseDeleteRange(response)) => {
                    page.append(self.delete_page(response));
                }
                Some(Response::ResponseTxn(response)) => page.append(self.txn_page(response)),
                None => {}
            }
        }
        page
    }

    fn watch_page(&self, batch: &WatchBatch) -> Page {
        let mut page = Page::default();
        for event in &batch.events {
            let style = match event.r#type() {
                EventType::Put => Style::Good,
                EventType::Delete => Style::Bad,
            };
            page.text(style, event.r#type().as_str_name()).end_line();
            event.prev_kv.iter().for_each(|kv| self.kv_page(&mut page, kv));
            self.kv_page(&mut page, event.kv.as_ref().unwrap_or(&KeyValue::default()));
        }
        page
    }

    /// Events as rows under titles that come once. Rows follow each other over a long time, so that
    /// their columns have fixed widths, and what does not fit is cut.
    fn watch_rows(&self, batch: &WatchBatch) -> String {
        let columns = self.out.width();
        let mut text = String::new();
        let mut row = |cells: [&str; 4]| {
            let [kind, revision, key, value] = cells;
            let line = format!("{kind:<6}  {revision:>9}  {key:<32}  {value}");
            text.push_str(&cut(line.trim_end(), columns));
            text.push('\n');
        };
        if !self.is_titled.swap(true, Ordering::Relaxed) {
            row(["TYPE", "REVISION", "KEY", "VALUE"]);
        }
        for event in &batch.events {
            let kv = event.kv.clone().unwrap_or_default();
            let (key, value) = (shown(&self.shown(&kv.key)), self.value_cell(&kv.value));
            let revision = kv.mod_revision.to_string();
            row([event.r#type().as_str_name(), &revision, &key, value.text()]);
        }
        text
    }

    fn put_record(&self, response: &PutResponse) -> Value {
        let revision = response.header.unwrap_or_default().revision;
        let previous = response.prev_kv.as_ref().map(|kv| self.kv_value(kv));
        Fields::new().with("revision", revision).maybe("previous", previous).end()
    }

    fn delete_record(&self, response: &DeleteRangeResponse) -> Value {
        let previous = self.kv_values(&response.prev_kvs);
        Fields::new()
            .with("deleted", response.deleted)
            .with("revision", response.header.unwrap_or_default().revision)
            .maybe("previous", Some(previous).filter(|all| !all.is_empty()))
            .end()
    }

    fn txn_record(&self, response: &TxnResponse) -> Value {
        let answer = |op: &ResponseOp| match &op.response {
            Some(Response::ResponseRange(response)) => Fields::new()
                .with("get", self.kv_values(&response.kvs))
                .with("count", response.count)
                .end(),
            Some(Response::ResponsePut(response)) => {
                Fields::new().with("put", self.put_record(response)).end()
            }
            Some(Response::ResponseDeleteRange(response)) => {
                Fields::new().with("delete", self.delete_record(response)).end()
            }
            Some(Response::ResponseTxn(response)) => {
                Fields::new().with("txn", self.txn_record(response)).end()
            }
            None => Value::Null,
        };
        Fields::new()
            .with("succeeded", response.succeeded)
            .with("revision", response.header.unwrap_or_default().revision)
            .with("responses", response.responses.iter().map(answer).collect::<Vec<_>>())
            .end()
    }

    fn event_record(&self, event: &Event) -> Value {
        let previous = event.prev_kv.as_ref().map(|kv| self.kv_value(kv));
        let fields = Fields::new().with("type", event.r#type().as_str_name());
        let kv = event.kv.clone().unwrap_or_default();
        self.kv_record(fields, &kv).maybe("previous", previous).end()
    }

    /// What a watch says beside its events: that all up to a revision were sent.
    pub(in crate::cli) fn watch_progress(&self, revision: i64) {
        if self.format.is_records() {
            let record = Fields::new().with("type", "PROGRESS").with("revision", revision).end();
            return self.records(&Records::Some(vec![record]));
        }
        self.out.line(format!("progress notify: {revision}"));
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
