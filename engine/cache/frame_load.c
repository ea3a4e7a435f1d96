// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation.
//
// States. A load is made with its frame, which is LOADING. Its plan says whether its parts are
// known: of a frame they are at once; of a page of 2 MiB they are found by one thread (NONE -> BUSY
// -> DONE), the read-ahead's or a reader. A part is free, then taken (`taken` is exchanged: one
// thread gets it), then ended, with or without an error; a part whose read failed waits in the pool
// for another attempt and stays taken. `left` counts the parts that have not ended, and the
// planning as one: the thread that brings it to 0 finishes the frame with the load's first error.
//
// References are listed in frame_part.h; the frame's are in frame_table.h. No lock is held anywhere
// here: which thread may touch what follows from `taken`, `plan` and the references.
#include "engine/cache/frame_load.h"

#include <errno.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/base/probe.h"
#include "engine/cache/frame_wait.h"

enum { PATH_LOGGED = 1024 };
#define FIRST_PAUSE (2 * FL_NS_PER_MS)
#define PAUSE_GROWTH 5
#define PLAN_PAUSE (20 * FL_NS_PER_US)
#define OFFER_PAUSE (FL_NS_PER_MS / 4)
enum { OFFER_SLOWER = 8, OFFER_SLOWEST = 4 }; // after so many looks the pause doubles, so often

// --- references ---

static void free_load(struct fl_load *load)
{
    if (load->part != &load->only)
        free(load->part);
    free(load->piece);
    free(load);
}

static void free_load_rcu(struct rcu_head *head)
{
    fl_rcu_freeing();
    free_load(caa_container_of(head, struct fl_load, rcu));
}

bool fl_load_ref(struct fl_load *load)
{
    int refs = atomic_load(&load->refs);
    while (refs > 0 && !atomic_compare_exchange_weak(&load->refs, &refs, refs + 1)) {
    }
    return refs > 0;
}

void fl_load_unref(struct fl_load *load)
{
    if (atomic_fetch_sub(&load->refs, 1) != 1)
        return;
    FL_CRASH_POINT("load_unreferenced");
    fl_image_unref(load->image);
    fl_rcu_online();
    fl_rcu_defer(&load->rcu, free_load_rcu);
    fl_rcu_offline();
}

void fl_load_discard(struct fl_load *load)
{
    fl_image_unref(load->image);
    free_load(load);
}

// --- one part ---

// A line for what no VM will get, before any VM's own.
static void log_failure(const struct fl_load *load, struct fl_frame_id id, int error)
{
    char path[PATH_LOGGED];
    fl_log(FL_LOG_WARNING, "event=read_failed image=%s frame=%u reason=\"%s\" file=%s",
           fl_image_name(load->image), id.frame, fl_frame_strerror(error),
           fl_frame_path(load->image, id, path, sizeof(path)));
}

// `part` is NULL for the planning. Who sets the error writes `failed` before it counts down, and
// the thread that counts to 0 reads it.
static void end_part(struct fl_load *load, const struct fl_part *part, int error)
{
    int none = 0;
    if (error && atomic_compare_exchange_strong(&load->error, &none, error)) {
        if (part)
            load->failed = part->id;
        if (error != -ECANCELED && error != -ENOMEM)
            log_failure(load, load->failed, error);
    }
    if (atomic_fetch_sub(&load->left, 1) != 1)
        return;
    fl_frame_finish(load->frame, atomic_load(&load->error), load->failed);
    FL_CRASH_POINT("load_ended");
    fl_load_unref(load); // the loading's own
}

// From storage, one frame by itself.
static int read_part(const struct fl_part *part)
{
    struct fl_cache *cache = part->load->cache;
    FL_PROBE(load_start, fl_image_name(part->load->image), part->id.pack, part->id.frame);
    int error = fl_part_attempt(part, NULL);
    FL_PROBE(load_done, fl_image_name(part->load->image), part->id.pack, part->id.frame, error);
    atomic_fetch_add(&cache->counts->reads, error != -EINPROGRESS);
    if (error && error != -EINPROGRESS)
        atomic_fetch_add(&cache->counts->read_errors, 1);
    return error;
}

static uint64_t pause_after(unsigned attempts)
{
    uint64_t pause = FIRST_PAUSE;
    for (unsigned i = 1; i < attempts; i++)
        pause *= PAUSE_GROWTH;
    return pause;
}

// A part of the map of an image on offer is not packed yet: it was read to say that it is wanted.
// No reader waits for it; whoever waits for the page has a deadline of its own.
static bool is_on_its_way(const struct fl_cache *cache, int *error)
{
    if (*error != -EINPROGRESS)
        return false;
    if (atomic_load(&cache->stopped))
        *error = -ECANCELED;
    return *error == -EINPROGRESS;
}

static uint64_t pause_of_offer(unsigned looks)
{
    unsigned slower = looks / OFFER_SLOWER;
    return OFFER_PAUSE << (slower < OFFER_SLOWEST ? slower : OFFER_SLOWEST);
}

// Whether another attempt may do better.
static bool may_come(int error)
{
    return error && error != -EOWNERDEAD && error != -ECANCELED;
}

// When the part is to be read again after the error; 0: it is over.
static uint64_t settle_part(struct fl_part *part, int error)
{
    if (is_on_its_way(part->load->cache, &error))
        return fl_now() + pause_of_offer(part->looks++);
    if (may_come(error) && part->attempts++ < part->load->cache->retries) {
        fl_log(FL_LOG_DEBUG, "event=read_again image=%s frame=%u attempt=%u reason=\"%s\"",
               fl_image_name(part->load->image), part->id.frame, part->attempts,
               fl_frame_strerror(error));
        return fl_now() + pause_after(part->attempts);
    }
    end_part(part->load, part, error);
    return 0;
}

static uint64_t run_retry(struct fl_io_job *job)
{
    struct fl_part *part = caa_container_of(job, struct fl_part, retry);
    return settle_part(part, read_part(part));
}

static bool take_part(struct fl_part *part)
{
    return !atomic_load_explicit(&part->taken, memory_order_relaxed) &&
           !atomic_exchange(&part->taken, true);
}

bool fl_part_bring(struct fl_part *part, const void *stored)
{
    struct fl_load *load = part->load;
    struct fl_cache *cache = load->cache;
    if (!take_part(part))
        return false;
    FL_CRASH_POINT("part_taken");
    if (atomic_load(&load->error)) { // of another part: no VM will see this one
        end_part(load, part, 0);
        return true;
    }
    int error = stored ? fl_part_attempt(part, stored) : read_part(part);
    if (stored && !error)
        atomic_fetch_add(&cache->counts->ahead_frames, 1);
    if (stored && error) {
        atomic_fetch_add(&cache->counts->ahead_errors, 1);
        error = read_part(part);
    }
    uint64_t again = settle_part(part, error);
    if (again)
        fl_io_pool_submit_at(cache->pool, &part->retry, again);
    return true;
}

void fl_part_cancel(struct fl_part *part)
{
    if (take_part(part))
        end_part(part->load, part, -ECANCELED);
}

// --- the plan of a page of 2 MiB ---

// -EBUSY: another thread is at it. When it returns 0 and has made the plan itself, *ret_mine.
static int try_load_plan(struct fl_load *load, bool may_read, bool *ret_mine)
{
    int none = FL_PLAN_NONE;
    *ret_mine = false;
    if (!atomic_compare_exchange_strong(&load->plan, &none, FL_PLAN_BUSY))
        return none == FL_PLAN_DONE ? 0 : -EBUSY;
    int error = fl_load_find_parts(load, may_read);
    if (!error) {
        for (uint32_t i = 0; i < load->parts; i++)
            load->part[i].retry.run = run_retry;
        atomic_fetch_add(&load->left, load->parts);
        *ret_mine = true;
    }
    atomic_store(&load->plan, error ? FL_PLAN_NONE : FL_PLAN_DONE);
    return error;
}

bool fl_load_plan(struct fl_load *load)
{
    bool mine = false;
    int error = atomic_load(&load->plan) == FL_PLAN_DONE ? 0 : try_load_plan(load, false, &mine);
    if (error == -ENOMEM || error == -EAGAIN)
        fl_load_hurry(load); // the readers try again after a while, or read the map
    if (mine)
        end_part(load, NULL, 0); // the planning
    return !error;
}

// --- the reader threads ---

static void submit_helper(struct fl_load *load, unsigned helper)
{
    atomic_fetch_add(&load->refs, 1);
    fl_io_pool_submit(load->cache->pool, &load->helper[helper].job);
}

// Several readers at once bring the parts of a page of 2 MiB.
static void call_helpers(struct fl_load *load)
{
    unsigned wanted = load->parts / 8;
    for (unsigned i = 1; i < FL_LOAD_HELPERS && i <= wanted; i++)
        submit_helper(load, i);
}

// 0 when the parts are known, or when it is to be tried again.
static uint64_t plan_in_pool(struct fl_load *load)
{
    bool mine = false;
    int error = try_load_plan(load, true, &mine);
    if (error == -EBUSY)
        return fl_now() + PLAN_PAUSE;
    if (is_on_its_way(load->cache, &error))
        return fl_now() + pause_of_offer(load->looks++);
    if (may_come(error) && load->attempts++ < load->cache->retries)
        return fl_now() + pause_after(load->attempts);
    int none = FL_PLAN_NONE;
    if (error && !atomic_compare_exchange_strong(&load->plan, &none, FL_PLAN_DONE))
        return fl_now() + PLAN_PAUSE; // the read-ahead may be luckier
    if (error || mine)
        end_part(load, NULL, error); // the planning; without memory there are no parts
    return 0;
}

static uint64_t run_helper(struct fl_io_job *job)
{
    struct fl_load_helper *helper = caa_container_of(job, struct fl_load_helper, job);
    struct fl_load *load = helper->load;
    if (atomic_load(&load->plan) != FL_PLAN_DONE) {
        uint64_t again = plan_in_pool(load);
        if (again)
            return again;
    }
    if (helper == &load->helper[0])
        call_helpers(load);
    uint32_t at;
    while ((at = atomic_fetch_add(&load->next_part, 1)) < load->parts)
        fl_part_bring(&load->part[at], NULL);
    fl_load_unref(load);
    return 0;
}

bool fl_load_hurry(struct fl_load *load)
{
    if (atomic_load_explicit(&load->hurried, memory_order_relaxed) ||
        atomic_exchange(&load->hurried, true) || !fl_load_ref(load))
        return false;
    FL_CRASH_POINT("load_hurried");
    fl_io_pool_submit(load->cache->pool, &load->helper[0].job);
    return true;
}

struct fl_load *fl_load_new(struct fl_frame *frame, struct fl_image *image,
                            const struct fl_frame_id *id)
{
    struct fl_load *load = calloc(1, sizeof(*load));
    if (!load)
        return NULL;
    load->cache = frame->cache;
    load->frame = frame;
    load->image = fl_image_ref(image);
    load->refs = 1;
    load->left = 1;
    load->part = &load->only;
    for (unsigned i = 0; i < FL_LOAD_HELPERS; i++)
        load->helper[i] = (struct fl_load_helper){.job.run = run_helper, .load = load};
    if (id) {
        load->plan = FL_PLAN_DONE;
        load->parts = 1;
        load->only = (struct fl_part){.retry.run = run_retry, .load = load, .id = *id};
    }
    return load;
}
