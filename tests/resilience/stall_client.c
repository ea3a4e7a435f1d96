// SPDX-License-Identifier: Apache-2.0
#include "tests/resilience/stall_client.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/load/guest.h"
#include "tests/resilience/chaos_image.h"
#include "tests/support/memory.h"

struct vm {
    const struct stall_plan *plan;
    struct stall_board *board;
    struct stall_slot *slot;
    struct bench_guest guest;
    uint32_t *order;
    uint32_t next; // of the order
    uint64_t random;
};

static void record(struct vm *vm, uint64_t from, uint64_t to)
{
    uint64_t window = atomic_load(&vm->board->from_ns);
    if (window != 0 && to >= window && from <= atomic_load(&vm->board->to_ns))
        bench_hist_add(&vm->slot->window, to - from);
}

// The slot says that the touch goes on until the touch has been recorded.
static void touch(struct vm *vm)
{
    const volatile unsigned char *page =
        vm->guest.base + (uint64_t)vm->order[vm->next++] * CHAOS_PAGE;
    uint64_t from = bench_now_ns();
    atomic_store(&vm->slot->since_ns, from);
    (void)*page;
    record(vm, from, bench_now_ns());
    atomic_store(&vm->slot->since_ns, 0);
    atomic_fetch_add(&vm->slot->touches, 1);
}

static void rest(struct vm *vm)
{
    uint64_t us = random_next(&vm->random) % (2 * (uint64_t)vm->plan->interval_us + 1);
    struct timespec time = {(time_t)(us / 1000000), (long)(us % 1000000 * 1000)};
    nanosleep(&time, NULL);
}

static bool attach(struct vm *vm)
{
    int error = bench_guest_start(&vm->guest, vm->plan->socket,
                                  (uint64_t)vm->plan->pages * CHAOS_PAGE, CHAOS_PAGE);
    if (error)
        fprintf(stderr, "stall: client %d at %s: %s\n", (int)getpid(), vm->plan->socket,
                strerror(-error));
    free(vm->order);
    vm->order = random_order(vm->plan->pages, random_next(&vm->random));
    vm->next = 0;
    return error == 0;
}

// Replaces the VM if it has used half of its pages. That happens between two events, so that no
// window contains an attach.
static bool renew(struct vm *vm, uint32_t round)
{
    bool good = true;
    if (vm->next > vm->plan->pages / 2 || atomic_load(&vm->board->renewed) == round) {
        bench_guest_stop(&vm->guest);
        good = attach(vm);
        if (good)
            touch(vm);
    }
    atomic_store(&vm->slot->round, round);
    return good;
}

int stall_sweeper_main(const struct stall_plan *plan)
{
    struct bench_guest guest;
    if (bench_guest_start(&guest, plan->socket, (uint64_t)plan->pages * CHAOS_PAGE, CHAOS_PAGE) < 0)
        return 1;
    for (uint32_t i = 0; i < plan->pages; i++)
        (void)*(const volatile unsigned char *)(guest.base + (uint64_t)i * CHAOS_PAGE);
    bench_guest_stop(&guest);
    return 0;
}

int stall_client_main(const struct stall_plan *plan, struct stall_board *board,
                      struct stall_slot *slot)
{
    struct vm vm = {.plan = plan, .board = board, .slot = slot, .random = plan->seed};
    prctl(PR_SET_TIMERSLACK, 1000);
    if (!attach(&vm))
        return 1;
    touch(&vm);
    for (;;) {
        uint32_t round = atomic_load(&board->round);
        if (atomic_load(&slot->round) != round && !renew(&vm, round))
            return 1;
        rest(&vm);
        if (vm.next == plan->pages) {
            fprintf(stderr, "stall: client %d has touched all its pages\n", (int)getpid());
            return 1;
        }
        touch(&vm);
    }
}
