//! Command lines that cannot be meant as they are.

use super::table::{Case, run, rusd};

const DEAD: (&str, &str) = ("ETCDCTL_ENDPOINTS", "127.0.0.1:1");

#[test]
fn a_wrong_command_line_is_told_with_what_may_be_meant() {
    for (words, code, parts) in [
        (["lease", "grnt"].as_slice(), 2, ["\"grnt\"", "did you mean 'rusd lease grant'?"]),
        (&["gte", "k"], 2, ["\"gte\"", "did you mean 'rusd get'?"]),
        (&["user", "bogus"], 2, ["\"bogus\"", "'rusd user --help' lists all"]),
        (&["lease", "grant"], 2, ["missing argument <ttl>", "Usage: rusd lease grant <ttl>"]),
        (&["get"], 2, ["missing argument <key>", "Usage: rusd get"]),
        (&["user", "grant-role", "a"], 2, ["missing argument <role name>", "Usage: rusd user"]),
        (&["get", "--prefx", "k"], 2, ["unknown flag --prefx", "did you mean --prefix?"]),
        (&["get", "-z", "k"], 2, ["unknown flag -z", "Usage: rusd get"]),
        (&["get", "k", "--rev"], 2, ["--rev needs a value", "Usage: rusd get"]),
        (&["get", "k", "--rev=x"], 2, ["--rev takes a whole number", "not \"x\""]),
        (&["get", "k", "--dial-timeout=5"], 2, ["--dial-timeout takes a time", "7d, not \"5\""]),
        (&["get", "k", "--max-recv-bytes=8G"], 2, ["8GiB", "not \"8G\""]),
        (&["get", "k", "--hex=maybe"], 2, ["--hex takes true or false", "not \"maybe\""]),
        (&["lock", "l", "--ttl=5x"], 2, ["--ttl takes seconds", "not \"5x\""]),
        (&["lock", "l", "ls", "-q"], 2, ["unknown flag -q", "rusd lock NAME -- ls -l"]),
        (&["rebuild"], 128, ["rebuild requires --data-dir", "--member ID"]),
        (&["lease", "grant", "5x"], 128, ["the TTL is in seconds", "not \"5x\""]),
        (&["lease", "revoke", "xyz"], 128, ["\"xyz\" is not a number", "'rusd lease list'"]),
        (&["move-leader", "m1"], 128, ["\"m1\" is not a number", "'rusd member list'"]),
        (&["member", "remove", "m1"], 128, ["\"m1\" is not a number", "'rusd member list'"]),
        (&["member", "promote", "m1"], 128, ["\"m1\" is not a number", "'rusd member list'"]),
        (
            &["get", "k", "-o", "jason"],
            4,
            ["--write-out, or ETCDCTL_WRITE_OUT, takes", "\"jason\""],
        ),
        (&["get", "k", "--cert=/x"], 128, ["--cert is given without --key", "go together"]),
        (&["serve", "--nmae=a"], 2, ["unknown flag --nmae", "did you mean --name?"]),
        (&["serve", "--quota-backend-bytes=8G"], 2, ["takes bytes", "8GiB"]),
    ] {
        Case { words, variables: &[DEAD], code, parts: &parts }.check();
    }
}

#[test]
fn a_variable_that_is_wrong_is_named() {
    for (variable, parts) in [
        (("ETCDCTL_DIAL_TIMEOUT", "5x"), ["ETCDCTL_DIAL_TIMEOUT takes a time", "not \"5x\""]),
        (("ETCDCTL_HEX", "maybe"), ["ETCDCTL_HEX takes true or false", "not \"maybe\""]),
    ] {
        let variables = [DEAD, variable];
        Case { words: &["get", "k"], variables: &variables, code: 2, parts: &parts }.check_line();
    }
    for (variables, code, parts) in [
        (
            vec![DEAD, ("ETCDCTL_CERT", "/old/c.crt"), ("ETCDCTL_KEY", "/old/c.key")],
            128,
            ["open /old/c.crt: no such file", "environment: ETCDCTL_CERT, ETCDCTL_KEY"],
        ),
        (
            vec![DEAD, ("ETCDCTL_KEY", "/old/c.key")],
            128,
            ["--key is given without --cert", "environment: ETCDCTL_KEY"],
        ),
        (vec![DEAD, ("ETCDCTL_WRITE_OUT", "jason")], 4, ["ETCDCTL_WRITE_OUT", "not \"jason\""]),
    ] {
        Case { words: &["get", "k"], variables: &variables, code, parts: &parts }.check_line();
    }
    // The flag wins, and nothing is said of the variable.
    let words = ["get", "k", "--endpoints=127.0.0.1:2"];
    let variables = [DEAD, ("ETCDCTL_API", "3")];
    let parts = ["cannot connect to 127.0.0.1:2:"];
    Case { words: &words, variables: &variables, code: 2, parts: &parts }.check_line();
    let variables = [DEAD, ("ETCDCTL_ENDPONTS", "x")];
    let parts = ["ETCDCTL_ENDPONTS", "did you mean ETCDCTL_ENDPOINTS?"];
    Case { words: &["get", "k"], variables: &variables, code: 2, parts: &parts }.check();
}

#[test]
fn the_version_is_a_flag_as_well() {
    let version = run(rusd(&["version"])).stdout;
    assert!(version.starts_with(b"rusd version: "));
    for flag in ["--version", "-V"] {
        let output = run(rusd(&[flag]));
        assert!(output.status.success());
        assert_eq!(output.stdout, version, "{flag}");
    }
}
