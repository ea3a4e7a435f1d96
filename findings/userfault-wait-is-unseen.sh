#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What the accounting of the kernel says of a program that waits for a second for a userfaultfd's handler.
#
# With:     Linux 6.18.44, x86-64. Needs root, cgroup v2 and PSI.
# Guess:    as for a page that comes from swap or a file: a major fault, state D, and memory or I/O pressure of its
#           cgroup.
# Behaviour: nothing of it. The thread is in state S, as if it waited for a key to be pressed; PSI counts no stall; and
#           the fault is a minor one. Only when a system call touched the page is it a major fault.
# So: load average, iowait, PSI and rates of major faults of a host whose VMs all wait are those of an idle host. Only
#           the handler's own figures, and "pending" and "total" of the descriptor's fdinfo, tell.
# Output seen:
#           touched by the program: state S, major faults 0, stalled by memory 0 us, by I/O 0 us
#           touched by a system call: state S, major faults 1, stalled by memory 0 us, by I/O 0 us
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
group=$v2/finding-unseen-$$
mkdir "$group"
trap 'rm -rf "$dir"; until rmdir "$group"; do sleep 0.1; done' EXIT
cat >"$dir/waits.c" <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
enum { PAGE = 4096, CANNOT = 77 };
static int uffd;
static char *memory, state;
static void need(bool so)
{
    if (!so)
        exit(CANNOT);
}
static char state_of(pid_t thread)
{
    char name[64], letter = '?';
    snprintf(name, sizeof(name), "/proc/self/task/%d/stat", thread);
    FILE *file = fopen(name, "re");
    need(file && fscanf(file, "%*d %*s %c", &letter) == 1);
    fclose(file);
    return letter;
}
static void *answer_late(void *toucher)
{
    static char page[PAGE] __attribute__((aligned(PAGE)));
    struct uffd_msg message;
    sleep(1);
    state = state_of(*(pid_t *)toucher);
    need(read(uffd, &message, sizeof(message)) == sizeof(message));
    struct uffdio_copy copy = {.dst = (uintptr_t)memory, .src = (uintptr_t)page, .len = PAGE};
    need(ioctl(uffd, UFFDIO_COPY, &copy) == 0);
    return NULL;
}
static long major_faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_majflt;
}
int main(int argc, char **argv)
{
    struct uffdio_api api = {.api = UFFD_API};
    pid_t self = getpid();
    pthread_t handler;
    int sink[2];
    uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register range = {.range = {(uintptr_t)memory, PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    need(uffd >= 0 && pipe(sink) == 0 && ioctl(uffd, UFFDIO_API, &api) == 0 &&
         ioctl(uffd, UFFDIO_REGISTER, &range) == 0 && pthread_create(&handler, NULL, answer_late, &self) == 0);
    long before = major_faults();
    if (argc > 1 && strcmp(argv[1], "call") == 0)
        need(write(sink[1], memory, 1) == 1);
    else
        need(*(volatile char *)memory == 0);
    long faults = major_faults() - before;
    pthread_join(handler, NULL);
    printf("state %c, major faults %ld", state, faults);
    return 0;
}
C
cc -O2 -pthread -o "$dir/waits" "$dir/waits.c"

stalled_us() {
    sed -n 's/^some .*total=//p' "$group/$1.pressure"
}

# waits WHO HOW: what is said of it.
waits() {
    local memory io said
    memory=$(stalled_us memory) io=$(stalled_us io)
    said=$(bash -c 'echo $$ >"$1/cgroup.procs"; exec "$2" "$3"' sh "$group" "$dir/waits" "$2")
    memory=$(($(stalled_us memory) - memory)) io=$(($(stalled_us io) - io))
    echo "touched by $1: $said, stalled by memory $memory us, by I/O $io us"
}

{
    waits "the program" itself
    waits "a system call" call
} | tee "$dir/out"
diff "$dir/out" - <<'OUT'
touched by the program: state S, major faults 0, stalled by memory 0 us, by I/O 0 us
touched by a system call: state S, major faults 1, stalled by memory 0 us, by I/O 0 us
OUT
