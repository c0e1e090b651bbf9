//! Compiles the .proto files with a compiler written in Rust, so that a build needs no protoc.
//!
//! KV and Watch servers answer with `pb::raw` messages: stored bytes are spliced into a response
//! instead of being decoded and encoded again. Their clients, and all other services, use the
//! ordinary generated messages.

use std::error::Error;

use tonic_build::manual;

const CODEC: &str = "tonic_prost::ProstCodec";

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
        "v3election",
        "v3lock",
    ]
    .map(|name| format!("{name}.proto"));
    let descriptors = protox::compile(&files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .boxed(".etcdserverpb.RequestOp.request.request_txn")
        .boxed(".etcdserverpb.ResponseOp.response.response_txn")
        .compile_fds(descriptors)?;
    manual::Builder::new().build_client(false).compile(&[kv_server(), watch_server()]);
    Ok(())
}

fn method(name: &str, route: &str, input: &str, output: &str) -> manual::MethodBuilder {
    manual::Method::builder()
        .name(name)
        .route_name(route)
        .input_type(format!("crate::pb::etcdserverpb::{input}"))
        .output_type(format!("crate::pb::{output}"))
        .codec_path(CODEC)
}

fn kv_server() -> manual::Service {
    manual::Service::builder()
        .name("KV")
        .package("etcdserverpb")
        .method(method("range", "Range", "RangeRequest", "raw::RangeResponse").build())
        .method(
            method("range_stream", "RangeStream", "RangeRequest", "raw::RangeStreamResponse")
                .server_streaming()
                .build(),
        )
        .method(method("put", "Put", "PutRequest", "raw::PutResponse").build())
        .method(
            method("delete_range", "DeleteRange", "DeleteRangeRequest", "raw::DeleteRangeResponse")
                .build(),
        )
        .method(method("txn", "Txn", "TxnRequest", "raw::TxnResponse").build())
        .method(
            method("compact", "Compact", "CompactionRequest", "etcdserverpb::CompactionResponse")
                .build(),
        )
        .build()
}

fn watch_server() -> manual::Service {
    manual::Service::builder()
        .name("Watch")
        .package("etcdserverpb")
        .method(
            method("watch", "Watch", "WatchRequest", "raw::WatchResponse")
                .client_streaming()
                .server_streaming()
                .build(),
        )
        .build()
}
