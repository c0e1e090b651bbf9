//! The one table of methods, and the way from a call's path to its handler.
//!
//! ```text
//!   path ─► row of the table ─► shape of the call (unary, stream) ─► handler
//! ```
//!
//! A new method is a row here, and a handler in the file of its service. A row gives the method its
//! metrics, its place in the search for a path, the members that serve it, and the demand on its
//! caller. Other rooms see the methods' names in [`METHODS`], and nothing else of the table.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::uri::PathAndQuery;
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use tonic::Status;

use super::answer::{self, BoxError, Output};
use super::call::{Head, Route, refuse};
use super::{Server, kv};
use crate::auth::Demand;
use crate::metrics::{self, CallKind, Method};

/// Whether a learner serves the method: the column `by` as a bool.
macro_rules! serves_learners {
    (all) => {
        true
    };
    (voters) => {
        false
    };
}

/// The kind of a call, as gRPC's metrics name it: the column `shape` as a `CallKind`.
macro_rules! kind {
    (unary) => {
        CallKind::Unary
    };
    (unary_of) => {
        CallKind::Unary
    };
    (server_stream) => {
        CallKind::ServerStream
    };
    (bidi_stream) => {
        CallKind::BidiStream
    };
}

/// Expands to `code` for methods that are called often, and to nothing for the others.
macro_rules! if_often {
    (often, $($code:tt)*) => { $($code)* };
    (seldom, $($code:tt)*) => {};
}

/// The place of a method in the table, found at compile time.
const fn index(service: &str, name: &str) -> usize {
    let mut at = 0;
    while at < METHODS.len() {
        if equal(METHODS[at].0, service) && equal(METHODS[at].1, name) {
            return at;
        }
        at += 1;
    }
    panic!("unknown method")
}

const fn equal(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut at = 0;
    while at < a.len() && at < b.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    a.len() == b.len()
}

/// Makes three things of the table: the list of methods, their `Route`s, and the two searches for a
/// path (a chain of comparisons for methods that are called often, a match for all).
macro_rules! routes {
    ($(
        $service:literal $name:literal $how:ident $by:ident
        $shape:ident $(($decoded:path))? $handler:ident $demand:ident;
    )*) => {
        /// Every method that is served: service and name.
        pub const METHODS: &[(&str, &str)] = &[$(($service, $name)),*];

        static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
            vec![$(Route {
                method: Method::new($service, $name, kind!($shape)),
                demand: Demand::$demand,
                serves_learners: serves_learners!($by),
            }),*]
        });

        impl Server {
            /// Answers one request, whatever it is. Calls that wait for their message should hold
            /// little memory. The state of each async function includes its arguments, so few of
            /// them are nested here, and what runs after the message has arrived is boxed.
            /// `remote` is the client's address, for the log.
            pub fn call<B>(
                self: Arc<Self>,
                request: Request<B>,
                remote: Option<SocketAddr>,
            ) -> impl Future<Output = Output> + Send
            where
                B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
                B::Error: Into<BoxError> + Send + Sync,
            {
                let (parts, body) = request.into_parts();
                let mut head = Head { parts, remote };
                async move {
                    let mut answer = 'answered: {
                        if let Some(refusal) = refuse(&mut head.parts) {
                            break 'answered refusal;
                        }
                        $(if_often! { $how,
                            if path(&head) == concat!("/", $service, "/", $name) {
                                let route = &ROUTES[const { index($service, $name) }];
                                break 'answered self
                                    .$shape($($decoded,)? route, &head, body, Self::$handler)
                                    .await;
                            }
                        })*
                        let body = body.map_err(Into::into).boxed_unsync();
                        Box::pin(self.seldom(&head, body)).await
                    };
                    if let Some(content_type) = answer::echoed_content_type(&head.headers) {
                        answer.headers_mut().insert(CONTENT_TYPE, content_type);
                    }
                    answer
                }
            }

            /// The body is boxed, so that each of these many methods has its code once, and not for
            /// each kind of body.
            async fn seldom(
                self: Arc<Self>,
                head: &Head,
                body: UnsyncBoxBody<Bytes, BoxError>,
            ) -> Output {
                let path = path(head);
                let split = path.strip_prefix('/').and_then(|path| path.rsplit_once('/'));
                let Some((service, name)) = split else {
                    let text = format!("malformed method name: {path:?}");
                    return answer::failure(&Status::unimplemented(text));
                };
                match (service, name) {
                    $(($service, $name) => {
                        let route = &ROUTES[const { index($service, $name) }];
                        self.$shape($($decoded,)? route, head, body, Self::$handler).await
                    })*
                    _ => unknown(service, name),
                }
            }
        }
    };
}

// Columns: `how`: methods that are `often` called are compared first and run without a box around
// the call. `by`: whether all members serve the method, or voters alone. New methods come last,
// since the first byte of a call in the fuzzer's corpus is the number of its row.
routes! {
    // service                 method                 how    by     shape
    // handler                demand
    "etcdserverpb.KV"          "Range"                often  all    unary                     range                  Nothing;
    "etcdserverpb.KV"          "RangeStream"          seldom voters server_stream             range_stream           Nothing;
    "etcdserverpb.KV"          "Put"                  often  voters unary                     put                    Nothing;
    "etcdserverpb.KV"          "DeleteRange"          often  voters unary                     delete_range           Nothing;
    "etcdserverpb.KV"          "Txn"                  often  voters unary_of(kv::decoded_txn) txn                    Nothing;
    "etcdserverpb.KV"          "Compact"              seldom voters unary                     compact                Nothing;
    "etcdserverpb.Watch"       "Watch"                seldom voters bidi_stream               watch                  Nothing;
    "etcdserverpb.Lease"       "LeaseGrant"           seldom voters unary                     lease_grant            Nothing;
    "etcdserverpb.Lease"       "LeaseRevoke"          seldom voters unary                     lease_revoke           Nothing;
    "etcdserverpb.Lease"       "LeaseKeepAlive"       seldom voters bidi_stream               lease_keep_alive       Nothing;
    "etcdserverpb.Lease"       "LeaseTimeToLive"      seldom voters unary                     lease_time_to_live     Nothing;
    "etcdserverpb.Lease"       "LeaseLeases"          seldom voters unary                     lease_leases           Nothing;
    "etcdserverpb.Cluster"     "MemberAdd"            seldom voters unary                     member_add             Root;
    "etcdserverpb.Cluster"     "MemberRemove"         seldom voters unary                     member_remove          Root;
    "etcdserverpb.Cluster"     "MemberUpdate"         seldom voters unary                     member_update          Root;
    "etcdserverpb.Cluster"     "MemberList"           seldom voters unary                     member_list            AnyUser;
    "etcdserverpb.Cluster"     "MemberPromote"        seldom voters unary                     member_promote         Root;
    "etcdserverpb.Maintenance" "Alarm"                seldom voters unary                     alarm                  Nothing;
    "etcdserverpb.Maintenance" "Status"               seldom all    unary                     status                 AnyUser;
    "etcdserverpb.Maintenance" "Defragment"           seldom voters unary                     defragment             Root;
    "etcdserverpb.Maintenance" "Hash"                 seldom voters unary                     hash                   Root;
    "etcdserverpb.Maintenance" "HashKV"               seldom voters unary                     hash_kv                Root;
    "etcdserverpb.Maintenance" "Snapshot"             seldom all    server_stream             snapshot               Root;
    "etcdserverpb.Maintenance" "MoveLeader"           seldom voters unary                     move_leader            Root;
    "etcdserverpb.Maintenance" "Downgrade"            seldom voters unary                     downgrade              Root;
    "etcdserverpb.Auth"        "AuthEnable"           seldom voters unary                     auth_enable            Nothing;
    "etcdserverpb.Auth"        "AuthDisable"          seldom voters unary                     auth_disable           Nothing;
    "etcdserverpb.Auth"        "AuthStatus"           seldom voters unary                     auth_status            Nothing;
    "etcdserverpb.Auth"        "Authenticate"         seldom voters unary                     authenticate           Nothing;
    "etcdserverpb.Auth"        "UserAdd"              seldom voters unary                     user_add               Nothing;
    "etcdserverpb.Auth"        "UserGet"              seldom voters unary                     user_get               Nothing;
    "etcdserverpb.Auth"        "UserList"             seldom voters unary                     user_list              Nothing;
    "etcdserverpb.Auth"        "UserDelete"           seldom voters unary                     user_delete            Nothing;
    "etcdserverpb.Auth"        "UserChangePassword"   seldom voters unary                     user_change_password   Nothing;
    "etcdserverpb.Auth"        "UserGrantRole"        seldom voters unary                     user_grant_role        Nothing;
    "etcdserverpb.Auth"        "UserRevokeRole"       seldom voters unary                     user_revoke_role       Nothing;
    "etcdserverpb.Auth"        "RoleAdd"              seldom voters unary                     role_add               Nothing;
    "etcdserverpb.Auth"        "RoleGet"              seldom voters unary                     role_get               Nothing;
    "etcdserverpb.Auth"        "RoleList"             seldom voters unary                     role_list              Nothing;
    "etcdserverpb.Auth"        "RoleDelete"           seldom voters unary                     role_delete            Nothing;
    "etcdserverpb.Auth"        "RoleGrantPermission"  seldom voters unary                     role_grant_permission  Nothing;
    "etcdserverpb.Auth"        "RoleRevokePermission" seldom voters unary                     role_revoke_permission Nothing;
    "v3lockpb.Lock"            "Lock"                 seldom voters unary                     lock                   Nothing;
    "v3lockpb.Lock"            "Unlock"               seldom voters unary                     unlock                 Nothing;
    "v3electionpb.Election"    "Campaign"             seldom voters unary                     campaign               Nothing;
    "v3electionpb.Election"    "Proclaim"             seldom voters unary                     proclaim               Nothing;
    "v3electionpb.Election"    "Leader"               seldom voters unary                     election_leader        Nothing;
    "v3electionpb.Election"    "Observe"              seldom voters server_stream             observe                Nothing;
    "v3electionpb.Election"    "Resign"               seldom voters unary                     resign                 Nothing;
    "rusdpb.Space"             "Report"               seldom voters unary                     space                  Root;
    "grpc.health.v1.Health"    "Check"                seldom voters unary                     health_check           Nothing;
    "grpc.health.v1.Health"    "List"                 seldom voters unary                     health_list            Nothing;
    "grpc.health.v1.Health"    "Watch"                seldom voters server_stream             health_watch           Nothing;
}

/// Registers the metrics of all methods, so that they are exported as zeroes before the first call.
pub(super) fn register_metrics() {
    LazyLock::force(&ROUTES);
}

/// Adds the latency histograms of `--metrics=extensive`.
pub fn enable_handling_seconds() {
    metrics::enable_handling_seconds(ROUTES.iter().map(|route| &route.method));
}

/// The path by which the client names a method. Like grpc-go, it includes a query.
fn path(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("", PathAndQuery::as_str)
}

/// The answer to a path that no row has: Unimplemented, in grpc-go's words.
fn unknown(service: &str, name: &str) -> Output {
    let status = if METHODS.iter().any(|&(known, _)| known == service) {
        Status::unimplemented(format!("unknown method {name} for service {service}"))
    } else {
        Status::unimplemented(format!("unknown service {service}"))
    };
    answer::failure(&status)
}

#[cfg(test)]
pub(super) fn any() -> &'static Method {
    &ROUTES[0].method
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_or_copies_the_cluster_is_roots() {
        let demand = |service: &str, name: &str| &ROUTES[index(service, name)].demand;
        for name in ["Defragment", "Hash", "HashKV", "Snapshot", "MoveLeader", "Downgrade"] {
            assert_eq!(*demand("etcdserverpb.Maintenance", name), Demand::Root, "{name}");
        }
        for name in ["MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote"] {
            assert_eq!(*demand("etcdserverpb.Cluster", name), Demand::Root, "{name}");
        }
        assert_eq!(*demand("etcdserverpb.Maintenance", "Status"), Demand::AnyUser);
        assert_eq!(*demand("etcdserverpb.KV", "Put"), Demand::Nothing);
    }

    #[test]
    fn a_scrape_shows_methods_that_nobody_called_as_zero() {
        register_metrics();
        let text = metrics::render();
        for line in [
            "grpc_server_started_total{grpc_method=\"LeaseRevoke\",grpc_service=\"etcdserverpb.Lease\",grpc_type=\"unary\"} 0",
            "grpc_server_handled_total{grpc_code=\"Unavailable\",grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} 0",
        ] {
            assert!(text.lines().any(|have| have == line), "missing {line}");
        }
    }
}
