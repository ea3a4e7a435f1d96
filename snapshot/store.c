// SPDX-License-Identifier: Apache-2.0
#include "snapshot/store_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "snapshot/io.h"
#include "snapshot/pack_list.h"
#include "snapshot/publish.h"

// Other users must not read a guest's memory.
enum { DIR_MODE = 0750, FILE_MODE = 0640 };

static const char *const parts[] = {FL_PACKS_DIR, FL_IMAGES_DIR, FL_INDEX_DIR, FL_TMP_DIR};
enum { PARTS = sizeof(parts) / sizeof(parts[0]) };

int fl_progress_call(const struct fl_progress *progress, uint64_t done, uint64_t total)
{
    return progress->fn && progress->fn(progress->arg, done, total) != 0 ? -ECANCELED : 0;
}

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

double fl_seconds_wall(void)
{
    return seconds(CLOCK_MONOTONIC);
}

double fl_seconds_thread(void)
{
    return seconds(CLOCK_THREAD_CPUTIME_ID);
}

static int check_part(void *arg, const char *name)
{
    (void)arg;
    for (size_t i = 0; i < PARTS; i++) {
        if (strcmp(name, parts[i]) == 0)
            return 0;
    }
    return strcmp(name, "lock") == 0 || strcmp(name, "lost+found") == 0 ? 0 : -ENOTEMPTY;
}

// The marker comes last: a directory with it is a whole store.
static int write_marker(int dir_fd)
{
    struct fl_temp temp;
    FL_AUTO_CLOSE int tmp_fd = openat(dir_fd, FL_TMP_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (tmp_fd < 0)
        return -errno;
    int r = fl_temp_create(tmp_fd, ".marker", &temp);
    if (r < 0)
        return r;
    r = fl_pwrite_full(temp.fd, FL_MARKER_TEXT, strlen(FL_MARKER_TEXT), 0);
    if (r == 0)
        r = fl_temp_publish(&temp, dir_fd, FL_MARKER_NAME, true);
    fl_temp_discard(&temp);
    return r;
}

static int create_parts(int dir_fd)
{
    // An empty directory, or one in which creating a store was interrupted.
    int r = fl_each_file(dir_fd, check_part, NULL);
    for (size_t i = 0; r == 0 && i < PARTS; i++) {
        if (mkdirat(dir_fd, parts[i], DIR_MODE) < 0 && errno != EEXIST)
            r = -errno;
    }
    return r < 0 ? r : write_marker(dir_fd);
}

// 0: the marker is there; -ENOENT: it is not.
static int find_marker(int dir_fd)
{
    return faccessat(dir_fd, FL_MARKER_NAME, F_OK, 0) < 0 ? -errno : 0;
}

// If several processes do this at a time, one makes the store and the others find it there.
static int create_once(int dir_fd)
{
    if (flock(dir_fd, LOCK_EX) < 0) // closing it unlocks
        return -errno;
    int r = find_marker(dir_fd);
    return r == -ENOENT ? create_parts(dir_fd) : r;
}

static int create(const char *dir, struct fl_error *ret_error)
{
    if (mkdir(dir, DIR_MODE) < 0 && errno != EEXIST) // with EACCES a store may be there or not
        return fl_fail(ret_error, -errno, "cannot %screate the store %s",
                       errno == EACCES ? "open or " : "", dir);
    FL_AUTO_CLOSE int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = dir_fd < 0 ? -errno : find_marker(dir_fd);
    if (r == 0)
        return 0;
    if (r != -ENOENT)
        return fl_fail(ret_error, r, "cannot open the store %s", dir);
    r = create_once(dir_fd);
    if (r == -ENOTEMPTY)
        return fl_fail_plain(ret_error, r, "%s is neither a store nor empty", dir);
    return r < 0 ? fl_fail(ret_error, r, "cannot create the store %s", dir) : 0;
}

static int open_all(struct fl_store *store, const char *dir)
{
    store->dir = strdup(dir);
    if (!store->dir)
        return -ENOMEM;
    if (asprintf(&store->index_dir, "%s/" FL_INDEX_DIR, dir) < 0) {
        store->index_dir = NULL;
        return -ENOMEM;
    }
    int r = fl_reader_open(dir, &store->reader);
    if (r < 0)
        return r;
    int at = store->reader->dir_fd;
    store->packs_fd = openat(at, FL_PACKS_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    mkdirat(at, FL_TMP_DIR,
            DIR_MODE); // no file in it has to last, so it may have been removed
    store->tmp_fd = openat(at, FL_TMP_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->packs_fd < 0 || store->tmp_fd < 0)
        return -errno;
    store->lock_fd = openat(at, "lock", O_RDWR | O_CREAT | O_CLOEXEC, FILE_MODE);
    // A store that may only be read needs no lock against its collector to be looked at.
    if (store->lock_fd < 0)
        store->lock_fd = openat(at, "lock", O_RDONLY | O_CLOEXEC);
    return store->lock_fd < 0 ? -errno : 0;
}

int fl_store_open(const char *dir, bool create_it, struct fl_store **ret_store,
                  struct fl_error *ret_error)
{
    int r = create_it ? create(dir, ret_error) : 0;
    if (r < 0)
        return r;
    struct fl_store *store = calloc(1, sizeof(*store));
    if (!store)
        return fl_fail(ret_error, -ENOMEM, "cannot open the store %s", dir);
    store->packs_fd = store->tmp_fd = store->lock_fd = -1;
    r = open_all(store, dir);
    if (r == 0) {
        *ret_store = store;
        return 0;
    }
    fl_store_close(store);
    if (r == -ENOENT)
        return fl_fail_plain(ret_error, r, FL_NO_STORE, dir);
    if (r == -EPROTONOSUPPORT)
        return fl_fail_plain(ret_error, r, "the store %s has a format version that is not known",
                             dir);
    return fl_fail(ret_error, r, "cannot open the store %s", dir);
}

void fl_store_close(struct fl_store *store)
{
    if (!store)
        return;
    fl_cleanup_close(&store->packs_fd);
    fl_cleanup_close(&store->tmp_fd);
    fl_cleanup_close(&store->lock_fd);
    fl_reader_close(store->reader);
    free(store->index_dir);
    free(store->dir);
    free(store);
}

int fl_store_lock(struct fl_store *store, enum fl_lock lock, struct fl_error *ret_error)
{
    if (flock(store->lock_fd, lock == FL_LOCK_SHARED ? LOCK_SH : LOCK_EX) == 0)
        return 0;
    if (errno == EINTR)
        return fl_fail_plain(ret_error, -EINTR, "interrupted while waiting for the store's lock");
    return fl_fail(ret_error, -errno, "cannot lock the store %s", store->dir);
}

void fl_store_unlock(struct fl_store *store)
{
    flock(store->lock_fd, LOCK_UN);
}

int fl_store_lock_names(struct fl_store *store)
{
    int r;
    do {
        r = flock(store->reader->images_fd, LOCK_EX);
    } while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

void fl_store_unlock_names(struct fl_store *store)
{
    flock(store->reader->images_fd, LOCK_UN);
}
