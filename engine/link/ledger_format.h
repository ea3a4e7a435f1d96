// SPDX-License-Identifier: Apache-2.0
//
// A ledger (ledger.h) as it lies in its memfd:
//
//   ledger  := header | table of entries | blocks of each kind | numbers that were carried over
//              | names and numbers of series that this version does not know
//
// All positions are bytes from the beginning, and all numbers are of 8 bytes, aligned. The header's
// `includes` is set when all carrying over is done: until then what was carried over does not
// count, as its source is still there.
#ifndef FAULTLINE_LINK_LEDGER_FORMAT_H
#define FAULTLINE_LINK_LEDGER_FORMAT_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

// What blocks there are. The numbers are kept between versions.
enum fl_ledger_block {
    FL_LEDGER_THREADS, // one of each worker and lane
    FL_LEDGER_CONTROL,
    FL_LEDGER_CACHE,
    FL_LEDGER_LANES,
    FL_LEDGER_IMAGES,
    FL_LEDGER_BLOCKS,
};

enum fl_ledger_combine {
    FL_LEDGER_ADD,
    FL_LEDGER_MAX, // the largest counts: of what can only grow, but is no sum
};

enum { FL_LEDGER_NAME = 64 };

#define FL_LEDGER_MAGIC 0x7267646c746c6166ULL // "faltldgr", little-endian
enum {
    FL_LEDGER_VERSION = 1,
    FL_LEDGER_KINDS = 16, // of blocks, with room for those to come
    FL_LEDGER_ENTRIES = 1024,
    FL_LEDGER_NO_BLOCK = 0xffff,     // all of the series was carried over
    FL_LEDGER_NUMBERS_MAX = 1 << 16, // of one series
    FL_LEDGER_BLOCKS_MAX = 1 << 12,
};

struct fl_ledger_entry {
    char name[FL_LEDGER_NAME];
    uint32_t block; // kind; FL_LEDGER_NO_BLOCK
    uint32_t combine;
    uint32_t values;
    uint32_t rows;
    uint32_t key_bytes;
    uint32_t zero;
    uint64_t offset; // of the first number in the first block
    uint64_t block_stride;
    uint64_t row_stride;
    uint64_t key_offset;
    uint64_t key_stride;
    uint64_t carried; // rows times values, without gaps
};

struct fl_ledger_header {
    uint64_t magic;
    uint32_t version;
    uint32_t entry_bytes;
    uint64_t bytes;
    _Atomic uint64_t includes;                // record of the last ledger that is in it; 0: none
    _Atomic uint32_t entries;                 // in the table
    _Atomic uint32_t blocks[FL_LEDGER_KINDS]; // in use
};

static_assert(sizeof(struct fl_ledger_entry) == 136, "the format of version 1");
static_assert(offsetof(struct fl_ledger_header, entries) == 32, "the format of version 1");

struct fl_ledger {
    char *map; // header first
    uint64_t bytes;
    int fd;                           // -errno: there is none
    uint64_t start[FL_LEDGER_BLOCKS]; // of the first block of each kind; of our own ledger
    uint64_t stride[FL_LEDGER_BLOCKS];
    uint64_t free; // where numbers of unknown series go next
};

static inline struct fl_ledger_header *fl_ledger_header(const struct fl_ledger *ledger)
{
    return (struct fl_ledger_header *)ledger->map;
}

static inline struct fl_ledger_entry *fl_ledger_table(const struct fl_ledger *ledger)
{
    return (struct fl_ledger_entry *)(fl_ledger_header(ledger) + 1);
}

#endif
