// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/live_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "snapshot/io.h"
#include "tests/unit/snapshot_support.h"

enum { POISON = 0xa5, TURN_S = 30 };

// Call it under the lock.
static bool were_read(const struct live_source *source, uint64_t pages)
{
    while (pages > 0 && source->read[pages - 1])
        pages--;
    return pages == 0;
}

// Whoever waits for a chunk while it keeps those before to itself would wait for ever.
static void wait_for_turn(struct live_source *source, uint64_t first)
{
    struct timespec until;
    int r = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += TURN_S;
    pthread_mutex_lock(&source->lock);
    while (r == 0 && !were_read(source, first))
        r = pthread_cond_timedwait(&source->came, &source->lock, &until);
    source->twice += r != 0;
    pthread_mutex_unlock(&source->lock);
}

static int await_pages(void *arg, uint64_t first, uint64_t count)
{
    struct live_source *source = arg;
    if (source->in_turn)
        wait_for_turn(source, first);
    if (source->before)
        source->before(source->before_arg, first);
    if (source->fail_with < 0 && source->fail_at >= first && source->fail_at < first + count)
        return source->fail_with;
    pthread_mutex_lock(&source->lock);
    for (uint64_t page = first; page < first + count && !source->stopped;) {
        if (source->done[page])
            page++;
        else
            pthread_cond_wait(&source->came, &source->lock);
    }
    source->twice += source->awaited != first;
    source->awaited = first + count;
    int r = source->stopped ? -ECANCELED : 0;
    pthread_mutex_unlock(&source->lock);
    return r;
}

static bool is_ready(void *arg, uint64_t first, uint64_t count)
{
    struct live_source *source = arg;
    bool fails =
        source->fail_with < 0 && source->fail_at >= first && source->fail_at < first + count;
    bool done = !fails && !source->before;
    pthread_mutex_lock(&source->lock);
    done = done && (!source->in_turn || were_read(source, first));
    for (uint64_t page = first; done && page < first + count; page++)
        done = source->done[page];
    pthread_mutex_unlock(&source->lock);
    return done;
}

static enum fl_live_page page_kind(void *arg, uint64_t page)
{
    const struct live_source *source = arg;
    return (enum fl_live_page)source->kind[page];
}

static void consumed(void *arg, uint64_t first, uint64_t count)
{
    struct live_source *source = arg;
    pthread_mutex_lock(&source->lock);
    for (uint64_t page = first; page < first + count; page++) {
        source->twice += source->read[page] || page >= source->awaited;
        source->read[page] = true;
    }
    pthread_cond_broadcast(&source->came);
    pthread_mutex_unlock(&source->lock);
    memset(source->buffer + first * FL_PAGE_SIZE, POISON, count * FL_PAGE_SIZE);
}

static void stop(void *arg)
{
    struct live_source *source = arg;
    pthread_mutex_lock(&source->lock);
    source->twice += source->stopped;
    source->stopped = true;
    pthread_cond_broadcast(&source->came);
    pthread_mutex_unlock(&source->lock);
}

static void published(void *arg, const uint8_t *content_id)
{
    struct live_source *source = arg;
    source->published++;
    memcpy(source->content_id, content_id, sizeof(source->content_id));
}

static void bring_bytes(struct live_source *source, uint64_t page)
{
    uint64_t at = page * FL_PAGE_SIZE;
    uint64_t left = source->live.bytes - at;
    if (source->kind[page] == FL_LIVE_DATA)
        memcpy(source->buffer + at, source->expected + at,
               left < FL_PAGE_SIZE ? left : FL_PAGE_SIZE);
}

static int look(void *arg, uint64_t first, uint64_t count, bool hurry)
{
    struct live_source *source = arg;
    if (atomic_load(&source->released) && source->fail_with < 0 && source->fail_at >= first &&
        source->fail_at < first + count)
        return source->fail_with;
    if (!hurry && !atomic_load(&source->released))
        return 0;
    if (hurry && !atomic_load(&source->released))
        atomic_fetch_add(&source->hurried, 1);
    for (uint64_t page = first; page < first + count; page++)
        bring_bytes(source, page);
    return 1;
}

static int settle(void *arg)
{
    struct live_source *source = arg;
    while (!atomic_load(&source->may_settle))
        usleep(1000);
    return 0;
}

static void offered(void *arg)
{
    struct live_source *source = arg;
    atomic_store(&source->offered, true);
}

static void *bring(void *arg)
{
    struct live_source *source = arg;
    for (uint64_t i = 0; i < source->pages; i++) {
        uint64_t page = source->order[i];
        if (page == source->missing)
            continue;
        bring_bytes(source, page);
        pthread_mutex_lock(&source->lock);
        source->done[page] = true;
        if (i % 16 == 0 || i + 1 == source->pages)
            pthread_cond_broadcast(&source->came);
        pthread_mutex_unlock(&source->lock);
    }
    pthread_mutex_lock(&source->lock);
    pthread_cond_broadcast(&source->came);
    pthread_mutex_unlock(&source->lock);
    return NULL;
}

// The bytes of a page that came: noise, text, zeros, or the parent's at another place.
static void fill_data(struct live_source *source, uint64_t page, const uint8_t *parent,
                      uint64_t parent_bytes, uint64_t *state)
{
    uint8_t *at = source->expected + page * FL_PAGE_SIZE;
    uint64_t what = test_random(state) % 8;
    uint64_t other = test_random(state) % (parent_bytes / FL_PAGE_SIZE + 1) * FL_PAGE_SIZE;
    memset(at, 0, FL_PAGE_SIZE);
    if (what == 0)
        return;
    if (what == 1 && other + FL_PAGE_SIZE <= parent_bytes)
        memcpy(at, parent + other, FL_PAGE_SIZE);
    else
        fill_page(at, test_random(state) % (what < 4 ? 64 : UINT64_MAX) + 1);
}

static void fill_pages(struct live_source *source, const uint8_t *parent, uint64_t parent_bytes,
                       struct live_mix mix, uint64_t *state)
{
    uint64_t left = 0;
    enum fl_live_page kind = FL_LIVE_PARENT;
    for (uint64_t page = 0; page < source->pages; page++, left--) {
        uint64_t at = page * FL_PAGE_SIZE;
        if (left == 0) {
            uint64_t draw = test_random(state) % 256;
            kind = draw < mix.data              ? FL_LIVE_DATA
                   : draw < mix.data + mix.zero ? FL_LIVE_ZERO
                                                : FL_LIVE_PARENT;
            left = test_random(state) % mix.run + 1;
        }
        if (kind == FL_LIVE_PARENT && !parent)
            kind = FL_LIVE_DATA;
        source->kind[page] = (uint8_t)kind;
        if (kind == FL_LIVE_DATA)
            fill_data(source, page, parent, parent_bytes, state);
        else if (kind == FL_LIVE_PARENT && at < parent_bytes)
            memcpy(source->expected + at, parent + at,
                   parent_bytes - at < FL_PAGE_SIZE ? parent_bytes - at : FL_PAGE_SIZE);
    }
}

static void shuffle(struct live_source *source, uint64_t *state)
{
    for (uint64_t i = 0; i < source->pages; i++) {
        uint64_t other = test_random(state) % (i + 1);
        source->order[i] = source->order[other];
        source->order[other] = i;
    }
}

static uint8_t *map_parent(const char *path, uint64_t *ret_bytes)
{
    *ret_bytes = 0;
    if (!path)
        return NULL;
    FL_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fl_file_size(fd, ret_bytes) < 0)
        return NULL;
    void *memory = mmap(NULL, *ret_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static int map_files(struct live_source *source, const char *expected)
{
    size_t room = source->pages * FL_PAGE_SIZE;
    source->live.buffer_fd = memfd_create("live-source", MFD_CLOEXEC);
    source->expected_fd = open(expected, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (source->live.buffer_fd < 0 || source->expected_fd < 0 ||
        ftruncate(source->live.buffer_fd, (off_t)room) < 0 ||
        ftruncate(source->expected_fd, (off_t)room) < 0)
        return -errno;
    source->buffer =
        mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED, source->live.buffer_fd, 0);
    source->expected = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED, source->expected_fd, 0);
    if (source->buffer == MAP_FAILED || source->expected == MAP_FAILED)
        return -ENOMEM;
    memset(source->buffer, POISON, room);
    return 0;
}

int live_make(struct live_source *source, const char *parent, const char *expected, uint64_t bytes,
              struct live_mix mix, uint64_t *state)
{
    uint64_t parent_bytes = 0;
    *source = (struct live_source){
        .pages = (bytes + FL_PAGE_SIZE - 1) / FL_PAGE_SIZE,
        .missing = UINT64_MAX,
        .live = {.bytes = bytes,
                 .await = await_pages,
                 .ready = is_ready,
                 .page = page_kind,
                 .consumed = consumed,
                 .stop = stop,
                 .published = published,
                 .arg = source},
    };
    pthread_mutex_init(&source->lock, NULL);
    pthread_cond_init(&source->came, NULL);
    source->kind = calloc(source->pages, sizeof(*source->kind));
    source->order = calloc(source->pages, sizeof(*source->order));
    source->done = calloc(source->pages, sizeof(*source->done));
    source->read = calloc(source->pages, sizeof(*source->read));
    if (!source->kind || !source->order || !source->done || !source->read)
        return -ENOMEM;
    int r = map_files(source, expected);
    uint8_t *memory = map_parent(parent, &parent_bytes);
    if (r < 0 || (parent && !memory))
        return r < 0 ? r : -ENOENT;
    fill_pages(source, memory, parent_bytes, mix, state);
    shuffle(source, state);
    if (memory)
        munmap(memory, parent_bytes);
    return ftruncate(source->expected_fd, (off_t)bytes) < 0 ? -errno : 0;
}

void live_free(struct live_source *source)
{
    munmap(source->buffer, source->pages * FL_PAGE_SIZE);
    munmap(source->expected, source->pages * FL_PAGE_SIZE);
    close(source->live.buffer_fd);
    close(source->expected_fd);
    free(source->kind);
    free(source->order);
    free(source->done);
    free(source->read);
    pthread_mutex_destroy(&source->lock);
    pthread_cond_destroy(&source->came);
}

int live_pack(struct live_source *source, const char *store, const char *name, const char *parent,
              const uint8_t *parent_content_id, unsigned threads, struct fl_pack_result *ret_result)
{
    struct fl_store *open_store = NULL;
    struct fl_pack_options options = {
        .name = name, .replace = source->replaces, .threads = threads, .live = &source->live};
    source->live.parent = parent;
    source->live.parent_content_id = parent_content_id;
    int r = fl_store_open(store, true, &open_store, &source->error);
    if (r == 0 && pthread_create(&source->thread, NULL, bring, source) != 0)
        r = -EAGAIN;
    if (r == 0) {
        r = fl_store_pack(open_store, &options, ret_result, &source->error);
        pthread_join(source->thread, NULL);
    }
    fl_store_close(open_store);
    if (r < 0)
        fprintf(stderr, "%s\n", source->error.text);
    return r;
}

int live_pack_offered(struct live_source *source, const char *store, const char *const *names,
                      size_t count, const char *parent, const uint8_t *parent_content_id,
                      const struct fl_companion_file *with, struct fl_pack_result *ret_result)
{
    struct fl_store *open_store = NULL;
    struct fl_error error;
    source->live.await = NULL;
    source->live.look = look;
    source->live.settle = settle;
    source->live.offered = offered;
    source->live.parent = parent;
    source->live.parent_content_id = parent_content_id;
    source->awaited = source->pages;
    int r = fl_offer_new(names, count, &source->offer);
    struct fl_pack_options options = {.name = names[0],
                                      .live = &source->live,
                                      .offer = source->offer,
                                      .with = with,
                                      .with_count = with ? 1 : 0};
    if (r == 0)
        r = fl_store_open(store, true, &open_store, &error);
    if (r == 0)
        r = fl_store_pack(open_store, &options, ret_result, &error);
    fl_store_close(open_store);
    if (r < 0)
        fprintf(stderr, "%s\n", error.text);
    return r;
}
