// SPDX-License-Identifier: Apache-2.0
//
// Reads a trace's file into private memory and checks it, or publishes a new one. Any thread;
// blocks on storage. Errors are negative errno.
#ifndef FAULTLINE_SNAPSHOT_TRACE_FILE_H
#define FAULTLINE_SNAPSHOT_TRACE_FILE_H

#include <stdbool.h>

#include "snapshot/format.h"

#define FL_TRACE_SUFFIX ".trace"
#define FL_TRACE_NAME_BYTES (FL_NAME_MAX + sizeof(FL_TRACE_SUFFIX))
// The sums of so many recordings fit into their fields with room to spare.
#define FL_TRACE_RUNS_MAX (1u << 24)

struct fl_trace_file {
    struct fl_disk_trace_header header;
    struct fl_disk_trace_entry *entries; // header.count, from malloc
};

// Returns the file name of an image's trace. -EINVAL: no image may have this name.
int fl_trace_file_name(const char *name, char ret_file[FL_TRACE_NAME_BYTES]);
// Opens traces/ of the store, and makes it with create. -ENOENT: no trace was ever made (without
// create).
int fl_trace_dir_open(int store_fd, bool create, int *ret_fd);
// Waits for the lock that a process holds while it changes or removes traces. Closing the
// descriptor releases it. A process that holds it waits for no other lock. -EINTR, -errno.
int fl_trace_dir_lock(int traces_fd);

// Reads the header alone and verifies it against its checksum, the name and the file's size.
// -ENOENT, -EINVAL (bad name), -EBADMSG, -EPROTONOSUPPORT, errors of reading.
int fl_trace_file_header(int store_fd, const char *name, struct fl_disk_trace_header *ret_header);
// Reads the whole file and verifies every entry. Errors likewise, and -ENOMEM. Release it with
// fl_trace_file_free.
int fl_trace_file_load(int store_fd, const char *name, struct fl_trace_file *ret_file);
void fl_trace_file_free(struct fl_trace_file *file);

// Compares two entries for qsort: the order of replay. A page that more recordings have comes
// first, then the one with the lower mean position, then the lower page number.
int fl_trace_compare(const void *left, const void *right);
// Publishes the trace under the header's name and replaces an older one. Fills in magic, version
// and checksums of the header.
int fl_trace_file_publish(struct fl_trace_file *file, int tmp_fd, int traces_fd);

#endif
