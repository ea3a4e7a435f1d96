// SPDX-License-Identifier: Apache-2.0
//
// READDIR: the images of the store, in the order of their names: an entry's offset is its place in
// it, so that no state is lost with an engine.
//
// A listing is kept for the parts that follow the first, and for whoever asked before it was begun:
// many that list at a time cost one listing.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/files/files_internal.h"
#include "engine/image/store_place.h"
#include "snapshot/read.h"

enum { ANSWER_MOST = 64 << 10, UNKNOWN_INODE = -1 };
#define KEPT_FOR (5 * FL_NS_PER_S)

struct fl_files_names {
    unsigned users; // with the lock held
    uint64_t begun_ns;
    char **name;
    size_t names;
};

struct list {
    struct fl_files_call call;
    struct fl_io_job job;
    struct fl_mail mail;
    uint64_t asked_ns;
    uint64_t from;
    size_t room;
    int error;
    size_t bytes; // of the answer
    char *answer; // [room + 1], once it is there
};

// Its mail comes back, or is dropped at the end, when there is no list of calls any more.
static void leave_list(struct fl_files_call *call)
{
    cds_list_del_init(&call->link);
}

static void free_list(struct list *list)
{
    free(list->answer);
    free(list);
}

static void drop_list(struct fl_mail *mail)
{
    free_list(caa_container_of(mail, struct list, mail));
}

// --- names ---

static void free_names(struct fl_files_names *names)
{
    for (size_t i = 0; i < names->names; i++)
        free(names->name[i]);
    free(names->name);
    free(names);
}

void fl_files_names_put(struct fl_files *files, struct fl_files_names *names)
{
    if (!names)
        return;
    pthread_mutex_lock(&files->names_lock);
    bool last = --names->users == 0;
    pthread_mutex_unlock(&files->names_lock);
    if (last)
        free_names(names);
}

static int take_name(void *arg, const char *name)
{
    struct fl_files_names *names = arg;
    char **more = realloc(names->name, (names->names + 1) * sizeof(*more));
    if (!more)
        return -ENOMEM;
    names->name = more;
    return asprintf(&more[names->names], "%s.mem", name) < 0 ? -ENOMEM : (names->names++, 0);
}

static int compare_names(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

// A store that is away has no images.
static int read_names(struct fl_files *files, struct fl_files_names *names)
{
    struct fl_reader *reader = NULL;
    int error = fl_store_place_get(files->options.place, &reader);
    if (!error)
        error = fl_reader_list_offered(reader, take_name, names);
    if (!error)
        error = fl_reader_list(reader, take_name, names);
    fl_reader_close(reader);
    if (names->names > 0)
        qsort(names->name, names->names, sizeof(*names->name), compare_names);
    return error == FL_NO_STORE_NOW ? 0 : error;
}

// NULL: what was listed last is too old for this call.
static struct fl_files_names *names_kept(struct fl_files *files, const struct list *list)
{
    pthread_mutex_lock(&files->names_lock);
    struct fl_files_names *names = files->names;
    bool fits = names && (names->begun_ns >= list->asked_ns ||
                          (list->from > 0 && fl_now() < names->begun_ns + KEPT_FOR));
    if (fits)
        names->users++;
    pthread_mutex_unlock(&files->names_lock);
    return fits ? names : NULL;
}

static void keep_names(struct fl_files *files, struct fl_files_names *names)
{
    pthread_mutex_lock(&files->names_lock);
    struct fl_files_names *old = files->names;
    files->names = names;
    names->users++;
    pthread_mutex_unlock(&files->names_lock);
    fl_files_names_put(files, old);
}

static int get_names(struct fl_files *files, const struct list *list,
                     struct fl_files_names **ret_names)
{
    *ret_names = names_kept(files, list);
    if (*ret_names)
        return 0;
    struct fl_files_names *names = calloc(1, sizeof(*names));
    if (!names)
        return -ENOMEM;
    names->users = 1;
    names->begun_ns = fl_now();
    int error = read_names(files, names);
    if (error) {
        free_names(names);
        return error == -ENOMEM ? error : -EIO;
    }
    keep_names(files, names);
    *ret_names = names;
    return 0;
}

// --- answers ---

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

static void fill_answer(struct list *list, const struct fl_files_names *names)
{
    enum { DIRECTORY = 4, REGULAR = 8, DOTS = 2 }; // DT_DIR, DT_REG
    static const char *const dots[DOTS] = {".", ".."};
    bool room = true;
    for (uint64_t i = list->from; room && i < DOTS + names->names; i++)
        room = i < DOTS ? put_entry(list, dots[i], DIRECTORY, i + 1)
                        : put_entry(list, names->name[i - DOTS], REGULAR, i + 1);
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

static uint64_t list_images(struct fl_io_job *job)
{
    struct list *list = caa_container_of(job, struct list, job);
    struct fl_files *files = list->call.files;
    struct fl_files_names *names = NULL;
    list->answer = calloc(1, list->room + 1);
    list->error = list->answer ? get_names(files, list, &names) : -ENOMEM;
    if (!list->error)
        fill_answer(list, names);
    fl_files_names_put(files, names);
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
    list->asked_ns = fl_now(); // or before
    list->from = arg->offset;
    list->room = arg->size < ANSWER_MOST ? arg->size : ANSWER_MOST;
    list->job.run = list_images;
    fl_files_call_begin(files, &list->call, in);
    fl_io_pool_submit_later(files->options.io_pool, &list->job);
}
