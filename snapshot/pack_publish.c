// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "snapshot/pack_job.h"
#include "snapshot/pack_name.h"
#include "snapshot/trace_store.h"

int fl_pack_exists(struct fl_pack_job *job)
{
    return fl_fail_plain(job->error, -EEXIST,
                         "the store %s has an image '%s' already (--replace replaces it)",
                         job->store->dir, job->options->name);
}

void fl_pack_close_views(struct fl_pack_job *job)
{
    struct fl_pack_run *run = &job->run;
    for (unsigned i = 0; i < run->views_count; i++)
        fl_index_view_close(run->views[i]);
    for (unsigned i = 0; run->workers && i < run->threads; i++)
        run->workers[i].view = NULL;
    free(run->views);
    run->views = NULL;
    run->views_count = 0;
}

static void fill_header(struct fl_pack_job *job, struct fl_disk_image_header *header)
{
    struct fl_dedup_counts counts = job->run.counts;
    *header = (struct fl_disk_image_header){
        .bytes = job->run.input_bytes,
        .pages = job->run.input_pages,
        .created = (uint64_t)time(NULL),
        .zero_pages = counts.zero,
        .stored_pages = counts.stored,
        .duplicate_pages = counts.duplicate,
        .shared_pages = counts.shared,
        .declined_pages = counts.declined,
    };
    strncpy(header->name, job->options->name, sizeof(header->name) - 1);
}

// The image is written before the pack is flushed, so that the disk gets both at once.
static int finish_image(struct fl_pack_job *job, struct fl_disk_image_header *header)
{
    struct fl_image_tail tail = {.about = NULL};
    fill_header(job, header);
    const uint64_t *packs = fl_dedup_packs(job->run.dedup, &header->packs);
    int r = fl_hash_finish(job->run.content, &header->content_id);
    if (r == 0)
        r = fl_with_tail(&job->run.with, job->options->live, &tail);
    if (r == 0)
        r = fl_image_writer_finish(job->run.image, header, packs, &tail, &job->result.image_bytes);
    fl_image_tail_free(&tail);
    return r;
}

static int place_image(struct fl_pack_job *job, const struct fl_disk_image_header *header)
{
    int r = fl_store_lock_names(job->store);
    if (r < 0)
        return r;
    r = fl_image_writer_place(job->run.image, header, job->store->reader->images_fd,
                              job->options->replace);
    fl_store_unlock_names(job->store);
    memcpy(job->result.content_id, header->content_id.bytes, sizeof(job->result.content_id));
    return r;
}

// No image can refer to the pack yet: its pages are not in the index.
static void withdraw_pack(struct fl_pack_job *job)
{
    char name[FL_PACK_NAME_BYTES];
    if (job->result.pack_id == 0)
        return;
    fl_pack_name(job->result.pack_id, name);
    unlinkat(job->store->packs_fd, name, 0);
}

int fl_pack_publish(struct fl_pack_job *job)
{
    double start = fl_seconds_wall();
    struct fl_disk_image_header header;
    int r = finish_image(job, &header);
    if (r == 0 && fl_pack_writer_frames(job->run.pack) > 0) {
        r = fl_pack_writer_publish(job->run.pack, job->store->packs_fd, &job->result.stored_bytes);
        if (r == 0)
            job->result.pack_id = fl_pack_writer_id(job->run.pack);
    }
    if (r == 0 && job->run.offer && fl_pack_writer_frames(job->run.pack) == 0) {
        fl_offer_take_pack(job->run.offer);
        fl_pack_writer_leave(job->run.pack);
    }
    bool placing = r == 0;
    if (placing)
        r = place_image(job, &header);
    if (r < 0)
        withdraw_pack(job);
    job->run.write_seconds += fl_seconds_wall() - start;
    if (r == -EEXIST && placing)
        return fl_pack_exists(job);
    return r < 0 ? fl_fail(job->error, r, "cannot write to the store %s", job->store->dir) : 0;
}

void fl_pack_inherit_trace(struct fl_pack_job *job)
{
    const struct fl_pack_live *live = job->options->live;
    struct fl_disk_image_header child = {.pages = job->run.input_pages};
    if (!live || !live->parent)
        return;
    strncpy(child.name, job->options->name, sizeof(child.name) - 1);
    memcpy(child.content_id.bytes, job->result.content_id, sizeof(child.content_id.bytes));
    job->result.trace_error = fl_trace_inherit(job->store, live->parent, live->parent_content_id,
                                               &child, &job->result.trace_pages);
}

static int add_to_index(struct fl_pack_job *job)
{
    struct fl_pack *pack;
    if (!job->index)
        return job->result.index_error;
    if (job->run.index_broken)
        return -EBADMSG;
    if (job->result.pack_id == 0)
        return 0;
    int r = fl_pack_open(job->store->reader->registry, job->result.pack_id, &pack);
    if (r < 0)
        return r;
    r = fl_index_add_pack(job->index, pack, FL_INDEX_NEWER);
    fl_pack_unref(pack);
    return r;
}

// The image is published: from here on no error is a failure of packing. An index that turned out
// to be damaged is built again, with this pack.
void fl_pack_update_index(struct fl_pack_job *job)
{
    double start = fl_seconds_wall();
    fl_pack_close_views(job);
    int r = add_to_index(job);
    job->result.index_damaged |= job->run.index_broken;
    if (r == -EBADMSG) {
        fl_index_close(job->index);
        job->index = NULL;
        r = fl_index_rebuild(job->store, &job->index);
        job->result.index_rebuilt |= r == 0;
    }
    fl_index_close(job->index); // healing opens it again
    job->index = NULL;
    job->result.index_error = r;
    job->result.index_not_updated = r < 0 && job->result.pack_id != 0;
    job->result.index_seconds = fl_seconds_wall() - start;
}
