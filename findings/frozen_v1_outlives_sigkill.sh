#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# SIGKILL does not end a process that the cgroup v1 freezer has frozen; it ends one that cgroup v2 has frozen.
#
# Guess: both freezers let SIGKILL through, since nothing else can be told to a frozen process.
# Seen on Linux 6.18: v2 (cgroup.freeze) dies at once. v1 (freezer.state) stays in state D with the signal pending until
#   it is thawed, and then dies before it runs another instruction of its own.
# So: whoever kills a VM to end its waiting must not wait for the end of one that an orchestrator has paused by v1, nor
#   take the signal's success for an end.
set -euo pipefail +m
v1=/sys/fs/cgroup/freezer
v2=/sys/fs/cgroup/unified
[ -e $v2/cgroup.procs ] || v2=/sys/fs/cgroup
name=finding-freezer-$$
if [ "$(id -u)" -ne 0 ] || [ ! -d $v1 ] || [ ! -e $v2/cgroup.procs ]; then
    echo "needs root and both hierarchies (the hybrid layout)"
    exit 77
fi
mkdir $v1/$name $v2/$name
trap 'echo THAWED >$v1/$name/freezer.state; echo 0 >$v2/$name/cgroup.freeze; rmdir $v1/$name $v2/$name' EXIT

# within SECONDS COMMAND...: until it succeeds
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}
ended() { ! grep -qv ') Z ' "/proc/$1/stat" 2>/dev/null; }
frozen_v1() { grep -q FROZEN $v1/$name/freezer.state; }
frozen_v2() { grep -q 'frozen 1' $v2/$name/cgroup.events; }

status=0
sleep 1000 &
pid=$!
echo $pid >$v1/$name/cgroup.procs
echo FROZEN >$v1/$name/freezer.state
within 5 frozen_v1
kill -KILL $pid
if within 3 ended $pid; then
    echo "v1: died while frozen"
    status=1
else
    echo "v1: lives on, $(grep State /proc/$pid/status | tr -s '\t' ' ')"
fi
echo THAWED >$v1/$name/freezer.state
within 5 ended $pid || { echo "v1: not even when thawed"; status=1; }
wait $pid 2>/dev/null || true

sleep 1000 &
pid=$!
echo $pid >$v2/$name/cgroup.procs
echo 1 >$v2/$name/cgroup.freeze
within 5 frozen_v2
kill -KILL $pid
if within 3 ended $pid; then
    echo "v2: died while frozen"
else
    echo "v2: lives on"
    status=1
fi
echo 0 >$v2/$name/cgroup.freeze
wait $pid 2>/dev/null || true
exit $status
