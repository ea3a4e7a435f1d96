// SPDX-License-Identifier: Apache-2.0
//
// Who has the index open, and who waits for it. optimize has published the image and waits for the
// index, and the image is removed: its work is done, and it does not look for the image by its name
// any more.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/snapshot_support.h"

enum { PAGES = 60, WAIT_MS = 20000, STEP_MS = 5 };

static struct workspace space;

static void setup(void)
{
    static const struct fl_trace_entry touched = {.page = 3};
    const struct fl_recording one = {.entries = &touched, .count = 1};
    cr_assert_eq(workspace_make(&space), 0);
    cr_assert_eq(make_pages(space.memory, 1, PAGES), 0);
    cr_assert_eq(pack_file(space.store, "image", space.memory, NULL), 0);
    cr_assert_eq(merge_trace(space.store, "image", &one, 1, false), 0);
}

static void teardown(void)
{
    workspace_remove(&space);
}

TestSuite(index_lock, .init = setup, .fini = teardown, .timeout = 100);

static int optimize(void)
{
    struct fl_store *store = NULL;
    struct fl_error error = {""};
    struct fl_optimize_result result;
    struct fl_optimize_options options = {.name = "image"};
    int r = fl_store_open(space.store, false, &store, &error);
    if (r == 0)
        r = fl_store_optimize(store, &options, &result, &error);
    fl_store_close(store);
    fprintf(stderr, "%s\n", error.text);
    return r == 0 && result.after.frames == 1 ? 0 : 1;
}

static ino_t image_inode(void)
{
    char path[160];
    struct stat status;
    snprintf(path, sizeof(path), "%s/images/image.img", space.store);
    cr_assert_eq(stat(path, &status), 0);
    return status.st_ino;
}

static MDB_txn *hold_index(MDB_env **ret_env)
{
    char path[160];
    MDB_txn *txn;
    snprintf(path, sizeof(path), "%s/index", space.store);
    cr_assert_eq(mdb_env_create(ret_env), 0);
    cr_assert_eq(mdb_env_open(*ret_env, path, MDB_NOTLS, 0640), 0);
    cr_assert_eq(mdb_txn_begin(*ret_env, NULL, 0, &txn), 0);
    return txn;
}

Test(index_lock, an_image_that_is_removed_once_it_is_laid_out_was_laid_out)
{
    ino_t before = image_inode();
    int status;
    pid_t pid = fork(); // before LMDB is open here: its locks are the process's
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        raise(SIGSTOP);
        _exit(optimize());
    }
    MDB_env *env;
    MDB_txn *txn = hold_index(&env);
    cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
    kill(pid, SIGCONT);
    for (int ms = 0; image_inode() == before; ms += STEP_MS) {
        cr_assert_lt(ms, WAIT_MS);
        poll(NULL, 0, STEP_MS);
    }
    cr_assert_eq(remove_image(space.store, "image"), 0);
    mdb_txn_abort(txn);
    mdb_env_close(env);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
}

// Its files may have lost their names then, and the other process goes on with them: a new index
// beside an old lock file would be no index.
Test(index_lock, an_index_that_another_process_has_open_is_not_made_anew)
{
    char path[160];
    struct fl_pack_result packed;
    snprintf(path, sizeof(path), "%s/index/data.mdb", space.store);
    int r = truncate(path, 8192);
    cr_assert_eq(r, 0);
    snprintf(path, sizeof(path), "%s/index", space.store);
    int held = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_eq(flock(held, LOCK_SH), 0);
    cr_assert_eq(pack_file(space.store, "b", space.memory, &packed), 0);
    cr_assert(packed.index_damaged);
    cr_assert_not(packed.index_rebuilt);
    cr_assert_eq(packed.index_error, -EBUSY);
    cr_assert_eq(packed.shared_pages, 0);
    close(held);
    cr_assert_eq(pack_file(space.store, "c", space.memory, &packed), 0);
    cr_assert(packed.index_rebuilt);
    cr_assert_eq(packed.shared_pages, PAGES);
}

// As of a process that has published its pack and not yet its image: if that fails, it takes the
// pack back, whoever shares with it.
Test(index_lock, a_pack_that_no_image_refers_to_is_not_shared_by_an_index_that_is_made_anew)
{
    char path[160];
    struct fl_pack_result packed;
    snprintf(path, sizeof(path), "%s/images/image.img", space.store);
    cr_assert_eq(unlink(path), 0);
    snprintf(path, sizeof(path), "%s/index/data.mdb", space.store);
    int r = truncate(path, 8192);
    cr_assert_eq(r, 0);
    cr_assert_eq(pack_file(space.store, "b", space.memory, &packed), 0);
    cr_assert(packed.index_rebuilt);
    cr_assert_eq(packed.shared_pages, 0);
    cr_assert_eq(pack_file(space.store, "c", space.memory, &packed), 0);
    cr_assert_eq(packed.shared_pages, PAGES);
}

// LMDB's file: two meta pages, the newer of which tells where the table of tables is. The others
// are what is looked up in, or free.
static void spoil_what_is_looked_up(const char *path)
{
    enum { META = 16, ROOT = META + 24 + 48 + 40, TXN = ROOT + 16 };
    uint64_t root[2];
    uint64_t txn[2];
    char noise[FL_PAGE_SIZE];
    struct stat status;
    memset(noise, 0x5a, sizeof(noise));
    int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(fstat(fd, &status), 0);
    for (off_t meta = 0; meta < 2; meta++) {
        cr_assert_eq(pread(fd, &root[meta], 8, meta * FL_PAGE_SIZE + ROOT), 8);
        cr_assert_eq(pread(fd, &txn[meta], 8, meta * FL_PAGE_SIZE + TXN), 8);
    }
    uint64_t keep = root[txn[1] > txn[0]];
    cr_assert_lt(keep, (uint64_t)status.st_size / FL_PAGE_SIZE);
    for (off_t page = 2; page < status.st_size / FL_PAGE_SIZE; page++) {
        if ((uint64_t)page != keep)
            cr_assert_eq(pwrite(fd, noise, sizeof(noise), page * FL_PAGE_SIZE), FL_PAGE_SIZE);
    }
    close(fd);
}

// It opens, and is found damaged when the first page is looked up: the image is packed without it,
// and there is a good one at the end, though the image has nothing new to add.
Test(index_lock, an_index_that_turns_out_to_be_damaged_is_made_anew_at_the_end)
{
    char path[160];
    struct fl_pack_result packed;
    cr_assert_eq(pack_file(space.store, "same", space.memory, &packed), 0);
    cr_assert_eq(packed.pack_id, 0);
    snprintf(path, sizeof(path), "%s/index/data.mdb", space.store);
    spoil_what_is_looked_up(path);
    cr_assert_eq(pack_file(space.store, "b", space.memory, &packed), 0);
    cr_assert(packed.index_damaged);
    cr_assert(packed.index_rebuilt);
    cr_assert_eq(packed.index_error, 0);
    cr_assert_eq(pack_file(space.store, "c", space.memory, &packed), 0);
    cr_assert_not(packed.index_damaged || packed.index_rebuilt);
    cr_assert_eq(packed.shared_pages, PAGES);
}
