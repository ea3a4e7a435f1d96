// SPDX-License-Identifier: Apache-2.0
#include "engine/keeper/keeper_records.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/keeper/service_manager.h"

static const char *const kind_name[FL_RECORD_KINDS] = {
    [FL_RECORD_MODE] = "mode",
    [FL_RECORD_IMAGE] = "image",
    [FL_RECORD_VM] = "vm",
    [FL_RECORD_CONNECTION] = "connection",
    [FL_RECORD_LISTENER] = "listener",
    [FL_RECORD_SOCKET] = "socket",
    [FL_RECORD_TEMPLATE] = "template",
    [FL_RECORD_COUNTERS] = "counters",
    [FL_RECORD_FILES] = "files",
};

// What a record needs of others comes before it.
static const uint32_t kind_order[] = {FL_RECORD_COUNTERS,   FL_RECORD_MODE,     FL_RECORD_FILES,
                                      FL_RECORD_IMAGE,      FL_RECORD_TEMPLATE, FL_RECORD_VM,
                                      FL_RECORD_CONNECTION, FL_RECORD_LISTENER, FL_RECORD_SOCKET};
enum { KINDS = sizeof(kind_order) / sizeof(kind_order[0]) };
static_assert(KINDS == FL_RECORD_KINDS - 1, "each kind has a place");

void fl_records_init(struct fl_records *records, bool store)
{
    *records = (struct fl_records){.store = store};
    for (unsigned i = 0; i < FL_RECORD_KINDS; i++)
        CDS_INIT_LIST_HEAD(&records->kind[i]);
    for (unsigned i = 0; i < FL_RECORD_BUCKETS; i++)
        CDS_INIT_LIST_HEAD(&records->bucket[i]);
}

static struct cds_list_head *bucket_of(struct fl_records *records, uint32_t kind, uint64_t id)
{
    return &records->bucket[(id * FL_RECORD_KINDS + kind) % FL_RECORD_BUCKETS];
}

struct fl_record *fl_records_find(struct fl_records *records, uint32_t kind, uint64_t id)
{
    struct fl_record *record;
    cds_list_for_each_entry(record, bucket_of(records, kind, id), in_bucket)
    {
        if (record->kind == kind && record->id == id)
            return record;
    }
    return NULL;
}

struct fl_record *fl_records_next(struct fl_records *records, const struct fl_record *record)
{
    unsigned place = 0;
    if (record && record->in_kind.next != &records->kind[record->kind])
        return cds_list_entry(record->in_kind.next, struct fl_record, in_kind);
    while (record && kind_order[place++] != record->kind) {
    }
    for (; place < KINDS; place++) {
        struct cds_list_head *kind = &records->kind[kind_order[place]];
        if (!cds_list_empty(kind))
            return cds_list_first_entry(kind, struct fl_record, in_kind);
    }
    return NULL;
}

// --- names ---

void fl_record_name(const struct fl_record *record, uint32_t slot, char name[FL_RECORD_NAME])
{
    snprintf(name, FL_RECORD_NAME, "%s.%" PRIu64 ".%" PRIu32 ".%" PRIu32, kind_name[record->kind],
             record->id, slot, record->slots);
}

int fl_record_parse(const char *name, struct fl_message *ret_message)
{
    uint64_t id = 0;
    uint32_t slot = 0;
    uint32_t slots = 0;
    char end = 0;
    const char *dot = strchr(name, '.');
    if (!dot || sscanf(dot, ".%" SCNu64 ".%" SCNu32 ".%" SCNu32 "%c", // NOLINT(cert-err34-c)
                       &id, &slot, &slots, &end) != 3)
        return -EINVAL;
    for (uint32_t kind = 1; kind < FL_RECORD_KINDS; kind++) {
        size_t length = strlen(kind_name[kind]);
        if ((size_t)(dot - name) != length || memcmp(name, kind_name[kind], length) != 0)
            continue;
        *ret_message =
            (struct fl_message){.kind = kind, .id = id, .slots = slots, .first = slot, .mask = 1};
        return slot < slots ? 0 : -EINVAL;
    }
    return -EINVAL;
}

// --- putting and dropping ---

static void store_slot(struct fl_records *records, struct fl_record *record, uint32_t slot)
{
    char name[FL_RECORD_NAME];
    if (!records->store)
        return;
    fl_record_name(record, slot, name);
    int error = fl_sm_store(name, record->fd[slot]);
    if (!error)
        return;
    record->unstored = true;
    if (records->unstored++ == 0) // of many, one line
        fl_log(FL_LOG_ERROR, "event=store_failed name=%s reason=\"%s\"", name, strerror(-error));
}

// What it has already it ignores.
static void store_all(struct fl_records *records, struct fl_record *record)
{
    record->unstored = false;
    for (uint32_t i = 0; i < record->slots; i++) {
        if (record->fd[i] >= 0)
            store_slot(records, record, i);
    }
}

bool fl_records_store_again(struct fl_records *records)
{
    struct fl_record *record = NULL;
    if (!records->store || records->unstored == 0)
        return true;
    records->unstored = 0;
    while ((record = fl_records_next(records, record)) != NULL) {
        if (record->unstored)
            store_all(records, record);
    }
    if (records->unstored == 0)
        fl_log(FL_LOG_INFO, "event=stored reason=\"the service manager has taken the rest\"");
    return records->unstored == 0;
}

static void unstore_slot(const struct fl_records *records, const struct fl_record *record,
                         uint32_t slot)
{
    char name[FL_RECORD_NAME];
    if (!records->store)
        return;
    fl_record_name(record, slot, name);
    fl_sm_remove(name);
}

static struct fl_record *new_record(struct fl_records *records, const struct fl_message *message)
{
    size_t slots = message->slots;
    struct fl_record *record = calloc(1, sizeof(*record) + slots * sizeof(record->fd[0]));
    if (!record)
        return NULL;
    record->kind = message->kind;
    record->id = message->id;
    record->slots = message->slots;
    for (size_t i = 0; i < slots; i++)
        record->fd[i] = -1;
    cds_list_add_tail(&record->in_kind, &records->kind[record->kind]);
    cds_list_add_tail(&record->in_bucket, bucket_of(records, record->kind, record->id));
    records->vms += record->kind == FL_RECORD_VM;
    records->connections += record->kind == FL_RECORD_CONNECTION;
    return record;
}

static bool makes_sense(const struct fl_message *message)
{
    if (message->kind == 0 || message->kind >= FL_RECORD_KINDS ||
        message->slots > FL_RECORD_SLOTS_MAX)
        return false;
    for (uint32_t i = 0; i < FL_CHANNEL_FDS; i++) {
        if (message->mask & 1U << i && (uint64_t)message->first + i >= message->slots)
            return false;
    }
    return true;
}

static void take_slots(struct fl_records *records, struct fl_record *record,
                       const struct fl_message *message, int fds[FL_CHANNEL_FDS])
{
    for (uint32_t i = 0; i < FL_CHANNEL_FDS; i++) {
        uint32_t slot = message->first + i;
        if (fds[i] < 0)
            continue;
        if (record->fd[slot] >= 0) {
            unstore_slot(records, record, slot);
            close(record->fd[slot]);
            records->descriptors--;
        }
        records->descriptors++;
        record->fd[slot] = fds[i];
        fds[i] = -1;
        store_slot(records, record, slot);
    }
}

int fl_records_put(struct fl_records *records, const struct fl_message *message,
                   int fds[FL_CHANNEL_FDS])
{
    if (!makes_sense(message)) {
        fl_channel_close_fds(fds);
        return -EPROTO;
    }
    struct fl_record *record = fl_records_find(records, message->kind, message->id);
    if (record && record->slots != message->slots) {
        fl_records_drop(records, message->kind, message->id);
        record = NULL;
    }
    if (!record)
        record = new_record(records, message);
    if (!record) {
        fl_channel_close_fds(fds);
        return -ENOMEM;
    }
    // An engine of a version before does not know the number of the files' connection.
    if (message->value != 0 || message->kind != FL_RECORD_FILES)
        record->value = message->value;
    take_slots(records, record, message, fds);
    return 0;
}

void fl_records_drop(struct fl_records *records, uint32_t kind, uint64_t id)
{
    struct fl_record *record = fl_records_find(records, kind, id);
    if (!record)
        return;
    for (uint32_t i = 0; i < record->slots; i++) {
        if (record->fd[i] < 0)
            continue;
        unstore_slot(records, record, i);
        close(record->fd[i]);
        records->descriptors--;
    }
    cds_list_del(&record->in_kind);
    cds_list_del(&record->in_bucket);
    records->vms -= kind == FL_RECORD_VM;
    records->connections -= kind == FL_RECORD_CONNECTION;
    free(record);
}

void fl_records_free(struct fl_records *records)
{
    struct fl_record *record;
    records->store = false; // what is in the store stays there
    while ((record = fl_records_next(records, NULL)) != NULL)
        fl_records_drop(records, record->kind, record->id);
}
