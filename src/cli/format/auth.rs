//! Answers about users, roles and their permissions.

use prost::Message;

use super::{Display, Forms, Outcome, Text};
use crate::cli::json;
use crate::cli::record::{Fields, Records, Value};
use crate::go;
use crate::pb::authpb::Permission;
use crate::pb::authpb::permission::Type;
use crate::pb::{
    AuthRoleGetResponse, AuthRoleListResponse, AuthStatusResponse, AuthUserGetResponse,
    AuthUserListResponse, ResponseHeader,
};

impl Display {
    pub(in crate::cli) fn role_list(&self, response: &AuthRoleListResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| lines_of(&response.roles)),
            fields: Some(&|| {
                self.with_header(&response.header, |text| {
                    let roles: String = response
                        .roles
                        .iter()
                        .map(|role| format!(" {}", go::quote(role.as_bytes())))
                        .collect();
                    text.line(format!("\"Roles\" :{roles}"));
                })
            }),
            json: Some(&|| names_json(&response.header, "roles", &response.roles)),
            protobuf: Some(&|| response.encode_to_vec()),
            records: Some(&|| names_records(&response.roles)),
            ..Forms::default()
        })
    }

    pub(in crate::cli) fn role_get(&self, role: &str, response: &AuthRoleGetResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| role_simple(role, response)),
            fields: Some(&|| {
                self.with_header(&response.header, |text| {
                    for perm in &response.perm {
                        // With the blank of the field there are two, as in etcdctl.
                        text.field("PermType", format!(" {}", perm.perm_type().as_str_name()));
                        text.quoted("Key", &perm.key).quoted("RangeEnd", &perm.range_end);
                    }
                })
            }),
            json: Some(&|| {
                let perm = response.perm.iter().map(json::permission).collect();
                json::answer(&response.header).list("perm", perm).end().into()
            }),
            protobuf: Some(&|| response.encode_to_vec()),
            records: Some(&|| {
                let perms: Vec<_> = response.perm.iter().map(permission_record).collect();
                Records::One(Fields::new().with("role", role).with("permissions", perms).end())
            }),
            ..Forms::default()
        })
    }

    pub(in crate::cli) fn user_get(&self, user: &str, response: &AuthUserGetResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| {
                let roles: String = response.roles.iter().map(|role| format!(" {role}")).collect();
                format!("User: {user}\nRoles:{roles}\n").into()
            }),
            json: Some(&|| names_json(&response.header, "roles", &response.roles)),
            protobuf: Some(&|| response.encode_to_vec()),
            records: Some(&|| {
                let roles = response.roles.as_slice();
                Records::One(Fields::new().with("user", user).with("roles", roles).end())
            }),
            ..Forms::default()
        })
    }

    pub(in crate::cli) fn user_list(&self, response: &AuthUserListResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| lines_of(&response.users)),
            json: Some(&|| names_json(&response.header, "users", &response.users)),
            protobuf: Some(&|| response.encode_to_vec()),
            records: Some(&|| names_records(&response.users)),
            ..Forms::default()
        })
    }

    pub(in crate::cli) fn auth_status(&self, response: &AuthStatusResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| {
                let (enabled, revision) = (response.enabled, response.auth_revision);
                format!("Authentication Status: {enabled}\nAuthRevision: {revision}\n").into()
            }),
            json: Some(&|| {
                json::answer(&response.header)
                    .bool("enabled", response.enabled)
                    .number("authRevision", response.auth_revision)
                    .end()
                    .into()
            }),
            protobuf: Some(&|| response.encode_to_vec()),
            records: Some(&|| {
                let fields = Fields::new().with("enabled", response.enabled);
                Records::One(fields.with("authRevision", response.auth_revision).end())
            }),
            ..Forms::default()
        })
    }
}

fn lines_of(names: &[String]) -> Vec<u8> {
    names.iter().map(|name| format!("{name}\n")).collect::<String>().into()
}

fn names_json(header: &Option<ResponseHeader>, name: &str, names: &[String]) -> Vec<u8> {
    let names = names.iter().map(|name| json::string(name.as_bytes())).collect();
    json::answer(header).list(name, names).end().into()
}

fn names_records(names: &[String]) -> Records {
    Records::Many(names.iter().map(|name| Fields::new().with("name", name).end()).collect())
}

fn permission_record(permission: &Permission) -> Value {
    Fields::new()
        .with("type", permission.perm_type().as_str_name())
        .bytes("key", &permission.key)
        .bytes("rangeEnd", &permission.range_end)
        .end()
}

fn role_simple(role: &str, response: &AuthRoleGetResponse) -> Vec<u8> {
    let mut text = Text::default();
    text.line(format!("Role {role}"));
    let everything = role == "root" && response.perm.is_empty();
    for (title, other) in [("KV Read:", Type::Read), ("KV Write:", Type::Write)] {
        text.line(title);
        if everything {
            text.line("\t[, <open ended>");
        }
        for perm in &response.perm {
            if perm.perm_type() == other || perm.perm_type() == Type::Readwrite {
                text.line(
                    [b"\t".as_slice(), &range_text(&perm.key, &perm.range_end, true)].concat(),
                );
            }
        }
    }
    text.0
}

/// A key or range as etcdctl's `role` prints it.
pub(in crate::cli) fn range_text(key: &[u8], end: &[u8], name_prefix: bool) -> Vec<u8> {
    if end.is_empty() {
        return key.to_vec();
    }
    let mut text = match end {
        [0] => [b"[", key, b", <open ended>"].concat(),
        end => [b"[", key, b", ", end, b")"].concat(),
    };
    if name_prefix && !key.is_empty() && crate::client::prefix_end(key) == end {
        text.extend_from_slice(&[b" (prefix ", key, b")"].concat());
    }
    text
}
