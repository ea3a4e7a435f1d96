// SPDX-License-Identifier: Apache-2.0
#include "engine/link/death_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/clock.h"

// A thread that was killed outside the kernel is within it after an interrupt, some microseconds
// later, and comes out no more: what it says of its call after this time, it says for good.
#define GRACE (5 * FL_NS_PER_MS)
#define PAUSE (50 * FL_NS_PER_US)
#define LATE_PAUSE (2 * FL_NS_PER_MS)

struct slot {
    pthread_mutex_t mutex;
    atomic_bool begun;
    _Atomic uint64_t vm; // within a call for it; 0: within none
};

struct fl_life_table {
    struct slot slot[FL_LIFE_TABLE_THREADS];
};

struct fl_death_watch {
    struct fl_life_table *life;
    int event_fd;
    atomic_int users; // the keeper's one thread, and the one that waits
    atomic_bool over;
    atomic_bool ended[FL_LIFE_TABLE_THREADS]; // written by the thread that waits
};

static struct fl_life_table *map_life(int fd)
{
    struct fl_life_table *life =
        mmap(NULL, sizeof(*life), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return life == MAP_FAILED ? NULL : life;
}

// --- the engine's side ---

static void prepare_mutexes(struct fl_life_table *life)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    for (unsigned i = 0; i < FL_LIFE_TABLE_THREADS; i++)
        pthread_mutex_init(&life->slot[i].mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

int fl_life_table_new(int *ret_fd, struct fl_life_table **ret_life)
{
    int fd = memfd_create("faultline-life", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct fl_life_table *life = ftruncate(fd, sizeof(*life)) == 0 ? map_life(fd) : NULL;
    if (!life) {
        int error = -errno;
        close(fd);
        return error;
    }
    prepare_mutexes(life);
    *ret_fd = fd;
    *ret_life = life;
    return 0;
}

void fl_life_table_join(struct fl_life_table *life, unsigned thread)
{
    pthread_mutex_lock(&life->slot[thread].mutex);
    atomic_store(&life->slot[thread].begun, true);
}

_Atomic uint64_t *fl_life_table_call(struct fl_life_table *life, unsigned thread)
{
    return &life->slot[thread].vm;
}

// --- the keeper's ---

// The thread that held the mutex has ended: locking it has said so. It is given back at once: two
// keepers may watch, the one that has the engine and the one that had it before, and either must
// find it free, neither lost nor held by the other.
static void note_thread(struct fl_death_watch *watch, unsigned thread, int locked)
{
    pthread_mutex_t *mutex = &watch->life->slot[thread].mutex;
    if (locked == EOWNERDEAD)
        pthread_mutex_consistent(mutex);
    if (locked == EOWNERDEAD || locked == 0)
        pthread_mutex_unlock(mutex);
    atomic_store(&watch->ended[thread], true);
}

// True if it has given its mutex up. ThreadSanitizer knows what EOWNERDEAD means here, and not of
// the calls that wait for some time only.
static bool thread_has_ended(struct fl_death_watch *watch, unsigned thread)
{
    int locked = pthread_mutex_trylock(&watch->life->slot[thread].mutex);
    if (locked == EBUSY)
        return false;
    note_thread(watch, thread, locked);
    return true;
}

static bool thread_is_left(const struct fl_death_watch *watch, unsigned thread)
{
    return atomic_load(&watch->life->slot[thread].begun) && !atomic_load(&watch->ended[thread]);
}

enum left { NONE_LEFT, HELD_UP, SOME_LEFT };

// Those that have not ended: all of them may be within calls.
static enum left threads_left(const struct fl_death_watch *watch)
{
    enum left left = NONE_LEFT;
    for (unsigned i = 0; i < FL_LIFE_TABLE_THREADS; i++) {
        if (thread_is_left(watch, i))
            left = left != SOME_LEFT && atomic_load(&watch->life->slot[i].vm) ? HELD_UP : SOME_LEFT;
    }
    return left;
}

// True if any has ended since the last time. No thread can begin once another was killed with the
// process.
static bool note_ended(struct fl_death_watch *watch)
{
    bool any = false;
    for (unsigned i = 0; i < FL_LIFE_TABLE_THREADS; i++)
        any |= thread_is_left(watch, i) && thread_has_ended(watch, i);
    return any;
}

static void pause_for(uint64_t ns)
{
    struct timespec time = {.tv_nsec = (long)ns};
    nanosleep(&time, NULL);
}

static void put_watch(struct fl_death_watch *watch)
{
    if (atomic_fetch_sub(&watch->users, 1) > 1)
        return;
    munmap(watch->life, sizeof(*watch->life));
    close(watch->event_fd);
    free(watch);
}

static void *watch_main(void *arg)
{
    struct fl_death_watch *watch = arg;
    // Until the engine is dying.
    note_thread(watch, 0, pthread_mutex_lock(&watch->life->slot[0].mutex));
    uint64_t grace = fl_now() + GRACE;
    note_ended(watch);
    for (enum left left = threads_left(watch); left != NONE_LEFT; left = threads_left(watch)) {
        bool late = fl_now() > grace;
        if (late && left == HELD_UP && !atomic_exchange(&watch->over, true))
            eventfd_write(watch->event_fd, 1);
        pause_for(late ? LATE_PAUSE : PAUSE);
        if (note_ended(watch) && atomic_load(&watch->over))
            eventfd_write(watch->event_fd, 1);
    }
    atomic_store(&watch->over, true);
    eventfd_write(watch->event_fd, 1);
    put_watch(watch);
    return NULL;
}

static int start_watching(struct fl_death_watch *watch)
{
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    atomic_store(&watch->users, 2);
    int error = -pthread_create(&thread, &attributes, watch_main, watch);
    pthread_attr_destroy(&attributes);
    return error;
}

int fl_death_watch_start(int fd, struct fl_death_watch **ret_watch)
{
    struct stat status;
    struct fl_death_watch *watch = calloc(1, sizeof(*watch));
    int error = 0;
    if (!watch)
        return -ENOMEM;
    watch->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    // Of an engine of another version it may be something else, and reading beyond it would kill
    // us.
    bool ours = fstat(fd, &status) == 0 && status.st_size == (off_t)sizeof(*watch->life);
    watch->life = ours ? map_life(fd) : NULL;
    if (watch->event_fd < 0 || !watch->life)
        error = ours ? -errno : -EPROTONOSUPPORT;
    if (!error)
        error = start_watching(watch);
    if (!error) {
        *ret_watch = watch;
        return 0;
    }
    if (watch->life)
        munmap(watch->life, sizeof(*watch->life));
    if (watch->event_fd >= 0)
        close(watch->event_fd);
    free(watch);
    return error;
}

void fl_death_watch_stop(struct fl_death_watch *watch)
{
    put_watch(watch);
}

int fl_death_watch_event_fd(const struct fl_death_watch *watch)
{
    return watch->event_fd;
}

bool fl_death_watch_is_over(const struct fl_death_watch *watch)
{
    return atomic_load(&watch->over);
}

bool fl_death_watch_holds(const struct fl_death_watch *watch, uint64_t vm)
{
    for (unsigned i = 0; i < FL_LIFE_TABLE_THREADS; i++) {
        if (thread_is_left(watch, i) && atomic_load(&watch->life->slot[i].vm) == vm)
            return true;
    }
    return false;
}
