//! Those who start etcd in other ways than by hand: each with its own flags, variables or file, on the
//! real binary under etcd's names.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests wait in real time")]

#[path = "../common/child.rs"]
mod child;
mod config_file;
mod container;
mod fixture;
mod kops;
mod kubeadm;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "../common/member.rs"]
mod member;
#[path = "../common/ports.rs"]
mod ports;
mod scripts;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "../common/shop.rs"]
mod shop;
mod systemd;
mod talos;
