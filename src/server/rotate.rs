//! A log file that is set aside when it is full, with the names and rules of etcd's: those of
//! lumberjack v2.
//!
//! ```text
//!   etcd.log ── full ─► etcd-2026-11-22T18-20-11.890.log ── compress ─► ….log.gz ── old ─► removed
//! ```
//!
//! The file is renamed by the thread that logs. What is old is compressed and removed by a thread
//! of its own, at the start and after each rotation, so that nobody waits for it. If the file cannot
//! be set aside, it grows on: a log that is too long is better than one with a hole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use flate2::Compression;
use flate2::write::GzEncoder;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use crate::clock::{Clock as _, SystemClock};
use crate::supervise::Supervisor;
use crate::{files, gateway, limits};

const MEGABYTE: i64 = 1 << 20;
/// For `maxsize` 0.
const MAX_SIZE: i64 = 100;
const MILLISECOND: time::Duration = time::Duration::milliseconds(1);
const DAY_SECONDS: i64 = 86_400;
const COMPRESSED: &str = ".gz";

/// What `--log-rotation-config-json` says, in its own units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rotation {
    max_size: i64,
    max_age: i64,
    max_backups: i64,
    local_time: bool,
    compress: bool,
}

impl Rotation {
    /// Reads the flag's text. The errors are etcd's, with the words of Go's JSON reader.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: String| format!("improperly formatted log rotation config: {why}");
        let members = gateway::json_members(text).map_err(bad)?;
        let wrong = |found: &str, place: &str| {
            format!("invalid log rotation config: json: cannot unmarshal {found} into Go {place}")
        };
        let Some(members) = members else {
            let place = "value of type embed.logRotationConfig";
            return match kind(text.trim()) {
                "null" => Ok(Self::default()),
                found => Err(wrong(found, place)),
            };
        };
        let mut rotation = Self::default();
        // Go reads on after a value of the wrong type, and reports the first.
        for (name, value) in members {
            let name = name.to_ascii_lowercase();
            let wanted = match name.as_str() {
                "maxsize" | "maxage" | "maxbackups" => "int",
                "localtime" | "compress" => "bool",
                "filename" => "string",
                _ => continue,
            };
            let (found, number) = (kind(value), value.parse::<i64>());
            match (wanted, found, number) {
                (_, "null", _) | ("string", "string", _) => {}
                ("int", "number", Ok(number)) => *rotation.number(&name) = number,
                ("bool", "bool", _) => match name.as_str() {
                    "compress" => rotation.compress = value == "true",
                    _ => rotation.local_time = value == "true",
                },
                _ => {
                    let is_number = (wanted, found) == ("int", "number");
                    let found = if is_number { format!("number {value}") } else { found.into() };
                    let place =
                        format!("struct field logRotationConfig.Logger.{name} of type {wanted}");
                    return Err(wrong(&found, &place));
                }
            }
        }
        Ok(rotation)
    }

    fn number(&mut self, name: &str) -> &mut i64 {
        match name {
            "maxsize" => &mut self.max_size,
            "maxage" => &mut self.max_age,
            _ => &mut self.max_backups,
        }
    }

    fn bytes_max(&self) -> i64 {
        let megabytes = if self.max_size == 0 { MAX_SIZE } else { self.max_size };
        megabytes.saturating_mul(MEGABYTE)
    }

    fn removes_or_compresses(&self) -> bool {
        self.max_backups != 0 || self.max_age != 0 || self.compress
    }
}

/// What Go calls a JSON value whose text begins so.
fn kind(value: &str) -> &'static str {
    match value.as_bytes().first() {
        Some(b'"') => "string",
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b't' | b'f') => "bool",
        Some(b'n') => "null",
        _ => "number",
    }
}

/// An open log file that is rotated.
pub(super) struct Rotated {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    /// Bytes in the file.
    size: i64,
    /// Wakes the thread that looks after files that were set aside. None if that is not wanted.
    keeper: Option<SyncSender<()>>,
    clock: SystemClock,
}

impl AsFd for Rotated {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Rotated {
    /// Opens the file, or makes it with its directory.
    pub(super) fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let dir = files::parent(path);
        DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
        let mut options = OpenOptions::new();
        let file = files::open_with(options.append(true).create(true).mode(0o600), path)?;
        let size = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
        let keeper = rotation.removes_or_compresses().then(|| keep(path, &rotation)).transpose()?;
        let path = path.to_path_buf();
        Ok(Self { path, rotation, file, size, keeper, clock: SystemClock::new() })
    }

    /// Makes room for a line of so many bytes; false if no file may be as large as that.
    pub(super) fn make_room(&mut self, bytes: usize) -> bool {
        let (bytes, max) = (i64::try_from(bytes).unwrap_or(i64::MAX), self.rotation.bytes_max());
        if bytes > max {
            return false;
        }
        if self.size.saturating_add(bytes) > max && self.set_aside().is_ok() {
            self.size = 0;
            self.wake();
        }
        self.size = self.size.saturating_add(bytes);
        true
    }

    fn set_aside(&mut self) -> io::Result<()> {
        let aside = self.name_aside();
        let found = fs::metadata(&self.path).ok();
        if found.is_some() {
            fs::rename(&self.path, &aside)?;
        }
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(found.as_ref().map_or(0o600, MetadataExt::mode));
        let file = files::open_with(&options, &self.path).inspect_err(|_| {
            // The file goes on under its old name.
            let _ = fs::rename(&aside, &self.path);
        })?;
        if let Some(found) = found {
            // A file that belongs to somebody else stays theirs if that is allowed.
            let _ = fchown(&file, Some(found.uid()), Some(found.gid()));
        }
        self.file = file;
        Ok(())
    }

    /// A name that no file has: of files set aside in one millisecond, each has a name of its own.
    fn name_aside(&self) -> PathBuf {
        let nanos = i128::from(self.clock.unix_nanos());
        let now = OffsetDateTime::from_unix_timestamp_nanos(nanos);
        let mut now = now.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        if self.rotation.local_time
            && let Ok(offset) = UtcOffset::local_offset_at(now)
        {
            now = now.to_offset(offset);
        }
        let (prefix, extension) = parts(&self.path);
        loop {
            let name = format!("{prefix}{}{extension}", stamp(now));
            let compressed = self.path.with_file_name(format!("{name}{COMPRESSED}"));
            let path = self.path.with_file_name(name);
            if !path.exists() && !compressed.exists() {
                return path;
            }
            now += MILLISECOND;
        }
    }

    fn wake(&self) {
        if let Some(keeper) = &self.keeper {
            // A full queue means that the thread looks once more anyway.
            let _ = keeper.try_send(());
        }
    }
}

/// What the names of files set aside begin and end with.
fn parts(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let dot = name.rfind('.').unwrap_or(name.len());
    (format!("{}-", &name[..dot]), name[dot..].to_owned())
}

/// Go's `2006-01-02T15-04-05.000`.
fn stamp(time: OffsetDateTime) -> String {
    format!(
        "{:04}-{:02}-{:02}T{:02}-{:02}-{:02}.{:03}",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

/// Seconds and milliseconds of a stamp, taken for UTC as lumberjack does.
fn parse_stamp(text: &str) -> Option<(i64, u16)> {
    const SHAPE: &[u8] = b"0000-00-00T00-00-00.000";
    let fits = |(byte, shape): (u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        _ => byte == *shape,
    };
    if text.len() != SHAPE.len() || !text.bytes().zip(SHAPE).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u16>().ok();
    let small = |from, to| number(from, to).and_then(|number| u8::try_from(number).ok());
    let month = Month::try_from(small(5, 7)?).ok()?;
    let date = Date::from_calendar_date(number(0, 4)?.into(), month, small(8, 10)?).ok()?;
    let millis = number(20, 23)?;
    let time = Time::from_hms(small(11, 13)?, small(14, 16)?, small(17, 19)?).ok()?;
    Some((PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp(), millis))
}

/// Starts the thread that looks after files that were set aside; it looks once at the start.
fn keep(path: &Path, rotation: &Rotation) -> io::Result<SyncSender<()>> {
    let (wake, woken): (_, Receiver<()>) = sync_channel(limits::LOG_KEEPER_WAKES_MAX);
    let (path, rotation, clock) = (path.to_path_buf(), rotation.clone(), SystemClock::new());
    // A log's housekeeping is no part of the member, and the member goes on without it.
    Supervisor::default().thread("log-keeper", move || {
        let _ = rustix::process::setpriority_process(None, limits::LONG_WORK_NICENESS);
        loop {
            let now = i64::try_from(clock.unix_nanos() / 1_000_000_000).unwrap_or(i64::MAX);
            // Files that cannot be listed now are looked for after the next rotation.
            let _ = look_after(&path, &rotation, now);
            if woken.recv().is_err() {
                return;
            }
        }
    })?;
    Ok(wake)
}

/// Removes what is too old or too much, and compresses the rest if that is wanted.
fn look_after(path: &Path, rotation: &Rotation, now: i64) -> io::Result<()> {
    let (dir, (prefix, extension)) = (files::parent(path), parts(path));
    let mut aside = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            continue;
        }
        let plain = name.strip_suffix(COMPRESSED).unwrap_or(&name).to_owned();
        let time =
            |name: &str| parse_stamp(name.strip_prefix(&prefix)?.strip_suffix(extension.as_str())?);
        if let Some(time) = time(&plain).or_else(|| time(&name)) {
            aside.push((time, plain, name));
        }
    }
    aside.sort_by(|(one, ..), (other, ..)| other.cmp(one));
    let (mut kept, mut newest): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let oldest = now.saturating_sub(rotation.max_age.saturating_mul(DAY_SECONDS));
    for (time, plain, name) in aside {
        if !newest.contains(&plain) {
            newest.push(plain);
        }
        let count = i64::try_from(newest.len()).unwrap_or(i64::MAX);
        let is_too_much = rotation.max_backups > 0 && count > rotation.max_backups;
        let is_too_old = rotation.max_age > 0 && time.0 < oldest;
        if is_too_much || is_too_old {
            let _ = fs::remove_file(dir.join(&name));
        } else {
            kept.push(name);
        }
    }
    for name in kept.iter().filter(|name| rotation.compress && !name.ends_with(COMPRESSED)) {
        let (from, to) = (dir.join(name), dir.join(format!("{name}{COMPRESSED}")));
        if compress(&from, &to).is_err() {
            let _ = fs::remove_file(&to);
        }
    }
    Ok(())
}

fn compress(from: &Path, to: &Path) -> io::Result<()> {
    let mut file = files::open(from)?;
    let found = file.metadata()?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(found.mode());
    let target = files::open_with(&options, to)?;
    let _ = fchown(&target, Some(found.uid()), Some(found.gid()));
    let mut encoder = GzEncoder::new(target, Compression::default());
    io::copy(&mut file, &mut encoder)?;
    encoder.finish()?;
    fs::remove_file(from)
}

/// etcd's rule for what can be rotated: exactly one of the outputs may be a file.
pub(super) fn check_outputs(outputs: &[String]) -> Result<(), String> {
    let is_file = |output: &&String| !["default", "stderr", "stdout"].contains(&output.as_str());
    let count = outputs.iter().filter(is_file).count();
    if count > 1 || (outputs.len() == 1 && count == 0) {
        return Err("--log-outputs requires a single file path when --log-rotate-config-json is \
                    defined"
            .to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn refused(text: &str) -> String {
        Rotation::parse(text).unwrap_err()
    }

    #[test]
    fn a_configuration_is_read_as_etcd_reads_it() {
        let all = r#"{"MaxSize": 7, "maxage": 2, "maxbackups":3,"localtime":true,"compress":true, "x": 1}"#;
        let read =
            Rotation { max_size: 7, max_age: 2, max_backups: 3, local_time: true, compress: true };
        assert_eq!(Rotation::parse(all), Ok(read));
        for text in ["{}", "null", r#"{"maxsize": null, "filename": "x"}"#] {
            assert_eq!(Rotation::parse(text), Ok(Rotation::default()), "{text}");
        }
        for (text, why) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("tru", "invalid character ' ' in literal true (expecting 'e')"),
            (r#"{"maxsize": 1} x"#, "invalid character 'x' after top-level value"),
            ("{maxsize: 1}", "invalid character 'm' looking for beginning of object key string"),
            (
                r#"{"maxsize": 1,}"#,
                "invalid character '}' looking for beginning of object key string",
            ),
            (r#"{"maxsize": 01}"#, "invalid character '1' after object key:value pair"),
        ] {
            let why = format!("improperly formatted log rotation config: {why}");
            assert_eq!(refused(text), why, "{text}");
        }
        let field = |field: &str| format!("struct field logRotationConfig.Logger.{field}");
        for (text, found, place) in [
            ("[]", "array", "value of type embed.logRotationConfig".to_owned()),
            ("1", "number", "value of type embed.logRotationConfig".to_owned()),
            (r#"{"maxsize": "1"}"#, "string", field("maxsize of type int")),
            (r#"{"maxsize": 1.5}"#, "number 1.5", field("maxsize of type int")),
            (r#"{"maxsize": 1e2}"#, "number 1e2", field("maxsize of type int")),
            (r#"{"maxsize": {}}"#, "object", field("maxsize of type int")),
            (r#"{"localtime": 1}"#, "number", field("localtime of type bool")),
            (r#"{"filename": 3}"#, "number", field("filename of type string")),
            (r#"{"maxage": "x", "maxsize": "y"}"#, "string", field("maxage of type int")),
        ] {
            let why = format!(
                "invalid log rotation config: json: cannot unmarshal {found} into Go {place}"
            );
            assert_eq!(refused(text), why, "{text}");
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_set_aside_and_keeps_its_mode() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("logs/etcd.1.log");
        let rotation = Rotation { max_size: 1, ..Rotation::default() };
        let mut rotated = Rotated::open(&path, rotation).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        assert!(!rotated.make_room(MEGABYTE as usize + 1), "no file takes this");
        let line = vec![b'x'; MEGABYTE as usize / 2];
        for _ in 0..3 {
            assert!(rotated.make_room(line.len()));
            rotated.file.write_all(&line).unwrap();
        }
        let found = names(root.path().join("logs").as_path());
        assert_eq!(found.len(), 2, "{found:?}");
        let time = found.iter().find_map(|name| name.strip_prefix("etcd.1-"));
        assert!(parse_stamp(time.unwrap().strip_suffix(".log").unwrap()).is_some(), "{found:?}");
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.mode() & 0o777), (line.len() as u64, 0o640));
        // The next start goes on with the file, and sets it aside when it is full; nothing is lost
        // if all that happens within a millisecond.
        drop(rotated);
        let mut rotated = Rotated::open(&path, Rotation { max_size: 1, ..Default::default() });
        assert!(rotated.as_mut().unwrap().make_room(line.len() + 1));
        assert_eq!(names(root.path().join("logs").as_path()).len(), 3);
        let mut rotated = rotated.unwrap();
        for _ in 0..50 {
            assert!(rotated.make_room(MEGABYTE as usize));
        }
        assert_eq!(names(root.path().join("logs").as_path()).len(), 53);
    }

    #[test]
    fn old_files_go_and_the_rest_is_compressed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.log");
        let aside = |day: u8| format!("a-2026-11-{day:02}T00-00-00.000.log");
        let text = "a line of a log\n".repeat(10_000);
        let others = ["a.log", "a-x.log", "a-2026-13-01T00-00-00.000.log", "b.log"];
        for name in (1..=9).map(aside).chain(others.map(str::to_owned)) {
            fs::write(root.path().join(name), &text).unwrap();
        }
        // The uncompressed and the compressed form count as one.
        fs::write(root.path().join(format!("{}.gz", aside(9))), "left by a crash").unwrap();
        let (now, _) = parse_stamp("2026-11-10T00-00-00.000").unwrap();
        let mut rotation = Rotation { max_age: 6, ..Rotation::default() };
        look_after(&path, &rotation, now).unwrap();
        let found = names(root.path());
        assert!(!found.contains(&aside(3)) && found.contains(&aside(4)), "{found:?}");
        rotation.max_backups = 2;
        rotation.compress = true;
        look_after(&path, &rotation, now).unwrap();
        let mut expected: Vec<String> = others.map(str::to_owned).to_vec();
        expected.extend([8, 9].map(|day| format!("{}.gz", aside(day))));
        expected.sort();
        assert_eq!(names(root.path()), expected);
        for day in [8, 9] {
            let file = File::open(root.path().join(format!("{}.gz", aside(day)))).unwrap();
            assert!(file.metadata().unwrap().len() < text.len() as u64 / 10);
            let mut read = String::new();
            flate2::read::GzDecoder::new(file).read_to_string(&mut read).unwrap();
            assert_eq!(read, text);
        }
    }
}
