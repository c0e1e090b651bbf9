//! `downgrade`: validate, enable and cancel.

use crate::cli::confirm;
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::client::rpc;
use crate::pb::downgrade_request::DowngradeAction;
use crate::pb::{DowngradeRequest, StatusRequest};

pub(super) async fn run(mut context: Context, action: &str) -> Outcome {
    let (kind, version) = match action {
        "cancel" => (DowngradeAction::Cancel, String::new()),
        _ => {
            let kind = match action {
                "enable" => DowngradeAction::Enable,
                _ => DowngradeAction::Validate,
            };
            match context.args.len() {
                0 => return Err(Failure::arguments("TARGET_VERSION not provided")),
                1 => {}
                _ => return Err(Failure::arguments("too many arguments")),
            }
            if context.arg(0).is_empty() {
                return Err(Failure::arguments("target version not provided"));
            }
            (kind, context.text(0)?)
        }
    };
    let deadline = context.deadline();
    let client = context.client().await?;
    if kind == DowngradeAction::Enable && confirm::asks(&context) {
        let status = client.call(&rpc::STATUS, StatusRequest {}, deadline).await?;
        confirm::confirm(
            &context,
            format!(
                "This prepares all members, whose version is {}, for {version}: afterwards each is \
                 to be replaced by a program of that version. `downgrade cancel` takes it back until \
                 then.",
                status.version
            ),
        )?;
    }
    let deadline = context.deadline();
    let request = DowngradeRequest { action: kind.into(), version };
    let response = client.call(&rpc::DOWNGRADE, request, deadline).await?;
    context.display.downgrade(action, &response)
}
