// SPDX-License-Identifier: Apache-2.0
//
// What a store takes is found out by a thread of its own, and never waited for.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/image/store_space.h"

TestSuite(store_space, .timeout = 30);

enum { BYTES = 1 << 20, LOOK_MS = 2 };
#define DEADLINE (20 * FL_NS_PER_S)

static char store[] = "/tmp/faultline-space-XXXXXX";

static void write_file(const char *path)
{
    static const char block[BYTES] = {1};
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_eq(write(fd, block, sizeof(block)), (ssize_t)sizeof(block));
    cr_assert_eq(fsync(fd), 0); // or the file system may not have placed it yet
    close(fd);
}

static struct fl_store_space_now when_known(struct fl_store_space *space)
{
    uint64_t until = fl_now() + DEADLINE;
    struct fl_store_space_now now = fl_store_space_now(space);
    while (now.bytes == UINT64_MAX && fl_now() < until) {
        poll(NULL, 0, LOOK_MS);
        now = fl_store_space_now(space);
    }
    return now;
}

Test(store_space, adds_up_the_files_of_all_directories)
{
    char inside[64];
    char file[96];
    cr_assert_not_null(mkdtemp(store));
    snprintf(inside, sizeof(inside), "%s/packs", store);
    snprintf(file, sizeof(file), "%s/pack", inside);
    cr_assert_eq(mkdir(inside, 0700), 0);
    write_file(file);
    struct fl_store_space *space = fl_store_space_new(store);
    cr_assert_not_null(space);
    struct fl_store_space_now now = when_known(space);
    unlink(file);
    rmdir(inside);
    rmdir(store);
    cr_assert(now.bytes >= BYTES && now.bytes < 2 * BYTES, "%llu", (unsigned long long)now.bytes);
    cr_assert(now.size != UINT64_MAX && now.free <= now.size);
    cr_assert_lt(now.age_ns, DEADLINE);
    // What is gone, or hangs, changes nothing but the age.
    struct fl_store_space_now later = fl_store_space_now(space);
    cr_assert_eq(later.bytes, now.bytes);
    cr_assert_geq(later.age_ns, now.age_ns);
    fl_store_space_free(space);
}

Test(store_space, is_not_known_of_what_is_not_there)
{
    struct fl_store_space *space = fl_store_space_new("/nonexistent/store");
    for (unsigned i = 0; i < 8; i++) {
        struct fl_store_space_now now = fl_store_space_now(space);
        cr_assert(now.bytes == UINT64_MAX && now.free == UINT64_MAX && now.age_ns == UINT64_MAX);
        poll(NULL, 0, 1);
    }
    fl_store_space_free(space);
    cr_assert_eq(fl_store_space_now(NULL).bytes, UINT64_MAX);
    fl_store_space_free(NULL);
}
