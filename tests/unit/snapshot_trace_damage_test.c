// SPDX-License-Identifier: Apache-2.0
//
// The file of a trace is untrusted: whatever is in it, it ends in an error, in the right one, or in
// a trace that is within its bounds; and verify tells of it.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "snapshot/io.h"
#include "tests/unit/snapshot_support.h"

enum { PAGES = 40, TOUCHED = 6 };

// The file, with checksums that are right unless a test makes them wrong.
struct trace_image {
    struct fl_disk_trace_header header;
    struct fl_disk_trace_entry entries[TOUCHED + 1]; // room for one more
};

static struct workspace space;
static char trace_path[256];
static struct trace_image good;
static size_t good_bytes;

static int add_recording(bool replace)
{
    static const struct fl_trace_entry first[] = {{30, 1, 0}, {2, 2, 0}, {31, 3, 0}, {7, 9, 0}};
    static const struct fl_trace_entry second[] = {{2, 1, 0}, {9, 2, 0}, {8, 5, 0}};
    const struct fl_recording both[] = {{.entries = first, .count = 4},
                                        {.entries = second, .count = 3}};
    return merge_trace(space.store, "image", both, 2, replace);
}

static void save(const void *bytes, size_t len)
{
    FL_AUTO_CLOSE int fd = open(trace_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(fl_pwrite_full(fd, bytes, len, 0), 0);
}

static void setup(void)
{
    uint64_t size;
    cr_assert_eq(workspace_make(&space), 0);
    cr_assert_eq(make_pages(space.memory, 1, PAGES), 0);
    cr_assert_eq(pack_file(space.store, "image", space.memory, NULL), 0);
    cr_assert_eq(add_recording(false), 0);
    snprintf(trace_path, sizeof(trace_path), "%s/traces/image.trace", space.store);
    FL_AUTO_CLOSE int fd = open(trace_path, O_RDONLY | O_CLOEXEC);
    cr_assert_eq(fl_file_size(fd, &size), 0);
    good_bytes = size;
    cr_assert_eq(good_bytes, sizeof(good.header) + TOUCHED * sizeof(good.entries[0]));
    cr_assert_eq(fl_pread_full(fd, &good, good_bytes, 0), 0);
}

static void teardown(void)
{
    workspace_remove(&space);
}

TestSuite(trace_damage, .init = setup, .fini = teardown, .timeout = 110);

static int open_it(void)
{
    struct fl_trace *trace = NULL;
    int r = open_trace(space.store, "image", &trace);
    fl_trace_unref(trace);
    return r;
}

Test(trace_damage, every_byte)
{
    uint8_t bytes[sizeof(good)];
    for (size_t i = 0; i < good_bytes; i++) {
        memcpy(bytes, &good, good_bytes);
        bytes[i] ^= (uint8_t)(1U << i % 8);
        save(bytes, good_bytes);
        cr_assert_eq(open_it(), -EBADMSG, "byte %zu of %zu", i, good_bytes);
    }
    save(&good, good_bytes);
    cr_assert_eq(open_it(), 0);
}

Test(trace_damage, every_length)
{
    for (size_t len = 0; len <= good_bytes + 40; len++) {
        static const uint8_t zeros[64];
        save(&good, len < good_bytes ? len : good_bytes);
        if (len > good_bytes) {
            FL_AUTO_CLOSE int fd = open(trace_path, O_RDWR | O_CLOEXEC);
            cr_assert_eq(fl_pwrite_full(fd, zeros, len - good_bytes, good_bytes), 0);
        }
        cr_assert_eq(open_it(), len == good_bytes ? 0 : -EBADMSG, "length %zu", len);
    }
}

// As no accident does: the checksums are right.
static void expect_sealed(struct trace_image file, size_t len, int error, const char *what)
{
    size_t entries = len - sizeof(file.header);
    file.header.entries_checksum = fl_checksum(file.entries, entries);
    file.header.checksum =
        fl_checksum(&file.header, offsetof(struct fl_disk_trace_header, checksum));
    save(&file, len);
    cr_assert_eq(open_it(), error, "%s: %d", what, open_it());
}

#define EXPECT(ERROR, CHANGE)                                                                      \
    do {                                                                                           \
        struct trace_image file = good;                                                            \
        CHANGE;                                                                                    \
        expect_sealed(file, good_bytes, ERROR, #CHANGE);                                           \
    } while (0)

Test(trace_damage, every_field_of_the_header)
{
    EXPECT(0, (void)0);
    EXPECT(-EBADMSG, file.header.magic[0] = 'X');
    EXPECT(-EPROTONOSUPPORT, file.header.version = 2);
    EXPECT(-EBADMSG, file.header.runs = 0);
    EXPECT(-EBADMSG, file.header.runs = 1); // some pages are in two
    EXPECT(-EBADMSG, file.header.runs = UINT32_MAX);
    EXPECT(-EBADMSG, file.header.pages = TOUCHED - 1);
    EXPECT(-EBADMSG, file.header.pages = PAGES + 1); // of this content the image has fewer
    EXPECT(-EBADMSG, file.header.count = 0);
    EXPECT(-EBADMSG, file.header.count = TOUCHED - 1);
    EXPECT(-EBADMSG, file.header.count = TOUCHED + 1);
    EXPECT(-EBADMSG, file.header.count = UINT64_MAX / 32);
    EXPECT(-ESTALE, file.header.content_id.bytes[31] ^= 1);
    EXPECT(-EBADMSG, file.header.name[0] = 'j');
    EXPECT(-EBADMSG, memset(file.header.name, 'i', sizeof(file.header.name)));
}

Test(trace_damage, every_field_of_an_entry)
{
    EXPECT(-EBADMSG, file.entries[5].page = PAGES);
    EXPECT(-EBADMSG, file.entries[5].page = UINT64_MAX);
    EXPECT(-EBADMSG, file.entries[5].page = file.entries[0].page); // twice, each in its order
    EXPECT(-EBADMSG, file.entries[5].seen = 0);
    EXPECT(-EBADMSG, file.entries[0].seen = 3); // of two
    EXPECT(-EBADMSG, file.entries[5].positions = UINT64_C(1) << 32);
    EXPECT(-EBADMSG, file.entries[5].ms = UINT64_C(1) << 32);
    EXPECT(-EBADMSG, file.entries[5].zero = 1);
    EXPECT(-EBADMSG, file.entries[5].positions = 0); // before what it comes after
    EXPECT(0, file.entries[5].positions = UINT32_MAX);
    EXPECT(0, file.entries[5].ms = UINT32_MAX);
}

Test(trace_damage, entries_that_the_header_does_not_count)
{
    struct trace_image file = good;
    file.entries[TOUCHED] = file.entries[TOUCHED - 1];
    expect_sealed(file, good_bytes + sizeof(file.entries[0]), -EBADMSG, "one more");
}

Test(trace_damage, a_trace_under_another_name_is_refused)
{
    struct fl_trace *trace;
    char other[256];
    snprintf(other, sizeof(other), "%s/traces/other.trace", space.store);
    cr_assert_eq(pack_file(space.store, "other", space.memory, NULL), 0);
    int r = link(trace_path, other);
    cr_assert_eq(r, 0);
    cr_assert_eq(open_trace(space.store, "other", &trace), -EBADMSG);
}

static void note(void *arg, const char *object, const char *problem)
{
    (void)problem;
    int *found = arg;
    *found += strcmp(object, "trace image") == 0;
}

static int verified_bad(const char *const *names, size_t count)
{
    struct fl_store *store;
    struct fl_verify_result result;
    int found = 0;
    struct fl_verify_options options = {
        .names = names, .names_count = count, .bad = note, .bad_arg = &found};
    cr_assert_eq(fl_store_open(space.store, false, &store, NULL), 0);
    cr_assert_eq(fl_store_verify(store, &options, &result, NULL), 0);
    fl_store_close(store);
    cr_assert_eq(result.traces, 1);
    cr_assert_eq(result.bad, (uint64_t)found);
    return found;
}

Test(trace_damage, verify_names_it)
{
    static const char *const names[] = {"image"};
    struct trace_image file = good;
    file.entries[1].ms++;
    cr_assert_eq(verified_bad(NULL, 0), 0);
    save(&file, good_bytes);
    cr_assert_eq(verified_bad(NULL, 0), 1);
    cr_assert_eq(verified_bad(names, 1), 1);
}

// It is not added to, not collected; but it can be replaced and removed.
Test(trace_damage, nothing_is_merged_into_it)
{
    struct fl_gc_result collected;
    struct fl_image_detail detail;
    struct trace_image file = good;
    file.entries[1].ms++;
    save(&file, good_bytes);
    cr_assert_eq(add_recording(false), -EBADMSG);
    cr_assert_eq(collect_store(space.store, false, &collected), 0);
    cr_assert_eq(collected.traces_removed, 0);
    cr_assert_eq(add_recording(true), 0);
    cr_assert_eq(open_it(), 0);
    file.header.version++;
    save(&file, good_bytes);
    cr_assert_eq(inspect_image(space.store, "image", &detail), 0);
    cr_assert_eq(detail.trace.state, FL_TRACE_BAD);
    cr_assert_eq(remove_trace(space.store, "image"), 0);
    cr_assert_eq(open_it(), -ENOENT);
}
