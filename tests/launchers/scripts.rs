//! Scripts of container images, such as Bitnami's, and operators: they cut what etcdctl prints to pieces
//! and go by its exit codes.

use std::fs;
use std::process::Command;

use super::fixture::{Etcd, Host, ended};
use super::member::free_address;

/// Three members, as a stateful set starts them.
struct Set {
    host: Host,
    addresses: [(String, String); 3],
}

impl Set {
    fn new() -> Self {
        let addresses = std::array::from_fn(|_| (free_address(), free_address()));
        Self { host: Host::new(), addresses }
    }

    fn command(&self, at: usize, state: &str) -> Command {
        let (client, peer) = &self.addresses[at];
        let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let all = self.addresses.iter().enumerate();
        let cluster: Vec<String> =
            all.map(|(number, (_, peer))| format!("etcd-{number}=http://{peer}")).collect();
        let mut etcd = self.host.program("etcd");
        etcd.envs([
            ("ETCD_NAME", format!("etcd-{at}")),
            ("ETCD_DATA_DIR", self.host.path(&format!("etcd-{at}/data"))),
            ("ETCD_LISTEN_CLIENT_URLS", client.clone()),
            ("ETCD_ADVERTISE_CLIENT_URLS", client),
            ("ETCD_LISTEN_PEER_URLS", peer.clone()),
            ("ETCD_INITIAL_ADVERTISE_PEER_URLS", peer),
            ("ETCD_INITIAL_CLUSTER_TOKEN", "etcd-cluster-k8s".to_owned()),
            ("ETCD_INITIAL_CLUSTER", cluster.join(",")),
            ("ETCD_INITIAL_CLUSTER_STATE", state.to_owned()),
        ]);
        etcd
    }

    fn start(&self, at: usize, state: &str) -> Etcd {
        self.host.start(&format!("etcd-{at}"), &mut self.command(at, state))
    }

    fn endpoints(&self, which: &[usize]) -> String {
        which.iter().map(|at| self.addresses[*at].0.as_str()).collect::<Vec<_>>().join(",")
    }

    /// What a script prints that sees the endpoints of these members.
    fn script(&self, which: &[usize], text: &str) -> String {
        let mut script = self.host.script(text);
        script.env("ETCDCTL_ENDPOINTS", self.endpoints(which));
        script.env("PEER", format!("http://{}", self.addresses[2].1));
        let (code, said) = ended(&script.output().unwrap());
        assert_eq!(code, 0, "{said}");
        said
    }
}

/// Ends with success once the members are healthy, and says the exit codes of the two commands.
const WAIT_HEALTHY: &str = "
    for _ in $(seq 90); do
        if etcdctl endpoint health > /dev/null 2>&1; then break; fi
        sleep 1
    done
    etcdctl endpoint health > /dev/null 2>&1; printf 'health %d\\n' $?
    etcdctl endpoint status > /dev/null 2>&1; printf 'status %d\\n' $?";

/// Replaces the third member, whose data is gone.
const REPLACE: &str = r#"
    for what in health status; do
        if etcdctl --command-timeout=2s endpoint $what > /dev/null 2>&1; then
            echo "$what succeeds without a member"
        fi
    done
    export ETCDCTL_ENDPOINTS="$(printf %s "$ETCDCTL_ENDPOINTS" | cut -d, -f1,2)"
    id="$(etcdctl member list | grep -w etcd-2 | cut -d, -f1 | tr -d ' \r')"
    json="$(etcdctl member list -w json | tr '{' '\n' | grep '"etcd-2"' | tr -d '}]' | tr ',' '\n' \
        | grep '"ID"' | cut -d: -f2)"
    test "$(printf %x "$json")" = "$id"
    for _ in $(seq 90); do
        if etcdctl member remove "$id" 2> /dev/null | grep -q "Member $id removed from cluster"; then break; fi
        sleep 1
    done
    for _ in $(seq 90); do
        if etcdctl member add etcd-2 --peer-urls="$PEER" 2> /dev/null > added; then break; fi
        sleep 1
    done
    grep '^ETCD_' added | sed 's/^/export /' > environment
    new="$(head -1 added | tr -s ' ' | cut -d ' ' -f 2)"
    test "$new" != "$id"
    test "$(grep ETCD_INITIAL_CLUSTER= added | cut -d '"' -f 2 | tr ',' '\n' | wc -l)" -eq 3
    . ./environment
    printf '%s\n' "$ETCD_NAME" "$ETCD_INITIAL_CLUSTER_STATE" "$ETCD_INITIAL_ADVERTISE_PEER_URLS"
    printf %s "$ETCD_INITIAL_CLUSTER" > initial-cluster"#;

#[test]
fn a_member_whose_data_is_gone_joins_again_under_its_name() {
    let set = Set::new();
    let mut members = [0, 1, 2].map(|at| Some(set.start(at, "new")));
    let fine = "health 0\nstatus 0\n";
    assert_eq!(set.script(&[0, 1, 2], WAIT_HEALTHY), fine);
    set.script(&[0], "etcdctl put k v");

    members[2] = None;
    fs::remove_dir_all(set.host.path("etcd-2/data")).unwrap();
    let told = set.script(&[0, 1, 2], REPLACE);
    let url = format!("http://{}", set.addresses[2].1);
    assert_eq!(told, format!("etcd-2\nexisting\n{url}\n"));
    let cluster = fs::read_to_string(set.host.path("initial-cluster")).unwrap();
    let mut joining = set.command(2, "existing");
    joining.env("ETCD_INITIAL_CLUSTER", cluster);
    members[2] = Some(set.host.start("etcd-2", &mut joining));
    assert_eq!(set.script(&[0, 1, 2], WAIT_HEALTHY), fine);
    let read = "etcdctl get k --print-value-only --consistency=s";
    assert_eq!(set.script(&[2], read), "v\n");

    // Each starts again in its directory whichever state its variable names.
    for (at, state) in [(0, "existing"), (2, "new")] {
        if let Some(mut member) = members[at].take() {
            member.stop();
        }
        members[at] = Some(set.start(at, state));
        assert_eq!(set.script(&[0, 1, 2], WAIT_HEALTHY), fine);
    }
    let fields =
        "etcdctl endpoint status -w fields | grep '\"MemberID\"' | tr -d ' ' | cut -d: -f2";
    let id = set.script(&[1], &format!("printf %x $({fields})"));
    let listed = set.script(&[1], "etcdctl member list | grep -w etcd-1 | cut -d, -f1");
    assert_eq!(listed.trim(), id);
}
