// SPDX-License-Identifier: Apache-2.0
//
// The thread of a worker: its core, its priority, its memory, its beginning and its end.
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/link/death_watch.h"
#include "engine/link/ledger.h"
#include "engine/worker/engine.h"
#include "engine/worker/lane.h"
#include "engine/worker/release.h"
#include "engine/worker/worker.h"

enum { ZEROS_BYTES = 2 << 20 };
#define HALT_PAUSE FL_NS_PER_MS
#define HALT_PATIENCE (20 * FL_NS_PER_MS) // for a call to come to its end

// With --pin, the nth core that we may run on; a lane, whose thread may wait or free memory for
// long, on any. Failing to pin costs speed only.
static void thread_pin(const struct fl_worker *worker)
{
    const cpu_set_t *allowed = &worker->engine->cpus;
    cpu_set_t one;
    unsigned cpu = 0;
    if (CPU_COUNT(allowed) == 0)
        return;
    unsigned skip = worker->index % (unsigned)CPU_COUNT(allowed);
    while (!CPU_ISSET(cpu, allowed) || skip-- > 0)
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    bool any = worker->is_lane || !worker->engine->options.pin;
    pthread_setaffinity_np(pthread_self(), sizeof(one), any ? allowed : &one);
}

// A vCPU that is woken would else preempt the worker in the middle of a batch, at the cost of all
// others in it. Only its own VM waits for a lane.
static void thread_become(const struct fl_worker *worker)
{
    char name[16];
    snprintf(name, sizeof(name), worker->is_lane ? "fl-lane-%u" : "fl-worker-%u", worker->index);
    pthread_setname_np(pthread_self(), name);
    setpriority(PRIO_PROCESS, (id_t)gettid(), worker->is_lane ? 0 : worker->shard.options->nice);
    thread_pin(worker);
}

// Comes by here again when it was taken from: as what runs the lane.
static void thread_run(struct fl_thread *thread)
{
    (void)setjmp(thread->call.anew);
    for (;;) {
        struct fl_worker *worker = atomic_load(&thread->worker);
        thread_become(worker);
        fl_worker_work(worker);
        if (!worker->leave_for)
            return;
        fl_lane_go_on_with(thread, worker);
    }
}

static void *thread_main(void *argument)
{
    struct fl_thread *thread = argument;
    atomic_store(&thread->tid, gettid());
    fl_life_table_join(thread->engine->life, thread->slot);
    sem_post(&thread->engine->begun);
    rcu_register_thread();
    thread_run(thread);
    rcu_unregister_thread();
    return NULL;
}

static int worker_allocate(struct fl_worker *worker)
{
    // Never written, so its pages stay the one shared zero page.
    void *zeros = mmap(NULL, ZEROS_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    worker->shard.zeros = zeros == MAP_FAILED ? NULL : zeros;
    return worker->shard.zeros ? 0 : -ENOMEM;
}

static void worker_release(struct fl_worker *worker)
{
    if (worker->shard.zeros)
        munmap(worker->shard.zeros, ZEROS_BYTES);
    if (worker->shard.epoll_fd >= 0)
        close(worker->shard.epoll_fd);
    fl_mailbox_fini(&worker->shard.mailbox);
}

static int worker_start_thread(struct fl_worker *worker)
{
    struct fl_thread *thread = &worker->own;
    int error = worker_allocate(worker);
    if (error)
        return error;
    worker->shard.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (worker->shard.epoll_fd < 0)
        return -errno;
    worker->watch_mailbox.kind = FL_WATCH_MAILBOX;
    error = fl_shard_watch(&worker->shard, worker->shard.mailbox.event_fd, EPOLLIN,
                           &worker->watch_mailbox);
    if (error)
        return error;
    thread->engine = worker->engine;
    thread->slot = 1 + worker->index;
    thread->call.shared = fl_life_table_call(worker->engine->life, thread->slot);
    atomic_store(&thread->worker, worker);
    thread->call.watcher = &worker->engine->call_watcher;
    atomic_store(&worker->shard.call, &thread->call);
    return -pthread_create(&thread->pthread, NULL, thread_main, thread);
}

static const struct fl_shard_ops shard_ops = {.release = fl_release_slice};

void fl_worker_prepare(struct fl_worker *worker, struct fl_engine *engine, unsigned index)
{
    worker->index = index;
    worker->engine = engine;
    worker->shard.ops = &shard_ops;
    worker->shard.options = &engine->options;
    worker->shard.cache = engine->cache;
    worker->shard.stats = fl_ledger_block(engine->ledger, FL_LEDGER_THREADS, index);
    worker->shard.control = &engine->control;
    worker->shard.killer = &engine->killer;
    worker->shard.memory = &engine->memory;
    worker->shard.collapser = engine->collapser;
    worker->shard.prefetch = (struct fl_prefetch_budget){
        .window = engine->options.prefetch_pages,
        .vm = engine->options.prefetch_vm_bytes >> FL_PAGE_SHIFT,
        .host = engine->options.prefetch_host_bytes >> FL_PAGE_SHIFT,
        .unproven = &engine->prefetch_unproven,
    };
}

int fl_worker_start(struct fl_worker *worker)
{
    worker->shard.epoll_fd = -1;
    CDS_INIT_LIST_HEAD(&worker->owned);
    CDS_INIT_LIST_HEAD(&worker->shard.hot);
    CDS_INIT_LIST_HEAD(&worker->shard.retry);
    CDS_INIT_LIST_HEAD(&worker->shard.due);
    CDS_INIT_LIST_HEAD(&worker->shard.tasks);
    CDS_INIT_LIST_HEAD(&worker->shard.dead);
    int error = fl_mailbox_init(&worker->shard.mailbox);
    if (error)
        return error;
    error = worker_start_thread(worker);
    if (error)
        worker_release(worker);
    return error;
}

static void worker_stop(void *owner, struct fl_mail *mail)
{
    (void)mail;
    fl_worker_of(owner)->stopping = true;
}

// True if it is within a call, and comes out of it no more.
static bool call_hold(struct fl_thread *thread)
{
    uint64_t word = atomic_load(&thread->call.word);
    enum fl_call_state state = fl_call_state(word);
    uint64_t held = word - (uint64_t)state + FL_CALL_HELD;
    return (state == FL_CALL_IN || state == FL_CALL_TAKEN) &&
           atomic_compare_exchange_strong(&thread->call.word, &word, held);
}

static void thread_wait_for_end(struct fl_thread *thread, bool leave)
{
    uint64_t patience = fl_now() + HALT_PATIENCE;
    for (;;) {
        struct timespec time;
        clock_gettime(CLOCK_REALTIME, &time);
        time.tv_nsec += (long)HALT_PAUSE;
        time.tv_sec += time.tv_nsec / (long)FL_NS_PER_S;
        time.tv_nsec %= (long)FL_NS_PER_S;
        if (pthread_timedjoin_np(thread->pthread, NULL, &time) == 0)
            return;
        if (leave && fl_now() > patience && call_hold(thread)) {
            fl_log(FL_LOG_WARNING,
                   "event=left vm=%" PRIu64
                   " reason=\"the kernel blocks the thread that serves it: the VM is handed over "
                   "when the thread comes out\"",
                   atomic_load(thread->call.shared));
            return;
        }
    }
}

void fl_workers_halt(struct fl_engine *engine, bool leave)
{
    struct fl_mail *mail = calloc(fl_engine_workers(engine), sizeof(*mail));
    for (unsigned i = 0; i < fl_engine_workers(engine) && mail; i++) {
        mail[i].deliver = worker_stop;
        fl_mailbox_post(&fl_engine_worker(engine, i)->shard.mailbox, &mail[i]);
    }
    for (unsigned i = 0; i < fl_engine_workers(engine) && mail; i++)
        thread_wait_for_end(&fl_engine_worker(engine, i)->own, leave);
    free(mail);
}

void fl_worker_free(struct fl_worker *worker)
{
    worker_release(worker);
}
