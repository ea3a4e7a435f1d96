// SPDX-License-Identifier: Apache-2.0
//
// No engine can be kept alive: the VMs are killed, or poisoned, before their userfaultfds go.
#include "engine/keeper/keeper_internal.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/host/answer_without_image.h"
#include "engine/host/uffd.h"
#include "engine/keeper/service_manager.h"
#include "engine/vm/vm_state.h"

enum { VM_END_MS = 10000, FILE_MOST = 1024 };

static int vm_pidfd(const struct fl_record *record)
{
    return record->slots > FL_VM_PIDFD ? record->fd[FL_VM_PIDFD] : -1;
}

// For the log alone: what the engine wrote down of a VM, and the file of its image.
struct known {
    char image[FL_IMAGE_NAME_BYTES];
    char file[FILE_MOST];
};

static int slot_of(const struct fl_record *record, uint32_t slot)
{
    return record && record->slots > slot ? record->fd[slot] : -1;
}

static void look_up(struct fl_keeper *keeper, const struct fl_record *record, struct known *known)
{
    char link[32];
    uint64_t image = 0;
    int state = slot_of(record, FL_VM_STATE);
    size_t name = sizeof(known->image) - 1;
    memset(known, 0, sizeof(*known));
    if (pread(state, known->image, name, offsetof(struct fl_vm_state, image)) <= 0 ||
        !*known->image)
        strcpy(known->image, "-");
    strcpy(known->file, "-");
    if (pread(state, &image, sizeof(image), offsetof(struct fl_vm_state, image_record)) !=
        (ssize_t)sizeof(image))
        return;
    int file = slot_of(fl_records_find(&keeper->records, FL_RECORD_IMAGE, image), 0);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, known->file, sizeof(known->file) - 1);
    if (length > 0)
        known->file[length] = '\0';
}

static void kill_vm(struct fl_keeper *keeper, const struct fl_record *record)
{
    struct known known;
    int pidfd = vm_pidfd(record);
    bool killed = pidfd >= 0 && syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) == 0;
    look_up(keeper, record, &known);
    if (killed)
        fl_log(FL_LOG_ERROR,
               "event=kill vm=%" PRIu64 " image=%s reason=\"no engine can serve it\" file=%s",
               record->id, known.image, known.file);
    else
        fl_log(FL_LOG_ERROR,
               "event=kill_failed vm=%" PRIu64
               " image=%s reason=\"no engine can serve it\" file=%s",
               record->id, known.image, known.file);
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
    cds_list_for_each_entry(record, &keeper->records.kind[FL_RECORD_VM], in_kind)
        kill_vm(keeper, record);
    poison_the_rest(keeper);
    wait_for_ends(keeper);
    while (!cds_list_empty(&keeper->records.kind[FL_RECORD_VM])) {
        record =
            cds_list_first_entry(&keeper->records.kind[FL_RECORD_VM], struct fl_record, in_kind);
        fl_records_drop(&keeper->records, FL_RECORD_VM, record->id);
    }
    fl_keeper_unmount_files(keeper);
}
