#!/usr/bin/env bash
# Unpacks this Debian's podman into a folder. Nothing is installed.
# usage: benches/podman-tree.sh DIR
set -euo pipefail
dir=${1:?usage: podman-tree.sh DIR}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -qq -o APT::Sandbox::User=root download podman conmon crun golang-github-containers-common golang-github-containers-image
mkdir -p "$dir"
for deb in *.deb; do dpkg -x "$deb" "$dir"; done
