// SPDX-License-Identifier: Apache-2.0
//
// `faultline ls --tree`: each image comes once, below the one that it was made from.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/live_source.h"
#include "tests/unit/snapshot_support.h"

#define BYTES ((uint64_t)40 * FL_PAGE_SIZE)

static struct workspace space;
static uint64_t state;

static void setup(void)
{
    state = test_seed();
    cr_assert_eq(workspace_make(&space), 0);
    cr_assert_eq(make_pages(space.memory, 1, BYTES / FL_PAGE_SIZE), 0);
}

static void teardown(void)
{
    workspace_remove(&space);
}

TestSuite(tree, .init = setup, .fini = teardown, .timeout = 60);

// A child that has `changed` of 256 pages of its own. Returns its content id.
static void make_child(const char *name, const char *parent, unsigned changed, uint8_t ret_id[32])
{
    struct live_source source;
    struct fl_image_detail detail;
    struct fl_pack_result result;
    char expected[128];
    cr_assert_eq(inspect_image(space.store, parent, &detail), 0);
    cr_assert_eq(unpack_file(space.store, parent, space.output), 0);
    snprintf(expected, sizeof(expected), "%s/expected", space.dir);
    cr_assert_eq(
        live_make(&source, space.output, expected, BYTES, (struct live_mix){changed, 0, 1}, &state),
        0);
    source.replaces = true;
    cr_assert_eq(live_pack(&source, space.store, name, parent, detail.info.content_id, 1, &result),
                 0);
    memcpy(ret_id, result.content_id, sizeof(result.content_id));
    live_free(&source);
    remove(space.output);
}

// The images in the order in which they come, each with its indentation.
static void expect_tree(const char *want)
{
    char command[512];
    char line[512];
    char is[1024] = "";
    const char *given = getenv("FAULTLINE_BIN");
    snprintf(command, sizeof(command), "%s ls --tree --store %s", given ? given : FAULTLINE_DEFAULT,
             space.store);
    FILE *out = popen(command, "re");
    cr_assert(out);
    while (fgets(line, sizeof(line), out)) {
        size_t used = strlen(is);
        size_t end = strspn(line, " ") + strcspn(line + strspn(line, " "), " ");
        snprintf(is + used, sizeof(is) - used, "%.*s%s\n", (int)end, line,
                 strstr(line, "which is gone or has other content") ? " of another" : "");
    }
    int status = pclose(out);
    cr_assert_eq(status, 0);
    cr_assert_str_eq(is, want);
}

Test(tree, children_are_below_their_parents)
{
    uint8_t id[32];
    cr_assert_eq(pack_file(space.store, "z-base", space.memory, NULL), 0);
    expect_tree("z-base\n");
    make_child("b", "z-base", 100, id);
    make_child("a", "z-base", 100, id);
    make_child("0-of-a", "a", 100, id);
    make_child("other", "b", 0, id);
    cr_assert_eq(pack_file(space.store, "alone", space.memory, NULL), 0);
    expect_tree("alone\nz-base\n  a\n    0-of-a\n  b\n    other\n");
}

Test(tree, who_has_lost_its_parent_says_so)
{
    uint8_t id[32];
    cr_assert_eq(pack_file(space.store, "base", space.memory, NULL), 0);
    make_child("one", "base", 100, id);
    make_child("two", "one", 100, id);
    make_child("three", "one", 100, id);
    cr_assert_eq(remove_image(space.store, "base"), 0);
    expect_tree("one of another\n  three\n  two\n");
    make_child("one", "three", 100, id); // of this name, but with other content
    expect_tree("three of another\n  one\ntwo of another\n");
}

// Of the same content under each other's names.
Test(tree, a_circle_ends)
{
    uint8_t first[32];
    uint8_t second[32];
    cr_assert_eq(pack_file(space.store, "one", space.memory, NULL), 0);
    make_child("two", "one", 0, first);
    make_child("one", "two", 0, second);
    cr_assert_arr_eq(first, second, sizeof(first));
    make_child("three", "two", 100, first);
    expect_tree("one\n  two\n    three\n");
}
