#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# mremap() of memory that a userfaultfd watches succeeds and ends the watch: what was missing is zeros from then on.
#
# Guess: the registration moves along with the mapping (or mremap() refuses), and only the addresses in the messages
#   change; that is what UFFD_FEATURE_EVENT_REMAP would be for.
# Seen on Linux 6.18 (fs/userfaultfd.c, mremap_userfaultfd_prep): without that feature the moved mapping is registered
#   with nothing. Its missing pages read as zeros, no message is raised, no call fails. The same for a mapping that
#   mremap() makes longer by moving it. A child of fork() reads zeros likewise (without UFFD_FEATURE_EVENT_FORK), while
#   its parent still faults for the same page.
# So: a VMM must not mremap() guest memory after it was registered, nor look at it from a forked child.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/moved.c" <<'C'
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 16 };
static int uffd;
static int served;

// Fills every page that is asked for with 'A'.
static void *serve(void *unused)
{
    static char source[PAGE];
    (void)unused;
    memset(source, 'A', PAGE);
    for (;;) {
        struct pollfd ready = {.fd = uffd, .events = POLLIN};
        struct uffd_msg message;
        poll(&ready, 1, -1);
        if (read(uffd, &message, sizeof(message)) != sizeof(message))
            continue;
        struct uffdio_copy copy = {.dst = message.arg.pagefault.address & ~(PAGE - 1ull),
                                   .src = (unsigned long)source,
                                   .len = PAGE};
        served++;
        ioctl(uffd, UFFDIO_COPY, &copy);
    }
    return NULL;
}

static volatile char *watched(void)
{
    // Only the first half is watched: the other one is in the way of a mapping that grows.
    char *area = mmap(NULL, 2 * PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register order = {.range = {(unsigned long)area, PAGES * PAGE},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(uffd, UFFDIO_REGISTER, &order) < 0) {
        perror("UFFDIO_REGISTER");
        _exit(77);
    }
    return area;
}

int main(void)
{
    struct uffdio_api api = {.api = UFFD_API};
    pthread_t thread;
    uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0) {
        perror("userfaultfd");
        return 77;
    }
    pthread_create(&thread, NULL, serve, NULL);

    volatile char *area = watched();
    printf("in place: %d\n", area[0]);
    void *place = mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    volatile char *moved =
        mremap((void *)area, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    printf("moved: filled before %d, missing %d\n", moved[0], moved[PAGE]);

    volatile char *small = watched();
    volatile char *longer = mremap((void *)small, PAGES * PAGE, 2 * PAGES * PAGE, MREMAP_MAYMOVE);
    printf("made longer, %s: missing %d\n", longer == small ? "in place" : "elsewhere", longer[PAGE]);

    volatile char *parent = watched();
    int status = 0;
    pid_t pid = fork();
    if (pid == 0)
        _exit(parent[0]);
    waitpid(pid, &status, 0);
    printf("child of fork: %d, parent: %d\n", WEXITSTATUS(status), parent[0]);
    printf("messages: %d\n", served);
    return 0;
}
C
gcc -pthread -o "$dir/moved" "$dir/moved.c"
timeout 20 "$dir/moved" | tee "$dir/out"
diff - "$dir/out" <<'OUT'
in place: 65
moved: filled before 65, missing 0
made longer, elsewhere: missing 0
child of fork: 0, parent: 65
messages: 2
OUT
