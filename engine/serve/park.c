// SPDX-License-Identifier: Apache-2.0
#include "engine/serve/park.h"

#include <errno.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/base/probe.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

enum { LOOKS_A_ROUND = 128 };
#define FIRST_PAUSE (20 * FL_NS_PER_US)
#define LONGEST_PAUSE (10 * FL_NS_PER_MS)
#define LONGEST_STARVED (100 * FL_NS_PER_MS) // memory comes back when an operator acts

uint64_t fl_park_deadline(const struct fl_shard *shard)
{
    return shard->now + shard->options->read_timeout_ms * FL_NS_PER_MS;
}

void fl_parks_init(struct fl_parks *parks)
{
    parks->count = 0;
    for (unsigned i = 0; i < FL_PARK_BUCKETS; i++)
        CDS_INIT_LIST_HEAD(&parks->bucket[i]);
}

static struct cds_list_head *parks_bucket(struct fl_parks *parks, uint64_t page)
{
    return &parks->bucket[page % FL_PARK_BUCKETS];
}

struct fl_park *fl_park_find(struct fl_vm *vm, uint64_t page)
{
    struct fl_park *park;
    if (vm->parks.count == 0)
        return NULL;
    cds_list_for_each_entry(park, parks_bucket(&vm->parks, page), in_vm)
    {
        if (park->page == page)
            return park;
    }
    return NULL;
}

static void park_free(struct fl_park *park)
{
    for (uint32_t i = 0; i < park->frames; i++) {
        if (park->waiter[i].frame)
            fl_frame_unpin(park->waiter[i].frame);
    }
    free(park);
}

static void park_frame_came(void *owner, struct fl_mail *mail)
{
    struct fl_waiter *waiter = caa_container_of(mail, struct fl_waiter, mail);
    struct fl_park *park = waiter->user;
    FL_CRASH_POINT("frame_came");
    park->outstanding--;
    if (waiter->error) {
        park->error = waiter->error;
        park->failed = waiter->failed;
    }
    if (park->outstanding > 0)
        return;
    if (park->vm)
        park->resume(owner, park);
    else
        park_free(park);
}

struct fl_park *fl_park_new(struct fl_shard *shard, struct fl_vm *vm, uint64_t page,
                            uint32_t frames, fl_park_resume *resume)
{
    struct fl_park *park = calloc(1, sizeof(*park) + frames * sizeof(park->waiter[0]));
    if (!park)
        return NULL;
    park->shard = shard;
    park->vm = vm;
    park->page = page;
    park->pages = 1;
    park->resume = resume;
    park->deadline_ns = fl_park_deadline(shard);
    CDS_INIT_LIST_HEAD(&park->in_retry);
    cds_list_add(&park->in_vm, parks_bucket(&vm->parks, page));
    vm->parks.count++;
    fl_counter_set(&vm->waits.now, vm->parks.count);
    fl_counter_add(&shard->stats->parked, 1);
    return park;
}

static struct fl_waiter *park_next_waiter(struct fl_park *park)
{
    struct fl_waiter *waiter = &park->waiter[park->frames];
    waiter->mail.deliver = park_frame_came;
    waiter->box = &park->shard->mailbox;
    waiter->user = park;
    waiter->taker = park->vm->id;
    return waiter;
}

static int park_wanted(struct fl_park *park, int result)
{
    if (result < 0)
        return result;
    park->frames++;
    park->outstanding += result == 0;
    return 0;
}

int fl_park_want(struct fl_park *park, struct fl_frame_id id)
{
    struct fl_waiter *waiter = park_next_waiter(park);
    return park_wanted(
        park, fl_cache_want(park->shard->cache, park->vm->image, id, waiter, &waiter->frame));
}

// What a fill asks for can wait.
int fl_park_want_huge(struct fl_park *park, uint64_t first_page)
{
    struct fl_waiter *waiter = park_next_waiter(park);
    struct fl_cache *cache = park->shard->cache;
    struct fl_image *image = park->vm->image;
    return park_wanted(park,
                       park->read_ns
                           ? fl_cache_want_huge(cache, image, first_page, waiter, &waiter->frame)
                           : fl_cache_await_huge(cache, image, first_page, waiter, &waiter->frame));
}

const struct fl_frame *fl_park_huge(const struct fl_park *park)
{
    const struct fl_frame *frame = park->frames == 1 ? park->waiter[0].frame : NULL;
    return frame && fl_frame_is_huge(frame) ? frame : NULL;
}

const struct fl_frame *fl_park_frame(const struct fl_park *park, struct fl_frame_id id)
{
    for (uint32_t i = 0; i < park->frames; i++) {
        const struct fl_frame *frame = park->waiter[i].frame;
        if (!frame)
            continue;
        struct fl_frame_id its = fl_frame_id(frame);
        if (its.frame == id.frame && its.pack == id.pack)
            return frame;
    }
    return NULL;
}

void fl_park_retry(struct fl_park *park)
{
    uint64_t longest = park->starved ? LONGEST_STARVED : LONGEST_PAUSE;
    uint64_t pause = park->attempts < 16 ? FIRST_PAUSE << park->attempts : longest;
    park->attempts++;
    park->retry_ns = park->shard->now + (pause < longest ? pause : longest);
    if (cds_list_empty(&park->in_retry))
        cds_list_add_tail(&park->in_retry, &park->shard->retry);
}

void fl_park_end(struct fl_park *park)
{
    FL_PROBE(fault_unparked, park->vm->id, fl_vm_image_name(park->vm),
             fl_layout_image_page(&park->vm->state->layout, park->page),
             park->read_ns ? fl_now() - park->read_ns : 0, park->error);
    cds_list_del(&park->in_vm);
    cds_list_del_init(&park->in_retry);
    park->vm->parks.count--;
    fl_counter_set(&park->vm->waits.now, park->vm->parks.count);
    fl_counter_sub(&park->shard->stats->parked, 1);
    park->vm = NULL;
    if (park->outstanding == 0)
        park_free(park);
}

uint64_t fl_parks_next_due(const struct fl_shard *shard)
{
    uint64_t due = FL_NEVER;
    struct fl_park *park;
    unsigned looks = 0;
    cds_list_for_each_entry(park, &shard->retry, in_retry)
    {
        if (park->retry_ns < due)
            due = park->retry_ns;
        if (++looks == LOOKS_A_ROUND) // the rest has its turn soon
            return due < shard->now + FL_NS_PER_MS ? due : shard->now + FL_NS_PER_MS;
    }
    return due;
}

bool fl_parks_run_due(struct fl_shard *shard)
{
    bool any = false;
    struct cds_list_head *due = &shard->due; // not empty if the thread before was taken from
    if (cds_list_empty(&shard->retry) && cds_list_empty(due))
        return false;
    cds_list_splice(&shard->retry, due);
    CDS_INIT_LIST_HEAD(&shard->retry);
    // In turn, and a bounded number a round: a VM that makes thousands of them must not hold up the
    // others.
    for (unsigned i = 0; i < LOOKS_A_ROUND && !cds_list_empty(due); i++) {
        struct fl_park *park = cds_list_first_entry(due, struct fl_park, in_retry);
        cds_list_del_init(&park->in_retry);
        if (park->retry_ns > shard->now) {
            cds_list_add_tail(&park->in_retry, &shard->retry);
            continue;
        }
        park->resume(shard, park);
        any = true;
    }
    cds_list_splice(due, &shard->retry);
    CDS_INIT_LIST_HEAD(due);
    return any;
}

void fl_parks_expire(struct fl_vm *vm, uint64_t now)
{
    for (unsigned i = 0; i < FL_PARK_BUCKETS && vm->parks.count > 0; i++) {
        struct fl_park *park;
        struct fl_park *next;
        cds_list_for_each_entry_safe(park, next, &vm->parks.bucket[i], in_vm)
        {
            if (park->deadline_ns > now)
                continue;
            if (!park->error)
                park->error = park->starved ? park->starved : -ETIMEDOUT;
            park->deadline_ns = fl_park_deadline(park->shard);
            park->resume(park->shard, park);
        }
    }
}

static uint64_t parks_oldest(const struct fl_vm *vm, bool of_storage)
{
    uint64_t oldest = FL_NEVER;
    for (unsigned i = 0; i < FL_PARK_BUCKETS && vm->parks.count > 0; i++) {
        const struct fl_park *park;
        cds_list_for_each_entry(park, &vm->parks.bucket[i], in_vm)
        {
            if ((park->outstanding > 0 || !of_storage) && park->read_ns && park->read_ns < oldest)
                oldest = park->read_ns;
        }
    }
    return oldest;
}

uint64_t fl_parks_oldest(const struct fl_vm *vm)
{
    return parks_oldest(vm, true);
}

uint64_t fl_parks_first(const struct fl_vm *vm)
{
    return parks_oldest(vm, false);
}

void fl_parks_end_all(struct fl_vm *vm)
{
    for (unsigned i = 0; i < FL_PARK_BUCKETS; i++) {
        struct fl_park *park;
        struct fl_park *next;
        cds_list_for_each_entry_safe(park, next, &vm->parks.bucket[i], in_vm) fl_park_end(park);
    }
}
