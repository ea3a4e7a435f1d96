// SPDX-License-Identifier: Apache-2.0
#include "snapshot/pack_live.h"

#include <errno.h>
#include <string.h>

#include "snapshot/io.h"
#include "snapshot/store_dir.h"

// A batch with so many pages is not made longer: it has work enough.
enum { BATCH_PAGES = FL_CHUNK_PAGES / 2 };

static int await_chunk(struct fl_pack_run *run, struct fl_chunk *chunk)
{
    uint64_t number = run->next_page / FL_CHUNK_PAGES;
    int r = run->offer ? fl_offer_next(run->offer, run->live, &number) : 0;
    uint64_t left = run->input_pages - number * FL_CHUNK_PAGES;
    chunk->first_page = number * FL_CHUNK_PAGES;
    chunk->pages = left < FL_CHUNK_PAGES ? left : FL_CHUNK_PAGES;
    return run->offer ? r : run->live->await(run->live->arg, chunk->first_page, chunk->pages);
}

// next_page counts the pages that were taken, wherever they are.
int fl_live_next(struct fl_pack_run *run, struct fl_chunk *chunk)
{
    const struct fl_pack_live *live = run->live;
    int r = await_chunk(run, chunk);
    if (r < 0)
        return fl_pack_failed(run, FL_FAULT_AWAIT, r);
    run->next_page += chunk->pages;
    run->last_page_at = fl_seconds_wall();
    chunk->data_pages = 0;
    for (uint64_t page = 0; page < chunk->pages; page++)
        chunk->data_pages += live->page(live->arg, chunk->first_page + page) == FL_LIVE_DATA;
    return 1;
}

int fl_live_settle(struct fl_pack_run *run)
{
    int r = run->settled ? 0 : run->live->settle(run->live->arg);
    run->settled = r == 0;
    return r < 0 ? fl_pack_failed(run, FL_FAULT_AWAIT, r) : 0;
}

bool fl_live_more(const struct fl_pack_run *run, const struct fl_batch *batch)
{
    uint64_t left = run->input_pages - run->next_page;
    uint64_t pages = left < FL_CHUNK_PAGES ? left : FL_CHUNK_PAGES;
    uint32_t data = 0;
    for (unsigned i = 0; i < batch->count; i++)
        data += batch->chunk[i].data_pages;
    return batch->count < batch->room && pages > 0 && data < BATCH_PAGES &&
           run->live->ready(run->live->arg, run->next_page, pages);
}

// Of the page's bytes, those that the image has: the last page may be shorter.
static size_t page_bytes(const struct fl_pack_run *run, uint64_t page)
{
    uint64_t left = run->input_bytes - page * FL_PAGE_SIZE;
    return left < FL_PAGE_SIZE ? (size_t)left : FL_PAGE_SIZE;
}

// A parent's page may have bytes where the image ends already.
static int cut_page(struct fl_pack_run *run, struct fl_chunk *chunk, uint32_t page,
                    const struct fl_pack_worker *worker)
{
    uint8_t *at = fl_chunk_add(chunk, page, 1);
    size_t bytes = page_bytes(run, chunk->first_page + page);
    int r = fl_parent_read_page(run->parent, chunk->first_page + page, worker->room, at);
    if (r < 0)
        return fl_pack_failed(run, FL_FAULT_PARENT, r);
    memset(at + bytes, 0, FL_PAGE_SIZE - bytes);
    return 0;
}

static int take_parent(struct fl_pack_run *run, struct fl_chunk *chunk, uint32_t page,
                       const struct fl_pack_worker *worker)
{
    uint64_t entry = 0;
    if (!run->parent)
        return fl_pack_failed(run, FL_FAULT_PARENT, -EINVAL);
    entry = fl_parent_entry(run->parent, chunk->first_page + page);
    if (entry != 0 && page_bytes(run, chunk->first_page + page) < FL_PAGE_SIZE)
        return cut_page(run, chunk, page, worker);
    chunk->zero[page] = entry == 0;
    chunk->known[page] = entry != 0;
    chunk->inherited[page] = entry;
    return 0;
}

static int read_data(struct fl_pack_run *run, struct fl_chunk *chunk, uint32_t page, uint32_t pages)
{
    uint8_t *at = fl_chunk_add(chunk, page, pages);
    uint64_t first = chunk->first_page + page;
    size_t bytes = (size_t)(pages - 1) * FL_PAGE_SIZE + page_bytes(run, first + pages - 1);
    chunk->data_bytes += bytes;
    memset(at + bytes, 0, (size_t)pages * FL_PAGE_SIZE - bytes);
    int r = fl_pread_full(run->live->buffer_fd, at, bytes, first * FL_PAGE_SIZE);
    return r < 0 ? fl_pack_failed(run, FL_FAULT_INPUT, r == -EBADMSG ? -ENODATA : r) : 0;
}

static int read_pages(struct fl_pack_run *run, struct fl_chunk *chunk,
                      const struct fl_pack_worker *worker)
{
    const struct fl_pack_live *live = run->live;
    uint32_t data = 0; // pages with bytes right before this one
    int r = 0;
    for (uint32_t page = 0; r == 0 && page < chunk->pages; page++) {
        enum fl_live_page what = live->page(live->arg, chunk->first_page + page);
        if (what == FL_LIVE_DATA) {
            data++;
            continue;
        }
        if (data > 0)
            r = read_data(run, chunk, page - data, data);
        data = 0;
        chunk->zero[page] = what == FL_LIVE_ZERO;
        if (r == 0 && what == FL_LIVE_PARENT)
            r = take_parent(run, chunk, page, worker);
    }
    if (r == 0 && data > 0)
        r = read_data(run, chunk, (uint32_t)chunk->pages - data, data);
    return r;
}

static bool all_zero(const struct fl_chunk *chunk)
{
    return !memchr(chunk->zero, false, chunk->pages);
}

int fl_live_read(struct fl_pack_run *run, struct fl_chunk *chunk,
                 const struct fl_pack_worker *worker)
{
    int r = read_pages(run, chunk, worker);
    if (r < 0)
        return r;
    run->live->consumed(run->live->arg, chunk->first_page, chunk->pages);
    if (run->parent) {
        r = fl_parent_look(run->parent, chunk, worker->identities);
        if (r == 0)
            r = fl_parent_settle(run->parent, chunk, run->check, worker->room);
        if (r < 0)
            return fl_pack_failed(run, FL_FAULT_PARENT, r);
    }
    chunk->hole = all_zero(chunk);
    return 0;
}
