//! `check data`: reads a stopped member's files from end to end and reports damage.
//!
//! A child process does the reading: a damaged file can crash its reader, and that crash becomes a
//! finding that names the file.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde::{Deserialize, Serialize};

use super::at_rest::patiently;
use super::growth;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::format::Format;
use crate::cli::printer::{OnSignal, Progress, Unit};
use crate::cli::record::{Records, Value};
use crate::cli::size;
use crate::cli::table::table;
use crate::limits::CHECK_REPORT_BYTES_MAX;
use crate::offline::{Check, Finding, REBUILD, Report, Severity};

/// Bytes after which the child tells how far it is.
const TELL_BYTES: u64 = 4 << 20;

/// A line that the child writes to its standard output, as JSON.
#[derive(Serialize, Deserialize)]
enum Line {
    /// The child begins to read this file. The last one before a crash is the finding's file.
    Reads(PathBuf),
    /// So many bytes of rows have been read.
    Seen(u64),
    Found(Box<Report>),
}

pub(super) fn run(context: &Context) -> Outcome {
    if !context.args.is_empty() {
        return Err(Failure::arguments("check data takes no arguments"));
    }
    let wal_dir = context.flags.path("wal-dir");
    let data_dir = context.flags.path("data-dir").unwrap_or(Path::new(""));
    let check = Check { data_dir, wal_dir };
    if context.flags.bool("in-child") {
        return read(context, &check);
    }
    let display = context.display_of_flags()?;
    let format = display.format;
    if matches!(format, Format::Fields | Format::Protobuf) {
        return Err(Failure::new(Exit::BadFeature, "unsupported output format"));
    }
    let lock = patiently(context, || check.lock())?;
    let bar = context.printer.progress(
        growth::taken(&data_dir.join("member/db")),
        Unit::Bytes,
        data_dir.as_os_str().as_bytes(),
        OnSignal::End,
    );
    let report = in_child(&check, &bar)?;
    drop(bar);
    drop(lock);
    match format {
        Format::Json => context.printer.line(as_json(&report).to_string()),
        Format::Table => context.printer.out(as_table(&report)),
        Format::Yaml | Format::Jsonl => {
            let mut json = as_json(&report);
            json["member_id"] = format!("{:x}", report.member_id).into();
            json["cluster_id"] = format!("{:x}", report.cluster_id).into();
            display.records(&Records::One(Value::from(&json)));
        }
        _ => context.printer.sentences(as_text(&report, data_dir).trim_end()),
    }
    if report.is_sound() { Ok(()) } else { Err(Failure::silent(Exit::Error)) }
}

/// The work of the child process.
fn read(context: &Context, check: &Check<'_>) -> Outcome {
    let line = |line: &Line| {
        // Cannot fail: paths and numbers always have a JSON form.
        context.printer.line(serde_json::to_string(line).unwrap_or_default());
    };
    let (mut seen, mut told) = (0, 0);
    let mut row = |bytes| {
        seen += bytes;
        if seen - told >= TELL_BYTES {
            told = seen;
            line(&Line::Seen(seen));
        }
    };
    let report = check.run(&mut |path| line(&Line::Reads(path.to_path_buf())), &mut row);
    line(&Line::Found(Box::new(report)));
    Ok(())
}

pub(super) fn in_child(check: &Check<'_>, bar: &Progress) -> Result<Report, Failure> {
    let program = std::env::current_exe().map_err(Failure::error)?;
    let mut command = Command::new(program);
    // The binary chooses its program by argv[0]: this process may be called etcdutl, and the child
    // must be rusd.
    command.arg0("rusd").args(["check", "data", "--in-child", "--data-dir"]).arg(check.data_dir);
    if let Some(wal_dir) = check.wal_dir {
        command.arg("--wal-dir").arg(wal_dir);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(Failure::error)?;
    let mut output = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        let mut lines = BufReader::new(pipe.take(CHECK_REPORT_BYTES_MAX));
        loop {
            let start = output.len();
            if lines.read_until(b'\n', &mut output).map_err(Failure::error)? == 0 {
                break;
            }
            if let Ok(Line::Seen(bytes)) = serde_json::from_slice(&output[start..]) {
                bar.set(bytes);
                output.truncate(start);
            }
        }
    }
    let status = child.wait().map_err(Failure::error)?;
    Ok(report(&output, status, check.data_dir))
}

/// The child's report. If the child died before it wrote one, a report with one finding: the file
/// that the child was reading.
fn report(output: &[u8], status: ExitStatus, data_dir: &Path) -> Report {
    let mut reading = data_dir.to_path_buf();
    for line in output.split(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(Line::Found(report)) if status.success() => return *report,
            Ok(Line::Reads(path)) => reading = path,
            _ => {}
        }
    }
    let how = match status.signal() {
        Some(signal) => format!("signal {signal}"),
        None => format!("exit code {}", status.code().unwrap_or_default()),
    };
    let what = format!("the process that read it was ended by {how}");
    let mut report = Report::default();
    report.add(Severity::Damage, &reading, "unknown", what, REBUILD);
    report
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Damage => "DAMAGED",
        Severity::Spare => "damaged",
        Severity::Note => "note",
    }
}

fn as_text(report: &Report, data_dir: &Path) -> String {
    let mut text = String::new();
    for alike in report.findings.chunk_by(|one, next| one.advice == next.advice) {
        for Finding { severity, file, place, what, .. } in alike {
            text += &format!("{}: {}: {place}: {what}\n", word(*severity), file.display());
        }
        text += &format!("    {}\n", alike[0].advice);
    }
    if report.unnamed > 0 {
        text += &format!("and {} more damaged places\n", report.unnamed);
    }
    let dir = data_dir.display();
    let Report { member_id, cluster_id, pages, rows, revision, .. } = report;
    let Report { compact_revision, applied, log_first, log_last, .. } = report;
    text += &match member_id {
        0 => format!("{dir}: what can be read does not say whose it is\n"),
        id => format!("{dir}: member {id:x} of cluster {cluster_id:x}\n"),
    };
    text += &format!(
        "store: {}, {pages} pages, {rows} records, revision {revision}, compacted at {}, applied \
         entry {applied}\n",
        size::shown(report.store_bytes),
        (*compact_revision).max(0),
    );
    if *log_last > 0 {
        text += &format!("log: entries {log_first} to {log_last}\n");
    }
    text += if report.is_sound() { "All is sound.\n" } else { "There is damage.\n" };
    text
}

fn as_table(report: &Report) -> String {
    let row = |finding: &Finding| {
        let Finding { severity, file, place, what, advice } = finding;
        let file = file.display().to_string();
        vec![word(*severity).to_owned(), file, place.clone(), what.clone(), advice.clone()]
    };
    let rows: Vec<Vec<String>> = report.findings.iter().map(row).collect();
    table(&["severity", "file", "place", "what", "advice"], &rows)
}

fn as_json(report: &Report) -> serde_json::Value {
    let mut json = serde_json::to_value(report).unwrap_or_default();
    json["sound"] = report.is_sound().into();
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_nothing_names_is_not_called_0() {
        let text = |member_id| {
            as_text(&Report { member_id, cluster_id: 9, ..Report::default() }, Path::new("/d"))
        };
        assert!(text(0).starts_with("/d: what can be read does not say whose it is\nstore:"));
        assert!(text(7).starts_with("/d: member 7 of cluster 9\nstore:"));
    }

    #[test]
    fn what_many_findings_advise_is_said_once() {
        let mut report = Report::default();
        for (place, advice) in [("page 1", "rebuild"), ("page 2", "rebuild"), ("page 3", "look")] {
            report.add(Severity::Damage, Path::new("/f"), place, "torn", advice);
        }
        let text = as_text(&report, Path::new("/d"));
        let [first, second, third] =
            [1, 2, 3].map(|page| format!("DAMAGED: /f: page {page}: torn\n"));
        let expected = format!("{first}{second}    rebuild\n{third}    look\n");
        assert_eq!(text.split_once("/d:").unwrap().0, expected);
    }

    #[test]
    fn a_reader_that_is_killed_is_a_finding_about_what_it_read() {
        let (data_dir, file) = (Path::new("/d"), PathBuf::from("/d/member/db"));
        let mut output = serde_json::to_vec(&Line::Reads(file.clone())).unwrap();
        output.extend_from_slice(b"\n{\"Fou");
        let found = report(&output, ExitStatus::from_raw(7), data_dir);
        assert!(!found.is_sound());
        assert_eq!(found.findings[0].file, file);
        assert!(found.findings[0].what.ends_with("signal 7"), "{:?}", found.findings);
        let whole = serde_json::to_vec(&Line::Found(Box::default())).unwrap();
        assert!(report(&whole, ExitStatus::from_raw(0), data_dir).is_sound());
        assert!(!report(&whole, ExitStatus::from_raw(6), data_dir).is_sound());
    }
}
