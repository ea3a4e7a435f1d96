// SPDX-License-Identifier: Apache-2.0
//
// What a trace is made into: each of its pages once, by frames, in the order of their first touch.
#include <criterion/criterion.h>
#include <stdlib.h>

#include "engine/image/plan_cache.h"
#include "tests/unit/snapshot_support.h"

enum { PAGES = 2100 };

static struct workspace workspace;
static struct fl_image *image;
static struct fl_trace_entry touched[PAGES];

static void begin(uint64_t *random, bool distinct)
{
    cr_assert_eq(workspace_make(&workspace), 0);
    int error = distinct ? make_pages(workspace.memory, 1, PAGES)
                         : make_memory(workspace.memory, (uint64_t)PAGES * FL_PAGE_SIZE, random);
    cr_assert_eq(error, 0);
    cr_assert_eq(pack_file(workspace.store, "top", workspace.memory, NULL), 0);
    cr_assert_eq(open_image(workspace.store, "top", &image), 0);
}

static void end(struct fl_plan *plan)
{
    fl_plan_unref(plan);
    fl_image_unref(image);
    workspace_remove(&workspace);
}

static struct fl_plan *plan_of(uint64_t count)
{
    struct fl_trace *trace = NULL;
    struct fl_plan *plan = NULL;
    struct fl_recording recording = {.entries = touched, .count = count};
    cr_assert_eq(merge_trace(workspace.store, "top", &recording, 1, true), 0);
    cr_assert_eq(open_trace(workspace.store, "top", &trace), 0);
    cr_assert_eq(fl_plan_new(image, trace, &plan), 0);
    fl_trace_unref(trace); // the plan has its own
    return plan;
}

static void shuffle(uint64_t *random)
{
    for (uint64_t i = 0; i < PAGES; i++)
        touched[i] = (struct fl_trace_entry){.page = i};
    for (uint64_t i = PAGES - 1; i > 0; i--) {
        uint64_t k = test_random(random) % (i + 1);
        struct fl_trace_entry other = touched[i];
        touched[i] = touched[k];
        touched[k] = other;
    }
}

static uint64_t check_run(const struct fl_plan_step *step, const struct fl_plan_run *run,
                          bool seen[PAGES])
{
    for (uint32_t i = 0; i < run->pages; i++) {
        struct fl_run at = fl_image_run(image, run->page + i, 1);
        cr_assert_not(seen[run->page + i], "page %d twice", (int)(run->page + i));
        seen[run->page + i] = true;
        cr_assert_eq(at.zero, step->zero);
        if (!at.zero)
            cr_assert(at.slot == run->slot + i && at.id.pack == step->id.pack &&
                      at.id.frame == step->id.frame);
    }
    return run->pages;
}

// Each page of the trace once, and sums that are right.
static void check(const struct fl_plan *plan, uint64_t count)
{
    bool seen[PAGES] = {false};
    uint64_t pages = 0;
    uint64_t frames = 0;
    for (uint64_t i = 0; i < plan->steps; i++) {
        const struct fl_plan_step *step = &plan->step[i];
        cr_assert_eq(step->pages_before, pages);
        cr_assert_eq(step->frames_before, frames);
        cr_assert(i == 0 || step->touched > plan->step[i - 1].touched);
        cr_assert_gt(step->runs, 0);
        for (uint32_t k = 0; k < step->runs; k++)
            pages += check_run(step, &plan->run[step->first_run + k], seen);
        frames += step->zero ? 0 : fl_frame_pages(image, step->id);
    }
    cr_assert_eq(pages, count);
    for (uint64_t i = 0; i < PAGES; i++)
        cr_assert(seen[i] == fl_plan_has(plan, i));
    for (uint64_t i = 0; i < count; i++)
        cr_assert(seen[touched[i].page]);
}

Test(plan, has_each_page_of_the_trace_once)
{
    uint64_t random = test_seed();
    begin(&random, false);
    struct fl_plan *plan = NULL;
    for (uint64_t count = 1; count <= PAGES; count += 699) {
        fl_plan_unref(plan);
        shuffle(&random);
        plan = plan_of(count);
        check(plan, count);
    }
    cr_assert_not(fl_plan_has(plan, PAGES));
    end(plan);
}

// A frame's place is that of the first of its pages, and with that one come the others that the
// trace has of it.
Test(plan, takes_what_a_frame_has_at_its_first_touch)
{
    enum { LATE = 1500, FIRST = FL_TRACE_WINDOW }; // in the first window but for LATE, 0 is
    uint64_t random = 1;
    uint64_t count = 0;
    begin(&random, true); // frames are of 16 pages in their order
    for (uint64_t page = FIRST; page < (uint64_t)2 * FIRST; page++)
        touched[count++] = (struct fl_trace_entry){.page = page == LATE ? 0 : page};
    for (uint64_t page = 2; page < 20; page++)
        touched[count++] = (struct fl_trace_entry){.page = page};
    touched[count++] = (struct fl_trace_entry){.page = LATE};
    struct fl_plan *plan = plan_of(count);
    check(plan, count);
    cr_assert_eq(plan->steps, FIRST / 16 + 2);
    const struct fl_plan_step *first = &plan->step[0];
    cr_assert_eq(first->runs, 2); // 0, and 2 to 15 with it
    cr_assert_eq(plan->run[first->first_run].page, 0);
    cr_assert_eq(plan->run[first->first_run + 1].page, 2);
    cr_assert_eq(plan->run[first->first_run + 1].pages, 14);
    for (uint64_t i = 1; i <= FIRST / 16; i++) {
        cr_assert_eq(plan->step[i].runs, 1);
        cr_assert_eq(plan->run[plan->step[i].first_run].page, FIRST + 16 * (i - 1));
        cr_assert_eq(plan->run[plan->step[i].first_run].pages, 16);
    }
    cr_assert_eq(plan->run[plan->step[plan->steps - 1].first_run].page, 16);
    end(plan);
}

static struct stat file(unsigned number)
{
    return (struct stat){.st_ino = number, .st_ctim.tv_nsec = 5};
}

// A plan is for one image and one trace, and taken by one. What was put there first goes when there
// are too many.
Test(plan, waits_on_the_shelf)
{
    struct fl_plan_cache shelf;
    struct stat top = file(1);
    struct stat trace = file(2);
    struct stat other = file(3);
    uint64_t random = 1;
    begin(&random, true);
    shuffle(&random);
    struct fl_plan *plan = plan_of(PAGES);
    fl_plan_cache_init(&shelf);
    fl_plan_cache_put(&shelf, &top, &trace, fl_plan_ref(plan));
    cr_assert_null(fl_plan_cache_take(&shelf, &top, &other));
    cr_assert_null(fl_plan_cache_take(&shelf, &other, &trace));
    trace.st_ctim.tv_nsec++;
    cr_assert_null(fl_plan_cache_take(&shelf, &top, &trace));
    trace.st_ctim.tv_nsec--;
    cr_assert_eq(fl_plan_cache_take(&shelf, &top, &trace), plan);
    fl_plan_unref(plan); // what was put
    cr_assert_null(fl_plan_cache_take(&shelf, &top, &trace));

    uint64_t most = FL_PLAN_CACHE_BYTES / fl_plan_bytes(plan);
    for (unsigned i = 0; i <= most; i++) {
        struct stat number = file(i);
        fl_plan_cache_put(&shelf, &top, &number, fl_plan_ref(plan));
    }
    cr_assert_eq(plan->refs, 1 + most);
    struct stat first = file(0);
    struct stat second = file(1);
    cr_assert_null(fl_plan_cache_take(&shelf, &top, &first));
    cr_assert_eq(fl_plan_cache_take(&shelf, &top, &second), plan);
    fl_plan_unref(plan);
    fl_plan_cache_fini(&shelf);
    cr_assert_eq(plan->refs, 1);
    end(plan);
}
