#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# One page of UFFDIO_ZEROPAGE among 512 keeps MADV_COLLAPSE from making them one page, although all of them are there.
#
# Guess: a page that is there is there; khugepaged even takes 511 holes for zeros (max_ptes_none), and so may this call.
# Seen on Linux 6.18 (mm/khugepaged.c, hpage_collapse_scan_pmd): in memory that a userfaultfd watches the shared page of
#   zeros counts as a hole, and no hole is allowed: EBUSY (Linux 6.1: EINVAL), whatever max_ptes_none says. UFFDIO_COPY
#   cannot replace it: EEXIST. After the process itself has written to that page the same call succeeds.
# So: who wants huge pages later copies zeros instead.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/collapse.c" <<'C'
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 512, RANGE = PAGE * PAGES, ADVICE_COLLAPSE = 25 };
static char zeros[PAGE];

static int copy(int uffd, char *to)
{
    struct uffdio_copy order = {.dst = (uintptr_t)to, .src = (uintptr_t)zeros, .len = PAGE};
    return ioctl(uffd, UFFDIO_COPY, &order) == 0 ? 0 : errno;
}

static const char *collapse(char *range)
{
    if (madvise(range, RANGE, ADVICE_COLLAPSE) == 0)
        return "one page";
    return errno == EBUSY || errno == EINVAL ? "refused" : "something else";
}

int main(void)
{
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API};
    char *map = mmap(NULL, 3 * RANGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *range = (char *)(((uintptr_t)map + RANGE - 1) / RANGE * RANGE);
    range[RANGE] = 1; // not watched: can the kernel do it at all?
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0 || madvise(range + RANGE, RANGE, ADVICE_COLLAPSE) < 0) {
        perror("userfaultfd, or MADV_COLLAPSE");
        return 77;
    }
    struct uffdio_register order = {.range = {(uintptr_t)range, RANGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    struct uffdio_zeropage zero = {.range = {(uintptr_t)range + 7 * PAGE, PAGE}};
    if (ioctl(uffd, UFFDIO_REGISTER, &order) < 0 || ioctl(uffd, UFFDIO_ZEROPAGE, &zero) < 0)
        return 77;
    for (int i = 0; i < PAGES; i++) {
        int error = copy(uffd, range + (size_t)i * PAGE);
        if (error)
            printf("page %d: %s\n", i, error == EEXIST ? "there" : "not there");
    }
    printf("with the shared page of zeros: %s\n", collapse(range));
    range[7 * PAGE] = 0;
    printf("after a zero was written there: %s\n", collapse(range));
    return 0;
}
C
gcc -o "$dir/collapse" "$dir/collapse.c"
timeout 20 "$dir/collapse" | tee "$dir/out"
diff - "$dir/out" <<'OUT'
page 7: there
with the shared page of zeros: refused
after a zero was written there: one page
OUT
