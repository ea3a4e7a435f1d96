# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# A real systemd as process 1 of namespaces of its own, in a cgroup of its own, with none but the units it is given. All of
# it is gone when the script ends, however it ends. Needs root, and a kernel that gives namespaces and a cgroup2 hierarchy.
#
#   machine_start DIR     boots with the units in DIR/units; DIR/manager.log is what systemd says. What is in DIR/etc stands in
#                         for the files of those names in /etc, DIR/opt for /opt, and any user may open /dev/userfaultfd.
#   machine COMMAND...    runs a command in it
#   machine_end

systemd=/lib/systemd/systemd

skip() {
    echo "SKIPPED: $*" >&2
    exit 77
}

machine_pid='' machine_cgroup='' machine_dir=''

# In the namespaces: what systemd needs, and nothing of this machine's that it could change.
machine_inside() {
    set -euo pipefail
    local file
    mount -t proc proc /proc
    mount --bind /proc/sys /proc/sys
    mount -o remount,bind,ro /proc/sys
    mount --bind "$1/manager.log" /dev/kmsg
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /etc/systemd
    mount -t tmpfs tmpfs /var/lib
    umount -R /sys/fs/cgroup 2>/dev/null || true
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    cp -r "$1/units" /run/units
    for file in "$1"/etc/*; do
        [ ! -f "$file" ] || mount --bind "$file" "/etc/${file##*/}"
    done
    [ ! -d "$1/opt" ] || mount --bind "$1/opt" /opt
    mount -t tmpfs -o mode=755 tmpfs /mnt
    # Nodes of its own: systemd gives the console another mode, and a bound /dev/null would be the machine's.
    mknod -m 600 /mnt/console c 1 3
    mount --bind /mnt/console /dev/console
    if [ -c /dev/userfaultfd ]; then
        mknod -m 666 /mnt/userfaultfd c "$((0x$(stat -c %t /dev/userfaultfd)))" "$((0x$(stat -c %T /dev/userfaultfd)))"
        mount --bind /mnt/userfaultfd /dev/userfaultfd
    fi
    export SYSTEMD_UNIT_PATH=/run/units container=other
    exec "$systemd" --system --unit=test.target --show-status=no --log-target=kmsg --log-level=info
}

machine_skip_unless_possible() {
    local program
    [ "$(id -u)" -eq 0 ] || skip "only root can run a systemd of its own"
    [ -x "$systemd" ] || skip "no systemd on this machine"
    for program in unshare nsenter systemctl findmnt; do
        command -v "$program" >/dev/null || skip "$program is missing"
    done
    unshare --pid --fork --mount --uts --ipc --net --cgroup true 2>/dev/null || skip "no namespaces here"
    machine_cgroup=$(findmnt -n -t cgroup2 -o TARGET | head -n 1)/faultline-test-$$
    mkdir "$machine_cgroup" 2>/dev/null || {
        machine_cgroup=''
        skip "no cgroup can be made here"
    }
}

machine() {
    nsenter -t "$machine_pid" --mount --uts --ipc --net --cgroup --pid "$@"
}

machine_start() {
    local outer deadline=$((SECONDS + 60))
    machine_skip_unless_possible
    machine_dir=$1
    : >"$machine_dir/manager.log"
    printf '[Unit]\nDefaultDependencies=no\n' >"$machine_dir/units/test.target"
    export systemd
    export -f machine_inside
    (
        echo "$BASHPID" >"$machine_cgroup/cgroup.procs"
        # shellcheck disable=SC2016 # the inner bash expands it
        exec setpriv --pdeathsig KILL unshare --pid --fork --kill-child=KILL --mount --uts --ipc --net --cgroup \
            --propagation private bash -c 'machine_inside "$1"' machine "$machine_dir" >"$machine_dir/boot.log" 2>&1
    ) &
    outer=$!
    until machine_pid=$(cat "/proc/$outer/task/$outer/children" 2>/dev/null) && machine_pid=${machine_pid// /} &&
        [ -n "$machine_pid" ] && machine systemctl is-active --quiet test.target 2>/dev/null; do
        kill -0 "$outer" 2>/dev/null || fail "systemd ended: $(cat "$machine_dir/boot.log")"
        [ "$SECONDS" -lt "$deadline" ] || fail "systemd did not come up in 60 s"
        sleep 0.05
    done
}

machine_end() {
    local deadline=$((SECONDS + 60))
    [ -z "$machine_pid" ] || kill -KILL "$machine_pid" 2>/dev/null || true
    machine_pid=''
    [ -n "$machine_cgroup" ] || return 0
    until find "$machine_cgroup" -depth -type d -exec rmdir {} + 2>/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || {
            echo "left behind: $machine_cgroup" >&2
            return 1
        }
        sleep 0.05
    done
    machine_cgroup=''
}
