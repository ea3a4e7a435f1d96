// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/crash_support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct workspace space;
char base[96];   // a store with the image "first"
char second[96]; // a memory file that shares half of its pages with "first"
char log_path[96];

int run(const char *const *argv, long crash_at, int crash_errno)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        char number[32];
        int log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(log, STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
        snprintf(number, sizeof(number), "%ld", crash_at);
        setenv("CRASH_AT", number, 1);
        snprintf(number, sizeof(number), "%d", crash_errno);
        setenv("CRASH_ERRNO", number, 1);
        if (crash_at > 0)
            setenv("LD_PRELOAD", CRASH_SHIM, 1);
        // A sanitizer wants to be the first library; the shim does not hide anything from it.
        setenv("ASAN_OPTIONS", "verify_asan_link_order=0:abort_on_error=1:detect_leaks=0", 1);
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return status;
}

bool was_killed(int status)
{
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

const char *faultline(void)
{
    const char *given = getenv("FAULTLINE_BIN");
    return given ? given : FAULTLINE_DEFAULT;
}

int run_pack(const char *store, const char *name, const char *memory, long at, int error)
{
    // One thread, so that a call's number is the same call in each round.
    const char *const argv[] = {faultline(), "pack",      "--store", store,  "--name",
                                name,        "--threads", "1",       memory, NULL};
    return run(argv, at, error);
}

void copy_base(void)
{
    char command[400];
    snprintf(command, sizeof(command), "rm -rf '%s' && cp -r --sparse=always '%s' '%s'",
             space.store, base, space.store);
    cr_assert_eq(system(command), 0);
}

void crash_setup(void)
{
    cr_assert_eq(workspace_make(&space), 0);
    snprintf(base, sizeof(base), "%s/base", space.dir);
    snprintf(second, sizeof(second), "%s/second", space.dir);
    snprintf(log_path, sizeof(log_path), "%s/log", space.dir);
    cr_assert_eq(make_pages(space.memory, 1, 1300), 0);
    cr_assert_eq(make_pages(second, 700, 1300), 0);
    cr_assert_eq(run_pack(base, "first", space.memory, 0, 0), 0);
}

void crash_teardown(void)
{
    workspace_remove(&space);
}

bool has_image(const char *name)
{
    char path[200];
    snprintf(path, sizeof(path), "%s/images/%s.img", space.store, name);
    return access(path, F_OK) == 0;
}

void expect_image(const char *name, const char *memory, long round)
{
    cr_assert_eq(unpack_file(space.store, name, space.output), 0, "round %ld, %s", round, name);
    cr_assert(same_files(memory, space.output), "round %ld, %s", round, name);
}

void read_log(char *text, size_t size)
{
    FILE *log = fopen(log_path, "re");
    cr_assert(log);
    size_t len = fread(text, 1, size - 1, log);
    text[len] = '\0';
    fclose(log);
}
