// SPDX-License-Identifier: Apache-2.0
//
// The files' thread: its loop, its beginning and its end.
//
// It blocks in poll() alone. What needs the store goes to readers and comes back as mail, so a disk
// that hangs holds up no other call. Calls that wait do not keep it from reading on, as what comes
// may be a FORGET, or that a caller was killed; with FL_FILES_CALLS_MOST in hand it does stop.
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/base/rcu.h"
#include "engine/files/files_internal.h"
#include "engine/files/files_thread.h"
#include "engine/link/death_watch.h"

enum { REQUESTS_A_ROUND = 32 };
#define LOOK_EVERY (100 * FL_NS_PER_MS)

// False when there is nothing to read, or the connection is gone.
static bool read_request(struct fl_files *files)
{
    ssize_t got = read(files->device, files->request, FL_FILES_REQUEST);
    if (got >= (ssize_t)sizeof(struct fuse_in_header)) {
        FL_CRASH_POINT("files_read");
        fl_files_request(files, (const void *)files->request, (size_t)got);
        return true;
    }
    if (got < 0 && (errno == EINTR || errno == ENOENT)) // it was taken back meanwhile
        return true;
    if (got < 0 && errno == ENODEV && !atomic_exchange(&files->ended, true))
        fl_mailbox_post(files->options.control, &files->gone);
    return false;
}

static bool reads(const struct fl_files *files)
{
    return !atomic_load(&files->ended) && atomic_load(&files->calls_now) < FL_FILES_CALLS_MOST;
}

static void read_requests(struct fl_files *files)
{
    for (unsigned i = 0; i < REQUESTS_A_ROUND && reads(files) && !files->stopping; i++) {
        if (!read_request(files))
            return;
    }
}

// Storage did not return what a call needs: nothing waits for ever.
static void expire_call(struct fl_files_call *call)
{
    if (call->late)
        call->late(call);
    fl_files_call_answer(call, -EIO, NULL, 0);
    call->leave(call);
}

// When to look again.
static uint64_t expire(struct fl_files *files)
{
    struct fl_files_call *call;
    struct fl_files_call *next;
    uint64_t oldest = FL_NEVER;
    uint64_t limit = files->options.read_timeout_ms * FL_NS_PER_MS;
    cds_list_for_each_entry_safe(call, next, &files->calls, link)
    {
        if (call->answered || (call->signalled && fl_files_call_leave_killed(call)))
            continue;
        if (call->since_ns + limit <= files->now)
            expire_call(call);
        else
            oldest = call->since_ns < oldest ? call->since_ns : oldest;
    }
    atomic_store(&files->oldest_ns, oldest == FL_NEVER ? 0 : oldest);
    return oldest == FL_NEVER ? FL_NEVER : files->now + LOOK_EVERY;
}

static void wait_for_more(struct fl_files *files, uint64_t due)
{
    struct pollfd waited[2] = {{.fd = files->mailbox.event_fd, .events = POLLIN},
                               {.fd = reads(files) ? files->device : -1, .events = POLLIN}};
    if (files->stopping || !fl_mailbox_sleep(&files->mailbox))
        return;
    struct timespec left = fl_until(fl_now(), due);
    fl_rcu_offline();
    ppoll(waited, 2, due == FL_NEVER ? NULL : &left, NULL);
    fl_rcu_online();
    fl_mailbox_awake(&files->mailbox);
}

static void run(struct fl_files *files)
{
    while (!files->stopping) {
        files->now = fl_now();
        fl_mailbox_drain(&files->mailbox, files);
        read_requests(files);
        uint64_t due = fl_files_reads_due(files);
        uint64_t look = expire(files);
        fl_rcu_quiescent();
        wait_for_more(files, due < look ? due : look);
    }
}

static void *thread_main(void *arg)
{
    struct fl_files *files = arg;
    pthread_setname_np(pthread_self(), "fl-files");
    if (files->options.life)
        fl_life_table_join(files->options.life, files->options.life_slot);
    rcu_register_thread();
    run(files);
    rcu_unregister_thread();
    return NULL;
}

int fl_files_thread_start(struct fl_files *files)
{
    files->request = malloc(FL_FILES_REQUEST);
    files->zeros = calloc(1, FL_FUSE_READ_MOST);
    if (!files->request || !files->zeros)
        return -ENOMEM;
    int error = -pthread_create(&files->thread, NULL, thread_main, files);
    files->running = !error;
    return error;
}

static void stop(void *owner, struct fl_mail *mail)
{
    struct fl_files *files = owner;
    (void)mail;
    files->stopping = true;
}

// Calls in hand are not answered: a successor has them sent again, or the connection ends.
void fl_files_thread_stop(struct fl_files *files)
{
    struct fl_files_call *call;
    struct fl_files_call *next;
    if (!files->running)
        return;
    files->stop.deliver = stop;
    fl_mailbox_post(&files->mailbox, &files->stop);
    pthread_join(files->thread, NULL);
    files->running = false;
    cds_list_for_each_entry_safe(call, next, &files->calls, link)
    {
        call->answered = true;
        call->leave(call);
    }
}
