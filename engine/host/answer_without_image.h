// SPDX-License-Identifier: Apache-2.0
//
// Answering every fault of a userfaultfd without the bytes, until its memory is gone: for memory
// that no process can serve any more, and for what is left of a process that was killed. Blocks;
// any thread.
#ifndef FAULTLINE_HOST_ANSWER_WITHOUT_IMAGE_H
#define FAULTLINE_HOST_ANSWER_WITHOUT_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fl_answered {
    uint64_t faults;   // that were read
    uint64_t poisoned; // pages; a thread that touches one gets SIGBUS
    uint64_t zeroed;   // pages of a dying process, where the kernel cannot poison
};

// The caller keeps uffd, and its last reference must not go before this has returned.
// `page_bytes`: of its memory, 0 if not known. `dying`: its process was killed, so zeros will do;
// without that -ENOSYS where the kernel cannot poison (before 6.6). -ENOMEM.
int fl_answer_without_image(int uffd, uint64_t page_bytes, bool dying,
                            struct fl_answered *ret_answered);
// Whether the kernel can poison (Linux 6.6). Changes nothing.
bool fl_answer_can_poison(int uffd);

// The same for many at once, of memory of any page size, while go_on(arg) says so: it is asked
// every 50 ms. The first error, of those that could not be taken on, when the others are gone.
int fl_answer_without_image_all(const int *uffds, size_t count, bool (*go_on)(void *arg),
                                void *arg);

#endif
