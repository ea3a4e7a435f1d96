// SPDX-License-Identifier: Apache-2.0
//
// Recording VMs of a world's "image" and looking at the trace that comes of it. For Criterion:
// failures are assertions.
#ifndef FAULTLINE_TESTS_SUPPORT_TRACES_H
#define FAULTLINE_TESTS_SUPPORT_TRACES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/support/world.h"

enum { TRACE_PAGES_MAX = 1 << 16 };

// What a client that is recorded does: it touches these pages in turn, checks what is in them, says
// 't', awaits 'e' and ends.
struct touches {
    const struct world *world;
    uint32_t page_bytes;
    unsigned regions;
    const uint32_t *page; // of page_bytes
    uint32_t count;
};
int touch_in_turn(int channel, struct client_shared *shared, void *arg);

// `faultline record image EXTRA...` in the background, once the server has the order. EXTRA may be
// NULL.
pid_t record_start(const struct world *world, const char *const *extra);
// Its exit status; what it says is in `output`.
int record_wait(pid_t pid, const struct world *world, char *output, size_t size);
// All of that: one VM that does this is recorded, and its recording merged.
void record_one(const struct world *world, struct touches touches);

struct trace {
    uint32_t runs;
    uint32_t count;
    uint64_t page[TRACE_PAGES_MAX];
    uint32_t seen[TRACE_PAGES_MAX];
};
// As it stands in the store. False if there is none.
bool trace_read(const struct world *world, struct trace *ret_trace);

#endif
