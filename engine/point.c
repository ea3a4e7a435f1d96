// SPDX-License-Identifier: Apache-2.0
#include "engine/point.h"

#ifdef FAULTLINE_POINTS
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void fl_point(const char *name)
{
    static atomic_long times;
    const char *wanted = getenv("FAULTLINE_KILL_AT");
    size_t length = strlen(name);
    if (!wanted || strncmp(wanted, name, length) != 0 ||
        (wanted[length] != '\0' && wanted[length] != ':'))
        return;
    long at = wanted[length] == ':' ? strtol(wanted + length + 1, NULL, 10) : 1;
    if (atomic_fetch_add(&times, 1) + 1 < at)
        return;
    const char *token = getenv("FAULTLINE_KILL_TOKEN");
    if (!token || unlink(token) == 0)
        raise(SIGKILL);
}
#else
// An empty file is no C.
typedef int fl_point_is_not_here;
#endif
