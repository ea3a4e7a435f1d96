// SPDX-License-Identifier: Apache-2.0
//
// A child of an image begins with the trace of its parent: a trace has pages by their number, and
// what VMs touch first after a restore is much the same a moment later. Recordings of the child are
// merged into it as they would be into the parent's.
#include <errno.h>
#include <string.h>

#include "snapshot/io.h"
#include "snapshot/trace_file.h"
#include "snapshot/trace_store.h"

// What the child does not have is left out. The order stays.
static void keep_pages(struct fl_trace_file *trace, uint64_t pages)
{
    uint64_t kept = 0;
    for (uint64_t i = 0; i < trace->header.count; i++) {
        if (trace->entries[i].page < pages)
            trace->entries[kept++] = trace->entries[i];
    }
    trace->header.count = kept;
}

// The trace of a name may be of other content than the parent was, or the child than it is: then
// there is nothing to inherit.
static int load(struct fl_store *store, const char *parent, const uint8_t *parent_content_id,
                const struct fl_disk_image_header *child, struct fl_trace_file *ret_trace)
{
    struct fl_disk_image_header now;
    struct fl_disk_trace_header own;
    int r = fl_trace_image(store, child->name, &now);
    if (r == 0 && memcmp(&now.content_id, &child->content_id, sizeof(now.content_id)) != 0)
        r = -ESTALE;
    if (r == 0 && fl_trace_check(store, child, &own) == 0)
        r = -EEXIST;
    if (r == 0)
        r = fl_trace_file_load(store->reader->dir_fd, parent, ret_trace);
    if (r == 0 &&
        memcmp(&ret_trace->header.content_id, parent_content_id, FL_IDENTITY_BYTES) != 0) {
        fl_trace_file_free(ret_trace);
        r = -ESTALE;
    }
    return r;
}

int fl_trace_inherit(struct fl_store *store, const char *parent, const uint8_t *parent_content_id,
                     const struct fl_disk_image_header *child, uint64_t *ret_pages)
{
    FL_AUTO_CLOSE int traces_fd = -1; // closing it unlocks
    struct fl_trace_file trace = {.entries = NULL};
    *ret_pages = 0;
    int r = fl_trace_dir_open(store->reader->dir_fd, false, &traces_fd);
    if (r == 0)
        r = fl_trace_dir_lock(traces_fd);
    if (r == 0)
        r = load(store, parent, parent_content_id, child, &trace);
    if (r < 0)
        return r == -ENOENT || r == -ESTALE || r == -EEXIST ? 0 : r;
    keep_pages(&trace, child->pages);
    if (trace.header.count > 0) {
        trace.header.pages = child->pages;
        trace.header.content_id = child->content_id;
        memset(trace.header.name, 0, sizeof(trace.header.name));
        memcpy(trace.header.name, child->name, strlen(child->name));
        r = fl_trace_file_publish(&trace, store->tmp_fd, traces_fd);
        *ret_pages = r == 0 ? trace.header.count : 0;
    }
    fl_trace_file_free(&trace);
    return r;
}
