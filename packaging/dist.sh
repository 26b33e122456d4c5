#!/usr/bin/env bash
# Makes of the built binary what a release consists of: the binary, a Debian package and a file of checksums.
#   STACK=path/to/stack packaging/dist.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${STACK:?the built binary}")
out=$(realpath -m "${1:-dist}")
version=$("$binary" version --short)
architecture=$(dpkg --print-architecture)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}

if readelf -l "$binary" | grep -q INTERP; then
    echo "error: $binary needs shared libraries; build it as .cargo/config.toml says" >&2
    exit 1
fi

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
put() { install -D -m "$1" /dev/stdin "$stage/$2"; }
install -D -m 755 "$binary" "$stage/usr/bin/stack"
strip --strip-unneeded "$stage/usr/bin/stack"
"$binary" completion bash | put 644 usr/share/bash-completion/completions/stack
"$binary" completion zsh | put 644 usr/share/zsh/vendor-completions/_stack
"$binary" completion fish | put 644 usr/share/fish/vendor_completions.d/stack.fish
"$binary" completion man | gzip -9n | put 644 usr/share/man/man1/stack.1.gz
gzip -9n <CHANGELOG.md | put 644 usr/share/doc/stack/changelog.gz
put 644 usr/share/doc/stack/copyright <LICENSE
put 644 DEBIAN/control <<CONTROL
Package: stack
Version: $version
Architecture: $architecture
Maintainer: stack developers <stack@localhost>
Section: admin
Priority: optional
Conflicts: haskell-stack
Installed-Size: $(du -k -s "$stage" | cut -f1)
Description: multi-container applications from Compose files, without a daemon
 One static binary with a container runtime, networking, image store and
 builder of its own. Commands, flags and files are those of docker compose.
CONTROL

mkdir -p "$out"
rm -f "$out"/stack-*-linux-"$architecture" "$out"/stack_*_"$architecture".deb "$out/SHA256SUMS"
install -m 755 "$stage/usr/bin/stack" "$out/stack-$version-linux-$architecture"
dpkg-deb --root-owner-group -Zgzip --build "$stage" "$out/stack_${version}_$architecture.deb" >/dev/null
(cd "$out" && sha256sum stack-* stack_* >SHA256SUMS)
ls -l "$out"
