use super::*;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn bad(line: &str) -> String {
    match parse(&words(line)) {
        Err(Stop::Bad(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn one_dash_two_dashes_equals_or_next_word() {
    for line in ["-name a", "--name a", "-name=a", "--name=a", "--name x --name=a"] {
        assert_eq!(parse(&words(line)).unwrap().text("name"), "a", "{line}");
    }
    assert_eq!(
        parse(&words("--election-timeout 0x400")).unwrap().text("election-timeout"),
        "0x400"
    );
}

#[test]
fn a_boolean_takes_no_next_word() {
    let given = parse(&words("--pre-vote true --name a")).unwrap();
    assert_eq!(given.rest.as_deref(), Some("true"));
    assert!(!given.is_set("name"));
}

#[test]
fn errors_are_gos() {
    assert_eq!(bad("--nope"), "flag provided but not defined: -nope");
    assert_eq!(bad("--name"), "flag needs an argument: -name");
    assert_eq!(bad("---name"), "bad flag syntax: ---name");
    assert_eq!(
        bad("--election-timeout ten"),
        "invalid value \"ten\" for flag -election-timeout: parse error"
    );
    assert_eq!(
        bad("--election-timeout=-1"),
        "invalid value \"-1\" for flag -election-timeout: parse error"
    );
    assert_eq!(bad("--pre-vote=x"), "invalid boolean value \"x\" for -pre-vote: parse error");
    assert_eq!(
        bad("--listen-client-urls 127.0.0.1:1"),
        "invalid value \"127.0.0.1:1\" for flag -listen-client-urls: \
         parse \"127.0.0.1:1\": first path segment in URL cannot contain colon"
    );
    assert_eq!(
        bad("--feature-gates Nope=true"),
        "invalid value \"Nope=true\" for flag -feature-gates: unrecognized feature gate: Nope"
    );
}

#[test]
fn old_experimental_names_are_understood() {
    let line = "--experimental-initial-corrupt-check=true \
                --experimental-watch-progress-notify-interval 5s";
    let given = parse(&words(line)).unwrap();
    assert_eq!(given.text("feature-gates"), "InitialCorruptCheck=true");
    assert_eq!(given.text("watch-progress-notify-interval"), "5s");
    assert_eq!(given.old_names.len(), 2);
    assert_eq!(bad("--experimental-x"), "flag provided but not defined: -experimental-x");
}

#[test]
fn what_is_given_under_its_own_name_counts_more() {
    let line = "--feature-gates=InitialCorruptCheck=false --corrupt-check-time=1m";
    let mut given = parse(&words(line)).unwrap();
    for (name, text) in [
        ("experimental-initial-corrupt-check", "true"),
        ("experimental-corrupt-check-time", "2m"),
        ("experimental-compact-hash-check-enabled", "true"),
        ("experimental-compact-hash-check-time", "3m"),
    ] {
        assert_eq!(given.set_old(name, text), Ok(true), "{name}");
    }
    assert_eq!(given.text("feature-gates"), "InitialCorruptCheck=false,CompactHashCheck=true");
    assert_eq!(given.text("corrupt-check-time"), "1m");
    assert_eq!(given.text("compact-hash-check-time"), "3m");
    assert_eq!(given.old_names.len(), 4);
    for name in ["corrupt-check-time", "experimental-x"] {
        assert_eq!(given.set_old(name, "x"), Ok(false), "{name}");
    }
    // Each old name is taken or passed over, and none is a reason to refuse the start.
    for (name, gate) in OLD_GATES {
        let is_taken = given.set_old(name, "true").unwrap();
        let known = GATES.iter().find(|(known, ..)| known == gate).unwrap();
        assert_eq!(is_taken, known.2 || known.3 != Default, "{name}");
    }
    let wrong = given.set_old("experimental-stop-grpc-service-on-defrag", "x");
    assert_eq!(wrong, Err("parse error".to_owned()));
}

#[test]
fn every_default_passes_its_own_check() {
    for flag in FLAGS.iter().filter(|flag| !flag.help.is_empty()) {
        assert_eq!(check(flag.kind, flag.default), Ok(()), "{}", flag.name);
    }
}
