// SPDX-License-Identifier: Apache-2.0
#include "engine/image/plan.h"

#include <errno.h>
#include <stdlib.h>

// Zero pages have no frame: those of one such part of the image make a step.
#define ZERO_PAGES 256U
#define ZERO_PACK UINT64_MAX

struct item {
    struct fl_frame_id id; // zero pages: of pack ZERO_PACK, their part of the image
    uint32_t slot;
    uint64_t page;
    uint64_t touched;
};

static int compare_numbers(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

static int compare_places(const void *left, const void *right)
{
    const struct item *a = left;
    const struct item *b = right;
    int by = compare_numbers(a->id.pack, b->id.pack);
    by = by ? by : compare_numbers(a->id.frame, b->id.frame);
    return by ? by : compare_numbers(a->page, b->page);
}

static int compare_steps(const void *left, const void *right)
{
    return compare_numbers(((const struct fl_plan_step *)left)->touched,
                           ((const struct fl_plan_step *)right)->touched);
}

// False if its piece of the map cannot be read: faults will tell.
static bool item_of(const struct fl_image *image, uint64_t page, uint64_t touched,
                    struct item *ret_item)
{
    if (fl_image_read_map(image, page, 1) != 0)
        return false;
    struct fl_run run = fl_image_run(image, page, 1);
    struct fl_frame_id part = {ZERO_PACK, (uint32_t)(page / ZERO_PAGES)};
    *ret_item = (struct item){
        .id = run.zero ? part : run.id, .slot = run.slot, .page = page, .touched = touched};
    return true;
}

static bool same_step(const struct item *a, const struct item *b)
{
    return a->id.pack == b->id.pack && a->id.frame == b->id.frame;
}

static bool same_run(const struct item *a, const struct item *b)
{
    return same_step(a, b) && b->page == a->page + 1 &&
           (a->id.pack == ZERO_PACK || b->slot == a->slot + 1);
}

// The items are sorted by place.
static void group_items(struct fl_plan *plan, const struct item *item, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (i == 0 || !same_step(&item[i - 1], &item[i]))
            plan->step[plan->steps++] = (struct fl_plan_step){.id = item[i].id,
                                                              .zero = item[i].id.pack == ZERO_PACK,
                                                              .first_run = plan->runs,
                                                              .touched = item[i].touched};
        struct fl_plan_step *step = &plan->step[plan->steps - 1];
        if (item[i].touched < step->touched)
            step->touched = item[i].touched;
        if (i == 0 || !same_run(&item[i - 1], &item[i])) {
            plan->run[plan->runs++] =
                (struct fl_plan_run){.page = item[i].page, .slot = item[i].slot};
            step->runs++;
        }
        plan->run[plan->runs - 1].pages++;
    }
}

static void add_up(struct fl_plan *plan, const struct fl_image *image)
{
    uint64_t pages = 0;
    uint64_t frames = 0;
    for (uint64_t i = 0; i < plan->steps; i++) {
        struct fl_plan_step *step = &plan->step[i];
        step->pages_before = pages;
        step->frames_before = frames;
        frames += step->zero ? 0 : fl_frame_pages(image, step->id);
        for (uint32_t k = 0; k < step->runs; k++)
            pages += plan->run[step->first_run + k].pages;
    }
}

// What was not needed of the arrays is given back.
static void shrink_plan(struct fl_plan *plan)
{
    struct fl_plan_step *step = realloc(plan->step, plan->steps * sizeof(*step));
    struct fl_plan_run *run = realloc(plan->run, plan->runs * sizeof(*run));
    plan->step = step ? step : plan->step;
    plan->run = run ? run : plan->run;
}

static int build_plan(struct fl_plan *plan, const struct fl_image *image)
{
    uint64_t count = fl_trace_count(plan->trace);
    const struct fl_trace_entry *entry = fl_trace_entries(plan->trace);
    struct item *item = malloc(count * sizeof(*item));
    plan->step = malloc(count * sizeof(*plan->step));
    plan->run = malloc(count * sizeof(*plan->run));
    plan->has = calloc(1, fl_bitmap_bytes(plan->image_pages));
    if (!item || !plan->step || !plan->run || !plan->has) {
        free(item);
        return -ENOMEM;
    }
    uint64_t items = 0;
    for (uint64_t i = 0; i < count; i++) {
        if (!item_of(image, entry[i].page, i, &item[items]))
            continue;
        items++;
        fl_bits_set(plan->has, entry[i].page, 1);
    }
    count = items;
    if (count == 0) {
        free(item);
        return -EBADMSG;
    }
    qsort(item, count, sizeof(*item), compare_places);
    group_items(plan, item, count);
    free(item);
    qsort(plan->step, plan->steps, sizeof(*plan->step), compare_steps);
    add_up(plan, image);
    shrink_plan(plan);
    return 0;
}

int fl_plan_new(const struct fl_image *image, struct fl_trace *trace, struct fl_plan **ret_plan)
{
    struct fl_plan *plan = calloc(1, sizeof(*plan));
    if (!plan)
        return -ENOMEM;
    atomic_init(&plan->refs, 1);
    plan->trace = fl_trace_ref(trace);
    plan->image_pages = fl_image_pages(image);
    int error = build_plan(plan, image);
    if (error) {
        fl_plan_unref(plan);
        return error;
    }
    *ret_plan = plan;
    return 0;
}

int fl_plan_know(const struct fl_plan *plan, const struct fl_image *image)
{
    int error = 0;
    for (uint64_t i = 0; i < plan->steps && !error; i++) {
        if (!plan->step[i].zero)
            error = fl_frame_know(image, plan->step[i].id);
    }
    return error;
}

uint64_t fl_plan_bytes(const struct fl_plan *plan)
{
    return sizeof(*plan) + plan->steps * sizeof(*plan->step) + plan->runs * sizeof(*plan->run) +
           fl_bitmap_bytes(plan->image_pages) +
           fl_trace_count(plan->trace) * sizeof(struct fl_trace_entry);
}

struct fl_plan *fl_plan_ref(struct fl_plan *plan)
{
    atomic_fetch_add_explicit(&plan->refs, 1, memory_order_relaxed);
    return plan;
}

void fl_plan_unref(struct fl_plan *plan)
{
    if (!plan || atomic_fetch_sub_explicit(&plan->refs, 1, memory_order_acq_rel) != 1)
        return;
    fl_trace_unref(plan->trace);
    free(plan->step);
    free(plan->run);
    free(plan->has);
    free(plan);
}
