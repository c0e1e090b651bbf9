//! Whether an output is what a page shows, whatever ids, times and sizes are in it.

use std::sync::LazyLock;

use regex::Regex;

/// What differs from run to run, and what stands for it.
static VOLATILE: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let rules = [
        (r#""caller":"[^"]*","#, ""),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?(Z|UTC|[+-]\d\d:?\d\d))?", "TIME"),
        (r"\b\d{4}-\d\d-\d\d\b", "DATE"),
        (r"\b[0-9a-f]{8,}\b", "ID"),
        (r"\b(pid|process|PID) ?=? ?\d+\b", "PID"),
        (r"\b\d+(\.\d+)? ?([kKMGT]i?B|B|bytes)\b", "SIZE"),
        (r"\b(\d+(\.\d+)?(ns|µs|us|ms|s|m|h)(in)?)+\b", "DURATION"),
        (r"\b\d+\.\d+\b", "NUMBER"),
        (r"--+|─+", "-"),
        (r"  +", " "),
    ];
    rules.map(|(rule, name)| (Regex::new(rule).unwrap(), name)).into()
});

fn plain(line: &str) -> String {
    let mut line = line.trim_end().to_owned();
    for (rule, name) in VOLATILE.iter() {
        line = rule.replace_all(&line, *name).into_owned();
    }
    if is_row(&line) { ANY_VALUE.replace_all(&line, "VALUE").into_owned() } else { line }
}

/// Numbers and answers in the rows of a table depend on who leads.
static ANY_VALUE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(\d+|true|false)\b").unwrap());

fn is_row(line: &str) -> bool {
    line.starts_with('│')
}

/// `…` in a line stands for anything, and alone on a line for any number of lines.
pub fn is_like(shown: &str, seen: &str) -> bool {
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(plain).collect();
        // Members are sorted by ids, which differ from run to run.
        lines.chunk_by_mut(|a, b| is_row(a) && is_row(b)).for_each(<[String]>::sort);
        lines
    };
    are_like(&lines(shown), &lines(seen))
}

fn are_like(shown: &[String], seen: &[String]) -> bool {
    let Some((first, rest)) = shown.split_first() else { return seen.is_empty() };
    if first.trim() == "…" {
        return (0..=seen.len()).any(|skipped| are_like(rest, &seen[skipped..]));
    }
    let Some((line, others)) = seen.split_first() else { return false };
    fits(first, line) && are_like(rest, others)
}

fn fits(shown: &str, seen: &str) -> bool {
    let pattern: Vec<String> = shown.split('…').map(regex::escape).collect();
    Regex::new(&format!("^{}$", pattern.join(".*"))).unwrap().is_match(seen)
}

/// Whether a line of the log has been written.
pub fn has_line(shown: &str, logs: &str) -> bool {
    let shown = plain(shown);
    logs.lines().any(|line| fits(&shown, &plain(line)))
}

/// An output as a page shows it: of the log, the lines that say what failed.
pub fn for_a_page(seen: &str) -> String {
    static PLACE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#""ts":"[^"]*",("logger":"[^"]*",)?"caller":"[^"]*","#).unwrap()
    });
    let mut page: Vec<String> = Vec::new();
    for line in seen.lines() {
        let is_detail = ["info", "warn"]
            .iter()
            .any(|level| line.starts_with(&format!("{{\"level\":\"{level}")));
        if !is_detail {
            page.push(PLACE.replace(line, "…").into_owned());
        } else if page.last().is_none_or(|last| last != "…") {
            page.push("…".to_owned());
        }
    }
    page.join("\n") + "\n"
}

#[test]
fn what_differs_from_run_to_run_is_alike() {
    let shown = "member 1234567890abcdef added, took 12ms\n…\nDB 20 kB …\n";
    assert!(is_like(shown, "member fedcba0987654321 added, took 1.5s\nDB 1.1 MB in use\n"));
    assert!(is_like(shown, "member fedcba0987654321 added, took 1.5s\na\nb\nDB 1.1 MB in use\n"));
    assert!(!is_like(shown, "member fedcba0987654321 added, took 1.5s\nDB 1.1 MB in use\nmore\n"));
    assert!(!is_like("OK\n", "Error\n"));
    assert!(is_like("│ m1 │ true │\n│ m2 │ false │\n", "│ m2 │ true │\n│ m1 │ false │\n"));
    assert!(!is_like("│ m1 │ true │\n│ m2 │ false │\n", "│ m1 │ true │\n│ m3 │ false │\n"));
    let log = "{\"level\":\"info\"}\n{\"level\":\"info\"}\n{\"level\":\"fatal\",\"ts\":\"1\",\"caller\":\"x\",\"msg\":\"m\"}\n";
    assert_eq!(for_a_page(log), "…\n{\"level\":\"fatal\",…\"msg\":\"m\"}\n");
    assert!(is_like(&for_a_page(log), log));
    assert!(has_line(
        r#"{"level":"info",…"msg":"x"…}"#,
        r#"{"level":"info","ts":"1","msg":"x","y":1}"#
    ));
}
