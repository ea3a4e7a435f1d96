// SPDX-License-Identifier: Apache-2.0
//
// The ledger: the memory in which an engine counts, in a memfd that the keeper holds. Nothing that
// was counted is lost with the engine: its successor carries it over into a ledger of its own, and
// totals go on. An engine counts in it as it would in memory of its own.
//
// A ledger describes itself. It has a table of series, each with its name, and where its numbers
// are: so an engine of another version carries over what it knows by the same name, and keeps what
// it does not know for an engine that does. Each number of a series is the sum of what was carried
// over and of what each block of its kind has counted. A block belongs to one thread, or is counted
// in with atomic additions. Gauges are in no series: a successor has none of its predecessor's.
//
// All numbers are written with single stores of 8 bytes, so a kill leaves each as it was before an
// addition or after it. Of a ledger that comes from elsewhere nothing is trusted.
#ifndef FAULTLINE_LINK_LEDGER_H
#define FAULTLINE_LINK_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/counter.h"
#include "engine/link/ledger_format.h"

struct fl_ledger;

// One series of a ledger that is to be made: rows of `values` numbers side by side.
struct fl_ledger_series {
    const char *name; // shorter than FL_LEDGER_NAME; constant
    enum fl_ledger_block block;
    enum fl_ledger_combine combine;
    uint32_t offset; // of its first number in a block
    uint32_t values;
    uint32_t rows;       // 1, or those of a table whose rows have names,
    uint32_t row_stride; // so far from each other,
    uint32_t key_offset; // with the first one's name here,
    uint32_t key_bytes;  // which has so much room; 0: no names. The last row is for all other names
};

struct fl_ledger_shape {
    size_t bytes[FL_LEDGER_BLOCKS];  // of one block
    unsigned most[FL_LEDGER_BLOCKS]; // blocks that there may be
    const struct fl_ledger_series *series;
    unsigned count;
};

// All zero. In memory of this process alone, which ends with it, if a memfd cannot be had. -ENOMEM.
int fl_ledger_new(const struct fl_ledger_shape *shape, struct fl_ledger **ret_ledger);
void fl_ledger_free(struct fl_ledger *ledger); // NULL is a no-op
// The memfd, the ledger's own; or -errno that says why there is none.
int fl_ledger_fd(const struct fl_ledger *ledger);

// Any thread. The block of that index, from 0; from now on it counts.
void *fl_ledger_block(struct fl_ledger *ledger, enum fl_ledger_block block, unsigned index);
// What was carried over of the series of that number: rows times values. Control thread.
fl_counter *fl_ledger_carried(struct fl_ledger *ledger, unsigned series);

// Control thread. Carries over all that this ledger of a predecessor has, which counts no more.
// -EINVAL if it is none or makes no sense, -EPROTONOSUPPORT if it is of another version: nothing is
// carried over then. The caller keeps the descriptor.
int fl_ledger_carry(struct fl_ledger *ledger, int fd);
// The control thread of the ledger's engine, once: all predecessors' ledgers up to the record of
// this number are in it.
void fl_ledger_includes(struct fl_ledger *ledger, uint64_t record);
// Of any ledger: that number; 0: none is, or it cannot be told.
uint64_t fl_ledger_included(int fd);

#endif
