// SPDX-License-Identifier: Apache-2.0
//
// The file of `serve --ready-file`: for whatever asks whether this very process has come to serve,
// which the control API cannot tell while a server that is to be replaced answers there.
#include "engine/keeper/keeper_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/log.h"

void fl_keeper_set_ready(const struct fl_keeper *keeper, bool ready)
{
    const char *path = keeper->options->ready_file;
    if (!path)
        return;
    int fd =
        ready ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644) : -1;
    bool failed = ready ? fd < 0 : unlink(path) != 0 && errno != ENOENT;
    if (failed)
        fl_log(FL_LOG_WARNING, "event=ready_file_failed path=%s reason=\"%s\"", path,
               strerror(errno));
    if (fd >= 0)
        close(fd);
}
