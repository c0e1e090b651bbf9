#!/bin/sh
# Builds the binary that packages hold, so that the same source gives the same bytes in any directory
# and at any time: paths of this machine are replaced, and times are those of the commit.
#
#   build.sh [--static] [--debug] [--tarball DIR]
#
#   --static       with the C library within it, as for containers
#   --debug        without optimization, to try the other steps
#   --tarball DIR  also makes DIR/rusd-VERSION-TARGET.tar.gz and its .sha256, for install.sh
#
# The same bytes also need the same rustc, C compiler and target; the tarball names the first in
# BUILD. CARGO_TARGET_DIR works as usual. The last line says where the binary is.
set -eu

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

static='' profile=release tarball=''
while [ $# -gt 0 ]; do
    case "$1" in
    --static) static=yes ;;
    --debug) profile=debug ;;
    --tarball)
        [ $# -ge 2 ] || fail "--tarball needs a directory"
        tarball=$2
        shift
        ;;
    *) fail "unknown: $1; usage: build.sh [--static] [--debug] [--tarball DIR]" ;;
    esac
    shift
done

source=$(cd "$(dirname "$0")/../.." && pwd -P)
if [ -n "$tarball" ]; then
    mkdir -p "$tarball"
    tarball=$(cd "$tarball" && pwd -P)
fi
cd "$source"
target=$(rustc -vV | sed -n 's/^host: //p')
output=${CARGO_TARGET_DIR:-$source/target}
cargo_home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$(rustc --print sysroot)

if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
fi
export SOURCE_DATE_EPOCH
# The last prefix that fits counts, so the target directory within the source comes after it.
remap="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$sysroot=/rust"
remap="$remap --remap-path-prefix=$source=/rusd --remap-path-prefix=$output=/target"
# Names of functions stay, for what is said of a crash; lines would make the binary four times as large.
RUSTFLAGS="${RUSTFLAGS:-} $remap -C strip=debuginfo"
[ -z "$static" ] || RUSTFLAGS="$RUSTFLAGS -C target-feature=+crt-static"
export RUSTFLAGS
# The C code of crates names its files too.
maps="-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$output=/target"
export CFLAGS="${CFLAGS:-} $maps"
export CARGO_INCREMENTAL=0

# With --target, flags are for the binary alone, and not for the programs that help to build it.
set -- --locked --target "$target" --bin rusd
[ "$profile" = debug ] || set -- "$@" --release
"${CARGO:-cargo}" build "$@"
binary=$output/$target/$profile/rusd

if [ -n "$tarball" ]; then
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
    name=rusd-$version-$target
    stage=$(mktemp -d)
    trap 'rm -rf "$stage"' EXIT
    mkdir "$stage/$name"
    cp "$binary" LICENSE README.md CHANGELOG.md "$stage/$name/"
    cp -R man completions docs/deploy/systemd "$stage/$name/"
    rustc -vV >"$stage/$name/BUILD"
    chmod -R u=rwX,go=rX "$stage/$name"
    chmod 755 "$stage/$name/rusd"
    # gzip writes a time of its own unless it is told not to.
    tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
        -cf - "$name" | gzip -9n >"$tarball/$name.tar.gz.part"
    mv "$tarball/$name.tar.gz.part" "$tarball/$name.tar.gz"
    (cd "$tarball" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
    echo "$tarball/$name.tar.gz"
fi
echo "$binary"
