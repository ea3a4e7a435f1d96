// SPDX-License-Identifier: Apache-2.0
#include "snapshot/index.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/io.h"

// Address space, not disk: the file grows as it is filled. Some 100 bytes a page, so this is enough
// for about 2.5 TiB of different pages before the map has to be grown.
#define MAP_BYTES ((size_t)64 << 30)
#define MAX_VIEWS 1024u
// Records that are sorted at a time, so that LMDB's tree is walked in order and memory stays
// bounded.
#define BATCH (UINT32_C(1) << 18)

struct fl_index {
    MDB_env *env;
    MDB_dbi pages; // identity -> struct fl_disk_place
    MDB_dbi packs; // pack id -> pages: the packs that are in the index
};

struct fl_index_view {
    struct fl_index *index;
    MDB_txn *txn;
};

struct record {
    struct fl_identity identity;
    struct fl_disk_place place;
};

// LMDB's own errors below zero are all about the file's content; the others are errno.
static int error_of(int mdb)
{
    if (mdb == MDB_NOTFOUND)
        return -ENOENT;
    if (mdb == MDB_MAP_FULL)
        return -ENOSPC;
    if (mdb == MDB_READERS_FULL)
        return -EAGAIN;
    return mdb < 0 ? -EBADMSG : -mdb;
}

// LMDB maps the file and trusts it: a truncated one would be a SIGBUS. So compare first.
static int check_length(MDB_env *env, const char *dir)
{
    MDB_envinfo info;
    MDB_stat stat_info;
    struct stat st;
    char path[4096];
    if (snprintf(path, sizeof(path), "%s/data.mdb", dir) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    if (stat(path, &st) < 0)
        return -errno;
    mdb_env_info(env, &info);
    mdb_env_stat(env, &stat_info);
    // A new environment has two meta pages and may not have written more.
    return (uint64_t)st.st_size >= (uint64_t)(info.me_last_pgno + 1) * stat_info.ms_psize
               ? 0
               : -EBADMSG;
}

static int begin(struct fl_index *index, unsigned flags, MDB_txn **ret_txn)
{
    int m = mdb_txn_begin(index->env, NULL, flags, ret_txn);
    if (m == MDB_MAP_RESIZED) { // another process has grown it
        mdb_env_set_mapsize(index->env, 0);
        m = mdb_txn_begin(index->env, NULL, flags, ret_txn);
    }
    return error_of(m);
}

static int open_tables(struct fl_index *index)
{
    MDB_txn *txn;
    int r = begin(index, 0, &txn);
    if (r < 0)
        return r;
    int m = mdb_dbi_open(txn, "pages", MDB_CREATE, &index->pages);
    if (m == 0)
        m = mdb_dbi_open(txn, "packs", MDB_CREATE, &index->packs);
    if (m != 0) {
        mdb_txn_abort(txn);
        return error_of(m);
    }
    return error_of(mdb_txn_commit(txn));
}

int fl_index_open(const char *dir, struct fl_index **ret_index)
{
    struct fl_index *index = calloc(1, sizeof(*index));
    if (!index)
        return -ENOMEM;
    int m = mdb_env_create(&index->env);
    if (m == 0)
        m = mdb_env_set_maxdbs(index->env, 2);
    if (m == 0)
        m = mdb_env_set_maxreaders(index->env, MAX_VIEWS);
    if (m == 0)
        m = mdb_env_set_mapsize(index->env, MAP_BYTES);
    if (m == 0)
        m = mdb_env_open(index->env, dir, MDB_NOTLS | MDB_NORDAHEAD, 0640);
    int r = error_of(m);
    if (r == 0)
        r = check_length(index->env, dir);
    if (r == 0) {
        int dead; // views of processes that were killed would keep old pages for ever
        mdb_reader_check(index->env, &dead);
        r = open_tables(index);
    }
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
    if (index->env)
        mdb_env_close(index->env);
    free(index);
}

int fl_index_view_open(struct fl_index *index, struct fl_index_view **ret_view)
{
    struct fl_index_view *view = malloc(sizeof(*view));
    if (!view)
        return -ENOMEM;
    view->index = index;
    int r = begin(index, MDB_RDONLY, &view->txn);
    if (r < 0) {
        free(view);
        return r;
    }
    *ret_view = view;
    return 0;
}

void fl_index_view_close(struct fl_index_view *view)
{
    if (!view)
        return;
    mdb_txn_abort(view->txn);
    free(view);
}

static int get_place(MDB_txn *txn, MDB_dbi pages, const struct fl_identity *identity,
                     struct fl_disk_place *ret_place)
{
    struct fl_identity bytes = *identity; // LMDB's values are not const
    MDB_val key = {sizeof(bytes), &bytes};
    MDB_val value;
    int m = mdb_get(txn, pages, &key, &value);
    if (m != 0)
        return error_of(m);
    if (value.mv_size != sizeof(*ret_place))
        return -EBADMSG;
    memcpy(ret_place, value.mv_data, sizeof(*ret_place));
    return 0;
}

int fl_index_get(struct fl_index_view *view, const struct fl_identity *identity,
                 struct fl_disk_place *ret_place)
{
    return get_place(view->txn, view->index->pages, identity, ret_place);
}

bool fl_index_has_pack(struct fl_index_view *view, uint64_t pack_id)
{
    MDB_val key = {sizeof(pack_id), &pack_id};
    MDB_val value;
    return mdb_get(view->txn, view->index->packs, &key, &value) == 0;
}

static int compare_records(const void *a, const void *b)
{
    const struct record *left = a;
    const struct record *right = b;
    return memcmp(&left->identity, &right->identity, sizeof(left->identity));
}

// Whole frames from *frame on, as many as fit.
static int read_batch(const struct fl_pack *pack, uint32_t *frame, struct record *records,
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
            records[count++] = (struct record){
                .identity = identities[slot],
                .place = {.pack_id = fl_pack_id(pack), .frame = *frame, .slot = (uint16_t)slot},
            };
    }
    qsort(records, count, sizeof(*records), compare_records);
    *ret_count = count;
    return 0;
}

typedef int (*record_fn)(struct fl_index *index, MDB_txn *txn, const struct record *record);

static int put_record(struct fl_index *index, MDB_txn *txn, const struct record *record)
{
    struct record copy = *record; // LMDB's values are not const
    MDB_val key = {sizeof(copy.identity), &copy.identity};
    MDB_val value = {sizeof(copy.place), &copy.place};
    return error_of(mdb_put(txn, index->pages, &key, &value, 0));
}

static bool place_known(struct fl_index *index, MDB_txn *txn, const struct fl_identity *identity)
{
    struct fl_disk_place place;
    MDB_val key = {sizeof(place.pack_id), &place.pack_id};
    MDB_val value;
    return get_place(txn, index->pages, identity, &place) == 0 &&
           mdb_get(txn, index->packs, &key, &value) == 0;
}

static int put_new_record(struct fl_index *index, MDB_txn *txn, const struct record *record)
{
    return place_known(index, txn, &record->identity) ? 0 : put_record(index, txn, record);
}

// Only if the entry is this pack's: another pack may have the page as well.
static int delete_record(struct fl_index *index, MDB_txn *txn, const struct record *record)
{
    struct fl_disk_place place = {.pack_id = 0};
    int r = get_place(txn, index->pages, &record->identity, &place);
    if (r == -ENOENT || (r == 0 && place.pack_id != record->place.pack_id))
        return 0;
    if (r < 0)
        return r;
    struct fl_identity identity = record->identity;
    MDB_val key = {sizeof(identity), &identity};
    r = error_of(mdb_del(txn, index->pages, &key, NULL));
    return r == -ENOENT ? 0 : r;
}

static int each_record(struct fl_index *index, MDB_txn *txn, const struct fl_pack *pack,
                       record_fn fn)
{
    uint64_t room = fl_pack_pages(pack) < BATCH ? fl_pack_pages(pack) : BATCH;
    FL_AUTO_FREE struct record *records = malloc(room * sizeof(*records));
    uint32_t frame = 0;
    int r = records ? 0 : -ENOMEM;
    while (r == 0 && frame < fl_pack_frames(pack)) {
        uint32_t count;
        r = read_batch(pack, &frame, records, &count);
        for (uint32_t i = 0; r == 0 && i < count; i++)
            r = fn(index, txn, &records[i]);
    }
    return r;
}

static int set_known(struct fl_index *index, MDB_txn *txn, const struct fl_pack *pack, bool known)
{
    uint64_t id = fl_pack_id(pack);
    uint64_t pages = fl_pack_pages(pack);
    MDB_val key = {sizeof(id), &id};
    MDB_val value = {sizeof(pages), &pages};
    if (known)
        return error_of(mdb_put(txn, index->packs, &key, &value, 0));
    int r = error_of(mdb_del(txn, index->packs, &key, NULL));
    return r == -ENOENT ? 0 : r;
}

static int change(struct fl_index *index, const struct fl_pack *pack, record_fn fn)
{
    MDB_txn *txn;
    int r = begin(index, 0, &txn);
    if (r < 0)
        return r;
    r = each_record(index, txn, pack, fn);
    if (r == 0)
        r = set_known(index, txn, pack, fn != delete_record);
    if (r < 0) {
        mdb_txn_abort(txn);
        return r;
    }
    return error_of(mdb_txn_commit(txn));
}

// -ENOSPC is both LMDB's full map and a full disk; growing the map helps against the first only, so
// an attempt that does not get further is the last.
static int change_growing(struct fl_index *index, const struct fl_pack *pack, record_fn fn)
{
    enum { DOUBLINGS = 10 };
    int r = change(index, pack, fn);
    for (int i = 0; r == -ENOSPC && i < DOUBLINGS; i++) {
        MDB_envinfo info;
        mdb_env_info(index->env, &info);
        if (mdb_env_set_mapsize(index->env, info.me_mapsize * 2) != 0)
            break;
        r = change(index, pack, fn);
    }
    return r;
}

int fl_index_add_pack(struct fl_index *index, const struct fl_pack *pack,
                      enum fl_index_prefer prefer)
{
    return change_growing(index, pack, prefer == FL_INDEX_NEWER ? put_record : put_new_record);
}

int fl_index_remove_pack(struct fl_index *index, const struct fl_pack *pack)
{
    return change_growing(index, pack, delete_record);
}
