//! `user`: users, their passwords and roles.

use std::io::{self, BufRead as _};

use crate::cli::argv::{Word, text_of};
use crate::cli::confirm;
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::spec::Program;
use crate::client::rpc;
use crate::pb::authpb::UserAddOptions;
use crate::pb::{
    AuthRoleGetRequest, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest,
    AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
};

pub(super) async fn run(context: Context, action: &str) -> Outcome {
    match action {
        "add" => add(context).await,
        "delete" => delete(context).await,
        "get" => get(context).await,
        "list" => list(context).await,
        "passwd" => change_password(context).await,
        "grant-role" => grant(context).await,
        _ => revoke(context).await,
    }
}

/// Auth may be enabled without such a certificate, as in etcd, and then nobody may change anything.
const ROOT_BY_CERTIFICATE: &str = "Note: without a password, root logs in by a client certificate \
                                   for the name root alone, with a server that has \
                                   --client-cert-auth. See that this works before 'rusd auth \
                                   enable', or give root a password: rusd user passwd root\n";

fn name(context: &Context, action: &str) -> Result<Word, Failure> {
    if context.args.len() != 1 {
        let text = format!("user {action} command requires user name as its argument");
        return Err(Failure::arguments(text));
    }
    Ok(context.arg(0).to_vec())
}

async fn add(mut context: Context) -> Outcome {
    let given = name(&context, "add")?;
    let no_password = context.flags.bool("no-password");
    let flag = context.flags.bytes("new-user-password").to_vec();
    let (name, password) = match given.iter().position(|byte| *byte == b':') {
        _ if no_password => (given, Word::new()),
        _ if !flag.is_empty() => (given, flag),
        Some(0) => return Err(Failure::arguments("empty user name is not allowed")),
        Some(at) => (given[..at].to_vec(), given[at + 1..].to_vec()),
        None => {
            let password = password(&context, &given)?;
            (given, password)
        }
    };
    let (name, password) = (text_of(&name)?, text_of(&password)?);
    let client = context.client().await?;
    let request = AuthUserAddRequest {
        name: name.clone(),
        password,
        options: Some(UserAddOptions { no_password }),
        hashed_password: String::new(),
    };
    let response = client.call(&rpc::USER_ADD, request, context.late_deadline()).await?;
    if no_password && name == "root" && context.program == Program::Rusd {
        context.printer.err(ROOT_BY_CERTIFICATE);
    }
    context.display.done(format!("User {name} created"), &response, &response.header)
}

async fn delete(mut context: Context) -> Outcome {
    let name = text_of(&name(&context, "delete")?)?;
    let client = context.client().await?;
    confirm::confirm(&context, format!("This deletes the user {name} for good."))?;
    let request = AuthUserDeleteRequest { name: name.clone() };
    let response = client.call(&rpc::USER_DELETE, request, context.late_deadline()).await?;
    context.display.done(format!("User {name} deleted"), &response, &response.header)
}

async fn get(mut context: Context) -> Outcome {
    let name = text_of(&name(&context, "get")?)?;
    let client = context.client().await?;
    let request = AuthUserGetRequest { name: name.clone() };
    let response = client.call(&rpc::USER_GET, request, context.late_deadline()).await?;
    if !context.flags.bool("detail") {
        return context.display.user_get(&name, &response);
    }
    context.printer.line(format!("User: {name}"));
    for role in response.roles {
        context.printer.line("");
        let request = AuthRoleGetRequest { role: role.clone() };
        let response = client.call(&rpc::ROLE_GET, request, context.late_deadline()).await?;
        context.display.role_get(&role, &response)?;
    }
    Ok(())
}

async fn list(mut context: Context) -> Outcome {
    if !context.args.is_empty() {
        return Err(Failure::arguments("user list command requires no arguments"));
    }
    let client = context.client().await?;
    let response =
        client.call(&rpc::USER_LIST, AuthUserListRequest {}, context.late_deadline()).await?;
    context.display.user_list(&response)
}

async fn change_password(mut context: Context) -> Outcome {
    let name = name(&context, "passwd")?;
    let password = password(&context, &name)?;
    let (name, password) = (text_of(&name)?, text_of(&password)?);
    let client = context.client().await?;
    let request = AuthUserChangePasswordRequest { name, password, hashed_password: String::new() };
    let response =
        client.call(&rpc::USER_CHANGE_PASSWORD, request, context.late_deadline()).await?;
    context.display.done("Password updated", &response, &response.header)
}

async fn grant(mut context: Context) -> Outcome {
    if context.args.len() != 2 {
        return Err(Failure::arguments(
            "user grant command requires user name and role name as its argument",
        ));
    }
    let (user, role) = (context.text(0)?, context.text(1)?);
    let client = context.client().await?;
    let request = AuthUserGrantRoleRequest { user: user.clone(), role: role.clone() };
    let response = client.call(&rpc::USER_GRANT_ROLE, request, context.late_deadline()).await?;
    let sentence = format!("Role {role} is granted to user {user}");
    context.display.done(sentence, &response, &response.header)
}

async fn revoke(mut context: Context) -> Outcome {
    if context.args.len() != 2 {
        return Err(Failure::arguments(
            "user revoke-role requires user name and role name as its argument",
        ));
    }
    let (name, role) = (context.text(0)?, context.text(1)?);
    let client = context.client().await?;
    let request = AuthUserRevokeRoleRequest { name: name.clone(), role: role.clone() };
    let response = client.call(&rpc::USER_REVOKE_ROLE, request, context.late_deadline()).await?;
    let sentence = format!("Role {role} is revoked from user {name}");
    context.display.done(sentence, &response, &response.header)
}

/// A password from two prompts, or without --interactive the first word of standard input, empty if
/// there is none.
fn password(context: &Context, user: &[u8]) -> Result<Word, Failure> {
    if !context.flags.bool("interactive") {
        let mut line = Word::new();
        io::stdin().lock().read_until(b'\n', &mut line).map_err(Failure::error)?;
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        return match words.next() {
            None if context.program == Program::Rusd => Err(Failure::arguments(
                "empty password: standard input has none, and nobody could log in with it",
            )),
            word => Ok(word.unwrap_or_default().to_vec()),
        };
    }
    let ask = |prompt: Word| {
        context
            .ask(&prompt)
            .map_err(|error| Failure::arguments(format!("failed to ask password: {error}")))
    };
    let first = ask([b"Password of ", user, b": "].concat())?;
    if first.is_empty() {
        return Err(Failure::arguments("empty password"));
    }
    let again = [b"Type password of ", user, b" again for confirmation: "].concat();
    if ask(again)? != first {
        return Err(Failure::arguments("given passwords are different"));
    }
    Ok(first)
}
