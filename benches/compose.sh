#!/usr/bin/env bash
# Side by side with docker compose, in one run: up, up again with nothing to do, down, of stacks of 1, 10 and 50 services.
# usage: benches/compose.sh [SIZES]
#   STACK=FILE        the binary to measure (default: stack)
#   RUNS=N            runs of each measurement; the median counts (default: 5)
#   DOCKER_TREE=DIR   an unpacked Docker; made by docker-tree.sh if it isn't there
# Both run in pid, mount and network namespaces of this script, beside a dockerd of its own; all is gone at the end.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${LAB:-}" ]; then
    DOCKER_TREE=${DOCKER_TREE:-${XDG_CACHE_HOME:-$HOME/.cache}/stack/docker}
    [ -x "$DOCKER_TREE/usr/sbin/dockerd" ] || "$here/docker-tree.sh" "$DOCKER_TREE"
    # dockerd calls iptables.
    missing=()
    for package in busybox-static iproute2 iptables; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
    fi
    STACK=$(realpath "$(command -v "${STACK:-stack}")")
    LAB=$(mktemp -d "${TMPDIR:-/tmp}/bench.XXXXXX")
    export LAB STACK DOCKER_TREE
    sweep() {
        find /sys/fs/cgroup -depth -type d -path "*/${LAB##*/}*" -exec rmdir {} + 2>/dev/null || true
        rm -rf "$LAB"
    }
    trap sweep EXIT
    unshare --mount --net --pid --fork --kill-child --propagation private "$here/compose.sh" "$@"
    exit
fi

# A /proc and /sys of these namespaces with the machine's control groups in place, and an empty /run.
mount -t proc proc /proc
mkdir "$LAB/cgroup"
mount --rbind /sys/fs/cgroup "$LAB/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$LAB/cgroup" /sys/fs/cgroup
umount -l "$LAB/cgroup"
mount -t tmpfs tmpfs /run
ip link set lo up
mkdir -p /run/lock "$LAB"/{docker,config/cli-plugins,root/bin,root/www,project}
ln -s "$DOCKER_TREE"/usr/libexec/docker/cli-plugins/* "$LAB/config/cli-plugins/"
echo '{}' >"$LAB/config/config.json"
export PATH=$DOCKER_TREE/usr/sbin:$DOCKER_TREE/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin
export DOCKER_HOST=unix://$LAB/docker.sock DOCKER_CONFIG=$LAB/config STACK_ROOT=$LAB/stack LC_ALL=C
dockerd --data-root "$LAB/docker" --exec-root /run/docker --pidfile /run/docker.pid -H "$DOCKER_HOST" \
    --storage-driver overlay2 --cgroup-parent "/${LAB##*/}" --default-address-pool base=10.200.0.0/16,size=24 \
    >"$LAB/dockerd.log" 2>&1 &
for _ in $(seq 300); do
    docker version >/dev/null 2>&1 && break
    sleep 0.1
done
docker version >/dev/null || { tail "$LAB/dockerd.log" >&2; exit 1; }

# One image for both: a static busybox that serves a page.
cp "$(command -v busybox)" "$LAB/root/bin/busybox"
ln -s busybox "$LAB/root/bin/httpd"
tar -C "$LAB/root" -cf "$LAB/image.tar" .
docker import "$LAB/image.tar" bench:1 >/dev/null
"$STACK" image import "$LAB/image.tar" bench:1 >/dev/null

project() {
    local number
    echo 'services:'
    for number in $(seq "$1"); do
        echo "  s$number: { image: \"bench:1\", command: [httpd, -f, -h, /www], stop_signal: SIGKILL, networks: [net] }"
    done
    echo 'networks: { net: {} }'
}

# Seconds that a command takes.
seconds() {
    local begin=$EPOCHREALTIME
    "$@" >"$LAB/log" 2>&1 || { cat "$LAB/log" >&2; return 1; }
    awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.4f\n", b - a }'
}
median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

cd "$LAB/project"
printf '%s; %s; %s\n' "$("$STACK" version)" "$(docker compose version)" "$(docker --version)"
printf '%-22s %10s %10s %8s\n' '' stack docker ratio
for size in ${1:-1 10 50}; do
    project "$size" >compose.yaml
    rm -f "$LAB"/*.times
    for _ in $(seq "${RUNS:-5}"); do
        for tool in stack docker; do
            compose=("$STACK")
            [ $tool = stack ] || compose=(docker compose)
            seconds "${compose[@]}" up -d >>"$LAB/up.$tool.times"
            seconds "${compose[@]}" up -d >>"$LAB/up again.$tool.times"
            seconds "${compose[@]}" down >>"$LAB/down.$tool.times"
        done
    done
    for what in up 'up again' down; do
        mine=$(median <"$LAB/$what.stack.times") theirs=$(median <"$LAB/$what.docker.times")
        awk -v what="$what, $size" -v a="$mine" -v b="$theirs" \
            'BEGIN { printf "%-22s %8.3f s %8.3f s %7.1f×\n", what, a, b, b / a }'
    done
done
