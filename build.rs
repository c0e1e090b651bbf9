//! Compiles the .proto files with a compiler written in Rust, so that a build needs no protoc.
//!
//! Messages and clients are generated. The server side is `rpc`'s own: it finds methods by their
//! path and answers with `pb::raw` messages, into which stored bytes are spliced.
//!
//! `shapes.rs` says which fields each message has and in which form they come: `pb::tolerant` needs
//! that for requests that prost refuses and Go's protobuf does not.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

use tonic_prost_build::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "auth",
        "health",
        "kv",
        "lease",
        "membership",
        "raft_internal",
        "rpc",
        "space",
        "v3election",
        "v3lock",
    ]
    .map(|name| format!("{name}.proto"));
    let descriptors = protox::compile(&files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("shapes.rs");
    std::fs::write(out, shapes(&descriptors)?)?;
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".")
        .boxed(".etcdserverpb.RequestOp.request.request_txn")
        .boxed(".etcdserverpb.ResponseOp.response.response_txn")
        .compile_fds(descriptors)?;
    Ok(())
}

/// The table of all messages' fields, and each message's place in it.
fn shapes(descriptors: &FileDescriptorSet) -> Result<String, Box<dyn Error>> {
    // By full name; those within another message, as the pairs of a map are, have no type in Rust.
    let mut messages = BTreeMap::new();
    for file in &descriptors.file {
        for message in &file.message_type {
            let module = file.package().split('.').rev().find(|part| *part != "v1");
            let module = module.unwrap_or_default();
            let path = format!("super::{module}::{}", in_rust(message.name()));
            let name = format!(".{}.{}", file.package(), message.name());
            for nested in &message.nested_type {
                messages.insert(format!("{name}.{}", nested.name()), (nested, None));
            }
            messages.insert(name, (message, Some(path)));
        }
    }
    let places: BTreeMap<_, _> = messages.keys().zip(0_usize..).collect();
    let (mut table, mut places_of_types) = (String::new(), String::new());
    for (name, (message, path)) in &messages {
        let mut fields = String::new();
        for field in &message.field {
            let kind = field.r#type.ok_or("a field without a type")?;
            let wire = wire_type(kind)?;
            let inner = match kind {
                MESSAGE => format!("Some({})", places[&field.type_name().to_owned()]),
                _ => "None".to_owned(),
            };
            let is_packable = field.label == Some(REPEATED) && wire != LENGTH_DELIMITED;
            let number = field.number();
            write!(fields, "Field {{ number: {number}, wire: {wire}, ")?;
            write!(fields, "is_packable: {is_packable}, inner: {inner} }}, ")?;
        }
        writeln!(table, "    // {name}\n    &[{fields}],")?;
        if let Some(path) = path {
            let place = places[name];
            writeln!(
                places_of_types,
                "impl Shaped for {path} {{ const SHAPE: usize = {place}; }}"
            )?;
        }
    }
    Ok(format!("static SHAPES: &[&[Field]] = &[\n{table}];\n{places_of_types}"))
}

/// A message's name as prost writes it: of several capitals the first, and one that begins a word.
fn in_rust(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let is_capital = |at: usize| letters.get(at).is_none_or(char::is_ascii_uppercase);
    let renamed = letters.iter().enumerate().map(|(at, letter)| match at {
        1.. if is_capital(at - 1) && is_capital(at) && is_capital(at + 1) => {
            letter.to_ascii_lowercase()
        }
        _ => *letter,
    });
    renamed.collect()
}

/// Numbers of `FieldDescriptorProto`, and of the encoding.
const REPEATED: i32 = 3;
const MESSAGE: i32 = 11;
const LENGTH_DELIMITED: u8 = 2;

/// How a field of this type is encoded.
fn wire_type(kind: i32) -> Result<u8, String> {
    match kind {
        // 64 and 32 bits of variable length, flags and enumerations.
        3 | 4 | 5 | 8 | 13 | 14 | 17 | 18 => Ok(0),
        // 64 bits of fixed length.
        1 | 6 | 16 => Ok(1),
        // Text, messages and bytes.
        9 | 11 | 12 => Ok(LENGTH_DELIMITED),
        // 32 bits of fixed length.
        2 | 7 | 15 => Ok(5),
        other => Err(format!("fields of type {other} are not provided for")),
    }
}
