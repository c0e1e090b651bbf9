//! Members that answer and are of another cluster.

use super::super::super::facts::{Facts, Member, Why};
use super::super::judge;
use super::{cluster, healthy, lose, member, status, third};

/// A member whose directory was restored alone has the id of the one that it was.
#[test]
fn a_member_of_another_cluster_counts_for_nothing_and_is_replaced() {
    let mut facts = healthy();
    facts.access = " --cacert ca.crt".to_owned();
    let foreign = |member: &mut Member| {
        let status = status(member);
        status.header.as_mut().unwrap().cluster_id = 0xd;
        status.leader = 3;
        status.raft_index = 7;
    };
    foreign(third(&mut facts));
    let of =
        |facts: &Facts| -> Vec<&str> { judge(facts).into_iter().map(|(check, _)| check).collect() };
    assert_eq!(of(&facts), ["cluster-id", "no-margin"]);
    assert_eq!(cluster(&mut facts).voters_reached(), 2);
    let found = judge(&facts);
    let rebuild = "rusd rebuild --cacert ca.crt --member 3 --data-dir DIR --endpoints \
                   http://m1:2379,http://m2:2379";
    assert!(found[0].1.command.ends_with(rebuild), "{found:#?}");
    assert!(!found[0].1.command.contains("existing"), "{found:#?}");
    // Its own leader is none of this cluster's, and the order of the list does not matter.
    cluster(&mut facts).members.rotate_right(1);
    assert_eq!(cluster(&mut facts).id(), Some(0xc));
    for at in 1..3 {
        status(&mut cluster(&mut facts).members[at]).leader = 0;
    }
    assert_eq!(of(&facts), ["no-leader", "cluster-id", "no-margin"]);

    // At the URL of a member, with another id.
    let mut facts = healthy();
    let mut stranger = Member { is_listed: false, url: "http://m3:2379".into(), ..member(9) };
    foreign(&mut stranger);
    lose(third(&mut facts), Why::Stray);
    cluster(&mut facts).members.push(stranger);
    let found = judge(&facts);
    let ids = found.iter().find(|(check, _)| *check == "cluster-id").unwrap();
    assert!(ids.1.command.contains("--member 3 --data-dir DIR"), "{found:#?}");

    // One that was added, and started as the first of a cluster.
    let mut facts = healthy();
    let mut stranger = Member { is_listed: false, ..member(9) };
    foreign(&mut stranger);
    let added = Member { id: 8, is_listed: true, is_learner: true, ..Member::default() };
    cluster(&mut facts).members.extend([added, stranger]);
    let found = judge(&facts);
    let ids = found.iter().find(|(check, _)| *check == "cluster-id").unwrap();
    let advice = "never started: stop it, move its directory away, and start it with \
                  --initial-cluster-state existing";
    assert!(ids.1.command.contains(advice), "{found:#?}");
}
