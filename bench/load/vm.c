// SPDX-License-Identifier: Apache-2.0
#include "bench/load/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/load/guest.h"
#include "bench/load/order.h"

struct vm {
    const struct load_options *options;
    struct bench_board *board;
    struct bench_guest guest;
    uint32_t number;
};

struct toucher {
    struct vm *vm;
    uint32_t number;           // on the board
    struct bench_touch *order; // owned if options->shared, else a part of the VM's
    uint64_t count;
    pthread_t thread;
};

void bench_board_sleep(_Atomic uint32_t *word, uint32_t seen)
{
    struct timespec most = {.tv_nsec = 50000000};
    syscall(SYS_futex, word, FUTEX_WAIT, seen, &most, NULL, 0);
}

static void wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void bench_board_enter(struct bench_board *board, enum bench_stage stage)
{
    atomic_store(&board->stage, stage);
    wake(&board->stage);
}

static void await_stage(struct bench_board *board, enum bench_stage stage)
{
    uint32_t seen;
    while ((seen = atomic_load(&board->stage)) < stage)
        bench_board_sleep(&board->stage, seen);
}

// Only the last thread wakes the coordinator: more wake-ups would disturb what is measured.
static void arrive(_Atomic uint32_t *counter, uint32_t count, uint32_t all)
{
    if (atomic_fetch_add(counter, count) + count == all)
        wake(counter);
}

// Returns the faults of this thread so far. A page that the server has installed before needs no
// fault. The kernel counts the others as minor or as major faults, depending on its version.
static uint64_t page_faults(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_THREAD, &usage) != 0)
        return 0;
    return (uint64_t)usage.ru_majflt + (uint64_t)usage.ru_minflt;
}

static void sleep_until(uint64_t ns)
{
    struct timespec at = {.tv_sec = (time_t)(ns / 1000000000u),
                          .tv_nsec = (long)(ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
        continue;
}

static void touch_all(struct toucher *toucher, struct bench_thread_result *result)
{
    const volatile unsigned char *base = toucher->vm->guest.base;
    uint64_t page_size = toucher->vm->guest.page_size;
    bool paced = toucher->vm->options->paced;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < toucher->count; i++) {
        const volatile unsigned char *page = base + toucher->order[i].page * page_size;
        uint64_t due_ns = toucher->vm->board->start_ns + toucher->order[i].ms * UINT64_C(1000000);
        if (paced && bench_now_ns() < due_ns)
            sleep_until(due_ns);
        uint64_t before = bench_now_ns();
        sum += *page;
        bench_hist_add(&result->latency, bench_now_ns() - before);
    }
    result->checksum = sum;
}

static void *toucher_main(void *arg)
{
    struct toucher *toucher = arg;
    struct bench_board *board = toucher->vm->board;
    struct bench_thread_result *result = &board->thread[toucher->number];
    uint32_t all = toucher->vm->options->vms * toucher->vm->options->threads;
    memset(&result->latency, 0,
           sizeof(result->latency)); // so that its own pages are there before the start
    if (!toucher->vm->options->restore) {
        arrive(&board->ready, 1, all);
        await_stage(board, BENCH_TOUCH);
    }
    uint64_t faults = page_faults();
    uint64_t cpu_ns = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    touch_all(toucher, result);
    result->end_ns = bench_now_ns();
    result->cpu_ns = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns;
    result->faults = page_faults() - faults;
    arrive(&board->finished, 1, all);
    return NULL;
}

static bool page_right(const struct vm *vm, int memory_fd, uint64_t page, unsigned char *buf)
{
    uint64_t size = vm->guest.page_size;
    memset(buf, 0, size); // memory beyond the end of the file is zero
    for (uint64_t done = 0; done < size;) {
        ssize_t got = pread(memory_fd, buf + done, size - done, (off_t)(page * size + done));
        if (got <= 0)
            break;
        done += (uint64_t)got;
    }
    return memcmp(buf, vm->guest.base + page * size, size) == 0;
}

// Compares pages that are spread evenly over the order, from the start and the end of the run.
static int verify(struct vm *vm, const struct bench_touch *order, uint64_t count)
{
    uint64_t want = vm->options->verify < count ? vm->options->verify : count;
    if (want == 0)
        return 0;
    int fd = open(vm->options->memory_file, O_RDONLY | O_CLOEXEC);
    unsigned char *buf = fd < 0 ? NULL : malloc(vm->guest.page_size);
    if (buf == NULL) {
        int err = -errno;
        if (fd >= 0)
            close(fd);
        return err;
    }
    for (uint64_t i = 0; i < want; i++) {
        uint64_t page = order[i * count / want].page;
        if (!page_right(vm, fd, page, buf) && atomic_fetch_add(&vm->board->pages_wrong, 1) == 0)
            fprintf(stderr, "loadgen: vm %u page %" PRIu64 " is not what %s holds\n", vm->number,
                    page, vm->options->memory_file);
        atomic_fetch_add(&vm->board->pages_compared, 1);
    }
    free(buf);
    close(fd);
    return 0;
}

// Touches the last page, which is in no order, before the start: then the VM is attached, and no
// measured fault contains that.
static void prime(const struct vm *vm, uint64_t pages)
{
    (void)*(const volatile unsigned char *)(vm->guest.base + (pages - 1) * vm->guest.page_size);
}

static int assign(struct toucher *toucher, struct bench_touch *order, uint64_t count,
                  uint64_t pages)
{
    const struct load_options *options = toucher->vm->options;
    uint64_t index = toucher->number % options->threads;
    if (options->shared)
        return bench_order_make(options, pages, count,
                                options->seed + toucher->number + options->vms, &toucher->order,
                                &toucher->count);
    uint64_t first = count * index / options->threads;
    toucher->order = order + first;
    toucher->count = count * (index + 1) / options->threads - first;
    return 0;
}

static int start_touchers(struct vm *vm, struct toucher *touchers, struct bench_touch *order,
                          uint64_t count, uint64_t pages)
{
    for (uint32_t i = 0; i < vm->options->threads; i++) {
        touchers[i] = (struct toucher){.vm = vm, .number = vm->number * vm->options->threads + i};
        int err = assign(&touchers[i], order, count, pages);
        if (err == 0)
            err = -pthread_create(&touchers[i].thread, NULL, toucher_main, &touchers[i]);
        // The process ends at once, so the threads that did start need no cleanup.
        if (err < 0)
            return err;
    }
    return 0;
}

static int attach(struct vm *vm)
{
    const struct load_options *options = vm->options;
    if (options->mapped_file != NULL)
        return bench_guest_map(&vm->guest, options->mapped_file, options->bytes);
    return bench_guest_start(&vm->guest, options->socket_path, options->bytes, options->page_size);
}

// Attaches the VM before the start, or with --restore after it.
static int attach_in_time(struct vm *vm, uint64_t pages)
{
    const struct load_options *options = vm->options;
    struct bench_board *board = vm->board;
    if (options->restore) {
        arrive(&board->ready, options->threads, options->vms * options->threads);
        await_stage(board, BENCH_TOUCH);
    }
    int err = attach(vm);
    if (err == 0 && !options->restore && options->touch > 0)
        prime(vm, pages);
    return err;
}

static int touch_and_verify(struct vm *vm, struct toucher *touchers, struct bench_touch *order,
                            uint64_t count, uint64_t pages)
{
    const struct load_options *options = vm->options;
    int err = start_touchers(vm, touchers, order, count, pages);
    if (err < 0)
        return err;
    for (uint32_t i = 0; i < options->threads; i++)
        pthread_join(touchers[i].thread, NULL);
    await_stage(vm->board, BENCH_VERIFY);
    err = verify(vm, order, count);
    arrive(&vm->board->verified, 1, options->vms);
    await_stage(vm->board, BENCH_RELEASE);
    return err;
}

static int run(struct vm *vm)
{
    const struct load_options *options = vm->options;
    uint64_t pages = options->bytes / options->page_size;
    struct toucher *touchers = calloc(options->threads, sizeof(*touchers));
    struct bench_touch *order = NULL;
    uint64_t count = 0;
    if (touchers == NULL)
        return -ENOMEM;
    int err = bench_order_make(options, pages - 1, options->touch, options->seed + vm->number,
                               &order, &count);
    if (err == 0)
        err = attach_in_time(vm, pages);
    return err < 0 ? err : touch_and_verify(vm, touchers, order, count, pages - 1);
}

int bench_vm_main(const struct load_options *options, struct bench_board *board, uint32_t number)
{
    struct vm vm = {.options = options, .board = board, .number = number};
    int err = run(&vm);
    if (err < 0)
        fprintf(stderr, "loadgen: vm %u on %s: %s\n", number,
                options->mapped_file != NULL ? options->mapped_file : options->socket_path,
                strerror(-err));
    // The kernel unmaps and closes the rest, as it does when a VMM exits.
    return err < 0 ? 1 : 0;
}
