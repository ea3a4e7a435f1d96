// SPDX-License-Identifier: Apache-2.0
#include "engine/vm/history.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/base/bitmap.h"

enum { LOOKS = 8 }; // at one of the slowest faults, until it holds still

uint64_t fl_vm_history_bytes(const struct fl_layout *layout)
{
    return sizeof(struct fl_vm_history) + layout->pages * sizeof(uint8_t) +
           FL_HISTORY_LOG * sizeof(struct fl_history_fault);
}

void fl_vm_history_free(struct fl_vm_history *history)
{
    free(history->came);
    free(history->log);
    free(history);
}

// What a predecessor has seen to be there.
static void history_take_before(struct fl_vm_history *history, const struct fl_vm *vm)
{
    uint64_t end = history->pages;
    for (uint64_t page = fl_bits_next_set(vm->installed, vm->installed, 0, end); page < end;) {
        uint64_t to = fl_bits_next_clear(vm->installed, vm->installed, page, end);
        fl_vm_history_found(history, page, to - page, FL_CAME_OTHER);
        page = fl_bits_next_set(vm->installed, vm->installed, to, end);
    }
}

struct fl_vm_history *fl_vm_history_new(const struct fl_vm *vm)
{
    const struct fl_layout *layout = &vm->state->layout;
    struct fl_vm_history *history = calloc(1, sizeof(*history));
    if (!history)
        return NULL;
    history->vm_id = vm->id;
    history->pid = atomic_load(&vm->state->pid);
    snprintf(history->image, sizeof(history->image), "%s", vm->state->image);
    history->begun_ns = fl_now();
    history->begun_s = time(NULL);
    history->inherited = vm->inherited;
    history->pages = layout->pages;
    history->page_shift = vm->page_shift;
    history->bytes = fl_vm_history_bytes(layout);
    history->came = calloc(layout->pages, sizeof(*history->came));
    history->log = calloc(FL_HISTORY_LOG, sizeof(*history->log));
    CDS_INIT_LIST_HEAD(&history->in_all);
    if (!history->came || !history->log) {
        fl_vm_history_free(history);
        return NULL;
    }
    if (vm->inherited)
        history_take_before(history, vm);
    return history;
}

// --- owner ---

static uint64_t history_mark(struct fl_vm_history *history, uint64_t page, uint64_t pages,
                             enum fl_came how)
{
    uint64_t new = 0;
    uint64_t end = page + pages < history->pages ? page + pages : history->pages;
    for (; page < end; page++) {
        if (fl_vm_history_page(history, page) != FL_CAME_NEVER)
            continue;
        atomic_store_explicit(&history->came[page], (uint8_t)how, memory_order_relaxed);
        new ++;
    }
    return new;
}

void fl_vm_history_found(struct fl_vm_history *history, uint64_t page, uint64_t pages,
                         enum fl_came how)
{
    history_mark(history, page, pages, how);
}

void fl_vm_history_came(struct fl_vm_history *history, uint64_t page, uint64_t pages,
                        enum fl_came how)
{
    uint64_t new = history_mark(history, page, pages, how);
    if (new > 0)
        fl_histogram_add_many(&history->came_ns[how], fl_now() - history->begun_ns, new);
}

// Release and acquire, as a reader must see that the number is odd if it sees any of what follows.
static void slow_put(struct fl_history_slow *slow, const struct fl_history_fault *fault)
{
    uint32_t number = atomic_load_explicit(&slow->number, memory_order_relaxed);
    atomic_store_explicit(&slow->number, number + 1, memory_order_relaxed);
    atomic_store_explicit(&slow->at_ns, fault->at_ns, memory_order_release);
    atomic_store_explicit(&slow->page, fault->page, memory_order_release);
    atomic_store_explicit(&slow->took_ns, fault->took_ns, memory_order_release);
    atomic_store_explicit(&slow->waited, fault->waited, memory_order_release);
    atomic_store_explicit(&slow->number, number + 2, memory_order_release);
}

static void history_find_quickest(struct fl_vm_history *history)
{
    history->slow_place = 0;
    history->slow_from_ns = UINT64_MAX;
    for (unsigned i = 0; i < FL_HISTORY_SLOWEST; i++) {
        uint64_t took = atomic_load_explicit(&history->slowest[i].took_ns, memory_order_relaxed);
        if (took >= history->slow_from_ns)
            continue;
        history->slow_from_ns = took;
        history->slow_place = i;
    }
}

static void history_log(struct fl_vm_history *history, const struct fl_history_fault *fault)
{
    uint64_t logged = atomic_load_explicit(&history->logged, memory_order_relaxed);
    if (logged == FL_HISTORY_LOG)
        return;
    history->log[logged] = *fault;
    atomic_store_explicit(&history->logged, logged + 1, memory_order_release);
}

void fl_vm_history_fault(struct fl_vm_history *history, uint64_t page, uint64_t read_ns,
                         enum fl_waited waited)
{
    uint64_t now = fl_now();
    struct fl_history_fault fault = {
        .at_ns = now - history->begun_ns,
        .page = page,
        .took_ns = now > read_ns ? now - read_ns : 1,
        .waited = waited,
    };
    uint64_t last = fl_counter_get(&history->last_ns);
    uint64_t count = fl_counter_get(&history->faults);
    if (count > 0 && !history->quiet && fault.at_ns - last >= FL_HISTORY_QUIET) {
        atomic_store_explicit(&history->quiet_ns, last, memory_order_relaxed);
        history->quiet = true;
    }
    fl_counter_add(&history->faults, 1);
    atomic_store_explicit(&history->last_ns, fault.at_ns, memory_order_relaxed);
    fl_histogram_add(&history->faults_ns, fault.at_ns);
    fl_histogram_add(&history->took_ns[waited], fault.took_ns);
    history_log(history, &fault);
    if (fault.took_ns <= history->slow_from_ns)
        return;
    slow_put(&history->slowest[history->slow_place], &fault);
    history_find_quickest(history);
}

// --- control thread ---

static bool slow_get(const struct fl_history_slow *slow, struct fl_history_fault *ret_fault)
{
    for (unsigned i = 0; i < LOOKS; i++) {
        uint32_t number = atomic_load_explicit(&slow->number, memory_order_acquire);
        ret_fault->at_ns = atomic_load_explicit(&slow->at_ns, memory_order_acquire);
        ret_fault->page = atomic_load_explicit(&slow->page, memory_order_acquire);
        ret_fault->took_ns = atomic_load_explicit(&slow->took_ns, memory_order_acquire);
        ret_fault->waited =
            (enum fl_waited)atomic_load_explicit(&slow->waited, memory_order_acquire);
        if (number % 2 == 0 && atomic_load_explicit(&slow->number, memory_order_relaxed) == number)
            return ret_fault->took_ns > 0;
    }
    return false; // it is being replaced again and again: another one like it is there soon
}

static int compare_slow(const void *left, const void *right)
{
    const struct fl_history_fault *a = left;
    const struct fl_history_fault *b = right;
    return a->took_ns != b->took_ns ? (a->took_ns < b->took_ns ? 1 : -1)
                                    : (a->at_ns > b->at_ns) - (a->at_ns < b->at_ns);
}

unsigned fl_vm_history_slowest(const struct fl_vm_history *history,
                               struct fl_history_fault ret_faults[FL_HISTORY_SLOWEST])
{
    unsigned count = 0;
    for (unsigned i = 0; i < FL_HISTORY_SLOWEST; i++)
        count += slow_get(&history->slowest[i], &ret_faults[count]);
    qsort(ret_faults, count, sizeof(*ret_faults), compare_slow);
    return count;
}

bool fl_vm_history_quiet(const struct fl_vm_history *history, uint64_t *ret_ns)
{
    if (atomic_load(&history->quiet)) {
        *ret_ns = fl_counter_get(&history->quiet_ns);
        return true;
    }
    *ret_ns = fl_counter_get(&history->last_ns);
    uint64_t end = history->vm ? fl_now() : history->ended_ns;
    return end - history->begun_ns >= *ret_ns + FL_HISTORY_QUIET;
}
