# shellcheck shell=bash
# A place for measurements side by side, sourced first: pid, mount and network namespaces of the script that sources it, with a
# dockerd of its own, all gone at the end. $STACK is the binary, $LAB a folder; PACKAGES are those that the script needs besides.
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${LAB:-}" ]; then
    DOCKER_TREE=${DOCKER_TREE:-${XDG_CACHE_HOME:-$HOME/.cache}/stack/docker}
    [ -x "$DOCKER_TREE/usr/sbin/dockerd" ] || "$here/docker-tree.sh" "$DOCKER_TREE"
    # dockerd calls iptables.
    missing=()
    for package in busybox-static curl iproute2 iptables ${PACKAGES:-}; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt-get update -q && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
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
    unshare --mount --net --pid --fork --kill-child --propagation private "$here/${0##*/}" "$@"
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
# A dockerd that keeps its data in a folder, in the place of the one before.
start_dockerd() {
    if [ -n "${daemon:-}" ]; then kill "$daemon" && wait "$daemon" || true; fi
    dockerd --data-root "$1" --exec-root /run/docker --pidfile /run/docker.pid -H "$DOCKER_HOST" \
        --storage-driver overlay2 --cgroup-parent "/${LAB##*/}" --default-address-pool base=10.200.0.0/16,size=24 \
        >"$LAB/dockerd.log" 2>&1 &
    daemon=$!
    for _ in $(seq 300); do
        docker version >/dev/null 2>&1 && return
        sleep 0.1
    done
    tail "$LAB/dockerd.log" >&2
    return 1
}
start_dockerd "$LAB/docker"

# Seconds that a command takes.
seconds() {
    local begin=$EPOCHREALTIME
    "$@" >"$LAB/log" 2>&1 || { cat "$LAB/log" >&2; return 1; }
    awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.4f\n", b - a }'
}
median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# A line of medians in a unit, those of the others with how many times ours they are. Takes the values away.
row() {
    local mine theirs other
    mine=$(median <"$LAB/$1.stack.values")
    printf '%-26s %9.1f %-3s' "$2" "$(awk -v a="$mine" -v scale="$4" 'BEGIN { print a * scale }')" "$3"
    for other in ${OTHERS:-docker}; do
        theirs=$(median <"$LAB/$1.$other.values")
        awk -v a="$mine" -v b="$theirs" -v unit="$3" -v scale="$4" \
            'BEGIN { printf " %9.1f %-3s %6.1f×", b * scale, unit, b / a }'
    done
    echo
    rm -f "$LAB/$1".*.values
}
