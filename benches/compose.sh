#!/usr/bin/env bash
# Side by side with docker compose, in one run: up, up again with nothing to do, down, and the memory of what looks after
# the containers meanwhile, of stacks of 1, 10 and 50 services; a one-off container; a command in a running one; dev mode.
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
        rmdir /var/lib/stack 2>/dev/null || true
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
mkdir -p /run/lock /var/lib/stack "$LAB"/{docker,stack,config/cli-plugins,root/bin,root/www,project}
mount --bind "$LAB/stack" /var/lib/stack
ln -s "$DOCKER_TREE"/usr/libexec/docker/cli-plugins/* "$LAB/config/cli-plugins/"
echo '{}' >"$LAB/config/config.json"
export PATH=$DOCKER_TREE/usr/sbin:$DOCKER_TREE/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin
export DOCKER_HOST=unix://$LAB/docker.sock DOCKER_CONFIG=$LAB/config LC_ALL=C
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
for applet in httpd sh cp; do ln -s busybox "$LAB/root/bin/$applet"; done
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

# KiB of memory of what a tool runs beside the containers, shared pages by their share.
keepers() {
    local pattern='^(dockerd|containerd|docker-proxy)' process
    [ "$1" = docker ] || pattern='^(stack|exe)'
    for process in /proc/[0-9]*; do
        if grep -qsE "$pattern" "$process/comm"; then cat "$process/smaps_rollup"; fi
    done 2>/dev/null | awk '/^Pss:/ { sum += $2 } END { print sum }'
}
row() {
    local mine theirs
    mine=$(median <"$LAB/$1.stack.values") theirs=$(median <"$LAB/$1.docker.values")
    awk -v what="$2" -v a="$mine" -v b="$theirs" -v unit="$3" -v scale="$4" \
        'BEGIN { printf "%-26s %9.1f %s %9.1f %s %7.1f×\n", what, a * scale, unit, b * scale, unit, b / a }'
    rm -f "$LAB/$1".*.values
}

cd "$LAB/project"
printf '%s; %s; %s\n' "$("$STACK" version)" "$(docker compose version)" "$(docker --version)"
printf '%-26s %12s %12s %8s\n' '' stack docker ratio
for size in ${1:-1 10 50}; do
    project "$size" >compose.yaml
    for _ in $(seq "${RUNS:-5}"); do
        for tool in stack docker; do
            compose=("$STACK")
            [ $tool = stack ] || compose=(docker compose)
            seconds "${compose[@]}" up -d >>"$LAB/up.$tool.values"
            seconds "${compose[@]}" up -d >>"$LAB/again.$tool.values"
            keepers $tool >>"$LAB/memory.$tool.values"
            seconds "${compose[@]}" exec -T s1 busybox true >>"$LAB/exec.$tool.values"
            seconds "${compose[@]}" down >>"$LAB/down.$tool.values"
        done
    done
    row up "up, $size" ms 1000
    row again "up again, $size" ms 1000
    row exec "exec beside $size" ms 1000
    row down "down, $size" ms 1000
    row memory "memory for $size, each" KiB "$(awk -v n="$size" 'BEGIN { print 1 / n }')"
done
project 1 >compose.yaml
"$STACK" run --rm s1 busybox true 2>/dev/null
for _ in $(seq "${RUNS:-5}"); do
    # The kernel clears namespaces away after the command that left them has ended, and holds up the next.
    sleep 0.3
    seconds "$STACK" run --rm s1 busybox true >>"$LAB/run.stack.values"
    sleep 0.3
    seconds docker run --rm bench:1 busybox true >>"$LAB/run.docker.values"
done
row run 'run --rm' ms 1000
"$STACK" down >/dev/null 2>&1

# Dev mode: from a saved file to the answer of a new process, which shows what the file said when it began.
mkdir -p src
cat >compose.yaml <<'END'
services:
  web:
    image: "bench:1"
    command: [sh, -c, "cp /src/v /www/v; exec httpd -f -h /www"]
    stop_signal: SIGKILL
    develop: { watch: [{ action: sync+restart, path: ./src, target: /src, initial_sync: true }] }
END
saved() {
    local version=$1 address=$2 said
    echo "$version" >src/v
    for _ in $(seq 20000); do
        said=$(busybox wget -q -T 5 -O - "http://$address/v" 2>/dev/null) || true
        [ "$said" != "$version" ] || return 0
    done
    return 1
}
for tool in stack docker; do
    compose=("$STACK")
    [ $tool = stack ] || compose=(docker compose)
    echo 0 >src/v
    "${compose[@]}" up -d >/dev/null 2>&1
    address=$("${compose[@]}" exec -T web busybox hostname -i)
    "${compose[@]}" watch --no-up >"$LAB/watch.log" 2>&1 &
    watcher=$!
    until grep -qi 'watch enabled' "$LAB/watch.log"; do sleep 0.1; done
    saved first "$address"
    for run in $(seq "${RUNS:-5}"); do
        sleep 1
        seconds saved "$run" "$address" >>"$LAB/watch.$tool.values"
    done
    kill -INT "$watcher"
    wait "$watcher" || true
    "${compose[@]}" down -t 0 >/dev/null 2>&1
done
row watch 'watch: saved to serving' ms 1000
