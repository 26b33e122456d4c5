#!/usr/bin/env bash
# Side by side with docker and podman, in one run: pull an image of some 300 MB in 6 layers, and in 20, of gzip and of zstd, from
# a registry on loopback; pull it again; load it from an archive; the most memory that a pull takes; a list of 1,000 images.
# usage: benches/images.sh
#   STACK=FILE        the binary to measure (default: stack)
#   RUNS=N            runs of each measurement; the median counts (default: 3)
#   DOCKER_TREE=DIR   an unpacked Docker, PODMAN_TREE=DIR podman; made by docker-tree.sh and podman-tree.sh if they aren't there
# All run in pid, mount and network namespaces of this script, beside a dockerd of its own; all is gone at the end.
set -euo pipefail
export PODMAN_TREE=${PODMAN_TREE:-${XDG_CACHE_HOME:-$HOME/.cache}/stack/podman}
[ -x "$PODMAN_TREE/usr/bin/podman" ] || "$(dirname "$0")/podman-tree.sh" "$PODMAN_TREE"
PACKAGES='docker-registry libgpgme11 libsubid4 skopeo time zstd'
OTHERS='docker podman'
source "$(dirname "$0")/lab.sh"
export PATH=$PODMAN_TREE/usr/bin:$PATH
registry=127.0.0.1:5000/bench

# What every Debian machine has, cut into layers of the same size.
cd "$LAB/project"
for part in usr/share usr/lib usr/bin; do
    (cd / && find $part -xdev \( -type f -o -type l \) -size -10M -printf '%s\t%p\n') | awk -F'\t' 'sum <= 1e8 { print } { sum += $1 }'
done >all 2>/dev/null
cat >"$LAB/registry.yml" <<END
version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: $LAB/registry } }
http: { addr: 127.0.0.1:5000 }
END
docker-registry serve "$LAB/registry.yml" >"$LAB/registry.log" 2>&1 &
for count in 6 20; do
    echo 'FROM scratch' >Dockerfile
    awk -F'\t' -v n=$count 'NR == FNR { all += $1; next } { sum += $1; print $2 >(int(sum * n / (all + 1)) + 1 ".list") }' all all
    for number in $(seq $count); do
        tar -C / -cf "$number.tar" --ignore-failed-read -T "$number.list"
        echo "ADD $number.tar /" >>Dockerfile
    done
    echo "services: { large: { build: ., image: \"$registry/gzip:$count\" } }" >compose.yaml
    "$STACK" --root "$LAB/made" build -q >/dev/null 2>&1
    "$STACK" --root "$LAB/made" push -q >/dev/null
    size=$(cat ./*.tar | wc -c) files=$(wc -l <all)
    rm ./*.tar ./*.list
    skopeo copy -q --insecure-policy --src-tls-verify=false --format oci --dest-compress-format zstd \
        "docker://$registry/gzip:$count" "oci:$LAB/zstd:$count"
    skopeo copy -q --insecure-policy --dest-tls-verify=false "oci:$LAB/zstd:$count" "docker://$registry/zstd:$count"
done
"$STACK" --root "$LAB/made" image save "$registry/gzip:6" -o "$LAB/archive.tar"

# A tool that has nothing yet. Nothing is removed meanwhile: before ext4 makes an inode it looks at all that were removed
# within the last minute.
serial=0
fresh() {
    serial=$((serial + 1)) flags=()
    case $1 in
    stack) tool=("$STACK" --root "$LAB/stack$serial" image) ;;
    podman)
        tool=(podman --root "$LAB/podman$serial" --runroot "/run/podman$serial" --storage-driver overlay --cgroup-manager cgroupfs)
        flags=(--signature-policy "$PODMAN_TREE/etc/containers/policy.json")
        ;;
    docker)
        tool=(docker)
        start_dockerd "$LAB/docker$serial"
        ;;
    esac
}
pull() {
    local insecure=()
    [ "$1" != podman ] || insecure=(--tls-verify=false)
    "${tool[@]}" pull -q "${flags[@]}" "${insecure[@]}" "$2"
}

for _ in $(seq "${RUNS:-3}"); do
    for name in stack $OTHERS; do
        for kind in gzip:6 gzip:20 zstd:6 zstd:20; do
            fresh $name
            seconds pull $name "$registry/$kind" >>"$LAB/$kind.$name.values"
        done
        for _ in 1 2 3 4 5; do seconds pull $name "$registry/zstd:20" >>"$LAB/again.$name.values"; done
        fresh $name
        seconds "${tool[@]}" load "${flags[@]}" -i "$LAB/archive.tar" >>"$LAB/load.$name.values"
    done
done
printf '%s; %s; %s\n' "$("$STACK" version)" "$(docker --version)" "$(podman --version)"
printf 'an image of %s MB, %s files\n' $((size / 1000000)) "$files"
printf '%-26s %13s %13s %21s\n' '' stack docker podman
for kind in gzip:6 gzip:20 zstd:6 zstd:20; do
    row $kind "pull, ${kind#*:} layers of ${kind%:*}" ms 1000
done
row again 'pull again' ms 1000
row load load ms 1000
for kind in gzip:6 zstd:20; do
    fresh stack
    /usr/bin/time -f "memory of a pull, $kind: %M KiB" "${tool[@]}" pull -q "$registry/$kind" 2>&1 >/dev/null | tail -1
done

fresh stack
mkdir tiny
echo tiny >tiny/file
tar -C tiny -c file | "${tool[@]}" import - name1 >/dev/null
for number in $(seq 2 1000); do "${tool[@]}" tag name1 "name$number:v$number"; done
for _ in $(seq 20); do seconds "${tool[@]}" ls; done >"$LAB/ls"
printf 'a list of %s images: %.1f ms\n' "$("${tool[@]}" ls --format json | wc -l)" "$(median <"$LAB/ls" | awk '{ print $1 * 1000 }')"
