// SPDX-License-Identifier: Apache-2.0
#include "tests/support/files_world.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/host/fuse_mount.h"

enum { OPTIONS = 16, THREADS_MOST = 8 };

static char mounted_at[2 * TEST_PATH]; // "": nothing was

void need_fuse(void)
{
    int fd = geteuid() == 0 ? open("/dev/fuse", O_RDWR | O_CLOEXEC) : -1;
    const char *ci = getenv("CI");
    if (fd < 0) {
        cr_assert(!ci || strcmp(ci, "true") != 0, "CI must have root and /dev/fuse");
        cr_skip_test("this test needs root and /dev/fuse");
    }
    close(fd);
    if (access("/sys/fs/fuse/connections", F_OK) == 0)
        (void)mount("fusectl", "/sys/fs/fuse/connections", "fusectl", 0, NULL); // EBUSY: it is
}

struct world *files_make(enum world_memory kind, uint64_t bytes)
{
    struct world *world = world_make(kind, bytes);
    snprintf(mounted_at, sizeof(mounted_at), "%s", temp_path(&world->temp, "files"));
    return world;
}

const char *const *files_options(const struct world *world, const char *const *extra)
{
    static const char *options[OPTIONS];
    unsigned count = 0;
    (void)world;
    options[count++] = "--files";
    options[count++] = mounted_at;
    for (unsigned i = 0; extra && extra[i] && count < OPTIONS - 1; i++)
        options[count++] = extra[i];
    options[count] = NULL;
    return options;
}

void files_serve(struct world *world, const char *const *extra)
{
    world_serve(world, files_options(world, extra));
}

void files_close(void)
{
    struct fl_fuse_mount mount;
    while (*mounted_at && fl_fuse_mount_find(mounted_at, &mount) == 0) {
        fl_fuse_abort(mount.connection);
        if (umount2(mounted_at, MNT_DETACH) != 0)
            break;
    }
    *mounted_at = '\0';
    world_close();
}

const char *files_path(const struct world *world, const char *image)
{
    char name[TEST_PATH];
    snprintf(name, sizeof(name), "files/%s.mem", image);
    return temp_path(&world->temp, name);
}

uint8_t *files_map(const char *path, uint64_t *ret_bytes)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0)
        return NULL;
    *ret_bytes = (uint64_t)status.st_size;
    void *map = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    close(fd);
    return map == MAP_FAILED ? NULL : map;
}

struct part {
    const struct memory *memory;
    const uint8_t *map;
    uint64_t seed;
};

static void *check_part(void *arg)
{
    const struct part *part = arg;
    uint32_t pages = (uint32_t)(part->memory->bytes / PAGE);
    uint32_t *order = random_order(pages, part->seed);
    for (uint32_t i = 0; i < pages; i++) {
        uint64_t offset = (uint64_t)order[i] * PAGE;
        CHECK(memory_same(part->memory, offset, part->map + offset, PAGE), "page %u is wrong",
              order[i]);
    }
    free(order);
    return NULL;
}

void files_check(const struct memory *memory, const uint8_t *map, unsigned threads, uint64_t seed)
{
    pthread_t thread[THREADS_MOST];
    struct part part[THREADS_MOST];
    for (unsigned i = 0; i < threads; i++) {
        part[i] = (struct part){memory, map, seed + i};
        CHECK(pthread_create(&thread[i], NULL, check_part, &part[i]) == 0, "no thread");
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
}

void files_forget(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0, "cannot open %s: %s", path, strerror(errno));
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

bool files_mounted(const struct world *world)
{
    struct fl_fuse_mount mount;
    (void)world;
    return fl_fuse_mount_find(mounted_at, &mount) == 0;
}

int files_waiting(const struct world *world)
{
    struct fl_fuse_mount mount;
    (void)world;
    return fl_fuse_mount_find(mounted_at, &mount) == 0 ? fl_fuse_waiting(mount.connection) : -1;
}
