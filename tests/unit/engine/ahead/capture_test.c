// SPDX-License-Identifier: Apache-2.0
//
// What a capture brings forth is the memory of one moment, byte for byte, whatever the guest does
// meanwhile; and when it has ended, however, no page is protected, and no byte is lost.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/ahead/unprotect.h"
#include "engine/serve/vm_call.h"
#include "engine/vm/vm.h"
#include "engine/worker/release.h"
#include "tests/support/swap.h"
#include "tests/unit/engine/ahead/capture_rig.h"

enum { MIB = 1 << 20 };

TestSuite(capture, .init = rig_needs, .fini = rig_stop, .timeout = 240);

static uint8_t *new_image(struct rig *rig)
{
    uint8_t *image = calloc(1, rig->bytes);
    cr_assert(image != NULL);
    return image;
}

// The first page that differs; -1: none does.
static long first_difference(const uint8_t *a, const uint8_t *b, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += PAGE) {
        if (memcmp(a + at, b + at, PAGE) != 0)
            return (long)(at / PAGE);
    }
    return -1;
}

// From READY to FROZEN with the writers paused; what the image must be then. They stay so, or are
// let go as soon as they may be: it is copied while they write.
static bool freeze(struct rig *rig, struct taken *taken, bool stay, uint8_t *ret_expected)
{
    if (!rig_await(rig, taken, FL_CAPTURE_READY))
        return false;
    size_t bytes = sizeof(struct writers) + rig->writers->pages * sizeof(struct writers_page);
    struct writers *model = malloc(bytes);
    cr_assert(model && writers_pause(rig->writers));
    memcpy(model, rig->writers, bytes);
    rig_freeze(rig, taken);
    bool frozen = rig_await(rig, taken, FL_CAPTURE_FROZEN);
    if (!stay)
        writers_resume(rig->writers);
    writers_image(model, &rig->memory, ret_expected);
    free(model);
    return frozen;
}

static bool freeze_paused(struct rig *rig, struct taken *taken, uint8_t *ret_expected)
{
    return freeze(rig, taken, false, ret_expected);
}

static void assert_captured(struct rig *rig, const struct taken *taken, uint8_t *image,
                            const uint8_t *expected)
{
    cr_assert_eq(rig_image(rig, taken, image), 0);
    long page = first_difference(image, expected, rig->bytes);
    cr_assert_eq(page, -1, "page %ld differs", page);
}

struct images {
    uint8_t *image;
    uint8_t *expected;
};

static struct images new_images(struct rig *rig)
{
    struct images images = {new_image(rig), new_image(rig)};
    memcpy(images.image, rig->memory.data, rig->bytes);
    return images;
}

static void free_images(struct images *images)
{
    free(images->image);
    free(images->expected);
}

// Takes one over images->image, which has what the parent has.
static void capture_into(struct rig *rig, uint64_t flags, struct images *images,
                         struct taken **ret_taken)
{
    struct taken *taken = rig_begin(rig, flags);
    cr_assert(freeze_paused(rig, taken, images->expected), "%s", taken->reason);
    cr_assert(rig_await(rig, taken, FL_CAPTURE_COPIED), "%s", taken->reason);
    assert_captured(rig, taken, images->image, images->expected);
    *ret_taken = taken;
}

static void assert_nothing_left(struct rig *rig)
{
    cr_assert(rig_is_free(rig));
    cr_assert_eq(rig_protected(rig), 0);
}

// One capture of a VM of which some is there, and some was given back.
static void capture_once(const struct rig_wish *wish, uint64_t flags, uint64_t operations)
{
    struct rig *rig = rig_start(wish);
    struct images images = new_images(rig);
    struct taken *taken;
    cr_assert(writers_go_on(rig->writers, operations));
    capture_into(rig, flags, &images, &taken);
    cr_assert_eq(taken->told, 5); // ARMING, READY, FREEZING, FROZEN, COPIED
    assert_nothing_left(rig);
    rig_drop(taken);
    cr_assert(writers_go_on(rig->writers, 100));
    cr_assert(rig_vm_ends(rig));
    free_images(&images);
}

Test(capture, is_the_memory_of_one_moment)
{
    capture_once(&(struct rig_wish){.bytes = 64 * MIB, .page_bytes = PAGE}, 0, 3000);
}

Test(capture, of_several_regions_and_removals)
{
    capture_once(
        &(struct rig_wish){
            .bytes = 64 * MIB, .page_bytes = PAGE, .regions = 3, .threads = 4, .removes = 8},
        0, 3000);
}

Test(capture, of_a_storm_of_removals)
{
    capture_once(
        &(struct rig_wish){.bytes = 32 * MIB, .page_bytes = PAGE, .threads = 6, .removes = 2}, 0,
        20000);
}

Test(capture, of_memory_that_was_hardly_touched)
{
    capture_once(&(struct rig_wish){.bytes = 64 * MIB, .page_bytes = PAGE, .rests_us = 1000}, 0,
                 10);
}

Test(capture, while_it_is_paused)
{
    struct rig *rig =
        rig_start(&(struct rig_wish){.bytes = 32 * MIB, .page_bytes = PAGE, .removes = 8});
    struct images images = new_images(rig);
    struct taken *taken;
    cr_assert(writers_go_on(rig->writers, 3000));
    capture_into(rig, FL_CAPTURE_WHILE_PAUSED | FL_CAPTURE_KEEP_ARMED, &images, &taken);
    cr_assert_eq(fl_capture_granted(taken->capture), FL_CAPTURE_WHILE_PAUSED | FL_CAPTURE_FULL);
    cr_assert_eq(rig_board(taken)->write_faults, 0);
    assert_nothing_left(rig);
    rig_drop(taken);
    cr_assert(rig_vm_ends(rig));
    free_images(&images);
}

static void pass(struct fl_shard *shard, struct fl_vm *vm, void *arg)
{
    (void)shard;
    (void)vm;
    (void)arg;
}

// What threads wait for is copied all the same, so that only the sweep says something. A slice
// begins only below the limit, and copies no more than two looks of 16 pages beyond what it began
// with.
Test(capture, copies_no_further_ahead_of_its_reader_than_it_may)
{
    const uint64_t ahead = MIB / PAGE;
    struct rig *rig = rig_start(
        &(struct rig_wish){.bytes = 32 * MIB, .page_bytes = PAGE, .ahead_bytes = ahead * PAGE});
    struct images images = new_images(rig);
    cr_assert(writers_go_on(rig->writers, 3000));
    struct taken *taken = rig_begin(rig, 0);
    cr_assert(freeze_paused(rig, taken, images.expected), "%s", taken->reason);
    struct fl_capture_board *board = taken->capture->board;
    while (atomic_load(&board->by_sweep) + atomic_load(&board->by_fault) < ahead)
        rig_in_owner(rig, pass, NULL);
    for (unsigned i = 0; i < 1000; i++)
        rig_in_owner(rig, pass, NULL);
    cr_assert_lt(atomic_load(&board->by_sweep), ahead + 2 * 16);
    cr_assert_eq(atomic_load(&taken->phase), FL_CAPTURE_FROZEN, "%s", taken->reason);
    atomic_store(&board->consumed, UINT64_MAX); // it is only a wish
    cr_assert(rig_await(rig, taken, FL_CAPTURE_COPIED), "%s", taken->reason);
    assert_captured(rig, taken, images.image, images.expected);
    rig_drop(taken);
    free_images(&images);
    cr_assert(rig_vm_ends(rig));
}

// Each has the one before as its parent, and copies what was written since.
static void capture_chain(const struct rig_wish *wish, unsigned count)
{
    struct rig *rig = rig_start(wish);
    struct images images = new_images(rig);
    struct taken *taken;
    char name[FL_CAPTURE_PARENT];
    cr_assert(writers_go_on(rig->writers, 8000));
    uint64_t first = 0;
    for (unsigned i = 0; i < count; i++) {
        capture_into(rig, FL_CAPTURE_KEEP_ARMED, &images, &taken);
        const struct fl_capture_board *board = rig_board(taken);
        uint64_t copied = board->by_sweep + board->by_fault;
        first = i == 0 ? copied : first;
        if (i == 0)
            cr_assert_eq(fl_capture_granted(taken->capture),
                         FL_CAPTURE_KEEP_ARMED | FL_CAPTURE_FULL);
        else {
            cr_assert_eq(fl_capture_granted(taken->capture), FL_CAPTURE_KEEP_ARMED);
            cr_assert_str_eq(fl_capture_parent(taken->capture), name);
            cr_assert_lt(copied, first);
        }
        snprintf(name, sizeof(name), "%064u image-%u", i, i);
        rig_commit(rig, taken, name);
        cr_assert(rig_await(rig, taken, FL_CAPTURE_KEPT));
        rig_drop(taken);
        cr_assert(writers_go_on(rig->writers, 300));
    }
    cr_assert_gt(rig_protected(rig), 0);
    // All of it again, from the served image; and then nothing is tracked.
    memcpy(images.image, rig->memory.data, rig->bytes);
    capture_into(rig, FL_CAPTURE_FULL, &images, &taken);
    cr_assert_eq(fl_capture_granted(taken->capture), FL_CAPTURE_FULL);
    assert_nothing_left(rig);
    rig_drop(taken);
    cr_assert(rig_vm_ends(rig));
    free_images(&images);
}

Test(capture, after_capture)
{
    capture_chain(&(struct rig_wish){.bytes = 32 * MIB,
                                     .page_bytes = PAGE,
                                     .regions = 2,
                                     .threads = 4,
                                     .removes = 8,
                                     .rests_us = 50},
                  6);
}

// The last of a chain.
Test(capture, that_keeps_nothing_after_one_that_did)
{
    struct rig *rig = rig_start(
        &(struct rig_wish){.bytes = 32 * MIB, .page_bytes = PAGE, .removes = 8, .rests_us = 50});
    struct images images = new_images(rig);
    struct taken *taken;
    cr_assert(writers_go_on(rig->writers, 8000));
    capture_into(rig, FL_CAPTURE_KEEP_ARMED, &images, &taken);
    rig_commit(rig, taken, "0 first");
    cr_assert(rig_await(rig, taken, FL_CAPTURE_KEPT));
    rig_drop(taken);
    capture_into(rig, 0, &images, &taken);
    cr_assert_str_eq(fl_capture_parent(taken->capture), "0 first");
    assert_nothing_left(rig);
    rig_drop(taken);
    cr_assert(rig_vm_ends(rig));
    free_images(&images);
}

// --- its end before its time ---

static void cancel_at(enum fl_capture_phase phase)
{
    struct rig *rig = rig_start(
        &(struct rig_wish){.bytes = 64 * MIB, .page_bytes = PAGE, .threads = 4, .removes = 8});
    struct images images = new_images(rig);
    cr_assert(writers_go_on(rig->writers, 8000));
    struct taken *taken = rig_begin(rig, FL_CAPTURE_KEEP_ARMED);
    if (phase >= FL_CAPTURE_FREEZING)
        cr_assert(freeze_paused(rig, taken, images.expected));
    cr_assert(rig_await(rig, taken, phase));
    rig_cancel(rig, taken);
    cr_assert(rig_await(rig, taken, FL_CAPTURE_FAILED));
    cr_assert_eq(taken->error, -ECANCELED);
    cr_assert_str_eq(taken->reason, "the test cancels it");
    unsigned told = taken->told;
    assert_nothing_left(rig);
    cr_assert_eq(taken->told, told);
    rig_drop(taken);
    // Nothing of it is left for the next one.
    capture_into(rig, 0, &images, &taken);
    assert_nothing_left(rig);
    rig_drop(taken);
    cr_assert(rig_vm_ends(rig));
    free_images(&images);
}

Test(capture, cancelled_at_its_beginning)
{
    cancel_at(FL_CAPTURE_NONE);
}

Test(capture, cancelled_while_it_arms)
{
    cancel_at(FL_CAPTURE_ARMING);
}

Test(capture, cancelled_before_the_freeze)
{
    cancel_at(FL_CAPTURE_READY);
}

Test(capture, cancelled_while_it_copies)
{
    cancel_at(FL_CAPTURE_FROZEN);
}

Test(capture, cancelled_when_all_is_copied)
{
    cancel_at(FL_CAPTURE_COPIED);
}

static void die_at(enum fl_capture_phase phase)
{
    struct rig *rig =
        rig_start(&(struct rig_wish){.bytes = 64 * MIB, .page_bytes = PAGE, .threads = 4});
    struct images images = new_images(rig);
    cr_assert(writers_go_on(rig->writers, 8000));
    struct taken *taken = rig_begin(rig, FL_CAPTURE_KEEP_ARMED);
    if (phase >= FL_CAPTURE_FREEZING)
        cr_assert(freeze_paused(rig, taken, images.expected));
    cr_assert(rig_await(rig, taken, phase));
    rig_vm_dies(rig);
    cr_assert(rig_await(rig, taken, FL_CAPTURE_FAILED));
    cr_assert_eq(taken->error, -ESRCH);
    rig_drop(taken);
    free_images(&images);
}

Test(capture, of_a_vm_that_dies_while_it_arms)
{
    die_at(FL_CAPTURE_ARMING);
}

Test(capture, of_a_vm_that_dies_while_it_copies)
{
    die_at(FL_CAPTURE_FROZEN);
}

Test(capture, of_a_vm_that_is_captured_already)
{
    struct rig *rig = rig_start(&(struct rig_wish){.bytes = 32 * MIB, .page_bytes = PAGE});
    struct images images = new_images(rig);
    cr_assert(writers_go_on(rig->writers, 3000));
    struct taken *taken = rig_begin(rig, 0);
    struct taken *second = rig_begin(rig, 0);
    cr_assert(rig_await(rig, second, FL_CAPTURE_FAILED));
    cr_assert_eq(second->error, -EBUSY);
    cr_assert_eq(second->told, 1);
    cr_assert_str_eq(second->reason, "a capture of the VM runs already");
    rig_drop(second);
    cr_assert(freeze_paused(rig, taken, images.expected));
    cr_assert(rig_await(rig, taken, FL_CAPTURE_COPIED));
    assert_captured(rig, taken, images.image, images.expected);
    assert_nothing_left(rig);
    rig_drop(taken);
    cr_assert(rig_vm_ends(rig));
    free_images(&images);
}

Test(capture, ends_before_the_server_lets_the_vm_go)
{
    struct rig *rig =
        rig_start(&(struct rig_wish){.bytes = 32 * MIB, .page_bytes = PAGE, .rests_us = 50});
    struct images images = new_images(rig);
    cr_assert(writers_go_on(rig->writers, 3000));
    struct taken *taken = rig_begin(rig, FL_CAPTURE_KEEP_ARMED);
    cr_assert(freeze_paused(rig, taken, images.expected));
    cr_assert(rig_await(rig, taken, FL_CAPTURE_COPIED));
    const struct fl_layout layout = rig->vm->state->layout;
    fl_release_all(rig->engine);
    cr_assert(rig_await(rig, taken, FL_CAPTURE_FAILED));
    cr_assert_str_eq(taken->reason, "the server lets the VM go");
    rig_vm_is_let_go(rig);
    cr_assert_eq(writers_protected(rig->pid, (void *)(uintptr_t)layout.region[0].base,
                                   layout.region[0].bytes),
                 0);
    rig_drop(taken);
    cr_assert(rig_vm_ends(rig));
    free_images(&images);
}

enum left { NOT_YET, LEFT, IN_REMOVAL };

// What the engine before has left: as if it had died within a capture. It cannot be made while a
// removal is in flight.
static void leave_protected(struct fl_shard *shard, struct fl_vm *vm, void *arg)
{
    const struct fl_region *region = &vm->state->layout.region[0];
    fl_vm_filling(vm->state)->protected = 1;
    cr_assert(fl_vm_register_protect(vm, region->base, region->bytes) == 0);
    int error = fl_vm_protect(vm, region->base, region->bytes);
    cr_assert(error == 0 || error == -EAGAIN);
    if (!error)
        fl_unprotect_succeed(shard, vm);
    atomic_store((_Atomic enum left *)arg, error ? IN_REMOVAL : LEFT);
}

Test(capture, of_an_engine_before_leaves_nothing_protected)
{
    static _Atomic enum left left;
    struct rig *rig =
        rig_start(&(struct rig_wish){.bytes = 32 * MIB, .page_bytes = PAGE, .removes = 8});
    cr_assert(writers_go_on(rig->writers, 3000));
    do {
        atomic_store(&left, NOT_YET);
        rig_in_owner(rig, leave_protected, &left);
        while (atomic_load(&left) == NOT_YET)
            cr_assert(rig_is_free(rig));
    } while (atomic_load(&left) == IN_REMOVAL);
    assert_nothing_left(rig);
    cr_assert_eq(fl_vm_filling(rig->vm->state)->protected, 0);
    cr_assert(writers_go_on(rig->writers, 3000));
    cr_assert(rig_vm_ends(rig));
}

// Before they are protected, and after.
Test(capture, of_pages_that_are_in_swap)
{
    char path[64];
    snprintf(path, sizeof(path), "/tmp/faultline-test-swap-%d", (int)getpid());
    if (!swap_on(path, 64 * MIB)) // forks: while there is nothing that it could inherit
        cr_skip_test("no swap file can be had");
    struct rig *rig = rig_start(&(struct rig_wish){.bytes = 32 * MIB, .page_bytes = PAGE});
    struct images images = new_images(rig);
    cr_assert(writers_go_on(rig->writers, 3000));
    cr_assert(writers_pause(rig->writers));
    long before = rig_swap_out(rig);
    struct taken *taken = rig_begin(rig, FL_CAPTURE_KEEP_ARMED);
    cr_assert(rig_await(rig, taken, FL_CAPTURE_READY), "%s", taken->reason);
    long armed = rig_protected(rig);
    writers_resume(rig->writers);
    cr_assert(writers_go_on(rig->writers, 100));
    cr_assert(writers_pause(rig->writers));
    long after = rig_swap_out(rig);
    cr_assert(before > 0 && after > 0 && armed > 0, "%ld, %ld, %ld pages", before, after, armed);
    cr_assert(freeze_paused(rig, taken, images.expected), "%s", taken->reason);
    cr_assert(rig_await(rig, taken, FL_CAPTURE_COPIED), "%s", taken->reason);
    assert_captured(rig, taken, images.image, images.expected);
    rig_cancel(rig, taken);
    assert_nothing_left(rig);
    rig_drop(taken);
    cr_assert(rig_vm_ends(rig));
    swap_off();
    free_images(&images);
}

// --- pages of 2 MiB ---

static void need_huge_pages(unsigned count)
{
    if (huge_pages_free() < count)
        cr_skip_test("no free pages of 2 MiB");
}

Test(capture, of_huge_pages)
{
    need_huge_pages(16);
    capture_once(
        &(struct rig_wish){.bytes = 32 * MIB, .page_bytes = HUGE, .threads = 3, .rests_us = 20}, 0,
        40);
}

Test(capture, of_huge_pages_that_are_given_back)
{
    need_huge_pages(16);
    capture_once(
        &(struct rig_wish){
            .bytes = 32 * MIB, .page_bytes = HUGE, .regions = 2, .threads = 4, .removes = 3},
        0, 200);
}

Test(capture, of_huge_pages_after_another)
{
    need_huge_pages(16);
    struct rig *rig = rig_start(&(struct rig_wish){
        .bytes = 32 * MIB, .page_bytes = HUGE, .threads = 2, .removes = 6, .rests_us = 20000});
    struct images images = new_images(rig);
    struct taken *taken;
    char name[FL_CAPTURE_PARENT];
    cr_assert(writers_go_on(rig->writers, 40));
    for (unsigned i = 0; i < 4; i++) {
        capture_into(rig, FL_CAPTURE_KEEP_ARMED, &images, &taken);
        snprintf(name, sizeof(name), "%064u image-%u", i, i);
        rig_commit(rig, taken, name);
        cr_assert(rig_await(rig, taken, FL_CAPTURE_KEPT));
        rig_drop(taken);
        cr_assert(writers_go_on(rig->writers, 4));
    }
    capture_into(rig, 0, &images, &taken);
    assert_nothing_left(rig);
    rig_drop(taken);
    cr_assert(rig_vm_ends(rig));
    free_images(&images);
}

// --- what is hurried ---

enum { HURRIED_LOOK_US = 1000, HURRIED_S = 100, AHEAD_BYTES = 64 * MIB };

static uint64_t undone_of(struct rig *rig, const struct taken *taken, uint64_t first)
{
    const uint64_t *done = taken->capture->board_done;
    uint64_t undone = 0;
    for (uint64_t page = first; page < first + FL_CAPTURE_HURRIED && page < rig->bytes / PAGE;
         page++)
        undone += !(__atomic_load_n(&done[page / 64], __ATOMIC_ACQUIRE) >> page % 64 & 1);
    return undone;
}

static bool is_copied_ahead(const struct fl_capture_board *board)
{
    return atomic_load(&board->by_sweep) + atomic_load(&board->by_fault) > AHEAD_BYTES / PAGE;
}

// The reader takes nothing, so that the copying in turn has stopped before it came to the end. What
// is hurried is copied all the same.
Test(capture, what_is_hurried_is_copied_first)
{
    struct rig *rig = rig_start(&(struct rig_wish){
        .bytes = 88 * MIB, .page_bytes = PAGE, .threads = 4, .ahead_bytes = AHEAD_BYTES});
    struct images images = new_images(rig);
    uint64_t last = rig->bytes / PAGE - FL_CAPTURE_HURRIED;
    cr_assert(writers_go_on(rig->writers, 60000));
    struct taken *taken = rig_begin(rig, 0);
    struct fl_capture_board *board = taken->capture->board;
    // What they write to is copied, too.
    cr_assert(freeze(rig, taken, true, images.expected), "%s", taken->reason);
    unsigned looks = 0;
    while (!is_copied_ahead(board) && looks++ < HURRIED_S * 1000)
        usleep(HURRIED_LOOK_US);
    cr_assert(is_copied_ahead(board));
    cr_assert_gt(undone_of(rig, taken, last), 0);
    atomic_store(&board->hurried, last + 1);
    for (looks = 0; undone_of(rig, taken, last) > 0 && looks < HURRIED_S * 1000; looks++)
        usleep(HURRIED_LOOK_US);
    cr_assert_eq(undone_of(rig, taken, last), 0);
    cr_assert_gt(rig_image(rig, taken, images.image), 0); // the rest is still to come
    atomic_store(&board->hurried, UINT64_MAX);            // whatever is asked for
    atomic_store(&board->consumed, UINT64_MAX / 2);
    writers_resume(rig->writers);
    cr_assert(rig_await(rig, taken, FL_CAPTURE_COPIED), "%s", taken->reason);
    assert_captured(rig, taken, images.image, images.expected);
    assert_nothing_left(rig);
    rig_drop(taken);
    cr_assert(rig_vm_ends(rig));
    free_images(&images);
}
