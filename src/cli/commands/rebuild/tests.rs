use super::*;
use crate::pb::ResponseHeader;

fn member(id: u64, is_learner: bool, urls: &[&str]) -> Member {
    let client_ur_ls = urls.iter().map(|url| (*url).to_owned()).collect();
    let peer_ur_ls = vec![format!("http://p{id}")];
    Member { id, is_learner, client_ur_ls, peer_ur_ls, ..Member::default() }
}

#[test]
fn a_member_that_has_run_and_lost_its_log_needs_another_id() {
    let plan = Rebuild { new_id: Some(7), ..Rebuild::default() };
    let urls = ["http://c"];
    for (new, owner, is_expected) in [
        (member(7, true, &[]), None, false),
        (member(7, false, &[]), None, false),
        (member(7, true, &urls), Some(7), false),
        (member(7, true, &urls), None, true),
        (member(7, false, &urls), None, true),
        (member(7, false, &urls), Some(7), true),
        (member(8, false, &urls), None, false),
    ] {
        assert_eq!(
            is_over(&plan, owner, std::slice::from_ref(&new)),
            is_expected,
            "{new:?} {owner:?}"
        );
    }
}

#[test]
fn an_alarm_counts_for_its_own_member() {
    let of = |id| StatusResponse {
        header: Some(ResponseHeader { member_id: id, ..ResponseHeader::default() }),
        leader: 1,
        errors: vec!["memberID:2 alarm:CORRUPT".to_owned()],
        ..StatusResponse::default()
    };
    assert!(is_healthy(&of(1), &member(1, false, &[])));
    assert!(!is_healthy(&of(2), &member(2, false, &[])));
    assert!(!is_healthy(&of(1), &member(3, false, &[])), "another one answers");
}

#[test]
fn a_server_that_refuses_is_one_that_runs() {
    let of = |cause| {
        is_somebody(&client::Error::Unreachable(vec![client::Unreached {
            endpoint: "a:1".to_owned(),
            cause,
        }]))
    };
    assert!(of(Cause::SpeaksTls) && of(Cause::Tls(crate::tls::Fault::Expired(None))));
    assert!(!of(Cause::Refused) && !of(Cause::NotGrpc) && !is_somebody(&client::Error::Deadline));
    let status = |code| client::Error::Status(tonic::Status::new(code, ""));
    assert!(is_somebody(&status(Code::Unauthenticated)));
    assert!(!is_somebody(&status(Code::Unavailable)));
}

#[test]
fn the_urls_of_another_member_are_refused() {
    let others = [member(1, false, &[]), member(2, false, &[])];
    assert!(refuse_taken(&["http://p3".to_owned()], others.iter()).is_ok());
    assert!(refuse_taken(&["http://p2".to_owned()], others.iter()).is_err());
}
