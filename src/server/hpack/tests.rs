//! How header blocks are changed that h2 would refuse.

use super::*;
use crate::server::huffman::tests::{EXPANDED, compressed};

#[test]
fn what_does_not_matter_is_not_expanded() {
    let long = "x".repeat(5000);
    let value = string(long.as_bytes(), true);
    let fields = [
        [&[0x7a][..], &value].concat(),
        [&[0x40][..], &string(long.as_bytes(), false), &value].concat(),
    ];
    EXPANDED.set(0);
    assert_eq!(adapted(&fields.concat()), None);
    assert_eq!(EXPANDED.get(), 0);
}

fn string(text: &[u8], compress: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = if compress { compressed(text) } else { text.to_vec() };
    put_length(&mut out, bytes.len());
    out[0] |= u8::from(compress) << 7;
    [out, bytes].concat()
}

#[test]
fn what_h2_would_refuse_is_replaced_by_as_many_bytes() {
    let refused: [&[u8]; 8] = [
        b"#initially=[http://127.0.0.1:2379]",
        b"%2Ftmp%2Fx.sock",
        b"127.0.0.1:1,127.0.0.1:2",
        b"etcd/a",
        b"::1",
        b"a\xff\xfeb",
        b"a b",
        &[b'%'; 300],
    ];
    for value in refused {
        for (first, name) in [(0x41, None), (0x40, Some(":authority")), (1, None), (0x11, None)] {
            for compress in [false, true] {
                let name = name.map_or(Vec::new(), |name| string(name.as_bytes(), compress));
                let head = [&[0x83, 0x86, first][..], &name].concat();
                let tail = [&[0x44][..], &string(b"/a/b", compress)].concat();
                let block = [&head[..], &string(value, compress), &tail].concat();
                let changed = adapted(&block).unwrap();
                let middle = &changed[head.len()..changed.len() - tail.len()];
                let mut reader = Reader { block: middle, at: 0, is_begun: true };
                let new = reader.string().unwrap().decoded().unwrap();
                assert_eq!(new.len(), value.len());
                assert!(Authority::try_from(new.as_slice()).is_ok(), "{new:?}");
                assert!(changed.starts_with(&head) && changed.ends_with(&tail));
            }
        }
    }
}

#[test]
fn a_path_has_no_fragment() {
    for (value, expected) in [("/a/b#c", Some("/a/b?c")), ("#", Some("/")), ("/a/b?c", None)] {
        for (first, name) in [(0x44, None), (0x40, Some(":path")), (4, None), (0x15, None)] {
            for compress in [false, true] {
                let name = name.map_or(Vec::new(), |name| string(name.as_bytes(), compress));
                let head = [&[0x83, 0x86, first][..], &name].concat();
                let block = [&head[..], &string(value.as_bytes(), compress)].concat();
                let expected =
                    expected.map(|value| [&head[..], &string(value.as_bytes(), false)].concat());
                assert_eq!(adapted(&block), expected, "{value} {first}");
            }
        }
    }
    // Wherever its code lies in the bytes.
    for before in ["", "a", "aa", "aaa", "aaaa", "aaaaa", "aaaaaa", "aaaaaaa"] {
        for between in ["", "0", "u", "?", "~"] {
            let value = format!("/{before}{between}#{between}");
            let block = [&[0x44][..], &string(value.as_bytes(), true)].concat();
            let expected = string(value.replace('#', "?").as_bytes(), false);
            assert_eq!(adapted(&block).unwrap()[1..], expected, "{value}");
        }
    }
}

#[test]
fn an_empty_one_goes() {
    assert_eq!(adapted(b"\x83\x81\x86").unwrap(), b"\x83\x86");
    assert_eq!(adapted(b"\x83\x01\x00\x86").unwrap(), b"\x83\x86");
}

#[test]
fn an_empty_one_that_enters_the_table_leaves_it_as_long() {
    assert_eq!(adapted(b"\x83\x41\x00\x86").unwrap(), b"\x83\x41\x01-\x86");
    assert_eq!(adapted(b"\x41\x80\x86").unwrap(), b"\x41\x01-\x86");
    let spelled = [&[0x40][..], &string(NAME, false), &[0x00]].concat();
    let expected = [&[0x40][..], &string(NAME, false), b"\x01-"].concat();
    assert_eq!(adapted(&spelled).unwrap(), expected);
    // As many as fit into the client's table fit into h2's, with a byte more each.
    let each = 32 + NAME.len();
    assert!(HEADER_TABLE_BYTES as usize / each * (each + 1) + each <= 4096);
}

#[test]
fn h2_does_not_hear_how_small_a_table_is() {
    let size = |bytes: u32| {
        let mut rest = bytes - 31;
        let mut update = vec![0x3f];
        while rest >= 128 {
            update.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        update.push(rest as u8);
        update
    };
    let small = size(HEADER_TABLE_BYTES);
    assert_eq!(adapted(&[b"\x20", &small[..], b"\x83"].concat()).unwrap(), b"\x83");
    // h2 refuses a size above the one that it announced, and one that comes too late.
    assert_eq!(adapted(&[&size(HEADER_TABLE_BYTES + 1)[..], b"\x83"].concat()), None);
    assert_eq!(adapted(&[b"\x83", &small[..]].concat()), None);
}

/// Name and value of each field that a block spells out.
fn fields(block: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut reader = Reader { block, at: 0, is_begun: true };
    let mut fields = Vec::new();
    while reader.at < block.len() {
        assert_eq!(block[reader.at] & 0xbf, 0, "a field with a known name");
        reader.at += 1;
        let mut next = || reader.string().unwrap().decoded().unwrap();
        fields.push((next(), next()));
    }
    fields
}

#[test]
fn what_no_field_may_have_resets_the_stream_alone() {
    // A name and a value, and what becomes of them.
    type Case = (&'static [u8], &'static [u8], &'static [u8], &'static [u8]);
    let cases: [Case; 9] = [
        (b"x", b"a\0b", b"x", b"a-b"),
        (b"x", b"a\r\nb: c", b"x", b"a--b: c"),
        (b"token", b"a\x7f", b"token", b"a-"),
        (b"x", b"\x01", b"x", b"-"),
        (b"Upper", b"x", b"xxxxx", b"x"),
        (b"a b", b"\0", b"xxx", b"-"),
        (b"x\0", b"", b"xx", b""),
        (b":foo", b"x", b"xxxx", b"x"),
        (b"", b"x", b"x", b"x"),
    ];
    for (name, value, new_name, new_value) in cases {
        for (first, compress) in [(0x40, true), (0x40, false), (0, true), (0, false)] {
            let field = [&[first][..], &string(name, compress), &string(value, compress)];
            let changed = adapted(&field.concat()).unwrap();
            let expected =
                [(new_name.to_vec(), new_value.to_vec()), (b"te".to_vec(), b"-".to_vec())];
            assert_eq!(fields(&changed), expected, "{name:?}: {value:?}");
            assert_eq!(changed[0], first, "it enters the table as before");
        }
    }
    // A name that is longer than any that is known.
    for compress in [true, false] {
        let (name, value) = ([&b"a".repeat(90)[..], b"B"].concat(), string(b"x", false));
        let field = [&[0x40][..], &string(&name, compress), &value].concat();
        let changed = fields(&adapted(&field).unwrap());
        assert_eq!(changed, [(b"x".repeat(91), b"x".to_vec()), (b"te".to_vec(), b"-".to_vec())]);
        let right = [&[0x40][..], &string(&name[..90], compress), &value].concat();
        assert_eq!(adapted(&right), None);
    }
    // A name that is known, and bytes that are rare and allowed.
    let known = [&[0x7a][..], &string(b"a\nb", true)].concat();
    let expected = [&[0x7a][..], &string(b"a-b", false), REFUSED].concat();
    assert_eq!(adapted(&known).unwrap(), expected);
    for value in [&b"a\tb"[..], b"\xff\xfe", b"~~~"] {
        assert_eq!(adapted(&[&[0x7a][..], &string(value, true)].concat()), None);
    }
}

#[test]
fn what_grpc_go_does_not_look_at_gets_another_name() {
    for name in ["te", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"] {
        let spelled = [&[0x40][..], &string(name.as_bytes(), true), &string(b"x", true)];
        let changed = adapted(&spelled.concat()).unwrap();
        let new_name = format!("x{}", &name[1..]).into_bytes();
        assert_eq!(fields(&changed), [(new_name, b"x".to_vec())]);
    }
    for (first, name) in [(28, "xontent-length"), (57, "xransfer-encoding")] {
        let known = [&[0x40 | first][..], &string(b"3", false)].concat();
        let expected = [(name.into(), b"3".to_vec())];
        assert_eq!(fields(&adapted(&known).unwrap()), expected);
    }
    let trailers = [&[0][..], &string(b"te", true), &string(b"trailers", true)].concat();
    assert_eq!(adapted(&trailers), None);
}

#[test]
fn what_h2_takes_for_no_request_is_one_that_nobody_serves() {
    // The place of a name, a value, and what becomes of it.
    type Case = (u8, &'static [u8], Option<&'static [u8]>);
    let cases: [Case; 14] = [
        (4, b"/a b/c", Some(b"/a-b/c")),
        (4, b"x", Some(b"/")),
        (4, b"x/a/b", Some(b"/----")),
        (4, b"", Some(b"/")),
        (4, b"*", None),
        (4, b"/\xc3\xa9/b", None),
        (4, b"/\xff/b", Some(b"/-/b")),
        (2, b"P T", Some(b"P-T")),
        (2, b"", Some(b"-")),
        (2, b"CONNECT", Some(b"connect")),
        (2, b"PUT", None),
        (6, b"1$", Some(b"xx")),
        (6, b"", None),
        (6, b"ftp", None),
    ];
    for (place, value, expected) in cases {
        for first in [place, 0x40 | place] {
            let changed = adapted(&[&[first][..], &string(value, true)].concat());
            let expected = expected.map(|value| [&[first][..], &string(value, false)].concat());
            assert_eq!(changed, expected, "{place}: {value:?}");
        }
    }
}

#[test]
fn what_is_right_or_cannot_be_read_stays() {
    let right = [&[0x83, 0x41][..], &string(b"127.0.0.1:2379", true)].concat();
    assert_eq!(adapted(&right), None);
    assert_eq!(adapted(&[&[0x41][..], &string(b"[::1]:2379", false)].concat()), None);
    // The value of any other field is not looked at.
    assert_eq!(adapted(&[&[0x7a][..], &string(b"::1", false)].concat()), None);
    let cut = [&[0x83, 0x41][..], &string(b"etcd/a", false)].concat();
    for length in 0..cut.len() {
        assert_eq!(adapted(&cut[..length]), None, "{length}");
    }
    for block in
        [&b"\x41\xff"[..], b"\x41\x7f\xff\xff\xff\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff"]
    {
        assert_eq!(adapted(block), None);
    }
    // A change before the cut counts.
    let block = [&cut[..], b"\x44\x05/a"].concat();
    assert_eq!(adapted(&block).unwrap(), b"\x83\x41\x06etcd-a\x44\x05/a");
}
