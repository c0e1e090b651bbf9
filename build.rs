//! Compiles the .proto files with a compiler written in Rust, so that a build needs no protoc.
//!
//! Messages and clients are generated. The server side is `rpc`'s own: it finds methods by their
//! path and answers with `pb::raw` messages, into which stored bytes are spliced.

use std::error::Error;

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
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".")
        .boxed(".etcdserverpb.RequestOp.request.request_txn")
        .boxed(".etcdserverpb.ResponseOp.response.response_txn")
        .compile_fds(descriptors)?;
    Ok(())
}
