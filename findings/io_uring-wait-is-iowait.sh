#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A thread that waits in io_uring_enter() for an eventfd, and does no I/O at all, in the accounting of pressure.
#
# With:     Linux 6.18.44, x86-64. Needs root, cgroup v2 and PSI.
# Guess:    a POLL_ADD of an eventfd is no I/O: such a thread sleeps as one in poll() does.
# Behaviour: whatever is under way in the ring, a thread that waits for it is in iowait. Its cgroup's io.pressure says
#           that some task was stalled by I/O for all of the time, and the host's iowait and procs_blocked count it.
# So: one idle daemon that uses a ring as its event loop makes /proc/pressure/io useless as an alarm. Wait for the
#           ring's descriptor or an eventfd by poll() where no read is under way.
# Output seen:
#           poll(): stalled by I/O for less than a tenth of the time
#           io_uring_enter(): stalled by I/O for more than nine tenths of the time
#
# Exits with 0 if it is still so.
set -euo pipefail
v2=/sys/fs/cgroup/unified
[ -e $v2/cgroup.procs ] || v2=/sys/fs/cgroup
if [ "$(id -u)" -ne 0 ] || [ ! -e $v2/cgroup.procs ] || ! cat /proc/pressure/io >/dev/null; then
    echo "needs root, cgroup v2 and PSI"
    exit 77
fi
dir=$(mktemp -d)
group=$v2/finding-iowait-$$
mkdir "$group"
trap 'rm -rf "$dir"; until rmdir "$group"; do sleep 0.1; done' EXIT
cat >"$dir/waits.c" <<'C'
#define _GNU_SOURCE
#include <linux/io_uring.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
enum { CANNOT = 77 };
// Asks for a poll of the descriptor, and waits for it.
static void wait_in_ring(int event_fd)
{
    struct io_uring_params params = {0};
    int ring = (int)syscall(SYS_io_uring_setup, 4, &params);
    if (ring < 0)
        exit(CANNOT);
    size_t bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
    char *queue = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entry = mmap(NULL, params.sq_entries * sizeof(*entry), PROT_READ | PROT_WRITE, MAP_SHARED,
                                      ring, IORING_OFF_SQES);
    if (queue == MAP_FAILED || entry == MAP_FAILED)
        exit(CANNOT);
    memset(entry, 0, sizeof(*entry));
    entry->opcode = IORING_OP_POLL_ADD;
    entry->fd = event_fd;
    entry->poll32_events = POLLIN;
    ((uint32_t *)(queue + params.sq_off.array))[0] = 0;
    __atomic_store_n((uint32_t *)(queue + params.sq_off.tail), 1, __ATOMIC_RELEASE);
    syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0);
}
int main(int argc, char **argv)
{
    int event_fd = eventfd(0, EFD_CLOEXEC);
    struct pollfd poll_fd = {.fd = event_fd, .events = POLLIN};
    alarm(20);
    if (argc > 1 && strcmp(argv[1], "ring") == 0)
        wait_in_ring(event_fd);
    else
        poll(&poll_fd, 1, -1);
    return 0;
}
C
cc -O2 -o "$dir/waits" "$dir/waits.c"

stalled_us() {
    sed -n 's/^some .*total=//p' "$group/io.pressure"
}

# stalled WHERE: for how many hundredths of two seconds the only task of the cgroup counts as stalled by I/O.
stalled() {
    local before after
    bash -c 'echo $$ >"$1/cgroup.procs"; exec "$2" "$3"' sh "$group" "$dir/waits" "$1" &
    sleep 0.5 # it has begun to wait
    kill -0 $! || exit 77
    before=$(stalled_us)
    sleep 2
    after=$(stalled_us)
    kill $!
    wait $! 2>/dev/null || true
    echo $(((after - before) / 20000))
}

say() {
    if [ "$2" -lt 10 ]; then
        echo "$1: stalled by I/O for less than a tenth of the time"
    elif [ "$2" -gt 90 ]; then
        echo "$1: stalled by I/O for more than nine tenths of the time"
    else
        echo "$1: $2 hundredths"
    fi
}

{
    say "poll()" "$(stalled poll)"
    say "io_uring_enter()" "$(stalled ring)"
} | tee "$dir/out"
diff "$dir/out" - <<'OUT'
poll(): stalled by I/O for less than a tenth of the time
io_uring_enter(): stalled by I/O for more than nine tenths of the time
OUT
