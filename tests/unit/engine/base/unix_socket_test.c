// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/base/unix_socket.h"

static const struct fl_socket_access access_all = {0640, (uid_t)-1, (gid_t)-1};
static char directory[512];

static void make_directory(void)
{
    snprintf(directory, sizeof(directory), "%s/faultline-socket-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    cr_assert_not_null(mkdtemp(directory));
}

static void remove_directory(void)
{
    char command[600];
    snprintf(command, sizeof(command), "rm -r '%s'", directory);
    cr_assert_eq(system(command), 0);
}

TestSuite(unix_socket, .init = make_directory, .fini = remove_directory, .timeout = 30);

static const char *in_directory(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

Test(unix_socket, has_its_mode_and_takes_connections)
{
    struct fl_listening listening;
    struct stat status;
    const char *path = in_directory("a.sock");
    cr_assert_eq(fl_socket_listen(path, SOCK_STREAM, &access_all, &listening), 0);
    cr_assert_eq(stat(path, &status), 0);
    cr_assert_eq(status.st_mode & 0777, 0640);
    int client = fl_socket_connect(path, SOCK_STREAM);
    cr_assert_geq(client, 0);
    int peer = accept(listening.fd, NULL, NULL);
    cr_assert_geq(peer, 0);
    close(client);
    close(peer);
    fl_socket_close(path, &listening);
    cr_assert_eq(stat(path, &status), -1);
}

// --- what a client could do at each moment ---

static struct {
    const char *path; // NULL: nothing is watched
    mode_t allowed;   // what no mode may exceed while the owner is not yet the last one
    struct fl_socket_access last;
    unsigned changes;
    unsigned wrong;
} watched;

static bool listens_at(const char *path)
{
    for (int fd = 0; fd < 64; fd++) {
        struct sockaddr_un address = {.sun_family = AF_UNSPEC};
        socklen_t size = sizeof(address);
        int listens = 0;
        socklen_t int_size = sizeof(listens);
        if (getsockname(fd, (struct sockaddr *)&address, &size) == 0 &&
            address.sun_family == AF_UNIX && strcmp(address.sun_path, path) == 0 &&
            getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &int_size) == 0 && listens)
            return true;
    }
    return false;
}

static bool is_last(uid_t uid, gid_t gid)
{
    return (watched.last.uid == (uid_t)-1 || watched.last.uid == uid) &&
           (watched.last.gid == (gid_t)-1 || watched.last.gid == gid);
}

static void look(void)
{
    struct stat status;
    if (!watched.path)
        return;
    watched.changes++;
    cr_assert_eq(stat(watched.path, &status), 0);
    mode_t mode = status.st_mode & 0777;
    if (mode != 0 && !listens_at(watched.path))
        watched.wrong++;
    if ((mode & ~watched.allowed) != 0 && !is_last(status.st_uid, status.st_gid))
        watched.wrong++;
}

// After each of the calls by which the engine makes or changes a socket's file.
int bind(int fd, __CONST_SOCKADDR_ARG address, socklen_t size)
{
    long result = syscall(SYS_bind, fd, address.__sockaddr__, size);
    if (result == 0)
        look();
    return (int)result;
}

int listen(int fd, int backlog)
{
    long result = syscall(SYS_listen, fd, backlog);
    look();
    return (int)result;
}

int chmod(const char *path, mode_t mode)
{
    long result = syscall(SYS_fchmodat, AT_FDCWD, path, mode);
    look();
    return (int)result;
}

int fchownat(int fd, const char *path, uid_t uid, gid_t gid, int flags)
{
    long result = syscall(SYS_fchownat, fd, path, uid, gid, flags);
    look();
    return (int)result;
}

Test(unix_socket, lets_in_no_client_before_mode_and_owner_are_right)
{
    struct fl_listening listening;
    struct stat status;
    bool root = geteuid() == 0;
    struct fl_socket_access first = {0660, root ? 1234 : (uid_t)-1, root ? 2345 : (gid_t)-1};
    struct fl_socket_access second = {0606, root ? 3456 : (uid_t)-1, root ? 4567 : (gid_t)-1};
    const char *path = in_directory("a.sock");
    watched.path = path;
    watched.last = first;
    cr_assert_eq(fl_socket_listen(path, SOCK_STREAM, &first, &listening), 0);
    cr_expect_geq(watched.changes, 4); // or they were not seen
    watched.allowed = 0600;            // what both allow
    watched.last = second;
    cr_assert_eq(fl_socket_set_access(path, &listening, &second), 0);
    cr_expect_geq(watched.changes, 6);
    cr_expect_eq(watched.wrong, 0);
    watched.path = NULL;
    cr_assert_eq(stat(path, &status), 0);
    cr_expect_eq(status.st_mode & 0777, second.mode);
    cr_expect(is_last(status.st_uid, status.st_gid));
    fl_socket_close(path, &listening);
}

// 200 bytes of name alone, where a socket address has room for 108.
Test(unix_socket, takes_a_path_of_any_length)
{
    struct fl_listening listening;
    char name[201];
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    const char *path = in_directory(name);
    cr_assert_eq(fl_socket_listen(path, SOCK_STREAM, &access_all, &listening), 0);
    int client = fl_socket_connect(path, SOCK_STREAM);
    cr_assert_geq(client, 0);
    close(client);
    fl_socket_close(path, &listening);
}

Test(unix_socket, takes_the_place_of_a_dead_one_only)
{
    struct fl_listening first;
    struct fl_listening second;
    struct stat status;
    const char *path = in_directory("a.sock");
    cr_assert_eq(fl_socket_listen(path, SOCK_STREAM, &access_all, &first), 0);
    cr_assert_eq(fl_socket_listen(path, SOCK_STREAM, &access_all, &second), -EADDRINUSE);
    close(first.fd); // as if its process had been killed: the path stays
    cr_assert_eq(fl_socket_listen(path, SOCK_STREAM, &access_all, &second), 0);
    first.fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    fl_socket_close(path, &first); // not its own any more: it must leave it
    cr_assert_eq(stat(path, &status), 0);
    fl_socket_close(path, &second);
}

Test(unix_socket, leaves_files_alone)
{
    struct fl_listening listening;
    struct stat status;
    const char *path = in_directory("file");
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    cr_assert_eq(fl_socket_listen(path, SOCK_STREAM, &access_all, &listening), -EEXIST);
    cr_assert_eq(stat(path, &status), 0);
    cr_assert(S_ISREG(status.st_mode));
    cr_assert_eq(
        fl_socket_listen(in_directory("none/a.sock"), SOCK_STREAM, &access_all, &listening),
        -ENOENT);
    cr_assert_eq(fl_socket_listen(in_directory(""), SOCK_STREAM, &access_all, &listening), -EEXIST);
}

// Another server is about to put its socket there.
Test(unix_socket, waits_for_no_lock_of_its_directory)
{
    struct fl_listening listening;
    int lock = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(lock, 0);
    cr_assert_eq(flock(lock, LOCK_EX), 0);
    const char *path = in_directory("a.sock");
    cr_assert_eq(fl_socket_listen(path, SOCK_STREAM, &access_all, &listening), -EBUSY);
    close(lock);
    cr_assert_eq(fl_socket_listen(path, SOCK_STREAM, &access_all, &listening), 0);
    fl_socket_close(path, &listening);
}

// So it is found by who asks what is at the path, and no other is.
Test(unix_socket, is_known_by_its_file)
{
    struct fl_listening listening;
    struct fl_listening same;
    const char *path = in_directory("a.sock");
    cr_assert_eq(fl_socket_listen(path, SOCK_STREAM, &access_all, &listening), 0);
    int error = fl_socket_identify(listening.fd, &same);
    if (error == -EPERM)
        cr_skip_test("this test needs CAP_NET_ADMIN");
    cr_assert_eq(error, 0);
    cr_expect(fl_socket_is_at(path, &same));
    cr_assert_eq(unlink(path), 0);
    cr_expect_not(fl_socket_is_at(path, &same));
    fl_socket_close(path, &listening);
}
