// SPDX-License-Identifier: Apache-2.0
//
// A VM that takes its time: touches its pages one after the other in a random order, at the pace
// that it is told, and checks every byte.
//
//   vmm make FILE MIB               a guest's memory
//   vmm run SOCKET FILE PAUSE_US    restores it there; "touching", "waited MS" for each page that
//   took
//                                   more than 10 ms, "complete" on stdout
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/vmm.h"

enum { MIB = 1 << 20, SEED = 3, LONG_MS = 10 };

static void load(struct memory *memory, const char *path)
{
    struct stat file;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &file) == 0, "%s", path);
    memory->bytes = (uint64_t)file.st_size;
    memory->data = mmap(NULL, memory->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(memory->data != MAP_FAILED, "%s", path);
    close(fd);
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void touch(struct vmm *vmm, uint32_t page)
{
    double start = now_ms();
    vmm_check(vmm, page);
    double ms = now_ms() - start;
    if (ms > LONG_MS)
        printf("waited %.1f\n", ms);
}

static int run(const char *socket, const char *path, useconds_t pause_us)
{
    struct memory memory;
    struct vmm vmm;
    load(&memory, path);
    // Only root has the call; other users have the device, if they are let.
    vmm_map(&vmm, &memory, PAGE, 2, geteuid() == 0 ? VMM_1_12 : VMM_MAIN);
    vmm_handshake(&vmm, socket);
    puts("touching");
    uint32_t *order = random_order(vmm.pages, (uint64_t)getpid());
    for (uint32_t i = 0; i < vmm.pages; i++) {
        touch(&vmm, order[i]);
        usleep(pause_us);
    }
    for (uint32_t i = 0; i < vmm.pages; i++)
        vmm_check(&vmm, i);
    free(order);
    puts("complete");
    return 0;
}

int main(int argc, char **argv)
{
    setlinebuf(stdout);
    if (argc == 4 && strcmp(argv[1], "make") == 0) {
        struct memory memory;
        memory_make(&memory, argv[2], strtoull(argv[3], NULL, 10) * MIB, SEED);
        memory_free(&memory);
        return 0;
    }
    if (argc == 5 && strcmp(argv[1], "run") == 0)
        return run(argv[2], argv[3], (useconds_t)strtoul(argv[4], NULL, 10));
    fprintf(stderr, "usage: vmm make FILE MIB | run SOCKET FILE PAUSE_US\n");
    return 2;
}
