// SPDX-License-Identifier: Apache-2.0
#include "engine/worker/oldest_fault.h"

#include <poll.h>

#include "engine/base/clock.h"
#include "engine/base/counter.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"
#include "engine/worker/worker.h"

// A round that lasts for so long is no usual one: what lies before the worker waits for its end.
#define STUCK (50 * FL_NS_PER_MS)

struct oldest {
    uint64_t now;
    uint64_t since; // FL_NEVER: no fault waits
};

static void since_at_most(struct oldest *oldest, uint64_t since)
{
    if (since != 0 && since < oldest->since)
        oldest->since = since;
}

static void look_at_shard(struct oldest *oldest, const struct fl_shard *shard)
{
    since_at_most(oldest, fl_counter_get(&shard->batch_ns));
    if (fl_counter_get(&shard->stats->parked) > 0)
        since_at_most(oldest, fl_counter_get(&shard->parked_ns));
}

// Its worker has not come to it since its round began; when its message came is not known.
static void look_at_unread(void *arg, const struct fl_vm *vm)
{
    struct oldest *oldest = arg;
    const struct fl_shard *owner = atomic_load(&vm->owner);
    uint64_t round = owner ? fl_counter_get(&owner->round_ns) : 0;
    if (round == 0 || round >= oldest->since || round + STUCK > oldest->now)
        return;
    struct pollfd readable = {.fd = atomic_load(&vm->uffd), .events = POLLIN};
    if (poll(&readable, 1, 0) == 1 && (readable.revents & POLLIN) != 0)
        since_at_most(oldest, round);
}

uint64_t fl_oldest_fault(const struct fl_engine *engine)
{
    struct oldest oldest = {.now = fl_now(), .since = FL_NEVER};
    for (unsigned i = 0; i < fl_engine_workers(engine); i++)
        look_at_shard(&oldest, &fl_engine_worker(engine, i)->shard);
    fl_vms_each(&engine->vms, look_at_unread, &oldest);
    return oldest.since < oldest.now ? oldest.now - oldest.since : 0;
}
