//! Every answer in every output format: simple, fields, json, protobuf, table, and rusd's own yaml
//! and jsonl. This file has what the answers have in common; the file of each subject has the forms
//! of its answers.
//!
//! As in etcdctl, a format that an answer does not have is refused only after the call took effect.
//!
//! Where a person reads, which is for the printer to say, `simple` is a page with colours, and what
//! is a list of endpoints or members is a grid as wide as the terminal, unless `-o simple` is given.

mod auth;
mod cluster;
mod endpoint;
mod files;
mod kv;
mod lease;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use prost::Message;

use super::decode::decode;
use super::exit::{Exit, Failure, Outcome};
use super::grid::Grid;
use super::json;
use super::printer::Printer;
use super::record::{Fields, Records, Value};
use super::spec::Program;
use super::terminal::{Page, Style};
use crate::go;
use crate::pb::{KeyValue, ResponseHeader};
use crate::types::SignedHex;

pub(super) use auth::range_text;
pub(super) use endpoint::Health;
pub(super) use files::FileStatus;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Simple,
    Fields,
    Json,
    Protobuf,
    Table,
    Yaml,
    Jsonl,
}

impl Format {
    /// The format that `--write-out` names. etcd's tools have neither yaml nor jsonl.
    pub(super) fn parse(program: Program, name: &[u8]) -> Result<Self, Failure> {
        Ok(match name {
            b"simple" => Self::Simple,
            b"fields" => Self::Fields,
            b"json" => Self::Json,
            b"protobuf" => Self::Protobuf,
            b"table" => Self::Table,
            b"yaml" if program == Program::Rusd => Self::Yaml,
            b"jsonl" if program == Program::Rusd => Self::Jsonl,
            name if program == Program::Rusd => {
                let text = format!(
                    "--write-out, or ETCDCTL_WRITE_OUT, takes simple, table, fields, json, jsonl, \
                     yaml or protobuf, not {}",
                    go::quote(name)
                );
                return Err(Failure::new(Exit::BadFeature, text));
            }
            _ => return Err(Failure::new(Exit::BadFeature, "unsupported output format")),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Fields => "fields",
            Self::Json => "json",
            Self::Protobuf => "protobuf",
            Self::Table => "table",
            Self::Yaml => "yaml",
            Self::Jsonl => "jsonl",
        }
    }

    /// Whether the format is one of records, which no answer lacks.
    pub(super) fn is_records(self) -> bool {
        matches!(self, Self::Yaml | Self::Jsonl)
    }
}

/// Prints answers in the chosen format.
#[derive(Clone)]
pub(super) struct Display {
    pub format: Format,
    pub hex: bool,
    /// `get --print-value-only`.
    pub value_only: bool,
    /// `--decode`.
    pub decodes: bool,
    /// Whether the format was asked for.
    pub is_chosen: bool,
    /// Whether ids are hexadecimal in the formats that are for people; etcd's are decimal in some.
    pub is_rusd: bool,
    /// Whether the titles of a table that goes on have been printed.
    pub is_titled: Arc<AtomicBool>,
    pub out: Printer,
}

type Form<'a> = Option<&'a dyn Fn() -> Vec<u8>>;

/// The formats of one answer; None where the answer does not have the format.
#[derive(Default)]
struct Forms<'a> {
    simple: Form<'a>,
    fields: Form<'a>,
    json: Form<'a>,
    protobuf: Form<'a>,
    table: Form<'a>,
    records: Option<&'a dyn Fn() -> Records>,
    /// The simple format where a person reads.
    page: Option<&'a dyn Fn() -> Page>,
    /// The table where a person reads.
    grid: Option<&'a dyn Fn() -> Grid>,
}

/// Text under construction. Bytes, since keys and values need not be UTF-8.
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
        if self.shows_page(&forms) {
            return Ok(());
        }
        let form = match self.format {
            Format::Simple => forms.simple,
            Format::Fields => forms.fields,
            Format::Json => forms.json,
            Format::Protobuf => forms.protobuf,
            Format::Table => forms.table,
            Format::Yaml | Format::Jsonl => {
                let Some(records) = forms.records else { return Err(self.unsupported()) };
                self.records(&records());
                return Ok(());
            }
        };
        let Some(form) = form else {
            // rusd has a table of every answer that has fields.
            let records = forms.records.filter(|_| self.is_rusd && self.format == Format::Table);
            let Some(records) = records else { return Err(self.unsupported()) };
            self.out.page(&Grid::of_records(&records()).page(self.out.width()));
            return Ok(());
        };
        let mut bytes = form();
        if self.format == Format::Json {
            bytes.push(b'\n');
        }
        self.out.out(bytes);
        Ok(())
    }

    /// Shows a grid or a page, if the answer has one and a person reads.
    fn shows_page(&self, forms: &Forms<'_>) -> bool {
        if !self.out.has_reader() {
            return false;
        }
        let is_grid = match self.format {
            Format::Table => true,
            Format::Simple => !self.is_chosen,
            _ => return false,
        };
        if let Some(grid) = forms.grid.filter(|_| is_grid) {
            self.out.page(&grid().page(self.out.width()));
            return true;
        }
        let Some(page) = forms.page.filter(|_| self.format == Format::Simple) else { return false };
        self.out.page(&page());
        true
    }

    pub(super) fn records(&self, records: &Records) {
        self.out.out(match self.format {
            Format::Yaml => records.yaml(),
            _ => records.jsonl(),
        });
    }

    fn unsupported(&self) -> Failure {
        let text = format!("{} not supported as output format", self.format.name());
        Failure::new(Exit::BadFeature, text)
    }

    fn kv(&self, text: &mut Text, kv: &KeyValue) {
        if !self.value_only {
            text.line(self.shown(&kv.key));
        }
        match decode(&kv.value).filter(|_| self.decodes) {
            Some(decoded) => text.0.extend_from_slice(decoded.lines().as_bytes()),
            None => {
                text.line(self.shown(&kv.value));
            }
        }
    }

    fn shown(&self, bytes: &[u8]) -> Vec<u8> {
        match self.hex {
            true => bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>().into(),
            false => bytes.to_vec(),
        }
    }

    /// A pair as a person reads it: the key is dim, so that values stand out.
    fn kv_page(&self, page: &mut Page, kv: &KeyValue) {
        if !self.value_only {
            page.name(Style::Dim, self.shown(&kv.key)).end_line();
        }
        match decode(&kv.value).filter(|_| self.decodes) {
            Some(decoded) => page.text(Style::Plain, decoded.lines()),
            None => page.text(Style::Plain, self.shown(&kv.value)).end_line(),
        };
    }

    /// The fields of a pair in a record.
    fn kv_record(&self, fields: Fields, kv: &KeyValue) -> Fields {
        let fields = fields.bytes("key", &kv.key);
        let fields = match decode(&kv.value).filter(|_| self.decodes) {
            Some(decoded) => fields.with("decoded", decoded.value().clone()),
            None => fields.bytes("value", &kv.value),
        };
        let lease = (kv.lease != 0).then(|| lease_text(kv.lease));
        fields
            .with("createRevision", kv.create_revision)
            .with("modRevision", kv.mod_revision)
            .with("version", kv.version)
            .maybe("lease", lease)
    }

    fn kv_value(&self, kv: &KeyValue) -> Value {
        self.kv_record(Fields::new(), kv).end()
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

    /// Prints an answer that consists of its header; the simple format is `sentence`.
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
            records: Some(&|| Records::One(header_record(Fields::new(), header).end())),
            ..Forms::default()
        })
    }
}

/// The fields of a header in a record.
fn header_record(fields: Fields, header: &Option<ResponseHeader>) -> Fields {
    let header = header.unwrap_or_default();
    fields
        .id("clusterId", header.cluster_id)
        .id("memberId", header.member_id)
        .with("revision", header.revision)
        .with("raftTerm", header.raft_term)
}

fn lease_text(id: i64) -> String {
    format!("{:016x}", SignedHex(id))
}

fn lines(rows: &[Vec<String>]) -> Vec<u8> {
    rows.iter().map(|row| row.join(", ") + "\n").collect::<String>().into()
}
