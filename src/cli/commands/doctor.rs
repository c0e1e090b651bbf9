//! `doctor`: finds what is wrong with a cluster, or with a directory, and says what to run.
//!
//! ```text
//!   flags ─► gather (all members at once) ─┐
//!   --data-dir ─► directory ───────────────┴─► Facts ─► CHECKS ─► Findings ─► text, JSON, bundle
//! ```
//!
//! Gathering asks and judges nothing; checks judge and ask nothing. So each check is tested with
//! facts that a test has made up, and an answer that does not come is a fact like any other.

mod bundle;
mod checks;
mod directory;
mod facts;
mod finding;
mod gather;
mod http;
mod report;
mod scrape;

use std::path::PathBuf;

use facts::Facts;
use finding::Severity;
use gather::Asker;
use report::Report;

use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::explain::NO_SERVER;
use crate::cli::format::Format;
use crate::cli::record::{Records, Value};
use crate::cli::shell::quoted;
use crate::clock::Clock as _;

pub(super) async fn run(mut context: Context) -> Outcome {
    if !context.args.is_empty() {
        let text =
            "doctor takes no arguments; members go with --endpoints, a directory with --data-dir";
        return Err(Failure::new(Exit::Usage, text));
    }
    let mut config = context.config().await?;
    let format = context.display.format;
    if !matches!(format, Format::Simple | Format::Json) && !format.is_records() {
        let text = "doctor prints as simple, json, yaml or jsonl only";
        return Err(Failure::new(Exit::BadFeature, text));
    }
    let path = |name| context.flags.path(name).map(PathBuf::from);
    let data_dir = path("data-dir").filter(|path| !path.as_os_str().is_empty());
    let mut facts = Facts {
        now: i64::try_from(context.clock.unix_nanos() / 1_000_000_000).unwrap_or(i64::MAX),
        flags: flags(&context, &["endpoints", "discovery-srv", "cacert", "cert", "key"]),
        access: flags(&context, &["cacert", "cert", "key"]),
        ..Facts::default()
    };
    if data_dir.is_none() || context.flags.changed("endpoints") {
        config.endpoints.retain(|endpoint| !endpoint.trim().is_empty());
        if config.endpoints.is_empty() {
            // Nothing that was not asked is healthy.
            return Err(Failure::new(Exit::Usage, NO_SERVER));
        }
        Asker { config, clock: context.clock.clone() }.ask(&mut facts).await;
    }
    if let Some(data_dir) = data_dir {
        let wal_dir = path("wal-dir");
        directory::look(&data_dir, wal_dir.as_deref(), &context.printer, &mut facts)?;
    }
    let report = Report::new(&facts);
    match format {
        Format::Json => context.printer.line(report.json(false).to_string()),
        Format::Simple => context.printer.page(&report.page(context.printer.width())),
        _ => context.display.records(&Records::One(Value::from(&report.json(false)))),
    }
    if let Some(path) = path("bundle").filter(|path| !path.as_os_str().is_empty()) {
        let failed = |error| Failure::error(format!("cannot write {}: {error}", path.display()));
        bundle::write(&path, &report).map_err(failed)?;
        context.printer.err(format!("Wrote {}\n", path.display()));
    }
    match report.worst() {
        None | Some(Severity::Note) => Ok(()),
        Some(Severity::Warning) => Err(Failure::silent(Exit::Error)),
        Some(Severity::Error) => Err(Failure::silent(Exit::BadConnection)),
    }
}

/// Those of the flags that were given. Users, passwords and tokens are not among them.
fn flags(context: &Context, names: &[&str]) -> String {
    let given = names.iter().filter(|name| context.flags.changed(name));
    let text = |name: &&str| {
        let value = match *name {
            "endpoints" => context.flags.strings(name).join(","),
            name => match context.flags.path(name) {
                Some(path) => path.display().to_string(),
                None => context.flags.string(name).to_owned(),
            },
        };
        format!(" --{name} {}", quoted(&value))
    };
    given.map(text).collect()
}
