// SPDX-License-Identifier: Apache-2.0
//
// READDIR: the images of the store. It is listed anew for each part, so that no state is lost with
// an engine: an entry's offset is its place in the order of names.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <urcu/compiler.h>

#include "engine/files/files_internal.h"
#include "engine/image/store_place.h"
#include "snapshot/read.h"

enum { ANSWER_MOST = 64 << 10, UNKNOWN_INODE = -1 };

struct list {
    struct fl_files_call call;
    struct fl_io_job job;
    struct fl_mail mail;
    uint64_t from;
    size_t room;
    int error;
    char **name;
    size_t names;
    size_t bytes; // of the answer
    char answer[ANSWER_MOST];
};

// Its mail comes back, or is dropped at the end, when there is no list of calls any more.
static void leave_list(struct fl_files_call *call)
{
    cds_list_del_init(&call->link);
}

static void free_list(struct list *list)
{
    for (size_t i = 0; i < list->names; i++)
        free(list->name[i]);
    free(list->name);
    free(list);
}

static void drop_list(struct fl_mail *mail)
{
    free_list(caa_container_of(mail, struct list, mail));
}

static int take_name(void *arg, const char *name)
{
    struct list *list = arg;
    char **more = realloc(list->name, (list->names + 1) * sizeof(*more));
    if (!more)
        return -ENOMEM;
    list->name = more;
    return asprintf(&more[list->names], "%s.mem", name) < 0 ? -ENOMEM : (list->names++, 0);
}

static int compare_names(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

// False if there is no room for it.
static bool put_entry(struct list *list, const char *name, uint32_t type, uint64_t next)
{
    size_t length = strlen(name);
    size_t bytes = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + length);
    struct fuse_dirent *entry = (void *)(list->answer + list->bytes);
    if (list->bytes + bytes > list->room)
        return false;
    *entry = (struct fuse_dirent){
        .ino = (uint32_t)UNKNOWN_INODE, .off = next, .namelen = (uint32_t)length, .type = type};
    memcpy(entry->name, name, length);
    list->bytes += bytes;
    return true;
}

static void fill_answer(struct list *list)
{
    enum { DIRECTORY = 4, REGULAR = 8, DOTS = 2 }; // DT_DIR, DT_REG
    static const char *const dots[DOTS] = {".", ".."};
    bool room = true;
    for (uint64_t i = list->from; room && i < DOTS + list->names; i++)
        room = i < DOTS ? put_entry(list, dots[i], DIRECTORY, i + 1)
                        : put_entry(list, list->name[i - DOTS], REGULAR, i + 1);
}

// Files' thread.
static void listed(void *owner, struct fl_mail *mail)
{
    (void)owner;
    struct list *list = caa_container_of(mail, struct list, mail);
    fl_files_call_answer(&list->call, list->error, list->answer, list->bytes);
    fl_files_call_end(&list->call);
    free_list(list);
}

// A store that is away has no images.
static uint64_t list_images(struct fl_io_job *job)
{
    struct list *list = caa_container_of(job, struct list, job);
    struct fl_files *files = list->call.files;
    struct fl_reader *reader = NULL;
    int error = fl_store_place_get(files->options.place, &reader);
    if (!error)
        error = fl_reader_list_offered(reader, take_name, list);
    if (!error)
        error = fl_reader_list(reader, take_name, list);
    fl_reader_close(reader);
    list->error = error == FL_NO_STORE_NOW || !error ? 0 : -EIO;
    if (list->names > 0)
        qsort(list->name, list->names, sizeof(*list->name), compare_names);
    fill_answer(list);
    list->mail.deliver = listed;
    list->mail.drop = drop_list;
    fl_mailbox_post(&files->mailbox, &list->mail);
    return 0;
}

void fl_files_list(struct fl_files *files, const struct fuse_in_header *in,
                   const struct fuse_read_in *arg)
{
    struct list *list = in->nodeid == FL_FILES_ROOT ? calloc(1, sizeof(*list)) : NULL;
    if (!list) {
        fl_files_answer(files, in->unique, in->nodeid == FL_FILES_ROOT ? -ENOMEM : -ENOTDIR, NULL,
                        0);
        return;
    }
    list->call.leave = leave_list;
    list->from = arg->offset;
    list->room = arg->size < ANSWER_MOST ? arg->size : ANSWER_MOST;
    list->job.run = list_images;
    fl_files_call_begin(files, &list->call, in);
    fl_io_pool_submit(files->options.io_pool, &list->job);
}
