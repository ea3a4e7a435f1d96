// SPDX-License-Identifier: Apache-2.0
//
// No engine can be kept alive: the VMs are killed, or poisoned, before their userfaultfds go.
#include "engine/keeper/keeper_internal.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/host/answer_without_image.h"
#include "engine/host/uffd.h"
#include "engine/keeper/service_manager.h"
#include "engine/vm/vm_state.h"

enum { VM_END_MS = 10000 };

static int vm_pidfd(const struct fl_record *record)
{
    return record->slots > FL_VM_PIDFD ? record->fd[FL_VM_PIDFD] : -1;
}

// For the log alone: what the engine wrote down.
static const char *image_of(const struct fl_record *record, char image[FL_IMAGE_NAME_BYTES])
{
    int state = record->slots > FL_VM_STATE ? record->fd[FL_VM_STATE] : -1;
    ssize_t got = pread(state, image, FL_IMAGE_NAME_BYTES - 1, offsetof(struct fl_vm_state, image));
    image[got > 0 ? got : 0] = '\0';
    return *image ? image : "-";
}

static void kill_vm(const struct fl_record *record)
{
    char image[FL_IMAGE_NAME_BYTES];
    int pidfd = vm_pidfd(record);
    if (pidfd >= 0 && syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) == 0)
        fl_log(FL_LOG_ERROR, "event=kill vm=%" PRIu64 " image=%s reason=\"no engine can serve it\"",
               record->id, image_of(record, image));
    else
        fl_log(FL_LOG_ERROR,
               "event=kill_failed vm=%" PRIu64 " image=%s reason=\"no engine can serve it\"",
               record->id, image_of(record, image));
}

// Where the kernel cannot poison nothing else is left.
static void wait_for_ends(struct fl_keeper *keeper)
{
    struct fl_record *record;
    uint64_t until = fl_now() + VM_END_MS * FL_NS_PER_MS;
    cds_list_for_each_entry(record, &keeper->records.kind[FL_RECORD_VM], in_kind)
    {
        struct pollfd poll_fd = {.fd = vm_pidfd(record), .events = POLLIN};
        struct timespec left = fl_until(fl_now(), until);
        if (poll_fd.fd >= 0)
            ppoll(&poll_fd, 1, &left, NULL);
    }
}

static bool still(void *arg)
{
    const struct fl_keeper *keeper = arg;
    if (fl_sm_watchdog_ms())
        fl_sm_notify("WATCHDOG=1");
    return fl_now() < keeper->fail_until_ns || keeper->fail_until_ns == FL_NEVER;
}

static unsigned living(const int *uffds, size_t count)
{
    unsigned lives = 0;
    for (size_t i = 0; i < count; i++)
        lives += uffds[i] >= 0 && fl_uffd_alive(uffds[i]);
    return lives;
}

// A VM that cannot be killed, or does not die, is told by poison: as long as it lives, and it may
// wait in the kernel for just that. The last descriptors go when no VM can wait any more.
static void poison_the_rest(struct fl_keeper *keeper)
{
    struct fl_record *record;
    size_t count = 0;
    int *uffds = calloc(keeper->records.vms + 1, sizeof(*uffds));
    if (!uffds)
        return;
    cds_list_for_each_entry(record, &keeper->records.kind[FL_RECORD_VM], in_kind) uffds[count++] =
        record->slots > FL_VM_UFFD ? record->fd[FL_VM_UFFD] : -1;
    keeper->fail_until_ns = fl_now() + VM_END_MS * FL_NS_PER_MS;
    int error = fl_answer_without_image_all(uffds, count, still, keeper);
    unsigned lives = living(uffds, count);
    if (lives > 0 && !error) {
        fl_log(FL_LOG_ERROR,
               "event=kill_failed vms=%u reason=\"the VMs live on, and their pages are poisoned\"",
               lives);
        keeper->fail_until_ns = FL_NEVER;
        fl_answer_without_image_all(uffds, count, still, keeper);
    }
    free(uffds);
}

void fl_keeper_fail_closed(struct fl_keeper *keeper, const char *reason)
{
    fl_log(FL_LOG_ERROR, "event=failing_closed vms=%" PRIu64 " reason=\"%s\"", keeper->records.vms,
           reason);
    struct fl_record *record;
    cds_list_for_each_entry(record, &keeper->records.kind[FL_RECORD_VM], in_kind) kill_vm(record);
    poison_the_rest(keeper);
    wait_for_ends(keeper);
    while (!cds_list_empty(&keeper->records.kind[FL_RECORD_VM])) {
        record =
            cds_list_first_entry(&keeper->records.kind[FL_RECORD_VM], struct fl_record, in_kind);
        fl_records_drop(&keeper->records, FL_RECORD_VM, record->id);
    }
}
