//! Starts that end without serving: help, version, and refused flags, as etcd ends them.

use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;

use super::config::{Form, Level, Log, Notice, StartedAs, Stop};
use super::refusal::Refusal;
use super::version::{GIT_SHA, GO_VERSION, VERSION};
use super::{flags, log, startup_log};

/// Prints help or the version. A reader that has closed the pipe has seen enough, so that is
/// success; any other error is a failure.
pub(super) fn told(text: &str) -> ExitCode {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            drop(writeln!(std::io::stderr(), "write /dev/stdout: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Prints or logs why the start ends, as etcd does, and returns the exit code.
pub(super) fn stop_early(
    started_as: StartedAs,
    stop: &Stop,
    words: &[String],
    notices: &[Notice],
) -> ExitCode {
    let mut err = std::io::stderr();
    match stop {
        Stop::Help => {
            drop(err.write_all(USAGE.as_bytes()));
            return told(&help());
        }
        Stop::Version => return told(&version()),
        Stop::Usage(text) => drop(write!(err, "{text}\n{USAGE}")),
        Stop::Invalid(error) => {
            default_log(started_as);
            notices.iter().for_each(startup_log::notice);
            tracing::info!(args = ?words, "Running: ");
            if started_as == StartedAs::Rusd {
                let Refusal { subject, hint, .. } = Refusal::of_settings(error);
                tracing::error!(target: log::FATAL, error, hint, "{subject}");
                return ExitCode::from(stop.outcome().0);
            }
            tracing::warn!(error, "failed to verify flags");
            if error.starts_with("--advertise-client-urls is required") {
                tracing::warn!(error, "advertise client URLs are not set");
            }
        }
        Stop::Conflict(variable) => {
            default_log(started_as);
            notices.iter().for_each(startup_log::notice);
            tracing::error!(
                target: log::FATAL,
                { "environment-variable" = variable },
                "conflicting environment variable is shadowed by corresponding command-line flag \
                 (either unset environment variable or disable flag))"
            );
        }
    }
    ExitCode::from(stop.outcome().0)
}

/// Tells what is wrong with the command line of `rusd serve`, and returns the exit code.
pub(super) fn mistaken(mistake: &str) -> ExitCode {
    let hint = "'rusd serve --help' lists the flags";
    let stop = if mistake.ends_with('?') { "" } else { "." };
    drop(writeln!(std::io::stderr(), "Error: {mistake}{stop} {hint}"));
    ExitCode::from(2)
}

/// The log of a server whose settings are not known: for people if one started it at a terminal.
fn default_log(started_as: StartedAs) {
    let mut settings = Log::json(Level::Info, vec!["default".into()]);
    if started_as == StartedAs::Rusd && std::io::stderr().is_terminal() {
        settings.form = Form::Human;
    }
    if let Ok(logger) = log::Logger::new(&settings) {
        logger.install();
    }
}

const USAGE: &str = "Usage:\n\n  etcd [flags]\n    Start the server.\n\n  etcd gateway start \
                     [flags]\n    Pass TCP connections on to a cluster.\n\n  etcd --version\n    \
                     Show the version.\n\n  etcd -h | --help\n    Show the flags.\n";

fn help() -> String {
    let mut text = String::from("Flags (a value may follow = or a space):\n\n");
    for flag in flags::FLAGS.iter().filter(|flag| !flag.help.is_empty()) {
        let note = match flag.support {
            flags::Support::Honoured => "",
            flags::Support::Ignored => " (accepted without effect)",
            flags::Support::Default => " (only the default is supported yet)",
        };
        text.push_str(&format!("  --{} '{}'\n    {}{note}\n", flag.name, flag.default, flag.help));
    }
    text
}

fn version() -> String {
    let (system, arch) = (std::env::consts::OS, startup_log::arch());
    format!(
        "etcd Version: {VERSION}\nGit SHA: {GIT_SHA}\nGo Version: {GO_VERSION}\nGo OS/Arch: {system}/{arch}\n"
    )
}
