// SPDX-License-Identifier: Apache-2.0
#include "engine/control/status_lanes.h"

#include <jansson.h>

#include "engine/base/clock.h"
#include "engine/vm/vm.h"
#include "engine/worker/engine.h"
#include "engine/worker/lane.h"
#include "engine/worker/worker.h"

struct fl_lanes_now fl_lanes_now(const struct fl_engine *engine)
{
    const struct fl_lanes *lanes = engine->lanes;
    uint64_t now = fl_now();
    struct fl_lanes_now found = {.lanes = atomic_load(&lanes->count),
                                 .taken = atomic_load(&lanes->counts->taken),
                                 .refused = atomic_load(&lanes->counts->refused)};
    for (unsigned i = 0; i < found.lanes; i++) {
        found.vms += atomic_load(&lanes->lane[i]->busy);
        found.blocked += fl_lane_blocked_ns(lanes->lane[i], now) >= FL_NS_PER_MS;
    }
    return found;
}

struct json_t *fl_lane_json(const struct fl_vm *vm)
{
    char text[FL_LANE_REASON];
    const struct fl_shard *owner = atomic_load(&vm->owner);
    if (vm->held)
        return json_pack("{s:s, s:I, s:I}", "reason",
                         "a thread of the previous engine is still in the kernel for it",
                         "blocked_ms", (json_int_t)0, "times", (json_int_t)0);
    if (!owner || !fl_worker_of(owner)->is_lane)
        return json_null();
    fl_lane_reason(vm, text, sizeof(text));
    uint64_t blocked = fl_lane_blocked_ns(fl_worker_of(owner), fl_now()) / FL_NS_PER_MS;
    return json_pack("{s:s, s:I, s:I}", "reason", text, "blocked_ms", (json_int_t)blocked, "times",
                     (json_int_t)fl_counter_get(&vm->lanes));
}

struct json_t *fl_limit_json(const struct fl_vm *vm)
{
    const struct fl_vm_limit *limit = &vm->limit;
    if (!atomic_load(&limit->named) || atomic_load(&limit->bytes) == 0)
        return json_null();
    return json_pack("{s:s, s:I, s:I, s:I}", "cgroup", limit->cgroup, "bytes",
                     (json_int_t)atomic_load(&limit->bytes), "used",
                     (json_int_t)atomic_load(&limit->used), "met",
                     (json_int_t)atomic_load(&limit->met));
}
