//! `move-leader`: hands leadership to a member; the leader must be among the endpoints.

use super::endpoint::single;
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::spec::Program;
use crate::client::rpc;
use crate::go;
use crate::pb::{MoveLeaderRequest, StatusRequest};

pub(super) async fn run(mut context: Context) -> Outcome {
    if context.args.len() != 1 {
        return Err(Failure::arguments("move-leader command needs 1 argument"));
    }
    let target_id = go::parse_uint(context.arg(0), 16).map_err(|reason| {
        Failure::arguments(match context.program {
            Program::Rusd => format!("bad member ID arg ({reason}), expecting ID in Hex"),
            _ => reason.to_string(),
        })
    })?;
    let config = context.config().await?;
    let endpoints = context.connect(config.clone()).await?.endpoints().to_vec();
    let deadline = context.deadline();
    for endpoint in &endpoints {
        let client = context.connect(single(&config, endpoint)).await?;
        let status = client.call(&rpc::STATUS, StatusRequest {}, deadline).await?;
        let member = status.header.unwrap_or_default().member_id;
        if member == status.leader {
            let request = MoveLeaderRequest { target_id };
            let response = client.call(&rpc::MOVE_LEADER, request, deadline).await?;
            return context.display.move_leader(member, target_id, &response);
        }
    }
    let text = format!("no leader endpoint given at [{}]", endpoints.join(" "));
    Err(Failure::arguments(text))
}
