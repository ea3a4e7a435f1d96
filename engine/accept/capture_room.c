// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/capture_room.h"

#include <unistd.h>

#include <urcu/list.h>

#include "engine/accept/capture_session_state.h"
#include "engine/host/host_memory.h"
#include "engine/host/memory_limit.h"
#include "engine/vm/options.h"
#include "snapshot/read.h"

// SHARE: of what is free, one part in so many.
enum { SHARE = 4 };
#define LEAST ((uint64_t)64 << 20)

// What the engine's own cgroup, or one above it, leaves.
static uint64_t left_by_limit(void)
{
    struct fl_cgroup_mounts mounts;
    struct fl_memory_limit limit;
    fl_cgroup_mounts(&mounts);
    if (fl_memory_limit(&mounts, getpid(), &limit) != 0 || limit.limit == 0)
        return UINT64_MAX;
    return limit.used < limit.limit ? limit.limit - limit.used : 0;
}

static uint64_t free_bytes(void)
{
    uint64_t host = fl_host_memory_available();
    uint64_t cgroup = left_by_limit();
    return host < cgroup ? host : cgroup;
}

// Those that are KEPT have an empty buffer.
static uint64_t promised(const struct cds_list_head *sessions)
{
    uint64_t bytes = 0;
    const struct fl_capture_session *session;
    cds_list_for_each_entry(session, sessions, link)
    {
        if (session->phase != FL_CAPTURE_KEPT)
            bytes += session->capture->ahead_units << FL_PAGE_SHIFT;
    }
    return bytes;
}

uint64_t fl_capture_room(const struct fl_engine_options *options,
                         const struct cds_list_head *sessions)
{
    uint64_t all = options->capture_bytes ? options->capture_bytes : free_bytes() / SHARE;
    uint64_t others = promised(sessions);
    return all > others + LEAST ? all - others : LEAST;
}
