// SPDX-License-Identifier: Apache-2.0
//
// What the doctor says of images as files, and of other file systems in user space, and the end of
// their connections: whoever looks must never wait with those who do.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/host/fuse_mount.h"
#include "engine/host/fuse_place.h"
#include "tests/support/files_world.h"
#include "tests/support/stop.h"

enum { BYTES = 4 << 20, OUTPUT = 1 << 16 };

static struct world *world;
static char output[OUTPUT];
static struct fl_fuse_mount door;
static struct fl_fuse_mount foreign; // ""; or what a test has mounted itself
static char bound[2 * TEST_PATH];    // ""; or where it has bound a file

static void end(void)
{
    if (*bound)
        umount2(bound, MNT_DETACH);
    *bound = '\0';
    if (*foreign.path) {
        fl_fuse_abort(foreign.connection);
        umount2(foreign.path, MNT_DETACH);
        *foreign.path = '\0';
    }
    files_close();
}

TestSuite(files_doctor, .init = need_fuse, .fini = end, .timeout = 120);

// It does not end an engine that hangs: the doctor is to see it.
static void begin(void)
{
    static const char *const patient[] = {"--hang-timeout", "600s", NULL};
    world = files_make(DISTINCT, BYTES);
    files_serve(world, patient);
    cr_assert_eq(fl_fuse_mount_find(temp_path(&world->temp, "files"), &door), 0);
}

static int run_doctor(const char *form)
{
    const char *args[] = {"doctor", "--patience", "200ms", form, NULL};
    return faultline_run(output, sizeof(output), args);
}

static const char *connection_text(unsigned connection, const char *more)
{
    static char text[128];
    snprintf(text, sizeof(text), "FUSE connection %u: %s", connection, more);
    return text;
}

static bool doctor_names(void *arg)
{
    return run_doctor(NULL) == 1 && strstr(output, arg) != NULL;
}

static int abort_it(const char *what, const char *force)
{
    const char *args[] = {"rescue", "--abort", what, force, NULL};
    return faultline_run(output, sizeof(output), args);
}

// One page, which comes or is SIGBUS.
static int touch_one(int channel, struct client_shared *shared, void *arg)
{
    uint64_t bytes = 0;
    const bool *sigbus = arg;
    (void)shared;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    uint8_t *map = files_map(files_path(world, "image"), &bytes);
    CHECK(map, "cannot map it: %s", strerror(errno));
    vmm_catch_sigbus();
    tell_test(channel, 'm');
    await_test(channel, 'g');
    if (*sigbus)
        CHECK(vmm_poisoned(map + bytes / 2), "there is a page where there can be none");
    else
        CHECK(memory_same(&world->memory, bytes / 2, map + bytes / 2, PAGE), "wrong page");
    return 0;
}

static bool one_waits(void *arg)
{
    return files_waiting(arg) > 0;
}

static void touch(struct client *client, const bool *sigbus)
{
    client_start(client, touch_one, (void *)sigbus);
    cr_assert(client_says(client, 'm'));
}

Test(files_doctor, an_engine_that_is_stopped_is_named_and_continued_as_printed)
{
    static const bool sigbus = false;
    struct client client;
    char text[128];
    begin();
    touch(&client, &sigbus);
    pid_t engine = server_engine(&world->server);
    cr_assert(process_stop(engine));
    client_tell(&client, 'g');
    cr_assert(wait_until(one_waits, world));
    cr_assert(wait_until(doctor_names, (void *)connection_text(door.connection, "stuck")), "%s",
              output);
    snprintf(text, sizeof(text), "kill -CONT %d\n", (int)engine);
    cr_expect(strstr(output, text), "%s", output);
    snprintf(text, sizeof(text), "of pid %d (", (int)client.pid);
    cr_expect(strstr(output, text), "%s", output);
    cr_expect(strstr(output, world->temp.path), "%s", output);
    cr_expect_eq(run_doctor("--json"), 1);
    snprintf(text, sizeof(text), "\"connection\": %u", door.connection);
    cr_expect(strstr(output, text), "%s", output);
    cr_expect_eq(abort_it(door.path, NULL), 1, "%s", output);
    cr_expect(strstr(output, "goes on when it is continued"), "%s", output);
    kill(engine, SIGCONT);
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    world_stop(world);
}

Test(files_doctor, a_server_that_answers_is_not_aborted_unless_forced)
{
    static const bool sigbus = true;
    struct client client;
    char number[16];
    begin();
    touch(&client, &sigbus);
    snprintf(number, sizeof(number), "%u", door.connection);
    run_doctor(NULL);
    cr_expect_not(strstr(output, connection_text(door.connection, "")), "%s", output);
    cr_expect_eq(abort_it(number, NULL), 1);
    cr_expect(strstr(output, "a server answers it"), "%s", output);
    cr_expect_eq(abort_it(number, "--dry-run"), 1, "%s", output);
    cr_expect_eq(abort_it("4294967295", NULL), 1);
    cr_expect(strstr(output, "there is no FUSE connection"), "%s", output);
    cr_assert_eq(abort_it(number, "--force"), 0, "%s", output);
    cr_expect(strstr(output, "never zeros"), "%s", output);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    cr_assert(server_wait_log(&world->server, "event=degraded what=files", 1));
    world_stop(world);
}

// --- what an operator unmounts ---

static bool is_unmounted(void *arg)
{
    return umount2(arg, 0) == 0;
}

static void wait_degraded(unsigned times)
{
    cr_assert(server_wait_log(&world->server, "event=degraded what=files", times));
}

// What is open goes on, and a jail's bind mount opens it again; the next engine knows as well.
Test(files_doctor, unmounted_while_a_file_is_open)
{
    static const bool sigbus = false;
    struct client client;
    begin();
    touch(&client, &sigbus);
    snprintf(bound, sizeof(bound), "%s", temp_path(&world->temp, "bound"));
    close(open(bound, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    cr_assert_eq(mount(files_path(world, "image"), bound, NULL, MS_BIND, NULL), 0);
    cr_assert_eq(umount2(door.path, MNT_DETACH), 0);
    wait_degraded(1);
    world->server.deaths = 1;
    kill(server_engine(&world->server), SIGKILL);
    wait_degraded(2);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    int fd = open(bound, O_RDONLY | O_CLOEXEC);
    cr_expect(fd >= 0, "%s", strerror(errno));
    close(fd);
    cr_assert_eq(umount2(bound, 0), 0);
    *bound = '\0';
    world_stop(world);
}

// The connection is gone with the last mount, and the next engine has none: both say so.
Test(files_doctor, unmounted_when_nothing_is_open)
{
    begin();
    cr_assert(wait_until(is_unmounted, door.path), "%s", strerror(errno));
    cr_assert(server_wait_log(&world->server, "are not mounted any more", 1));
    world->server.deaths = 1;
    kill(server_engine(&world->server), SIGKILL);
    cr_assert(server_wait_log(&world->server, "are not mounted any more", 2));
    world_stop(world);
}

// The kernel's first request has its answer before any engine is there, which could be killed with
// it; and what nothing serves is cleared away.
Test(files_doctor, who_mounts_answers_the_first_request)
{
    static char reason[FL_FUSE_REASON];
    struct fl_fuse_place place;
    struct fl_fuse_place again;
    const char *path;
    world = files_make(DISTINCT, BYTES);
    path = temp_path(&world->temp, "files"); // files_close() unmounts it
    cr_assert_eq(fl_fuse_place_make(path, 0, 0, NULL, &place, reason), 0, "%s", reason);
    cr_expect_eq(fl_fuse_waiting(place.connection), 0);
    close(place.device);
    cr_assert_eq(fl_fuse_place_make(path, 0, 0, NULL, &again, reason), 0, "%s", reason);
    cr_expect_eq(fl_fuse_place_remove(path, again.connection + 1), 0);
    cr_expect(files_mounted(world), "it has unmounted another connection's");
    cr_expect_eq(fl_fuse_place_remove(path, again.connection), 0);
    cr_expect_not(files_mounted(world));
    close(again.device);
}

// Its mount would not be found again, and would stay.
Test(files_doctor, a_symbolic_link_is_no_place_to_mount_at)
{
    static char reason[FL_FUSE_REASON];
    struct fl_fuse_place place;
    world = files_make(DISTINCT, BYTES);
    const char *path = temp_path(&world->temp, "files");
    const char *target = temp_path(&world->temp, "target");
    cr_assert(mkdir(target, 0700) == 0 && symlink(target, path) == 0);
    cr_expect_eq(fl_fuse_place_make(path, 0, 0, NULL, &place, reason), -ELOOP);
    cr_expect(strstr(reason, "symbolic link"), "%s", reason);
    cr_expect_neq(umount2(target, MNT_DETACH), 0, "it has mounted there");
}

// The kernel gives a number again as soon as it is free.
Test(files_doctor, who_gets_the_number_of_a_connection_is_not_aborted_for_it)
{
    static char reason[FL_FUSE_REASON];
    struct fl_fuse_place place;
    struct fl_fuse_place next;
    world = files_make(DISTINCT, BYTES);
    const char *path = temp_path(&world->temp, "files"); // files_close() unmounts it
    cr_assert_eq(fl_fuse_place_make(path, 0, 0, NULL, &place, reason), 0, "%s", reason);
    int opened = fl_fuse_abort_open(place.connection);
    cr_assert_geq(opened, 0);
    cr_expect_eq(fl_fuse_place_remove(path, place.connection), 0);
    close(place.device);
    cr_assert_eq(fl_fuse_place_make(path, 0, 0, NULL, &next, reason), 0, "%s", reason);
    struct pollfd device = {.fd = next.device, .events = POLLIN};
    cr_expect_eq(fl_fuse_abort_opened(opened), 0);
    cr_expect_eq(poll(&device, 1, 0), 0, "another connection was aborted");
    cr_expect_eq(fl_fuse_abort(next.connection), 0);
    cr_expect_eq(poll(&device, 1, 0), 1);
    close(opened);
    close(next.device);
}

// --- what others put in its way ---

// In a mount namespace of his own any user can give a file of his the name of a server's state.
// Whoever opens this one waits for a writer.
static int open_false_state(const char *path)
{
    char fifo[2 * TEST_PATH + 32];
    snprintf(fifo, sizeof(fifo), "%s/memfd:" FL_FUSE_STATE_NAME " (deleted)", path);
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_assert_eq(mount("none", path, "tmpfs", 0, NULL), 0, "%s", strerror(errno));
    cr_assert_eq(mkfifo(fifo, 0600), 0);
    int fd = open(fifo, O_PATH | O_CLOEXEC);
    cr_assert_eq(umount2(path, MNT_DETACH), 0);
    cr_assert_geq(fd, 0);
    return fd;
}

Test(files_doctor, a_fifo_that_is_called_as_a_state_holds_nobody_up)
{
    char path[2 * TEST_PATH];
    char link[64];
    char target[128] = "";
    world = files_make(DISTINCT, BYTES);
    snprintf(path, sizeof(path), "%s", temp_path(&world->temp, "false"));
    int fd = open_false_state(path);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    cr_assert_gt(readlink(link, target, sizeof(target) - 1), 0);
    cr_assert_str_eq(target, "/memfd:" FL_FUSE_STATE_NAME " (deleted)");
    run_doctor(NULL); // of whatever else is on this host
    cr_expect(strstr(output, "userfaultfd"), "%s", output);
    close(fd);
}

// --- a server of another kind ---

static pid_t wait_in_it(const char *path)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        struct stat status;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(stat(path, &status) == 0 ? 0 : 1);
    }
    return pid;
}

// It has its device, and reads nothing of it.
static int mount_another(const char *path)
{
    char options[128];
    int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    cr_assert(device >= 0 && mkdir(path, 0700) == 0);
    snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", device);
    cr_assert_eq(mount("test", path, "fuse.test", MS_NOSUID | MS_NODEV, options), 0);
    snprintf(foreign.path, sizeof(foreign.path), "%s", path);
    return device;
}

static int find_foreign(void *arg, const struct fl_fuse_mount *mount)
{
    if (strcmp(mount->path, arg) != 0)
        return 0;
    foreign = *mount;
    return 1;
}

Test(files_doctor, one_of_another_kind_that_answers_nothing_is_aborted_by_its_path)
{
    char path[2 * TEST_PATH];
    char text[128];
    int status = -1;
    world = files_make(DISTINCT, BYTES);
    snprintf(path, sizeof(path), "%s", temp_path(&world->temp, "another"));
    int device = mount_another(path);
    cr_assert_eq(fl_fuse_mounts_each_of_all(find_foreign, path), 1);
    cr_assert_str_eq(foreign.type, "fuse.test");
    pid_t waiter = wait_in_it(path);
    snprintf(text, sizeof(text), "of pid %d (", (int)waiter);
    cr_assert(wait_until(doctor_names, text), "%s", output);
    // Which it is that a task waits for cannot be told while other tests' have requests, too.
    cr_expect(strstr(output, connection_text(foreign.connection, "")), "%s", output);
    const char *args[] = {"doctor", "--patience", "200ms", "--store", path, NULL};
    cr_expect_eq(faultline_run(output, sizeof(output), args), 1);
    cr_expect(strstr(output, "does not answer within 3 s"), "%s", output);
    cr_assert_eq(abort_it(path, "--force"), 0, "%s", output);
    cr_assert_eq(waitpid(waiter, &status, 0), waiter);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    close(device);
}
