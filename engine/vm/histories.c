// SPDX-License-Identifier: Apache-2.0
#include "engine/vm/histories.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <urcu/compiler.h>

#include "engine/base/log.h"

#define BYTES_MOST ((uint64_t)256 << 20)

void fl_histories_init(struct fl_histories *histories, unsigned keep)
{
    *histories = (struct fl_histories){.keep = keep};
    CDS_INIT_LIST_HEAD(&histories->all);
    CDS_INIT_LIST_HEAD(&histories->orders);
}

static void history_free(struct rcu_head *head)
{
    fl_rcu_freeing();
    fl_vm_history_free(caa_container_of(head, struct fl_vm_history, rcu));
}

// The owner of its VM may be about to note something: it is freed when that is over.
static void history_drop(struct fl_histories *histories, struct fl_vm_history *history)
{
    if (history->vm)
        atomic_store_explicit(&history->vm->history, NULL, memory_order_release);
    history->vm = NULL;
    cds_list_del(&history->in_all);
    histories->count--;
    histories->bytes -= history->bytes;
    fl_rcu_defer(&history->rcu, history_free);
}

void fl_histories_fini(struct fl_histories *histories)
{
    while (!cds_list_empty(&histories->all))
        history_drop(histories,
                     cds_list_first_entry(&histories->all, struct fl_vm_history, in_all));
    while (!cds_list_empty(&histories->orders))
        fl_histories_cancel(
            histories, cds_list_first_entry(&histories->orders, struct fl_history_order, link));
}

unsigned fl_histories_room(const struct fl_histories *histories)
{
    return histories->keep > FL_HISTORIES_ORDERED ? histories->keep : FL_HISTORIES_ORDERED;
}

static struct fl_vm_history *oldest_of(const struct fl_histories *histories)
{
    struct fl_vm_history *history;
    cds_list_for_each_entry(history, &histories->all, in_all)
    {
        if (!history->vm)
            return history;
    }
    return cds_list_first_entry(&histories->all, struct fl_vm_history, in_all);
}

static void make_room(struct fl_histories *histories, uint64_t bytes)
{
    unsigned room = fl_histories_room(histories);
    while (histories->count > 0 &&
           (histories->count >= room || histories->bytes + bytes > BYTES_MOST))
        history_drop(histories, oldest_of(histories));
}

static void say_there_is_no_room(const struct fl_vm *vm)
{
    fl_log(FL_LOG_WARNING,
           "event=history_failed vm=%" PRIu64
           " image=%s reason=\"there is no room for its history\"",
           vm->id, fl_vm_image_name(vm));
}

void fl_histories_begin(struct fl_histories *histories, struct fl_vm *vm)
{
    struct fl_history_order *order = fl_histories_order_of(histories, vm->state->image);
    bool ordered = order && !vm->inherited && order->begun < order->vms;
    if ((!ordered && histories->keep == 0) || vm->state->layout.pages == 0)
        return;
    uint64_t bytes = fl_vm_history_bytes(&vm->state->layout);
    struct fl_vm_history *history = NULL;
    if (bytes <= BYTES_MOST) {
        make_room(histories, bytes);
        history = fl_vm_history_new(vm);
    }
    if (!history) {
        say_there_is_no_room(vm);
        return;
    }
    if (ordered)
        order->begun++;
    history->vm = vm;
    histories->count++;
    histories->bytes += history->bytes;
    cds_list_add_tail(&history->in_all, &histories->all);
    atomic_store_explicit(&vm->history, history, memory_order_release);
}

// The log keeps what it has, and gives the rest of its memory back.
static void history_shrink(struct fl_histories *histories, struct fl_vm_history *history)
{
    uint64_t logged = fl_counter_get(&history->logged);
    uint64_t room = logged > 0 ? logged : 1;
    struct fl_history_fault *log = realloc(history->log, room * sizeof(*log));
    if (!log)
        return;
    history->log = log;
    uint64_t saved = (FL_HISTORY_LOG - room) * sizeof(*log);
    history->bytes -= saved;
    histories->bytes -= saved;
}

void fl_histories_end(struct fl_histories *histories, struct fl_vm *vm)
{
    struct fl_vm_history *history = atomic_load(&vm->history);
    const struct fl_vm_counters *counters = &vm->state->counters;
    if (!history)
        return;
    atomic_store_explicit(&vm->history, NULL, memory_order_release);
    history->vm = NULL;
    history->ended_ns = fl_now();
    fl_counter_add(&history->counters.faults, fl_counter_get(&counters->faults));
    fl_counter_add(&history->counters.installed, fl_counter_get(&counters->installed));
    fl_counter_add(&history->counters.zeroed, fl_counter_get(&counters->zeroed));
    fl_counter_add(&history->counters.poisoned, fl_counter_get(&counters->poisoned));
    fl_counter_add(&history->counters.removed, fl_counter_get(&counters->removed));
    history_shrink(histories, history);
}

struct fl_vm_history *fl_histories_find(const struct fl_histories *histories, uint64_t vm_id)
{
    struct fl_vm_history *history;
    cds_list_for_each_entry(history, &histories->all, in_all)
    {
        if (history->vm_id == vm_id)
            return history;
    }
    return NULL;
}

// --- orders ---

struct fl_history_order *fl_histories_order_of(const struct fl_histories *histories,
                                               const char *image)
{
    struct fl_history_order *order;
    cds_list_for_each_entry(order, &histories->orders, link)
    {
        if (strcmp(order->image, image) == 0)
            return order;
    }
    return NULL;
}

struct fl_history_order *fl_histories_order(struct fl_histories *histories, const char *image,
                                            unsigned vms)
{
    struct fl_history_order *order =
        histories->order_count < FL_HISTORY_ORDERS_MOST ? calloc(1, sizeof(*order)) : NULL;
    if (!order)
        return NULL;
    snprintf(order->image, sizeof(order->image), "%s", image);
    order->vms = vms;
    cds_list_add_tail(&order->link, &histories->orders);
    histories->order_count++;
    return order;
}

void fl_histories_cancel(struct fl_histories *histories, struct fl_history_order *order)
{
    cds_list_del(&order->link);
    histories->order_count--;
    free(order);
}
