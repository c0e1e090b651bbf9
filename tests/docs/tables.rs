//! What the pages may need and a test cannot give, each with its reason.

/// Pages whose sections do not build on each other: each runs by itself.
pub const SECTIONS: [&str; 1] = ["docs/handbook.md"];

/// Blocks that hold their terminal though their fence does not say so.
pub const TERMINALS: [(&str, &str); 1] = [("README.md", "cargo run --release -- serve")];

/// Blocks that are not run: the page, words of the block, and why.
pub const NO_RUN: &[(&str, &str, &str)] = &[
    ("docs/contributing.md", ".ci/run", "runs this test itself"),
    ("docs/contributing.md", "--seeds 0..10000", "takes hours, and Go"),
    ("docs/contributing.md", "CARGO_PROFILE_RELEASE_DEBUG", "makes a release, which takes minutes"),
    ("docs/contributing.md", "bench range", "takes minutes, and another server"),
    ("docs/handbook.md", "ss -ltnp", "shows the ports of the test, not those of the page"),
    ("docs/handbook.md", "serve --data-dir /root/rusd", "whoever tests as root is denied nothing"),
    ("docs/handbook.md", "chown -R rusd:", "needs the user rusd"),
    ("docs/kubernetes.md", "podman build", "needs podman"),
    ("docs/kubernetes.md", "k3s server", "needs k3s"),
    (
        "docs/monitoring.md",
        "--log-level debug",
        "is an example of flags, beside a server that runs",
    ),
    ("docs/monitoring.md", "--enable-distributed-tracing", "needs a collector"),
    ("docs/moving.md", "etcdctl snapshot save moved.db", "needs a server of etcd"),
    ("docs/moving.md", "rusd make-mirror", "needs two clusters, and goes on"),
    ("docs/packages.md", "docs/deploy/build.sh", "builds a release"),
    ("docs/packages.md", "cargo install --path", "builds a release"),
    ("docs/packages.md", "cargo cyclonedx", "needs cargo-cyclonedx"),
    (
        "docs/packages.md",
        "docs/deploy/install.sh --from",
        "needs a tarball; tests/packages has one",
    ),
    ("docs/packages.md", "editor /etc/rusd/rusd.env", "needs an editor, and systemd"),
    ("docs/packages.md", "podman build", "needs podman"),
    ("docs/packages.md", "helm install", "needs Kubernetes"),
    ("docs/packages.md", "rusd member remove 8e9e05c52164694d", "needs Kubernetes"),
    ("docs/performance.md", "bench table --rounds 5", "takes minutes, and etcd"),
    ("docs/performance.md", "bench ceiling", "is measured on the server of the block before"),
    (
        "docs/performance.md",
        "bench range --keys 1000000",
        "takes minutes, and a build of a release",
    ),
    ("docs/tuning.md", "--compare localhost:12379", "takes minutes, and another server"),
    ("docs/performance.md", "rusd member add m2 --learner", "is a part of a measurement"),
];

/// Programs that a test must not use, and the arguments with which a page may call them. A `*` stands
/// for anything. A page that calls one of them otherwise fails.
pub const STAND_INS: &[(&str, &[&str])] = &[
    (
        "systemctl",
        &["daemon-reload", "enable --now rusd", "start rusd", "stop rusd", "restart rusd"],
    ),
    ("journalctl", &["-u rusd *"]),
    ("timedatectl", &["set-ntp true"]),
    ("kubeadm", &["init --config kubeadm.yaml"]),
    ("kubectl", &["get --raw /readyz"]),
    ("kind", &["create cluster --config kind.yaml"]),
];

/// Stand-ins that do something: their text is a shell script.
pub const SCRIPTS: &[(&str, &str)] = &[("sudo", "exec \"$@\""), ("cargo", CARGO)];

/// Runs the binary under test for `cargo run`, and looks whether the tests that are named exist.
const CARGO: &str = r#"
case "$1" in
run) shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
    shift
    exec rusd "$@" ;;
test) while [ $# -gt 0 ] && [ "$1" != -- ]; do
        if [ "$1" = --test ] && ! [ -e "$DOCS_PACKAGE/tests/$2.rs" ] && ! [ -e "$DOCS_PACKAGE/tests/$2/main.rs" ]; then
            echo "cargo test: there is no test $2" >&2
            exit 1
        fi
        shift
    done ;;
build|fmt|clippy) ;;
*) echo "cargo is not expected to: $*" >&2
    exit 1 ;;
esac
"#;

/// Beginnings of paths that lie in the scratch directory of a unit instead.
pub const PATHS: [&str; 11] = [
    "/path/to",
    "/tmp",
    "/var/lib",
    "/var/backups",
    "/etc/rusd",
    "/etc/etcd",
    "/etc/kubernetes",
    "/etc/systemd/system",
    "/usr/local/bin",
    "/srv",
    "/mnt",
];
