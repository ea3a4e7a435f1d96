// SPDX-License-Identifier: Apache-2.0
//
// The reading side of traces.
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/image.h"
#include "snapshot/reader.h"
#include "snapshot/trace_file.h"

struct fl_trace {
    atomic_uint refs;
    // Immutable from the time the trace is open.
    uint32_t runs;
    uint64_t count;
    struct fl_trace_entry entries[];
};

static int compare_pages(const void *left, const void *right)
{
    const struct fl_trace_entry *a = left;
    const struct fl_trace_entry *b = right;
    return a->page < b->page ? -1 : a->page > b->page;
}

static void sort_windows(struct fl_trace *trace)
{
    for (uint64_t first = 0; first < trace->count; first += FL_TRACE_WINDOW) {
        uint64_t left = trace->count - first;
        uint64_t pages = left < FL_TRACE_WINDOW ? left : FL_TRACE_WINDOW;
        qsort(&trace->entries[first], pages, sizeof(trace->entries[0]), compare_pages);
    }
}

static struct fl_trace *from_file(const struct fl_trace_file *file)
{
    uint64_t count = file->header.count;
    struct fl_trace *trace = malloc(sizeof(*trace) + count * sizeof(trace->entries[0]));
    if (!trace)
        return NULL;
    atomic_init(&trace->refs, 1);
    trace->runs = file->header.runs;
    trace->count = count;
    for (uint64_t i = 0; i < count; i++) {
        const struct fl_disk_trace_entry *entry = &file->entries[i];
        trace->entries[i] = (struct fl_trace_entry){
            .page = entry->page,
            .ms = (uint32_t)(entry->ms / entry->seen), // each at most UINT32_MAX
            .seen = entry->seen,
        };
    }
    sort_windows(trace);
    return trace;
}

int fl_trace_open(struct fl_reader *reader, const struct fl_image *image,
                  struct fl_trace **ret_trace)
{
    struct fl_trace_file file;
    const uint8_t *content_id = fl_image_content_id(image);
    if (!content_id)
        return -ENOENT;
    int r = fl_trace_file_load(reader->dir_fd, fl_image_name(image), &file);
    if (r < 0)
        return r;
    struct fl_trace *trace = NULL;
    if (memcmp(file.header.content_id.bytes, content_id, FL_IDENTITY_BYTES) != 0)
        r = -ESTALE;
    else if (file.header.pages != fl_image_pages(image))
        r = -EBADMSG;
    else
        trace = from_file(&file);
    fl_trace_file_free(&file);
    if (r == 0 && !trace)
        r = -ENOMEM;
    if (r == 0)
        *ret_trace = trace;
    return r;
}

struct fl_trace *fl_trace_ref(struct fl_trace *trace)
{
    // Relaxed: the caller holds a reference already, so nothing is handed over here.
    atomic_fetch_add_explicit(&trace->refs, 1, memory_order_relaxed);
    return trace;
}

void fl_trace_unref(struct fl_trace *trace)
{
    // Release pairs with the acquire of the thread that drops the last reference: all uses are over
    // before the free.
    if (trace && atomic_fetch_sub_explicit(&trace->refs, 1, memory_order_acq_rel) == 1)
        free(trace);
}

uint32_t fl_trace_runs(const struct fl_trace *trace)
{
    return trace->runs;
}

uint64_t fl_trace_count(const struct fl_trace *trace)
{
    return trace->count;
}

const struct fl_trace_entry *fl_trace_entries(const struct fl_trace *trace)
{
    return trace->entries;
}
