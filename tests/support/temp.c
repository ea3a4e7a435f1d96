// SPDX-License-Identifier: Apache-2.0
#include "tests/support/temp.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ATTEMPTS = 100 };

static void need(int condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "test support: %s: %s\n", what, strerror(errno));
    abort();
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    (void)remove(path); // one that cannot be removed must not keep the others
    return 0;
}

static void remove_all(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

// A byte: the test has cleaned up. The end: it was killed, and so were its children.
_Noreturn static void janitor(int pipe_end, const char *path)
{
    char byte;
    setsid();
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    // Who started the test waits until its output is closed.
    dup2(pipe_end, STDIN_FILENO);
    close_range(STDIN_FILENO + 1, ~0U, 0);
    if (read(STDIN_FILENO, &byte, 1) != 0)
        _exit(0);
    // Processes of the test may be dying still, and leave something.
    for (unsigned i = 0; i < ATTEMPTS && access(path, F_OK) == 0; i++) {
        remove_all(path);
        poll(NULL, 0, 20);
    }
    _exit(0);
}

// Twice: the janitor is no child of the test, which may wait for any child.
static void start_janitor(struct temp *temp)
{
    int ends[2];
    need(pipe2(ends, O_CLOEXEC) == 0, "pipe2");
    pid_t pid = fork();
    need(pid >= 0, "fork");
    if (pid == 0) {
        close(ends[1]);
        pid = fork();
        if (pid == 0)
            janitor(ends[0], temp->path);
        _exit(pid < 0);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    need(status == 0, "fork");
    close(ends[0]);
    temp->janitor = ends[1];
}

void temp_make(struct temp *temp)
{
    const char *base = getenv("TMPDIR");
    snprintf(temp->path, sizeof(temp->path), "%s/faultline-test-XXXXXX", base ? base : "/tmp");
    need(mkdtemp(temp->path) != NULL, temp->path);
    start_janitor(temp);
}

void temp_remove(const struct temp *temp)
{
    remove_all(temp->path);
    need(write(temp->janitor, "", 1) == 1, "the janitor");
    close(temp->janitor);
}

const char *temp_path(const struct temp *temp, const char *name)
{
    static char ring[16][2 * TEST_PATH];
    static unsigned next;
    char *path = ring[next++ % 16];
    snprintf(path, sizeof(ring[0]), "%s/%s", temp->path, name);
    return path;
}
