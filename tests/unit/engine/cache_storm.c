// SPDX-License-Identifier: Apache-2.0
//
// Many threads on a frame cache far too small for them: each wants random frames, with and without
// waiting, and checks every byte it gets. Finds use after free, lost waiters and double reads; runs
// under TSan too.
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/frame_cache.h"
#include "engine/io_pool.h"
#include "engine/rcu.h"

enum { FRAMES = 64, THREADS = 4, WANTS = 4000, ROOM = 6, OUT_MOST = 8, DEADLINE_MS = 60000 };

struct client {
    struct fl_mailbox box;
    struct fl_cache *cache;
    struct fl_image *image;
    unsigned seed;
    unsigned out; // waiters not yet back
    unsigned long served;
};

struct want {
    struct fl_waiter waiter;
    struct client *client;
    struct fl_frame_id id;
};

static void die(const char *what)
{
    fprintf(stderr, "cache_storm: %s\n", what);
    _exit(1);
}

// Page p of the file is filled with the word p + 1.
static void check(const uint8_t *data, struct fl_frame_id id)
{
    for (uint32_t slot = 0; slot < FL_FRAME_PAGES; slot++) {
        uint64_t word;
        memcpy(&word, data + (size_t)slot * FL_PAGE_SIZE + 8 * (slot % 512), sizeof(word));
        if (word != (uint64_t)id.frame * FL_FRAME_PAGES + slot + 1)
            die("a frame has the bytes of another");
    }
}

static void came(void *owner, struct fl_mail *mail)
{
    struct want *want = caa_container_of(mail, struct want, waiter.mail);
    struct client *client = owner;
    if (want->waiter.error || !want->waiter.frame)
        die("a frame could not be read");
    check(fl_frame_data(want->waiter.frame), want->id);
    fl_frame_unpin(want->waiter.frame);
    client->out--;
    client->served++;
    free(want);
}

static void want_one(struct client *client)
{
    uint64_t page = (uint64_t)rand_r(&client->seed) % FRAMES * FL_FRAME_PAGES;
    struct fl_frame_id id = fl_image_run(client->image, page, 1).id;
    const struct fl_frame *there = fl_cache_lookup(client->cache, id);
    if (there) {
        check(fl_frame_data(there), id);
        client->served++;
        return;
    }
    struct want *want = calloc(1, sizeof(*want));
    struct fl_frame *frame = NULL;
    want->waiter.mail.deliver = came;
    want->waiter.box = &client->box;
    want->id = id;
    int result = fl_cache_want(client->cache, client->image, id, &want->waiter, &frame);
    client->out += result == 0;
    if (result == 0)
        return;
    if (result < 0)
        die("out of memory");
    check(fl_frame_data(frame), id);
    fl_frame_unpin(frame);
    client->served++;
    free(want);
}

static void collect(struct client *client)
{
    if (!fl_mailbox_drain(&client->box, client) && fl_mailbox_sleep(&client->box)) {
        struct pollfd poll_fd = {.fd = client->box.event_fd, .events = POLLIN};
        fl_rcu_offline();
        if (poll(&poll_fd, 1, DEADLINE_MS) != 1)
            die("a waiter was never delivered");
        fl_rcu_online();
        fl_mailbox_awake(&client->box);
    }
}

static void *client_main(void *arg)
{
    struct client *client = arg;
    rcu_register_thread();
    for (unsigned i = 0; i < WANTS; i++) {
        want_one(client);
        while (client->out > OUT_MOST)
            collect(client);
        fl_rcu_quiescent();
    }
    while (client->out > 0)
        collect(client);
    rcu_unregister_thread();
    return NULL;
}

static void make_file(char *path)
{
    static uint64_t page[FL_PAGE_SIZE / 8];
    int fd = mkstemp(path);
    if (fd < 0)
        die("no temporary file");
    for (uint64_t i = 0; i < (uint64_t)FRAMES * FL_FRAME_PAGES; i++) {
        for (size_t word = 0; word < FL_PAGE_SIZE / 8; word++)
            page[word] = i + 1;
        if (write(fd, page, sizeof(page)) != (ssize_t)sizeof(page))
            die("cannot write the temporary file");
    }
    close(fd);
}

int main(void)
{
    static struct client client[THREADS];
    pthread_t thread[THREADS];
    struct fl_io_pool *pool = NULL;
    struct fl_cache *cache = NULL;
    struct fl_image *image = NULL;
    char path[] = "/tmp/faultline-cache-storm-XXXXXX";
    make_file(path);
    rcu_register_thread();
    int error = fl_image_open_raw(path, &image);
    unlink(path);
    if (error || fl_io_pool_start(3, &pool) ||
        fl_cache_new((uint64_t)ROOM * FL_FRAME_PAGES * FL_PAGE_SIZE, 0, pool, &cache))
        die("cannot start");
    for (unsigned i = 0; i < THREADS; i++) {
        client[i] = (struct client){.cache = cache, .image = image, .seed = i + 1};
        if (fl_mailbox_init(&client[i].box) ||
            pthread_create(&thread[i], NULL, client_main, &client[i]))
            die("cannot start");
    }
    fl_rcu_offline();
    unsigned long served = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        served += client[i].served;
        fl_mailbox_fini(&client[i].box);
    }
    fl_cache_stop(cache);
    fl_io_pool_stop(pool);
    fl_rcu_online();
    struct fl_cache_stats stats = fl_cache_stats(cache);
    fl_cache_free(cache);
    fl_image_unref(image);
    rcu_unregister_thread();
    printf("%lu frames served, %lu read, %lu evicted, %lu bytes at the end\n", served,
           (unsigned long)stats.reads, (unsigned long)stats.evictions, (unsigned long)stats.bytes);
    if (served != (unsigned long)THREADS * WANTS)
        die("some were not served");
    // Frames that were pinned when the last one came may exceed the bound until the next comes.
    uint64_t pinned = (uint64_t)THREADS * OUT_MOST * FL_FRAME_PAGES * FL_PAGE_SIZE;
    if (stats.bytes > stats.limit + pinned || stats.evictions == 0)
        die("the bound does not hold");
    return 0;
}
