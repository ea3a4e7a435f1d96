// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. Recordings are merged into a trace. A page's place in a recording counts as
// a share of the recording, index * 2^32 / pages: so a recording of a longer window, or of a busier
// VM, weighs no more than any other. The file has sums, not means, so any order of merging gives
// the same file. A lock on traces/ keeps two processes that merge from losing each other's
// recordings.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/image.h"
#include "snapshot/image_file.h"
#include "snapshot/io.h"
#include "snapshot/store_dir.h"
#include "snapshot/trace_file.h"
#include "snapshot/trace_store.h"

struct merge {
    struct fl_store *store;
    struct fl_disk_image_header image;
    struct fl_trace_file trace;
    uint64_t *numbers; // for each image page: 1 + its index in the entries, or 0
    uint64_t *marks;   // bitmap: pages that came before in this recording
};

// Reads the trace to merge into. A missing or stale trace counts as an empty one.
static int read_trace(struct merge *merge)
{
    struct fl_disk_trace_header header;
    int r = fl_trace_check(merge->store, &merge->image, &header);
    if (r == 0)
        r = fl_trace_file_load(merge->store->reader->dir_fd, merge->image.name, &merge->trace);
    return r == -ENOENT || r == -ESTALE ? 0 : r;
}

// The arrays by page are as large as the image's map; only the parts that are used take memory.
static int make_room(struct merge *merge, const struct fl_recording *recordings, unsigned count)
{
    uint64_t pages = merge->image.pages;
    uint64_t room = merge->trace.header.count;
    for (unsigned i = 0; i < count && room < pages; i++)
        room = recordings[i].count < pages - room ? room + recordings[i].count : pages;
    struct fl_disk_trace_entry *grown =
        realloc(merge->trace.entries, (room ? room : 1) * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    merge->trace.entries = grown;
    merge->numbers = calloc(pages, sizeof(*merge->numbers));
    merge->marks = calloc(pages / 64 + 1, sizeof(*merge->marks));
    if (!merge->numbers || !merge->marks)
        return -ENOMEM;
    for (uint64_t i = 0; i < merge->trace.header.count; i++)
        merge->numbers[grown[i].page] = i + 1;
    return 0;
}

// Returns true the first time that the page comes in this recording.
static bool mark_page(struct merge *merge, uint64_t page)
{
    uint64_t bit = UINT64_C(1) << page % 64;
    bool first = !(merge->marks[page / 64] & bit);
    merge->marks[page / 64] |= bit;
    return first;
}

static void unmark_all(struct merge *merge, const struct fl_recording *recording)
{
    for (uint64_t i = 0; i < recording->count; i++)
        merge->marks[recording->entries[i].page / 64] = 0;
}

static struct fl_disk_trace_entry *entry_of(struct merge *merge, uint64_t page)
{
    uint64_t *number = &merge->numbers[page];
    if (*number == 0) {
        struct fl_disk_trace_entry *entry = &merge->trace.entries[merge->trace.header.count++];
        *entry = (struct fl_disk_trace_entry){.page = page};
        *number = merge->trace.header.count;
    }
    return &merge->trace.entries[*number - 1];
}

static uint64_t count_first(struct merge *merge, const struct fl_recording *recording)
{
    uint64_t first = 0;
    for (uint64_t i = 0; i < recording->count; i++)
        first += mark_page(merge, recording->entries[i].page);
    unmark_all(merge, recording);
    return first;
}

static uint64_t share(uint64_t index, uint64_t of)
{
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t)(((wide)index << 32) / of);
}

static void add_recording(struct merge *merge, const struct fl_recording *recording)
{
    uint64_t of = count_first(merge, recording);
    uint64_t index = 0;
    for (uint64_t i = 0; i < recording->count; i++) {
        const struct fl_trace_entry *touch = &recording->entries[i];
        if (!mark_page(merge, touch->page))
            continue;
        struct fl_disk_trace_entry *entry = entry_of(merge, touch->page);
        entry->positions += share(index++, of);
        entry->ms += touch->ms;
        entry->seen++;
    }
    unmark_all(merge, recording);
    merge->trace.header.runs++;
}

static int check_recording(const struct merge *merge, const struct fl_recording *recording)
{
    if (recording->content_id &&
        memcmp(recording->content_id, &merge->image.content_id, FL_IDENTITY_BYTES) != 0)
        return -ESTALE;
    for (uint64_t i = 0; i < recording->count; i++) {
        if (recording->entries[i].page >= merge->image.pages)
            return -EINVAL;
    }
    return 0;
}

static int check_recordings(const struct merge *merge, const struct fl_recording *recordings,
                            unsigned count)
{
    uint64_t runs = 0;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < count; i++) {
        r = check_recording(merge, &recordings[i]);
        runs += recordings[i].count > 0;
    }
    if (r < 0)
        return r;
    return runs == 0 ? -ENODATA : runs > FL_TRACE_RUNS_MAX ? -EOVERFLOW : 0;
}

static int publish_trace(struct merge *merge, int traces_fd)
{
    struct fl_disk_trace_header *header = &merge->trace.header;
    header->pages = merge->image.pages;
    header->content_id = merge->image.content_id;
    memcpy(header->name, merge->image.name, sizeof(header->name));
    qsort(merge->trace.entries, header->count, sizeof(*merge->trace.entries), fl_trace_compare);
    return fl_trace_file_publish(&merge->trace, merge->store->tmp_fd, traces_fd);
}

// Call it with traces/ locked, so that two processes that merge do not undo each other's work.
static int merge_locked(struct merge *merge, const struct fl_recording *recordings, unsigned count,
                        bool replace, int traces_fd)
{
    int r = replace ? 0 : read_trace(merge);
    if (r == 0 && merge->trace.header.runs + (uint64_t)count > FL_TRACE_RUNS_MAX)
        r = -EOVERFLOW;
    if (r == 0)
        r = make_room(merge, recordings, count);
    for (unsigned i = 0; r == 0 && i < count; i++) {
        if (recordings[i].count > 0)
            add_recording(merge, &recordings[i]);
    }
    return r < 0 ? r : publish_trace(merge, traces_fd);
}

// While this process waited for the lock the image may have been replaced, and a trace of the new
// image may have been published, which must not be replaced by this one.
static int check_image(struct merge *merge)
{
    const struct fl_disk_image_header before = merge->image;
    int r = fl_trace_image(merge->store, before.name, &merge->image);
    if (r == -ENOENT || (r == 0 && memcmp(&before.content_id, &merge->image.content_id,
                                          sizeof(before.content_id)) != 0))
        r = -ESTALE;
    return r;
}

static int lock_and_merge(struct merge *merge, const struct fl_recording *recordings,
                          unsigned count, bool replace)
{
    FL_AUTO_CLOSE int traces_fd = -1; // closing it unlocks
    int r = check_recordings(merge, recordings, count);
    if (r == 0)
        r = fl_trace_dir_open(merge->store->reader->dir_fd, true, &traces_fd);
    if (r == 0)
        r = fl_trace_dir_lock(traces_fd);
    if (r == 0)
        r = check_image(merge);
    return r < 0 ? r : merge_locked(merge, recordings, count, replace, traces_fd);
}

static int merge_failed(const struct merge *merge, const char *name, int error,
                        struct fl_error *ret_error)
{
    if (error == -ENODATA)
        return fl_fail_plain(ret_error, error,
                             "no page was recorded: there is nothing to keep as a trace of '%s'",
                             name);
    if (error == -EINVAL)
        return fl_fail_plain(
            ret_error, error,
            "the recording is not of image '%s': it has a page beyond the image's %llu", name,
            (unsigned long long)merge->image.pages);
    if (error == -ESTALE)
        return fl_fail_plain(
            ret_error, error,
            "the recording is not of image '%s' as it is now: it was replaced or removed", name);
    if (error == -EOVERFLOW)
        return fl_fail_plain(ret_error, error,
                             "the trace of image '%s' is merged from so many recordings that no "
                             "other fits: replace it",
                             name);
    if (error == -EBADMSG || error == -EPROTONOSUPPORT)
        return fl_fail_plain(ret_error, error,
                             "nothing can be added to the trace of image '%s': %s; replace or "
                             "remove it",
                             name, fl_trace_strerror(error));
    return fl_fail(ret_error, error, "cannot write the trace of image '%s'", name);
}

int fl_store_trace_merge(struct fl_store *store, const char *name,
                         const struct fl_recording *recordings, unsigned count, bool replace,
                         struct fl_error *ret_error)
{
    struct merge merge = {.store = store};
    int r = fl_trace_image(store, name, &merge.image);
    if (r < 0)
        return fl_image_failed(store, name, r, ret_error);
    r = fl_store_lock(store, FL_LOCK_SHARED, ret_error);
    if (r < 0)
        return r;
    r = lock_and_merge(&merge, recordings, count, replace);
    fl_store_unlock(store);
    fl_trace_file_free(&merge.trace);
    free(merge.numbers);
    free(merge.marks);
    return r < 0 ? merge_failed(&merge, name, r, ret_error) : 0;
}
