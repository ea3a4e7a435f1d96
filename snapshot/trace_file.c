// SPDX-License-Identifier: Apache-2.0
#include "snapshot/trace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "snapshot/image_file.h"
#include "snapshot/io.h"
#include "snapshot/publish.h"

enum { DIR_MODE = 0750 };

int fl_trace_file_name(const char *name, char ret_file[FL_TRACE_NAME_BYTES])
{
    if (!fl_name_valid(name))
        return -EINVAL;
    snprintf(ret_file, FL_TRACE_NAME_BYTES, "%.*s" FL_TRACE_SUFFIX, (int)FL_NAME_MAX, name);
    return 0;
}

static int make_dir(int store_fd)
{
    if (mkdirat(store_fd, FL_TRACE_DIR, DIR_MODE) == 0)
        return fl_sync_dir(store_fd);
    return errno == EEXIST ? 0 : -errno;
}

int fl_trace_dir_open(int store_fd, bool create, int *ret_fd)
{
    int r = create ? make_dir(store_fd) : 0;
    if (r < 0)
        return r;
    int fd = openat(store_fd, FL_TRACE_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}

int fl_trace_dir_lock(int traces_fd)
{
    return flock(traces_fd, LOCK_EX) < 0 ? -errno : 0;
}

static int open_file(int store_fd, const char *name, int *ret_fd)
{
    char file_name[FL_TRACE_NAME_BYTES];
    FL_AUTO_CLOSE int dir_fd = -1;
    int r = fl_trace_file_name(name, file_name);
    if (r == 0)
        r = fl_trace_dir_open(store_fd, false, &dir_fd);
    if (r < 0)
        return r;
    *ret_fd = openat(dir_fd, file_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return *ret_fd < 0 ? -errno : 0;
}

static bool header_valid(const struct fl_disk_trace_header *header, const char *name,
                         uint64_t file_bytes)
{
    uint64_t room = (file_bytes - sizeof(*header)) / sizeof(struct fl_disk_trace_entry);
    // The count is bounded by the file's size before it is multiplied.
    return strncmp(header->name, name, sizeof(header->name)) == 0 && header->runs >= 1 &&
           header->runs <= FL_TRACE_RUNS_MAX && header->count >= 1 &&
           header->count <= header->pages && header->count <= room &&
           file_bytes == sizeof(*header) + header->count * sizeof(struct fl_disk_trace_entry);
}

static int read_header(int fd, const char *name, struct fl_disk_trace_header *ret_header)
{
    struct fl_disk_trace_header header;
    uint64_t file_bytes;
    int r =
        fl_read_header(fd, fl_magic_trace, FL_TRACE_VERSION, &header, sizeof(header), &file_bytes);
    if (r < 0)
        return r;
    if (!header_valid(&header, name, file_bytes))
        return -EBADMSG;
    *ret_header = header;
    return 0;
}

int fl_trace_file_header(int store_fd, const char *name, struct fl_disk_trace_header *ret_header)
{
    FL_AUTO_CLOSE int fd = -1;
    int r = open_file(store_fd, name, &fd);
    return r < 0 ? r : read_header(fd, name, ret_header);
}

static bool entry_valid(const struct fl_disk_trace_header *header,
                        const struct fl_disk_trace_entry *entry)
{
    return entry->page < header->pages && entry->seen >= 1 && entry->seen <= header->runs &&
           entry->positions <= (uint64_t)entry->seen * UINT32_MAX &&
           entry->ms <= (uint64_t)entry->seen * UINT32_MAX && entry->zero == 0;
}

static int compare_pages(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

// Sorts the pages to find those that come twice: so a header that claims a huge image costs no more
// memory than its file is long.
static int check_once(const struct fl_trace_file *file)
{
    uint64_t count = file->header.count;
    FL_AUTO_FREE uint64_t *pages = malloc(count * sizeof(*pages));
    if (!pages)
        return -ENOMEM;
    for (uint64_t i = 0; i < count; i++)
        pages[i] = file->entries[i].page;
    qsort(pages, count, sizeof(*pages), compare_pages);
    for (uint64_t i = 1; i < count; i++) {
        if (pages[i] == pages[i - 1])
            return -EBADMSG;
    }
    return 0;
}

static int check_entries(const struct fl_trace_file *file)
{
    for (uint64_t i = 0; i < file->header.count; i++) {
        const struct fl_disk_trace_entry *entry = &file->entries[i];
        if (!entry_valid(&file->header, entry) ||
            (i > 0 && fl_trace_compare(entry - 1, entry) >= 0))
            return -EBADMSG;
    }
    return check_once(file);
}

static int read_entries(int fd, struct fl_trace_file *file)
{
    size_t bytes = file->header.count * sizeof(*file->entries);
    file->entries = malloc(bytes);
    if (!file->entries)
        return -ENOMEM;
    int r = fl_pread_full(fd, file->entries, bytes, sizeof(file->header));
    if (r < 0)
        return r;
    if (fl_checksum(file->entries, bytes) != file->header.entries_checksum)
        return -EBADMSG;
    return check_entries(file);
}

int fl_trace_file_load(int store_fd, const char *name, struct fl_trace_file *ret_file)
{
    struct fl_trace_file file = {.entries = NULL};
    FL_AUTO_CLOSE int fd = -1;
    int r = open_file(store_fd, name, &fd);
    if (r == 0)
        r = read_header(fd, name, &file.header);
    if (r == 0)
        r = read_entries(fd, &file);
    if (r < 0) {
        fl_trace_file_free(&file);
        return r;
    }
    *ret_file = file;
    return 0;
}

void fl_trace_file_free(struct fl_trace_file *file)
{
    free(file->entries);
    file->entries = NULL;
}

int fl_trace_compare(const void *left, const void *right)
{
    const struct fl_disk_trace_entry *a = left;
    const struct fl_disk_trace_entry *b = right;
    if (a->seen != b->seen)
        return a->seen > b->seen ? -1 : 1;
    // Both pages are in as many recordings, so the sums compare as the means do.
    if (a->positions != b->positions)
        return a->positions < b->positions ? -1 : 1;
    return a->page < b->page ? -1 : a->page > b->page;
}

static int write_file(struct fl_trace_file *file, int fd)
{
    struct fl_disk_trace_header *header = &file->header;
    size_t bytes = header->count * sizeof(*file->entries);
    memcpy(header->magic, fl_magic_trace, sizeof(header->magic));
    header->version = FL_TRACE_VERSION;
    header->entries_checksum = fl_checksum(file->entries, bytes);
    header->checksum = fl_checksum(header, offsetof(struct fl_disk_trace_header, checksum));
    int r = fl_pwrite_full(fd, header, sizeof(*header), 0);
    return r < 0 ? r : fl_pwrite_full(fd, file->entries, bytes, sizeof(*header));
}

int fl_trace_file_publish(struct fl_trace_file *file, int tmp_fd, int traces_fd)
{
    char file_name[FL_TRACE_NAME_BYTES];
    struct fl_temp temp;
    int r = fl_trace_file_name(file->header.name, file_name);
    if (r < 0)
        return r;
    r = fl_temp_create(tmp_fd, FL_TRACE_SUFFIX, &temp);
    if (r == 0)
        r = write_file(file, temp.fd);
    if (r == 0)
        r = fl_temp_publish(&temp, traces_fd, file_name, true);
    fl_temp_discard(&temp);
    return r;
}
