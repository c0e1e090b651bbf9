//! The one or two servers, or clusters, that a command measures.

use std::future::Future;

use super::keyspace::{History, clear, refuse_used};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::format::Format;
use crate::client::Config;

pub(super) struct Servers {
    /// That of `--endpoints`, and that of `--compare` if it is given.
    pub all: Vec<Config>,
    /// What becomes of the history that the benchmark leaves.
    pub history: History,
}

impl Servers {
    /// Reads the flags, and refuses servers that hold keys of others.
    pub(super) async fn of(context: &mut Context) -> Result<Self, Failure> {
        let first = context.config().await?;
        if !matches!(context.display.format, Format::Simple | Format::Json)
            && !context.display.format.is_records()
        {
            let text = "bench prints as simple, json, yaml or jsonl only";
            return Err(Failure::new(Exit::BadFeature, text));
        }
        let mut all = vec![first];
        let other = context.flags.string("compare");
        if !other.is_empty() {
            let endpoints = other.split(',').map(|endpoint| endpoint.trim().to_owned()).collect();
            all.push(Config { endpoints, ..all[0].clone() });
        }
        for config in &all {
            let client = context.connect(config.clone()).await?;
            refuse_used(context, &client).await?;
        }
        let history = match context.flags.bool("force") {
            true => History::Keep,
            false => History::Compact,
        };
        Ok(Self { all, history })
    }

    /// Which server is measured first in a round: each in turn, so that load from elsewhere affects both
    /// alike.
    pub(super) fn order(&self, turn: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        if turn % 2 == 1 {
            order.reverse();
        }
        order
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.all.iter().map(|config| config.endpoints.join(",")).collect()
    }

    /// Does the work and deletes its keys, also if it fails.
    pub(super) async fn cleaned_after<T>(
        &self,
        context: &Context,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let done = work.await;
        for config in &self.all {
            let cleaned = self.clean(context, config).await;
            if done.is_ok() {
                cleaned?;
            }
        }
        done
    }

    /// Deletes the benchmark's keys.
    pub(super) async fn clean(&self, context: &Context, config: &Config) -> Outcome {
        if context.flags.bool("keep") {
            return Ok(());
        }
        let client = context.connect(config.clone()).await?;
        clear(&client, self.history, context.flags.duration("command-timeout")).await
    }
}
