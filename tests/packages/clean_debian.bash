# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# A clean, minimal Debian 12, made by debootstrap and kept in a folder, so that it is made once. What a test does in it goes to
# layers that are gone when the test ends. Needs fail() and skip(), and a mount namespace of the test's own.
#
#   clean_debian CACHE            makes CACHE/base (systemd and no more) and CACHE/developer (what programs are built with)
#   clean_layer LOWER... ROOT     ROOT is then a tree over LOWERs, whose changes are in memory
#   clean_boot ROOT DIR           boots it, as machine_start of tests/e2e/systemd/machine.bash does; then machine COMMAND...

# shellcheck source=tests/e2e/systemd/machine.bash
. "$(dirname "${BASH_SOURCE[0]}")/../e2e/systemd/machine.bash"

# Where this machine gets Debian from: "URL SUITE" for each part of it.
debian_mirrors() {
    apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        sed -nE 's/^([^ ]+ bookworm(-updates|-security)?) main$/\1/p' | sort -u
}

# download FOLDER COMMAND...: runs it, says what it said if it fails. A mirror that fails once is asked again.
download() {
    local log=$1/log
    shift
    "$@" >"$log" 2>&1 || { sleep 5 && "$@" >"$log" 2>&1; } ||
        { tail -n 5 "$log" >&2 && skip "Debian's packages cannot be had: $* failed (see above)"; }
}

in_root() { # in_root ROOT COMMAND...
    # What a developer's shell says of compilers is not in there.
    env -u CMAKE_C_COMPILER_LAUNCHER DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 TMPDIR=/tmp chroot "$@"
}

# The base is complete when its file "complete" is there: a run that was cut short begins anew.
clean_debian() {
    local cache=$1 mirror
    mkdir -p "$cache/archives/partial"
    if [ ! -e "$cache/base.complete" ]; then
        mirror=$(debian_mirrors | awk '$2 == "bookworm" { print $1; exit }')
        [ -n "$mirror" ] || skip "apt's sources name no mirror of Debian 12"
        rm -rf "$cache/base" "$cache"/developer*
        download "$cache" debootstrap --variant=minbase --include=systemd-sysv \
            --keyring=/usr/share/keyrings/debian-archive-keyring.gpg bookworm "$cache/base" "$mirror"
        debian_mirrors | sed 's/^/deb /; s/$/ main/' >"$cache/base/etc/apt/sources.list"
        echo 'force-unsafe-io' >"$cache/base/etc/dpkg/dpkg.cfg.d/unsafe-io"
        rm -f "$cache/base/var/cache/apt/archives"/*.deb
        download "$cache" in_root "$cache/base" apt-get update -q
        touch "$cache/base.complete"
    fi
    if [ ! -e "$cache/developer.complete" ]; then
        rm -rf "$cache"/developer*
        mkdir -p "$cache/developer" "$cache/developer.work" "$cache/root"
        mount -t overlay overlay -o "lowerdir=$cache/base,upperdir=$cache/developer,workdir=$cache/developer.work" "$cache/root"
        archives_mount "$cache" "$cache/root"
        download "$cache" in_root "$cache/root" apt-get install -q -y --no-install-recommends gcc libc6-dev pkgconf cmake make
        umount -R "$cache/root"
        touch "$cache/developer.complete"
    fi
}

# What apt has downloaded is kept for the next run; names are resolved as here.
archives_mount() {
    mount --bind "$1/archives" "$2/var/cache/apt/archives"
    cp /etc/resolv.conf "$2/etc/resolv.conf"
}

clean_layer() {
    local lower='' root=${*: -1}
    while [ $# -gt 1 ]; do
        lower+=:$1
        shift
    done
    mkdir -p "$root" "$root.changes"
    mount -t tmpfs tmpfs "$root.changes"
    mkdir "$root.changes/upper" "$root.changes/work"
    mount -t overlay overlay -o "lowerdir=${lower#:},upperdir=$root.changes/upper,workdir=$root.changes/work" "$root"
}

# In the namespaces: its own /dev, with the devices that it needs; nothing of this machine's that systemd could change.
clean_inside() {
    set -euo pipefail
    local root=$1 device
    mount -t proc proc "$root/proc"
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount -o remount,bind,ro "$root/proc/sys"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for device in null zero full random urandom tty userfaultfd; do
        mknod -m 666 "$root/dev/$device" c "0x$(stat -c %t "/dev/$device")" "0x$(stat -c %T "/dev/$device")"
    done
    chmod 600 "$root/dev/userfaultfd"
    mkdir "$root/dev/shm" "$root/dev/pts"
    mount -t tmpfs tmpfs "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    touch "$root/dev/kmsg"
    mount --bind "$2/manager.log" "$root/dev/kmsg"
    # A node of its own: systemd gives the console another mode, and a bound /dev/null would be the machine's.
    mknod -m 600 "$root/dev/console" c 1 3
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    cd "$root"
    pivot_root . .
    umount -l .
    export container=other
    exec /lib/systemd/systemd --system --show-status=no --log-target=kmsg --log-level=info
}

clean_boot() {
    local outer root=$1 deadline=$((SECONDS + 120)) state
    machine_skip_unless_possible
    : >"$2/manager.log"
    export -f clean_inside
    (
        echo "$BASHPID" >"$machine_cgroup/cgroup.procs"
        # shellcheck disable=SC2016 # the inner bash expands it
        exec setpriv --pdeathsig KILL unshare --pid --fork --kill-child=KILL --mount --uts --ipc --net --cgroup \
            --propagation private bash -c 'clean_inside "$@"' machine "$root" "$2" >"$2/boot.log" 2>&1
    ) &
    outer=$!
    until machine_pid=$(cat "/proc/$outer/task/$outer/children" 2>/dev/null) && machine_pid=${machine_pid// /} &&
        [ -n "$machine_pid" ] && state=$(machine systemctl is-system-running 2>/dev/null || true) &&
        [[ $state =~ ^(running|degraded)$ ]]; do
        kill -0 "$outer" 2>/dev/null || fail "systemd ended: $(cat "$2/boot.log")"
        [ "$SECONDS" -lt "$deadline" ] || fail "systemd is ${state:-not there} after 120 s"
        sleep 0.1
    done
}
