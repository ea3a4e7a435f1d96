// SPDX-License-Identifier: Apache-2.0
//
// The life of one template: what needs it, what readers are sent through it for, how it ends. The
// stages and their moves are in template_stage.h, the references in template.h.
#include <errno.h>
#include <inttypes.h>

#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/image/images.h"
#include "engine/link/keeper_link.h"
#include "engine/template/template_pass.h"
#include "engine/template/templates.h"
#include "engine/template/templates_internal.h"

static void move_template(struct fl_template *template, enum fl_template_stage to)
{
    if (fl_states_check(&fl_template_stages, template->stage, to))
        template->stage = to;
}

// --- what needs it, and its end ---

// Reader thread: what is closed for good takes its time.
static uint64_t free_later(struct fl_io_job *job)
{
    struct fl_template *template = caa_container_of(job, struct fl_template, pass.job);
    FL_CRASH_POINT("template_reaped");
    fl_template_budget_release(&template->shared->budget, template->state->filled);
    fl_template_free(template);
    return 0;
}

static void reap_template(struct fl_template *template)
{
    const struct fl_templates_options *with = &fl_template_table(template)->options;
    if (template->clones > 0 || template->holds > 0)
        return;
    if (template->stage != FL_TEMPLATE_RESTING) {
        atomic_store(&template->pass.cancel, true);
        return;
    }
    move_template(template, FL_TEMPLATE_GONE);
    fl_log(FL_LOG_INFO, "event=template_gone image=%s clones=%" PRIu64 " filled=%" PRIu64,
           template->state->image, template->clones_all, template->state->filled);
    cds_list_del(&template->link);
    fl_keeper_link_drop(with->keeper_link, FL_RECORD_TEMPLATE, template->id);
    if (template->image)
        fl_images_put(with->images, template->image);
    template->pass.job.run = free_later;
    fl_io_pool_submit(with->io_pool, &template->pass.job);
}

void fl_template_hold(struct fl_template *template)
{
    template->holds++;
}

void fl_template_unhold(struct fl_template *template)
{
    template->holds--;
    reap_template(template);
}

void fl_template_clone(struct fl_template *template)
{
    template->clones++;
    template->clones_all++;
}

void fl_template_unclone(struct fl_template *template)
{
    template->clones--;
    reap_template(template);
}

int fl_template_open_door(struct fl_template *template, const char **ret_reason)
{
    char path[PATH_MAX];
    const struct fl_templates_options *with = &fl_template_table(template)->options;
    if (!fl_template_path(template, ".template", path)) {
        *ret_reason = "its path is too long";
        return -ENAMETOOLONG;
    }
    return with->ops->open_door(with->arg, template->state->image, path, ret_reason);
}

void fl_template_pin(struct fl_template *template)
{
    atomic_store(&template->pass.cancel, false);
    if (!(atomic_fetch_or(&template->state->flags, FL_TEMPLATE_PINNED) & FL_TEMPLATE_PINNED))
        fl_template_hold(template);
}

void fl_template_unpin(struct fl_template *template)
{
    char path[PATH_MAX];
    const struct fl_templates_options *with = &fl_template_table(template)->options;
    if (fl_template_path(template, ".template", path))
        with->ops->close_door(with->arg, path);
    fl_template_unlink(template);
    atomic_fetch_and(&template->state->flags, ~(uint64_t)FL_TEMPLATE_PINNED);
    fl_template_unhold(template);
}

// --- filling and checking ---

// The reader was told to end, and the template was needed again before it had.
static bool pass_is_revived(const struct fl_template *template)
{
    return template->pass.error == -ECANCELED && !atomic_load(&template->shared->ending) &&
           template->clones + template->holds > 0;
}

void fl_template_tell_ready(struct fl_template *template, int error)
{
    const struct fl_templates_options *with = &fl_template_table(template)->options;
    with->ops->ready(with->arg, template, error);
}

static void say_filled(struct fl_template *template)
{
    int error = template->pass.error;
    template->error = error;
    if (error && error != -ECANCELED)
        fl_log(FL_LOG_ERROR, "event=template_failed image=%s filled=%" PRIu64 " reason=\"%s\"",
               template->state->image, template->state->filled, fl_template_strerror(error));
    if (fl_template_sealed(template)) {
        fl_log(FL_LOG_INFO, "event=template_complete image=%s pages=%" PRIu64,
               template->state->image, template->state->pages);
        fl_template_link(template);
    }
}

static void start_fill(struct fl_template *template);

// The reader's mail.
static void pass_ended(void *control, struct fl_mail *mail)
{
    (void)control;
    struct fl_template *template = caa_container_of(mail, struct fl_template, pass.mail);
    enum fl_template_stage stage = template->stage;
    if (pass_is_revived(template)) {
        fl_template_pass_start(template, template->pass.goal, pass_ended);
        return;
    }
    move_template(template, FL_TEMPLATE_RESTING);
    if (stage == FL_TEMPLATE_FILLING)
        say_filled(template);
    fl_template_hold(template); // a connection that waits may be the last to need it
    fl_template_tell_ready(template, stage == FL_TEMPLATE_FILLING ? 0 : template->pass.error);
    if (stage == FL_TEMPLATE_CHECKING_FIRST)
        start_fill(template);
    fl_template_unhold(template);
}

// A reader that fills everything looks at everything, too.
static void start_fill(struct fl_template *template)
{
    move_template(template, FL_TEMPLATE_FILLING);
    fl_template_pass_start(template, FL_TEMPLATE_FILL, pass_ended);
}

void fl_template_want_complete(struct fl_template *template)
{
    atomic_fetch_or(&template->state->flags, FL_TEMPLATE_COMPLETE);
    if (!template->image || fl_template_sealed(template))
        return;
    template->error = 0; // that of an attempt before
    if (template->stage == FL_TEMPLATE_CHECKING)
        move_template(template, FL_TEMPLATE_CHECKING_FIRST);
    else if (template->stage == FL_TEMPLATE_RESTING)
        start_fill(template);
}

bool fl_template_ready(struct fl_template *template)
{
    if (!template->image)
        return false;
    if (template->stage == FL_TEMPLATE_RESTING && fl_template_suspect(template)) {
        move_template(template, FL_TEMPLATE_CHECKING);
        fl_template_pass_start(template, FL_TEMPLATE_CHECK, pass_ended);
    }
    return template->stage != FL_TEMPLATE_CHECKING && template->stage != FL_TEMPLATE_CHECKING_FIRST;
}
