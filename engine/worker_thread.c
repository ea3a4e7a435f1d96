// SPDX-License-Identifier: Apache-2.0
//
// The thread of a worker: its core, its priority, its memory, its beginning and its end.
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/life.h"
#include "engine/worker.h"

enum { ZEROS_BYTES = 2 << 20 };

// A vCPU that is woken would else preempt the worker in the middle of a batch, at the cost of all
// others in it.
static void set_priority(const struct fl_worker *worker)
{
    char name[16];
    snprintf(name, sizeof(name), "fl-worker-%u", worker->index);
    pthread_setname_np(pthread_self(), name);
    setpriority(PRIO_PROCESS, (id_t)gettid(), worker->options->nice);
}

static void *worker_main(void *argument)
{
    struct fl_worker *worker = argument;
    set_priority(worker);
    fl_life_begin(worker->engine->life, 1 + worker->index);
    sem_post(&worker->engine->begun);
    rcu_register_thread();
    fl_worker_work(worker);
    rcu_unregister_thread();
    return NULL;
}

// The nth core that we may run on. Failing to pin costs speed only.
static void pin(struct fl_worker *worker)
{
    cpu_set_t allowed;
    cpu_set_t one;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
        return;
    unsigned skip = worker->index % (unsigned)CPU_COUNT(&allowed);
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed) && skip-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            pthread_setaffinity_np(worker->thread, sizeof(one), &one);
            return;
        }
    }
}

static int allocate(struct fl_worker *worker)
{
    // Never written, so its pages stay the one shared zero page.
    void *zeros = mmap(NULL, ZEROS_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    worker->zeros = zeros == MAP_FAILED ? NULL : zeros;
    return worker->zeros ? 0 : -ENOMEM;
}

static void release(struct fl_worker *worker)
{
    if (worker->zeros)
        munmap(worker->zeros, ZEROS_BYTES);
    if (worker->epoll_fd >= 0)
        close(worker->epoll_fd);
    fl_mailbox_fini(&worker->mailbox);
}

static int start_thread(struct fl_worker *worker)
{
    int error = allocate(worker);
    if (error)
        return error;
    worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (worker->epoll_fd < 0)
        return -errno;
    worker->watch_mailbox.kind = FL_WATCH_MAILBOX;
    error = fl_worker_watch(worker, worker->mailbox.event_fd, EPOLLIN, &worker->watch_mailbox);
    return error ? error : -pthread_create(&worker->thread, NULL, worker_main, worker);
}

int fl_worker_start(struct fl_worker *worker)
{
    worker->epoll_fd = -1;
    CDS_INIT_LIST_HEAD(&worker->owned);
    CDS_INIT_LIST_HEAD(&worker->hot);
    CDS_INIT_LIST_HEAD(&worker->retry);
    CDS_INIT_LIST_HEAD(&worker->tasks);
    CDS_INIT_LIST_HEAD(&worker->dead);
    int error = fl_mailbox_init(&worker->mailbox);
    if (error)
        return error;
    error = start_thread(worker);
    if (error)
        release(worker);
    else
        pin(worker);
    return error;
}

static void stop(void *owner, struct fl_mail *mail)
{
    (void)mail;
    ((struct fl_worker *)owner)->stopping = true;
}

void fl_worker_halt(struct fl_worker *worker)
{
    struct fl_mail mail = {.deliver = stop};
    fl_mailbox_post(&worker->mailbox, &mail);
    pthread_join(worker->thread, NULL);
}

void fl_worker_stop(struct fl_worker *worker)
{
    fl_worker_halt(worker);
    release(worker);
}
