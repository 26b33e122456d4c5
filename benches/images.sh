#!/usr/bin/env bash
# Side by side with docker, in one run: pull an image of six layers from a registry on loopback, pull it again, load it
# from an archive; and the most memory that a pull takes.
# usage: benches/images.sh
#   STACK=FILE        the binary to measure (default: stack)
#   RUNS=N            runs of each measurement; the median counts (default: 3)
#   DOCKER_TREE=DIR   an unpacked Docker; made by docker-tree.sh if it isn't there
# Both run in pid, mount and network namespaces of this script, beside a dockerd of its own; all is gone at the end.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${LAB:-}" ]; then
    DOCKER_TREE=${DOCKER_TREE:-${XDG_CACHE_HOME:-$HOME/.cache}/stack/docker}
    [ -x "$DOCKER_TREE/usr/sbin/dockerd" ] || "$here/docker-tree.sh" "$DOCKER_TREE"
    missing=()
    for package in docker-registry iproute2 iptables time; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt-get update -q && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
    fi
    STACK=$(realpath "$(command -v "${STACK:-stack}")")
    LAB=$(mktemp -d "${TMPDIR:-/tmp}/bench.XXXXXX")
    export LAB STACK DOCKER_TREE
    trap 'rm -rf "$LAB"' EXIT
    unshare --mount --net --pid --fork --kill-child --propagation private "$here/images.sh" "$@"
    exit
fi

mount -t proc proc /proc
mount -t tmpfs tmpfs /run
ip link set lo up
mkdir -p /run/lock "$LAB"/{config,context}
echo '{}' >"$LAB/config/config.json"
export PATH=$DOCKER_TREE/usr/sbin:$DOCKER_TREE/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin
export DOCKER_HOST=unix://$LAB/docker.sock DOCKER_CONFIG=$LAB/config HOME=$LAB LC_ALL=C
image=127.0.0.1:5000/bench/large:1

# Six layers of what every Debian machine has.
cd "$LAB/context"
number=0
for part in usr/bin usr/sbin usr/share/perl usr/lib/python3 'usr/lib/gcc usr/libexec' etc/ssl; do
    number=$((number + 1))
    # shellcheck disable=SC2086
    tar -C / -cf "$number.tar" --ignore-failed-read $part 2>/dev/null || true
done
{ echo 'FROM scratch'; for number in 1 2 3 4 5 6; do echo "ADD $number.tar /"; done; echo 'CMD ["/bin/sh"]'; } >Dockerfile
echo "services: { large: { build: ., image: \"$image\" } }" >compose.yaml
cat >"$LAB/registry.yml" <<END
version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: $LAB/registry } }
http: { addr: 127.0.0.1:5000 }
END
docker-registry serve "$LAB/registry.yml" >"$LAB/registry.log" 2>&1 &
"$STACK" --root "$LAB/made" build -q >/dev/null 2>&1
"$STACK" --root "$LAB/made" push -q >/dev/null
"$STACK" --root "$LAB/made" image save "$image" -o "$LAB/archive.tar"

# A tool that has nothing yet. Nothing is removed meanwhile: before ext4 makes an inode it looks at all that were removed
# within the last minute.
serial=0
fresh() {
    serial=$((serial + 1))
    if [ "$1" = stack ]; then
        tool=("$STACK" --root "$LAB/stack$serial" image)
        return
    fi
    tool=(docker)
    if [ -n "${daemon:-}" ]; then kill "$daemon" && wait "$daemon" || true; fi
    dockerd --data-root "$LAB/docker$serial" --exec-root /run/docker --pidfile /run/docker.pid -H "$DOCKER_HOST" \
        --storage-driver overlay2 >"$LAB/dockerd.log" 2>&1 &
    daemon=$!
    for _ in $(seq 300); do
        docker version >/dev/null 2>&1 && return
        sleep 0.1
    done
    tail "$LAB/dockerd.log" >&2
    return 1
}
seconds() {
    local begin=$EPOCHREALTIME
    "$@" >"$LAB/log" 2>&1 || { cat "$LAB/log" >&2; return 1; }
    awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.4f\n", b - a }'
}
median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
row() {
    awk -v what="$2" -v a="$(median <"$LAB/$1.stack.values")" -v b="$(median <"$LAB/$1.docker.values")" \
        'BEGIN { printf "%-26s %9.1f ms %9.1f ms %7.1f×\n", what, a * 1000, b * 1000, b / a }'
}

for _ in $(seq "${RUNS:-3}"); do
    for name in stack docker; do
        fresh $name
        seconds "${tool[@]}" pull -q "$image" >>"$LAB/pull.$name.values"
        for _ in 1 2 3 4 5; do seconds "${tool[@]}" pull -q "$image" >>"$LAB/again.$name.values"; done
        fresh $name
        seconds "${tool[@]}" load -i "$LAB/archive.tar" >>"$LAB/load.$name.values"
    done
done
printf '%s; %s\n' "$("$STACK" version)" "$(docker --version)"
printf 'an image of %s MB in 6 layers, %s MB of gzip, %s files\n' "$(cat ./*.tar | wc -c | awk '{ print int($1 / 1e6) }')" \
    "$(du -sm "$LAB/registry" | cut -f1)" "$(for tar in ./*.tar; do tar -tf "$tar"; done | wc -l)"
printf '%-26s %12s %12s %8s\n' '' stack docker ratio
row pull pull
row again 'pull again'
row load load
fresh stack
/usr/bin/time -f 'memory of a pull: %M KiB' "${tool[@]}" pull -q "$image" 2>&1 >/dev/null | tail -1
