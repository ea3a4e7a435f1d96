// SPDX-License-Identifier: Apache-2.0
//
// LOOKUP: the file of a name, as the store has it now.
//
// A reader looks at the image, and the files' thread makes its node, if it has none, and answers.
// Nothing of the image is held: whoever may list the files would hold all of them. An image that
// was replaced under its name is another version, and has another node.
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
    struct fl_image_look look;
    int error;
};

// Its mail or its job comes back, or is dropped at the end, when there is no list any more.
static void leave_lookup(struct fl_files_call *call)
{
    cds_list_del_init(&call->link);
}

static void drop_lookup(struct fl_mail *mail)
{
    free(caa_container_of(mail, struct lookup, mail));
}

static void answer_entry(struct lookup *lookup, struct fl_files_node *node)
{
    enum { KEPT_S = 3600 };
    struct fl_files *files = lookup->call.files;
    struct fuse_entry_out out = {.nodeid = node->entry->id,
                                 .generation = 1,
                                 .attr_valid = KEPT_S}; // each open asks for the name anew
    fl_files_attr(files, node->entry, &out.attr);
    node->entry->used = ++files->state->used;
    if (!fl_files_state_is_noted(files->state, lookup->call.unique)) {
        node->entry->lookups++;
        fl_files_state_note(files->state, lookup->call.unique);
    }
    FL_CRASH_POINT("files_lookup");
    lookup->call.answered = true;
    int result = fl_fuse_answer(files->device, lookup->call.unique, 0, &out, sizeof(out));
    if (!fl_files_answered(files, result) && result != -ENOENT)
        fl_files_node_forget(files, out.nodeid, 1);
}

// Files' thread.
static void lookup_done(void *owner, struct fl_mail *mail)
{
    struct lookup *lookup = caa_container_of(mail, struct lookup, mail);
    struct fl_files_node *node = NULL;
    int error = lookup->error;
    if (!error && !lookup->call.answered)
        error = fl_files_node_get(owner, lookup->name, &lookup->look, &node);
    if (node)
        answer_entry(lookup, node);
    else
        fl_files_call_answer(&lookup->call, error, NULL, 0);
    fl_files_call_end(&lookup->call);
    free(lookup);
}

int fl_files_error_of(int error)
{
    return error == -ENOENT || error == -EINVAL                       ? -ENOENT
           : error == -EMFILE || error == -ENFILE || error == -ENOMEM ? error
                                                                      : -EIO;
}

static uint64_t look(struct fl_io_job *job)
{
    struct lookup *lookup = caa_container_of(job, struct lookup, job);
    struct fl_files *files = lookup->call.files;
    int error = fl_images_look(files->options.images, lookup->name, &lookup->look);
    lookup->error = error ? fl_files_error_of(error) : 0;
    lookup->mail.deliver = lookup_done;
    lookup->mail.drop = drop_lookup;
    fl_mailbox_post(&files->mailbox, &lookup->mail);
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
    lookup->job.run = look;
    fl_files_call_begin(files, &lookup->call, in);
    fl_io_pool_submit_later(files->options.io_pool, &lookup->job);
}
