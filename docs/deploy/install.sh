#!/bin/sh
# Installs rusd from a release's tarball or from source, or removes it again.
#
#   install.sh --from FILE|URL [--sha256 HEX] [options]   a tarball of build.sh --tarball
#   install.sh --source DIR [options]                     builds it first
#   install.sh --uninstall [options]
#
#   --prefix DIR   where to: DIR/bin and DIR/share; $HOME/.local by default
#   --links        also etcd, etcdctl and etcdutl, as links to rusd
#   --as-root      allow root to run this; else it refuses
#   --dry-run      say what would be done, and do nothing
#
# A tarball is installed only if its checksum is right: that of --sha256, or of FILE.sha256 or
# URL.sha256 beside it. The latter finds what broke on the way, and not who replaced both.
# No data directory and no service is touched.
set -eu

say() { echo "install.sh: $*"; }
fail() {
    echo "install.sh: $*" >&2
    exit 1
}
usage() {
    sed -n '2,16s/^# \{0,1\}//p' "$0"
    exit "$1"
}

from='' sha256='' source='' prefix='' links='' as_root='' dry='' uninstall=''
while [ $# -gt 0 ]; do
    case "$1" in
    --from | --sha256 | --source | --prefix)
        [ -n "${2:-}" ] || fail "$1 needs a value"
        case "$1" in
        --from) from=$2 ;;
        --sha256) sha256=$2 ;;
        --source) source=$2 ;;
        --prefix) prefix=$2 ;;
        esac
        shift
        ;;
    --links) links=yes ;;
    --as-root) as_root=yes ;;
    --dry-run) dry=yes ;;
    --uninstall) uninstall=yes ;;
    -h | --help) usage 0 ;;
    *)
        echo "install.sh: unknown: $1" >&2
        usage 2 >&2
        ;;
    esac
    shift
done

ways=0
for way in "$from" "$source" "$uninstall"; do
    [ -z "$way" ] || ways=$((ways + 1))
done
[ "$ways" = 1 ] || fail "give one of --from, --source and --uninstall; see install.sh --help"
[ -z "$sha256" ] || [ -n "$from" ] || fail "--sha256 goes with --from"
if [ -z "$prefix" ]; then
    [ -n "${HOME:-}" ] || fail "HOME is not set; give --prefix DIR"
    prefix=$HOME/.local
fi
case "$prefix" in /*) ;; *) prefix=$PWD/$prefix ;; esac
if [ "$(id -u)" = 0 ] && [ -z "$as_root" ] && [ -z "$dry" ]; then
    fail "this is root; run it as a user, or add --as-root if the whole system is meant"
fi
manifest=$prefix/share/rusd/installed

# Does what its words say, or only says them.
run() {
    if [ -n "$dry" ]; then
        say "would run: $*"
    else
        "$@"
    fi
}

# Removes what the manifest lists. Only names below the prefix are believed.
remove_installed() {
    while IFS= read -r file; do
        case "$file" in
        *..* | /*) fail "$manifest names $file, which is not below $prefix; nothing more is removed" ;;
        esac
        if [ -e "$prefix/$file" ] || [ -L "$prefix/$file" ]; then
            run rm -f "$prefix/$file"
        fi
    done <"$manifest"
}

if [ -n "$uninstall" ]; then
    [ -r "$manifest" ] || fail "$manifest is missing: nothing of this script is installed in $prefix"
    remove_installed
    run rm -f "$manifest"
    [ -n "$dry" ] || rmdir "$prefix/share/rusd" 2>/dev/null || true
    say "removed rusd from $prefix; data directories are where they were"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# Fetches a URL into a file. Plain HTTP is for those who give a checksum of their own.
fetch() {
    case "$1" in
    https://*) ;;
    *) [ -n "$sha256" ] || fail "$1: without --sha256 only https:// is trusted" ;;
    esac
    if command -v curl >/dev/null; then
        # Nor is it trusted where another address leads to it.
        protocols='=https'
        [ -z "$sha256" ] || protocols='=http,https'
        curl -fsSL --proto-redir "$protocols" --retry 3 --max-time 600 -o "$2" "$1"
    elif command -v wget >/dev/null; then
        wget -q -T 60 -t 3 -O "$2" "$1"
    else
        fail "neither curl nor wget is there to fetch $1"
    fi
}

sum_of() {
    if command -v sha256sum >/dev/null; then
        sha256sum "$1" | cut -d ' ' -f 1
    else
        shasum -a 256 "$1" | cut -d ' ' -f 1
    fi
}

# Lays the tree out in $work/tree: what the tarball holds.
if [ -n "$from" ]; then
    case "$from" in
    http://* | https://*)
        if [ -n "$dry" ]; then
            say "would fetch $from, check it, and install it into $prefix"
            exit 0
        fi
        fetch "$from" "$work/tarball" || fail "$from cannot be fetched"
        if [ -z "$sha256" ]; then
            fetch "$from.sha256" "$work/sum" || fail "$from.sha256 cannot be fetched; give --sha256"
        fi
        ;;
    *)
        [ -r "$from" ] || fail "$from cannot be read"
        cp "$from" "$work/tarball"
        if [ -z "$sha256" ]; then
            [ -r "$from.sha256" ] || fail "$from.sha256 is missing; give --sha256 HEX"
            cp "$from.sha256" "$work/sum"
        fi
        ;;
    esac
    [ -n "$sha256" ] || sha256=$(cut -d ' ' -f 1 <"$work/sum")
    found=$(sum_of "$work/tarball")
    if [ "$found" != "$(echo "$sha256" | tr 'A-F' 'a-f')" ]; then
        fail "$from has the checksum $found, and $sha256 was expected; nothing was installed"
    fi
    mkdir "$work/unpacked"
    tar -xzf "$work/tarball" -C "$work/unpacked" --no-same-owner
    set -- "$work/unpacked"/*/rusd
    if [ $# != 1 ] || [ ! -f "$1" ]; then
        fail "$from holds no program rusd"
    fi
    tree=$(dirname "$1")
else
    [ -f "$source/Cargo.toml" ] || fail "$source is no source directory: it has no Cargo.toml"
    tree=$source
    if [ -n "$dry" ]; then
        say "would run: $source/docs/deploy/build.sh"
    else
        built=$("$source/docs/deploy/build.sh" | tail -n 1)
    fi
fi
program=${built:-$tree/rusd}

if [ -z "$dry" ]; then
    "$program" version >/dev/null || fail "this machine cannot run $program; nothing was installed"
fi

# The links must not take the place of programs that are not ours.
if [ -n "$links" ]; then
    for name in etcd etcdctl etcdutl; do
        link=$prefix/bin/$name
        if { [ -e "$link" ] || [ -L "$link" ]; } && [ "$(readlink "$link" || true)" != rusd ]; then
            fail "$link is another program; remove it first, or leave out --links"
        fi
    done
fi

# Puts a file where it belongs, in one step, and notes it.
put() {
    if [ -n "$dry" ]; then
        say "would install $prefix/$2"
        return
    fi
    mkdir -p "$(dirname "$prefix/$2")"
    cp "$1" "$prefix/$2.part"
    chmod "$3" "$prefix/$2.part"
    mv -f "$prefix/$2.part" "$prefix/$2"
    echo "$2" >>"$work/installed"
}

[ -n "$dry" ] || : >"$work/installed"
put "$program" bin/rusd 755
for page in "$tree"/man/*.[1-8]; do
    [ -f "$page" ] || continue
    put "$page" "share/man/man${page##*.}/$(basename "$page")" 644
done
for pair in bash:bash-completion/completions/rusd zsh:zsh/site-functions/_rusd \
    fish:fish/vendor_completions.d/rusd.fish; do
    script=$tree/completions/rusd.${pair%%:*}
    [ ! -f "$script" ] || put "$script" "share/${pair#*:}" 644
done
if [ -n "$links" ]; then
    for name in etcd etcdctl etcdutl; do
        run ln -sf rusd "$prefix/bin/$name"
        [ -n "$dry" ] || echo "bin/$name" >>"$work/installed"
    done
fi
if [ -z "$dry" ]; then
    # What an earlier version had and this one has not goes with it.
    if [ -r "$manifest" ]; then
        grep -vxFf "$work/installed" "$manifest" >"$work/old" || true
        while IFS= read -r file; do
            case "$file" in *..* | /*) ;; *) rm -f "$prefix/$file" ;; esac
        done <"$work/old"
    fi
    mkdir -p "$(dirname "$manifest")"
    cp "$work/installed" "$manifest.part"
    mv -f "$manifest.part" "$manifest"
    say "installed $("$prefix/bin/rusd" version | head -n 1) as $prefix/bin/rusd"
    case ":${PATH:-}:" in
    *":$prefix/bin:"*) ;;
    *) say "$prefix/bin is not in your PATH: export PATH=\"$prefix/bin:\$PATH\"" ;;
    esac
fi
