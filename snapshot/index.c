// SPDX-License-Identifier: Apache-2.0
#include "snapshot/index.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/index_link.h"
#include "snapshot/io.h"

// Records that are sorted at a time, so that LMDB's tree is walked in order and memory stays
// bounded.
#define BATCH (UINT32_C(1) << 18)

struct fl_index {
    char *dir;
    int lock_fd; // of the directory, shared: fl_index_clear takes it exclusively and does not wait
    struct fl_index_link link;
};

struct fl_index_view {
    pthread_mutex_t lock; // covers the link, from a request to its answer
    struct fl_index_link link;
};

// Makes the directory if it is missing: an index may be removed at any time.
static int lock_dir(const char *dir, int *ret_fd)
{
    if (mkdir(dir, 0750) < 0 && errno != EEXIST && errno != EROFS)
        return -errno;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    while (flock(fd, LOCK_SH) < 0) {
        if (errno == EINTR)
            continue;
        int error = errno;
        close(fd);
        return -error;
    }
    *ret_fd = fd;
    return 0;
}

int fl_index_open(const char *dir, struct fl_index **ret_index)
{
    struct fl_index *index = calloc(1, sizeof(*index));
    if (!index)
        return -ENOMEM;
    index->lock_fd = index->link.fd = -1;
    index->dir = strdup(dir);
    int r = index->dir ? lock_dir(dir, &index->lock_fd) : -ENOMEM;
    if (r == 0)
        r = fl_index_link_start(dir, &index->link);
    if (r < 0) {
        fl_index_close(index);
        return r;
    }
    *ret_index = index;
    return 0;
}

void fl_index_close(struct fl_index *index)
{
    if (!index)
        return;
    fl_index_link_end(&index->link);
    fl_cleanup_close(&index->lock_fd);
    free(index->dir);
    free(index);
}

static int call(struct fl_index_link *link, const struct fl_index_request *request)
{
    int number = 0;
    int r = fl_index_link_send(link, request, NULL, 0);
    if (r == 0)
        r = fl_index_link_receive(link, &number, NULL, 0);
    return r < 0 ? r : number;
}

int fl_index_view_open(struct fl_index *index, struct fl_index_view **ret_view)
{
    struct fl_index_view *view = malloc(sizeof(*view));
    if (!view)
        return -ENOMEM;
    view->link.fd = -1;
    pthread_mutex_init(&view->lock, NULL);
    int r = fl_index_link_start(index->dir, &view->link);
    if (r == 0)
        r = call(&view->link, &(struct fl_index_request){.op = FL_INDEX_VIEW});
    if (r < 0) {
        fl_index_view_close(view);
        return r;
    }
    *ret_view = view;
    return 0;
}

void fl_index_view_close(struct fl_index_view *view)
{
    if (!view)
        return;
    fl_index_link_end(&view->link);
    pthread_mutex_destroy(&view->lock);
    free(view);
}

int fl_index_get(struct fl_index_view *view, const struct fl_identity *identities, uint32_t count,
                 struct fl_disk_place *ret_places)
{
    int number = 0;
    struct fl_index_request request = {.op = FL_INDEX_GET, .count = count};
    if (count == 0 || count > FL_INDEX_GET_MAX)
        return count == 0 ? 0 : -EINVAL;
    pthread_mutex_lock(&view->lock);
    int r = fl_index_link_send(&view->link, &request, identities, count * sizeof(*identities));
    if (r == 0)
        r = fl_index_link_receive(&view->link, &number, ret_places, count * sizeof(*ret_places));
    pthread_mutex_unlock(&view->lock);
    return r < 0 ? r : number;
}

int fl_index_has_pack(struct fl_index *index, uint64_t pack_id)
{
    return call(&index->link, &(struct fl_index_request){.op = FL_INDEX_HAS, .pack_id = pack_id});
}

static int compare_records(const void *a, const void *b)
{
    const struct fl_record *left = a;
    const struct fl_record *right = b;
    return memcmp(&left->identity, &right->identity, sizeof(left->identity));
}

// Takes as many whole frames as fit, from *frame on.
static int read_batch(const struct fl_pack *pack, uint32_t *frame, struct fl_record *records,
                      uint32_t *ret_count)
{
    struct fl_identity identities[FL_FRAME_PAGES_MAX];
    uint32_t count = 0;
    for (; *frame < fl_pack_frames(pack); ++*frame) {
        uint32_t pages = fl_pack_frame_pages(pack, *frame);
        if (pages == 0) {
            int r = fl_pack_know_frame(pack, *frame);
            return r < 0 ? r : -EBADMSG;
        }
        if (count + pages > BATCH)
            break;
        int r = fl_pack_read_identities(pack, *frame, 0, pages, identities);
        if (r < 0)
            return r;
        for (uint32_t slot = 0; slot < pages; slot++)
            records[count++] = (struct fl_record){
                .identity = identities[slot],
                .place = {.pack_id = fl_pack_id(pack), .frame = *frame, .slot = (uint16_t)slot},
            };
    }
    qsort(records, count, sizeof(*records), compare_records);
    *ret_count = count;
    return 0;
}

static int send_records(struct fl_index *index, enum fl_record_change change,
                        const struct fl_record *records, uint32_t count)
{
    int r = 0;
    while (r == 0 && count > 0) {
        uint32_t step = count < FL_INDEX_RECORDS_MAX ? count : FL_INDEX_RECORDS_MAX;
        struct fl_index_request request = {
            .op = FL_INDEX_RECORDS, .count = step, .change = (uint32_t)change};
        r = fl_index_link_send(&index->link, &request, records, step * sizeof(*records));
        records += step;
        count -= step;
    }
    return r;
}

static int send_pack(struct fl_index *index, const struct fl_pack *pack,
                     enum fl_record_change change)
{
    uint64_t room = fl_pack_pages(pack) < BATCH ? fl_pack_pages(pack) : BATCH;
    FL_AUTO_FREE struct fl_record *records = malloc(room * sizeof(*records));
    uint32_t frame = 0;
    int r = records ? 0 : -ENOMEM;
    while (r == 0 && frame < fl_pack_frames(pack)) {
        uint32_t count = 0;
        r = read_batch(pack, &frame, records, &count);
        if (r == 0)
            r = send_records(index, change, records, count);
    }
    return r;
}

static int change_once(struct fl_index *index, const struct fl_pack *pack,
                       enum fl_record_change change, bool grow)
{
    struct fl_index_request begin = {.op = FL_INDEX_BEGIN, .grow = grow};
    struct fl_index_request commit = {.op = FL_INDEX_COMMIT,
                                      .pack_id = fl_pack_id(pack),
                                      .pages = fl_pack_pages(pack),
                                      .known = change != FL_RECORD_DELETE};
    int r = fl_index_link_send(&index->link, &begin, NULL, 0);
    if (r == 0)
        r = send_pack(index, pack, change);
    // A change that was not sent in full is not committed: the next BEGIN takes it back.
    return r < 0 ? r : call(&index->link, &commit);
}

static int change_growing(struct fl_index *index, const struct fl_pack *pack,
                          enum fl_record_change change)
{
    enum { DOUBLINGS = 10 };
    if (fl_pack_know_all(pack) < 0)
        return -EUCLEAN;
    int r = change_once(index, pack, change, false);
    for (int i = 0; r == FL_LMDB_FULL && i < DOUBLINGS; i++)
        r = change_once(index, pack, change, true);
    return r == FL_LMDB_FULL ? -ENOSPC : r;
}

int fl_index_add_pack(struct fl_index *index, const struct fl_pack *pack,
                      enum fl_index_prefer prefer)
{
    return change_growing(index, pack,
                          prefer == FL_INDEX_NEWER ? FL_RECORD_PUT : FL_RECORD_PUT_NEW);
}

int fl_index_remove_pack(struct fl_index *index, const struct fl_pack *pack)
{
    return change_growing(index, pack, FL_RECORD_DELETE);
}
