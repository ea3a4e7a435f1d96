// SPDX-License-Identifier: Apache-2.0
//
// LOOKUP: the file of a name, as the store has it now.
//
// A reader opens the image, the control thread has the keeper hold it, and the files' thread makes
// its node, if it has none, and answers. An image that was replaced under its name is another
// image, and has another node; files that were opened before stay as they were.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <urcu/compiler.h>

#include "engine/base/crash_point.h"
#include "engine/base/image_name.h"
#include "engine/files/files_internal.h"
#include "engine/image/images.h"
#include "engine/image/store_place.h"
#include "snapshot/read.h"

static const char suffix[] = ".mem";

struct lookup {
    struct fl_files_call call;
    char name[FL_IMAGE_NAME_BYTES];
    struct fl_io_job job;
    struct fl_mail mail;
    struct fl_image *image; // a user of it
    uint64_t record;
    int error;
};

// Its mail or its job comes back, or is dropped at the end, when there is no list any more.
static void leave_lookup(struct fl_files_call *call)
{
    cds_list_del_init(&call->link);
}

static void drop_lookup(struct fl_mail *mail)
{
    struct lookup *lookup = caa_container_of(mail, struct lookup, mail);
    fl_image_unref(lookup->image);
    free(lookup);
}

// Control thread: the node had a user already, or could not be made.
static void user_left(void *control, struct fl_mail *mail)
{
    (void)control;
    struct lookup *lookup = caa_container_of(mail, struct lookup, mail);
    fl_images_put(lookup->call.files->options.images, lookup->image);
    free(lookup);
}

static void end_lookup(struct lookup *lookup)
{
    struct fl_files *files = lookup->call.files;
    fl_files_call_end(&lookup->call);
    if (!lookup->image) {
        free(lookup);
        return;
    }
    lookup->mail.deliver = user_left;
    fl_mailbox_post(files->options.control, &lookup->mail);
}

static int get_node(struct lookup *lookup, struct fl_files_node **ret_node)
{
    struct fl_files *files = lookup->call.files;
    if (lookup->error)
        return lookup->error;
    *ret_node = fl_files_node_find(files, lookup->record + FL_FILES_FIRST);
    if (*ret_node)
        return 0;
    int error = fl_files_node_new(files, lookup->record, lookup->image, ret_node);
    if (!error)
        lookup->image = NULL; // the node has it
    return error;
}

static void answer_entry(struct lookup *lookup, struct fl_files_node *node)
{
    enum { KEPT_S = 3600 };
    struct fl_files *files = lookup->call.files;
    struct fuse_entry_out out = {.nodeid = node->entry->record + FL_FILES_FIRST,
                                 .generation = 1,
                                 .attr_valid = KEPT_S}; // each open asks for the name anew
    fl_files_attr(files, node->entry, &out.attr);
    if (fl_files_state_note(files->state, lookup->call.unique))
        node->entry->lookups++;
    FL_CRASH_POINT("files_lookup");
    lookup->call.answered = true;
    int result = fl_fuse_answer(files->device, lookup->call.unique, 0, &out, sizeof(out));
    if (!fl_files_answered(files, result) && result != -ENOENT)
        fl_files_node_forget(files, out.nodeid, 1);
}

// Files' thread.
static void lookup_done(void *owner, struct fl_mail *mail)
{
    (void)owner;
    struct lookup *lookup = caa_container_of(mail, struct lookup, mail);
    struct fl_files_node *node = NULL;
    int error = lookup->call.answered ? 0 : get_node(lookup, &node);
    if (node)
        answer_entry(lookup, node);
    else
        fl_files_call_answer(&lookup->call, error, NULL, 0);
    end_lookup(lookup);
}

// Control thread.
static void image_got(void *control, struct fl_mail *mail)
{
    (void)control;
    struct lookup *lookup = caa_container_of(mail, struct lookup, mail);
    struct fl_files *files = lookup->call.files;
    if (lookup->image) {
        lookup->record = fl_images_keep(files->options.images, lookup->image);
        FL_CRASH_POINT("files_kept");
    }
    if (lookup->image && lookup->record == 0)
        lookup->error = -ESTALE;
    mail->deliver = lookup_done;
    fl_mailbox_post(&files->mailbox, mail);
}

// What a program is told: the image is there, and cannot be used now; or it is not there.
static int error_of(int error)
{
    return error == -ENOENT || error == -EINVAL                       ? -ENOENT
           : error == -EMFILE || error == -ENFILE || error == -ENOMEM ? error
                                                                      : -EIO;
}

static uint64_t get_image(struct fl_io_job *job)
{
    struct lookup *lookup = caa_container_of(job, struct lookup, job);
    struct fl_files *files = lookup->call.files;
    int error = fl_images_get(files->options.images, lookup->name, &lookup->image);
    lookup->error = error ? error_of(error) : 0;
    lookup->mail.deliver = image_got;
    lookup->mail.drop = drop_lookup;
    fl_mailbox_post(files->options.control, &lookup->mail);
    return 0;
}

void fl_files_lookup(struct fl_files *files, const struct fuse_in_header *in, const char *name)
{
    size_t length = strnlen(name, FL_IMAGE_NAME_BYTES + sizeof(suffix));
    size_t stem = length - (sizeof(suffix) - 1);
    if (in->nodeid != FL_FILES_ROOT || length < sizeof(suffix) || stem >= FL_IMAGE_NAME_BYTES ||
        strcmp(name + stem, suffix) != 0) {
        fl_files_answer(files, in->unique, -ENOENT, NULL, 0);
        return;
    }
    struct lookup *lookup = calloc(1, sizeof(*lookup));
    if (!lookup) {
        fl_files_answer(files, in->unique, -ENOMEM, NULL, 0);
        return;
    }
    memcpy(lookup->name, name, stem);
    lookup->call.leave = leave_lookup;
    lookup->job.run = get_image;
    fl_files_call_begin(files, &lookup->call, in);
    fl_io_pool_submit(files->options.io_pool, &lookup->job);
}
