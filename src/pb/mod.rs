//! Generated messages and clients: those of the wire, the log and the store.
//!
//! `raw` has the server's answers that contain key-value pairs. Their pairs are bytes, so that a
//! stored `mvccpb.KeyValue` is copied into an answer as it is. A `raw` message has the same bytes
//! on the wire as its generated twin.

#![allow(clippy::doc_markdown, clippy::enum_variant_names, reason = "generated code")]

pub mod loggable;
pub mod logged;
pub mod nested;
pub mod raw;
pub mod shapes;
pub mod tolerant;

pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}
pub mod authpb {
    tonic::include_proto!("authpb");
}
pub mod membershippb {
    tonic::include_proto!("membershippb");
}
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
pub mod leasepb {
    tonic::include_proto!("leasepb");
}
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
pub mod rusdpb {
    tonic::include_proto!("rusdpb");
}
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

pub use etcdserverpb::*;
pub use mvccpb::{Event, KeyValue, event::EventType};
