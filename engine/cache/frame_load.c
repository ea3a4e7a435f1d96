// SPDX-License-Identifier: Apache-2.0
#include "engine/cache/frame_load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/cache/frame_part.h"

#define FIRST_PAUSE (2 * FL_NS_PER_MS)
#define PAUSE_GROWTH 5
#define PLAN_PAUSE (20 * FL_NS_PER_US)

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

static void end_part(struct fl_load *load, int error)
{
    int none = 0;
    if (error)
        atomic_compare_exchange_strong(&load->error, &none, error);
    if (atomic_fetch_sub(&load->left, 1) != 1)
        return;
    fl_frame_finish(load->frame, atomic_load(&load->error));
    FL_CRASH_POINT("load_ended");
    fl_load_unref(load); // the loading's own
}

// From storage, one frame by itself.
static int read_part(const struct fl_part *part)
{
    struct fl_cache *cache = part->load->cache;
    int error = fl_part_attempt(part, NULL);
    atomic_fetch_add(&cache->reads, 1);
    if (error)
        atomic_fetch_add(&cache->read_errors, 1);
    return error;
}

static uint64_t pause_after(unsigned attempts)
{
    uint64_t pause = FIRST_PAUSE;
    for (unsigned i = 1; i < attempts; i++)
        pause *= PAUSE_GROWTH;
    return pause;
}

// When the part is to be read again after the error; 0: it is over.
static uint64_t settle(struct fl_part *part, int error)
{
    if (error && part->attempts++ < part->load->cache->retries)
        return fl_now() + pause_after(part->attempts);
    end_part(part->load, error);
    return 0;
}

static uint64_t run_retry(struct fl_io_job *job)
{
    struct fl_part *part = caa_container_of(job, struct fl_part, retry);
    return settle(part, read_part(part));
}

static bool take(struct fl_part *part)
{
    return !atomic_load_explicit(&part->taken, memory_order_relaxed) &&
           !atomic_exchange(&part->taken, true);
}

bool fl_part_bring(struct fl_part *part, const void *stored)
{
    struct fl_load *load = part->load;
    struct fl_cache *cache = load->cache;
    if (!take(part))
        return false;
    FL_CRASH_POINT("part_taken");
    if (atomic_load(&load->error)) { // of another part: nobody will see this one
        end_part(load, 0);
        return true;
    }
    int error = stored ? fl_part_attempt(part, stored) : read_part(part);
    if (stored && !error)
        atomic_fetch_add(&cache->ahead_frames, 1);
    if (stored && error) {
        atomic_fetch_add(&cache->ahead_errors, 1);
        error = read_part(part);
    }
    uint64_t again = settle(part, error);
    if (again)
        fl_io_pool_submit_at(cache->pool, &part->retry, again);
    return true;
}

void fl_part_cancel(struct fl_part *part)
{
    if (take(part))
        end_part(part->load, -ECANCELED);
}

// --- the parts of a page of 2 MiB ---

static bool same(struct fl_frame_id a, struct fl_frame_id b)
{
    return a.pack == b.pack && a.frame == b.frame;
}

static void add_piece(struct fl_load *load, const struct fl_run *run, uint32_t to, uint16_t pieces)
{
    struct fl_piece *piece = &load->piece[pieces];
    uint32_t k = load->parts; // the last ones first, as neighbours mostly share
    while (k > 0 && !same(load->part[k - 1].id, run->id))
        k--;
    *piece = (struct fl_piece){
        .to = (uint16_t)to, .slot = (uint16_t)run->slot, .pages = (uint16_t)run->pages};
    struct fl_part *part = &load->part[k > 0 ? k - 1 : load->parts];
    if (k == 0) {
        load->parts++;
        *part = (struct fl_part){
            .retry.run = run_retry, .load = load, .id = run->id, .first_piece = FL_NO_PIECE};
    }
    piece->next = part->first_piece;
    part->first_piece = pieces;
}

// The run at page `at` of the 512; what lies beyond the image's end is zero.
static struct fl_run run_at(const struct fl_load *load, uint32_t at)
{
    uint64_t page = (load->frame->key.at & ~FL_KEY_HUGE) + at;
    if (page < fl_image_pages(load->image))
        return fl_image_run(load->image, page, FL_HUGE_PAGES - at);
    return (struct fl_run){.zero = true, .pages = FL_HUGE_PAGES - at};
}

static uint32_t count_pieces(const struct fl_load *load)
{
    uint32_t pieces = 0;
    for (uint32_t at = 0; at < FL_HUGE_PAGES;) {
        struct fl_run run = run_at(load, at);
        pieces += !run.zero;
        at += run.pages;
    }
    return pieces;
}

// Zeros are written where they are not known to be there already.
static void find_parts(struct fl_load *load, bool zero)
{
    uint16_t pieces = 0;
    for (uint32_t at = 0; at < FL_HUGE_PAGES;) {
        struct fl_run run = run_at(load, at);
        size_t bytes = (size_t)run.pages << FL_PAGE_SHIFT;
        if (!run.zero)
            add_piece(load, &run, at, pieces++);
        else if (!zero)
            memset(load->frame->data.bytes + ((size_t)at << FL_PAGE_SHIFT), 0, bytes);
        at += run.pages;
    }
}

// 0 if all 512 pages are known. Only a reader may wait for what is not.
static int know(const struct fl_load *load, bool may_read)
{
    uint64_t page = load->frame->key.at & ~FL_KEY_HUGE;
    if (may_read)
        return fl_image_read_map(load->image, page, FL_HUGE_PAGES);
    for (uint32_t at = 0; at < FL_HUGE_PAGES;) {
        struct fl_run run = run_at(load, at);
        if (run.unread)
            return -EAGAIN;
        at += run.pages;
    }
    return 0;
}

static int plan(struct fl_load *load, bool may_read)
{
    bool zero = false;
    int error = know(load, may_read);
    if (error)
        return error;
    uint32_t most = count_pieces(load);
    struct fl_frame *frame = load->frame;
    struct fl_part *part = malloc((most ? most : 1) * sizeof(*part));
    struct fl_piece *piece = malloc((most ? most : 1) * sizeof(*piece));
    frame->data = fl_frame_memory_get(&load->cache->memory, FL_HUGE_PAGES, &zero);
    if (!part || !piece || !frame->data.bytes) {
        fl_frame_memory_put(&load->cache->memory, frame->data, FL_HUGE_PAGES);
        frame->data = (struct fl_buffer){.bytes = NULL};
        free(part);
        free(piece);
        return -ENOMEM;
    }
    load->part = part;
    load->piece = piece;
    find_parts(load, zero);
    return 0;
}

// -EBUSY: somebody else is at it. When it returns 0 and has made the plan itself, *ret_mine.
static int try_plan(struct fl_load *load, bool may_read, bool *ret_mine)
{
    int none = FL_PLAN_NONE;
    *ret_mine = false;
    if (!atomic_compare_exchange_strong(&load->plan, &none, FL_PLAN_BUSY))
        return none == FL_PLAN_DONE ? 0 : -EBUSY;
    int error = plan(load, may_read);
    if (!error) {
        atomic_fetch_add(&load->left, load->parts);
        *ret_mine = true;
    }
    atomic_store(&load->plan, error ? FL_PLAN_NONE : FL_PLAN_DONE);
    return error;
}

bool fl_load_plan(struct fl_load *load)
{
    bool mine = false;
    int error = atomic_load(&load->plan) == FL_PLAN_DONE ? 0 : try_plan(load, false, &mine);
    if (error == -ENOMEM || error == -EAGAIN)
        fl_load_hurry(load); // the readers try again after a while, or read the map
    if (mine)
        end_part(load, 0); // the planning
    return !error;
}

// --- the reader threads ---

static void submit(struct fl_load *load, unsigned helper)
{
    atomic_fetch_add(&load->refs, 1);
    fl_io_pool_submit(load->cache->pool, &load->helper[helper].job);
}

// Several readers at once bring the parts of a page of 2 MiB.
static void call_helpers(struct fl_load *load)
{
    unsigned wanted = load->parts / 8;
    for (unsigned i = 1; i < FL_LOAD_HELPERS && i <= wanted; i++)
        submit(load, i);
}

// 0 when the parts are known, or when it is to be tried again.
static uint64_t plan_in_pool(struct fl_load *load)
{
    bool mine = false;
    int error = try_plan(load, true, &mine);
    if (error == -EBUSY)
        return fl_now() + PLAN_PAUSE;
    if (error && load->attempts++ < load->cache->retries)
        return fl_now() + pause_after(load->attempts);
    int none = FL_PLAN_NONE;
    if (error && !atomic_compare_exchange_strong(&load->plan, &none, FL_PLAN_DONE))
        return fl_now() + PLAN_PAUSE; // the read-ahead may be luckier
    if (error || mine)
        end_part(load, error); // the planning; without memory there are no parts
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
