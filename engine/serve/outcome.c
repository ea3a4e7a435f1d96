// SPDX-License-Identifier: Apache-2.0
#include "engine/serve/outcome.h"

#include "engine/base/clock.h"
#include "engine/base/probe.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

void fl_resolved(struct fl_shard *shard, struct fl_vm *vm, enum fl_outcome outcome,
                 enum fl_stage stage, uint64_t read_ns)
{
    struct fl_shard_stats *stats = shard->stats;
    if (outcome == FL_INSTALLED)
        fl_counter_add(&stats->installed, 1);
    else if (outcome == FL_ZEROED)
        fl_counter_add(&stats->zeroed, 1);
    else
        fl_counter_add(&stats->poisoned, 1);
    uint64_t took_ns = fl_now() - read_ns;
    fl_histogram_add(&stats->latency_ns[stage], took_ns);
    fl_vm_waits_add(&vm->waits, took_ns);
    FL_PROBE(fault_resolved, vm->id, fl_vm_image_name(vm), (int)outcome, (int)stage, took_ns);
}
