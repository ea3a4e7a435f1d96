// SPDX-License-Identifier: Apache-2.0
//
// What the operations on a store need to know of its traces.
#ifndef FAULTLINE_SNAPSHOT_TRACE_STORE_H
#define FAULTLINE_SNAPSHOT_TRACE_STORE_H

#include "snapshot/format.h"
#include "snapshot/store_dir.h"

// Returns 0 if the store has a trace of this image, by a look at the header alone. -ENOENT,
// -ESTALE, -EBADMSG and so on are those of fl_trace_open.
int fl_trace_check(struct fl_store *store, const struct fl_disk_image_header *image,
                   struct fl_disk_trace_header *ret_header);
struct fl_trace_info fl_trace_info(struct fl_store *store,
                                   const struct fl_disk_image_header *image);
// Reads the header of the image of this name. -ENOENT and the errors of reading one.
int fl_trace_image(struct fl_store *store, const char *name,
                   struct fl_disk_image_header *ret_image);
// Gives a new image the trace of its parent, if that has one of this content. *ret_pages is how
// many pages it has, 0 if there is none to inherit or the image has one already. The caller holds
// the store's lock. Errors of reading and writing a trace.
int fl_trace_inherit(struct fl_store *store, const char *parent, const uint8_t *parent_content_id,
                     const struct fl_disk_image_header *child, uint64_t *ret_pages);
// Removes the file. -ENOENT: there is none.
int fl_trace_remove(struct fl_store *store, const char *name);
// Calls fn with the image name of each trace; stops at its first non-zero result and returns it.
int fl_trace_each(struct fl_store *store, int (*fn)(void *arg, const char *name), void *arg);
// Returns what to say of an error of reading a trace. The text is constant or strerror()'s.
const char *fl_trace_strerror(int error);

#endif
