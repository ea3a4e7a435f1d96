#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# UFFDIO_COPY of a page of 2 MiB while the pool has none that is free.
#
# With:     Linux 6.18.44, x86-64 (the same on 6.18.15, 6.19.14 and 7.3.4; 6.1, 6.12, 6.16 and 6.17 give
#           ENOMEM). Needs root, to add one page to the pool.
# Guess:    ENOMEM: it is what alloc_hugetlb_folio() fails with. EEXIST means that the page is there.
# Behaviour: EEXIST, for a page that is not there and never was, and again each time. The same answer as
#           for a page that is there, so only the pagemap tells them apart. And a COPY over a page that
#           UFFDIO_POISON has marked succeeds and takes the mark away; ZEROPAGE (4 KiB, private memory) does not.
# Output seen:
#           page 0: ok, present 1
#           page 1, none free: EEXIST, present 0
#           page 1 again: EEXIST, present 0
#           page 0 again: EEXIST, present 1
#           copy over a poisoned page: ok
#           zeropage over a poisoned page: EEXIST
#
# Exits with 0 if it is still so.
set -euo pipefail
setting=/sys/kernel/mm/hugepages/hugepages-2048kB
[ -w "$setting/nr_hugepages" ] || { echo "the pool cannot be changed: not root?"; exit 77; }
dir=$(mktemp -d)
before=$(<"$setting/nr_hugepages")
trap 'echo "$before" >"$setting/nr_hugepages"; rm -rf "$dir"' EXIT
cat >"$dir/copy.c" <<'C'
#include <errno.h>
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
#ifndef UFFDIO_POISON
struct uffdio_poison {
    struct uffdio_range range;
    __u64 mode;
    __s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif
enum { HUGE = 2 << 20, PAGE = 4096 };
static int uffd;
static char *from;
static const char *name(int result)
{
    return result == 0 ? "ok" : errno == EEXIST ? "EEXIST" : errno == ENOMEM ? "ENOMEM" : strerror(errno);
}
static char *map(size_t bytes, int flags)
{
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
    struct uffdio_register range = {.range = {(uintptr_t)memory, bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (memory == MAP_FAILED || ioctl(uffd, UFFDIO_REGISTER, &range) != 0)
        _exit(77);
    return memory;
}
static int copy(char *to, size_t bytes)
{
    struct uffdio_copy request = {.dst = (uintptr_t)to, .src = (uintptr_t)from, .len = bytes};
    return ioctl(uffd, UFFDIO_COPY, &request);
}
static int present(const char *at)
{
    uint64_t entry = 0;
    int file = open("/proc/self/pagemap", O_RDONLY);
    if (pread(file, &entry, 8, (off_t)((uintptr_t)at / PAGE * 8)) != 8)
        _exit(77);
    close(file);
    return (int)(entry >> 63);
}
int main(int argc, char **argv)
{
    size_t others = argc > 1 ? strtoul(argv[1], NULL, 10) * HUGE : 0;
    struct uffdio_api api = {.api = UFFD_API};
    uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (ioctl(uffd, UFFDIO_API, &api) != 0)
        return 77;
    void *source = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    from = memset(source, 7, HUGE);
    if (others > 0 && mmap(NULL, others, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE | 21 << 26, -1, 0) == MAP_FAILED)
        return 77;
    char *huge = map(2 * HUGE, MAP_HUGETLB | 21 << 26);
    char *small = map(2 * PAGE, 0);
    if (copy(huge, HUGE) != 0)
        return 77; // somebody else has taken the page
    printf("page 0: ok, present %d\n", present(huge));
    for (int i = 0; i < 2; i++) {
        printf("page 1%s: %s, ", i ? " again" : ", none free", name(copy(huge + HUGE, HUGE)));
        printf("present %d\n", present(huge + HUGE));
    }
    printf("page 0 again: %s, ", name(copy(huge, HUGE)));
    printf("present %d\n", present(huge));
    for (int i = 0; i < 2; i++) {
        struct uffdio_poison poison = {.range = {(uintptr_t)small + i * PAGE, PAGE}};
        if (ioctl(uffd, UFFDIO_POISON, &poison) != 0)
            return 77;
    }
    struct uffdio_zeropage zero = {.range = {(uintptr_t)small + PAGE, PAGE}};
    printf("copy over a poisoned page: %s\n", name(copy(small, PAGE)));
    printf("zeropage over a poisoned page: %s\n", name(ioctl(uffd, UFFDIO_ZEROPAGE, &zero)));
    return 0;
}
C
cc -O1 -o "$dir/copy" "$dir/copy.c"
echo $((before + 1)) >"$setting/nr_hugepages"
free=$(<"$setting/free_hugepages")
[ "$free" -ge 1 ] || { echo "one page of 2 MiB is not to be had"; exit 77; }
"$dir/copy" "$((free - 1))" | tee "$dir/output"
cmp "$dir/output" - <<'SEEN'
page 0: ok, present 1
page 1, none free: EEXIST, present 0
page 1 again: EEXIST, present 0
page 0 again: EEXIST, present 1
copy over a poisoned page: ok
zeropage over a poisoned page: EEXIST
SEEN
