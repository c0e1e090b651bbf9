//! Documents of the JSON gateway, and messages that it writes as JSON.

use bytes::Bytes;
use rusd::gateway::{from_json, to_json};
use rusd::pb::shapes::ROUTES;

use super::{Notes, Target};

/// The first byte chooses a path of the gateway, and by its highest bit whether a message follows
/// instead of a document.
pub struct Json;

const MESSAGE: u8 = 0x80;

fn route(post: &str) -> u8 {
    ROUTES.iter().position(|route| route.post == post).unwrap() as u8
}

impl Target for Json {
    fn seeds(&mut self) -> Vec<Vec<u8>> {
        let mut seeds: Vec<Vec<u8>> = [
            ("/v3/kv/range", r#"{"key":"Zm9v","range_end":"AA==","limit":"10","sortOrder":"DESCEND","keysOnly":true}"#),
            ("/v3/kv/range", r#"{"none":[{"a":null},1.5e-3,"\\u00e9\\ud83d\\ude00"],"limit":1e1,"revision":-1,"sort_target":2} x"#),
            ("/v3/kv/txn", r#"{"compare":[{"target":"MOD","result":1,"key":"YQ","mod_revision":"0"}],"success":[{"requestTxn":{"failure":[{"request_put":{"lease":7}}]}},{"request_range":{}}]}"#),
            ("/v3/watch", r#"{"create_request":{"key":"_-8=","filters":["NOPUT",1],"progress_notify":true}}{"progress_request":{}}"#),
            ("/v3/auth/role/grant", r#"{"name":"a\\n\\"\\","perm":{"permType":"READWRITE","key":null}}"#),
            ("/v3/cluster/member/add", r#"{"peerURLs":["http://a:1","é"],"isLearner":false}"#),
        ]
        .into_iter()
        .map(|(post, document)| [&[route(post)][..], document.as_bytes()].concat())
        .collect();
        let range =
            [MESSAGE | route("/v3/kv/range"), 10, 2, 24, 5, 18, 3, 10, 1, b'a', 18, 0, 32, 2];
        seeds.push(range.to_vec());
        seeds
    }

    fn words(&self) -> &'static [&'static [u8]] {
        &[
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"\"",
            b"null",
            b"true",
            b"1e1",
            b"-0",
            b"\\u",
            b"\\ud800",
            b"\"key\":",
            b"\"success\":[",
            b"\"request_txn\":{",
            b"\"requestPut\":{",
            b"9223372036854775808",
        ]
    }

    fn run(&mut self, input: &[u8], notes: &mut Notes) {
        let Some((kind, rest)) = input.split_first() else { return };
        let route = &ROUTES[usize::from(kind & !MESSAGE) % ROUTES.len()];
        if kind & MESSAGE != 0 {
            let text = to_json(route.output, Bytes::copy_from_slice(rest));
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            notes.number("written", value.as_object().unwrap().len() as u64);
            return;
        }
        match from_json(route.input, rest) {
            Ok((message, end)) => {
                notes.text("read");
                // What is read is written, and read as the same. Only its form differs.
                let text = to_json(route.input, message.into());
                let (again, all) = from_json(route.input, text.as_bytes()).unwrap();
                assert_eq!(all, text.len());
                assert_eq!(to_json(route.input, again.into()), text);
                assert!(end <= rest.len());
            }
            Err(why) => notes.text(&why),
        }
    }
}
