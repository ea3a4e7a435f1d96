// SPDX-License-Identifier: Apache-2.0
//
// What the keeper holds: records, each with the descriptors in its slots (channel.h). Each record
// is also in the service manager's store of descriptors, if there is one, so that it outlives the
// keeper. The keeper's one thread only; it waits for the service manager no longer than
// service_manager.h says.
#ifndef FAULTLINE_KEEPER_KEEPER_RECORDS_H
#define FAULTLINE_KEEPER_KEEPER_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/link/channel.h"

enum { FL_RECORD_SLOTS_MAX = 1 << 20, FL_RECORD_BUCKETS = 4096, FL_RECORD_NAME = 64 };

struct fl_record {
    struct cds_list_head in_kind;
    struct cds_list_head in_bucket;
    uint32_t kind;
    uint32_t slots;
    uint64_t id;
    uint64_t value;
    // Of a VM: how much had been read of it when a message was seen waiting, and since when.
    uint64_t read_seen;
    uint64_t waiting_since_ns; // 0: none waits
    bool held;                 // was sent as FL_VM_HELD, and not freed yet
    bool unstored;             // the service manager did not take all of it
    int fd[];                  // [slots], -1 where there is none
};

struct fl_records {
    struct cds_list_head kind[FL_RECORD_KINDS];
    struct cds_list_head bucket[FL_RECORD_BUCKETS];
    uint64_t vms;
    uint64_t connections;
    uint64_t descriptors; // of all records
    unsigned unstored;    // records that are not stored as a whole, at least
    bool store;           // the service manager's store has a copy of each
};

void fl_records_init(struct fl_records *records, bool store);
struct fl_record *fl_records_find(struct fl_records *records, uint32_t kind, uint64_t id);

// Puts what the message says: makes the record, or replaces the slots that came along. Takes the
// descriptors in every case. -EPROTO if it is no record, -ENOMEM.
int fl_records_put(struct fl_records *records, const struct fl_message *message,
                   int fds[FL_CHANNEL_FDS]);
// Closes its descriptors and frees it; a record that is not there is none to drop.
void fl_records_drop(struct fl_records *records, uint32_t kind, uint64_t id);
// Stores again what the service manager did not take. True if all is stored.
bool fl_records_store_again(struct fl_records *records);
void fl_records_free(struct fl_records *records);

static inline struct fl_record_view fl_record_view(const struct fl_record *record)
{
    return (struct fl_record_view){record->kind, record->id, record->value, record->slots,
                                   record->fd};
}

// A descriptor's name outside: "KIND.ID.SLOT.SLOTS", and back. Names that are not ours: -EINVAL.
void fl_record_name(const struct fl_record *record, uint32_t slot, char name[FL_RECORD_NAME]);
int fl_record_parse(const char *name, struct fl_message *ret_message);

// The record after `record` in the order of kinds; the first for NULL; NULL after the last.
struct fl_record *fl_records_next(struct fl_records *records, const struct fl_record *record);

#endif
