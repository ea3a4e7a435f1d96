// SPDX-License-Identifier: Apache-2.0
#include "engine/ahead/collapser.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/host/huge_collapse.h"
#include "engine/vm/shard.h"

#define MOST_PAUSE (20 * FL_NS_PER_MS)

struct fl_collapser {
    struct fl_mailbox mailbox;
    int nice;
    bool runs; // control thread: the mailbox and the thread are there
    pthread_t thread;
    bool ends;                // the thread's own,
    struct fl_huge_room room; //
    _Atomic bool stopping;    // what is queued is not done any more
    struct fl_mail end;
    _Atomic int refused;
};

static void free_job(struct fl_collapse_job *job)
{
    if (job->pidfd >= 0)
        close(job->pidfd);
    free(job);
}

static void drop_job(struct fl_mail *mail)
{
    free_job(caa_container_of(mail, struct fl_collapse_job, mail));
}

static void answer(void *owner, struct fl_mail *mail)
{
    struct fl_collapse_job *job = caa_container_of(mail, struct fl_collapse_job, mail);
    if (job->vm)
        job->done(owner, job->vm, job->error, job->ns);
    free_job(job);
}

// Of whichever process; -EACCES is of one that we may not trace.
static bool is_refusal(int error)
{
    return error == -EPERM || error == -ENOSYS;
}

// As long as all of it took, so that others get the CPU, and the host its memory, at least as
// often.
static void pause_for(uint64_t ns)
{
    ns = ns < MOST_PAUSE ? ns : MOST_PAUSE;
    nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
}

static void work(void *owner, struct fl_mail *mail)
{
    struct fl_collapser *collapser = owner;
    struct fl_collapse_job *job = caa_container_of(mail, struct fl_collapse_job, mail);
    uint64_t prepared = fl_now();
    bool stopping = atomic_load(&collapser->stopping);
    if (!stopping)
        fl_huge_room_make(&collapser->room);
    uint64_t begun = fl_now();
    FL_CRASH_POINT("collapse");
    job->error = stopping ? -EAGAIN : fl_huge_collapse(job->pidfd, job->address);
    FL_CRASH_POINT("collapsed");
    job->ns = fl_now() - begun;
    if (is_refusal(job->error))
        atomic_store(&collapser->refused, job->error);
    uint64_t ns = job->ns + (begun - prepared);
    job->mail.deliver = answer;
    fl_mailbox_post(job->box, &job->mail);
    if (!stopping)
        pause_for(ns);
}

static void end(void *owner, struct fl_mail *mail)
{
    struct fl_collapser *collapser = owner;
    (void)mail;
    collapser->ends = true;
}

static void *run(void *arg)
{
    struct fl_collapser *collapser = arg;
    pthread_setname_np(pthread_self(), "fl-collapse");
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), collapser->nice); // if we may
    while (!collapser->ends) {
        struct pollfd box = {.fd = collapser->mailbox.event_fd, .events = POLLIN};
        if (fl_mailbox_drain(&collapser->mailbox, collapser) ||
            !fl_mailbox_sleep(&collapser->mailbox))
            continue;
        poll(&box, 1, -1);
        fl_mailbox_awake(&collapser->mailbox);
    }
    fl_huge_room_end(&collapser->room);
    return NULL;
}

struct fl_collapser *fl_collapser_new(int nice)
{
    struct fl_collapser *collapser = calloc(1, sizeof(*collapser));
    if (collapser)
        collapser->nice = nice;
    return collapser;
}

int fl_collapser_need(struct fl_collapser *collapser)
{
    if (collapser->runs)
        return 0;
    int error = fl_mailbox_init(&collapser->mailbox);
    if (error)
        return error;
    error = -pthread_create(&collapser->thread, NULL, run, collapser);
    if (error)
        fl_mailbox_fini(&collapser->mailbox);
    collapser->runs = !error;
    return error;
}

int fl_collapser_post(struct fl_collapser *collapser, struct fl_mailbox *box, struct fl_vm *vm,
                      int pidfd, uint64_t address, fl_collapse_done *done,
                      struct fl_collapse_job **ret_job)
{
    struct fl_collapse_job *job = calloc(1, sizeof(*job));
    if (!job)
        return -ENOMEM;
    *job = (struct fl_collapse_job){.mail = {.deliver = work, .drop = drop_job},
                                    .box = box,
                                    .vm = vm,
                                    .done = done,
                                    .pidfd = fcntl(pidfd, F_DUPFD_CLOEXEC, 0),
                                    .address = address};
    if (job->pidfd < 0) {
        int error = -errno;
        free(job);
        return error;
    }
    *ret_job = job; // before its answer can come
    fl_mailbox_post(&collapser->mailbox, &job->mail);
    return 0;
}

int fl_collapser_refused(const struct fl_collapser *collapser)
{
    return atomic_load(&collapser->refused);
}

static void stop(struct fl_collapser *collapser)
{
    atomic_store(&collapser->stopping, true);
    collapser->end.deliver = end;
    fl_mailbox_post(&collapser->mailbox, &collapser->end);
    pthread_join(collapser->thread, NULL);
    fl_mailbox_fini(&collapser->mailbox);
}

void fl_collapser_free(struct fl_collapser *collapser)
{
    if (collapser && collapser->runs)
        stop(collapser);
    free(collapser);
}
