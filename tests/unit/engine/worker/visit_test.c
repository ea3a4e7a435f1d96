// SPDX-License-Identifier: Apache-2.0
//
// How long a worker stays with a VM, and when it leaves it to epoll. visit.c alone: what it calls
// is made up here, and so is the time. A batch of messages takes 5 us, to find none takes 1.
#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/serve/task.h"
#include "engine/vm/options.h"
#include "engine/vm/vm.h"
#include "engine/worker/fault.h"
#include "engine/worker/visit.h"
#include "engine/worker/worker.h"

enum { VMS_MOST = 600, BATCH_US = 5, EMPTY_US = 1, SPIN_US = 20, TURNS_MOST = 100000 };
enum { ROUND_US = 4000, TURN_US = 500, LEAST_US = 10, CROWD = 4 }; // of visit.c

struct made_up {
    struct fl_vm vm;
    unsigned messages; // UINT32_MAX: it faults again and again
    unsigned turns;    // that found messages,
    unsigned before;   // and of these, before the last VM had its first
    unsigned looks;    // that found none
    uint64_t first_ns; // when it had its first
    unsigned tasks;
    bool cool;
};

static struct made_up vms[VMS_MOST];
static struct fl_worker worker;
static struct fl_engine_options options;
static unsigned turns_in_all;
static unsigned last; // of the VMs

// --- what visit.c calls ---

static struct made_up *made_up_of(struct fl_vm *vm)
{
    return caa_container_of(vm, struct made_up, vm);
}

bool fl_inbox_turn(struct fl_shard *shard, struct fl_vm *vm)
{
    struct made_up *one = made_up_of(vm);
    cr_assert_lt(++turns_in_all, TURNS_MOST, "a visit has no end");
    if (one->messages == 0) {
        one->looks++;
        shard->now += EMPTY_US * FL_NS_PER_US;
        return false;
    }
    for (unsigned i = 0; i <= last && one == &vms[last] && one->turns == 0; i++)
        vms[i].before = vms[i].turns;
    if (one->turns++ == 0)
        one->first_ns = shard->now;
    one->messages -= one->messages < UINT32_MAX;
    shard->now += BATCH_US * FL_NS_PER_US;
    return true;
}

void fl_task_run(struct fl_shard *shard, struct fl_task *task)
{
    (void)shard;
    caa_container_of(task, struct made_up, vm.replay.task)->tasks++;
}

void fl_worker_cool_down(struct fl_worker *of, struct fl_vm *vm)
{
    made_up_of(vm)->cool = true;
    cds_list_del(&vm->in_hot);
    of->hot_count--;
}

// --- what the tests say ---

// So many hot VMs, each with so many messages.
static void begin(unsigned count, unsigned messages)
{
    options.spin_us = SPIN_US;
    worker.shard.options = &options;
    worker.shard.now = FL_NS_PER_S;
    worker.hot_count = count;
    last = count - 1;
    CDS_INIT_LIST_HEAD(&worker.shard.hot);
    for (unsigned i = 0; i < count; i++) {
        vms[i].messages = messages;
        vms[i].vm.phase = FL_VM_SERVING;
        cds_list_add_tail(&vms[i].vm.in_hot, &worker.shard.hot);
    }
}

static uint64_t us_since_begin(uint64_t ns)
{
    return (ns - FL_NS_PER_S) / FL_NS_PER_US;
}

// One that faults without end, as many threads that never wait would have it, does not keep others
// from their turn.
Test(visit, a_vm_that_faults_without_end_is_left_for_another)
{
    begin(2, UINT32_MAX);
    vms[1].messages = 1;
    while (vms[1].turns == 0)
        cr_assert(fl_visit_hot(&worker));
    cr_assert_leq(us_since_begin(vms[1].first_ns), TURN_US + BATCH_US);
    cr_assert_leq(vms[0].before, TURN_US / BATCH_US + 1);
    cr_assert_gt(vms[0].before, 1, "it is read as long as others can wait");
}

// The more have messages, the shorter each is read: the last waits for a round, whatever they do.
Test(visit, a_round_is_bounded_whatever_the_number_of_vms)
{
    static const unsigned counts[] = {1, 2, 8, 40, 200, 400, VMS_MOST};
    for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        unsigned count = counts[i];
        uint64_t share = ROUND_US / count;
        uint64_t visit = share > TURN_US ? TURN_US : share < LEAST_US ? LEAST_US : share;
        memset(vms, 0, sizeof(vms));
        turns_in_all = 0;
        begin(count, UINT32_MAX);
        while (vms[count - 1].turns == 0)
            fl_visit_hot(&worker);
        uint64_t waited = us_since_begin(vms[count - 1].first_ns);
        cr_assert_leq(waited, (count - 1) * (visit + 2 * BATCH_US), "%u VMs", count);
        for (unsigned n = 0; n + 1 < count; n++)
            cr_assert(vms[n].before > 0 && vms[n].before <= visit / BATCH_US + 2,
                      "VM %u of %u had %u turns", n, count, vms[n].before);
    }
}

// Mail, epoll and deadlines are looked at in between.
Test(visit, the_worker_comes_back_after_a_turn)
{
    begin(VMS_MOST, UINT32_MAX);
    uint64_t before = worker.shard.now;
    cr_assert(fl_visit_hot(&worker));
    cr_assert_leq(worker.shard.now - before, (TURN_US + LEAST_US + 2 * BATCH_US) * FL_NS_PER_US);
    cr_assert_eq(vms[VMS_MOST - 1].turns, 0);
    cr_assert(fl_visit_hot(&worker));
    cr_assert_leq(vms[0].turns, LEAST_US / BATCH_US + 2, "it goes on where it was");
}

// --- cooling down ---

Test(visit, of_few_vms_an_empty_one_is_read_for_the_length_of_a_spin)
{
    begin(CROWD, 1);
    cr_assert(fl_visit_hot(&worker));
    cr_assert_not(vms[0].cool, "its thread most likely faults again");
    for (unsigned i = 0; i < SPIN_US * 2 && !vms[0].cool; i++)
        fl_visit_hot(&worker);
    cr_assert(vms[0].cool, "it is left to epoll when the spin is over");
    cr_assert_gt(vms[0].looks, 2);
    cr_assert_leq(vms[0].looks, SPIN_US + 2);
}

Test(visit, of_a_crowd_an_empty_one_is_left_at_once)
{
    begin(CROWD + 1, 2);
    cr_assert(fl_visit_hot(&worker));
    for (unsigned i = 0; i <= CROWD; i++) {
        cr_assert(vms[i].cool, "VM %u", i);
        cr_assert_eq(vms[i].turns, 2);
        cr_assert_eq(vms[i].looks, 1, "VM %u was looked at %u times", i, vms[i].looks);
    }
    cr_assert_eq(worker.hot_count, 0);
}

Test(visit, one_that_has_more_stays_hot)
{
    begin(CROWD + 1, 1);
    vms[0].messages = UINT32_MAX;
    cr_assert(fl_visit_hot(&worker)); // all the time is this one's
    cr_assert(fl_visit_hot(&worker));
    cr_assert_not(vms[0].cool);
    cr_assert_eq(worker.hot_count, 1);
}

Test(visit, one_that_is_gone_is_not_read)
{
    begin(2, 1);
    vms[0].vm.phase = FL_VM_GONE;
    cr_assert(fl_visit_hot(&worker));
    cr_assert_eq(vms[0].turns + vms[0].looks, 0);
    cr_assert_eq(vms[1].turns, 1);
}

// --- replay ---

static int plan; // only that there is one matters

// A batch and a slice of its working set, and the next VM.
Test(visit, one_that_is_replayed_has_one_batch_and_a_slice)
{
    begin(2, UINT32_MAX);
    vms[0].vm.replay.plan = (void *)&plan;
    vms[0].vm.page_shift = FL_PAGE_SHIFT;
    cr_assert(fl_visit_hot(&worker));
    cr_assert_eq(vms[0].turns, 1);
    cr_assert_eq(vms[0].tasks, 1);
    cr_assert_gt(vms[1].turns, 1);
    cr_assert_eq(vms[1].tasks, 0);
}

// Messages that a capture leaves unread would be read again and again.
Test(visit, one_that_is_captured_has_one_batch)
{
    begin(2, UINT32_MAX);
    vms[0].vm.capture = (void *)&plan;
    cr_assert(fl_visit_hot(&worker));
    cr_assert_eq(vms[0].turns, 1);
    cr_assert_eq(vms[0].tasks, 0);
}
