#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# madvise() of 4 KiB of a page of 2 MiB that is registered with a userfaultfd.
#
# With:     Linux 6.18.44, x86-64, shared memory of MAP_HUGETLB. Needs root, to add two pages to the pool.
# Guess:    EINVAL, as a part of a huge page cannot be given back, and no event.
# Behaviour: - DONTNEED at the start of the page succeeds. Nothing is given back or cleared, and there is no event.
#             Only 4 KiB further on it is EINVAL.
#           - REMOVE succeeds anywhere. If the page is there, its 4 KiB are cleared and nothing is given back. The
#             event REMOVE says 4 KiB, although no page has gone and no fault will come for it.
#           - If the page is missing, REMOVE clears nothing, but the event is the same.
# Output seen: as the last lines of this file.
# So:       a handler cannot take REMOVE for "the pages of this range are zeros from now on": the rest of the huge page
#           has what it had. For a page that is missing, it has to fill it with its bytes except for these 4 KiB.
#
# Exits with 0 if it is still so.
set -euo pipefail
setting=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
[ -w $setting ] || { echo "the pool cannot be changed: not root?"; exit 77; }
dir=$(mktemp -d)
before=$(<$setting)
trap 'echo "$before" >$setting; rm -rf "$dir"' EXIT
cat >"$dir/part.c" <<'C'
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { HUGE = 2 << 20, SMALL = 4096 };
static int uffd;
static char *page, *source;
static struct uffd_msg seen;

struct call {
    int at, bytes, advice, result;
    atomic_bool done;
};

static const char *copy(void)
{
    struct uffdio_copy request = {.dst = (uintptr_t)page, .src = (uintptr_t)source, .len = HUGE};
    return ioctl(uffd, UFFDIO_COPY, &request) == 0 ? "ok" : errno == EEXIST ? "EEXIST" : strerror(errno);
}

static void *advise(void *argument)
{
    struct call *call = argument;
    call->result = madvise(page + call->at, (size_t)call->bytes, call->advice) == 0 ? 0 : errno;
    call->done = true;
    return NULL;
}

// madvise() in a thread, as one that raises an event waits until the event has been read.
static int advised(int at, int bytes, int advice)
{
    struct call call = {.at = at, .bytes = bytes, .advice = advice};
    struct pollfd ready = {.fd = uffd, .events = POLLIN};
    pthread_t thread;
    memset(&seen, 0, sizeof(seen));
    pthread_create(&thread, NULL, advise, &call);
    while (!call.done)
        if (poll(&ready, 1, 1) == 1 && read(uffd, &seen, sizeof(seen)) != sizeof(seen))
            _exit(1);
    pthread_join(thread, NULL);
    return call.result;
}

static void part(const char *name, int advice, int at, int present)
{
    advised(0, HUGE, MADV_REMOVE);
    if (present && strcmp(copy(), "ok") != 0)
        _exit(77);
    int result = advised(at, SMALL, advice);
    printf("%s +%d, %s: %s, event ", name, at, present ? "there" : "missing", result ? strerror(result) : "ok");
    if (seen.event == UFFD_EVENT_REMOVE)
        printf("REMOVE +%d, %d bytes", (int)(seen.arg.remove.start - (uintptr_t)page),
               (int)(seen.arg.remove.end - seen.arg.remove.start));
    else
        printf("none");
    const char *again = copy();
    printf("; COPY after it: %s, bytes %d %d %d\n", again, page[0], page[SMALL], page[2 * SMALL]);
}

int main(void)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_MISSING_HUGETLBFS};
    uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    source = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | 21 << 26, -1, 0);
    struct uffdio_register range = {.range = {(uintptr_t)page, HUGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (page == MAP_FAILED || ioctl(uffd, UFFDIO_API, &api) != 0 || ioctl(uffd, UFFDIO_REGISTER, &range) != 0)
        return 77;
    memset(source, 7, HUGE);
    for (int present = 1; present >= 0; present--)
        for (int at = 0; at <= SMALL; at += SMALL) {
            part("DONTNEED", MADV_DONTNEED, at, present);
            part("REMOVE", MADV_REMOVE, at, present);
        }
    return 0;
}
C
gcc -pthread -o "$dir/part" "$dir/part.c"
echo $((before + 2)) >$setting
timeout 30 "$dir/part" | tee "$dir/out"
diff "$dir/out" - <<'OUT'
DONTNEED +0, there: ok, event none; COPY after it: EEXIST, bytes 7 7 7
REMOVE +0, there: ok, event REMOVE +0, 4096 bytes; COPY after it: EEXIST, bytes 0 7 7
DONTNEED +4096, there: Invalid argument, event none; COPY after it: EEXIST, bytes 7 7 7
REMOVE +4096, there: ok, event REMOVE +4096, 4096 bytes; COPY after it: EEXIST, bytes 7 0 7
DONTNEED +0, missing: ok, event none; COPY after it: ok, bytes 7 7 7
REMOVE +0, missing: ok, event REMOVE +0, 4096 bytes; COPY after it: ok, bytes 7 7 7
DONTNEED +4096, missing: Invalid argument, event none; COPY after it: ok, bytes 7 7 7
REMOVE +4096, missing: ok, event REMOVE +4096, 4096 bytes; COPY after it: ok, bytes 7 7 7
OUT
