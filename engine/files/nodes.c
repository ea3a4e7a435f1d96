// SPDX-License-Identifier: Apache-2.0
//
// Which versions of images the kernel knows as files, by node id.
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <urcu/compiler.h>

#include "engine/files/files_internal.h"
#include "engine/image/images.h"
#include "snapshot/read.h"

static struct cds_list_head *bucket_of(struct fl_files *files, uint64_t record)
{
    return &files->node[record % FL_FILES_BUCKETS];
}

struct fl_files_node *fl_files_node_find(struct fl_files *files, uint64_t id)
{
    struct fl_files_node *node;
    if (id < FL_FILES_FIRST)
        return NULL;
    uint64_t record = id - FL_FILES_FIRST;
    cds_list_for_each_entry(node, bucket_of(files, record), in_bucket)
    {
        if (node->entry->record == record)
            return node;
    }
    return NULL;
}

static struct fl_files_node *add_node(struct fl_files *files, struct fl_files_entry *entry)
{
    struct fl_files_node *node = calloc(1, sizeof(*node));
    if (!node)
        return NULL;
    node->files = files;
    node->entry = entry;
    cds_list_add(&node->in_bucket, bucket_of(files, entry->record));
    return node;
}

// Of the image's own file: a new version under the same name is newer.
static void set_times(struct fl_files_entry *entry, const struct fl_image *image)
{
    int fd = -1;
    struct stat status;
    if (fl_image_files(image, &fd, 1) == 0 || fstat(fd, &status) != 0)
        return;
    entry->mtime_s = status.st_mtim.tv_sec;
    entry->mtime_ns = (uint32_t)status.st_mtim.tv_nsec;
}

int fl_files_node_new(struct fl_files *files, uint64_t record, struct fl_image *image,
                      struct fl_files_node **ret_node)
{
    struct fl_files_entry *entry = fl_files_state_add(files->state, record);
    if (!entry)
        return -ENFILE;
    entry->bytes = fl_image_bytes(image);
    set_times(entry, image);
    struct fl_files_node *node = add_node(files, entry);
    if (!node) {
        entry->record = 0;
        return -ENOMEM;
    }
    node->image = image;
    *ret_node = node;
    return 0;
}

int fl_files_nodes_adopt(struct fl_files *files)
{
    for (unsigned i = 0; i < FL_FILES_MOST; i++) {
        if (files->state->entry[i].record != 0 && !add_node(files, &files->state->entry[i]))
            return -ENOMEM;
    }
    return 0;
}

// Control thread.
static void node_gone(void *control, struct fl_mail *mail)
{
    (void)control;
    struct fl_files_node *node = caa_container_of(mail, struct fl_files_node, mail);
    if (node->image)
        fl_images_put(node->files->options.images, node->image);
    free(node);
}

static void node_dropped(struct fl_mail *mail)
{
    struct fl_files_node *node = caa_container_of(mail, struct fl_files_node, mail);
    fl_image_unref(node->image);
    free(node);
}

void fl_files_node_forget(struct fl_files *files, uint64_t id, uint64_t lookups)
{
    struct fl_files_node *node = fl_files_node_find(files, id);
    if (!node)
        return;
    struct fl_files_entry *entry = node->entry;
    entry->lookups -= lookups < entry->lookups ? lookups : entry->lookups;
    if (entry->lookups > 0 || entry->opens > 0)
        return;
    entry->record = 0;
    cds_list_del(&node->in_bucket);
    node->mail.deliver = node_gone;
    node->mail.drop = node_dropped;
    fl_mailbox_post(files->options.control, &node->mail);
}

void fl_files_nodes_free(struct fl_files *files)
{
    struct fl_files_node *node;
    struct fl_files_node *next;
    for (unsigned i = 0; i < FL_FILES_BUCKETS; i++) {
        cds_list_for_each_entry_safe(node, next, &files->node[i], in_bucket)
        {
            cds_list_del(&node->in_bucket);
            fl_image_unref(node->image);
            free(node);
        }
    }
}
