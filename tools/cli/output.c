// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli/exit_status.h"

void output_begin(void)
{
    // Neither read nor written, which is what its user has asked for, and there in every chroot.
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/", O_PATH) != fd) // NOLINT(android-cloexec-open)
            _exit(EXIT_FAILED);
    }
}

int output_end(const char *verb, int status)
{
    bool failed = ferror(stdout) != 0; // earlier, and why is not known any more
    errno = 0;
    failed = fflush(stdout) != 0 || failed;
    int error = errno;
    errno = 0;
    failed = fclose(stdout) != 0 || failed; // where a file server has no room, it says so now
    if (!failed)
        return status;
    error = error ? error : errno;
    fprintf(stderr, "faultline%s%s: standard output cannot be written%s%s\n", verb ? " " : "",
            verb ? verb : "", error ? ": " : "", error ? strerror(error) : "");
    return status == EXIT_DONE ? EXIT_FAILED : status;
}
