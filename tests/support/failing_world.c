// SPDX-License-Identifier: Apache-2.0
#include "tests/support/failing_world.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct failing_calls *world_failing_calls(const struct world *world)
{
    struct failing_calls *calls;
    const char *path = temp_path(&world->temp, "failing");
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && ftruncate(fd, sizeof(*calls)) == 0);
    calls = mmap(NULL, sizeof(*calls), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(calls, MAP_FAILED);
    close(fd);
    setenv(FAILING_CALLS, path, 1);
    return calls;
}

void world_serve_failing(struct world *world, const char *const *extra)
{
    setenv("LD_PRELOAD", FAILING_LIBRARY, 1);
    world_serve(world, extra);
    unsetenv("LD_PRELOAD");
}
