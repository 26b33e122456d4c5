#!/usr/bin/env bash
# Unpacks Debian's current Docker, with its compose plugin, into a folder. Nothing is installed.
# usage: benches/docker-tree.sh DIR
set -euo pipefail
dir=${1:?usage: docker-tree.sh DIR}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work"/{lists,cache/archives}/partial "$work/debs"
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$work/sources.list"
sid=(-qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$work/lists"
    -o "Dir::Cache=$work/cache" -o Acquire::Languages=none -o APT::Sandbox::User=root)
apt-get "${sid[@]}" update
cd "$work/debs"
apt-get "${sid[@]}" download docker.io docker-cli docker-compose docker-buildx containerd
# Those of sid would need its C library.
apt-get -qq -o APT::Sandbox::User=root download runc tini
mkdir -p "$dir"
for deb in *.deb; do dpkg -x "$deb" "$dir"; done
ln -sf tini-static "$dir/usr/bin/docker-init"
