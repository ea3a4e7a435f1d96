// SPDX-License-Identifier: Apache-2.0
#include "snapshot/pack_list.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/pack_name.h"

int fl_pack_ids_add(struct fl_pack_ids *ids, uint64_t id)
{
    if (ids->count == ids->room) {
        size_t room = ids->room ? ids->room * 2 : 64;
        uint64_t *grown = realloc(ids->ids, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        ids->ids = grown;
        ids->room = room;
    }
    ids->ids[ids->count++] = id;
    return 0;
}

int fl_each_file(int dir_fd, int (*fn)(void *arg, const char *name), void *arg)
{
    // A descriptor of its own: duplicates would share the directory's position.
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return -ENOMEM;
    }
    int r = 0;
    struct dirent *entry;
    while (r == 0 && (errno = 0, entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            r = fn(arg, entry->d_name);
    }
    if (r == 0 && !entry && errno != 0)
        r = -errno;
    closedir(dir);
    return r;
}

static int add_file(void *arg, const char *name)
{
    uint64_t id;
    return fl_pack_parse_name(name, &id) == 0 ? fl_pack_ids_add(arg, id) : 0;
}

int fl_pack_ids_list(int packs_fd, struct fl_pack_ids *ids)
{
    return fl_each_file(packs_fd, add_file, ids);
}
