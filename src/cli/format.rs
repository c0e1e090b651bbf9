//! Every answer in every output format: simple, fields, json, protobuf, table. This file has what
//! the answers have in common; the file of each subject has the forms of its answers.
//!
//! As in etcdctl, a format that an answer does not have is refused only after the call took effect.

mod auth;
mod cluster;
mod endpoint;
mod kv;
mod lease;

use prost::Message;

use super::exit::{Exit, Failure, Outcome};
use super::json;
use super::printer::Printer;
use crate::go;
use crate::pb::{KeyValue, ResponseHeader};
use crate::types::SignedHex;

pub(super) use auth::range_text;
pub(super) use endpoint::Health;

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

/// Prints answers in the chosen format.
#[derive(Clone)]
pub(super) struct Display {
    pub format: Format,
    pub hex: bool,
    /// `get --print-value-only`.
    pub value_only: bool,
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
            table: None,
        })
    }
}

fn lines(rows: &[Vec<String>]) -> Vec<u8> {
    rows.iter().map(|row| row.join(", ") + "\n").collect::<String>().into()
}
