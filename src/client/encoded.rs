//! Messages on the wire as encoded bytes: one codec, and with it one copy of tonic's client code, serves
//! all methods.

use std::marker::PhantomData;

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::{DecodeError, Message};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Status, Streaming};

/// A codec that leaves messages encoded. With one of typed messages, each of some forty methods
/// would have its own copy of the code that sends a request and reads the answer.
#[derive(Clone, Copy, Default)]
pub(super) struct EncodedCodec;

impl Codec for EncodedCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for EncodedCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for EncodedCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

pub(super) fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

/// The status of an answer that is no message, as tonic's codec for prost has it.
pub(super) fn undecodable(error: &DecodeError) -> Status {
    Status::internal(error.to_string())
}

/// The answers of a stream.
pub struct Answers<R> {
    pub(super) encoded: Streaming<Bytes>,
    message: PhantomData<fn() -> R>,
}

impl<R: Message + Default> Answers<R> {
    pub(super) fn new(encoded: Streaming<Bytes>) -> Self {
        Self { encoded, message: PhantomData }
    }

    pub(super) async fn message(&mut self) -> Result<Option<R>, Status> {
        let Some(encoded) = self.encoded.message().await? else { return Ok(None) };
        R::decode(encoded).map(Some).map_err(|error| undecodable(&error))
    }
}
