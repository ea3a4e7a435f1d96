// SPDX-License-Identifier: Apache-2.0
//
// A ledger is carried over by the names of its series, whatever version it is of; and whatever is
// wrong with it, nothing else is read.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/link/ledger.h"
#include "engine/link/ledger_format.h"

TestSuite(ledger, .timeout = 60);

enum { ROWS = 4, KEY = 16, THREADS = 8 };

struct thread {
    fl_counter a;
    fl_counter b[3];
    fl_counter most;
};

struct row {
    char key[KEY];
    fl_counter count;
};

struct images {
    struct row row[ROWS];
};

static const struct fl_ledger_series all[] = {
    {.name = "a", .block = FL_LEDGER_THREADS, .values = 1, .rows = 1},
    {.name = "b",
     .block = FL_LEDGER_THREADS,
     .offset = offsetof(struct thread, b),
     .values = 3,
     .rows = 1},
    {.name = "most",
     .block = FL_LEDGER_THREADS,
     .combine = FL_LEDGER_MAX,
     .offset = offsetof(struct thread, most),
     .values = 1,
     .rows = 1},
    {.name = "images",
     .block = FL_LEDGER_IMAGES,
     .offset = offsetof(struct row, count),
     .values = 1,
     .rows = ROWS,
     .row_stride = sizeof(struct row),
     .key_bytes = KEY},
};

// The first `count` series, from that one on.
static struct fl_ledger *ledger_of(unsigned first, unsigned count)
{
    struct fl_ledger *ledger = NULL;
    const struct fl_ledger_shape shape = {
        .bytes = {[FL_LEDGER_THREADS] = sizeof(struct thread),
                  [FL_LEDGER_IMAGES] = sizeof(struct images)},
        .most = {[FL_LEDGER_THREADS] = THREADS, [FL_LEDGER_IMAGES] = 1},
        .series = all + first,
        .count = count,
    };
    cr_assert_eq(fl_ledger_new(&shape, &ledger), 0);
    cr_assert_geq(fl_ledger_fd(ledger), 0);
    return ledger;
}

static struct fl_ledger *whole(void)
{
    return ledger_of(0, 4);
}

static struct thread *thread_of(struct fl_ledger *ledger, unsigned index)
{
    return fl_ledger_block(ledger, FL_LEDGER_THREADS, index);
}

static struct images *images_of(struct fl_ledger *ledger)
{
    return fl_ledger_block(ledger, FL_LEDGER_IMAGES, 0);
}

static void name_row(struct fl_ledger *ledger, unsigned row, const char *key, uint64_t count)
{
    strcpy(images_of(ledger)->row[row].key, key);
    fl_counter_set(&images_of(ledger)->row[row].count, count);
}

static uint64_t carried(struct fl_ledger *ledger, unsigned series, unsigned number)
{
    return fl_counter_get(&fl_ledger_carried(ledger, series)[number]);
}

// Two threads and two images.
static struct fl_ledger *used(void)
{
    struct fl_ledger *ledger = whole();
    for (unsigned i = 0; i < 2; i++) {
        struct thread *thread = thread_of(ledger, i);
        fl_counter_add(&thread->a, 10 + i);
        fl_counter_add(&thread->b[2], 100 * (i + 1));
        fl_counter_set(&thread->most, 7 - i);
    }
    name_row(ledger, 0, "first", 5);
    name_row(ledger, ROWS - 1, "other", 1);
    return ledger;
}

static void check_used(struct fl_ledger *ledger, unsigned times)
{
    cr_assert_eq(carried(ledger, 0, 0), 21 * times);
    cr_assert_eq(carried(ledger, 1, 0), 0);
    cr_assert_eq(carried(ledger, 1, 2), 300 * times);
    cr_assert_eq(carried(ledger, 2, 0), 7);
    cr_assert_eq(carried(ledger, 3, 0), 5 * times);
    cr_assert_str_eq(images_of(ledger)->row[0].key, "first");
}

Test(ledger, adds_up_what_all_threads_counted)
{
    struct fl_ledger *before = used();
    struct fl_ledger *after = whole();
    cr_assert_eq(fl_ledger_carry(after, fl_ledger_fd(before)), 0);
    check_used(after, 1);
    fl_ledger_free(before);
    fl_ledger_free(after);
}

Test(ledger, has_what_it_carried_over_only_when_it_says_so)
{
    struct fl_ledger *first = used();
    struct fl_ledger *second = whole();
    struct fl_ledger *third = whole();
    struct fl_ledger *fourth = whole();
    fl_counter_add(&thread_of(second, 0)->a, 1);
    cr_assert_eq(fl_ledger_carry(second, fl_ledger_fd(first)), 0);
    cr_assert_eq(fl_ledger_carry(third, fl_ledger_fd(second)), 0);
    cr_assert_eq(carried(third, 0, 0), 1, "its engine died before: the first one is there, too");
    cr_assert_eq(fl_ledger_included(fl_ledger_fd(second)), 0);
    fl_ledger_includes(second, 7);
    cr_assert_eq(fl_ledger_included(fl_ledger_fd(second)), 7);
    cr_assert_eq(fl_ledger_carry(fourth, fl_ledger_fd(second)), 0);
    cr_assert_eq(carried(fourth, 0, 0), 22);
    cr_assert_eq(carried(fourth, 3, 0), 5);
    fl_ledger_free(first);
    fl_ledger_free(second);
    fl_ledger_free(third);
    fl_ledger_free(fourth);
}

Test(ledger, keeps_what_it_does_not_know_for_one_that_does)
{
    struct fl_ledger *before = used();
    struct fl_ledger *older = ledger_of(1, 1); // knows "b" alone
    struct fl_ledger *after = whole();
    cr_assert_eq(fl_ledger_carry(older, fl_ledger_fd(before)), 0);
    cr_assert_eq(fl_ledger_carry(older, fl_ledger_fd(before)), 0); // of two engines
    cr_assert_eq(carried(older, 0, 2), 600);
    fl_ledger_includes(older, 1);
    cr_assert_eq(fl_ledger_carry(after, fl_ledger_fd(older)), 0);
    check_used(after, 2);
    fl_ledger_free(before);
    fl_ledger_free(older);
    fl_ledger_free(after);
}

Test(ledger, finds_rows_by_their_names)
{
    struct fl_ledger *before = whole();
    struct fl_ledger *after = whole();
    name_row(before, 0, "x", 1);
    name_row(before, 1, "y", 2);
    name_row(before, 2, "z", 4);
    name_row(before, ROWS - 1, "other", 8);
    name_row(after, 0, "y", 100); // served before what there was is carried over
    name_row(after, ROWS - 1, "other", 0);
    name_row(after, 1, "w", 0);
    cr_assert_eq(fl_ledger_carry(after, fl_ledger_fd(before)), 0);
    cr_assert_eq(carried(after, 3, 0), 2);
    cr_assert_str_eq(images_of(after)->row[2].key, "x");
    cr_assert_eq(carried(after, 3, 2), 1);
    cr_assert_eq(carried(after, 3, ROWS - 1), 8 + 4, "the rest is with the others");
    fl_ledger_free(before);
    fl_ledger_free(after);
}

// --- what is none, or is wrong ---

// A sealed memfd with these bytes.
static int sealed(const void *bytes, size_t size)
{
    int fd = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_eq(write(fd, bytes, size), (ssize_t)size);
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    return fd;
}

static void check_nothing(int fd, int error)
{
    struct fl_ledger *after = whole();
    cr_assert_eq(fl_ledger_carry(after, fd), error);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(carried(after, i, 0), 0);
    fl_ledger_free(after);
    close(fd);
}

Test(ledger, refuses_what_is_none)
{
    static const char zeros[8192];
    int pipes[2];
    cr_assert_eq(pipe(pipes), 0);
    check_nothing(pipes[0], -EINVAL);
    close(pipes[1]);
    check_nothing(sealed(zeros, 4), -EINVAL);
    check_nothing(sealed(zeros, sizeof(zeros)), -EINVAL);
    check_nothing(open("/dev/zero", O_RDONLY | O_CLOEXEC), -EINVAL);
    int open_ended = memfd_create("unsealed", MFD_CLOEXEC); // it could shrink under our eyes
    struct fl_ledger *before = used();
    cr_assert_eq(write(open_ended, before->map, before->bytes), (ssize_t)before->bytes);
    check_nothing(open_ended, -EINVAL);
    struct fl_ledger_header *header = fl_ledger_header(before);
    header->version++;
    check_nothing(sealed(before->map, before->bytes), -EPROTONOSUPPORT);
    fl_ledger_free(before);
}

// Any 8 bytes of header and table may be anything: it is refused, or what lies in it is taken.
Test(ledger, survives_any_number_in_its_table)
{
    static const uint64_t wrong[] = {0,          1,          7,          0xffff, UINT32_MAX,
                                     1ULL << 32, 1ULL << 62, UINT64_MAX, 4096,   UINT64_MAX - 7};
    struct fl_ledger *before = used();
    size_t table = sizeof(struct fl_ledger_header) + 5 * sizeof(struct fl_ledger_entry);
    fl_ledger_includes(before, 3);
    char *copy = malloc(before->bytes);
    for (size_t at = 0; at < table; at += 4) {
        for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
            memcpy(copy, before->map, before->bytes);
            memcpy(copy + at, &wrong[i], sizeof(wrong[i]));
            int fd = sealed(copy, before->bytes);
            struct fl_ledger *after = whole();
            int error = fl_ledger_carry(after, fd);
            cr_assert(error == 0 || error == -EINVAL || error == -EPROTONOSUPPORT, "%d", error);
            cr_assert_leq(fl_ledger_header(after)->entries, FL_LEDGER_ENTRIES);
            fl_ledger_free(after);
            close(fd);
        }
    }
    free(copy);
    fl_ledger_free(before);
}

Test(ledger, takes_no_number_that_cannot_be)
{
    struct fl_ledger *before = used();
    struct fl_ledger *after = whole();
    fl_counter_set(&thread_of(before, 1)->a, UINT64_MAX);
    cr_assert_eq(fl_ledger_carry(after, fl_ledger_fd(before)), 0);
    cr_assert_eq(carried(after, 0, 0), 10);
    cr_assert_eq(carried(after, 1, 2), 300);
    fl_ledger_free(before);
    fl_ledger_free(after);
}
