// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A predecessor's ledger is read as what it is: numbers that another program
// has written, perhaps of another version, and perhaps in disorder. It is mapped read-only; its
// size cannot change, as it is sealed, or else it is not read. Every entry is checked to lie in it
// before a single number is taken. Then each entry is added to the one of ours that has its name
// and its shape, or else to a new one that only keeps it. Rows that have names are found by these.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/link/ledger.h"
#include "engine/link/ledger_format.h"

// NUMBER_MAX: no engine counts so far; WORK_MAX: numbers that are looked at.
#define NUMBER_MAX (UINT64_C(1) << 62)
#define WORK_MAX (UINT64_C(1) << 26)
enum { BYTES_MAX = 1 << 30, LEAST = sizeof(struct fl_ledger_header) };

// --- checking ---

// `count` pieces of `bytes`, so far from each other, lie in it.
static bool holds(const struct fl_ledger *other, uint64_t offset, uint64_t count, uint64_t stride,
                  uint64_t bytes)
{
    uint64_t span = 0;
    if (count == 0)
        return true;
    return !__builtin_mul_overflow(count - 1, stride, &span) &&
           !__builtin_add_overflow(span, bytes, &span) &&
           !__builtin_add_overflow(span, offset, &span) && span <= other->bytes;
}

static uint32_t blocks_of(const struct fl_ledger *other, const struct fl_ledger_entry *entry)
{
    return entry->block == FL_LEDGER_NO_BLOCK
               ? 0
               : atomic_load(&fl_ledger_header(other)->blocks[entry->block]);
}

static bool is_aligned(const struct fl_ledger_entry *entry)
{
    return (entry->offset | entry->block_stride | entry->row_stride | entry->carried) %
               sizeof(uint64_t) ==
           0;
}

static bool entry_holds(const struct fl_ledger *other, const struct fl_ledger_entry *entry)
{
    uint64_t row_bytes = entry->values * sizeof(uint64_t);
    uint64_t block_bytes = 0;
    if (entry->name[0] == '\0' || !memchr(entry->name, '\0', sizeof(entry->name)) ||
        entry->values == 0 || entry->rows == 0 || entry->values > FL_LEDGER_NUMBERS_MAX ||
        entry->rows > FL_LEDGER_NUMBERS_MAX / entry->values || !is_aligned(entry) ||
        entry->combine > FL_LEDGER_MAX || (entry->key_bytes == 0 && entry->rows != 1))
        return false;
    if (entry->block != FL_LEDGER_NO_BLOCK && entry->block >= FL_LEDGER_KINDS)
        return false;
    if (blocks_of(other, entry) > FL_LEDGER_BLOCKS_MAX ||
        __builtin_mul_overflow(entry->rows - 1, entry->row_stride, &block_bytes) ||
        __builtin_add_overflow(block_bytes, row_bytes, &block_bytes))
        return false;
    return holds(other, entry->offset, blocks_of(other, entry), entry->block_stride, block_bytes) &&
           holds(other, entry->carried, entry->rows, row_bytes, row_bytes) &&
           holds(other, entry->key_offset, entry->rows, entry->key_stride, entry->key_bytes);
}

static int check_header(const struct fl_ledger *other)
{
    const struct fl_ledger_header *header = fl_ledger_header(other);
    uint32_t entries = atomic_load(&header->entries);
    if (header->magic != FL_LEDGER_MAGIC)
        return -EINVAL;
    if (header->version != FL_LEDGER_VERSION)
        return -EPROTONOSUPPORT;
    if (header->bytes != other->bytes || header->entry_bytes != sizeof(struct fl_ledger_entry) ||
        entries > FL_LEDGER_ENTRIES ||
        sizeof(*header) + entries * sizeof(struct fl_ledger_entry) > other->bytes)
        return -EINVAL;
    return 0;
}

static int check_ledger(const struct fl_ledger *other)
{
    uint64_t work = 0;
    int error = check_header(other);
    uint32_t entries = error ? 0 : atomic_load(&fl_ledger_header(other)->entries);
    for (uint32_t i = 0; i < entries; i++) {
        const struct fl_ledger_entry *entry = &fl_ledger_table(other)[i];
        if (!entry_holds(other, entry))
            return -EINVAL;
        work += (uint64_t)entry->rows * entry->values * (1 + blocks_of(other, entry));
    }
    return error ? error : work > WORK_MAX ? -EINVAL : 0;
}

static int open_ledger(int fd, struct fl_ledger *ret_other)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    int seals = fcntl(fd, F_GET_SEALS);
    if (!S_ISREG(status.st_mode) || status.st_size < LEAST || status.st_size > BYTES_MAX ||
        seals < 0 || (seals & F_SEAL_SHRINK) == 0)
        return -EINVAL;
    void *map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    *ret_other = (struct fl_ledger){.map = map, .bytes = (uint64_t)status.st_size, .fd = fd};
    int error = check_ledger(ret_other);
    if (error)
        munmap(map, ret_other->bytes);
    return error;
}

// --- taking ---

static uint64_t number_at(const struct fl_ledger *ledger, uint64_t at)
{
    return fl_counter_get((const fl_counter *)(ledger->map + at));
}

static void combine(uint64_t *into, uint32_t how, uint64_t number)
{
    if (how == FL_LEDGER_ADD)
        *into += number < NUMBER_MAX ? number : 0;
    else if (number > *into && number < NUMBER_MAX)
        *into = number;
}

// What it comes to, as of this moment.
static uint64_t read_number(const struct fl_ledger *other, const struct fl_ledger_entry *entry,
                            uint32_t row, uint32_t value)
{
    uint64_t sum = 0;
    uint64_t in_block = entry->offset + row * entry->row_stride + value * sizeof(uint64_t);
    uint32_t blocks = blocks_of(other, entry);
    if (atomic_load(&fl_ledger_header(other)->includes) != 0)
        combine(&sum, entry->combine,
                number_at(other, entry->carried +
                                     ((uint64_t)row * entry->values + value) * sizeof(uint64_t)));
    for (uint32_t i = 0; i < blocks; i++)
        combine(&sum, entry->combine, number_at(other, in_block + i * entry->block_stride));
    return sum < NUMBER_MAX ? sum : 0;
}

static char *key_of(const struct fl_ledger *ledger, const struct fl_ledger_entry *entry,
                    uint32_t row)
{
    return ledger->map + entry->key_offset + row * entry->key_stride;
}

// NULL: the row has no name.
static const char *read_key(const struct fl_ledger *other, const struct fl_ledger_entry *entry,
                            uint32_t row)
{
    const char *key = key_of(other, entry, row);
    return key[0] != '\0' && memchr(key, '\0', entry->key_bytes) ? key : NULL;
}

// The row of that name, a new one, or the last one, which is for all that have none.
static uint32_t find_row(const struct fl_ledger *ledger, const struct fl_ledger_entry *entry,
                         const char *key)
{
    uint32_t free_row = entry->rows;
    for (uint32_t row = 0; row < entry->rows; row++) {
        const char *there = key_of(ledger, entry, row);
        if (strncmp(there, key, entry->key_bytes) == 0)
            return row;
        if (there[0] == '\0' && free_row == entry->rows)
            free_row = row;
    }
    if (free_row >= entry->rows - 1 || strlen(key) >= entry->key_bytes)
        return entry->rows - 1;
    memcpy(key_of(ledger, entry, free_row), key, strlen(key) + 1);
    return free_row;
}

static void carry_row(struct fl_ledger *ledger, const struct fl_ledger_entry *into, uint32_t to,
                      const struct fl_ledger *other, const struct fl_ledger_entry *entry,
                      uint32_t from)
{
    fl_counter *carried = (fl_counter *)(ledger->map + into->carried) + (uint64_t)to * into->values;
    for (uint32_t i = 0; i < entry->values; i++) {
        uint64_t number = fl_counter_get(&carried[i]);
        combine(&number, entry->combine, read_number(other, entry, from, i));
        fl_counter_set(&carried[i], number);
    }
}

// --- what this version does not know ---

static struct fl_ledger_entry *find_entry(const struct fl_ledger *ledger,
                                          const struct fl_ledger_entry *like)
{
    uint32_t entries = atomic_load(&fl_ledger_header(ledger)->entries);
    for (uint32_t i = 0; i < entries; i++) {
        struct fl_ledger_entry *entry = &fl_ledger_table(ledger)[i];
        if (strcmp(entry->name, like->name) == 0 && entry->values == like->values &&
            entry->combine == like->combine && !entry->key_bytes == !like->key_bytes)
            return entry;
    }
    return NULL;
}

// NULL: there is no room for it, and it is lost.
static struct fl_ledger_entry *keep_entry(struct fl_ledger *ledger,
                                          const struct fl_ledger_entry *like)
{
    struct fl_ledger_header *header = fl_ledger_header(ledger);
    uint32_t entries = atomic_load(&header->entries);
    uint64_t numbers = (uint64_t)like->rows * like->values * sizeof(uint64_t);
    uint64_t keys = (uint64_t)like->rows * like->key_bytes;
    uint64_t keys_up = (keys + sizeof(uint64_t) - 1) / sizeof(uint64_t) * sizeof(uint64_t);
    if (entries == FL_LEDGER_ENTRIES || ledger->bytes - ledger->free < numbers + keys_up)
        return NULL;
    struct fl_ledger_entry *entry = &fl_ledger_table(ledger)[entries];
    *entry = *like;
    entry->block = FL_LEDGER_NO_BLOCK;
    entry->offset = entry->block_stride = entry->row_stride = 0;
    entry->carried = ledger->free;
    entry->key_offset = ledger->free + numbers;
    entry->key_stride = like->key_bytes;
    ledger->free += numbers + keys_up;
    atomic_store(&header->entries, entries + 1);
    return entry;
}

static void carry_entry(struct fl_ledger *ledger, const struct fl_ledger *other,
                        const struct fl_ledger_entry *entry)
{
    const struct fl_ledger_entry *into = find_entry(ledger, entry);
    if (!into)
        into = keep_entry(ledger, entry);
    if (into && entry->key_bytes == 0)
        carry_row(ledger, into, 0, other, entry, 0);
    for (uint32_t row = 0; into && entry->key_bytes > 0 && row < entry->rows; row++) {
        const char *key = read_key(other, entry, row);
        if (key)
            carry_row(ledger, into, find_row(ledger, into, key), other, entry, row);
    }
}

int fl_ledger_carry(struct fl_ledger *ledger, int fd)
{
    struct fl_ledger other;
    int error = open_ledger(fd, &other);
    if (error)
        return error;
    uint32_t entries = atomic_load(&fl_ledger_header(&other)->entries);
    for (uint32_t i = 0; i < entries; i++) {
        const struct fl_ledger_entry *entry = &fl_ledger_table(&other)[i];
        carry_entry(ledger, &other, entry);
    }
    munmap(other.map, other.bytes);
    return 0;
}

uint64_t fl_ledger_included(int fd)
{
    struct fl_ledger_header header;
    if (pread(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header) ||
        header.magic != FL_LEDGER_MAGIC || header.version != FL_LEDGER_VERSION)
        return 0;
    return atomic_load(&header.includes);
}
