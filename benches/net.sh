#!/usr/bin/env bash
# Networks side by side with docker, in one run: throughput and connections between containers and to published ports, names,
# networks made and removed, ports published.
# usage: benches/net.sh
#   STACK=FILE, RUNS=N, DOCKER_TREE=DIR   as in compose.sh
#   PORTS=N   ports published at once (default: 100; docker takes some 30 ms for each)
#   MANY=N    containers that are attached and taken down at once (default: 50)
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
# Latencies of single requests in ms, from a table of percentiles.
middle() { awk -F, '$1 == 50 { print $2 }' "$LAB/percentiles"; }
# The time in ms that 99 of 100 answers took, from one line for each.
slowest() { awk '/^> NOERROR/ { print $NF * 1000 }' | sort -g | awk '{ v[NR] = $1 } END { print v[int(NR * 0.99)] }'; }
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
        ab -q -n 5000 -c 1 -e "$LAB/percentiles" http://127.0.0.1:8080/ >"$LAB/log"
        middle >>"$LAB/loopback-wait.$tool.values"
        "${compose[@]}" exec -T near dnsperf -s 127.0.0.11 -d /queries -l 3 -q 100 | queries >>"$LAB/names.$tool.values"
        "${compose[@]}" exec -T near dnsperf -v -s 127.0.0.11 -d /queries -l 2 -q 10 -Q 10000 | slowest >>"$LAB/names-wait.$tool.values"
        "${compose[@]}" down >"$LAB/log" 2>&1
        for mode in none default; do
            printf 'services:\n  one: { image: "bench:1", command: [busybox, sleep, infinity], stop_signal: SIGKILL, scale: %d, %s }\n' \
                "${MANY:-50}" "$([ $mode = none ] && echo 'network_mode: none' || echo 'networks: [default]')" >many.yaml
            seconds "${compose[@]}" -f many.yaml -p many up -d >"$LAB/$mode.up"
            seconds "${compose[@]}" -f many.yaml -p many down -t 0 >"$LAB/$mode.down"
        done
        for way in up down; do
            awk -v many="${MANY:-50}" -v way=$way 'NR == FNR { none = $1; next } { print ($1 - none) / (way == "up" ? many : 1) }' \
                "$LAB/none.$way" "$LAB/default.$way" >>"$LAB/attach-$way.$tool.values"
        done
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
row loopback-wait 'one request, 127.0.0.1' ms 1
row names 'names' '/s' 1
row names-wait 'names, 99 of 100 within' ms 1
row attach-up 'a container attached' ms 1000
row attach-down "${MANY:-50} attachments down" ms 1000
row create 'network create' ms 1000
row remove 'network rm' ms 1000
row ports "up with ${PORTS:-100} ports" ms 1000
row unports "down with ${PORTS:-100} ports" ms 1000

# What the firewall costs for each packet, beside few containers and beside many: datagrams of 64 bytes between two of them.
cat >"$LAB/project/packets.yaml" <<'END'
services:
  iperf: { image: "bench:1", command: [iperf3, -s], stop_signal: SIGKILL, ports: ["5201:5201", "5201:5201/udp"] }
  near: { image: "bench:1", command: [busybox, sleep, infinity], stop_signal: SIGKILL }
  crowd: { image: "bench:1", command: [busybox, sleep, infinity], stop_signal: SIGKILL, scale: 8 }
networks: { default: { ipam: { config: [{ subnet: 10.77.0.0/16 }] } } }
END
received() { awk '/receiver/ { split($(NF - 2), n, "/"); print (n[2] - n[1]) / 3000 }'; }
for crowd in 8 498; do
    "$STACK" -f packets.yaml -p packets up -d --scale crowd=$crowd >"$LAB/log" 2>&1
    for _ in $(seq "${RUNS:-3}"); do
        "$STACK" -p packets exec -T near iperf3 -c iperf -u -b 0 -l 64 -t 3 | received >>"$LAB/packets.values"
        outside iperf3 -c 192.0.2.1 -u -b 0 -l 64 -t 3 | received >>"$LAB/packets-outside.values"
    done
    printf '%3d containers: %6.1f packets/ms between two, %6.1f packets/ms to a published port\n' \
        $((crowd + 2)) "$(median <"$LAB/packets.values")" "$(median <"$LAB/packets-outside.values")"
    rm "$LAB"/packets*.values
done
"$STACK" -p packets down -t 0 >"$LAB/log" 2>&1
