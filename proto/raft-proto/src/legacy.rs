//! The trait of protobuf 2, which `raft` calls to measure, read and write messages.
//!
//! `raft` uses `compute_size`, `merge_from_bytes` and `write_to_bytes`; the rest of the trait is
//! there to satisfy the compiler. Unknown fields are not kept and there is no reflection.

use std::any::Any;
use std::sync::OnceLock;

use protobuf::reflect::MessageDescriptor;
use protobuf::{
    Clear, CodedInputStream, CodedOutputStream, Message, ProtobufError, ProtobufResult,
    UnknownFields,
};

use crate::eraftpb;

static NO_FIELDS: UnknownFields = UnknownFields { fields: None };

fn unreadable(error: &prost::DecodeError) -> ProtobufError {
    ProtobufError::IoError(std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()))
}

macro_rules! legacy_message {
    ($($name:ident)*) => {$(
        impl Clear for eraftpb::$name {
            fn clear(&mut self) {
                *self = Self::default();
            }
        }

        impl Message for eraftpb::$name {
            fn descriptor(&self) -> &'static MessageDescriptor {
                Self::descriptor_static()
            }

            fn is_initialized(&self) -> bool {
                true
            }

            fn merge_from(&mut self, is: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
                let mut bytes = Vec::new();
                while !is.eof()? {
                    bytes.push(is.read_raw_byte()?);
                }
                self.merge_from_bytes(&bytes)
            }

            fn merge_from_bytes(&mut self, bytes: &[u8]) -> ProtobufResult<()> {
                prost::Message::merge(self, bytes).map_err(|error| unreadable(&error))
            }

            fn write_to_with_cached_sizes(&self, os: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
                os.write_raw_bytes(&prost::Message::encode_to_vec(self))
            }

            fn write_to_bytes(&self) -> ProtobufResult<Vec<u8>> {
                Ok(prost::Message::encode_to_vec(self))
            }

            fn compute_size(&self) -> u32 {
                u32::try_from(prost::Message::encoded_len(self)).unwrap_or(u32::MAX)
            }

            fn get_cached_size(&self) -> u32 {
                self.compute_size()
            }

            fn get_unknown_fields(&self) -> &UnknownFields {
                &NO_FIELDS
            }

            fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
                Box::leak(Box::default())
            }

            fn as_any(&self) -> &dyn Any {
                self
            }

            fn new() -> Self {
                Self::default()
            }

            fn default_instance() -> &'static Self {
                static INSTANCE: OnceLock<eraftpb::$name> = OnceLock::new();
                INSTANCE.get_or_init(Self::default)
            }
        }
    )*};
}

legacy_message! {
    Entry SnapshotMetadata Snapshot Message HardState ConfState ConfChange ConfChangeSingle
    ConfChangeV2
}
