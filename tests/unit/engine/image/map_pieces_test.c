// SPDX-License-Identifier: Apache-2.0
//
// A page of 2 MiB that lies in two pieces of the map, as that of a region does whose place in the
// memory file is no multiple of 2 MiB: what is known of one piece says nothing of the other.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/base/io_pool.h"
#include "engine/base/rcu.h"
#include "engine/cache/frame_cache.h"
#include "snapshot/format.h"
#include "snapshot/io.h"
#include "tests/unit/snapshot_support.h"

enum { HUGE_PAGES = 512, DEADLINE_MS = 60000, PAGES = 2 * FL_PIECE_ENTRIES };

static struct workspace space;
static struct fl_io_pool *pool;
static struct fl_cache *cache;
static struct fl_mailbox box;

struct want {
    struct fl_waiter waiter;
    bool came;
};

static void setup(void)
{
    cr_assert_eq(workspace_make(&space), 0);
    rcu_register_thread();
    cr_assert_eq(fl_io_pool_start(2, &pool), 0);
    cr_assert_eq(fl_cache_new(64 << 20, 0, pool, &cache), 0);
    cr_assert_eq(fl_mailbox_init(&box), 0);
}

static void teardown(void)
{
    fl_rcu_offline();
    fl_cache_stop(cache);
    fl_io_pool_stop(pool);
    fl_rcu_online();
    fl_cache_free(cache);
    fl_mailbox_fini(&box);
    fl_rcu_offline();
    rcu_barrier();
    fl_rcu_online();
    rcu_unregister_thread();
    workspace_remove(&space);
}

TestSuite(map_pieces, .init = setup, .fini = teardown, .timeout = 100);

// Every third page of a piece has bytes; none, of one that is to be zero.
static bool has_bytes(uint64_t page, unsigned zero_piece)
{
    return page % 3 == 0 && page / FL_PIECE_ENTRIES != zero_piece;
}

// Only what is about the border between the two.
static struct fl_image *make_image(unsigned zero_piece)
{
    char page[FL_PAGE_SIZE];
    struct fl_pack_result result;
    struct fl_reader *reader;
    struct fl_image *image = NULL;
    FL_AUTO_CLOSE int fd = open(space.memory, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_eq(ftruncate(fd, (off_t)PAGES * FL_PAGE_SIZE), 0);
    for (uint64_t i = FL_PIECE_ENTRIES - HUGE_PAGES; i < FL_PIECE_ENTRIES + HUGE_PAGES; i++) {
        fill_page(page, i + 1);
        if (has_bytes(i, zero_piece))
            cr_assert_eq(fl_pwrite_full(fd, page, sizeof(page), i * FL_PAGE_SIZE), 0);
    }
    cr_assert_eq(pack_file(space.store, "image", space.memory, &result), 0);
    cr_assert_eq(fl_reader_open(space.store, &reader), 0);
    cr_assert_eq(fl_image_open_lazy(reader, "image", &image), 0);
    fl_reader_close(reader);
    return image;
}

static void came(void *owner, struct fl_mail *mail)
{
    (void)owner;
    caa_container_of(mail, struct want, waiter.mail)->came = true;
}

// Wanted at once, or brought by the read-ahead, which may wait for no part of the map.
static struct fl_frame *get(struct fl_image *image, uint64_t first_page, bool ahead)
{
    struct want want = {.waiter = {.mail.deliver = came, .box = &box}};
    struct fl_frame *frame = NULL;
    if (ahead)
        cr_assert_eq(fl_cache_ahead_huge(cache, image, &first_page, 1), 1);
    if ((ahead ? fl_cache_await_huge : fl_cache_want_huge)(cache, image, first_page, &want.waiter,
                                                           &frame) == 1)
        return frame;
    while (!want.came) {
        struct pollfd poll_fd = {.fd = box.event_fd, .events = POLLIN};
        if (fl_mailbox_sleep(&box)) {
            fl_rcu_offline();
            cr_assert_eq(poll(&poll_fd, 1, DEADLINE_MS), 1);
            fl_rcu_online();
        }
        fl_mailbox_awake(&box);
        fl_mailbox_drain(&box, NULL);
    }
    cr_assert_eq(want.waiter.error, 0);
    return want.waiter.frame;
}

static void check_page_across(unsigned known, unsigned zero_piece, bool ahead)
{
    char expected[FL_PAGE_SIZE];
    struct fl_image *image = make_image(zero_piece);
    uint64_t first = FL_PIECE_ENTRIES - HUGE_PAGES / 2;
    if (known < 2)
        cr_assert_eq(fl_image_read_map(image, (uint64_t)known * FL_PIECE_ENTRIES, 1), 0);
    struct fl_frame *frame = get(image, first, ahead);
    for (uint64_t i = 0; i < HUGE_PAGES; i++) {
        memset(expected, 0, sizeof(expected));
        if (has_bytes(first + i, zero_piece))
            fill_page(expected, first + i + 1);
        cr_assert_eq(memcmp(fl_frame_data(frame) + i * FL_PAGE_SIZE, expected, FL_PAGE_SIZE), 0,
                     "page %lu", (unsigned long)i);
    }
    fl_frame_unpin(frame);
    fl_rcu_quiescent();
    fl_image_unref(image);
}

Test(map_pieces, of_which_the_first_is_known)
{
    check_page_across(0, 2, false);
}

Test(map_pieces, of_which_the_first_is_known_and_it_comes_ahead)
{
    check_page_across(0, 2, true);
}

Test(map_pieces, of_which_the_second_is_known)
{
    check_page_across(1, 2, false);
}

Test(map_pieces, of_which_the_second_is_known_and_it_comes_ahead)
{
    check_page_across(1, 2, true);
}

Test(map_pieces, of_which_none_is_known)
{
    check_page_across(2, 2, false);
}

Test(map_pieces, of_which_none_is_known_and_it_comes_ahead)
{
    check_page_across(2, 2, true);
}

Test(map_pieces, of_which_the_first_is_zero)
{
    check_page_across(2, 0, false);
}

Test(map_pieces, of_which_the_first_is_zero_and_it_comes_ahead)
{
    check_page_across(2, 0, true);
}

Test(map_pieces, of_which_the_second_is_zero)
{
    check_page_across(2, 1, false);
}

Test(map_pieces, of_which_the_second_is_zero_and_it_comes_ahead)
{
    check_page_across(2, 1, true);
}
