// SPDX-License-Identifier: Apache-2.0
#include "engine/vm/prefetch.h"

#include <stddef.h>

enum { FIRST_WINDOW = 2 };

static void change_unproven(struct fl_prefetch *prefetch, const struct fl_prefetch_budget *budget,
                            struct fl_stream *stream, uint32_t unproven)
{
    uint64_t more = (uint64_t)unproven - stream->unproven; // modulo 2^64 where it is less
    stream->unproven = unproven;
    if (more == 0)
        return;
    prefetch->unproven += more;
    atomic_fetch_add_explicit(budget->unproven, more, memory_order_relaxed);
}

static struct fl_stream *stream_find(struct fl_prefetch *prefetch, uint64_t page)
{
    for (unsigned i = 0; i < FL_STREAMS; i++) {
        struct fl_stream *stream = &prefetch->stream[i];
        if (stream->next == page) {
            prefetch->current = i;
            return stream;
        }
    }
    return NULL;
}

// Takes the place of one that has not been continued for long. Its unproven pages stay counted.
static struct fl_stream *stream_begin(struct fl_prefetch *prefetch)
{
    struct fl_stream *stream;
    do {
        prefetch->current = prefetch->hand++ % FL_STREAMS;
        stream = &prefetch->stream[prefetch->current];
    } while (stream->patience-- > 0);
    *stream = (struct fl_stream){0};
    return stream;
}

static uint32_t within_budget(const struct fl_prefetch *prefetch,
                              const struct fl_prefetch_budget *budget, uint32_t window)
{
    uint64_t host = atomic_load_explicit(budget->unproven, memory_order_relaxed);
    return prefetch->unproven + window <= budget->vm && host + window <= budget->host ? window : 0;
}

uint32_t fl_prefetch_window(struct fl_prefetch *prefetch, const struct fl_prefetch_budget *budget,
                            uint64_t page, uint32_t asked, bool follows)
{
    struct fl_stream *stream = follows ? stream_find(prefetch, page) : NULL;
    if (stream) {
        change_unproven(prefetch, budget, stream, 0);
        uint32_t twice = stream->window ? 2 * stream->window : FIRST_WINDOW;
        stream->window = twice < budget->window ? twice : budget->window;
        stream->patience = FL_STREAM_PATIENCE;
    } else {
        stream = stream_begin(prefetch);
    }
    uint32_t window = stream->window ? within_budget(prefetch, budget, stream->window) : 0;
    return window > asked ? window : asked;
}

void fl_prefetch_installing(struct fl_prefetch *prefetch, const struct fl_prefetch_budget *budget,
                            uint64_t page, uint32_t asked, uint32_t pages)
{
    struct fl_stream *stream = &prefetch->stream[prefetch->current];
    stream->next = page + pages;
    change_unproven(prefetch, budget, stream, pages > asked ? pages - asked : 0);
}

void fl_prefetch_end(struct fl_prefetch *prefetch, const struct fl_prefetch_budget *budget)
{
    atomic_fetch_sub_explicit(budget->unproven, prefetch->unproven, memory_order_relaxed);
    *prefetch = (struct fl_prefetch){0};
}
