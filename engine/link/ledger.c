// SPDX-License-Identifier: Apache-2.0
#include "engine/link/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/base/dontdump.h"
#include "engine/link/ledger_format.h"

// Blocks begin on pages of their own: what two threads count in shares no cache line. UNKNOWN: room
// for series of other versions.
enum { ALIGN = 4096, UNKNOWN_BYTES = 1 << 18 };

static uint64_t align_up(uint64_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

// --- making ---

// NULL with *ret_fd -errno.
static char *map_memfd(uint64_t bytes, int *ret_fd)
{
    int fd = memfd_create("faultline-counters", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    void *map = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    *ret_fd = map == MAP_FAILED ? -errno : fd;
    if (map != MAP_FAILED)
        return map;
    if (fd >= 0)
        close(fd);
    return NULL;
}

// A hole of a memfd that is dumped is allocated for that.
static int map_ledger(struct fl_ledger *ledger)
{
    ledger->map = map_memfd(ledger->bytes, &ledger->fd);
    if (!ledger->map) {
        void *map = mmap(NULL, ledger->bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED)
            return -ENOMEM;
        ledger->map = map;
    }
    fl_dontdump(ledger->map, ledger->bytes);
    return 0;
}

// Where all of them end.
static uint64_t place_blocks(struct fl_ledger *ledger, const struct fl_ledger_shape *shape)
{
    uint64_t at = align_up(sizeof(struct fl_ledger_header) +
                           FL_LEDGER_ENTRIES * sizeof(struct fl_ledger_entry));
    for (unsigned i = 0; i < FL_LEDGER_BLOCKS; i++) {
        ledger->start[i] = at;
        ledger->stride[i] = align_up(shape->bytes[i]);
        at += shape->most[i] * ledger->stride[i];
    }
    return at;
}

static uint64_t carried_bytes(const struct fl_ledger_shape *shape)
{
    uint64_t numbers = 0;
    for (unsigned i = 0; i < shape->count; i++)
        numbers += (uint64_t)shape->series[i].rows * shape->series[i].values;
    return align_up(numbers * sizeof(uint64_t));
}

static void write_entry(struct fl_ledger *ledger, unsigned number,
                        const struct fl_ledger_series *series, uint64_t carried)
{
    uint64_t start = ledger->start[series->block];
    struct fl_ledger_entry *entry = &fl_ledger_table(ledger)[number];
    *entry = (struct fl_ledger_entry){
        .block = series->block,
        .combine = series->combine,
        .values = series->values,
        .rows = series->rows,
        .key_bytes = series->key_bytes,
        .offset = start + series->offset,
        .block_stride = ledger->stride[series->block],
        .row_stride = series->row_stride,
        .key_offset = start + series->key_offset,
        .key_stride = series->row_stride,
        .carried = carried,
    };
    snprintf(entry->name, sizeof(entry->name), "%s", series->name);
}

int fl_ledger_new(const struct fl_ledger_shape *shape, struct fl_ledger **ret_ledger)
{
    struct fl_ledger *ledger = calloc(1, sizeof(*ledger));
    if (!ledger || shape->count > FL_LEDGER_ENTRIES / 2) {
        free(ledger);
        return -ENOMEM;
    }
    uint64_t carried = place_blocks(ledger, shape);
    ledger->free = carried + carried_bytes(shape);
    ledger->bytes = ledger->free + UNKNOWN_BYTES;
    if (map_ledger(ledger) != 0) {
        free(ledger);
        return -ENOMEM;
    }
    struct fl_ledger_header *header = fl_ledger_header(ledger);
    for (unsigned i = 0; i < shape->count; i++) {
        const struct fl_ledger_series *series = &shape->series[i];
        write_entry(ledger, i, series, carried);
        carried += (uint64_t)series->rows * series->values * sizeof(uint64_t);
    }
    header->version = FL_LEDGER_VERSION;
    header->entry_bytes = sizeof(struct fl_ledger_entry);
    header->bytes = ledger->bytes;
    header->entries = shape->count;
    header->magic = FL_LEDGER_MAGIC;
    *ret_ledger = ledger;
    return 0;
}

void fl_ledger_free(struct fl_ledger *ledger)
{
    if (!ledger)
        return;
    munmap(ledger->map, ledger->bytes);
    if (ledger->fd >= 0)
        close(ledger->fd);
    free(ledger);
}

int fl_ledger_fd(const struct fl_ledger *ledger)
{
    return ledger->fd;
}

// --- counting ---

void *fl_ledger_block(struct fl_ledger *ledger, enum fl_ledger_block block, unsigned index)
{
    _Atomic uint32_t *used = &fl_ledger_header(ledger)->blocks[block];
    uint32_t before = atomic_load(used);
    while (before < index + 1 && !atomic_compare_exchange_weak(used, &before, index + 1)) {
    }
    return ledger->map + ledger->start[block] + index * ledger->stride[block];
}

fl_counter *fl_ledger_carried(struct fl_ledger *ledger, unsigned series)
{
    return (fl_counter *)(ledger->map + fl_ledger_table(ledger)[series].carried);
}

void fl_ledger_includes(struct fl_ledger *ledger, uint64_t record)
{
    atomic_store(&fl_ledger_header(ledger)->includes, record);
}
