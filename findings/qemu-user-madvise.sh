#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# madvise() in a program that runs under QEMU's user-mode emulation, as tests for another CPU do.
#
# With:     qemu-user-static 7.2+dfsg-7+deb12u18 (Debian 12), Linux 6.18, x86-64 on x86-64.
# Guess:    it is passed on, or fails (EINVAL, ENOSYS) where QEMU does not know it.
# Behaviour: it succeeds whatever it is asked: also an advice that does not exist, and a range where nothing is mapped.
#           Of those below, none but DONTNEED of private memory is carried out. MADV_REMOVE leaves the bytes in the
#           file.
# Output seen: as the last lines of this file; what the kernel itself does is before the arrow.
# So:       under qemu-user no program can find out by madvise() what the kernel is able to do, and a test of memory
#           that is given back, populated or kept from children proves nothing there.
#
# Exits with 0 if it is still so.
set -euo pipefail
qemu=$(command -v qemu-x86_64-static || true)
if [ -z "$qemu" ] || [ "$(uname -m)" != x86_64 ]; then
    echo "needs qemu-x86_64-static, on x86-64"
    exit 77
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/advise.c" <<'C'
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096 };

static const char *advise(void *page, int advice)
{
    return madvise(page, PAGE, advice) == 0 ? "ok" : errno == EINVAL ? "EINVAL" : errno == ENOMEM ? "ENOMEM" : "other";
}

static int there(void *page)
{
    unsigned char in_core = 0;
    mincore(page, PAGE, &in_core);
    return in_core & 1;
}

int main(void)
{
    char *fresh = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *dirty = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *gone = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int file = memfd_create("shared", 0);
    if (write(file, "hello", 5) != 5 || ftruncate(file, PAGE) != 0)
        return 77;
    char *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    const char *said = advise(fresh, 23); // MADV_POPULATE_WRITE
    printf("POPULATE_WRITE: %s, page there: %d\n", said, there(fresh));
    dirty[0] = 1;
    said = advise(dirty, MADV_DONTNEED);
    printf("DONTNEED: %s, byte %d\n", said, dirty[0]);
    said = advise(shared, MADV_REMOVE);
    printf("REMOVE: %s, byte %d\n", said, shared[0]);
    printf("an advice of 12345: %s\n", advise(dirty, 12345));
    munmap(gone, PAGE);
    printf("POPULATE_WRITE where nothing is mapped: %s\n", advise(gone, 23));
    return 0;
}
C
gcc -static -o "$dir/advise" "$dir/advise.c"
"$dir/advise" >"$dir/kernel"
timeout 20 "$qemu" "$dir/advise" >"$dir/emulated"
"$qemu" --version | head -1
paste -d '>' "$dir/kernel" "$dir/emulated" | sed 's/>[^:]*:/ ->/' | tee "$dir/out"
diff "$dir/out" - <<'OUT'
POPULATE_WRITE: ok, page there: 1 -> ok, page there: 0
DONTNEED: ok, byte 0 -> ok, byte 0
REMOVE: ok, byte 0 -> ok, byte 104
an advice of 12345: EINVAL -> ok
POPULATE_WRITE where nothing is mapped: ENOMEM -> ok
OUT
