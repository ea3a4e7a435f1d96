// SPDX-License-Identifier: Apache-2.0
//
// maps_file FILE [twice | fixed | past]: maps a file as QEMU does its RAM file, adds up what it
// sees, and prints that. Knows nothing of Faultline: under the preload library it is served.
//   twice  maps the same part again
//   fixed  reserves an area first, then maps the two halves of the file over it
//   past   changes the memory before adding up again: the second line shows the change
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define BIG_ALIGN ((size_t)2 << 20)

static void fail(const char *what)
{
    perror(what);
    exit(2);
}

// FNV-1a: shows bytes out of place as well.
static uint64_t sum(const unsigned char *bytes, size_t length)
{
    uint64_t value = 0xcbf29ce484222325;
    for (size_t i = 0; i < length; i++)
        value = (value ^ bytes[i]) * 0x100000001b3;
    return value;
}

static unsigned char *map_at(void *address, size_t length, int fd, size_t offset)
{
    int flags = MAP_SHARED | (address ? MAP_FIXED : 0);
    void *memory = mmap(address, length, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset);
    if (memory == MAP_FAILED)
        fail("mmap");
    return memory;
}

// The second half first: its place in the file is not its order of mapping.
static unsigned char *map_fixed(size_t length, int fd)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    unsigned char *area = mmap(NULL, length + BIG_ALIGN, PROT_NONE, flags, -1, 0);
    if (area == MAP_FAILED)
        fail("mmap");
    area += BIG_ALIGN - (uintptr_t)area % BIG_ALIGN;
    map_at(area + length / 2, length / 2, fd, length / 2);
    map_at(area, length / 2, fd, 0);
    return area;
}

int main(int argc, char **argv)
{
    struct stat status;
    const char *how = argc > 2 ? argv[2] : "";
    int fd = argc > 1 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0 || fstat(fd, &status) != 0)
        fail("file");
    size_t length = (size_t)status.st_size;
    bool fixed = strcmp(how, "fixed") == 0;
    unsigned char *memory = fixed ? map_fixed(length, fd) : map_at(NULL, length, fd, 0);
    if (strcmp(how, "twice") == 0)
        map_at(NULL, length, fd, 0);
    printf("%016" PRIx64 "\n", sum(memory, length));
    if (strcmp(how, "past") == 0) {
        memory[length / 2] ^= 0xff;
        printf("%016" PRIx64 "\n", sum(memory, length));
    }
    return 0;
}
