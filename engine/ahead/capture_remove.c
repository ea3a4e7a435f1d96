// SPDX-License-Identifier: Apache-2.0
//
// What the guest gives back while it is being copied. The kernel drops the pages when the event has
// been read. So it is found out what they are, and they are copied, before that is done.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/ahead/capture.h"
#include "engine/ahead/capture_internal.h"
#include "engine/base/clock.h"
#include "engine/host/uffd.h"
#include "engine/serve/vm_call.h"
#include "engine/vm/capture_pages.h"
#include "engine/vm/shard.h"
#include "engine/vm/vm.h"

// A thread that has queued its event may be on its way to sleep, and is not seen until it does.
#define PATIENCE (20 * FL_NS_PER_MS)
// For each event that is read the kernel wakes all threads that wait with one. They go back to
// sleep at once, or when they get a processor, and are not seen until they have. Those that were
// seen before are waited for. This is for who came between the last look and the read.
#define SETTLE (500 * FL_NS_PER_US)

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

// --- who gives what back ---

enum look {
    ELSEWHERE, // it has no event that waits
    REMOVES,   // it sleeps in madvise()
    AWAKE      // it may have one that waits, and does not say so
};

// "NUMBER 0xADDRESS 0xLENGTH 0xADVICE ..." of a thread that sleeps in a system call.
static bool thread_removes(const char *text, struct fl_capture_span *ret_span)
{
    long number = -1;
    unsigned long long start = 0;
    unsigned long long length = 0;
    unsigned long long advice = 0;
    // NOLINTNEXTLINE(cert-err34-c)
    if (sscanf(text, "%ld 0x%llx 0x%llx 0x%llx", &number, &start, &length, &advice) != 4 ||
        number != SYS_madvise)
        return false;
    if (advice != MADV_DONTNEED && advice != MADV_FREE && advice != MADV_REMOVE &&
        advice != MADV_DONTNEED_LOCKED)
        return false;
    *ret_span = (struct fl_capture_span){start, start + length};
    return true;
}

static enum look thread_look(int tasks, const char *tid, struct fl_capture_span *ret_span)
{
    char path[300];
    char text[256];
    snprintf(path, sizeof(path), "%s/syscall", tid);
    int file = openat(tasks, path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return ELSEWHERE;
    ssize_t length = read(file, text, sizeof(text) - 1);
    close(file);
    if (length <= 0)
        return ELSEWHERE;
    text[length] = '\0';
    if (strncmp(text, "running", strlen("running")) == 0)
        return AWAKE;
    return thread_removes(text, ret_span) ? REMOVES : ELSEWHERE;
}

static bool is_served(const struct fl_vm *vm, const struct fl_capture_span *span)
{
    uint32_t index = 0;
    uint64_t page = 0;
    return fl_capture_span_pages(vm, span->start, span->end, &index, &page) > 0;
}

static bool is_remover(const struct fl_capture_removers *removers, int32_t tid)
{
    for (unsigned i = 0; i < removers->count; i++) {
        if (removers->tid[i] == tid)
            return true;
    }
    return removers->more;
}

static void note_remover(struct fl_capture_removers *removers, int32_t tid)
{
    if (is_remover(removers, tid))
        return;
    if (removers->count < FL_CAPTURE_SPANS)
        removers->tid[removers->count++] = tid;
    else
        removers->more = true;
}

static void add_span(struct fl_capture_removal *removal, const struct fl_capture_span *span)
{
    if (removal->count < FL_CAPTURE_SPANS)
        removal->span[removal->count++] = *span;
    else
        removal->all = true;
}

// Adds what the threads that sleep give back. False: one that has given memory back before is
// awake, and the oldest event may be its. More than there is room for: all of the memory.
static bool find_spans(struct fl_vm *vm, struct fl_capture_removal *removal)
{
    struct fl_capture_removers *removers = &vm->capture->removers;
    char path[64];
    struct fl_capture_span span;
    struct dirent *entry;
    bool certain = true;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)vm->state->pid);
    DIR *tasks = opendir(path);
    while (tasks && (entry = readdir(tasks))) {
        if (entry->d_name[0] == '.')
            continue;
        int32_t tid = (int32_t)strtol(entry->d_name, NULL, 10);
        enum look look = thread_look(dirfd(tasks), entry->d_name, &span);
        if (look == AWAKE && is_remover(removers, tid))
            certain = false;
        if (look != REMOVES || !is_served(vm, &span))
            continue;
        note_remover(removers, tid);
        add_span(removal, &span);
    }
    if (tasks)
        closedir(tasks);
    return certain;
}

// --- copying it first ---

// One slice. True if all of the span is done.
static bool copy_span(struct fl_vm *vm, const struct fl_capture_span *span)
{
    uint32_t index = 0;
    uint64_t page = 0;
    uint64_t count;
    while ((count = fl_capture_span_pages(vm, span->start, span->end, &index, &page)) > 0) {
        uint64_t end = page + count;
        if (!fl_capture_copy(vm, &page, end, FL_CAPTURE_BY_FAULT) || page < end)
            return false;
    }
    return true;
}

// One slice. True if all that may be dropped is done.
static bool copy_removal(struct fl_vm *vm)
{
    struct fl_capture_removal *removal = &vm->capture->removal;
    const struct fl_capture_span everything = {0, UINT64_MAX};
    if (removal->all)
        return copy_span(vm, &everything);
    for (unsigned i = 0; i < removal->count; i++) {
        if (!copy_span(vm, &removal->span[i]))
            return false;
    }
    return true;
}

// --- before a read ---

static bool message_waits(struct fl_vm *vm)
{
    struct pollfd watch = {.fd = vm->uffd, .events = POLLIN};
    return poll(&watch, 1, 0) > 0; // also where the VMM has it blocking, which polls as an error
}

static bool removal_known(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_capture_removal *removal = &vm->capture->removal;
    if (removal->count > 0 || removal->all)
        return true;
    if (shard->now < removal->read_ns + SETTLE)
        return false;
    if (!removal->since_ns)
        removal->since_ns = shard->now;
    if (!find_spans(vm, removal))
        removal->count = 0;
    if (removal->count == 0 && shard->now > removal->since_ns + PATIENCE)
        removal->all = true;
    return removal->count > 0 || removal->all;
}

static bool faults_pending(struct fl_capture *capture, unsigned *ret_pending)
{
    int error = fl_uffd_pending(capture->fdinfo, ret_pending);
    if (error)
        fl_capture_fail(capture, error, "its userfaultfd cannot be looked at in /proc: %s",
                        strerror(-error));
    *ret_pending = *ret_pending < FL_INBOX ? *ret_pending : FL_INBOX;
    return !error;
}

// The thread of an event that waits sleeps, and is among those that are found; the oldest event is
// read first. So one message is read, after what these threads give back was copied.
static unsigned read_event(struct fl_shard *shard, struct fl_vm *vm)
{
    struct fl_capture_removal newer = {0};
    if (!message_waits(vm) || !removal_known(shard, vm) || !copy_removal(vm))
        return 0;
    find_spans(vm, &newer); // who has come meanwhile is woken by this read, too
    vm->capture->removal = (struct fl_capture_removal){.read_ns = fl_now()};
    return 1;
}

// A fault that was pending may be so no more: its thread was woken by what another one asked for.
// Then the read brings an event instead. So what is known to be given back is copied before. If
// that takes long, or an event has come just now, this may go wrong, and the capture ends.
static unsigned read_fault(struct fl_shard *shard, struct fl_vm *vm, unsigned pending)
{
    struct fl_capture *capture = vm->capture;
    unsigned still = 0;
    bool known = removal_known(shard, vm);
    bool copied = known && copy_removal(vm);
    if (copied)
        capture->removal = (struct fl_capture_removal){.read_ns = capture->removal.read_ns};
    if (capture->error || !faults_pending(capture, &still))
        return 0;
    still = still < pending ? still : pending;
    return still > 0 && copied ? 1 : still;
}

unsigned fl_capture_may_read(struct fl_shard *shard, struct fl_vm *vm, bool *ret_more)
{
    struct fl_capture *capture = vm->capture;
    unsigned pending = 0;
    *ret_more = false;
    if (!fl_capture_holds(capture) || capture->error)
        return FL_INBOX;
    // Most rounds of the copying end here: neither a fault nor an event waits.
    if (!message_waits(vm)) {
        capture->removal = (struct fl_capture_removal){.read_ns = capture->removal.read_ns};
        return 0;
    }
    *ret_more = !faults_pending(capture, &pending);
    if (*ret_more) // the capture has failed, and the message is read in the next round
        return 0;
    if (!fl_vm_removing(vm)) {
        capture->removal = (struct fl_capture_removal){.read_ns = capture->removal.read_ns};
        return pending;
    }
    *ret_more = true;
    return pending > 0 ? read_fault(shard, vm, pending) : read_event(shard, vm);
}
