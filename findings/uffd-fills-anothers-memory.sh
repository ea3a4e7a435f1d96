#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# UFFDIO_COPY through one userfaultfd to memory that is registered with another one of the same process.
#
# With:     Linux 6.18.44, x86-64. Needs root, or vm.unprivileged_userfaultfd.
# Guess:    refused (EINVAL or ENOENT): UFFDIO_REGISTER says EBUSY of such memory, and UFFDIO_UNREGISTER EINVAL.
# Behaviour: COPY, ZEROPAGE and POISON only look whether the memory is registered with some userfaultfd, not with
#           which. A process that unmaps memory and registers new memory at the same addresses with a new
#           userfaultfd gets the pages that the handler of the one before still has in hand.
# Output seen:
#           copy, not registered: ENOENT
#           copy, registered with another: ok
#           zeropage: ok
#           poison: ok
#           register: EBUSY
#           byte: 5a
#
# Exits with 0 if it is still so.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/other.c" <<'C'
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
struct poison {
    struct uffdio_range range;
    __u64 mode;
    __s64 updated;
};
#define POISON _IOWR(UFFDIO, 0x08, struct poison)
enum { PAGE = 4096, BYTES = 4 * PAGE };
static const char *name(int result)
{
    return result == 0 ? "ok" : errno == ENOENT ? "ENOENT" : errno == EBUSY ? "EBUSY" : strerror(errno);
}
static int open_uffd(void)
{
    struct uffdio_api api = {.api = UFFD_API};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || ioctl(fd, UFFDIO_API, &api) != 0)
        _exit(77);
    return fd;
}
static int enroll(int fd, char *memory)
{
    struct uffdio_register range = {.range = {(uintptr_t)memory, BYTES}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    return ioctl(fd, UFFDIO_REGISTER, &range);
}
static char *map(char *at)
{
    return mmap(at, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0);
}
int main(void)
{
    static char from[PAGE] __attribute__((aligned(PAGE)));
    int before = open_uffd(), after = open_uffd();
    char *memory = map(NULL);
    memset(from, 0x5a, PAGE);
    if (enroll(before, memory) != 0)
        _exit(77);
    munmap(memory, BYTES);
    map(memory);
    struct uffdio_copy copy = {.dst = (uintptr_t)memory, .src = (uintptr_t)from, .len = PAGE};
    printf("copy, not registered: %s\n", name(ioctl(before, UFFDIO_COPY, &copy)));
    if (enroll(after, memory) != 0)
        _exit(77);
    printf("copy, registered with another: %s\n", name(ioctl(before, UFFDIO_COPY, &copy)));
    struct uffdio_zeropage zero = {.range = {(uintptr_t)memory + PAGE, PAGE}};
    printf("zeropage: %s\n", name(ioctl(before, UFFDIO_ZEROPAGE, &zero)));
    struct poison poison = {.range = {(uintptr_t)memory + 2 * PAGE, PAGE}};
    printf("poison: %s\n", name(ioctl(before, POISON, &poison)));
    printf("register: %s\n", name(enroll(before, memory)));
    printf("byte: %x\n", (unsigned char)*memory);
    return 0;
}
C
cc -O2 -o "$dir/other" "$dir/other.c"
"$dir/other" >"$dir/out"
cat "$dir/out"
diff "$dir/out" - <<'OUT'
copy, not registered: ENOENT
copy, registered with another: ok
zeropage: ok
poison: ok
register: EBUSY
byte: 5a
OUT
