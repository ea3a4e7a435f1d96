// SPDX-License-Identifier: Apache-2.0
#include "tests/support/writers.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/server.h"

enum { SMALL = 4096, LAST_WORD = SMALL - sizeof(uint64_t), PAUSE_US = 100, BATCH = 512 };
#define PAGEMAP_WRITE_PROTECTED (1ULL << 57)

static size_t size_for(uint32_t pages)
{
    return sizeof(struct writers) + pages * sizeof(struct writers_page);
}

struct writers *writers_new(uint32_t pages, uint32_t page_bytes)
{
    struct writers *writers =
        mmap(NULL, size_for(pages), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (writers == MAP_FAILED)
        return NULL;
    writers->threads = 2;
    writers->pages = writers->hot = pages;
    writers->page_bytes = page_bytes;
    return writers;
}

void writers_free(struct writers *writers)
{
    if (writers)
        munmap(writers, size_for(writers->pages));
}

// --- in the VMM ---

struct writer {
    pthread_t thread;
    struct writers *writers;
    struct vmm *vmm;
    unsigned number;
    uint64_t random;
};

static void word_put(uint8_t *at, uint64_t value)
{
    __atomic_store_n((uint64_t *)(void *)at, value, __ATOMIC_RELAXED);
}

static uint64_t word_get(const uint8_t *at)
{
    return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED);
}

static void write_page(struct writers *writers, struct vmm *vmm, uint32_t page)
{
    uint8_t *bytes = vmm_page(vmm, page);
    uint64_t sequence = writers->page[page].sequence + 1;
    for (uint32_t at = 0; at < writers->page_bytes; at += SMALL) {
        word_put(bytes + at, sequence);
        word_put(bytes + at + LAST_WORD, sequence);
    }
    writers->page[page].sequence = sequence;
}

static void read_page(struct writers *writers, struct vmm *vmm, uint32_t page)
{
    uint64_t sequence = writers->page[page].sequence;
    const uint8_t *bytes = vmm_page(vmm, page);
    for (uint32_t at = 0; sequence && at < writers->page_bytes; at += SMALL)
        CHECK(word_get(bytes + at) == sequence && word_get(bytes + at + LAST_WORD) == sequence,
              "page %u has %llu and %llu, and not %llu", page,
              (unsigned long long)word_get(bytes + at),
              (unsigned long long)word_get(bytes + at + LAST_WORD), (unsigned long long)sequence);
}

static void remove_pages(struct writers *writers, struct vmm *vmm, uint32_t page, uint32_t count)
{
    if (vmm->of_file) {
        for (uint32_t i = 0; i < count; i++)
            writers->page[page + i] =
                (struct writers_page){.removed = vmm_give_back_of_file(vmm, page + i)};
        return;
    }
    vmm_remove(vmm, page, count);
    for (uint32_t i = 0; i < count; i++)
        writers->page[page + i] = (struct writers_page){.removed = true};
}

// Between two operations: what the model says is so.
static void pause_here(struct writers *writers)
{
    if (!atomic_load(&writers->paused))
        return;
    atomic_fetch_add(&writers->waiting, 1);
    while (atomic_load(&writers->paused) && !atomic_load(&writers->ended))
        usleep(PAUSE_US);
    atomic_fetch_sub(&writers->waiting, 1);
}

// The pages from the first to the last, as evenly as may be.
static uint32_t spread(const struct writers *writers, uint32_t number)
{
    uint32_t pages = writers->pages - writers->slots * writers->slot_pages;
    if (!writers->spread || writers->hot < 2)
        return number;
    return (uint32_t)((uint64_t)number * (pages - 1) / (writers->hot - 1));
}

// A page of the thread's. With at_once it has a part of the memory, and else every Nth page.
// *ret_count: that it may give back from there on, in one region.
static uint32_t choose_page(const struct writer *writer, uint64_t dice, uint32_t *ret_count)
{
    const struct writers *writers = writer->writers;
    uint32_t mine = (writers->hot - writer->number + writers->threads - 1) / writers->threads;
    *ret_count = 1;
    if (!writers->at_once)
        return spread(writers, (uint32_t)(dice % mine) * writers->threads + writer->number);
    uint32_t share = writers->hot / writers->threads;
    uint32_t page = (uint32_t)(dice % share);
    uint32_t count = 1 + (uint32_t)(dice >> 40) % writers->at_once;
    count = count < share - page ? count : share - page;
    page += writer->number * share;
    while (*ret_count < count &&
           vmm_page(writer->vmm, page + *ret_count) ==
               vmm_page(writer->vmm, page) + (uint64_t)*ret_count * writers->page_bytes)
        (*ret_count)++;
    return page;
}

static void operate(struct writer *writer)
{
    struct writers *writers = writer->writers;
    uint64_t dice = random_next(&writer->random);
    uint32_t count = 1;
    uint32_t page = choose_page(writer, dice, &count);
    if (writers->removes && (dice >> 32) % writers->removes == 0)
        remove_pages(writers, writer->vmm, page, count);
    else if ((dice >> 60) < 5)
        read_page(writers, writer->vmm, page);
    else
        write_page(writers, writer->vmm, page);
    atomic_fetch_add(&writers->operations, 1);
}

static void *write_on(void *arg)
{
    struct writer *writer = arg;
    while (!atomic_load(&writer->writers->ended)) {
        pause_here(writer->writers);
        if (atomic_load(&writer->writers->ended))
            break;
        operate(writer);
        if (writer->writers->rests_us)
            usleep(writer->writers->rests_us);
    }
    return NULL;
}

// --- virtio-mem ---

// As Firecracker does (src/vmm/src/devices/virtio/mem, src/vmm/src/vstate/memory.rs): a slot of
// which nothing is plugged is PROT_NONE; what is unplugged is given back by madvise(), after that.
static void plug_slot(struct writers *writers, struct vmm *vmm, uint32_t first, bool plugged)
{
    uint64_t bytes = (uint64_t)writers->slot_pages * writers->page_bytes;
    CHECK(mprotect(vmm_page(vmm, first), bytes, plugged ? PROT_READ | PROT_WRITE : PROT_NONE) == 0,
          "mprotect: %s", strerror(errno));
    if (!plugged)
        remove_pages(writers, vmm, first, writers->slot_pages);
}

static void operate_slot(struct writer *writer, bool *plugged)
{
    struct writers *writers = writer->writers;
    uint64_t dice = random_next(&writer->random);
    uint32_t slot = (uint32_t)(dice % writers->slots);
    uint32_t first = writers->pages - (writers->slots - slot) * writers->slot_pages;
    uint32_t page = first + (uint32_t)(dice >> 20) % writers->slot_pages;
    if (!plugged[slot]) {
        plug_slot(writers, writer->vmm, first, true);
        plugged[slot] = true;
    } else if (dice >> 60 == 0) {
        plug_slot(writers, writer->vmm, first, false);
        plugged[slot] = false;
    } else if (dice >> 60 == 1) { // a block of it
        remove_pages(writers, writer->vmm, page, (first + writers->slot_pages - page + 1) / 2);
    } else if (dice >> 60 < 5) {
        read_page(writers, writer->vmm, page);
    } else {
        write_page(writers, writer->vmm, page);
    }
    atomic_fetch_add(&writers->operations, 1);
}

// In the end all of it can be read.
static void *plug_on(void *arg)
{
    struct writer *writer = arg;
    struct writers *writers = writer->writers;
    uint32_t first = writers->pages - writers->slots * writers->slot_pages;
    bool *plugged = calloc(writers->slots, sizeof(*plugged));
    CHECK(plugged, "no memory");
    while (!atomic_load(&writers->ended)) {
        pause_here(writers);
        if (atomic_load(&writers->ended))
            break;
        operate_slot(writer, plugged);
        if (writers->rests_us)
            usleep(writers->rests_us);
    }
    for (uint32_t i = 0; i < writers->slots; i++)
        plug_slot(writers, writer->vmm, first + i * writers->slot_pages, true);
    free(plugged);
    return NULL;
}

// What 4 KiB of a page must be, of which the file has these.
static void model_piece(const struct writers *writers, uint32_t page, const uint8_t *of_file,
                        uint8_t piece[SMALL])
{
    const struct writers_page *is = &writers->page[page];
    if (is->removed || !of_file)
        memset(piece, 0, SMALL);
    else
        memcpy(piece, of_file, SMALL);
    if (is->sequence) {
        memcpy(piece, &is->sequence, sizeof(is->sequence));
        memcpy(piece + LAST_WORD, &is->sequence, sizeof(is->sequence));
    }
}

static const uint8_t *piece_of_file(const struct memory *memory, uint64_t offset)
{
    return offset + SMALL <= memory->bytes ? memory->data + offset : NULL;
}

static void check_all(const struct writers *writers, const struct vmm *vmm)
{
    uint8_t piece[SMALL];
    for (uint32_t page = 0; page < writers->pages; page++) {
        for (uint32_t at = 0; at < writers->page_bytes; at += SMALL) {
            uint64_t offset = vmm_page_offset(vmm, page) + at;
            model_piece(writers, page, piece_of_file(vmm->memory, offset), piece);
            CHECK(memcmp(vmm_page(vmm, page) + at, piece, SMALL) == 0,
                  "page %u at %u is not as it was left: it has %llu and %llu, and not %llu", page,
                  at, (unsigned long long)word_get(vmm_page(vmm, page) + at),
                  (unsigned long long)word_get(vmm_page(vmm, page) + at + LAST_WORD),
                  (unsigned long long)writers->page[page].sequence);
        }
    }
}

void writers_run(struct writers *writers, struct vmm *vmm)
{
    struct writer all[WRITERS_MOST];
    struct writer plugger = {.writers = writers, .vmm = vmm, .random = 99};
    CHECK(writers->threads <= WRITERS_MOST && writers->pages == vmm->pages, "%u threads, %u pages",
          writers->threads, writers->pages);
    for (unsigned i = 0; i < writers->threads; i++) {
        all[i] = (struct writer){.writers = writers, .vmm = vmm, .number = i, .random = 77 + i};
        CHECK(pthread_create(&all[i].thread, NULL, write_on, &all[i]) == 0, "no thread");
    }
    if (writers->slots)
        CHECK(pthread_create(&plugger.thread, NULL, plug_on, &plugger) == 0, "no thread");
    for (unsigned i = 0; i < writers->threads; i++)
        pthread_join(all[i].thread, NULL);
    if (writers->slots)
        pthread_join(plugger.thread, NULL);
    check_all(writers, vmm);
}

// --- in the test ---

static bool all_wait(void *arg)
{
    struct writers *writers = arg;
    return atomic_load(&writers->waiting) == writers->threads + (writers->slots > 0);
}

// In small steps: how long a VM is paused is what tests measure.
bool writers_pause(struct writers *writers)
{
    atomic_store(&writers->paused, true);
    for (unsigned i = 0; i < TEST_DEADLINE_MS * 10 && !all_wait(writers); i++)
        usleep(PAUSE_US);
    return all_wait(writers);
}

void writers_resume(struct writers *writers)
{
    atomic_store(&writers->paused, false);
}

void writers_end(struct writers *writers)
{
    atomic_store(&writers->ended, true);
}

struct so_many {
    struct writers *writers;
    uint64_t operations;
};

static bool has_done(void *arg)
{
    const struct so_many *so_many = arg;
    return atomic_load(&so_many->writers->operations) >= so_many->operations;
}

bool writers_go_on(struct writers *writers, uint64_t operations)
{
    struct so_many so_many = {writers, atomic_load(&writers->operations) + operations};
    return wait_until(has_done, &so_many);
}

void writers_image(const struct writers *writers, const struct memory *memory, uint8_t *image)
{
    for (uint64_t at = 0; at < (uint64_t)writers->pages * writers->page_bytes; at += SMALL)
        model_piece(writers, (uint32_t)(at / writers->page_bytes), piece_of_file(memory, at),
                    image + at);
}

long writers_protected(pid_t pid, const void *base, uint64_t bytes)
{
    char path[64];
    uint64_t entry[BATCH];
    long count = 0;
    snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint64_t page = (uintptr_t)base / SMALL;
    uint64_t end = page + bytes / SMALL;
    while (fd >= 0 && page < end && count >= 0) {
        size_t want = end - page < BATCH ? end - page : BATCH;
        ssize_t got = pread(fd, entry, want * sizeof(entry[0]), (off_t)(page * sizeof(entry[0])));
        if (got <= 0)
            count = -1;
        for (ssize_t i = 0; count >= 0 && i < got / (ssize_t)sizeof(entry[0]); i++)
            count += (entry[i] & PAGEMAP_WRITE_PROTECTED) != 0;
        page += want;
    }
    if (fd >= 0)
        close(fd);
    return fd >= 0 ? count : -1;
}
