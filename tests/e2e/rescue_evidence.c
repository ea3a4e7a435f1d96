// SPDX-License-Identifier: Apache-2.0
//
// `faultline rescue` of VMs of which nothing was kept: what they have of their memory says which
// image it is, and which part of it each region is. Whatever does not fit is refused, and
// `--dry-run` refuses the same.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/orphan.h"
#include "tests/support/stop.h"
#include "tests/support/swap.h"

static struct temp for_swap;

static void end(void)
{
    swap_off();
    if (for_swap.path[0])
        temp_remove(&for_swap);
    orphan_end();
}

TestSuite(rescue_evidence, .init = orphan_begin, .fini = end, .timeout = 240);

static void need_swap(void)
{
    temp_make(&for_swap);
    if (swap_on(temp_path(&for_swap, "swap"), 4 * (uint64_t)ORPHAN_BYTES))
        return;
    cr_assert(getenv("CI") == NULL, "CI=true, and there can be no swap");
    cr_skip_test("this test needs a file system that can have a swap file");
}

static const struct orphan_plan plain = {.page_bytes = PAGE, .regions = 1};

// As they are refused in earnest, and before anything is done.
#define EXPECT_BOTH_REFUSED(text, ...)                                                             \
    do {                                                                                           \
        EXPECT_REFUSED(text, __VA_ARGS__, "--dry-run");                                            \
        EXPECT_REFUSED(text, __VA_ARGS__);                                                         \
        cr_expect(client_waits(&orphan_client, ORPHAN_THREADS));                                   \
    } while (0)

static void expect_output(const char *text)
{
    cr_expect(strstr(orphan_output, text), "no '%s' in: %s", text, orphan_output);
}

// Packs another memory file.
static void pack_file(const char *name, const uint8_t *bytes, uint64_t size)
{
    char path[2 * TEST_PATH];
    snprintf(path, sizeof(path), "%s", temp_path(&orphan_world->temp, name));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_eq(write(fd, bytes, size), (ssize_t)size);
    close(fd);
    world_pack(orphan_world, path, name);
}

// A copy of the image's memory file.
static uint8_t *copy_memory(void)
{
    uint8_t *bytes = malloc(ORPHAN_BYTES);
    cr_assert_not_null(bytes);
    memcpy(bytes, orphan_world->memory.data, ORPHAN_BYTES);
    return bytes;
}

// --- the image ---

Test(rescue_evidence, the_right_image_is_recognized)
{
    orphan_make(MIXED, &plain);
    world_serve(orphan_world, NULL);
    EXPECT_DONE("--image", "image", "--nothing-removed", "--dry-run");
    expect_output("pages that it has were compared with image image: ");
    expect_output(": fits: ");
    expect_output("its regions (found): [{\"base_host_virt_addr\":");
    EXPECT_DONE("--image", "image", "--nothing-removed", "--json");
    expect_output("\"verdict\": \"fits\"");
    expect_output("\"regions_from\": \"found\"");
    expect_served();
}

Test(rescue_evidence, a_guest_that_has_zeroed_half_of_what_it_had)
{
    struct orphan_plan plan = {.page_bytes = PAGE, .regions = 2, .swapped = true, .dirt = 2};
    orphan_make(DISTINCT, &plan);
    world_serve(orphan_world, NULL);
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_served();
}

Test(rescue_evidence, another_image)
{
    char other[2 * TEST_PATH];
    struct memory memory;
    orphan_make(MIXED, &plain);
    world_serve(orphan_world, NULL);
    snprintf(other, sizeof(other), "%s", temp_path(&orphan_world->temp, "other"));
    memory_make(&memory, other, ORPHAN_BYTES, 99);
    world_pack(orphan_world, other, "other");
    memory_free(&memory);
    EXPECT_BOTH_REFUSED("is not that of image other", "--image", "other", "--nothing-removed");
    expect_output("does not fit: ");
    expect_output("\"offset\":OFFSET");
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_served();
}

// Of the image nearly nothing is left: what the VM has and it has not speaks against it. Nothing of
// what it still has is wrong.
Test(rescue_evidence, an_image_that_is_mostly_empty)
{
    orphan_make(DISTINCT, &plain);
    world_serve(orphan_world, NULL);
    uint8_t *bytes = copy_memory();
    memset(bytes + ORPHAN_BYTES / 16, 0, (size_t)ORPHAN_BYTES / 16 * 15);
    pack_file("empty", bytes, ORPHAN_BYTES);
    free(bytes);
    EXPECT_BOTH_REFUSED("is not that of image empty", "--image", "empty", "--nothing-removed");
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_served();
}

// A later snapshot of the same VM, that shares most of its pages: each alone would do.
Test(rescue_evidence, the_image_of_which_it_has_more)
{
    orphan_make(DISTINCT, &plain);
    world_serve(orphan_world, NULL);
    uint8_t *bytes = copy_memory();
    for (size_t page = 0; page < ORPHAN_BYTES / PAGE; page += 6)
        memset(bytes + page * PAGE, (int)(1 + page % 250), PAGE);
    pack_file("later", bytes, ORPHAN_BYTES);
    free(bytes);
    EXPECT_BOTH_REFUSED("is rather that of image image", "--image", "later", "--nothing-removed");
    EXPECT_DONE("--nothing-removed");
    expect_output("serves it from image image");
    expect_served();
}

// They differ in a few pages only: which it is cannot be told by what is there.
Test(rescue_evidence, two_images_that_fit_alike)
{
    orphan_make(DISTINCT, &plain);
    world_serve(orphan_world, NULL);
    uint8_t *bytes = copy_memory();
    memset(bytes, 1, (size_t)8 * PAGE);
    pack_file("alike", bytes, ORPHAN_BYTES);
    free(bytes);
    EXPECT_BOTH_REFUSED("name the image with --image", "--nothing-removed");
    expect_output("alike");
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_served();
}

Test(rescue_evidence, nothing_to_compare)
{
    struct orphan_plan plan = {.page_bytes = PAGE, .regions = 1, .idle = true};
    orphan_make(MIXED, &plan);
    world_serve(orphan_world, NULL);
    EXPECT_BOTH_REFUSED("too little of the memory", "--image", "image", "--nothing-removed");
    EXPECT_BOTH_REFUSED("which image", "--nothing-removed");
    EXPECT_DONE("--image", "image", "--nothing-removed", "--force");
    expect_output("nothing tells its layout");
    expect_served();
}

// --- its regions ---

// Side by side and in the wrong order: one mapping, seen from outside.
Test(rescue_evidence, regions_that_look_like_one)
{
    char bad[VMM_TEXT];
    struct orphan_plan plan = {.page_bytes = PAGE, .regions = 2, .swapped = true};
    orphan_make(MIXED, &plan);
    world_serve(orphan_world, NULL);
    snprintf(bad, sizeof(bad),
             "[{\"base_host_virt_addr\":%llu,\"size\":%d,\"offset\":0,\"page_size\":4096}]",
             (unsigned long long)(uintptr_t)orphan_told->first - ORPHAN_BYTES / 2, ORPHAN_BYTES);
    EXPECT_BOTH_REFUSED("is not that of image image", "--image", "image", "--nothing-removed",
                        "--regions", bad);
    EXPECT_DONE("--image", "image", "--nothing-removed", "--regions", orphan_told->regions,
                "--dry-run");
    EXPECT_DONE("--image", "image", "--nothing-removed", "--json");
    expect_output("\"regions_from\": \"found\"");
    expect_served();
}

Test(rescue_evidence, a_region_that_can_be_plugged_in_below_the_memory)
{
    struct orphan_plan plan = {.page_bytes = PAGE, .regions = 2, .plugged = true};
    orphan_make(DISTINCT, &plan);
    world_serve(orphan_world, NULL);
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_output("by elimination");
    expect_served();
}

Test(rescue_evidence, huge_pages_in_the_wrong_order)
{
    need_huge_pages(ORPHAN_BYTES / HUGE);
    struct orphan_plan plan = {.page_bytes = HUGE, .regions = 3};
    orphan_make(MIXED, &plan);
    world_serve(orphan_world, NULL);
    EXPECT_DONE("--nothing-removed");
    expect_output("serves it from image image");
    expect_served();
}

Test(rescue_evidence, memory_that_is_swapped_out)
{
    struct orphan_plan plan = {.page_bytes = PAGE, .regions = 2, .swapped = true, .swaps = true};
    need_swap();
    orphan_make(MIXED, &plan);
    world_serve(orphan_world, NULL);
    EXPECT_DONE("--nothing-removed");
    expect_served();
}

// --- what the server would refuse ---

Test(rescue_evidence, without_doing_it_the_server_is_asked)
{
    orphan_make(MIXED, &plain);
    world_pack(orphan_world, orphan_world->file, "image");
    EXPECT_BOTH_REFUSED("no server listens", "--image", "image", "--nothing-removed");
    cr_assert(server_serve(&orphan_world->server, &orphan_world->temp, orphan_world->store, NULL));
    EXPECT_BOTH_REFUSED("still waits", "--image", "nobody", "--nothing-removed", "--force");
    EXPECT_DONE("--image", "image", "--nothing-removed", "--dry-run");
    cr_expect_eq(world_status(orphan_world, "", "vms"), 0);
    cr_assert(process_stop(orphan_client.pid)); // it is not to end meanwhile
    EXPECT_DONE("--image", "image", "--nothing-removed");
    EXPECT_REFUSED("serves it already", "--image", "image", "--nothing-removed", "--force",
                   "--dry-run");
    cr_assert_eq(kill(orphan_client.pid, SIGCONT), 0);
    expect_served();
}
