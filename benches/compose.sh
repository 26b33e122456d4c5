#!/usr/bin/env bash
# Side by side with docker compose, in one run: up, up again with nothing to do, down, and the memory of what looks after
# the containers meanwhile, of stacks of 1, 10 and 50 services; a one-off container; a command in a running one; dev mode.
# usage: benches/compose.sh [SIZES]
#   STACK=FILE        the binary to measure (default: stack)
#   RUNS=N            runs of each measurement; the median counts (default: 5)
#   DOCKER_TREE=DIR   an unpacked Docker; made by docker-tree.sh if it isn't there
# Both run in pid, mount and network namespaces of this script, beside a dockerd of its own; all is gone at the end.
set -euo pipefail
source "$(dirname "$0")/lab.sh"

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

# KiB of memory of what a tool runs beside the containers, shared pages by their share.
keepers() {
    local pattern='^(dockerd|containerd|docker-proxy)' process
    [ "$1" = docker ] || pattern='^(stack|exe)'
    for process in /proc/[0-9]*; do
        if grep -qsE "$pattern" "$process/comm"; then cat "$process/smaps_rollup"; fi
    done 2>/dev/null | awk '/^Pss:/ { sum += $2 } END { print sum }'
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
        said=$(curl -s -m 5 "http://$address/v") || true
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
