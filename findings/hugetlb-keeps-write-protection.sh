#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Write protection by userfaultfd of a page that is then dropped by madvise(MADV_DONTNEED): private anonymous memory, pages of
# 4 KiB and of 2 MiB. Needs root, and takes one huge page for the time that it runs.
#
# With:     Linux 6.18.44, x86-64.
# Guess:    what was protected is the page, and the protection goes with it, for either size.
# Behaviour: of 4 KiB it goes. Of 2 MiB it stays: the pagemap entries of an absent page have bit 57 (write-protected) set, and
#           neither bit 63 nor 62. A page that UFFDIO_COPY then puts there is not protected, unless that asks for it.
# Output seen (PAGE: present, swapped, protected):
#           4 KiB: there 1 0 1, dropped 0 0 0, filled 1 0 0
#           2 MiB: there 1 0 1, dropped 0 0 1, filled 1 0 0
# So:       who looks for protected pages, or un-protects what is left, must not pass over absent pages of 2 MiB.
#
# Exits with 0 if it is still so.
set -euo pipefail
dir=$(mktemp -d)
pool=/proc/sys/vm/nr_hugepages
before=$(cat "$pool")
trap 'echo "$before" >"$pool"; rm -rf "$dir"' EXIT
echo $((before + 1)) >"$pool"
cat >"$dir/protection.c" <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void need(int right, const char *what)
{
    if (!right) {
        perror(what);
        exit(2);
    }
}

static void show(const char *what, const void *page)
{
    uint64_t entry = 0;
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    need(pread(pagemap, &entry, 8, (off_t)((uintptr_t)page / 4096 * 8)) == 8, "pagemap");
    close(pagemap);
    printf("%s %d %d %d", what, (int)(entry >> 63), (int)(entry >> 62 & 1), (int)(entry >> 57 & 1));
}

static void look(size_t bytes, int flags)
{
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = {.api = UFFD_API};
    void *from = aligned_alloc(bytes, bytes);
    char *page = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    need(uffd >= 0 && from && page != MAP_FAILED, "memory");
    memset(from, 7, bytes);
    struct uffdio_range range = {(uintptr_t)page, bytes};
    struct uffdio_register both = {.range = range, .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP};
    struct uffdio_copy copy = {.dst = range.start, .src = (uintptr_t)from, .len = bytes};
    struct uffdio_writeprotect protect = {.range = range, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    need(ioctl(uffd, UFFDIO_API, &api) == 0 && ioctl(uffd, UFFDIO_REGISTER, &both) == 0, "register");
    need(ioctl(uffd, UFFDIO_COPY, &copy) == 0 && ioctl(uffd, UFFDIO_WRITEPROTECT, &protect) == 0, "protect");
    show("there", page);
    need(madvise(page, bytes, MADV_DONTNEED) == 0, "madvise");
    show(", dropped", page);
    need(ioctl(uffd, UFFDIO_COPY, &copy) == 0, "copy");
    show(", filled", page);
    printf("\n");
}

int main(void)
{
    printf("4 KiB: ");
    look(4096, 0);
    printf("2 MiB: ");
    look(2 << 20, MAP_HUGETLB | 21 << MAP_HUGE_SHIFT);
    return 0;
}
C
cc -O1 -Wall -Wextra -o "$dir/protection" "$dir/protection.c"
"$dir/protection" | tee "$dir/seen"
diff - "$dir/seen" <<'OUT'
4 KiB: there 1 0 1, dropped 0 0 0, filled 1 0 0
2 MiB: there 1 0 1, dropped 0 0 1, filled 1 0 0
OUT
