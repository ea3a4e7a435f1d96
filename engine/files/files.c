// SPDX-License-Identifier: Apache-2.0
#include "engine/files/files.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/files/files_internal.h"
#include "engine/files/files_thread.h"
#include "engine/image/images.h"
#include "engine/link/keeper_link.h"
#include "snapshot/read.h"

static void connection_gone(void *control, struct fl_mail *mail)
{
    (void)control;
    struct fl_files *files = caa_container_of(mail, struct fl_files, gone);
    fl_keeper_link_drop(files->options.keeper_link, FL_RECORD_FILES, FL_FILES_RECORD);
    files->options.gone(files->options.arg);
}

int fl_files_new(const struct fl_files_options *options, struct fl_files **ret_files)
{
    struct fl_files *files = calloc(1, sizeof(*files));
    if (!files)
        return -ENOMEM;
    files->options = *options;
    if (options->uid == (uid_t)-1)
        files->options.uid = geteuid();
    if (options->gid == (gid_t)-1)
        files->options.gid = getegid();
    files->device = -1;
    files->state_fd = -1;
    files->mounts.fd = -1;
    files->gone.deliver = connection_gone;
    CDS_INIT_LIST_HEAD(&files->calls);
    CDS_INIT_LIST_HEAD(&files->warms);
    pthread_mutex_init(&files->names_lock, NULL);
    for (unsigned i = 0; i < FL_FILES_BUCKETS; i++) {
        CDS_INIT_LIST_HEAD(&files->node[i]);
        CDS_INIT_LIST_HEAD(&files->name[i]);
    }
    int error = fl_mailbox_init(&files->mailbox);
    if (error)
        free(files);
    else
        *ret_files = files;
    return error;
}

void fl_files_stop(struct fl_files *files)
{
    if (!files)
        return;
    fl_files_unwatch_mounts(files);
    fl_files_warm_leave(files);
    fl_files_thread_stop(files);
}

void fl_files_free(struct fl_files *files)
{
    if (!files)
        return;
    fl_mailbox_fini(&files->mailbox);
    fl_files_reads_free(files);
    fl_files_nodes_free(files);
    fl_files_names_put(files, files->names);
    pthread_mutex_destroy(&files->names_lock);
    fl_files_state_unmap(files->state);
    if (files->state_fd >= 0)
        close(files->state_fd);
    if (files->device >= 0)
        close(files->device);
    free(files->request);
    free(files->zeros);
    free(files);
}

// --- from a predecessor, and for a successor ---

// A state that cannot be read is begun anew: what the kernel knows as files is stale then, which it
// is told.
static int open_state(struct fl_files *files, int fds[])
{
    int error =
        fds[FL_FILES_STATE] < 0 ? -ENOENT : fl_files_state_open(fds[FL_FILES_STATE], &files->state);
    if (!error) {
        files->state_fd = fds[FL_FILES_STATE];
        fds[FL_FILES_STATE] = -1;
        return fl_files_nodes_adopt(files);
    }
    if (error != -ENOENT)
        fl_log(FL_LOG_ERROR,
               "event=files_failed reason=\"the state of the files cannot be read: %s\"",
               strerror(-error));
    files->state = NULL;
    error = fl_files_state_new(&files->state_fd, &files->state);
    return error;
}

void fl_files_adopt(struct fl_files *files, uint64_t connection, int fds[])
{
    if (!files || files->device >= 0 || fds[FL_FILES_DEVICE] < 0)
        return;
    int error = open_state(files, fds);
    if (error) {
        fl_log(FL_LOG_ERROR, "event=files_failed reason=\"%s\"", strerror(-error));
        return;
    }
    if (connection != 0)
        files->state->connection = (uint32_t)connection;
    files->device = fds[FL_FILES_DEVICE];
    fds[FL_FILES_DEVICE] = -1;
}

struct opened {
    struct fl_mail mail;
    uint64_t record;
    struct fl_files_held *held; // without an image: it cannot be had
};

static void opened_dropped(struct fl_mail *mail)
{
    struct opened *opened = caa_container_of(mail, struct opened, mail);
    fl_files_held_free(opened->held);
    free(opened);
}

// Files' thread. It may be of no file any more.
static void image_came(void *owner, struct fl_mail *mail)
{
    struct fl_files *files = owner;
    struct opened *opened = caa_container_of(mail, struct opened, mail);
    struct fl_files_node *node = fl_files_node_of_record(files, opened->record);
    if (node && !node->held && opened->held->image) {
        node->held = opened->held;
        opened->held = NULL;
        fl_files_reads_go_on(files, node);
    } else if (node && !node->held) {
        node->error = -EIO;
        fl_files_reads_go_on(files, node);
    }
    fl_files_held_put(opened->held);
    free(opened);
}

void fl_files_image_opened(struct fl_files *files, uint64_t record, struct fl_image *image)
{
    if (!files || files->device < 0)
        return; // whether it is the image of a file is for the thread to see
    struct opened *opened = calloc(1, sizeof(*opened));
    struct fl_files_held *held = fl_files_held_new(files);
    if (!opened || !held) { // its READs are answered with errors when their time is up
        free(opened);
        fl_files_held_free(held);
        return;
    }
    opened->record = record;
    opened->held = held;
    held->image = image ? fl_images_use(files->options.images, image) : NULL;
    opened->mail.deliver = image_came;
    opened->mail.drop = opened_dropped;
    fl_mailbox_post(&files->mailbox, &opened->mail);
}

void fl_files_serve(struct fl_files *files)
{
    if (files && files->device < 0 && files->options.path) // it has gone before this engine came
        files->options.gone(files->options.arg);
    if (!files || files->device < 0 || files->running)
        return;
    fl_files_keep(files);
    int error = fl_fuse_resend(files->device);
    if (error == -EINVAL && fl_files_open(files) > 0)
        fl_log(FL_LOG_WARNING,
               "event=files_not_resent reason=\"this kernel cannot send again what the engine "
               "before has read and not answered (Linux 6.9 can): threads that wait for that go on "
               "when the connection is aborted\"");
    fl_files_watch_mounts(files);
    error = fl_files_thread_start(files);
    if (error)
        fl_log(FL_LOG_ERROR, "event=files_failed reason=\"%s\"", strerror(-error));
    else
        fl_log(FL_LOG_INFO, "event=files_serving open=%llu",
               (unsigned long long)fl_files_open(files));
}

void fl_files_refuse(struct fl_files *files)
{
    if (!files)
        return;
    atomic_store(&files->refusing, true);
    fl_files_warm_end(files); // they have files open
}

void fl_files_keep(const struct fl_files *files)
{
    if (files && files->device >= 0 && !atomic_load(&files->ended))
        fl_keeper_link_put_files(files->options.keeper_link, files->device, files->state_fd,
                                 files->state->connection);
}

// --- how it is ---

bool fl_files_runs(const struct fl_files *files)
{
    return files && files->running;
}

bool fl_files_rests(struct fl_files *files)
{
    struct pollfd asked = {.fd = files->device, .events = POLLIN};
    bool nothing = atomic_load(&files->calls_now) == 0 &&
                   (atomic_load(&files->ended) || poll(&asked, 1, 0) == 0);
    return nothing && fl_mailbox_sleeps(&files->mailbox);
}

void fl_files_post(struct fl_files *files, struct fl_mail *mail)
{
    fl_mailbox_post(&files->mailbox, mail);
}

uint64_t fl_files_open(const struct fl_files *files)
{
    return files && files->state && !atomic_load(&files->ended)
               ? atomic_load(&files->state->open_now)
               : 0;
}

uint64_t fl_files_oldest_ns(const struct fl_files *files)
{
    uint64_t since = files ? atomic_load(&files->oldest_ns) : 0;
    uint64_t now = fl_now();
    return since && since < now ? now - since : 0;
}

struct fl_files_stats fl_files_stats(const struct fl_files *files)
{
    if (!files || !files->state)
        return (struct fl_files_stats){0};
    const struct fl_files_counts *counts = files->options.counts;
    struct fl_files_stats stats = {
        .there = files->device >= 0 && !atomic_load(&files->ended),
        .open = fl_files_open(files),
        .waiting = atomic_load(&files->calls_now),
        .oldest_ns = fl_files_oldest_ns(files),
        .reads = atomic_load(&counts->reads),
        .bytes = atomic_load(&counts->bytes),
        .waited = atomic_load(&counts->waited),
        .failed = atomic_load(&counts->failed),
        .held = atomic_load(&counts->held),
        .interrupted = atomic_load(&counts->interrupted),
        .resent = atomic_load(&counts->resent),
        .opens = atomic_load(&counts->opens),
    };
    return stats;
}
