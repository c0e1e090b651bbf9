//! Answers about the cluster: its members, alarms, leader and version.

use prost::Message;

use super::{Display, Forms, Outcome, Text, lines};
use crate::cli::json::{self, Object};
use crate::cli::table::table;
use crate::pb::{
    AlarmResponse, DowngradeResponse, Member, MemberAddResponse, MemberListResponse,
    MoveLeaderResponse, ResponseHeader,
};

impl Display {
    pub(in crate::cli) fn member_list(&self, response: &MemberListResponse) -> Outcome {
        let rows = || response.members.iter().map(member_row).collect::<Vec<_>>();
        let header = ["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];
        self.show(Forms {
            simple: Some(&|| lines(&rows())),
            fields: Some(&|| {
                self.with_header(&response.header, |text| {
                    for member in &response.members {
                        text.field("ID", self.id(member.id)).quoted("Name", &member.name);
                        for url in &member.peer_ur_ls {
                            text.quoted("PeerURL", url);
                        }
                        for url in &member.client_ur_ls {
                            text.quoted("ClientURL", url);
                        }
                        text.field("IsLearner", member.is_learner).line("");
                    }
                })
            }),
            json: Some(&|| self.members_json(&response.header, None, &response.members)),
            protobuf: Some(&|| response.encode_to_vec()),
            table: Some(&|| table(&header, &rows()).into()),
        })
    }

    fn members_json(
        &self,
        header: &Option<ResponseHeader>,
        member: Option<&Member>,
        members: &[Member],
    ) -> Vec<u8> {
        if !self.hex {
            return json::answer(header)
                .some("member", member.map(json::member))
                .list("members", members.iter().map(json::member).collect())
                .end()
                .into();
        }
        Object::new()
            .raw("header", json::header_hex(&header.unwrap_or_default()))
            .some("member", member.map(json::member_hex))
            .raw("members", json::array(members.iter().map(json::member_hex).collect()))
            .end()
            .into()
    }

    pub(in crate::cli) fn member_add(&self, response: &MemberAddResponse) -> Outcome {
        let member = response.member.clone().unwrap_or_default();
        let cluster = response.header.unwrap_or_default().cluster_id;
        let learner = if member.is_learner { " as learner " } else { " " };
        self.show(Forms {
            simple: Some(&|| {
                format!("Member {:16x} added{learner}to cluster {cluster:16x}\n", member.id).into()
            }),
            json: Some(&|| self.members_json(&response.header, Some(&member), &response.members)),
            protobuf: Some(&|| response.encode_to_vec()),
            ..Forms::default()
        })
    }

    /// Prints a change of membership: "Member … `done` … cluster …" in the simple format.
    pub(in crate::cli) fn member_changed<R: Message>(
        &self,
        id: u64,
        done: &str,
        response: &R,
        header: &Option<ResponseHeader>,
        members: &[Member],
    ) -> Outcome {
        let cluster = header.unwrap_or_default().cluster_id;
        self.show(Forms {
            simple: Some(&|| format!("Member {id:16x} {done} cluster {cluster:16x}\n").into()),
            json: Some(&|| self.members_json(header, None, members)),
            protobuf: Some(&|| response.encode_to_vec()),
            ..Forms::default()
        })
    }

    pub(in crate::cli) fn alarm(&self, response: &AlarmResponse) -> Outcome {
        self.show(Forms {
            simple: Some(&|| {
                let mut text = Text::default();
                for alarm in &response.alarms {
                    let mut parts = Vec::new();
                    if alarm.member_id != 0 {
                        parts.push(format!("memberID:{}", alarm.member_id));
                    }
                    if alarm.alarm != 0 {
                        parts.push(format!("alarm:{}", alarm.alarm().as_str_name()));
                    }
                    text.line(parts.join("  "));
                }
                text.0
            }),
            fields: Some(&|| {
                self.with_header(&response.header, |text| {
                    for alarm in &response.alarms {
                        text.field("MemberID", self.id(alarm.member_id));
                        text.field("AlarmType", alarm.alarm().as_str_name()).line("");
                    }
                })
            }),
            json: Some(&|| {
                let alarms = response.alarms.iter().map(json::alarm).collect();
                json::answer(&response.header).list("alarms", alarms).end().into()
            }),
            protobuf: Some(&|| response.encode_to_vec()),
            table: None,
        })
    }

    pub(in crate::cli) fn move_leader(
        &self,
        from: u64,
        to: u64,
        response: &MoveLeaderResponse,
    ) -> Outcome {
        self.show(Forms {
            simple: Some(&|| format!("Leadership transferred from {from:x} to {to:x}\n").into()),
            json: Some(&|| json::answer(&response.header).end().into()),
            protobuf: Some(&|| response.encode_to_vec()),
            ..Forms::default()
        })
    }

    pub(in crate::cli) fn downgrade(&self, action: &str, response: &DowngradeResponse) -> Outcome {
        let version = &response.version;
        self.show(Forms {
            simple: Some(&|| {
                format!("Downgrade {action} success, cluster version {version}\n").into()
            }),
            json: Some(&|| json::answer(&response.header).text("version", version).end().into()),
            protobuf: Some(&|| response.encode_to_vec()),
            ..Forms::default()
        })
    }
}

fn member_row(member: &Member) -> Vec<String> {
    vec![
        format!("{:x}", member.id),
        if member.name.is_empty() { "unstarted" } else { "started" }.to_string(),
        member.name.clone(),
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
        member.is_learner.to_string(),
    ]
}
