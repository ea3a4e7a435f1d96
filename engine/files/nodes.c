// SPDX-License-Identifier: Apache-2.0
//
// Which versions of images the kernel knows as files, by node id and by name.
//
// A FORGET has no answer, so the kernel does not send again one that an engine had read when it was
// killed: `lookups` is then more than the kernel knows, and the node stays when all is forgotten.
// That costs an entry of the table, and no image and no descriptor, which come and go with `opens`.
// When the table is full the least used node that nobody has open goes for another.
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <urcu/compiler.h>

#include "engine/files/files_internal.h"
#include "snapshot/read.h"

// --- users of images ---

static void user_left(void *control, struct fl_mail *mail)
{
    (void)control;
    struct fl_files_held *held = caa_container_of(mail, struct fl_files_held, mail);
    fl_images_put(held->files->options.images, held->image);
    free(held);
}

static void user_dropped(struct fl_mail *mail)
{
    fl_files_held_free(caa_container_of(mail, struct fl_files_held, mail));
}

struct fl_files_held *fl_files_held_new(struct fl_files *files)
{
    struct fl_files_held *held = calloc(1, sizeof(*held));
    if (held) {
        held->files = files;
        held->mail.deliver = user_left;
        held->mail.drop = user_dropped;
    }
    return held;
}

void fl_files_held_put(struct fl_files_held *held)
{
    if (held && held->image)
        fl_mailbox_post(held->files->options.control, &held->mail);
    else
        free(held);
}

void fl_files_held_free(struct fl_files_held *held)
{
    if (held && held->image)
        fl_image_unref(held->image);
    free(held);
}

// --- finding ---

static struct cds_list_head *bucket_of(struct fl_files *files, uint64_t id)
{
    return &files->node[id % FL_FILES_BUCKETS];
}

static struct cds_list_head *bucket_of_name(struct fl_files *files, const char *name)
{
    uint32_t hash = 2166136261U; // FNV-1a
    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 16777619U;
    return &files->name[hash % FL_FILES_BUCKETS];
}

struct fl_files_node *fl_files_node_find(struct fl_files *files, uint64_t id)
{
    struct fl_files_node *node;
    cds_list_for_each_entry(node, bucket_of(files, id), in_bucket)
    {
        if (node->entry->id == id)
            return node;
    }
    return NULL;
}

struct fl_files_node *fl_files_node_of_record(struct fl_files *files, uint64_t record)
{
    struct fl_files_node *node;
    for (unsigned i = 0; i < FL_FILES_BUCKETS; i++) {
        cds_list_for_each_entry(node, &files->node[i], in_bucket)
        {
            if (node->entry->record == record)
                return node;
        }
    }
    return NULL;
}

struct fl_files_version fl_files_version_of(const struct stat *file)
{
    return (struct fl_files_version){.device = file->st_dev,
                                     .inode = file->st_ino,
                                     .changed_s = file->st_ctim.tv_sec,
                                     .changed_ns = (uint32_t)file->st_ctim.tv_nsec};
}

bool fl_files_same_version(const struct fl_files_version *a, const struct fl_files_version *b)
{
    return a->device == b->device && a->inode == b->inode && a->changed_s == b->changed_s &&
           a->changed_ns == b->changed_ns;
}

static struct fl_files_node *find_version(struct fl_files *files, const char *name,
                                          const struct fl_files_version *version)
{
    struct fl_files_node *node;
    cds_list_for_each_entry(node, bucket_of_name(files, name), in_name)
    {
        if (strcmp(node->entry->name, name) == 0 &&
            fl_files_same_version(&node->entry->version, version))
            return node;
    }
    return NULL;
}

// --- making and forgetting ---

static void remove_node(struct fl_files_node *node)
{
    node->entry->id = 0;
    cds_list_del(&node->in_bucket);
    cds_list_del(&node->in_name);
    fl_files_held_put(node->held);
    free(node);
}

// Of those that nobody has open.
static struct fl_files_node *least_used(struct fl_files *files)
{
    struct fl_files_node *node;
    struct fl_files_node *least = NULL;
    for (unsigned i = 0; i < FL_FILES_BUCKETS; i++) {
        cds_list_for_each_entry(node, &files->node[i], in_bucket)
        {
            if (node->entry->opens == 0 && node->opening == 0 &&
                (!least || node->entry->used < least->entry->used))
                least = node;
        }
    }
    return least;
}

static struct fl_files_entry *make_room(struct fl_files *files)
{
    struct fl_files_entry *entry = fl_files_state_room(files->state);
    struct fl_files_node *least = entry ? NULL : least_used(files);
    if (!least)
        return entry;
    entry = least->entry;
    remove_node(least);
    return entry;
}

static struct fl_files_node *add_node(struct fl_files *files, struct fl_files_entry *entry)
{
    struct fl_files_node *node = calloc(1, sizeof(*node));
    if (!node)
        return NULL;
    node->entry = entry;
    cds_list_add(&node->in_bucket, bucket_of(files, entry->id));
    cds_list_add(&node->in_name, bucket_of_name(files, entry->name));
    return node;
}

// A successor sees all of it or, without an id, nothing.
static void fill_entry(struct fl_files_state *state, struct fl_files_entry *entry, const char *name,
                       const struct fl_image_look *look)
{
    *entry = (struct fl_files_entry){.bytes = look->bytes,
                                     .mtime_s = look->file.st_mtim.tv_sec,
                                     .mtime_ns = (uint32_t)look->file.st_mtim.tv_nsec,
                                     .version = fl_files_version_of(&look->file)};
    snprintf(entry->name, sizeof(entry->name), "%s", name);
    state->last_id++;
    atomic_signal_fence(memory_order_seq_cst);
    entry->id = state->last_id;
}

int fl_files_node_get(struct fl_files *files, const char *name, const struct fl_image_look *look,
                      struct fl_files_node **ret_node)
{
    struct fl_files_version version = fl_files_version_of(&look->file);
    *ret_node = find_version(files, name, &version);
    if (*ret_node)
        return 0;
    struct fl_files_entry *entry = make_room(files);
    if (!entry)
        return -ENFILE;
    fill_entry(files->state, entry, name, look);
    *ret_node = add_node(files, entry);
    if (*ret_node)
        return 0;
    entry->id = 0;
    return -ENOMEM;
}

// An engine that died may have held an image for an open that it did not come to count.
int fl_files_nodes_adopt(struct fl_files *files)
{
    for (unsigned i = 0; i < FL_FILES_MOST; i++) {
        struct fl_files_entry *entry = &files->state->entry[i];
        if (entry->id != 0 && !add_node(files, entry))
            return -ENOMEM;
        if (entry->opens == 0)
            entry->record = 0;
    }
    return 0;
}

void fl_files_node_let_go(struct fl_files_node *node)
{
    if (node->entry->opens > 0)
        return;
    node->entry->record = 0;
    node->error = 0;
    fl_files_held_put(node->held);
    node->held = NULL;
}

void fl_files_node_forget(struct fl_files *files, uint64_t id, uint64_t lookups)
{
    struct fl_files_node *node = fl_files_node_find(files, id);
    if (!node)
        return;
    struct fl_files_entry *entry = node->entry;
    entry->lookups -= lookups < entry->lookups ? lookups : entry->lookups;
    if (entry->lookups == 0 && entry->opens == 0 && node->opening == 0)
        remove_node(node);
}

void fl_files_nodes_free(struct fl_files *files)
{
    struct fl_files_node *node;
    struct fl_files_node *next;
    for (unsigned i = 0; i < FL_FILES_BUCKETS; i++) {
        cds_list_for_each_entry_safe(node, next, &files->node[i], in_bucket)
        {
            fl_files_held_free(node->held);
            free(node);
        }
    }
}
