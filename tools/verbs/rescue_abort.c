// SPDX-License-Identifier: Apache-2.0
//
// `faultline rescue --abort`: the end of a FUSE connection. Nothing here asks a file system: its
// server may be dead, and the command would wait with the others.
#include "tools/verbs/rescue_abort.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/doctor/doctor.h"
#include "engine/host/fuse_mount.h"
#include "engine/host/fuse_place.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"

enum { PATIENCE_MS = 1000 };
static const char *const what_happens =
    "each thread that waits for a page of it gets SIGBUS, and one in a system call an error, never "
    "zeros; pages that are cached stay readable, and no others come";

struct search {
    const char *path;
    unsigned connection;
};

// The last one is on top.
static int look(void *arg, const struct fl_fuse_mount *mount)
{
    struct search *search = arg;
    if (strcmp(mount->path, search->path) == 0)
        search->connection = mount->connection;
    return 0;
}

static int find_connection(const char *target, unsigned *ret_connection)
{
    char path[PATH_MAX];
    uint64_t number = 0;
    struct search search = {.path = path};
    if (cli_parse_number(target, 1, UINT_MAX, &number) == 0) {
        *ret_connection = (unsigned)number;
        return EXIT_DONE;
    }
    int error = fl_fuse_place_path(target, path);
    if (!error)
        error = fl_fuse_mounts_each_of_all(look, &search);
    if (error || search.connection == 0)
        return cli_fail("rescue", "no FUSE file system is mounted at %s", target);
    *ret_connection = search.connection;
    return EXIT_DONE;
}

static const struct fl_fuse_case *find_case(const struct fl_diagnosis *found, unsigned connection)
{
    for (size_t i = 0; i < found->fuses; i++) {
        if (found->fuse[i].connection == connection)
            return &found->fuse[i];
    }
    return NULL;
}

static bool is_stopped(const struct fl_fuse_case *fuse)
{
    for (size_t i = 0; i < fuse->holders; i++) {
        if (fuse->holder[i].stopped)
            return true;
    }
    return false;
}

// NULL: it may be aborted. Where the server is not known it must be seen not to answer.
static const char *why_not(const struct fl_fuse_case *fuse)
{
    if (is_stopped(fuse))
        return "a process that serves it is stopped, and goes on when it is continued";
    if (fuse->verdict == FL_VERDICT_STUCK || fuse->verdict == FL_VERDICT_ORPHAN)
        return NULL;
    if (fl_doctor_fuse_is_served(fuse))
        return "a server answers it";
    if (fuse->holders > 0 || fuse->ours)
        return NULL;
    return fuse->tasks > 0 && fuse->verdict == FL_VERDICT_UNKNOWN
               ? NULL
               : "no task is seen to wait for it too long";
}

static int abort_one(const struct rescue *rescue, const struct fl_fuse_case *fuse, int fd)
{
    const char *reason = rescue->force ? NULL : why_not(fuse);
    const char *at = *fuse->path ? fuse->path : "a mount that is not seen from here";
    if (reason)
        return cli_fail("rescue", "FUSE connection %u (%s) is not aborted: %s. --force does it: %s",
                        fuse->connection, at, reason, what_happens);
    int error = rescue->dry_run ? 0 : fl_fuse_abort_opened(fd);
    if (error)
        return cli_fail_errno("rescue", error, "cannot abort FUSE connection %u", fuse->connection);
    printf("FUSE connection %u (%s) %s: %s\n", fuse->connection, at,
           rescue->dry_run ? "would be aborted" : "is aborted", what_happens);
    return EXIT_DONE;
}

static int look_and_abort(const struct rescue *rescue, unsigned connection, int fd)
{
    struct fl_diagnosis found;
    int error = fl_diagnose(PATIENCE_MS, &found);
    if (error)
        return cli_fail_errno("rescue", error, "cannot read /proc");
    const struct fl_fuse_case *fuse = find_case(&found, connection);
    int status = fuse ? abort_one(rescue, fuse, fd)
                      : cli_fail("rescue", "there is no FUSE connection %u", connection);
    fl_diagnosis_free(&found);
    return status;
}

// The look takes a second. Meanwhile the kernel may give the number to another file system, which
// must not be ended for it: so the connection is opened first, and its mount looked for again.
int rescue_abort(const struct rescue *rescue, const char *target)
{
    unsigned connection = 0;
    unsigned again = 0;
    int status = find_connection(target, &connection);
    if (status != EXIT_DONE)
        return status;
    int error = fl_fuse_control_mount();
    if (error)
        return cli_fail_errno("rescue", error, "cannot mount fusectl at /sys/fs/fuse/connections");
    int fd = fl_fuse_abort_open(connection);
    if (fd == -ENOENT)
        return cli_fail("rescue", "there is no FUSE connection %u", connection);
    if (fd < 0)
        return cli_fail_errno("rescue", fd, "cannot abort FUSE connection %u", connection);
    status = find_connection(target, &again);
    if (status == EXIT_DONE && again != connection)
        status = cli_fail("rescue", "another file system was mounted at %s just now", target);
    if (status == EXIT_DONE)
        status = look_and_abort(rescue, connection, fd);
    close(fd);
    return status;
}
