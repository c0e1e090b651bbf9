//! Answers about the cluster: its members, alarms, leader and version.

use prost::Message;

use super::{Display, Format, Forms, Outcome, Text, header_record, lines};
use crate::cli::grid::{Cell, Column, Grid};
use crate::cli::json::{self, Object};
use crate::cli::record::{Fields, Records, Value};
use crate::cli::table::table;
use crate::cli::terminal::{Page, Style};
use crate::pb::{
    AlarmMember, AlarmResponse, DowngradeResponse, Member, MemberAddResponse, MemberListResponse,
    MoveLeaderResponse, ResponseHeader,
};

impl Display {
    /// Whether the list of members says who leads, which takes a question of its own.
    pub(in crate::cli) fn names_leader(&self) -> bool {
        let is_grid = self.out.has_reader()
            && (self.format == Format::Table || self.format == Format::Simple && !self.is_chosen);
        self.format.is_records() || is_grid
    }

    /// Prints the members; `leader` is 0 if it is not known.
    pub(in crate::cli) fn member_list(
        &self,
        response: &MemberListResponse,
        leader: u64,
    ) -> Outcome {
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
            records: Some(&|| {
                let record = |member| member_record(member, leader);
                Records::Many(response.members.iter().map(record).collect())
            }),
            grid: Some(&|| {
                Grid::new(
                    &MEMBER_COLUMNS,
                    response.members.iter().map(|it| member_cells(it, leader)),
                )
            }),
            page: None,
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
            records: Some(&|| Records::One(member_record(&member, 0))),
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
            records: Some(&|| {
                Records::One(header_record(Fields::new().id("id", id), header).end())
            }),
            ..Forms::default()
        })
    }

    pub(in crate::cli) fn alarm(&self, response: &AlarmResponse) -> Outcome {
        let grid = || Grid::new(&ALARM_COLUMNS, response.alarms.iter().map(alarm_cells));
        let table = || grid().text();
        self.show(Forms {
            simple: Some(&|| {
                let mut text = Text::default();
                for alarm in &response.alarms {
                    let mut parts = Vec::new();
                    match alarm.member_id {
                        0 => {}
                        id if self.is_rusd => parts.push(format!("memberID:{id:x}")),
                        id => parts.push(format!("memberID:{id}")),
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
            table: if self.is_rusd { Some(&table) } else { None },
            records: Some(&|| {
                let record = |alarm: &AlarmMember| {
                    let name = alarm.alarm().as_str_name();
                    Fields::new().id("memberId", alarm.member_id).with("alarm", name).end()
                };
                Records::Many(response.alarms.iter().map(record).collect())
            }),
            grid: if self.format == Format::Table { Some(&grid) } else { None },
            page: Some(&|| alarm_page(response)),
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
            records: Some(&|| Records::One(Fields::new().id("from", from).id("to", to).end())),
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
            records: Some(&|| {
                let fields = Fields::new().with("action", action);
                Records::One(fields.with("clusterVersion", version).end())
            }),
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

static MEMBER_COLUMNS: [Column; 5] = [
    Column::new("ID", 0),
    Column::new("NAME", 0),
    Column::new("ROLE", 0),
    Column::new("CLIENT URLS", 1),
    Column::new("PEER URLS", 2),
];

static ALARM_COLUMNS: [Column; 2] = [Column::new("MEMBER", 0), Column::new("ALARM", 0)];

/// What a member is in its cluster. Without knowledge of the leader, a voter is no more than that.
fn role(member: &Member, leader: u64) -> (&'static str, Style) {
    match leader {
        _ if member.name.is_empty() => ("not started", Style::Warning),
        _ if member.is_learner => ("learner", Style::Warning),
        0 => ("voter", Style::Plain),
        leader if leader == member.id => ("leader", Style::Good),
        _ => ("follower", Style::Plain),
    }
}

fn member_cells(member: &Member, leader: u64) -> Vec<Cell> {
    let (role, style) = role(member, leader);
    vec![
        format!("{:x}", member.id).into(),
        member.name.as_str().into(),
        Cell::new(style, role),
        member.client_ur_ls.join(", ").into(),
        member.peer_ur_ls.join(", ").into(),
    ]
}

fn member_record(member: &Member, leader: u64) -> Value {
    Fields::new()
        .id("id", member.id)
        .with("name", &member.name)
        .with("started", !member.name.is_empty())
        .with("peerUrls", member.peer_ur_ls.as_slice())
        .with("clientUrls", member.client_ur_ls.as_slice())
        .with("learner", member.is_learner)
        .maybe("leader", (leader != 0).then_some(leader == member.id))
        .end()
}

/// Alarms as a person reads them; without any, that there is none.
fn alarm_page(response: &AlarmResponse) -> Page {
    let mut page = Page::default();
    for alarm in &response.alarms {
        page.text(Style::Plain, format!("memberID:{:x}  alarm:", alarm.member_id));
        page.text(Style::Bad, alarm.alarm().as_str_name()).end_line();
    }
    if response.alarms.is_empty() {
        page.text(Style::Dim, "no alarms").end_line();
    }
    page
}

fn alarm_cells(alarm: &AlarmMember) -> Vec<Cell> {
    let member = format!("{:x}", alarm.member_id);
    vec![member.into(), Cell::new(Style::Bad, alarm.alarm().as_str_name())]
}
