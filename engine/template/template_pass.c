// SPDX-License-Identifier: Apache-2.0
#include "engine/template/template_pass.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/dontdump.h"

enum { SLICE_PAGES = 512, ATTEMPTS = 5, SEAL_ATTEMPTS = 12, SEAL_PAUSE_DOUBLED = 5 };
#define READ_PAUSE (50 * FL_NS_PER_MS)
#define SEAL_PAUSE (20 * FL_NS_PER_MS)

// The next page of a check: one that is in the file without our having said so. The offset of the
// open file is used by nothing else.
static uint64_t next_foreign(const struct fl_template *template, uint64_t page)
{
    uint64_t pages = template->state->pages;
    while (page < pages) {
        off_t at = lseek(template->memory, (off_t)(page << FL_PAGE_SHIFT), SEEK_DATA);
        if (at < 0)
            return pages;
        page = (uint64_t)at >> FL_PAGE_SHIFT;
        off_t end = lseek(template->memory, at, SEEK_HOLE);
        uint64_t hole = fl_template_next_hole(template, page);
        if (hole << FL_PAGE_SHIFT < (uint64_t)end)
            return hole;
        page = (uint64_t)end >> FL_PAGE_SHIFT;
    }
    return pages;
}

static uint64_t next_page(const struct fl_template *template)
{
    return template->pass.goal == FL_TEMPLATE_CHECK
               ? next_foreign(template, template->pass.next)
               : fl_template_next_hole(template, template->pass.next);
}

static int read_frame(struct fl_template *template, struct fl_frame_id id)
{
    if (template->pass.frame_read && template->pass.frame_id.pack == id.pack &&
        template->pass.frame_id.frame == id.frame)
        return 0;
    template->pass.frame_read = false;
    if (!template->pass.frame)
        template->pass.frame = fl_dontdump_map(FL_TEMPLATE_FRAME_BYTES);
    if (!template->pass.frame)
        return -ENOMEM;
    int error = fl_frame_read(template->image, id, template->pass.frame);
    template->pass.frame_read = !error;
    template->pass.frame_id = id;
    return error;
}

static int why_not(const struct fl_template *template)
{
    if (!fl_template_budget_reserve(&template->shared->budget, 1))
        return -ENOSPC;
    fl_template_budget_release(&template->shared->budget, 1);
    return -ENOMEM;
}

// How many pages are done; 0: why not in pass_error.
static uint64_t fill_run(struct fl_template *template, uint64_t page)
{
    bool check = template->pass.goal == FL_TEMPLATE_CHECK;
    template->pass.error = fl_image_read_map(template->image, page, check ? 1 : SLICE_PAGES);
    if (template->pass.error)
        return 0;
    struct fl_run run = fl_image_run(template->image, page, check ? 1 : SLICE_PAGES);
    uint64_t end = page + 1; // another thread may have filled it since
    while (end < page + run.pages && !fl_template_has(template, end))
        end++;
    const uint8_t *from = NULL;
    template->pass.error = run.zero ? 0 : read_frame(template, run.id);
    if (template->pass.error)
        return 0;
    if (!run.zero)
        from = template->pass.frame + ((size_t)run.slot << FL_PAGE_SHIFT);
    uint64_t done = 0;
    if (check)
        done = fl_template_check(template, page, from);
    else
        done = fl_template_fill(template, page, from, end - page);
    if (done == 0)
        template->pass.error = check ? -EIO : why_not(template);
    return done;
}

static bool pass_is_over(const struct fl_template *template)
{
    return atomic_load(&template->pass.cancel) || atomic_load(&template->shared->ending);
}

static uint64_t finish_pass(struct fl_template *template)
{
    fl_dontdump_unmap(template->pass.frame, FL_TEMPLATE_FRAME_BYTES);
    template->pass.frame = NULL;
    template->pass.frame_read = false;
    fl_mailbox_post(template->shared->control, &template->pass.mail);
    return 0;
}

// A predecessor that is still on its way out has it mapped, or a client holds a page of it: later.
// A client can hold one for ever (in a pipe), and each attempt then keeps a reader for a third of a
// second.
static uint64_t seal_template(struct fl_template *template)
{
    int error = fl_template_sealed(template) ? 0 : fl_template_seal(template);
    bool given_up = pass_is_over(template); // it may be asked for again at any moment
    if (error == -EBUSY && !given_up && template->pass.attempts < SEAL_ATTEMPTS) {
        unsigned doubled = template->pass.attempts++;
        return fl_now() +
               (SEAL_PAUSE << (doubled < SEAL_PAUSE_DOUBLED ? doubled : SEAL_PAUSE_DOUBLED));
    }
    if (error == -EBUSY && given_up)
        error = -ECANCELED;
    template->pass.error = error;
    return finish_pass(template);
}

static uint64_t pass_slice(struct fl_io_job *job)
{
    struct fl_template *template = caa_container_of(job, struct fl_template, pass.job);
    uint64_t pages = template->state->pages;
    uint64_t left = SLICE_PAGES;
    template->pass.next = next_page(template);
    while (left > 0 && template->pass.next < pages && !pass_is_over(template)) {
        uint64_t done = fill_run(template, template->pass.next);
        if (done == 0 && template->pass.error != -ENOSPC && ++template->pass.attempts < ATTEMPTS)
            return fl_now() + READ_PAUSE;
        if (done == 0)
            return finish_pass(template);
        template->pass.attempts = 0;
        left -= done < left ? done : left;
        template->pass.next = next_page(template); // from this one on: it has its bit now
    }
    template->pass.error = pass_is_over(template) ? -ECANCELED : 0;
    if (template->pass.error)
        return finish_pass(template);
    if (template->pass.next < pages) {
        fl_io_pool_submit(template->shared->io_pool, job);
        return 0;
    }
    return template->pass.goal == FL_TEMPLATE_FILL ? seal_template(template)
                                                   : finish_pass(template);
}

void fl_template_pass_start(struct fl_template *template, enum fl_template_goal goal,
                            void (*done)(void *control, struct fl_mail *mail))
{
    atomic_store(&template->pass.cancel, false);
    template->pass.goal = goal;
    template->pass.next = 0;
    template->pass.attempts = 0;
    template->pass.error = 0;
    template->pass.mail.deliver = done;
    template->pass.job.run = pass_slice;
    fl_io_pool_submit(template->shared->io_pool, &template->pass.job);
}
