#!/bin/sh
# Makes the root file system of rusd's container image in a directory: the static binary with all its
# names, and the few files that a program without a distribution needs. No shell, no package.
#
#   rootfs.sh DIR [BINARY]
#
# Without BINARY it builds a static one by cargo first. DIR must be new or empty. The image's user is
# 65532; the data directory belongs to it if root runs this.
set -eu

fail() {
    echo "rootfs.sh: $*" >&2
    exit 1
}

case "${1:-}" in
"" | -*) fail "usage: rootfs.sh DIR [BINARY]" ;;
esac
root=$1
source=$(cd "$(dirname "$0")/../../.." && pwd)
user=65532

if [ -e "$root" ] && [ -n "$(ls -A "$root")" ]; then
    fail "$root is not empty; name a new directory"
fi

if [ $# -ge 2 ]; then
    binary=$2
else
    # glibc's allocator and its tuning are kept, which musl would not have. Names are resolved from
    # /etc/hosts and by DNS, which glibc's static library has within itself since 2.34.
    binary=$("$source/docs/deploy/build.sh" --static | tail -n 1)
fi
[ -x "$binary" ] || fail "$binary is not a program"
# The loader's path stands at the head of every program that needs one.
if head -c 4096 "$binary" | grep -q -a -e '/ld-linux' -e '/ld-musl'; then
    fail "$binary is not static; build it by docs/deploy/build.sh --static"
fi

umask 022
mkdir -p "$root/usr/local/bin" "$root/etc/ssl/certs" "$root/usr/share/doc/rusd" "$root/tmp"
chmod 1777 "$root/tmp"
# Where etcd's image has its programs, and scripts and probes look for them.
cp "$binary" "$root/usr/local/bin/rusd"
chmod 755 "$root/usr/local/bin/rusd"
for name in etcd etcdctl etcdutl; do
    ln -s rusd "$root/usr/local/bin/$name"
done
cp "$source/LICENSE" "$root/usr/share/doc/rusd/"
echo "root:x:0:0:root:/:/nonexistent
rusd:x:$user:$user:rusd:/var/lib/rusd:/nonexistent" >"$root/etc/passwd"
echo "root:x:0:
rusd:x:$user:" >"$root/etc/group"
# Engines put their own in its place; without any, not even localhost has an address.
printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
# glibc would else look for modules that are not there.
echo "passwd: files
group: files
hosts: files dns" >"$root/etc/nsswitch.conf"
# Public authorities, for clients of servers with public certificates. Without them only --cacert works.
for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
    if [ -r "$bundle" ]; then
        cp -L "$bundle" "$root/etc/ssl/certs/ca-certificates.crt"
        break
    fi
done
for data in var/lib/rusd var/lib/etcd; do
    mkdir -p "$root/$data"
    chmod 700 "$root/$data"
    if [ "$(id -u)" = 0 ]; then
        chown "$user:$user" "$root/$data"
    fi
done
echo "$root: $(du -sh "$root" | cut -f 1), $(find "$root" -type f | wc -l) files"
