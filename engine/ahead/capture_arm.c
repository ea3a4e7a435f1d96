// SPDX-License-Identifier: Apache-2.0
//
// The write protection of a capture: all pages while the guest runs, what it wrote to since in
// further passes, and the rest when it is paused.
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "engine/ahead/capture_internal.h"
#include "engine/base/bitmap.h"
#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/host/uffd.h"
#include "engine/serve/task.h"
#include "engine/serve/vm_call.h"
#include "engine/vm/capture_pages.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

// GAP: to walk over so many pages that are protected already costs less than another call.
// FEW: so many are protected in the pause in a millisecond or two.
enum { MOST_SMALL = 512, MOST_HUGE = 256, GAP = 128, FEW = 1024, PASSES = 4 };
#define REST_SLICE (200 * FL_NS_PER_US)
#define REARM_PAUSE (10 * FL_NS_PER_MS)
#define DROP_PATIENCE (100 * FL_NS_PER_MS)

// linux/userfaultfd.h of 6.4 and 6.7; Debian 12 has the headers of 6.1.
#define FEATURE_WP_UNPOPULATED (1ULL << 13)
#define FEATURE_WP_ASYNC (1ULL << 15)

// --- preparing ---

static bool check_client(struct fl_vm *vm)
{
    uint64_t features = 0;
    struct fl_capture *capture = vm->capture;
    int error = fl_uffd_features(vm->uffd, &features);
    if (!error && capture->fdinfo < 0) {
        capture->fdinfo = fl_uffd_open_info(vm->uffd);
        error = capture->fdinfo < 0 ? capture->fdinfo : 0;
    }
    if (error) {
        fl_capture_fail(capture, error, "its userfaultfd cannot be looked at in /proc: %s",
                        strerror(-error));
        return false;
    }
    // Firecracker before 1.12 asks for no events if there is no balloon: then nothing is dropped.
    if ((vm->state->flags & FL_VM_STATE_TOLD) && !(features & UFFD_FEATURE_EVENT_REMOVE)) {
        fl_capture_fail(capture, -ENOTSUP, "the VMM does not tell what the guest gives back");
        return false;
    }
    if (features & (FEATURE_WP_UNPOPULATED | FEATURE_WP_ASYNC)) {
        fl_capture_fail(capture, -ENOTSUP,
                        "the VMM tracks writes by its userfaultfd itself (features 0x%" PRIx64 ")",
                        features);
        return false;
    }
    if (capture->memory < 0)
        capture->memory = fl_vm_open_memory(vm);
    if (capture->memory < 0) {
        fl_capture_fail(capture, capture->memory, "its memory cannot be read: %s",
                        strerror(-capture->memory));
        return false;
    }
    return true;
}

static bool register_regions(struct fl_vm *vm)
{
    const struct fl_layout *layout = &vm->state->layout;
    for (uint32_t i = 0; i < layout->regions; i++) {
        int error = fl_vm_register_protect(vm, layout->region[i].base, layout->region[i].bytes);
        if (error) {
            fl_capture_fail(vm->capture, error, "the kernel cannot write-protect its memory: %s",
                            strerror(-error));
            return false;
        }
    }
    return true;
}

bool fl_capture_prepare(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    (void)shard;
    if (!check_client(vm) || (!fl_capture_is_paused(capture) && !register_regions(vm)))
        return true;
    if (!fl_capture_is_paused(capture))
        fl_vm_filling(vm->state)->protected = 1;
    FL_CRASH_POINT("capture_prepared");
    capture->next = 0;
    capture->passes = 0;
    fl_capture_enter(capture, FL_CAPTURE_ARMING);
    return true;
}

// --- protecting ---

// What was to be un-protected is not any more: who waits for it faults again.
static void forget_owed(struct fl_vm *vm, uint64_t page, uint64_t count)
{
    struct fl_capture *capture = vm->capture;
    uint64_t owed = capture->owed_count > 0 ? fl_bits_clear(capture->owed, page, count) : 0;
    capture->owed_count -= owed;
    if (owed > 0)
        fl_uffd_wake(vm->uffd, fl_layout_address(&vm->state->layout, page),
                     count << vm->page_shift);
}

// A range that spans mappings is refused by older kernels: in halves, down to a page.
static int protect_pages(struct fl_vm *vm, uint64_t page, uint64_t count)
{
    uint64_t address = fl_layout_address(&vm->state->layout, page);
    int error = fl_vm_protect(vm, address, count << vm->page_shift);
    if (!error) {
        fl_capture_set_armed(vm->capture, page, count);
        forget_owed(vm, page, count);
    }
    if (error != -ENOENT || count == 1)
        return error;
    error = protect_pages(vm, page, count / 2);
    return error ? error : protect_pages(vm, page + count / 2, count - count / 2);
}

// What is unarmed, from capture->next on, in one call. False if there is no more; *ret_error.
static bool arm_next(struct fl_vm *vm, int *ret_error)
{
    struct fl_capture *capture = vm->capture;
    const uint64_t *unarmed = capture->unarmed;
    uint64_t first = fl_bits_next_set(unarmed, unarmed, capture->next, capture->pages);
    *ret_error = 0;
    if (first == capture->pages)
        return false;
    const struct fl_region *region = fl_layout_region(&vm->state->layout, first);
    uint64_t most = vm->page_shift == FL_PAGE_SHIFT ? MOST_SMALL : MOST_HUGE;
    uint64_t limit = region->first_page + (region->bytes >> vm->page_shift);
    limit = first + most < limit ? first + most : limit;
    uint64_t end = first;
    for (uint64_t at = first; at < limit && at - end <= GAP;) {
        end = fl_bits_next_clear(unarmed, unarmed, at, limit);
        at = fl_bits_next_set(unarmed, unarmed, end, limit);
    }
    capture->next = first;
    *ret_error = protect_pages(vm, first, end - first);
    if (!*ret_error)
        capture->next = end;
    return true;
}

// True: to be tried again when events were read. Else it fails.
static bool arm_again(struct fl_shard *shard, struct fl_capture *capture, int error)
{
    if (error == -EAGAIN)
        fl_task_pause(shard, &capture->task);
    else if (error == -ENOMEM)
        fl_task_pause_long(shard, &capture->task);
    else
        fl_capture_fail(capture, error, "the kernel did not write-protect all of its memory: %s",
                        strerror(-error));
    return !capture->error;
}

// --- what was given back ---

// The event of a removal is read before the kernel drops the pages: what is still there may be gone
// at the next moment.
enum settled { SETTLED_ALL, SETTLED_SOME, SETTLED_NONE };

// One look.
static enum settled settle_doubtful(struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    uint64_t *doubtful = capture->doubtful;
    uint64_t first = fl_bits_next_set(doubtful, doubtful, 0, capture->pages);
    if (first == capture->pages)
        return SETTLED_ALL;
    const struct fl_region *region = fl_layout_region(&vm->state->layout, first);
    uint64_t end = region->first_page + (region->bytes >> vm->page_shift);
    end = fl_bits_next_clear(doubtful, doubtful, first, end);
    struct fl_presence_look look = {.start = fl_layout_address(&vm->state->layout, first),
                                    .page_shift = vm->page_shift,
                                    .no_files = vm->template != NULL,
                                    .most = fl_vm_page_units(vm)};
    look.end = look.start + ((end - first) << vm->page_shift);
    int error = fl_vm_look(vm, &look);
    if (error) {
        fl_capture_fail(capture, error, "its memory cannot be looked at: %s", strerror(-error));
        return SETTLED_NONE;
    }
    uint64_t there = look.count > 0 ? look.kind[0].start : look.looked;
    uint64_t gone = (there - look.start) >> vm->page_shift;
    fl_bits_clear(doubtful, first, gone);
    return gone > 0 ? SETTLED_SOME : SETTLED_NONE;
}

// --- in slices ---

bool fl_capture_arm(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    int error = 0;
    bool later = fl_capture_is_paused(capture) || vm->page_shift != FL_PAGE_SHIFT;
    if (!later && arm_next(vm, &error)) {
        if (error)
            arm_again(shard, capture, error);
        return true;
    }
    if (!later && capture->next > 0 && ++capture->passes < PASSES && capture->unarmed_count > FEW) {
        capture->next = 0;
        return true;
    }
    FL_CRASH_POINT("capture_armed");
    fl_capture_enter(capture, FL_CAPTURE_READY);
    capture->next = 0;
    return true;
}

// What the guest writes to until it is paused.
bool fl_capture_rearm(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    int error = 0;
    bool later = fl_capture_is_paused(capture) || vm->page_shift != FL_PAGE_SHIFT;
    if (!later && (capture->next > 0 || capture->unarmed_count > FEW) && arm_next(vm, &error)) {
        if (error)
            arm_again(shard, capture, error);
        return true;
    }
    capture->next = 0;
    if (settle_doubtful(vm) == SETTLED_SOME || capture->error)
        return true;
    capture->task.not_before_ns = shard->now + REARM_PAUSE;
    return false;
}

// What was given back and is there for so long was given back in a way that leaves it there
// (MADV_FREE): it can go at any moment, without an event.
static bool wait_for_drop(struct fl_shard *shard, struct fl_capture *capture)
{
    fl_task_pause(shard, &capture->task);
    if (shard->now > capture->begun_ns + DROP_PATIENCE)
        fl_capture_fail(capture, -EBUSY, "memory that the guest gave back is still there");
    return capture->error != 0;
}

bool fl_capture_arm_rest(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    uint64_t until = fl_now() + REST_SLICE;
    int error = 0;
    capture->next = 0;
    while (!fl_capture_is_paused(capture) && arm_next(vm, &error)) {
        if (error)
            return arm_again(shard, capture, error);
        if (fl_now() > until)
            return true;
    }
    enum settled settled;
    while ((settled = settle_doubtful(vm)) != SETTLED_ALL) {
        if (capture->error || (settled == SETTLED_SOME && fl_now() > until))
            return true;
        if (settled == SETTLED_NONE)
            return wait_for_drop(shard, capture);
    }
    fl_capture_frozen(shard, vm);
    return true;
}

// --- un-protecting ---

static void owe(struct fl_capture *capture, uint64_t page, uint64_t count)
{
    capture->owed_count += fl_bits_set(capture->owed, page, count);
    capture->task.not_before_ns = 0;
}

void fl_capture_unprotect(struct fl_vm *vm, uint64_t page, uint64_t count)
{
    struct fl_capture *capture = vm->capture;
    uint64_t address = fl_layout_address(&vm->state->layout, page);
    fl_capture_set_unarmed(capture, page, count);
    int error = fl_vm_unprotect(vm, address, count << vm->page_shift);
    if (error == -EAGAIN || (error == -ENOENT && count > 1))
        owe(capture, page, count);
    else if (error)
        fl_uffd_wake(vm->uffd, address, count << vm->page_shift);
}

// Page by page: they are few.
void fl_capture_unprotect_owed(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    uint64_t until = fl_now() + REST_SLICE;
    uint64_t page = 0;
    while (capture->owed_count > 0 && fl_now() < until) {
        page = fl_bits_next_set(capture->owed, capture->owed, page, capture->pages);
        uint64_t address = fl_layout_address(&vm->state->layout, page);
        int error = fl_vm_unprotect(vm, address, fl_vm_page_bytes(vm));
        if (error == -EAGAIN) {
            fl_task_pause(shard, &capture->task);
            return;
        }
        if (error)
            fl_uffd_wake(vm->uffd, address, fl_vm_page_bytes(vm));
        capture->owed_count -= fl_bits_clear(capture->owed, page, 1);
    }
}
