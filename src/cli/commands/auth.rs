//! `auth`: enable, disable, status.

use crate::cli::confirm;
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::client::{Client, Deadline, Error, rpc};
use crate::pb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthStatusRequest,
    AuthUserGrantRoleRequest,
};

pub(super) async fn run(mut context: Context, action: &str) -> Outcome {
    if !context.args.is_empty() {
        let text = format!("auth {action} command does not accept any arguments");
        return Err(Failure::arguments(text));
    }
    let deadline = context.deadline();
    let client = context.client().await?;
    match action {
        "enable" => {
            enable(&client, deadline).await?;
            context.printer.line("Authentication Enabled");
        }
        "disable" => {
            confirm::confirm(&context, DISABLES)?;
            let deadline = context.deadline();
            client.call(&rpc::AUTH_DISABLE, AuthDisableRequest {}, deadline).await?;
            context.printer.line("Authentication Disabled");
        }
        _ => {
            let response = client.call(&rpc::AUTH_STATUS, AuthStatusRequest {}, deadline).await?;
            context.display.auth_status(&response)?;
        }
    }
    Ok(())
}

const DISABLES: &str = "This switches authentication off for the whole cluster: whoever reaches a \
                        client port may then read and change every key. Users and roles stay.";

/// Enables auth. If only root's role is missing, root gets it first, as in etcdctl.
async fn enable(client: &Client, deadline: Deadline) -> Result<(), Error> {
    let name = || "root".to_string();
    loop {
        match client.call(&rpc::AUTH_ENABLE, AuthEnableRequest {}, deadline).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is("etcdserver: root user does not have root role") => {}
            Err(error) => return Err(error),
        }
        client.call(&rpc::ROLE_ADD, AuthRoleAddRequest { name: name() }, deadline).await?;
        let grant = AuthUserGrantRoleRequest { user: name(), role: name() };
        client.call(&rpc::USER_GRANT_ROLE, grant, deadline).await?;
    }
}
