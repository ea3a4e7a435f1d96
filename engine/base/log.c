// SPDX-License-Identifier: Apache-2.0
//
// A thread that logs makes a record, asks the limits, and puts it into the queue, all within a few
// microseconds under one lock under which no thread waits for anything. The log's thread takes the
// records out and writes them without the lock.
#include "engine/base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/log_limit.h"
#include "engine/base/log_output.h"
#include "engine/base/log_queue.h"

#define PATIENCE (200 * FL_NS_PER_MS) // with a reader that takes nothing
#define STEP FL_NS_PER_MS

static struct {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    // Under the lock:
    bool running; // there is a thread that writes
    bool stopping;
    struct fl_log_queue queue;
    struct fl_log_limit limit;
    uint64_t lost[4]; // dropped and not told yet: all, and of these poison, kill and refuse
    // Any thread:
    _Atomic(const char *) process;
    _Atomic int level;
    _Atomic uint64_t put;     // records into the queue
    _Atomic uint64_t written; // those of them that are written or lost since
    _Atomic uint64_t dropped;
    _Atomic uint64_t held_back;
    pthread_t thread;
} log_state = {.lock = PTHREAD_MUTEX_INITIALIZER, .process = "faultline", .level = FL_LOG_INFO};

// Under the lock.
static void count_lost(const struct fl_log_record *record)
{
    static const char *const told_apart[] = {"", "poison", "kill", "refuse"};
    const char *event = fl_log_record_get(record, "event");
    atomic_fetch_add(&log_state.dropped, 1);
    log_state.lost[0]++;
    for (unsigned i = 1; i < sizeof(told_apart) / sizeof(told_apart[0]); i++)
        log_state.lost[i] += strcmp(event, told_apart[i]) == 0;
}

// --- the log's thread ---

// Under the lock: what comes next, of which only records of the queue are counted as `put`.
static bool take_record(struct fl_log_record *ret_record, bool *ret_counted)
{
    uint64_t *lost = log_state.lost;
    *ret_counted = false;
    // What was lost comes first in time, but a queue that is still full would lose more.
    if (lost[0] > 0 && log_state.queue.used < FL_LOG_QUEUE / 2) {
        fl_log_record_make(ret_record, FL_LOG_ERROR,
                           "event=log_dropped lines=%" PRIu64 " poison=%" PRIu64 " kill=%" PRIu64
                           " refuse=%" PRIu64,
                           lost[0], lost[1], lost[2], lost[3]);
        memset(lost, 0, sizeof(log_state.lost));
        return true;
    }
    *ret_counted = fl_log_queue_take(&log_state.queue, ret_record);
    return *ret_counted ||
           fl_log_limit_tell(&log_state.limit, fl_now(), log_state.stopping, ret_record);
}

// Under the lock. For a second at most while there are lines to tell of.
static void wait_for_record(void)
{
    struct timespec until;
    if (log_state.limit.held == 0) {
        pthread_cond_wait(&log_state.filled, &log_state.lock);
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec++;
    pthread_cond_timedwait(&log_state.filled, &log_state.lock, &until);
}

static void *log_main(void *argument)
{
    static struct fl_log_record record;
    (void)argument;
    pthread_setname_np(pthread_self(), "fl-log");
    pthread_mutex_lock(&log_state.lock);
    for (;;) {
        bool counted = false;
        if (!take_record(&record, &counted)) {
            if (log_state.stopping)
                break;
            wait_for_record();
            continue;
        }
        pthread_mutex_unlock(&log_state.lock);
        bool done = fl_log_output_write(&record, atomic_load(&log_state.process));
        pthread_mutex_lock(&log_state.lock);
        if (!done)
            count_lost(&record);
        atomic_fetch_add(&log_state.written, counted);
    }
    pthread_mutex_unlock(&log_state.lock);
    return NULL;
}

int fl_log_start(const char *process)
{
    sigset_t all;
    sigset_t before;
    pthread_condattr_t attributes;
    atomic_store(&log_state.process, process);
    fl_log_output_open();
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&log_state.filled, &attributes);
    pthread_condattr_destroy(&attributes);
    sigfillset(&all);
    sigdelset(&all, SIGSYS); // call_filter.h
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = -pthread_create(&log_state.thread, NULL, log_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_mutex_lock(&log_state.lock);
    log_state.running = error == 0;
    pthread_mutex_unlock(&log_state.lock);
    return error;
}

// --- any thread ---

// Under the lock. False if the record is to be written by the caller.
static bool hand_over(const struct fl_log_record *record)
{
    if (!fl_log_limit_allows(&log_state.limit, record, fl_now())) {
        atomic_fetch_add(&log_state.held_back, 1);
        if (log_state.limit.held > 1) // else the thread is to look again in a second
            return true;
    } else if (!log_state.running) {
        return false;
    } else if (fl_log_queue_put(&log_state.queue, record)) {
        atomic_fetch_add(&log_state.put, 1);
    } else {
        count_lost(record);
    }
    pthread_cond_signal(&log_state.filled);
    return true;
}

void fl_log(enum fl_log_level level, const char *format, ...)
{
    struct fl_log_record record;
    int error = errno;
    if ((int)level > atomic_load_explicit(&log_state.level, memory_order_relaxed))
        return;
    va_list args;
    va_start(args, format);
    fl_log_record_vmake(&record, (int)level, format, args);
    va_end(args);
    pthread_mutex_lock(&log_state.lock);
    if (!hand_over(&record) && !fl_log_output_try(&record, atomic_load(&log_state.process)))
        count_lost(&record);
    pthread_mutex_unlock(&log_state.lock);
    errno = error;
}

// Also in a signal handler: the lock may be held by the thread that was interrupted.
void fl_log_flush(void)
{
    uint64_t until = atomic_load(&log_state.put);
    uint64_t written = atomic_load(&log_state.written);
    uint64_t deadline = fl_now() + PATIENCE;
    while (written < until && fl_now() < deadline) {
        struct timespec step = {.tv_nsec = (long)STEP};
        nanosleep(&step, NULL);
        uint64_t now = atomic_load(&log_state.written);
        if (now != written)
            deadline = fl_now() + PATIENCE;
        written = now;
    }
}

void fl_log_stop(void)
{
    pthread_mutex_lock(&log_state.lock);
    bool running = log_state.running && !log_state.stopping;
    log_state.stopping = true;
    pthread_cond_signal(&log_state.filled);
    pthread_mutex_unlock(&log_state.lock);
    if (!running)
        return;
    fl_log_flush();
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)PATIENCE;
    until.tv_sec += until.tv_nsec / (long)FL_NS_PER_S;
    until.tv_nsec %= (long)FL_NS_PER_S;
    if (pthread_timedjoin_np(log_state.thread, NULL, &until) != 0)
        pthread_detach(log_state.thread); // it cannot write: the process ends without it
    pthread_mutex_lock(&log_state.lock);
    log_state.running = false;
    pthread_mutex_unlock(&log_state.lock);
}

void fl_log_move(int fd)
{
    if (dup2(fd, STDERR_FILENO) >= 0)
        fl_log_output_open();
}

void fl_log_set_process(const char *process)
{
    atomic_store(&log_state.process, process);
}

void fl_log_set_level(enum fl_log_level least)
{
    atomic_store(&log_state.level, (int)least);
}

bool fl_log_parse_level(const char *name, enum fl_log_level *ret_level)
{
    static const struct {
        const char *name;
        enum fl_log_level level;
    } levels[] = {{"error", FL_LOG_ERROR},
                  {"warning", FL_LOG_WARNING},
                  {"info", FL_LOG_INFO},
                  {"debug", FL_LOG_DEBUG}};
    for (unsigned i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        if (strcmp(name, levels[i].name) == 0) {
            *ret_level = levels[i].level;
            return true;
        }
    }
    return false;
}

void fl_log_count(struct fl_log_counts *ret_counts)
{
    ret_counts->dropped = atomic_load(&log_state.dropped);
    ret_counts->held_back = atomic_load(&log_state.held_back);
}

const char *fl_log_text(const char *text, char *buf, size_t size)
{
    size_t i = 0;
    for (; text[i] != '\0' && i + 1 < size; i++) {
        unsigned char c = (unsigned char)text[i];
        buf[i] = (char)(c < 0x20 || c == '"' || c == '\\' || c == 0x7f ? '?' : c);
    }
    buf[i] = '\0';
    return buf;
}
