#!/usr/bin/env bash
# Networks side by side with docker, in one run: throughput and connections between containers and to published ports, names,
# networks made and removed, ports published.
# usage: benches/net.sh
#   STACK=FILE, RUNS=N, DOCKER_TREE=DIR   as in compose.sh
#   PORTS=N   ports published at once (default: 100; docker takes some 30 ms for each)
set -euo pipefail
if [ -z "${LAB:-}" ]; then
    missing=()
    for package in apache2-utils dnsperf iperf3; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
    fi
fi
source "$(dirname "$0")/lab.sh"

# One image for both: busybox, iperf3, dnsperf and their libraries.
cp "$(command -v busybox)" "$LAB/root/bin/busybox"
ln -s busybox "$LAB/root/bin/httpd"
ln -s busybox "$LAB/root/bin/sh"
mkdir -p "$LAB/root/tmp"
for program in $(command -v iperf3 dnsperf); do
    cp "$program" "$LAB/root/bin/"
    ldd "$program" | grep -o '/[^ ]*' | xargs -I{} cp --parents -L {} "$LAB/root/"
done
echo hello >"$LAB/root/www/index.html"
echo web A >"$LAB/root/queries"
tar -C "$LAB/root" -cf "$LAB/image.tar" .
docker import "$LAB/image.tar" bench:1 >/dev/null
"$STACK" image import "$LAB/image.tar" bench:1 >/dev/null

# Another machine, from which the outside path is measured: 192.0.2.2, this one being 192.0.2.1.
ip netns add outside
ip link add up0 type veth peer name lan0 netns outside
ip addr add 192.0.2.1/24 dev up0 && ip link set up0 up
ip -n outside addr add 192.0.2.2/24 dev lan0 && ip -n outside link set lan0 up && ip -n outside link set lo up
outside() { nsenter --net=/run/netns/outside "$@"; }

cat >"$LAB/project/compose.yaml" <<'END'
services:
  web: { image: "bench:1", command: [httpd, -f, -h, /www], stop_signal: SIGKILL, ports: ["8080:80"] }
  iperf: { image: "bench:1", command: [iperf3, -s], stop_signal: SIGKILL, ports: ["5201:5201"] }
  near: { image: "bench:1", command: [busybox, sleep, infinity], stop_signal: SIGKILL }
END
bits() { awk '/receiver/ { for (i = 1; i <= NF; i++) if ($i == "Gbits/sec") print $(i - 1) }'; }
rate() { awk '/^Requests per second/ { print $4 }'; }
queries() { awk '/Queries per second/ { print $4 }'; }

cd "$LAB/project"
printf '%s; %s\n' "$("$STACK" version)" "$(docker --version)"
printf '%-26s %12s %12s %8s\n' '' stack docker ratio
for _ in $(seq "${RUNS:-3}"); do
    for tool in stack docker; do
        compose=("$STACK")
        [ $tool = stack ] || compose=(docker compose)
        "${compose[@]}" up -d >"$LAB/log" 2>&1
        sleep 1
        "${compose[@]}" exec -T near iperf3 -c iperf -t 3 -f g | bits >>"$LAB/inside.$tool.values"
        outside iperf3 -c 192.0.2.1 -t 3 -f g | bits >>"$LAB/outside.$tool.values"
        iperf3 -c 127.0.0.1 -t 3 -f g | bits >>"$LAB/loopback.$tool.values"
        outside ab -q -n 10000 -c 8 http://192.0.2.1:8080/ | rate >>"$LAB/outside-rate.$tool.values"
        ab -q -n 10000 -c 8 http://127.0.0.1:8080/ | rate >>"$LAB/loopback-rate.$tool.values"
        "${compose[@]}" exec -T near dnsperf -s 127.0.0.11 -d /queries -l 3 -q 100 | queries >>"$LAB/names.$tool.values"
        "${compose[@]}" down >"$LAB/log" 2>&1
        network=("$STACK")
        [ $tool = stack ] || network=(docker)
        seconds "${network[@]}" network create bench-made >>"$LAB/create.$tool.values"
        seconds "${network[@]}" network rm bench-made >>"$LAB/remove.$tool.values"
        ports=${PORTS:-100}
        printf 'services:\n  web: { image: "bench:1", command: [httpd, -f], stop_signal: SIGKILL, ports: ["%d-%d:%d-%d"] }\n' \
            20000 $((19999 + ports)) 20000 $((19999 + ports)) >ports.yaml
        seconds "${compose[@]}" -f ports.yaml -p ports up -d >>"$LAB/ports.$tool.values"
        seconds "${compose[@]}" -f ports.yaml -p ports down >>"$LAB/unports.$tool.values"
    done
done
row inside 'container to container' 'Gbit/s' 1
row outside 'published, from outside' 'Gbit/s' 1
row loopback 'published, 127.0.0.1' 'Gbit/s' 1
row outside-rate 'requests, from outside' '/s' 1
row loopback-rate 'requests, 127.0.0.1' '/s' 1
row names 'names' '/s' 1
row create 'network create' ms 1000
row remove 'network rm' ms 1000
row ports "up with ${PORTS:-100} ports" ms 1000
row unports "down with ${PORTS:-100} ports" ms 1000
