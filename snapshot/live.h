// SPDX-License-Identifier: Apache-2.0
//
// What fl_store_pack() can take in the place of a memory file: the pages of a VM that runs. They
// come into a buffer while they are packed, in any order. Pages that did not change are as in a
// parent image; they are neither read nor compressed.
//
// Threads: `await` and `ready`, or `look` and `settle`, are called for one chunk at a time, and the
// other functions of the source from several threads at once. A chunk is 512 pages (2 MiB), and the
// last may be shorter.
#ifndef FAULTLINE_SNAPSHOT_LIVE_H
#define FAULTLINE_SNAPSHOT_LIVE_H

#include <stdbool.h>
#include <stdint.h>

enum fl_live_page {
    FL_LIVE_DATA,   // its bytes are in the buffer
    FL_LIVE_ZERO,   // zeros
    FL_LIVE_PARENT, // as in the parent image; zeros beyond that one's end
};

struct fl_pack_live {
    int buffer_fd;  // the bytes of page p are at p * FL_PAGE_SIZE; the caller's
    uint64_t bytes; // of the memory file that the image stands for, at least 1
    // Waits until these pages are done: what `page` says of them, and their bytes, do not change
    // any more. Negative errno ends the packing with this error, and nothing is published.
    // In order.
    int (*await)(void *arg, uint64_t first, uint64_t count);
    // May be NULL. True if `await` of these pages would return 0 at once: then they are packed
    // together with those before, which costs less where little has changed. Called as `await` is.
    bool (*ready)(void *arg, uint64_t first, uint64_t count);
    // Of an image on offer (fl_offer_new()), in the place of `await`: 1 if these pages are done, 0
    // if they are not, negative errno as of `await`. `hurry`: a VM waits for them; this is so until
    // another chunk is hurried. In any order.
    int (*look)(void *arg, uint64_t first, uint64_t count, bool hurry);
    // Also of an image on offer: waits until the image may be published. All pages were read.
    int (*settle)(void *arg);
    // May be NULL. The image is on offer: it can be restored.
    void (*offered)(void *arg);
    enum fl_live_page (*page)(void *arg, uint64_t page);
    // The bytes of these pages were read, and will not be again.
    void (*consumed)(void *arg, uint64_t first, uint64_t count);
    // May be NULL. The packing has failed or was cancelled: `await` returns soon, with any error.
    // Called once, and must not block.
    void (*stop)(void *arg);
    // May be NULL. The image is in its place and can be restored; what is left is the index. Called
    // once, from the thread that called fl_store_pack().
    void (*published)(void *arg, const uint8_t *content_id);
    void *arg;
    const char *parent; // name of an image of the store; NULL: no page is the parent's
    const uint8_t *parent_content_id; // its 32 bytes; with another content it is not the parent
};

#endif
