//! `alarm`: list and disarm.

use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::client::rpc;
use crate::pb::alarm_request::AlarmAction;
use crate::pb::{AlarmRequest, AlarmResponse};

/// The request for all alarms of all members.
pub(super) fn list_request() -> AlarmRequest {
    AlarmRequest { action: AlarmAction::Get.into(), member_id: 0, alarm: 0 }
}

pub(super) async fn list(mut context: Context) -> Outcome {
    if !context.args.is_empty() {
        return Err(Failure::arguments("alarm list command accepts no arguments"));
    }
    let deadline = context.deadline();
    let client = context.client().await?;
    let response = client.call(&rpc::ALARM_LIST, list_request(), deadline).await?;
    context.display.alarm(&response)
}

pub(super) async fn disarm(mut context: Context) -> Outcome {
    if !context.args.is_empty() {
        return Err(Failure::arguments("alarm disarm command accepts no arguments"));
    }
    let deadline = context.deadline();
    let client = context.client().await?;
    let active = client.call(&rpc::ALARM_LIST, list_request(), deadline).await?;
    let mut disarmed = AlarmResponse::default();
    for alarm in active.alarms {
        let action = AlarmAction::Deactivate.into();
        let request = AlarmRequest { action, member_id: alarm.member_id, alarm: alarm.alarm };
        let response = client.call(&rpc::ALARM, request, deadline).await?;
        disarmed.alarms.extend(response.alarms);
    }
    context.display.alarm(&disarmed)
}
