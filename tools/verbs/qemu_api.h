// SPDX-License-Identifier: Apache-2.0
//
// The few orders that a checkpoint gives a QEMU over QMP: stop, write the state of the devices to a
// descriptor, cont. One thread; a call waits for the answer. Each returns 0, or -errno and a
// sentence.
//
// The state is that of a migration with the capability x-ignore-shared, which leaves out memory
// whose backend has share=on (migration/ram.c of QEMU 7.2: ramblock_is_ignored()).
#ifndef FAULTLINE_TOOLS_VERBS_QEMU_API_H
#define FAULTLINE_TOOLS_VERBS_QEMU_API_H

#include <stdbool.h>

#include "tools/verbs/qmp.h"

enum qemu_migration { QEMU_MIGRATES_NOTHING, QEMU_MIGRATES, QEMU_HAS_MIGRATED, QEMU_FAILED };

// Whether the VM runs, or is stopped and can go on; any other state is an error.
int qemu_is_running(struct qmp *qmp, bool *ret_running, struct fl_error *ret_error);
// Whether there is one memory backend, with share=on: the memory of another one would be neither in
// the image nor in the state, or else in the latter.
int qemu_check_memory(struct qmp *qmp, struct fl_error *ret_error);
// Whether x-ignore-shared is set. An error if this QEMU has no such capability.
int qemu_ignores_shared(struct qmp *qmp, bool *ret_set, struct fl_error *ret_error);
int qemu_ignore_shared(struct qmp *qmp, bool set, struct fl_error *ret_error);

int qemu_stop(struct qmp *qmp, unsigned timeout_ms, struct fl_error *ret_error);
int qemu_cont(struct qmp *qmp, unsigned timeout_ms, struct fl_error *ret_error);
// Begins to write the state to the descriptor, of which QEMU gets its own.
int qemu_migrate(struct qmp *qmp, int fd, struct fl_error *ret_error);
// How far that is. If it has failed, the sentence is set, too.
int qemu_look(struct qmp *qmp, enum qemu_migration *ret_migration, struct fl_error *ret_error);
// Ends it, and waits until it has ended.
int qemu_cancel(struct qmp *qmp, unsigned timeout_ms);

#endif
