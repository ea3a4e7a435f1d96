// SPDX-License-Identifier: Apache-2.0
//
// The phases of a capture: how it begins, goes on and ends.
#include "engine/ahead/capture.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/ahead/capture_internal.h"
#include "engine/ahead/unprotect.h"
#include "engine/base/bitmap.h"
#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/serve/task.h"
#include "engine/vm/capture_pages.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

#define GO_ON_PAUSE (2 * FL_NS_PER_MS)

static bool capture_slice(struct fl_shard *shard, struct fl_vm *vm);

// --- telling ---

static void tell(struct fl_capture *capture, enum fl_capture_phase phase, int error,
                 const char *reason)
{
    if (!capture->over)
        capture->tell(capture->arg, phase, error, reason);
}

void fl_capture_enter(struct fl_capture *capture, enum fl_capture_phase phase)
{
    capture->phase = phase;
    tell(capture, phase, 0, NULL);
}

void fl_capture_fail(struct fl_capture *capture, int error, const char *format, ...)
{
    va_list arguments;
    if (capture->error)
        return;
    capture->error = error;
    va_start(arguments, format);
    vsnprintf(capture->reason, sizeof(capture->reason), format, arguments);
    va_end(arguments);
}

// --- end ---

static void capture_detach(struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    vm->capture = NULL;
    fl_task_end(&capture->task);
    if (capture->error)
        tell(capture, FL_CAPTURE_FAILED, capture->error, capture->reason);
    else
        tell(capture, FL_CAPTURE_COPIED, 0, NULL);
    capture->over = true;
    fl_capture_unref(capture);
}

// No page is protected any more.
static void capture_undone(struct fl_shard *shard, struct fl_vm *vm)
{
    (void)shard;
    if (vm->capture)
        capture_detach(vm);
}

// What was to be un-protected comes with all the rest.
static void include_owed(struct fl_capture *capture)
{
    uint64_t page = 0;
    for (; capture->owed_count > 0; page++) {
        page = fl_bits_next_set(capture->owed, capture->owed, page, capture->pages);
        capture->owed_count -= fl_bits_clear(capture->owed, page, 1);
        fl_capture_set_armed(capture, page, 1);
    }
}

// With an error it fails; else everything is copied.
static void capture_undo(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    capture->ending = true;
    capture->phase = capture->error ? FL_CAPTURE_FAILED : FL_CAPTURE_COPIED;
    fl_task_end(&capture->task);
    if (!fl_vm_filling(vm->state)->protected) {
        capture_detach(vm);
        return;
    }
    include_owed(capture);
    FL_CRASH_POINT("capture_ending");
    fl_unprotect_begin(shard, vm, capture_undone);
}

void fl_capture_end(struct fl_vm *vm, int error, const char *reason)
{
    struct fl_capture *capture = vm->capture;
    if (!capture || capture->ending)
        return;
    fl_capture_fail(capture, error, "%s", reason);
    capture->task.not_before_ns = 0;
}

void fl_capture_vm_gone(struct fl_shard *shard, struct fl_vm *vm)
{
    (void)shard;
    fl_unprotect_end(vm);
    if (!vm->capture)
        return;
    if (!vm->capture->ending)
        fl_capture_fail(vm->capture, -ESRCH, "the VM has gone");
    capture_detach(vm);
}

// --- beginning ---

static bool parent_of_image(const struct fl_vm *vm, char *text)
{
    const uint8_t *id = fl_image_content_id(vm->image);
    if (!id)
        return false;
    for (unsigned i = 0; i < 32; i++)
        snprintf(text + (size_t)2 * i, 3, "%02x", id[i]);
    snprintf(text + 64, FL_CAPTURE_PARENT - 64, " %.128s", vm->state->image);
    return true;
}

// What can be said at once. NULL: nothing is against it.
static const char *reason_against(const struct fl_vm *vm, const struct fl_capture *capture,
                                  int *ret_error)
{
    bool paused = fl_capture_is_paused(capture);
    *ret_error = -ESHUTDOWN;
    if (vm->phase != FL_VM_SERVING)
        return "the server lets the VM go";
    if (vm->death != FL_DEATH_NONE)
        return "the VM is being killed";
    *ret_error = -EBUSY;
    if (vm->capture && vm->capture->phase != FL_CAPTURE_KEPT)
        return vm->capture->ending ? "the capture before is still being undone"
                                   : "a capture of the VM runs already";
    if (vm->unprotect.runs)
        return "the capture before is still being undone";
    *ret_error = -ENOTSUP;
    if (vm->image && fl_image_is_offered(vm->image) && !fl_image_content_id(vm->image))
        return "the image that it was restored from is still being packed";
    if (!vm->image || fl_vm_refused(vm) || !fl_image_content_id(vm->image))
        return "its memory is not served from an image of a store";
    if (vm->presence.pagemap < 0)
        return "the pages of its process cannot be seen";
    if (vm->template && !paused)
        return "it maps a template: it can be captured while it is paused";
    if (!vm->template && !(vm->state->flags & (FL_VM_STATE_TOLD | FL_VM_STATE_PRIVATE)))
        return "pages of its memory can be dropped by others, without an event";
    if (fl_counter_get(&vm->state->counters.poisoned) > 0)
        return "pages of its memory could not be had, and are poisoned";
    return NULL;
}

static void swap_maps(struct fl_capture *to, struct fl_capture *from)
{
    uint64_t **const a[] = {&to->unarmed, &to->changed, &to->doubtful, &to->owed};
    uint64_t **const b[] = {&from->unarmed, &from->changed, &from->doubtful, &from->owed};
    for (size_t i = 0; i < sizeof(a) / sizeof(a[0]); i++) {
        uint64_t *map = *a[i];
        *a[i] = *b[i];
        *b[i] = map;
    }
    to->unarmed_count = from->unarmed_count;
    to->owed_count = from->owed_count;
    to->moved = from->moved;
}

// What the capture before has kept goes on to this one.
static void capture_succeed(struct fl_vm *vm, struct fl_capture *capture)
{
    struct fl_capture *before = vm->capture;
    swap_maps(capture, before);
    capture->kept = !(capture->flags & (FL_CAPTURE_FULL | FL_CAPTURE_WHILE_PAUSED));
    if (capture->kept)
        memcpy(capture->parent, before->next_parent, sizeof(capture->parent));
    fl_task_end(&before->task);
    vm->capture = NULL;
    fl_capture_unref(before);
}

// Pages whose end the kernel may not have brought about yet: given back, and not filled since.
static void doubt_all_removed(const struct fl_vm *vm, struct fl_capture *capture)
{
    for (size_t i = 0; i < fl_bitmap_bytes(capture->pages) / sizeof(uint64_t); i++)
        capture->doubtful[i] = vm->removed[i] & ~vm->installed[i];
}

void fl_capture_begin(struct fl_shard *shard, struct fl_vm *vm, struct fl_capture *capture)
{
    int error = 0;
    const char *reason = reason_against(vm, capture, &error);
    if (reason) {
        capture->over = true;
        capture->tell(capture->arg, FL_CAPTURE_FAILED, error, reason); // who may free it at once
        return;
    }
    // What is dropped without an event would not be among what has changed.
    if (fl_capture_is_paused(capture) || !(vm->state->flags & FL_VM_STATE_TOLD))
        capture->flags &= ~(uint64_t)FL_CAPTURE_KEEP_ARMED;
    parent_of_image(vm, capture->parent);
    if (vm->capture) {
        capture_succeed(vm, capture);
    } else {
        fl_capture_set_unarmed(capture, 0, capture->pages);
        doubt_all_removed(vm, capture);
    }
    if (!capture->kept)
        capture->flags |= FL_CAPTURE_FULL;
    vm->capture = fl_capture_ref(capture);
    fl_task_init(&capture->task, vm, capture_slice);
    fl_task_start(shard, &capture->task);
    FL_CRASH_POINT("capture_begun");
}

// --- freezing ---

void fl_capture_freeze(struct fl_shard *shard, struct fl_vm *vm, struct fl_capture *capture)
{
    if (vm->capture != capture || capture->error ||
        (capture->phase != FL_CAPTURE_ARMING && capture->phase != FL_CAPTURE_READY))
        return;
    capture->begun_ns = fl_now();
    capture->task.not_before_ns = 0;
    fl_capture_enter(capture, FL_CAPTURE_FREEZING);
    fl_task_run(shard, &capture->task);
}

// All that may differ from the parent is to be copied; it may change from now on, but not unseen.
static void choose_pages(struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    uint64_t words = fl_bitmap_bytes(capture->pages) / sizeof(uint64_t);
    uint64_t left = 0;
    for (uint64_t i = 0; i < words; i++) {
        uint64_t bits = capture->pages - 64 * i;
        uint64_t mask = bits < 64 ? (1ULL << bits) - 1 : ~0ULL;
        capture->done[i] = capture->kept ? ~capture->changed[i] & mask : 0;
        left += (uint64_t)__builtin_popcountll(~capture->done[i] & mask);
        capture->changed[i] = 0;
    }
    atomic_store(&capture->board->to_copy, left * fl_vm_page_units(vm));
    capture->next = 0;
}

static void note_frozen(struct fl_capture *capture)
{
    uint64_t now = fl_now();
    atomic_store(&capture->board->freeze_ns, now - capture->begun_ns);
    capture->begun_ns = now;
    FL_CRASH_POINT("capture_frozen");
    fl_capture_enter(capture, FL_CAPTURE_FROZEN);
}

void fl_capture_frozen(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    choose_pages(vm);
    if (fl_capture_is_paused(capture)) {
        capture->copying = true;
        return;
    }
    note_frozen(capture);
    // The guest still stands: the copying would take a CPU from those that have it go on.
    capture->task.not_before_ns = shard->now + GO_ON_PAUSE;
}

void fl_capture_copied(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    if (capture->copying) {
        capture->copying = false;
        note_frozen(capture);
    }
    atomic_store(&capture->board->copy_ns, fl_now() - capture->begun_ns);
    capture->removal = (struct fl_capture_removal){.count = 0};
    FL_CRASH_POINT("capture_all_copied");
    if (capture->flags & FL_CAPTURE_KEEP_ARMED)
        fl_capture_enter(capture, FL_CAPTURE_COPIED);
    else
        capture_undo(shard, vm);
}

void fl_capture_commit(struct fl_shard *shard, struct fl_vm *vm, struct fl_capture *capture,
                       const char *image)
{
    (void)shard;
    if (vm->capture != capture || capture->phase != FL_CAPTURE_COPIED || capture->ending ||
        capture->error)
        return;
    snprintf(capture->next_parent, sizeof(capture->next_parent), "%s", image);
    fl_capture_enter(capture, FL_CAPTURE_KEPT);
    capture->over = true;
}

void fl_capture_cancel(struct fl_shard *shard, struct fl_vm *vm, struct fl_capture *capture,
                       int error, const char *reason)
{
    (void)shard;
    if (vm->capture == capture && capture->phase != FL_CAPTURE_KEPT)
        fl_capture_end(vm, error, reason);
}

// --- in slices ---

static bool phase_slice(struct fl_shard *shard, struct fl_vm *vm)
{
    switch (vm->capture->phase) {
    case FL_CAPTURE_NONE:
        return fl_capture_prepare(shard, vm);
    case FL_CAPTURE_ARMING:
        return fl_capture_arm(shard, vm);
    case FL_CAPTURE_READY:
        return fl_capture_rearm(shard, vm);
    case FL_CAPTURE_FREEZING:
        return vm->capture->copying ? fl_capture_sweep(shard, vm) : fl_capture_arm_rest(shard, vm);
    case FL_CAPTURE_FROZEN:
        return fl_capture_sweep(shard, vm);
    case FL_CAPTURE_COPIED:
    case FL_CAPTURE_KEPT:
    case FL_CAPTURE_FAILED:
        vm->capture->task.not_before_ns = FL_NEVER;
        break;
    }
    return false;
}

// Ends with its task if it fails.
static bool capture_slice(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_capture *capture = vm->capture;
    bool any = true;
    if (capture->error) {
        capture_undo(shard, vm);
        return true;
    }
    if (capture->task.not_before_ns > shard->now)
        return false;
    if (capture->owed_count > 0)
        fl_capture_unprotect_owed(shard, vm);
    else
        any = phase_slice(shard, vm);
    if (vm->capture == capture && capture->error && !capture->ending) {
        capture_undo(shard, vm);
        return true;
    }
    return any;
}

// --- from owner to owner ---

void fl_capture_suspend(struct fl_vm *vm)
{
    if (vm->capture)
        fl_task_end(&vm->capture->task);
    fl_unprotect_suspend(vm);
}

// Of a call that the owner before did not come back from it is not known what it did.
void fl_capture_resume(struct fl_shard *shard, struct fl_vm *vm)
{
    if (vm->capture)
        vm->capture->moved = true;
    if (vm->capture && !vm->capture->ending)
        fl_task_start(shard, &vm->capture->task);
    fl_unprotect_resume(shard, vm);
}
