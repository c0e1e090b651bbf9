//! `version`: needs no flag and no environment.

use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::{API_VERSION, ETCD_VERSION, Program};

pub(super) fn run(context: &Context) -> Outcome {
    let name = context.program.name();
    if context.program == Program::Rusd {
        context.printer.line(concat!("rusd version: ", env!("CARGO_PKG_VERSION")));
        context.printer.line(format!("etcd version: {ETCD_VERSION}"));
    } else {
        context.printer.line(format!("{name} version: {ETCD_VERSION}"));
    }
    context.printer.line(format!("API version: {API_VERSION}"));
    Ok(())
}
