// SPDX-License-Identifier: Apache-2.0
#include "snapshot/remote/parts.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "snapshot/io.h"

enum { SLOTS = 4 };
enum state { IDLE, GIVEN, WORKED, QUIT };

struct slot {
    const struct fl_parts *parts;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum state state; // under the lock; all else has the thread that the state names
    bool started;
    struct fl_s3_link *link;
    struct fl_part part;
    int result;
    struct fl_error error;
};

static enum state wait_for(struct slot *slot, enum state one, enum state other)
{
    pthread_mutex_lock(&slot->lock);
    while (slot->state != one && slot->state != other)
        pthread_cond_wait(&slot->changed, &slot->lock);
    enum state state = slot->state;
    pthread_mutex_unlock(&slot->lock);
    return state;
}

static void become(struct slot *slot, enum state state)
{
    pthread_mutex_lock(&slot->lock);
    slot->state = state;
    pthread_cond_broadcast(&slot->changed);
    pthread_mutex_unlock(&slot->lock);
}

static void *run_slot(void *arg)
{
    struct slot *slot = arg;
    while (wait_for(slot, GIVEN, QUIT) == GIVEN) {
        slot->result = slot->parts->work(slot->parts->arg, slot->link, &slot->part, &slot->error);
        become(slot, WORKED);
    }
    return NULL;
}

static int start(struct slot *slot, const struct fl_parts *parts, struct fl_error *ret_error)
{
    slot->parts = parts;
    pthread_mutex_init(&slot->lock, NULL);
    pthread_cond_init(&slot->changed, NULL);
    slot->part.buf = fl_map_memory(parts->part_bytes);
    int r = slot->part.buf ? fl_s3_connect(parts->s3, &slot->link, ret_error)
                           : fl_fail(ret_error, -ENOMEM, "cannot move parts of a file");
    if (r < 0)
        return r;
    r = -pthread_create(&slot->thread, NULL, run_slot, slot);
    slot->started = r == 0;
    return r < 0 ? fl_fail(ret_error, r, "cannot start a thread") : 0;
}

static void finish(struct slot *slot)
{
    if (!slot->parts)
        return;
    if (slot->started) {
        wait_for(slot, IDLE, WORKED);
        become(slot, QUIT);
        pthread_join(slot->thread, NULL);
    }
    fl_s3_disconnect(slot->link);
    fl_unmap(slot->part.buf, slot->parts->part_bytes);
    pthread_cond_destroy(&slot->changed);
    pthread_mutex_destroy(&slot->lock);
}

static int take_back(struct slot *slot, struct fl_error *ret_error)
{
    const struct fl_parts *parts = slot->parts;
    wait_for(slot, WORKED, WORKED);
    if (slot->result < 0) {
        if (ret_error)
            *ret_error = slot->error;
        return slot->result;
    }
    return parts->after ? parts->after(parts->arg, &slot->part, ret_error) : 0;
}

static int give(struct slot *slot, uint64_t number, struct fl_error *ret_error)
{
    const struct fl_parts *parts = slot->parts;
    struct fl_part *part = &slot->part;
    part->number = number;
    part->offset = parts->first + number * parts->part_bytes;
    uint64_t left = parts->end - part->offset;
    part->bytes = left < parts->part_bytes ? (size_t)left : parts->part_bytes;
    int r = parts->before ? parts->before(parts->arg, part, ret_error) : 0;
    if (r == 0)
        become(slot, GIVEN);
    return r;
}

int fl_parts_run(const struct fl_parts *parts, struct fl_error *ret_error)
{
    uint64_t count = (parts->end - parts->first - 1) / parts->part_bytes + 1;
    unsigned used = count < SLOTS ? (unsigned)count : SLOTS;
    struct slot *slots = calloc(SLOTS, sizeof(*slots));
    int r = slots ? 0 : fl_fail(ret_error, -ENOMEM, "cannot move parts of a file");
    for (unsigned i = 0; i < used && r == 0; i++)
        r = start(&slots[i], parts, ret_error);
    for (uint64_t i = 0; i < count + used && r == 0; i++) {
        struct slot *slot = &slots[i % used];
        if (i >= used)
            r = take_back(slot, ret_error);
        if (r == 0 && i < count)
            r = give(slot, i, ret_error);
    }
    for (unsigned i = 0; slots && i < SLOTS; i++)
        finish(&slots[i]);
    free(slots);
    return r;
}
