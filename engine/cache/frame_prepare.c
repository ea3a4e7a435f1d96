// SPDX-License-Identifier: Apache-2.0
//
// Taking the memory of the cache before frames need it, in the readers' spare time.
#include <inttypes.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/cache/frame_cache.h"
#include "engine/cache/frame_table.h"
#include "engine/host/host_memory.h"

enum { PREPARE_LOOK = 16 }; // looks at the host's memory every 32 MiB
#define PREPARE_PAUSE (100 * FL_NS_PER_MS)

static uint64_t run_prepare(struct fl_io_job *job)
{
    struct fl_cache *cache = caa_container_of(job, struct fl_cache, prepare_job);
    if (atomic_load(&cache->stopped))
        return 0;
    if (cache->prepared % PREPARE_LOOK == 0 && fl_host_memory_is_scarce(cache->prepare_reserve))
        return fl_now() + PREPARE_PAUSE;
    cache->prepared++;
    int result = fl_frame_memory_prepare(&cache->memory);
    if (result < 0)
        fl_log(
            FL_LOG_WARNING,
            "event=prealloc_failed bytes=%" PRIu64
            " reason=\"the host has no more memory for the cache now: it is allocated as needed\"",
            fl_frame_memory_bytes(&cache->memory));
    return result > 0 ? FL_IO_YIELD : 0;
}

int fl_cache_prepare(struct fl_cache *cache, uint64_t bytes, unsigned reserve)
{
    int error = fl_frame_memory_keep(&cache->memory, bytes);
    if (error)
        return error;
    cache->prepare_reserve = reserve;
    cache->prepare_job.run = run_prepare;
    fl_io_pool_submit_later(cache->pool, &cache->prepare_job);
    return 0;
}
