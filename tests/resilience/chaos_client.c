// SPDX-License-Identifier: Apache-2.0
#include "tests/resilience/chaos_client.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/load/guest.h"
#include "tests/resilience/chaos_image.h"
#include "tests/resilience/chaos_model.h"
#include "tests/support/memory.h"

// Pages are grouped in chunks. A chunk belongs to one thread, which may write to it and remove it,
// or to all threads, which then only read it. So at any time each byte has one possible value.
enum { CHUNK = 16, HUGE_PAGES = 512, SAY_AT_MOST = 4 };
enum { ATTACH_PAUSE_US = 10000, ATTACH_PATIENCE_S = 30 };

struct vm {
    const struct chaos_plan *plan;
    uint32_t unit; // small pages in a page of the VM; a chunk has as many at least
    uint32_t pause_us;
    struct chaos_board *board;
    struct chaos_slot *slot;
    struct bench_guest guest;
    struct chaos_model model;
};

struct toucher {
    struct vm *vm;
    struct chaos_thread *shown;
    unsigned number;
    uint64_t random;
    uint32_t *order; // pages that it may touch
    uint32_t count;
    uint32_t end;  // it uses so many of them; with plan->brief it compares the others at the end
    uint32_t next; // of the order: it has touched all before
    pthread_t thread;
};

static void begin(struct chaos_thread *shown, enum chaos_op op, uint32_t page)
{
    atomic_store(&shown->op, op);
    atomic_store(&shown->page, page);
    atomic_store(&shown->since_ns, bench_now_ns());
}

static void end(struct chaos_thread *shown)
{
    uint64_t since = atomic_exchange(&shown->since_ns, 0);
    enum chaos_op op = (enum chaos_op)atomic_load(&shown->op);
    atomic_fetch_add(&shown->ops[op], 1);
    if (op != CHAOS_HANDSHAKE)
        bench_hist_add(&shown->wait, bench_now_ns() - since);
}

static uint64_t *address(const struct vm *vm, uint32_t page)
{
    return (uint64_t *)(void *)(vm->guest.base + (uint64_t)page * CHAOS_PAGE);
}

static uint32_t chunk(const struct vm *vm)
{
    return vm->unit > CHUNK ? vm->unit : CHUNK;
}

static bool is_mine(const struct toucher *toucher, uint32_t page)
{
    return page / chunk(toucher->vm) % (CHAOS_THREADS + 1) == toucher->number;
}

static bool is_common(const struct vm *vm, uint32_t page)
{
    return page / chunk(vm) % (CHAOS_THREADS + 1) == CHAOS_THREADS;
}

// --- operations ---

static void complain(const struct toucher *toucher, uint32_t page, const char *reason)
{
    struct vm *vm = toucher->vm;
    const struct chaos_model_page *state = &vm->model.page[page];
    if (atomic_fetch_add(&vm->slot->wrong, 1) >= SAY_AT_MOST)
        return;
    fprintf(stderr, "chaos: client %d page %u of %u (removed: %d, written: %d) holds %s\n",
            (int)getpid(), page, vm->model.pages, state->removed, state->written, reason);
}

static void check(struct toucher *toucher, uint32_t page)
{
    const char *reason = NULL;
    const uint64_t *words = address(toucher->vm, page);
    begin(toucher->shown, CHAOS_TOUCH, page);
    (void)*(const volatile uint64_t *)(words + random_next(&toucher->random) % CHAOS_WORDS);
    end(toucher->shown);
    if (!chaos_model_right(&toucher->vm->model, page, words, &reason))
        complain(toucher, page, reason);
    atomic_fetch_add(&toucher->shown->checked, 1);
}

// Writes one word. If the page is not there this is a write fault, and the rest of the page must be
// right as well.
static void write_page(struct toucher *toucher, uint32_t page)
{
    struct chaos_model *model = &toucher->vm->model;
    volatile uint64_t *words = address(toucher->vm, page);
    uint64_t value = random_next(&toucher->random);
    begin(toucher->shown, CHAOS_WRITE, page);
    words[chaos_model_word(model, page)] = value;
    end(toucher->shown);
    chaos_model_write(model, page, value);
}

// Removes pages up to the end of the chunk at most. madvise() returns when the engine has read the
// event.
static void remove_pages(struct toucher *toucher, uint32_t page)
{
    struct vm *vm = toucher->vm;
    page -= page % vm->unit;
    uint32_t most = chunk(vm) - page % chunk(vm);
    uint32_t count = vm->unit + (uint32_t)(random_next(&toucher->random) % most);
    count -= count % vm->unit;
    if (count > most)
        count = most;
    if (count > vm->model.pages - page)
        count = vm->model.pages - page;
    begin(toucher->shown, CHAOS_REMOVE, page);
    int failed = madvise(address(vm, page), (size_t)count * CHAOS_PAGE, MADV_DONTNEED);
    end(toucher->shown);
    if (failed) {
        perror("chaos: madvise");
        _exit(CHAOS_BROKEN);
    }
    for (uint32_t i = 0; i < count; i++)
        chaos_model_remove(&vm->model, page + i);
}

static void operate(struct toucher *toucher, uint32_t page)
{
    uint64_t dice = random_next(&toucher->random) % 16;
    if (dice < 9 || !is_mine(toucher, page)) {
        check(toucher, page);
    } else if (dice < 13) {
        write_page(toucher, page);
    } else {
        remove_pages(toucher, page);
        if (dice == 13)
            check(toucher, page);
    }
}

// --- a thread ---

static void pause_randomly(struct toucher *toucher)
{
    uint64_t mean = toucher->vm->pause_us;
    uint64_t dice = random_next(&toucher->random);
    if (mean == 0 || dice % 2 == 0)
        return;
    uint64_t us =
        (dice >> 8) % (4 * mean); // uniform, and in every second case only: the mean is right
    struct timespec time = {(time_t)(us / 1000000), (long)(us % 1000000 * 1000)};
    nanosleep(&time, NULL);
}

// In half of the cases it returns a page that is new to this thread.
static uint32_t choose(struct toucher *toucher)
{
    uint64_t dice = random_next(&toucher->random);
    if (dice % 2 == 0 || toucher->next == 0)
        return toucher->order[toucher->next++];
    return toucher->order[(dice >> 8) % toucher->next];
}

static void *toucher_main(void *arg)
{
    struct toucher *toucher = arg;
    while (toucher->next < toucher->end && atomic_load(&toucher->vm->board->stop) == 0) {
        operate(toucher, choose(toucher));
        pause_randomly(toucher);
    }
    // Pages that came ahead and were never touched must be right, too. If all VMs end at once they
    // are not compared: that would leave no CPU time to the engine.
    bool stopped = atomic_load(&toucher->vm->board->stop) != 0;
    uint32_t all = toucher->vm->plan->brief && !stopped ? toucher->count : toucher->next;
    for (uint32_t i = 0; i < all; i++)
        check(toucher, toucher->order[i]);
    return NULL;
}

static int prepare(struct toucher *toucher, struct vm *vm, unsigned number)
{
    uint64_t seed = chaos_hash(vm->plan->seed, number);
    *toucher = (struct toucher){
        .vm = vm, .shown = &vm->slot->thread[number], .number = number, .random = seed};
    toucher->order = random_order(vm->model.pages, seed);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < vm->model.pages; i++) {
        if (toucher->order[i] < vm->plan->pages_most - vm->plan->in_vain &&
            (is_mine(toucher, toucher->order[i]) || is_common(vm, toucher->order[i])))
            toucher->order[kept++] = toucher->order[i];
    }
    toucher->count = toucher->end = kept;
    if (vm->plan->brief)
        toucher->end = (uint32_t)(random_next(&toucher->random) % (kept / 4 + 1));
    return 0;
}

// --- the process ---

static int run(struct vm *vm)
{
    struct toucher touchers[CHAOS_THREADS];
    for (unsigned i = 0; i < CHAOS_THREADS; i++) {
        prepare(&touchers[i], vm, i);
        if (i > 0 && pthread_create(&touchers[i].thread, NULL, toucher_main, &touchers[i]) != 0)
            return CHAOS_BROKEN;
    }
    toucher_main(&touchers[0]);
    for (unsigned i = 1; i < CHAOS_THREADS; i++)
        pthread_join(touchers[i].thread, NULL);
    return atomic_load(&vm->slot->wrong) == 0 ? CHAOS_FINE : CHAOS_WRONG;
}

static int attach_once(struct vm *vm, uint64_t bytes, enum chaos_kind kind)
{
    struct chaos_thread *shown = &vm->slot->thread[0];
    int error = -ENOENT;
    begin(shown, CHAOS_HANDSHAKE, 0);
    if (kind == CHAOS_CLONE)
        error = bench_guest_start_template(&vm->guest, vm->plan->template_socket, bytes);
    if (kind == CHAOS_CLONE && error == -ENOENT) // a chore has just replaced the image
        kind = CHAOS_SMALL;
    if (kind != CHAOS_CLONE)
        error =
            bench_guest_start(&vm->guest, vm->plan->socket, bytes, (uint64_t)vm->unit * CHAOS_PAGE);
    end(shown);
    vm->model.shared = kind == CHAOS_CLONE;
    atomic_fetch_add(&vm->slot->attached[kind], error == 0);
    return error;
}

// While the server has no room for a VM more, there is no socket at the path, and one that is just
// being made does not listen yet: an orchestrator tries again, and so does the client.
static int attach(struct vm *vm, uint32_t pages)
{
    struct timespec begun;
    struct timespec now;
    int error;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    do {
        error = attach_once(vm, (uint64_t)pages * CHAOS_PAGE, vm->plan->kind);
        if (error != -ENOENT && error != -ECONNREFUSED)
            break;
        usleep(ATTACH_PAUSE_US);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - begun.tv_sec < ATTACH_PATIENCE_S);
    if (error)
        fprintf(stderr, "chaos: client %d at %s: %s\n", (int)getpid(), vm->plan->socket,
                strerror(-error));
    return error;
}

int chaos_client_main(const struct chaos_plan *plan, struct chaos_board *board,
                      struct chaos_slot *slot)
{
    struct vm vm = {.plan = plan,
                    .board = board,
                    .slot = slot,
                    .unit = plan->kind == CHAOS_HUGE ? HUGE_PAGES : 1,
                    .pause_us = plan->hasty ? 0 : plan->pause_us};
    uint64_t random = plan->seed;
    uint32_t least = plan->pages_most / 8;
    uint32_t pages = least + 1 + (uint32_t)(random_next(&random) % (plan->pages_most - least));
    pages += vm.unit - 1 - (pages - 1) % vm.unit;
    if (pages > plan->pages_most)
        pages = plan->pages_most;
    if (chaos_model_make(&vm.model, plan->image_seed, pages) < 0)
        return CHAOS_BROKEN;
    if (attach(&vm, pages) < 0)
        return CHAOS_REFUSED;
    // Some VMMs close the socket after the handshake.
    if (random_next(&random) % 4 == 0) {
        close(vm.guest.sock);
        vm.guest.sock = -1;
    }
    int status = run(&vm);
    // Half of the clients unmap and close, the others just end.
    if (random_next(&random) % 2 == 0)
        bench_guest_stop(&vm.guest);
    return status;
}
