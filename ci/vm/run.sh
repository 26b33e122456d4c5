#!/usr/bin/env bash
# Boots one of Debian's cloud kernels in an emulated machine and runs this tree's binaries in it: the quickstart, the
# runtime's tests and those integration tests that a kernel decides. Ends with the exit code of what ran inside. It takes
# less than fifteen minutes where two processors have nothing else to do.
#
#     ci/vm/run.sh                                  Debian 12's kernel (6.1), cgroup v2: what most users have
#     ci/vm/run.sh --kernel 6.12 --cgroup hybrid    another kernel, another layout of control groups (v2, v1, hybrid)
#     ci/vm/run.sh -- /guest/all everything         all integration tests that the small Debian in it can run: hours
#     ci/vm/run.sh -- /guest/tests/runtime limits   only these tests of one test program
#     ci/vm/run.sh -- sh -c 'stack doctor'          any command
#
# Needs no KVM and touches nothing of this machine: kernel and root file system are unpacked below $STACK_TOOLS/vm, and
# every boot forgets what it wrote. PROFILE=release uses release builds. TIMEOUT is in seconds.
set -euo pipefail
cd "$(dirname "$0")/../.."

series=6.1 layout=v2
while [ $# -gt 0 ]; do
    case $1 in
        --kernel) series=$2; shift 2 ;;
        --cgroup) layout=$2; shift 2 ;;
        --) shift; break ;;
        *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2 ;;
    esac
done
[ $# -gt 0 ] || set -- /guest/all
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}
cache=${STACK_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/stack-tools}/vm
scratch=$(mktemp -d "${TMPDIR:-/tmp}/stack-vm.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$cache"

tools() {
    local missing=() package
    for package in busybox-static cpio e2fsprogs kmod mmdebstrap qemu-system-x86; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
}

# Debian's kernel package of a series, unpacked, never installed. Sets `kernel`.
kernel() {
    local meta=linux-image-cloud-amd64 package
    [ "$series" = 6.1 ] || meta=linux-image-$series-cloud-amd64
    package=$(apt-cache depends "$meta" 2>/dev/null | awk '/Depends:/ { print $2; exit }')
    if [ -z "$package" ]; then
        apt-get update -q
        package=$(apt-cache depends "$meta" | awk '/Depends:/ { print $2; exit }')
    fi
    kernel=$cache/$package
    [ ! -d "$kernel" ] || return 0
    (cd "$scratch" && apt-get -o APT::Sandbox::User=root download -qq "$package" && dpkg-deb -x "$package"_*.deb kernel)
    depmod -b "$scratch/kernel" "${package#linux-image-}"
    mv "$scratch/kernel" "$kernel"
}

# A small Debian as a disk image, to be used as a snapshot. Sets `base`.
base() {
    local packages=busybox-static,iproute2,kmod,mount,nftables,procps,python3
    base=$cache/base-$(echo "$packages" | cksum | cut -d' ' -f1).ext4
    [ ! -f "$base" ] || return 0
    mmdebstrap --quiet --variant=essential --include="$packages" bookworm "$scratch/base"
    disk "$scratch/base" "$scratch/base.ext4" 1200
    mv "$scratch/base.ext4" "$base"
    rm -rf "$scratch/base"
}

# A folder as a file system of that many MiB.
disk() { mke2fs -q -t ext4 -d "$1" "$2" "$3M" >/dev/null; }

# The binaries at the very paths that they were built at, which is where the tests look for them, and the examples.
work() {
    local work=$scratch/work programs kind name program
    mkdir -p "$work/guest/tests" "$work$PWD"
    programs=$(cargo test --locked --no-run --test it --test runtime --profile "${PROFILE:-dev}" --message-format=json |
        sed -n 's/.*"kind":\["\(test\|bin\)"\].*"name":"\([^"]*\)","src_path".*"executable":"\([^"]*\)".*/\1 \2 \3/p')
    while read -r kind name program; do
        mkdir -p "$work$(dirname "$program")"
        strip -g -o "$work$program" "$program"
        if [ "$kind" = test ]; then name=tests/$name; fi
        ln -s "$program" "$work/guest/$name"
    done <<<"$programs"
    cp -r examples "$work$PWD/"
    ln -s "$PWD" "$work/guest/tree"
    printf '%s\n' /guest "$PWD" "$(realpath "$CARGO_TARGET_DIR")" >"$work/guest/places"
    cp ci/vm/guest/* "$work/guest/"
    cp -r "$kernel/lib/modules" "$work/guest/modules"
    printf '%s\0' "$@" >"$work/guest/command"
    disk "$work" "$scratch/work.ext4" 1500
    rm -rf "$work"
}

# What the kernel starts with: busybox, the modules for the disks, and a script that mounts them.
initramfs() {
    local root=$scratch/initramfs modules
    mkdir -p "$root"/{bin,dev,proc,modules,root}
    cp /bin/busybox "$root/bin/"
    cp ci/vm/boot "$root/init"
    modules=$(modprobe -d "$kernel" -S "${kernel##*linux-image-}" -D -a virtio_pci virtio_blk | awk '/^insmod/ && !seen[$2]++ { print $2 }')
    for module in $modules; do
        cp "$module" "$root/modules/$(printf %02d "$(ls "$root/modules" | wc -l)")-$(basename "$module")"
    done
    (cd "$root" && find . | cpio --quiet -o -H newc) >"$scratch/initramfs.cpio"
}

boot() {
    nice -n 15 timeout "${TIMEOUT:-900}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 \
        -nodefaults -no-user-config -display none -no-reboot \
        -kernel "$kernel/boot/vmlinuz-${kernel##*linux-image-}" -initrd "$scratch/initramfs.cpio" \
        -append "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off no_timer_check rcupdate.rcu_cpu_stall_suppress=1 stack.cgroup=$layout" \
        -chardev stdio,id=console,signal=off -serial chardev:console -serial "file:$scratch/code" \
        -drive "file=$base,format=raw,if=virtio,snapshot=on" -drive "file=$scratch/work.ext4,format=raw,if=virtio" \
        </dev/null | sed -u 's/\r$//'
}

tools && kernel && base && work "$@" && initramfs
echo "vm: ${kernel##*/} with cgroup $layout, after $SECONDS s of preparation"
boot || true
code=$(tr -dc 0-9 <"$scratch/code")
echo "vm: exit code ${code:-unknown (no answer: it hung or crashed)} after $SECONDS s"
exit "${code:-1}"
