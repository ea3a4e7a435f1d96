// SPDX-License-Identifier: Apache-2.0
#include "engine/life.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct fl_life {
    unsigned threads;
    pthread_mutex_t thread[FL_LIFE_THREADS];
};

struct watch {
    struct fl_life *life;
    int event_fd;
};

static struct fl_life *map(int fd)
{
    struct fl_life *life = mmap(NULL, sizeof(*life), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return life == MAP_FAILED ? NULL : life;
}

static void *watch_main(void *arg)
{
    struct watch *watch = arg;
    unsigned threads = watch->life->threads;
    for (unsigned i = 0; i < threads && i < FL_LIFE_THREADS; i++)
        pthread_mutex_lock(&watch->life->thread[i]); // EOWNERDEAD, at last
    eventfd_write(watch->event_fd, 1);
    close(watch->event_fd);
    // Ours now, and in the list of what the kernel would give up for us: not to be unmapped before.
    for (unsigned i = 0; i < threads && i < FL_LIFE_THREADS; i++)
        pthread_mutex_unlock(&watch->life->thread[i]);
    munmap(watch->life, sizeof(*watch->life));
    free(watch);
    return NULL;
}

static int start(struct watch *watch, int event_fd)
{
    pthread_t thread;
    pthread_attr_t attributes;
    watch->event_fd = fcntl(event_fd, F_DUPFD_CLOEXEC, 0); // the keeper may close its own first
    if (watch->event_fd < 0)
        return -errno;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int error = -pthread_create(&thread, &attributes, watch_main, watch);
    pthread_attr_destroy(&attributes);
    if (error)
        close(watch->event_fd);
    return error;
}

int fl_life_watch(int fd)
{
    struct stat status;
    struct watch *watch = calloc(1, sizeof(*watch));
    int event_fd = watch ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
    if (event_fd < 0) {
        free(watch);
        return -errno;
    }
    // Of an engine of another version it may be something else, and reading beyond it would kill
    // us.
    bool ours = fstat(fd, &status) == 0 && status.st_size == (off_t)sizeof(*watch->life);
    watch->life = ours ? map(fd) : NULL;
    int error = watch->life ? 0 : ours ? -errno : -EPROTONOSUPPORT;
    if (!error)
        error = start(watch, event_fd);
    if (!error)
        return event_fd;
    if (watch->life)
        munmap(watch->life, sizeof(*watch->life));
    free(watch);
    close(event_fd);
    return error;
}

static void prepare(struct fl_life *life, unsigned threads)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    for (unsigned i = 0; i < threads; i++)
        pthread_mutex_init(&life->thread[i], &attributes);
    pthread_mutexattr_destroy(&attributes);
    life->threads = threads;
}

int fl_life_new(unsigned threads, int *ret_fd, struct fl_life **ret_life)
{
    if (threads > FL_LIFE_THREADS)
        return -EINVAL;
    int fd = memfd_create("faultline-life", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct fl_life *life = ftruncate(fd, sizeof(*life)) == 0 ? map(fd) : NULL;
    if (!life) {
        int error = -errno;
        close(fd);
        return error;
    }
    prepare(life, threads);
    *ret_fd = fd;
    *ret_life = life;
    return 0;
}

void fl_life_begin(struct fl_life *life, unsigned thread)
{
    pthread_mutex_lock(&life->thread[thread]);
}
