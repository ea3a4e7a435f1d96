// SPDX-License-Identifier: Apache-2.0
//
// Packs a memory file as the pages of a running VM, which was restored from an image: what the file
// has in common with the memory file of that image is as in the parent. The file itself is its
// companion.
//
// usage: pack_live STORE NAME MEMFILE PARENT PARENT_MEMFILE [replace]
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/store.h"

struct file {
    int fd;
    uint64_t bytes;
    const char *memory;
};

static struct file open_file(const char *path)
{
    struct stat st;
    struct file file = {.fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (file.fd < 0 || fstat(file.fd, &st) < 0)
        return file;
    file.bytes = (uint64_t)st.st_size;
    void *memory = mmap(NULL, file.bytes, PROT_READ, MAP_PRIVATE, file.fd, 0);
    file.memory = memory == MAP_FAILED ? NULL : memory;
    return file;
}

static struct file now, before;

static int await_pages(void *arg, uint64_t first, uint64_t count)
{
    (void)arg;
    (void)first;
    (void)count;
    return 0;
}

static bool is_ready(void *arg, uint64_t first, uint64_t count)
{
    return await_pages(arg, first, count) == 0;
}

static enum fl_live_page kind(void *arg, uint64_t page)
{
    (void)arg;
    uint64_t at = page * FL_PAGE_SIZE;
    bool both = at + FL_PAGE_SIZE <= now.bytes && at + FL_PAGE_SIZE <= before.bytes;
    return both && memcmp(now.memory + at, before.memory + at, FL_PAGE_SIZE) == 0 ? FL_LIVE_PARENT
                                                                                  : FL_LIVE_DATA;
}

static void consumed(void *arg, uint64_t first, uint64_t count)
{
    (void)arg;
    (void)first;
    (void)count;
}

int main(int argc, char **argv)
{
    struct fl_store *store = NULL;
    struct fl_image_info parent;
    struct fl_pack_result result;
    struct fl_error error = {""};
    if (argc != 6 && argc != 7)
        return 2;
    now = open_file(argv[3]);
    before = open_file(argv[5]);
    if (!now.memory || !before.memory)
        return 2;
    int r = fl_store_open(argv[1], false, &store, &error);
    if (r == 0)
        r = fl_store_image_info(store, argv[4], &parent, &error);
    const struct fl_pack_live live = {.buffer_fd = now.fd,
                                      .bytes = now.bytes,
                                      .await = await_pages,
                                      .ready = is_ready,
                                      .page = kind,
                                      .consumed = consumed,
                                      .parent = argv[4],
                                      .parent_content_id = parent.content_id};
    const struct fl_companion_file with = {"memory", argv[3]};
    const struct fl_pack_options options = {.name = argv[2],
                                            .replace = argc == 7,
                                            .live = &live,
                                            .with = &with,
                                            .with_count = 1,
                                            .threads = 1};
    if (r == 0)
        r = fl_store_pack(store, &options, &result, &error);
    fl_store_close(store);
    if (r < 0)
        fprintf(stderr, "%s\n", error.text);
    return r < 0;
}
