# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What both tests need: a place of their own, waiting with a deadline, and an end that leaves nothing behind.
work=$(mktemp -d)
touchers=() # processes that may wait for a page

fail() {
    echo "FAILED: $*" >&2
    tail -n 40 "$work"/*.log "$work"/*.out >&2 || true
    exit 1
}

# shellcheck source=tests/e2e/systemd/machine.bash
. "$(dirname "${BASH_SOURCE[0]}")/machine.bash"

clean_up() {
    trap '' INT TERM
    # Before those who serve them: a page that is let go by the last who could fill it would be zeros.
    [ ${#touchers[@]} -eq 0 ] || kill -KILL "${touchers[@]}" 2>/dev/null || true
    machine_end
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# says NAME TEXT [COUNT]: waits until NAME.out or NAME.log has so many lines with it.
says() {
    local deadline=$((SECONDS + 60))
    until [ "$(cat "$work/$1".{out,log} 2>/dev/null | grep -c -- "$2" || true)" -ge "${3:-1}" ]; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$1 has not said '$2' ${3:-1} times"
        sleep 0.02
    done
}

never_said() {
    ! grep -s -- "$2" "$work/$1".{out,log} || fail "$1 has said '$2'"
}

ctl() {
    machine systemctl "$@" || fail "systemctl $*: $?"
}

main_pid() {
    machine systemctl show -P MainPID "$1"
}

stored() {
    machine systemctl show -P NFileDescriptorStore "$1"
}

# stores NAME COUNT: the manager keeps so many descriptors for it.
stores() {
    local got
    got=$(stored "$1")
    [ "$got" = "$2" ] || fail "$1 has $got descriptors in the store, not $2"
}
