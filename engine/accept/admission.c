// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/admission.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/base/bitmap.h"
#include "engine/base/clock.h"
#include "engine/base/io_pool.h"
#include "engine/base/log.h"
#include "engine/host/huge_pool.h"
#include "engine/image/images.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"

#define BUSY_PAUSE (2 * FL_NS_PER_MS)

bool fl_admission_asks(const struct fl_engine *engine, const struct fl_layout *layout)
{
    return engine->options.admission != FL_ADMISSION_OFF && layout->pages > 0 &&
           layout->page_shift == FL_HUGE_SHIFT;
}

// --- what a VM needs ---

static int count_trace(const struct fl_plan *plan, const struct fl_layout *layout,
                       uint64_t *ret_need)
{
    const struct fl_trace_entry *entry = fl_trace_entries(plan->trace);
    uint64_t *seen = calloc(1, fl_bitmap_bytes(layout->pages));
    if (!seen)
        return -ENOMEM;
    *ret_need = 0;
    for (uint64_t i = 0; i < fl_trace_count(plan->trace); i++) {
        uint64_t page = 0;
        uint64_t left = 0;
        if (fl_layout_from_image(layout, entry[i].page, &page, &left))
            *ret_need += fl_bits_set(seen, page, 1);
    }
    free(seen);
    return 0;
}

// What lies beyond the image's end is zero.
static bool is_zero(const struct fl_image *image, uint64_t page)
{
    uint64_t end =
        page + FL_HUGE_PAGES < fl_image_pages(image) ? page + FL_HUGE_PAGES : fl_image_pages(image);
    while (page < end) {
        struct fl_run run = fl_image_run(image, page, (uint32_t)(end - page));
        if (!run.zero)
            return false;
        page += run.pages;
    }
    return true;
}

static int count_nonzero(const struct fl_image *image, const struct fl_layout *layout,
                         uint64_t *ret_need)
{
    int error = fl_image_read_map(image, 0, fl_image_pages(image));
    *ret_need = 0;
    for (uint64_t page = 0; page < layout->pages && !error; page++)
        *ret_need += !is_zero(image, fl_layout_image_page(layout, page));
    return error;
}

int fl_admission_count(struct fl_engine *engine, const struct fl_image *image,
                       const struct fl_layout *layout, uint64_t *ret_need)
{
    struct fl_plan *plan = NULL;
    int error = engine->images ? fl_images_plan(engine->images, image, &plan) : 0;
    if (error == -EBUSY)
        return error;
    error = plan ? count_trace(plan, layout, ret_need) : count_nonzero(image, layout, ret_need);
    fl_plan_unref(plan);
    if (error)
        *ret_need = layout->pages;
    return 0;
}

// --- what there is ---

static uint64_t still_needs(const struct fl_vm *vm)
{
    const struct fl_vm_counters *counters = &vm->state->counters;
    uint64_t has = (fl_counter_get(&counters->installed) + fl_counter_get(&counters->zeroed) +
                    fl_counter_get(&counters->poisoned)) /
                   FL_HUGE_PAGES;
    return vm->huge_need > has ? vm->huge_need - has : 0;
}

static void add_promise(void *arg, const struct fl_vm *vm)
{
    *(uint64_t *)arg += still_needs(vm);
}

uint64_t fl_admission_promised(struct fl_engine *engine)
{
    uint64_t promised = 0;
    fl_vms_each(&engine->vms, add_promise, &promised);
    return promised;
}

static bool pool_holds(uint64_t need, uint64_t others, struct fl_error *ret_error)
{
    struct fl_huge_pool pool = fl_huge_pool_read();
    uint64_t available = fl_huge_pool_available(&pool);
    if (need + others <= available)
        return true;
    fl_fail_plain(ret_error, -ENOSPC,
                  "the pool of 2 MiB pages cannot hold what it will need: %" PRIu64 ", but %" PRIu64
                  " of %" PRIu64 " are free, of which other VMs still need %" PRIu64,
                  need, available, pool.total, others);
    return false;
}

bool fl_admission_holds(struct fl_engine *engine, uint64_t need, struct fl_error *ret_error)
{
    return pool_holds(need, fl_admission_promised(engine), ret_error);
}

// --- after it was attached ---

struct count {
    struct fl_io_job job;
    struct fl_mail mail;
    struct fl_engine *engine;
    uint64_t vm; // its number: it may be gone first
    struct fl_image *image;
    struct fl_layout layout;
    bool warn;
    uint64_t need;
};

// It may have some of its pages by now.
static void warn_of_shortage(struct fl_engine *engine, const struct fl_vm *vm)
{
    struct fl_error reason;
    uint64_t need = still_needs(vm);
    if (!pool_holds(need, fl_admission_promised(engine) - need, &reason))
        fl_log(FL_LOG_WARNING, "event=huge_pages_short vm=%" PRIu64 " image=%s reason=\"%s\"",
               vm->id, fl_vm_image_name(vm), reason.text);
}

static void need_counted(void *control, struct fl_mail *mail)
{
    struct fl_engine *engine = control;
    struct count *count = caa_container_of(mail, struct count, mail);
    struct fl_vm *vm = fl_vms_find(&engine->vms, count->vm);
    if (vm)
        vm->huge_need = count->need;
    if (vm && count->warn)
        warn_of_shortage(engine, vm);
    free(count);
}

static void drop_count(struct fl_mail *mail)
{
    free(caa_container_of(mail, struct count, mail));
}

static uint64_t count_need(struct fl_io_job *job)
{
    struct count *count = caa_container_of(job, struct count, job);
    if (fl_admission_count(count->engine, count->image, &count->layout, &count->need) == -EBUSY)
        return fl_now() + BUSY_PAUSE;
    fl_image_unref(count->image);
    count->mail = (struct fl_mail){.deliver = need_counted, .drop = drop_count};
    fl_mailbox_post(&count->engine->control, &count->mail);
    return 0;
}

void fl_admission_attached(struct fl_engine *engine, struct fl_vm *vm)
{
    if (!vm->image || vm->huge_need > 0 || (vm->state->flags & FL_VM_STATE_RESERVED) ||
        !fl_admission_asks(engine, &vm->state->layout))
        return;
    struct count *count = calloc(1, sizeof(*count));
    if (!count)
        return;
    count->engine = engine;
    count->vm = vm->id;
    count->image = fl_image_ref(vm->image);
    count->layout = vm->state->layout;
    count->warn = !vm->inherited;
    count->job.run = count_need;
    // It may read all of a large map: behind what a fault waits for.
    fl_io_pool_submit_later(engine->io_pool, &count->job);
}
