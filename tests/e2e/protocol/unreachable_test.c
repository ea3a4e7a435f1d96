// SPDX-License-Identifier: Apache-2.0
//
// What a verb says if no server answers at its control path: what is really the case.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"

TestSuite(unreachable, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

enum { IMAGE_BYTES = 1 << 20, NOBODY = 65534, TEXT = 4096 };

static struct world *world;

static void expect_said(const char *path, const char *reason)
{
    char output[TEXT];
    const char *args[] = {"status", "--control", path, NULL};
    cr_expect_eq(faultline_run(output, sizeof(output), args), 1);
    cr_expect_not_null(strstr(output, reason), "no '%s' but: %s", reason, output);
    cr_expect_not_null(strstr(output, path), "no path in: %s", output);
    const char *end = strchr(output, '\n');
    cr_expect(end && end[1] == '\0', "not one sentence: %s", output);
}

Test(unreachable, what_is_at_the_path)
{
    world = world_make(EMPTY, IMAGE_BYTES);
    const char *path = temp_path(&world->temp, "control.sock");
    expect_said(path, "there is no such socket");
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    expect_said(path, "it is a regular file, not a socket");
    expect_said(world->temp.path, "it is a directory, not a socket");
    unlink(path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    close(fd);
    expect_said(path, "no process listens there any more");
}

Test(unreachable, sockets_that_are_others)
{
    world = world_make(MIXED, IMAGE_BYTES);
    world_serve(world, NULL);
    expect_said(world->socket, "it may be an image's socket");
    expect_said(temp_path(&world->temp, "control.sock.keeper"), "it is a socket of another kind");
    world_stop(world);
}

// A copy that any user can run, wherever the build is.
static const char *copy_command(void)
{
    char order[2 * TEST_PATH];
    const char *copy = temp_path(&world->temp, "faultline");
    snprintf(order, sizeof(order), "cp '%s' '%s' && chmod 755 '%s'", getenv("FAULTLINE_BIN"), copy,
             copy);
    cr_assert_eq(system(order), 0); // NOLINT(cert-env33-c)
    cr_assert_eq(chmod(world->temp.path, 0755), 0);
    return copy;
}

// Runs the command as a user that owns nothing.
static int status_of_nobody(const char *control, char *output, size_t size)
{
    int ends[2];
    const char *command = copy_command();
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        child_setup();
        dup2(ends[1], STDERR_FILENO);
        if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
            _exit(99);
        execl(command, "faultline", "status", "--control", control, NULL);
        _exit(98);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t got; (got = read(ends[0], output + used, size - 1 - used)) > 0;)
        used += (size_t)got;
    output[used] = '\0';
    close(ends[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

Test(unreachable, a_user_that_may_not)
{
    char output[TEXT];
    world = world_make(MIXED, IMAGE_BYTES);
    world_serve(world, NULL);
    int status = status_of_nobody(temp_path(&world->temp, "control.sock"), output, sizeof(output));
    cr_expect_eq(status, 1, "%d", status);
    cr_expect_not_null(strstr(output, "permission denied"), "%s", output);
    world_stop(world);
}
