// SPDX-License-Identifier: Apache-2.0
//
// OPEN and RELEASE: the image of a file is held from the first open to the last release.
//
// A reader opens the image, the control thread has the keeper hold it, and the files' thread gives
// it to the node, if it has none, and answers. If the name has another version by then, or none,
// the answer is ESTALE: the kernel looks the name up once more.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <urcu/compiler.h>

#include "engine/base/crash_point.h"
#include "engine/files/files_internal.h"
#include "snapshot/read.h"

// Pages stay in the cache over an open, and a close asks nothing of us.
enum { OPEN_FLAGS = FOPEN_KEEP_CACHE | FOPEN_NOFLUSH };

struct opening {
    struct fl_files_call call;
    struct fl_io_job job;
    struct fl_mail mail;
    uint64_t node;
    char name[FL_IMAGE_NAME_BYTES];
    struct fl_files_version version;
    struct fl_files_held *held;
    uint64_t record;
    bool has_trace;
    int error;
};

// Its mail or its job comes back, or is dropped at the end, when there is no list any more.
static void leave_opening(struct fl_files_call *call)
{
    cds_list_del_init(&call->link);
}

static void drop_opening(struct fl_mail *mail)
{
    struct opening *opening = caa_container_of(mail, struct opening, mail);
    fl_files_held_free(opening->held);
    free(opening);
}

static void answer_open(struct fl_files *files, struct fl_files_node *node, uint64_t unique)
{
    const struct fuse_open_out out = {.open_flags = OPEN_FLAGS};
    struct fl_files_entry *entry = node->entry;
    if (!fl_files_state_is_noted(files->state, unique)) {
        entry->opens++;
        entry->used = ++files->state->used;
        atomic_fetch_add(&files->state->open_now, 1);
        fl_files_state_note(files->state, unique);
        atomic_fetch_add(&files->options.counts->opens, 1);
    }
    FL_CRASH_POINT("files_open");
    int result = fl_fuse_answer(files->device, unique, 0, &out, sizeof(out));
    if (!fl_files_answered(files, result) && result != -ENOENT) {
        entry->opens--;
        atomic_fetch_sub(&files->state->open_now, 1);
    }
}

static int why_not(const struct fl_files *files, const struct fl_files_node *node)
{
    return !node ? -ESTALE : atomic_load(&files->refusing) ? -ESHUTDOWN : 0;
}

// Another OPEN may have come first: the image that it has is the same.
static void give_image(struct opening *opening, struct fl_files_node *node)
{
    if (node->entry->record != 0)
        return;
    node->entry->record = opening->record;
    node->held = opening->held;
    opening->held = NULL;
}

// Files' thread.
static void opened(void *owner, struct fl_mail *mail)
{
    struct fl_files *files = owner;
    struct opening *opening = caa_container_of(mail, struct opening, mail);
    struct fl_files_node *node = fl_files_node_find(files, opening->node);
    int error = opening->error ? opening->error : why_not(files, node);
    if (node)
        node->opening--;
    if (error) {
        fl_files_call_answer(&opening->call, error, NULL, 0);
    } else if (!opening->call.answered) {
        opening->call.answered = true;
        give_image(opening, node);
        answer_open(files, node, opening->call.unique);
        fl_files_node_let_go(node); // the kernel may not have taken the answer
    }
    fl_files_call_end(&opening->call);
    fl_files_held_put(opening->held);
    free(opening);
    if (node)
        fl_files_node_forget(files, node->entry->id, 0); // it may have been forgotten meanwhile
}

// Control thread.
static void image_got(void *control, struct fl_mail *mail)
{
    (void)control;
    struct opening *opening = caa_container_of(mail, struct opening, mail);
    struct fl_files *files = opening->call.files;
    if (!opening->error) {
        opening->record = fl_images_keep(files->options.images, opening->held->image);
        opening->error = opening->record == 0 ? -ESTALE : 0;
        FL_CRASH_POINT("files_kept");
    }
    if (!opening->error && opening->has_trace)
        fl_files_warm(files, opening->held->image);
    mail->deliver = opened;
    fl_mailbox_post(&files->mailbox, mail);
}

static bool is_wanted(const struct opening *opening)
{
    int fd = -1;
    struct stat file;
    if (fl_image_files(opening->held->image, &fd, 1) == 0 || fstat(fd, &file) != 0)
        return false;
    struct fl_files_version version = fl_files_version_of(&file);
    return fl_files_same_version(&version, &opening->version);
}

static uint64_t open_image(struct fl_io_job *job)
{
    struct opening *opening = caa_container_of(job, struct opening, job);
    struct fl_files *files = opening->call.files;
    int error = fl_images_get(files->options.images, opening->name, &opening->held->image);
    opening->error = error ? fl_files_error_of(error) : is_wanted(opening) ? 0 : -ESTALE;
    if (opening->error == -ENOENT)
        opening->error = -ESTALE;
    if (!opening->error)
        opening->has_trace = fl_files_can_warm(files, opening->held->image);
    opening->mail.deliver = image_got;
    opening->mail.drop = drop_opening;
    fl_mailbox_post(files->options.control, &opening->mail);
    return 0;
}

static struct opening *new_opening(struct fl_files *files, const struct fl_files_node *node)
{
    struct opening *opening = calloc(1, sizeof(*opening));
    struct fl_files_held *held = fl_files_held_new(files);
    if (!opening || !held) {
        free(opening);
        fl_files_held_free(held);
        return NULL;
    }
    opening->held = held;
    opening->node = node->entry->id;
    opening->version = node->entry->version;
    memcpy(opening->name, node->entry->name, sizeof(opening->name));
    opening->call.leave = leave_opening;
    opening->job.run = open_image;
    return opening;
}

void fl_files_open_file(struct fl_files *files, const struct fuse_in_header *in)
{
    struct fl_files_node *node = fl_files_node_find(files, in->nodeid);
    struct opening *opening = NULL;
    int error = why_not(files, node);
    if (!error && node->entry->record != 0) {
        answer_open(files, node, in->unique);
        return;
    }
    if (!error) {
        opening = new_opening(files, node);
        error = opening ? 0 : -ENOMEM;
    }
    if (error) {
        fl_files_answer(files, in->unique, error, NULL, 0);
        return;
    }
    node->opening++;
    fl_files_call_begin(files, &opening->call, in);
    fl_io_pool_submit_later(files->options.io_pool, &opening->job);
}

void fl_files_release(struct fl_files *files, const struct fuse_in_header *in)
{
    struct fl_files_node *node = fl_files_node_find(files, in->nodeid);
    if (node && fl_files_state_note(files->state, in->unique) && node->entry->opens > 0) {
        node->entry->opens--;
        atomic_fetch_sub(&files->state->open_now, 1);
    }
    FL_CRASH_POINT("files_release");
    if (node)
        fl_files_node_let_go(node);
    fl_files_answer(files, in->unique, 0, NULL, 0);
    fl_files_node_forget(files, in->nodeid, 0);
}
