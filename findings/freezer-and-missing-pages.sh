#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# cgroup.freeze on a process that waits for a userfaultfd's handler.
#
# With:     Linux 6.18.44, x86-64. Needs root and cgroup v2.
# Guess:    a waiter counts as stopped, wherever it touched the page: the cgroup is frozen, and its faults stay in the
#           queue until somebody answers.
# Behaviour: it depends on who touched the page. In the program itself: the cgroup is frozen, and the fault is taken
#           back, read or not: fdinfo shows nobody waiting, poll() nothing to read. It is told anew after the thaw.
#           In a system call (as when a device of a VMM reads into guest memory): cgroup.events never says frozen, the waiter
#           wakes up and faults again without end, with a new message each time, and burns a processor until the page
#           is there.
# So: a VM that is paused by the freezer can look as if it waited for nothing, or as a storm of faults for one page; and
#           who waits for "frozen 1" waits for the handler.
# Output seen:
#           touched by the program: frozen 1, told: once and again after the thaw, while frozen: nothing
#           touched by a system call: frozen 0, told: without end
#
# Exits with 0 if it is still so.
set -euo pipefail
v2=/sys/fs/cgroup/unified
[ -e $v2/cgroup.procs ] || v2=/sys/fs/cgroup
if [ "$(id -u)" -ne 0 ] || [ ! -e $v2/cgroup.procs ]; then
    echo "needs root and cgroup v2"
    exit 77
fi
dir=$(mktemp -d)
group=$v2/finding-frozen-waiter-$$
mkdir "$group"
trap 'echo 0 >"$group/cgroup.freeze"; rm -rf "$dir"; rmdir "$group"' EXIT
cat >"$dir/frozen.c" <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
enum { PAGE = 4096, CANNOT = 77, MILLISECOND = 1000 };
static const char *group;
static void need(bool so)
{
    if (!so)
        exit(CANNOT);
}
static void put(const char *file, const char *text)
{
    char name[300];
    snprintf(name, sizeof(name), "%s/%s", group, file);
    int fd = open(name, O_WRONLY | O_CLOEXEC);
    need(fd >= 0 && write(fd, text, strlen(text)) > 0);
    close(fd);
}
static bool frozen(void)
{
    char name[300], text[200] = "";
    snprintf(name, sizeof(name), "%s/cgroup.events", group);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    need(read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    return strstr(text, "frozen 1");
}
static unsigned waiters(int uffd)
{
    char name[64], line[128];
    unsigned total = 0;
    snprintf(name, sizeof(name), "/proc/self/fdinfo/%d", uffd);
    FILE *file = fopen(name, "re");
    while (fgets(line, sizeof(line), file))
        sscanf(line, "total: %u", &total);
    fclose(file);
    return total;
}
// How many messages there are within some milliseconds.
static unsigned messages(int uffd, unsigned milliseconds)
{
    struct uffd_msg message;
    unsigned told = 0;
    for (unsigned i = 0; i < milliseconds; i++, usleep(MILLISECOND))
        while (read(uffd, &message, sizeof(message)) == sizeof(message))
            told++;
    return told;
}
static int enroll(char *memory)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.range = {(uintptr_t)memory, PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    need(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0 && ioctl(fd, UFFDIO_REGISTER, &range) == 0);
    return fd;
}
static pid_t start(bool in_system_call, char *memory, int *uffd)
{
    int pipes[2], sink[2];
    need(pipe(pipes) == 0 && pipe(sink) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = enroll(memory);
        need(write(pipes[1], &fd, sizeof(fd)) == sizeof(fd));
        if (in_system_call)
            need(write(sink[1], memory, 1) == 1);
        else
            need(*(volatile char *)memory == 7);
        exit(0);
    }
    int theirs, pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    need(read(pipes[0], &theirs, sizeof(theirs)) == sizeof(theirs));
    *uffd = (int)syscall(SYS_pidfd_getfd, pidfd, theirs, 0);
    return pid;
}
static void try(bool in_system_call)
{
    static char page[PAGE] __attribute__((aligned(PAGE)));
    char *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), text[32];
    int uffd;
    pid_t pid = start(in_system_call, memory, &uffd);
    snprintf(text, sizeof(text), "%d", pid);
    put("cgroup.procs", text);
    while (waiters(uffd) == 0)
        usleep(MILLISECOND);
    unsigned before = messages(uffd, 1);
    put("cgroup.freeze", "1");
    for (unsigned i = 0; i < 1000 && !frozen(); i++)
        usleep(MILLISECOND);
    bool is_frozen = frozen();
    unsigned meanwhile = messages(uffd, 500), waits = waiters(uffd);
    put("cgroup.freeze", "0");
    unsigned after = messages(uffd, 500);
    memset(page, 7, PAGE);
    struct uffdio_copy copy = {.dst = (uintptr_t)memory, .src = (uintptr_t)page, .len = PAGE};
    need(ioctl(uffd, UFFDIO_COPY, &copy) == 0);
    waitpid(pid, NULL, 0);
    printf("touched by %s: frozen %d, told: %s\n", in_system_call ? "a system call" : "the program", is_frozen,
           before == 1 && meanwhile == 0 && waits == 0 && after == 1
               ? "once and again after the thaw, while frozen: nothing"
           : meanwhile > 10 ? "without end" : "otherwise");
}
int main(int argc, char **argv)
{
    need(argc == 2);
    group = argv[1];
    setvbuf(stdout, NULL, _IONBF, 0);
    try(false);
    try(true);
    return 0;
}
C
cc -O2 -o "$dir/frozen" "$dir/frozen.c"
"$dir/frozen" "$group" >"$dir/out"
cat "$dir/out"
diff "$dir/out" - <<'OUT'
touched by the program: frozen 1, told: once and again after the thaw, while frozen: nothing
touched by a system call: frozen 0, told: without end
OUT
