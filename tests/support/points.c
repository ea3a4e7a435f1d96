// SPDX-License-Identifier: Apache-2.0
#include "tests/support/points.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static const char *token(const struct world *world)
{
    return temp_path(&world->temp, "token");
}

void need_points(void)
{
#ifndef FAULTLINE_POINTS
    cr_skip_test("this build has no test points: configure with FAULTLINE_POINTS=ON");
#endif
}

void point_begin(const struct world *world, const char *point)
{
    setenv("FAULTLINE_KILL_AT", point, 1);
    setenv("FAULTLINE_KILL_TOKEN", token(world), 1);
}

void point_end(void)
{
    unsetenv("FAULTLINE_KILL_AT");
    unsetenv("FAULTLINE_KILL_TOKEN");
}

static void make(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    close(fd);
}

void point_arm(const struct world *world)
{
    make(token(world));
}

bool point_struck(void *world)
{
    return access(token(world), F_OK) != 0;
}

static const char *hold(const struct world *world)
{
    return temp_path(&world->temp, "hold");
}

void point_hold(const struct world *world, const char *point)
{
    make(hold(world));
    setenv("FAULTLINE_HOLD_AT", point, 1);
    setenv("FAULTLINE_HOLD_TOKEN", hold(world), 1);
}

void point_let_go(const struct world *world)
{
    cr_assert_eq(unlink(hold(world)), 0);
}
