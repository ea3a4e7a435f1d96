// SPDX-License-Identifier: Apache-2.0
#include "snapshot/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "snapshot/io.h"

// Opens the directory of the output: the temporary file has to be there to be renamed.
static int open_parent(const char *path, const char **ret_base)
{
    const char *slash = strrchr(path, '/');
    *ret_base = slash ? slash + 1 : path;
    FL_AUTO_FREE char *parent = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    if (!parent)
        return -ENOMEM;
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

// A store has files in its directory and in the directories below it.
static bool within_store(int dir_fd)
{
    return faccessat(dir_fd, FL_MARKER_NAME, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ||
           faccessat(dir_fd, "../" FL_MARKER_NAME, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static int check_place(const struct fl_output *output)
{
    struct stat st;
    if (*output->base == '\0')
        return -EISDIR;
    if (within_store(output->dir_fd))
        return FL_OUTPUT_STORE;
    if (fstatat(output->dir_fd, output->base, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!output->force)
        return -EEXIST;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    return S_ISREG(st.st_mode) ? 0 : FL_OUTPUT_KIND;
}

int fl_output_open(const char *path, bool force, struct fl_output *ret_output)
{
    *ret_output = (struct fl_output){.force = force, .temp = {.fd = -1}};
    ret_output->dir_fd = open_parent(path, &ret_output->base);
    if (ret_output->dir_fd < 0)
        return ret_output->dir_fd;
    int r = check_place(ret_output);
    return r < 0 ? r : fl_temp_create(ret_output->dir_fd, ".faultline", &ret_output->temp);
}

int fl_output_publish(struct fl_output *output)
{
    int r = check_place(output);
    return r < 0 ? r : fl_temp_publish(&output->temp, output->dir_fd, output->base, output->force);
}

void fl_output_close(struct fl_output *output)
{
    fl_temp_discard(&output->temp);
    fl_cleanup_close(&output->dir_fd);
    output->dir_fd = -1;
}

const char *fl_output_strerror(int error)
{
    return error == FL_OUTPUT_KIND    ? "it is not a regular file and is not replaced"
           : error == FL_OUTPUT_STORE ? "it is within a store"
           : error == -EEXIST         ? "it exists already"
                                      : strerror(-error);
}
