//! Encodes deeply nested transactions, and the answers to them.
//!
//! prost writes a message's length before the message, and computes it anew at each level. Its time
//! grows with the number of operations times their depth: a request of 1.6 MB with operations at 95
//! levels takes some ten seconds. Here the length of each transaction is computed once, before
//! anything is written.

use bytes::{Buf, BufMut};
use prost::encoding::{
    DecodeContext, WireType, bool, encode_key, encode_varint, encoded_len_varint, key_len, message,
    skip_field,
};
use prost::{DecodeError, Message};

use super::raw::{Response, ResponseOp, TxnResponse};
use super::request_op::Request;
use super::tolerant::NESTED;
use super::{RequestOp, TxnRequest};

/// A message with lists of operations, some of which contain such a message again.
pub trait Nest: Sized {
    type Op: Message;

    /// Encoded length of the fields before the lists.
    fn head_len(&self) -> usize;
    fn encode_head(&self, out: &mut impl BufMut);
    /// The lists with their field numbers, in ascending order.
    fn lists(&self) -> [(u32, &[Self::Op]); 2];
    fn nested(op: &Self::Op) -> Option<&Self>;
}

impl Nest for TxnRequest {
    type Op = RequestOp;

    fn head_len(&self) -> usize {
        message::encoded_len_repeated(1, &self.compare)
    }

    fn encode_head(&self, out: &mut impl BufMut) {
        message::encode_repeated(1, &self.compare, out);
    }

    fn lists(&self) -> [(u32, &[RequestOp]); 2] {
        [(2, &self.success), (3, &self.failure)]
    }

    fn nested(op: &RequestOp) -> Option<&Self> {
        match &op.request {
            Some(Request::RequestTxn(txn)) => Some(txn),
            _ => None,
        }
    }
}

impl Nest for TxnResponse {
    type Op = ResponseOp;

    fn head_len(&self) -> usize {
        let header = self.header.as_ref().map_or(0, |header| message::encoded_len(1, header));
        header + if self.succeeded { bool::encoded_len(2, &true) } else { 0 }
    }

    fn encode_head(&self, out: &mut impl BufMut) {
        if let Some(header) = &self.header {
            message::encode(1, header, out);
        }
        if self.succeeded {
            bool::encode(2, &true, out);
        }
    }

    fn lists(&self) -> [(u32, &[ResponseOp]); 2] {
        [(3, &self.responses), (4, &[])]
    }

    fn nested(op: &ResponseOp) -> Option<&Self> {
        match &op.response {
            Some(Response::Txn(txn)) => Some(txn),
            _ => None,
        }
    }
}

/// Encodes a transaction to the same bytes as prost, in time that is linear in their number.
pub fn encode<T: Nest>(txn: &T, out: &mut impl BufMut) {
    let mut lengths = Vec::new();
    for (_, ops) in txn.lists() {
        ops.iter().filter_map(T::nested).for_each(|nested| {
            measure(nested, &mut lengths);
        });
    }
    write(txn, &mut lengths.into_iter(), out);
}

/// Encoded length of a field with this number and a value of `length` bytes.
fn field_len(number: u32, length: usize) -> usize {
    key_len(number) + encoded_len_varint(length as u64) + length
}

/// Computes the length of a transaction. Appends it and those of its nested transactions to
/// `lengths`, in the order in which they are written.
fn measure<T: Nest>(txn: &T, lengths: &mut Vec<usize>) -> usize {
    let place = lengths.len();
    lengths.push(0);
    let mut length = txn.head_len();
    for (number, ops) in txn.lists() {
        for op in ops {
            let op = match T::nested(op) {
                Some(nested) => field_len(NESTED, measure(nested, lengths)),
                None => op.encoded_len(),
            };
            length += field_len(number, op);
        }
    }
    lengths[place] = length;
    length
}

/// Writes a transaction; `lengths` has the lengths of its nested transactions.
fn write<T: Nest>(txn: &T, lengths: &mut impl Iterator<Item = usize>, out: &mut impl BufMut) {
    txn.encode_head(out);
    for (number, ops) in txn.lists() {
        for op in ops {
            let nested = T::nested(op).and_then(|nested| Some((nested, lengths.next()?)));
            let Some((nested, length)) = nested else {
                message::encode(number, op, out);
                continue;
            };
            encode_key(number, WireType::LengthDelimited, out);
            encode_varint(field_len(NESTED, length) as u64, out);
            encode_key(NESTED, WireType::LengthDelimited, out);
            encode_varint(length as u64, out);
            write(nested, lengths, out);
        }
    }
}

/// As prost derives it, except for `encode_raw`.
impl Message for TxnResponse {
    fn encode_raw(&self, out: &mut impl BufMut) {
        encode(self, out);
    }

    fn merge_field(
        &mut self,
        number: u32,
        wire: WireType,
        rest: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match number {
            1 => message::merge(wire, self.header.get_or_insert_default(), rest, context),
            2 => bool::merge(wire, &mut self.succeeded, rest, context),
            3 => message::merge_repeated(wire, &mut self.responses, rest, context),
            _ => skip_field(wire, number, rest, context),
        }
    }

    fn encoded_len(&self) -> usize {
        self.head_len() + message::encoded_len_repeated(3, &self.responses)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bytes::Bytes;

    use super::*;
    use crate::pb::raw::{DeleteRangeResponse, PutResponse, RangeResponse};
    use crate::pb::{
        Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, ResponseHeader,
    };

    fn request(depth: usize) -> TxnRequest {
        let op = |request| RequestOp { request: Some(request) };
        let put = PutRequest { key: "k".into(), value: vec![7; 200].into(), ..Default::default() };
        let range = RangeRequest { key: "r".into(), limit: depth as i64, ..Default::default() };
        let delete = DeleteRangeRequest { key: "d".into(), ..Default::default() };
        let (success, mut failure) = (
            vec![op(Request::RequestPut(put)), RequestOp::default()],
            vec![op(Request::RequestRange(range)), op(Request::RequestDeleteRange(delete))],
        );
        let compare = vec![Compare { key: "c".into(), ..Default::default() }; depth % 3];
        let mut txn = TxnRequest { compare, success, ..Default::default() };
        if depth > 0 {
            let nested = |depth| op(Request::RequestTxn(Box::new(request(depth))));
            txn.success.insert(1, nested(depth - 1));
            failure.insert(1, nested(0));
            failure.push(nested(depth / 4));
            txn.failure = failure;
        }
        txn
    }

    /// An answer that the request may have.
    fn response(txn: &TxnRequest) -> TxnResponse {
        let pair = || {
            let pair = KeyValue { value: vec![8; 150].into(), ..Default::default() };
            Bytes::from(pair.encode_to_vec())
        };
        let answer = |op: &RequestOp| match op.request.as_ref()? {
            Request::RequestRange(_) => {
                Some(Response::Range(RangeResponse { kvs: vec![pair(); 2], ..Default::default() }))
            }
            Request::RequestPut(_) => {
                Some(Response::Put(PutResponse { prev_kv: Some(pair()), ..Default::default() }))
            }
            Request::RequestDeleteRange(_) => {
                Some(Response::DeleteRange(DeleteRangeResponse::default()))
            }
            Request::RequestTxn(txn) => Some(Response::Txn(response(txn))),
        };
        let ops = txn.success.iter().chain(&txn.failure);
        TxnResponse {
            header: Some(ResponseHeader::default()),
            succeeded: txn.compare.is_empty(),
            responses: ops.map(|op| ResponseOp { response: answer(op) }).collect(),
        }
    }

    #[test]
    fn bytes_are_those_of_the_generated_messages() {
        for depth in [0, 1, 2, 3, 20, 45] {
            let txn = request(depth);
            let mut bytes = Vec::new();
            encode(&txn, &mut bytes);
            assert!(bytes == Message::encode_to_vec(&txn), "{depth}");
            let answer = response(&txn);
            let bytes = answer.encode_to_vec();
            let generated = crate::pb::TxnResponse::decode(&bytes[..]).unwrap();
            assert!(bytes == generated.encode_to_vec(), "{depth}");
            assert!(TxnResponse::decode(&bytes[..]).unwrap() == answer, "{depth}");
        }
    }

    thread_local! {
        static COUNTED: Cell<usize> = const { Cell::new(0) };
    }

    /// An operation that counts how often its length is computed.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Op(Option<Box<Txn>>);

    #[derive(Clone, Debug, Default, PartialEq)]
    struct Txn([Vec<Op>; 2]);

    impl Nest for Txn {
        type Op = Op;

        fn head_len(&self) -> usize {
            COUNTED.set(COUNTED.get() + 1);
            0
        }

        fn encode_head(&self, _: &mut impl BufMut) {}

        fn lists(&self) -> [(u32, &[Op]); 2] {
            [(2, &self.0[0]), (3, &self.0[1])]
        }

        fn nested(op: &Op) -> Option<&Self> {
            op.0.as_deref()
        }
    }

    impl Message for Op {
        fn encode_raw(&self, _: &mut impl BufMut) {}

        fn merge_field(
            &mut self,
            _: u32,
            _: WireType,
            _: &mut impl Buf,
            _: DecodeContext,
        ) -> Result<(), DecodeError> {
            Ok(())
        }

        fn encoded_len(&self) -> usize {
            COUNTED.set(COUNTED.get() + 1);
            0
        }

        fn clear(&mut self) {}
    }

    #[test]
    fn sizes_are_counted_as_often_at_any_depth() {
        for depth in [1, 10, 100] {
            let wide = Txn([vec![Op::default(); 1000], vec![Op::default(); 1000]]);
            let deep =
                (0..depth).fold(wide, |txn, _| Txn([vec![Op(Some(Box::new(txn)))], Vec::new()]));
            COUNTED.set(0);
            encode(&deep, &mut Vec::new());
            // Each operation is counted once for its transaction's length and once when it is
            // written.
            assert_eq!(COUNTED.get(), 2 * 2000 + depth);
        }
    }
}
