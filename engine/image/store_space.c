// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The thread sleeps until it is asked. It is made at the first question, so
// that a standby never has one, and is detached: a process that ends must not wait for storage.
// What the two share has a reference of each, and the last one frees it. The lock is never held
// over anything that waits.
#include "engine/image/store_space.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "engine/base/clock.h"

enum { BLOCK = 512, DEPTH = 4 };
#define SPACE_EVERY (5 * FL_NS_PER_S)
#define FILES_EVERY (60 * FL_NS_PER_S) // a store may have many files

struct fl_store_space {
    char *store;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    // Under the lock:
    unsigned references;
    bool ends;
    bool asked;
    bool known;
    uint64_t bytes;
    uint64_t size;
    uint64_t free;
    uint64_t seen_ns;
    // The control thread:
    bool started;
    // The other thread:
    uint64_t files_ns; // when the files were added up
    uint64_t counted;  // what came of it
};

static void space_unref(struct fl_store_space *space)
{
    pthread_mutex_lock(&space->lock);
    bool last = --space->references == 0;
    pthread_mutex_unlock(&space->lock);
    if (!last)
        return;
    pthread_cond_destroy(&space->changed);
    pthread_mutex_destroy(&space->lock);
    free(space->store);
    free(space);
}

// --- the thread ---

// Files that go meanwhile are no error. Symbolic links are not followed.
static uint64_t files_below(int directory, unsigned depth)
{
    struct stat status;
    const struct dirent *entry;
    uint64_t bytes = 0;
    DIR *list = directory >= 0 ? fdopendir(directory) : NULL;
    if (!list && directory >= 0)
        close(directory);
    while (list && (entry = readdir(list)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            fstatat(dirfd(list), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        bytes += (uint64_t)status.st_blocks * BLOCK;
        if (S_ISDIR(status.st_mode) && depth > 0)
            bytes += files_below(
                openat(dirfd(list), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
                depth - 1);
    }
    if (list)
        closedir(list);
    return bytes;
}

static void look_at_store(struct fl_store_space *space)
{
    struct statvfs system;
    bool known = statvfs(space->store, &system) == 0;
    uint64_t now = fl_now();
    if (known && (space->files_ns == 0 || now - space->files_ns >= FILES_EVERY)) {
        space->counted = files_below(open(space->store, O_RDONLY | O_DIRECTORY | O_CLOEXEC), DEPTH);
        space->files_ns = now;
    }
    pthread_mutex_lock(&space->lock);
    if (known) { // else what was seen last grows old
        space->known = true;
        space->bytes = space->counted;
        space->size = (uint64_t)system.f_blocks * system.f_frsize;
        space->free = (uint64_t)system.f_bavail * system.f_frsize;
        space->seen_ns = fl_now();
    }
    pthread_mutex_unlock(&space->lock);
}

static bool wait_for_question(struct fl_store_space *space)
{
    pthread_mutex_lock(&space->lock);
    while (!space->asked && !space->ends)
        pthread_cond_wait(&space->changed, &space->lock);
    bool goes_on = !space->ends;
    pthread_mutex_unlock(&space->lock);
    return goes_on;
}

static void *space_main(void *argument)
{
    struct fl_store_space *space = argument;
    pthread_setname_np(pthread_self(), "fl-space");
    while (wait_for_question(space)) {
        look_at_store(space);
        pthread_mutex_lock(&space->lock);
        space->asked = false;
        pthread_mutex_unlock(&space->lock);
    }
    space_unref(space);
    return NULL;
}

// --- the control thread ---

struct fl_store_space *fl_store_space_new(const char *store)
{
    struct fl_store_space *space = calloc(1, sizeof(*space));
    if (!space)
        return NULL;
    space->store = realpath(store, NULL);
    if (!space->store)
        space->store = strdup(store);
    if (!space->store) {
        free(space);
        return NULL;
    }
    pthread_mutex_init(&space->lock, NULL);
    pthread_cond_init(&space->changed, NULL);
    space->references = 1;
    return space;
}

void fl_store_space_free(struct fl_store_space *space)
{
    if (!space)
        return;
    pthread_mutex_lock(&space->lock);
    space->ends = true;
    pthread_cond_signal(&space->changed);
    pthread_mutex_unlock(&space->lock);
    space_unref(space);
}

const char *fl_store_space_path(const struct fl_store_space *space)
{
    return space ? space->store : NULL;
}

// Without memory for it, at the next question.
static void start_thread(struct fl_store_space *space)
{
    pthread_t thread;
    space->references = 2;
    space->started = pthread_create(&thread, NULL, space_main, space) == 0;
    if (space->started)
        pthread_detach(thread);
    else
        space->references = 1;
}

struct fl_store_space_now fl_store_space_now(struct fl_store_space *space)
{
    struct fl_store_space_now now = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
    if (!space)
        return now;
    if (!space->started)
        start_thread(space);
    pthread_mutex_lock(&space->lock);
    uint64_t age = fl_now() - space->seen_ns;
    if (space->known)
        now = (struct fl_store_space_now){space->bytes, space->size, space->free, age};
    if (!space->asked && (!space->known || age >= SPACE_EVERY)) {
        space->asked = true;
        pthread_cond_signal(&space->changed);
    }
    pthread_mutex_unlock(&space->lock);
    return now;
}
