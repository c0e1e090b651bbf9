//! Compiles the .proto files with a compiler written in Rust, so that a build needs no protoc.
//!
//! Messages and clients are generated. The server side is `rpc`'s own: it finds methods by their
//! path and answers with `pb::raw` messages, into which stored bytes are spliced.
//!
//! `shapes.rs` is what `pb::shapes` holds: the fields of each message, for requests that prost
//! refuses and Go's protobuf does not, and for the JSON gateway, and the gateway's paths.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

use prost_reflect::{
    DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, ReflectMessage,
    Value,
};

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
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(files)?;
    let pool = compiler.descriptor_pool();
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("shapes.rs");
    std::fs::write(out, shapes(&pool)?)?;
    let mut descriptors = compiler.file_descriptor_set();
    // Only the options of methods are theirs.
    descriptors.file.retain(|file| !file.package().starts_with("google."));
    for file in &mut descriptors.file {
        file.dependency.retain(|name| !name.starts_with("google/"));
    }
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".")
        .boxed(".etcdserverpb.RequestOp.request.request_txn")
        .boxed(".etcdserverpb.ResponseOp.response.response_txn")
        .compile_fds(descriptors)?;
    Ok(())
}

/// The table of all messages, each message's place in it, and the paths of the gateway.
fn shapes(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let own = |name: &str| !name.starts_with("google.");
    let messages: BTreeMap<_, _> = pool
        .all_messages()
        .filter(|message| own(message.package_name()))
        .map(|message| (message.full_name().to_owned(), message))
        .collect();
    let places: BTreeMap<_, _> = messages.keys().map(String::as_str).zip(0_usize..).collect();
    let (mut table, mut places_of_types, mut rows) = (String::new(), String::new(), String::new());
    for (name, message) in &messages {
        let fields = message.field_by_declaration().map(|field| self::field(&field, &places));
        let fields = fields.collect::<Result<Vec<_>, _>>()?.join(", ");
        writeln!(table, "    // {name}\n    &[{fields}],")?;
        // Those within another message, as the pairs of a map are, have no type in Rust.
        if message.parent_message().is_none() {
            let (path, place) = (path_in_rust(message), places[name.as_str()]);
            writeln!(
                places_of_types,
                "impl Shaped for {path} {{ const SHAPE: usize = {place}; }}"
            )?;
        }
    }
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        for post in posts(pool, &method)? {
            let (service, name) = (method.parent_service().full_name().to_owned(), method.name());
            let input = places[method.input().full_name()];
            let output = places[method.output().full_name()];
            let (many_in, many_out) = (method.is_client_streaming(), method.is_server_streaming());
            writeln!(
                rows,
                "    Route {{ post: {post:?}, call: \"/{service}/{name}\", input: {input}, output: \
                 {output}, takes_many: {many_in}, gives_many: {many_out} }},"
            )?;
        }
    }
    Ok(format!(
        "static SHAPES: &[&[Field]] = &[\n{table}];\n{places_of_types}\
         pub static ROUTES: &[Route] = &[\n{rows}];\n"
    ))
}

/// The fields of a message in the order in which the file declares them.
trait Declared {
    fn field_by_declaration(&self) -> std::vec::IntoIter<FieldDescriptor>;
}

impl Declared for MessageDescriptor {
    fn field_by_declaration(&self) -> std::vec::IntoIter<FieldDescriptor> {
        let mut fields: Vec<_> = self.fields().collect();
        fields.sort_by_key(|field| field.path().last().copied());
        fields.into_iter()
    }
}

/// A field as a literal of `pb::shapes::Field`.
fn field(
    field: &FieldDescriptor,
    places: &BTreeMap<&str, usize>,
) -> Result<String, Box<dyn Error>> {
    let (kind, wire, inner) = match field.kind() {
        Kind::Bool => ("Bool".to_owned(), VARINT, None),
        Kind::Int32 => ("Int32".to_owned(), VARINT, None),
        Kind::Int64 => ("Int64".to_owned(), VARINT, None),
        Kind::Uint32 => ("Uint32".to_owned(), VARINT, None),
        Kind::Uint64 => ("Uint64".to_owned(), VARINT, None),
        Kind::String => ("String".to_owned(), LENGTH_DELIMITED, None),
        Kind::Bytes => ("Bytes".to_owned(), LENGTH_DELIMITED, None),
        Kind::Message(of) => ("Message".to_owned(), LENGTH_DELIMITED, Some(places[of.full_name()])),
        Kind::Enum(of) => {
            let names: Vec<_> =
                of.values().map(|value| (value.number(), value.name().to_owned())).collect();
            (format!("Enum(&{names:?})"), VARINT, None)
        }
        other => return Err(format!("fields of type {other:?} are not provided for").into()),
    };
    let (is_list, number) = (field.is_list() || field.is_map(), field.number());
    let is_packable = is_list && wire != LENGTH_DELIMITED;
    let oneof = field.containing_oneof().map(|oneof| oneof.full_name().to_owned());
    let (name, json_name) = (field.name(), field.json_name());
    Ok(format!(
        "Field {{ number: {number}, wire: {wire}, is_packable: {is_packable}, inner: {inner:?}, \
         name: {name:?}, json_name: {json_name:?}, kind: Kind::{kind}, is_list: {is_list}, oneof: \
         {oneof:?} }}"
    ))
}

/// The paths that a method's option `google.api.http` gives it.
fn posts(pool: &DescriptorPool, method: &MethodDescriptor) -> Result<Vec<String>, Box<dyn Error>> {
    let option =
        pool.get_extension_by_name("google.api.http").ok_or("no option google.api.http")?;
    let options = method.options();
    let Value::Message(rule) = &*options.get_extension(&option) else {
        return Err("an option that is no message".into());
    };
    let mut posts = vec![post(rule)?];
    if let Value::List(more) = &*get(rule, "additional_bindings")? {
        for rule in more {
            posts.push(post(rule.as_message().ok_or("a rule that is no message")?)?);
        }
    }
    posts.retain(|post| !post.is_empty());
    Ok(posts)
}

fn post(rule: &impl ReflectMessage) -> Result<String, Box<dyn Error>> {
    let rule = rule.transcode_to_dynamic();
    Ok(get(&rule, "post")?.as_str().unwrap_or_default().to_owned())
}

fn get<'a>(
    message: &'a prost_reflect::DynamicMessage,
    name: &str,
) -> Result<std::borrow::Cow<'a, Value>, Box<dyn Error>> {
    message.get_field_by_name(name).ok_or_else(|| format!("no field {name}").into())
}

/// The path of a message's type, as `pb` sees it.
fn path_in_rust(message: &MessageDescriptor) -> String {
    let module = message.package_name().split('.').rev().find(|part| *part != "v1");
    format!("super::{}::{}", module.unwrap_or_default(), in_rust(message.name()))
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

/// Wire types: numbers of variable length, and what has a length before it.
const VARINT: u8 = 0;
const LENGTH_DELIMITED: u8 = 2;
