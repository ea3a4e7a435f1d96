// SPDX-License-Identifier: Apache-2.0
#include "snapshot/index_lmdb.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

// This is address space, not disk: the file grows as it is filled. A page takes some 100 bytes, so
// this is enough for about 2.5 TiB of different pages before the map has to be grown.
#define MAP_BYTES ((size_t)64 << 30)
#define MAX_VIEWS 1024u

struct fl_lmdb {
    MDB_env *env;
    MDB_dbi pages; // identity -> struct fl_disk_place
    MDB_dbi packs; // pack id -> pages: the packs that are in the index
    MDB_txn *view;
    MDB_txn *txn; // the transaction that changes the index
};

// The same mapping as LMDB makes for an index of the usual size.
static bool has_room_for_map(void)
{
    void *map =
        mmap(NULL, MAP_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return false;
    munmap(map, MAP_BYTES);
    return true;
}

// LMDB's own errors below zero are all about the file's content; the others are errno. Sizes and
// places that come out of a damaged file are errors of that kind as well.
static int error_of(int mdb)
{
    if (mdb == EINVAL || mdb == EFBIG || mdb == EOVERFLOW || mdb == ENXIO)
        return -EBADMSG;
    if (mdb == ENOMEM)
        return has_room_for_map() ? -EBADMSG : -ENOMEM;
    if (mdb == MDB_NOTFOUND)
        return -ENOENT;
    if (mdb == MDB_MAP_FULL)
        return FL_LMDB_FULL;
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

static int begin_txn(struct fl_lmdb *lmdb, unsigned flags, MDB_txn **ret_txn)
{
    int m = mdb_txn_begin(lmdb->env, NULL, flags, ret_txn);
    if (m == MDB_MAP_RESIZED) { // another process has grown it
        mdb_env_set_mapsize(lmdb->env, 0);
        m = mdb_txn_begin(lmdb->env, NULL, flags, ret_txn);
    }
    return error_of(m);
}

static int open_tables(struct fl_lmdb *lmdb)
{
    MDB_txn *txn;
    int r = begin_txn(lmdb, 0, &txn);
    if (r < 0)
        return r;
    int m = mdb_dbi_open(txn, "pages", MDB_CREATE, &lmdb->pages);
    if (m == 0)
        m = mdb_dbi_open(txn, "packs", MDB_CREATE, &lmdb->packs);
    if (m != 0) {
        mdb_txn_abort(txn);
        return error_of(m);
    }
    return error_of(mdb_txn_commit(txn));
}

static void assertion_failed(MDB_env *env, const char *message)
{
    (void)env;
    (void)message;
    _exit(1); // as good as a signal: the parent knows what it means
}

static int open_env(struct fl_lmdb *lmdb, const char *dir)
{
    int m = mdb_env_create(&lmdb->env);
    if (m == 0)
        m = mdb_env_set_assert(lmdb->env, assertion_failed);
    if (m == 0)
        m = mdb_env_set_maxdbs(lmdb->env, 2);
    if (m == 0)
        m = mdb_env_set_maxreaders(lmdb->env, MAX_VIEWS);
    if (m == 0)
        m = mdb_env_set_mapsize(lmdb->env, MAP_BYTES);
    if (m == 0)
        m = mdb_env_open(lmdb->env, dir, MDB_NOTLS | MDB_NORDAHEAD, 0640);
    return error_of(m);
}

int fl_lmdb_open(const char *dir, struct fl_lmdb **ret_lmdb)
{
    struct fl_lmdb *lmdb = calloc(1, sizeof(*lmdb));
    if (!lmdb)
        return -ENOMEM;
    int r = open_env(lmdb, dir);
    if (r == 0)
        r = check_length(lmdb->env, dir);
    if (r == 0) {
        int dead; // views of processes that were killed would keep old pages for ever
        mdb_reader_check(lmdb->env, &dead);
        r = open_tables(lmdb);
    }
    if (r < 0) {
        fl_lmdb_close(lmdb);
        return r;
    }
    *ret_lmdb = lmdb;
    return 0;
}

void fl_lmdb_close(struct fl_lmdb *lmdb)
{
    if (!lmdb)
        return;
    fl_lmdb_abort(lmdb);
    if (lmdb->view)
        mdb_txn_abort(lmdb->view);
    if (lmdb->env)
        mdb_env_close(lmdb->env);
    free(lmdb);
}

int fl_lmdb_view(struct fl_lmdb *lmdb)
{
    return lmdb->view ? 0 : begin_txn(lmdb, MDB_RDONLY, &lmdb->view);
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

int fl_lmdb_get(struct fl_lmdb *lmdb, const struct fl_identity *identity,
                struct fl_disk_place *ret_place)
{
    return lmdb->view ? get_place(lmdb->view, lmdb->pages, identity, ret_place) : -EINVAL;
}

static bool pack_known(MDB_txn *txn, MDB_dbi packs, uint64_t id)
{
    MDB_val key = {sizeof(id), &id};
    MDB_val value;
    return mdb_get(txn, packs, &key, &value) == 0;
}

int fl_lmdb_has_pack(struct fl_lmdb *lmdb, uint64_t pack_id)
{
    MDB_txn *txn;
    int r = begin_txn(lmdb, MDB_RDONLY, &txn);
    if (r < 0)
        return r;
    r = pack_known(txn, lmdb->packs, pack_id);
    mdb_txn_abort(txn);
    return r;
}

int fl_lmdb_begin(struct fl_lmdb *lmdb, bool grow)
{
    MDB_envinfo info;
    fl_lmdb_abort(lmdb);
    if (grow) {
        mdb_env_info(lmdb->env, &info);
        int m = mdb_env_set_mapsize(lmdb->env, info.me_mapsize * 2);
        if (m != 0)
            return error_of(m);
    }
    return begin_txn(lmdb, 0, &lmdb->txn);
}

static int put_record(struct fl_lmdb *lmdb, const struct fl_record *record)
{
    struct fl_record copy = *record; // LMDB's values are not const
    MDB_val key = {sizeof(copy.identity), &copy.identity};
    MDB_val value = {sizeof(copy.place), &copy.place};
    return error_of(mdb_put(lmdb->txn, lmdb->pages, &key, &value, 0));
}

static int put_new_record(struct fl_lmdb *lmdb, const struct fl_record *record)
{
    struct fl_disk_place place;
    bool known = get_place(lmdb->txn, lmdb->pages, &record->identity, &place) == 0 &&
                 pack_known(lmdb->txn, lmdb->packs, place.pack_id);
    return known ? 0 : put_record(lmdb, record);
}

// Only if the entry is this pack's: another pack may have the page as well.
static int delete_record(struct fl_lmdb *lmdb, const struct fl_record *record)
{
    struct fl_disk_place place = {.pack_id = 0};
    int r = get_place(lmdb->txn, lmdb->pages, &record->identity, &place);
    if (r == -ENOENT || (r == 0 && place.pack_id != record->place.pack_id))
        return 0;
    if (r < 0)
        return r;
    struct fl_identity identity = record->identity;
    MDB_val key = {sizeof(identity), &identity};
    r = error_of(mdb_del(lmdb->txn, lmdb->pages, &key, NULL));
    return r == -ENOENT ? 0 : r;
}

int fl_lmdb_change(struct fl_lmdb *lmdb, enum fl_record_change change,
                   const struct fl_record *record)
{
    static int (*const changes[])(struct fl_lmdb *, const struct fl_record *) = {
        [FL_RECORD_PUT] = put_record,
        [FL_RECORD_PUT_NEW] = put_new_record,
        [FL_RECORD_DELETE] = delete_record,
    };
    return lmdb->txn ? changes[change](lmdb, record) : -EINVAL;
}

int fl_lmdb_set_pack(struct fl_lmdb *lmdb, uint64_t pack_id, uint64_t pages, bool known)
{
    MDB_val key = {sizeof(pack_id), &pack_id};
    MDB_val value = {sizeof(pages), &pages};
    if (!lmdb->txn)
        return -EINVAL;
    if (known)
        return error_of(mdb_put(lmdb->txn, lmdb->packs, &key, &value, 0));
    int r = error_of(mdb_del(lmdb->txn, lmdb->packs, &key, NULL));
    return r == -ENOENT ? 0 : r;
}

// LMDB says EIO of a write that was short, as the last one on a full disk is.
static bool disk_is_full(MDB_env *env)
{
    enum { ENOUGH = 1 << 20 };
    const char *dir;
    struct statvfs st;
    return mdb_env_get_path(env, &dir) == 0 && statvfs(dir, &st) == 0 &&
           st.f_bavail * st.f_frsize < ENOUGH;
}

int fl_lmdb_commit(struct fl_lmdb *lmdb)
{
    MDB_txn *txn = lmdb->txn;
    lmdb->txn = NULL; // gone in every case
    int r = txn ? error_of(mdb_txn_commit(txn)) : -EINVAL;
    return r == -EIO && disk_is_full(lmdb->env) ? -ENOSPC : r;
}

void fl_lmdb_abort(struct fl_lmdb *lmdb)
{
    if (lmdb->txn)
        mdb_txn_abort(lmdb->txn);
    lmdb->txn = NULL;
}
