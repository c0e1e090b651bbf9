//! Several members as processes of their own, under load, killed and started again. The oracle is
//! what the clients were told.
//!
//! `RUSD_CLUSTER_ROUNDS=N` asks for more rounds of faults than the few of the default run, and
//! `RUSD_CLUSTER_FAULTS=Kill,Replace` for some kinds of them only.

mod backup;
#[path = "../common/child.rs"]
mod child;
mod corruption;
mod disks;
mod dns;
mod faults;
mod fixture;
mod hostile;
mod leases;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "../common/member.rs"]
mod member;
mod membership;
mod metrics;
#[path = "../common/names.rs"]
mod names;
mod nested;
mod oracle;
#[path = "../common/ports.rs"]
mod ports;
#[path = "../common/preload.rs"]
mod preload;
mod proxy;
mod rebuild;
#[path = "../common/scrape.rs"]
#[allow(dead_code, reason = "a suite needs a part of it")]
mod scrape;
mod tokens;
