// SPDX-License-Identifier: Apache-2.0
//
// Memory that is lacking for a VM's pages: noticed, counted, and named. A shortage of a VM lasts
// from the first fill for which there was no memory to the next one for which there was.
#ifndef FAULTLINE_SERVE_SHORTAGE_H
#define FAULTLINE_SERVE_SHORTAGE_H

#include <stdbool.h>
#include <stddef.h>

struct fl_vm;

// Owner only. A line in the log for the first, second, fourth ... of the VM.
void fl_shortage_begin(struct fl_vm *vm);
void fl_shortage_end(struct fl_vm *vm);

// Any thread: whether there is no page of 2 MiB for us to fill just now, in the pool or in our
// cgroup. Reads /sys and cgroups.
bool fl_shortage_of_huge_pages(void);

// What is lacking for the VM's pages, looked up now: a sentence. Reads /proc, /sys and cgroups.
const char *fl_shortage_reason(const struct fl_vm *vm, char *buf, size_t size);

#endif
