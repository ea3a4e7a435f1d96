// SPDX-License-Identifier: Apache-2.0
//
// Files that the user names: what is not a regular file is never replaced, nor anything in a store.
// The nodes are the test's own.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/snapshot_support.h"

static struct workspace space;
static char target[128];
static const char said[] = "somebody else's";

static void write_text(const char *path)
{
    FILE *file = fopen(path, "we");
    cr_assert_not_null(file);
    fputs(said, file);
    fclose(file);
}

static void setup(void)
{
    static const struct fl_trace_entry touched = {.page = 3};
    const struct fl_recording one = {.entries = &touched, .count = 1};
    cr_assert_eq(workspace_make(&space), 0);
    snprintf(target, sizeof(target), "%s/target", space.dir);
    cr_assert_eq(make_pages(space.memory, 1, 40), 0);
    cr_assert_eq(pack_file(space.store, "image", space.memory, NULL), 0);
    cr_assert_eq(merge_trace(space.store, "image", &one, 1, false), 0);
    write_text(target);
}

static void teardown(void)
{
    workspace_remove(&space);
}

TestSuite(output, .init = setup, .fini = teardown, .timeout = 60);

static int make_node(const char *path)
{
    // As /dev/null is; without privileges a FIFO has to do.
    int r = mknod(path, S_IFCHR | 0600, makedev(1, 3));
    return r < 0 && errno == EPERM ? mkfifo(path, 0600) : r;
}

static int make_fifo(const char *path)
{
    return mkfifo(path, 0600);
}

static int make_link(const char *path)
{
    return symlink(target, path);
}

static int make_dangling(const char *path)
{
    return symlink("nowhere", path);
}

static int make_directory(const char *path)
{
    return mkdir(path, 0700);
}

static int make_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r = bind(fd, (struct sockaddr *)&address, sizeof(address));
    close(fd);
    return r;
}

static int (*const kinds[])(const char *) = {make_node,     make_fifo,      make_link,
                                             make_dangling, make_directory, make_socket};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static int run(const char *const *argv)
{
    const char *given = getenv("FAULTLINE_BIN");
    int status;
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execv(given ? given : FAULTLINE_DEFAULT, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int draw(const char *path)
{
    const char *const argv[] = {"faultline", "trace", "show",  "--store", space.store,
                                "--svg",     path,    "image", NULL};
    return run(argv);
}

static int unpack_forced(const char *path)
{
    const char *const argv[] = {"faultline", "unpack", "--force", "--store",
                                space.store, "image",  path,      NULL};
    return run(argv);
}

static void expect_text(const char *path)
{
    char text[64] = "";
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file);
    cr_assert_not_null(fgets(text, sizeof(text), file));
    cr_assert_str_eq(text, said);
    fclose(file);
}

static void refuses_all_kinds(int (*verb)(const char *))
{
    for (int i = 0; i < KINDS; i++) {
        char path[128];
        struct stat before;
        struct stat after;
        snprintf(path, sizeof(path), "%s/place", space.dir);
        cr_assert_eq(kinds[i](path), 0, "%s", strerror(errno));
        cr_assert_eq(lstat(path, &before), 0);
        int files = count_files(space.dir, ".");
        cr_assert_eq(verb(path), 1, "kind %d", i);
        cr_assert_eq(lstat(path, &after), 0);
        cr_assert_eq(before.st_ino, after.st_ino, "kind %d", i);
        cr_assert_eq(before.st_mode, after.st_mode, "kind %d", i);
        cr_assert_eq(count_files(space.dir, "."), files, "kind %d leaves something", i);
        int r = i == 4 ? rmdir(path) : unlink(path);
        cr_assert_eq(r, 0);
    }
    expect_text(target);
}

Test(output, unpack_replaces_nothing_but_regular_files)
{
    refuses_all_kinds(unpack_forced);
    cr_assert_eq(unpack_forced(target), 0);
    cr_assert(same_files(target, space.memory));
}

Test(output, pictures_replace_nothing_but_regular_files)
{
    char picture[128];
    refuses_all_kinds(draw);
    snprintf(picture, sizeof(picture), "%s/picture", space.dir);
    cr_assert_eq(draw(picture), 0);
    cr_assert_eq(draw(picture), 0, "it is drawn anew");
}

Test(output, nothing_is_written_into_a_store)
{
    static const char *const places[] = {"images/image.img", "packs/new", "lock", "new",
                                         "index/data.mdb"};
    uint64_t bad;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        char path[160];
        snprintf(path, sizeof(path), "%s/%s", space.store, places[i]);
        cr_assert_eq(unpack_forced(path), 1, "%s", places[i]);
        cr_assert_eq(draw(path), 1, "%s", places[i]);
    }
    cr_assert_eq(verify_store(space.store, &bad), 0);
    cr_assert_eq(bad, 0);
}

Test(output, a_store_that_is_a_file_stays_one)
{
    const char *const argv[] = {"faultline", "pack",  "--store",    target,
                                "--name",    "other", space.memory, NULL};
    cr_assert_eq(run(argv), 1);
    expect_text(target);
}
