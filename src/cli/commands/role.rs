//! `role`: roles and their permissions.

use bytes::Bytes;

use super::get::range;
use crate::cli::argv::Word;
use crate::cli::confirm;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::format::range_text;
use crate::cli::spec::Program;
use crate::client::rpc;
use crate::pb::authpb::Permission;
use crate::pb::authpb::permission::Type;
use crate::pb::{
    AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest, AuthRoleGrantPermissionRequest,
    AuthRoleListRequest, AuthRoleRevokePermissionRequest,
};

pub(super) async fn run(context: Context, action: &str) -> Outcome {
    match action {
        "add" => add(context).await,
        "delete" => delete(context).await,
        "get" => get(context).await,
        "list" => list(context).await,
        "grant-permission" => grant(context).await,
        _ => revoke(context).await,
    }
}

fn name(context: &Context, action: &str) -> Result<String, Failure> {
    if context.args.len() != 1 {
        let text = format!("role {action} command requires role name as its argument");
        return Err(Failure::arguments(text));
    }
    context.text(0)
}

async fn add(mut context: Context) -> Outcome {
    let name = name(&context, "add")?;
    let client = context.client().await?;
    let request = AuthRoleAddRequest { name: name.clone() };
    let response = client.call(&rpc::ROLE_ADD, request, context.late_deadline()).await?;
    context.display.done(format!("Role {name} created"), &response, &response.header)
}

async fn delete(mut context: Context) -> Outcome {
    let role = name(&context, "delete")?;
    let client = context.client().await?;
    let what = "and takes it from every user that has it";
    confirm::confirm(&context, format!("This deletes the role {role} for good, {what}."))?;
    let request = AuthRoleDeleteRequest { role: role.clone() };
    let response = client.call(&rpc::ROLE_DELETE, request, context.late_deadline()).await?;
    context.display.done(format!("Role {role} deleted"), &response, &response.header)
}

async fn get(mut context: Context) -> Outcome {
    let role = name(&context, "get")?;
    let client = context.client().await?;
    let request = AuthRoleGetRequest { role: role.clone() };
    let response = client.call(&rpc::ROLE_GET, request, context.late_deadline()).await?;
    context.display.role_get(&role, &response)
}

async fn list(mut context: Context) -> Outcome {
    if !context.args.is_empty() {
        return Err(Failure::arguments("role list command requires no arguments"));
    }
    let client = context.client().await?;
    let response =
        client.call(&rpc::ROLE_LIST, AuthRoleListRequest {}, context.late_deadline()).await?;
    context.display.role_list(&response)
}

async fn grant(mut context: Context) -> Outcome {
    if context.args.len() < 3 {
        return Err(Failure::arguments(
            "role grant command requires role name, permission type, and key [endkey] as its \
             argument",
        ));
    }
    let kind = context.arg(1);
    let perm_type = match kind.to_ascii_uppercase().as_slice() {
        b"READ" => Type::Read,
        b"WRITE" => Type::Write,
        b"READWRITE" => Type::Readwrite,
        _ => {
            let hint: &[u8] = match context.program {
                Program::Rusd => b"; it is read, write or readwrite",
                _ => b"",
            };
            let text = [b"invalid permission type: ", kind, hint].concat();
            return Err(Failure::bytes(Exit::BadArguments, text));
        }
    };
    let role = context.text(0)?;
    let (key, range_end) = permission_range(&context, &context.args[2..])?;
    let perm = Permission { perm_type: perm_type.into(), key, range_end };
    let client = context.client().await?;
    let request = AuthRoleGrantPermissionRequest { name: role.clone(), perm: Some(perm) };
    let response =
        client.call(&rpc::ROLE_GRANT_PERMISSION, request, context.late_deadline()).await?;
    context.display.done(format!("Role {role} updated"), &response, &response.header)
}

async fn revoke(mut context: Context) -> Outcome {
    if context.args.len() < 2 {
        return Err(Failure::arguments(
            "role revoke-permission command requires role name and key [endkey] as its argument",
        ));
    }
    let role = context.text(0)?;
    let (key, range_end) = permission_range(&context, &context.args[1..])?;
    let client = context.client().await?;
    let request =
        AuthRoleRevokePermissionRequest { role: role.clone(), key, range_end: range_end.clone() };
    let response =
        client.call(&rpc::ROLE_REVOKE_PERMISSION, request, context.late_deadline()).await?;
    let subject: &[u8] = if range_end.is_empty() { b"key " } else { b"range " };
    let range = range_text(&context.args[1], &range_end, false);
    let tail = format!(" is revoked from role {role}");
    let sentence = [b"Permission of ", subject, &range, tail.as_bytes()].concat();
    context.display.done(sentence, &response, &response.header)
}

/// Key and range end of a permission. An empty key becomes one zero byte; with --prefix or
/// --from-key that means every key.
fn permission_range(context: &Context, args: &[Word]) -> Result<(Bytes, Bytes), Failure> {
    let (prefix, from_key) = (context.flags.bool("prefix"), context.flags.bool("from-key"));
    if prefix && from_key {
        return Err(Failure::arguments("--from-key and --prefix flags are mutually exclusive"));
    }
    let (key, rest) = (&args[0], &args[1..]);
    if key.is_empty() {
        let end: &'static [u8] = if prefix || from_key { b"\0" } else { b"" };
        return Ok((Bytes::from_static(b"\0"), Bytes::from_static(end)));
    }
    if !rest.is_empty() && (prefix || from_key) {
        let flag = if prefix { "prefix" } else { "from-key" };
        let text = format!("unexpected endkey argument with --{flag} flag");
        return Err(Failure::arguments(text));
    }
    let (key, range_end) = range(key, rest, prefix, from_key)?;
    Ok((key.into(), range_end.into()))
}
