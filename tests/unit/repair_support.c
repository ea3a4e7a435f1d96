// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/repair_support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "snapshot/io.h"
#include "tests/unit/snapshot_sign.h"

struct workspace space;
char child[96];      // a memory file with the pages of space.memory and 16 more
char pack_path[256]; // of image "first"

void repair_setup(void)
{
    cr_assert_eq(workspace_make(&space), 0);
    snprintf(child, sizeof(child), "%s/child", space.dir);
    cr_assert_eq(make_pages(space.memory, 1, PAGES), 0);
    cr_assert_eq(make_pages(child, 1, PAGES + 16), 0);
    cr_assert_eq(pack_file(space.store, "first", space.memory, NULL), 0);
    cr_assert_eq(only_file(space.store, "packs", pack_path, sizeof(pack_path)), 0);
}

void repair_teardown(void)
{
    workspace_remove(&space);
}

// --- damage ---

struct pack_file {
    int fd;
    uint64_t bytes;
    struct fl_disk_pack_footer footer;
};

static struct pack_file open_pack_file(void)
{
    struct pack_file file = {.fd = open(pack_path, O_RDWR | O_CLOEXEC)};
    cr_assert_geq(file.fd, 0);
    cr_assert_eq(fl_file_size(file.fd, &file.bytes), 0);
    cr_assert_eq(
        fl_pread_full(file.fd, &file.footer, sizeof(file.footer), file.bytes - sizeof(file.footer)),
        0);
    return file;
}

static uint64_t table_at(const struct pack_file *file, uint32_t frame)
{
    return file->footer.table_offset + frame * sizeof(struct fl_disk_frame);
}

static struct fl_disk_frame read_entry(const struct pack_file *file, uint32_t frame)
{
    struct fl_disk_frame entry;
    cr_assert_eq(fl_pread_full(file->fd, &entry, sizeof(entry), table_at(file, frame)), 0);
    return entry;
}

static void flip(int fd, uint64_t at, uint64_t count)
{
    for (uint64_t i = at; i < at + count; i++) {
        uint8_t byte;
        cr_assert_eq(fl_pread_full(fd, &byte, 1, i), 0);
        byte = (uint8_t)~byte;
        cr_assert_eq(fl_pwrite_full(fd, &byte, 1, i), 0);
    }
}

// All of it: nothing is left to be saved.
void damage_frame(uint32_t frame)
{
    struct pack_file file = open_pack_file();
    struct fl_disk_frame entry = read_entry(&file, frame);
    flip(file.fd, entry.offset, entry.stored);
    close(file.fd);
}

void damage_frame_of_only_pack(uint32_t frame)
{
    cr_assert_eq(only_file(space.store, "packs", pack_path, sizeof(pack_path)), 0);
    damage_frame(frame);
}

static void seal_table(struct pack_file *file)
{
    uint8_t *bytes = malloc(file->bytes);
    cr_assert(bytes);
    cr_assert_eq(fl_pread_full(file->fd, bytes, file->bytes, 0), 0);
    sign_pack(bytes, file->bytes);
    cr_assert_eq(fl_pwrite_full(file->fd, bytes, file->bytes, 0), 0);
    free(bytes);
}

// The frame says that it is right, but a literal byte of a page is another one.
void falsify_frame(uint32_t frame)
{
    uint8_t stored[FL_FRAME_PAGES * FL_PAGE_SIZE];
    struct pack_file file = open_pack_file();
    struct fl_disk_frame entry = read_entry(&file, frame);
    flip(file.fd, entry.offset + 1000, 1);
    cr_assert_eq(fl_pread_full(file.fd, stored, entry.stored, entry.offset), 0);
    entry.checksum = fl_checksum(stored, entry.stored);
    cr_assert_eq(fl_pwrite_full(file.fd, &entry, sizeof(entry), table_at(&file, frame)), 0);
    seal_table(&file);
    close(file.fd);
}

void damage_identities(void)
{
    struct pack_file file = open_pack_file();
    flip(file.fd, table_at(&file, file.footer.frames), 1);
    close(file.fd);
}

// --- verbs ---

struct fl_pack_result pack(const char *name, const char *memory, bool trust)
{
    struct fl_store *store = NULL;
    struct fl_error error = {""};
    struct fl_pack_result result;
    struct fl_pack_options options = {.name = name, .path = memory, .trust_store = trust};
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0, "%s", error.text);
    cr_assert_eq(fl_store_pack(store, &options, &result, &error), 0, "%s", error.text);
    fl_store_close(store);
    return result;
}

struct fl_repair_result repair(const char *memory, const char *other, bool dry_run)
{
    struct fl_store *store = NULL;
    struct fl_error error = {""};
    struct fl_repair_result result;
    struct fl_repair_options options = {
        .memory_path = memory, .store_dir = other, .dry_run = dry_run};
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0, "%s", error.text);
    cr_assert_eq(fl_store_repair(store, &options, &result, &error), 0, "%s", error.text);
    fl_store_close(store);
    return result;
}

static void ignore_bad(void *arg, const char *object, const char *problem)
{
    (void)arg;
    (void)object;
    (void)problem;
}

struct fl_verify_result verify(void)
{
    struct fl_store *store = NULL;
    struct fl_error error = {""};
    struct fl_verify_result result;
    struct fl_verify_options options = {.bad = ignore_bad};
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0, "%s", error.text);
    cr_assert_eq(fl_store_verify(store, &options, &result, &error), 0, "%s", error.text);
    fl_store_close(store);
    return result;
}

void expect_right(const char *name, const char *memory)
{
    cr_assert_eq(unpack_file(space.store, name, space.output), 0, "%s", name);
    cr_assert(same_files(memory, space.output), "%s", name);
}

void expect_unreadable(const char *name)
{
    cr_assert_lt(unpack_file(space.store, name, space.output), 0, "%s", name);
}

void list_path(char path[160])
{
    snprintf(path, 160, "%s/%s", space.store, FL_BAD_NAME);
}

uint64_t listed(void)
{
    char path[160];
    struct stat st;
    list_path(path);
    if (stat(path, &st) < 0)
        return 0;
    return ((uint64_t)st.st_size - sizeof(struct fl_disk_bad_header)) /
           sizeof(struct fl_disk_bad_frame);
}
