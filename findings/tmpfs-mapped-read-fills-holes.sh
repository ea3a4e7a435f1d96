#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Reading the holes of a sparse file on tmpfs, or of a memfd, by read() and through a mapping.
#
# With:     Linux 6.18.44, x86-64.
# Guess:    no reading changes a file: holes are zeros, stay holes and take no memory.
# Behaviour: read() is as guessed. A read through a mapping, also a private one of PROT_READ, gives the file a page of
#           its own there: st_blocks grows, and SEEK_DATA says data from then on. The other way round, space that
#           fallocate() has taken is a hole for SEEK_DATA until it is touched so. On ext4, holes that are read in
#           either way stay holes.
# Output seen (1 MiB; "data" is what SEEK_DATA and SEEK_HOLE say):
#           new: 0 KiB taken, 0 KiB data
#           all of it by read(): 0 KiB taken, 0 KiB data
#           one page, mapped privately: 4 KiB taken, 4 KiB data
#           all of it, mapped privately: 1024 KiB taken, 1024 KiB data
#           by fallocate(): 1024 KiB taken, 0 KiB data
#           then one page, mapped privately: 1024 KiB taken, 4 KiB data
# So:       a program that maps a sparse memory file on tmpfs to read it makes it dense, for every later reader too.
#           Measure, copy and pack such a file before it is mapped, and read it with read().
#
# Exits with 0 if it is still so.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/holes.c" <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, BYTES = 1 << 20 };
static int fd;

static void show(const char *what)
{
    struct stat status;
    off_t data = 0, at = 0;
    fstat(fd, &status);
    while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
        off_t hole = lseek(fd, at, SEEK_HOLE);
        data += hole - at;
        at = hole;
    }
    printf("%s: %ld KiB taken, %ld KiB data\n", what, (long)status.st_blocks / 2, (long)data / 1024);
}

int main(void)
{
    static char buffer[BYTES];
    fd = memfd_create("sparse", MFD_CLOEXEC);
    if (fd < 0 || sysconf(_SC_PAGESIZE) != PAGE || ftruncate(fd, BYTES) != 0)
        return 77;
    show("new");
    if (pread(fd, buffer, BYTES, 0) != BYTES)
        return 77;
    show("all of it by read()");
    volatile char *mapped = mmap(NULL, BYTES, PROT_READ, MAP_PRIVATE, fd, 0);
    (void)mapped[100 * PAGE];
    show("one page, mapped privately");
    for (int at = 0; at < BYTES; at += PAGE)
        (void)mapped[at];
    show("all of it, mapped privately");
    if (ftruncate(fd, 0) != 0 || ftruncate(fd, BYTES) != 0 || fallocate(fd, 0, 0, BYTES) != 0)
        return 77;
    show("by fallocate()");
    (void)mapped[100 * PAGE];
    show("then one page, mapped privately");
    return 0;
}
C
gcc -o "$dir/holes" "$dir/holes.c"
"$dir/holes" | tee "$dir/out"
diff "$dir/out" - <<'OUT'
new: 0 KiB taken, 0 KiB data
all of it by read(): 0 KiB taken, 0 KiB data
one page, mapped privately: 4 KiB taken, 4 KiB data
all of it, mapped privately: 1024 KiB taken, 1024 KiB data
by fallocate(): 1024 KiB taken, 0 KiB data
then one page, mapped privately: 1024 KiB taken, 4 KiB data
OUT
