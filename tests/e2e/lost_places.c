// SPDX-License-Identifier: Apache-2.0
//
// Directories that go away under a server: the store, the sockets, the control API's. VMs that it
// has are served, also by a successor of an engine that is killed meanwhile; it says what it lacks,
// and has it again when it is back.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/world.h"

TestSuite(lost_places, .init = need_userfaultfd, .fini = world_close, .timeout = 180);

enum { BYTES = 8 << 20, VMS = 3 };

static struct world *world;
static struct client client[VMS];
static char store[2 * TEST_PATH];
static char elsewhere[2 * TEST_PATH];

// Touches half, says so, and touches all when it is told to.
static int touch_in_two(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, arg ? arg : world->socket);
    for (uint32_t page = 0; page < vmm.pages / 2; page++)
        vmm_check(&vmm, page);
    tell_test(channel, 't');
    await_test(channel, 'g');
    vmm_touch_all(&vmm, 1, VMM_UP, true);
    return 0;
}

static void start_vms(void)
{
    for (unsigned i = 0; i < VMS; i++) {
        client_start(&client[i], touch_in_two, NULL);
        cr_assert(client_says(&client[i], 't'));
    }
}

// A copy of temp_path()'s, which keeps few.
static const char *keep(char to[2 * TEST_PATH], const char *name)
{
    snprintf(to, (size_t)2 * TEST_PATH, "%s", temp_path(&world->temp, name));
    return to;
}

static void make(void)
{
    world = world_make(DISTINCT, BYTES);
    keep(store, "store");
    keep(elsewhere, "elsewhere");
}

static void begin(void)
{
    make();
    world_serve(world, NULL);
    start_vms();
}

static void end_vms(void)
{
    for (unsigned i = 0; i < VMS; i++) {
        client_tell(&client[i], 'g');
        cr_assert_eq(client_wait(&client[i]), 0);
    }
}

static void kill_engine(void)
{
    cr_assert(server_kill_engine(&world->server));
}

static bool lacks(const char *what)
{
    static char output[1 << 16];
    char wanted[64];
    const char *args[] = {"status", "--control", temp_path(&world->temp, "control.sock"), "--json",
                          NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
    snprintf(wanted, sizeof(wanted), "\"what\": \"%s\"", what);
    char tight[64];
    snprintf(tight, sizeof(tight), "\"what\":\"%s\"", what);
    return strstr(output, wanted) || strstr(output, tight);
}

static bool lacks_it(void *what)
{
    return lacks(what);
}

static bool has_it(void *what)
{
    return !lacks(what);
}

static void check_restored(char *what)
{
    cr_assert(wait_until(has_it, what), "%s is not there again", what);
}

static void check_served(void *socket)
{
    struct client new;
    client_start(&new, touch_in_two, socket);
    cr_assert(client_says(&new, 't'));
    client_tell(&new, 'g');
    cr_assert_eq(client_wait(&new), 0);
}

// What it is told is an error; every touch is poisoned.
static int refused(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)shared;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_1_12);
    vmm_catch_sigbus();
    vmm_handshake(&vmm, world->socket);
    CHECK(vmm_poisoned(vmm_page(&vmm, 0)), "it is served");
    return 0;
}

static void check_refused(const char *sentence)
{
    struct client new;
    client_start(&new, refused, NULL);
    cr_assert_eq(client_wait(&new), 0);
    cr_assert(server_wait_log(&world->server, sentence, 1));
}

// --- the store ---

// The status for people says it as well.
static void check_status_says(const char *sentence)
{
    char output[4096];
    const char *args[] = {"status", "--control", temp_path(&world->temp, "control.sock"), NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0);
    cr_assert_not_null(strstr(output, sentence), "%s", output);
}

// While it is away VMs go on, also after deaths.
static void check_without_store(void)
{
    cr_assert(wait_until(lacks_it, (char *)"store"));
    kill_engine();
    cr_assert(wait_until(lacks_it, (char *)"store"));
    check_status_says("DEGRADED: store: there is no store at ");
    kill_engine();
}

Test(lost_places, a_store_that_is_moved_away_and_back)
{
    begin();
    cr_assert_eq(rename(store, elsewhere), 0);
    check_without_store();
    check_refused("reason=\"the image cannot be opened: there is no store at ");
    cr_assert_eq(rename(elsewhere, store), 0);
    check_restored("store");
    check_served(NULL);
    end_vms();
    world_stop(world);
    cr_expect_eq(server_logs(&world->server, "event=degraded what=store", 3), 3,
                 "not once for each engine");
}

Test(lost_places, a_store_that_is_removed)
{
    char command[3 * TEST_PATH];
    begin();
    snprintf(command, sizeof(command), "rm -r '%s'",
             store); // image by image, and sockets with them
    cr_assert_eq(system(command), 0);
    check_without_store();
    end_vms();
    world_stop(world);
}

// Mounts of its own: nobody else sees them, and they go with the processes of the test.
static void own_mounts(void)
{
    cr_assert_eq(unshare(CLONE_NEWNS), 0);
    cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
}

Test(lost_places, a_store_that_is_unmounted_and_mounted_again)
{
    char disk[2 * TEST_PATH];
    make();
    own_mounts();
    keep(disk, "disk");
    cr_assert(mkdir(store, 0755) == 0 && mkdir(disk, 0755) == 0);
    cr_assert_eq(mount("disk", disk, "tmpfs", 0, NULL), 0);
    cr_assert_eq(mount(disk, store, NULL, MS_BIND, NULL), 0);
    world_serve(world, NULL);
    start_vms();
    cr_assert_eq(umount2(store, MNT_DETACH), 0);
    check_without_store();
    cr_assert_eq(mount(disk, store, NULL, MS_BIND, NULL), 0);
    check_restored("store");
    check_served(NULL);
    end_vms();
    world_stop(world);
}

static bool is_gone(void *path)
{
    struct stat status;
    return lstat(path, &status) != 0;
}

// The directory that the path leads to is another one from one moment to the next.
Test(lost_places, a_store_that_is_swapped_for_another)
{
    char link[2 * TEST_PATH];
    char next[2 * TEST_PATH];
    char second[2 * TEST_PATH];
    char other[2 * TEST_PATH];
    make();
    keep(link, "link");
    keep(next, "next");
    keep(second, "second");
    cr_assert(symlink("store", link) == 0 && symlink("second", next) == 0);
    const char *pack[] = {"pack", "--store", second, "--name", "other", world->file, NULL};
    cr_assert_eq(faultline_run(NULL, 0, pack), 0);
    world_pack(world, world->file, "first");
    world->store = link;
    world_serve(world, NULL);
    start_vms();
    cr_assert_eq(rename(next, link), 0);
    cr_assert(wait_until(socket_is_open, (void *)(uintptr_t)keep(other, "sockets/other.sock")));
    cr_assert(wait_until(is_gone, (void *)(uintptr_t)world->socket));
    check_served(other);
    const char *more[] = {"pack", "--store", second, "--name", "more", world->file, NULL};
    cr_assert_eq(faultline_run(NULL, 0, more), 0);
    cr_assert(wait_until(socket_is_open,
                         (void *)(uintptr_t)temp_path(&world->temp, "sockets/more.sock")));
    kill_engine();
    end_vms();
    world_stop(world);
}

// --- sockets ---

// Known by its path to who asks the kernel which sockets live, as systemd-tmpfiles does.
static bool kernel_knows(const char *path)
{
    char line[1024];
    bool found = false;
    FILE *file = fopen("/proc/net/unix", "re");
    while (file && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        const char *at = strchr(line, '/');
        found = found || (at && strcmp(at, path) == 0);
    }
    if (file)
        fclose(file);
    return found;
}

Test(lost_places, a_socket_that_is_removed)
{
    struct stat before;
    struct stat after;
    char socket[2 * TEST_PATH];
    begin();
    snprintf(socket, sizeof(socket), "%s", world->socket);
    cr_assert(kernel_knows(socket));
    cr_assert(chmod(socket, 0600) == 0 && stat(socket, &before) == 0);
    cr_assert_eq(unlink(socket), 0);
    cr_assert(wait_until(socket_is_open, socket));
    // What can be connected to has its mode, in the first moment as well.
    cr_assert(stat(socket, &after) == 0 && before.st_ino != after.st_ino);
    cr_expect_eq(after.st_mode & 0777, 0660);
    check_served(NULL);
    kill_engine();
    cr_assert_eq(unlink(socket), 0); // the successor's, too
    cr_assert(wait_until(socket_is_open, socket));
    check_served(NULL);
    end_vms();
    world_stop(world);
}

// One that was asked for, with the owner and mode that it was asked for with.
Test(lost_places, a_socket_that_was_asked_for_is_removed)
{
    struct stat status;
    char socket[2 * TEST_PATH];
    char directory[2 * TEST_PATH];
    make();
    world_serve(world, NULL);
    cr_assert_eq(mkdir(keep(directory, "jail"), 0755), 0);
    keep(socket, "jail/vm.sock");
    const char *args[] = {"listen",  "--control", temp_path(&world->temp, "control.sock"),
                          "--image", "image",     "--socket",
                          socket,    "--owner",   "1234:2345",
                          "--mode",  "0640",      NULL};
    cr_assert_eq(faultline_run(NULL, 0, args), 0);
    kill_engine(); // the successor knows it by what was kept
    cr_assert_eq(unlink(socket), 0);
    cr_assert(wait_until(socket_is_open, socket));
    cr_assert_eq(stat(socket, &status), 0);
    cr_expect(status.st_uid == 1234 && status.st_gid == 2345 && (status.st_mode & 0777) == 0640,
              "%u:%u %o", status.st_uid, status.st_gid, status.st_mode);
    check_served(socket);
    world_stop(world);
}

Test(lost_places, a_directory_of_sockets_that_goes_away)
{
    char sockets[2 * TEST_PATH];
    begin();
    cr_assert_eq(rename(keep(sockets, "sockets"), elsewhere), 0);
    cr_assert(wait_until(socket_is_open, (void *)(uintptr_t)world->socket), "it is not made again");
    check_served(NULL);
    // Something else stands there: it cannot be made.
    char command[6 * TEST_PATH];
    snprintf(command, sizeof(command), "rm -r '%s' && touch '%s'", sockets, sockets);
    cr_assert_eq(system(command), 0);
    cr_assert(wait_until(lacks_it, (char *)"sockets"));
    kill_engine();
    cr_assert(wait_until(lacks_it, (char *)"sockets"));
    cr_assert_eq(unlink(sockets), 0);
    check_restored("sockets");
    check_served(NULL);
    end_vms();
    world_stop(world);
}

// --- the control API ---

static bool answers(void *control)
{
    const char *args[] = {"status", "--control", control, NULL};
    return faultline_run(NULL, 0, args) == 0;
}

static bool logged(void *text)
{
    return server_count_log(&world->server, text) > 0;
}

// In a directory of its own, which goes away.
Test(lost_places, the_control_api_and_its_directory)
{
    char control[2 * TEST_PATH];
    char directory[2 * TEST_PATH];
    char keeper[2 * TEST_PATH + 16];
    make();
    keep(control, "run/control.sock");
    cr_assert_eq(mkdir(keep(directory, "run"), 0755), 0);
    snprintf(keeper, sizeof(keeper), "%s.keeper", control);
    const char *extra[] = {"--control", control, NULL};
    world_serve(world, extra);
    start_vms();
    cr_assert_eq(unlink(control), 0);
    cr_assert_eq(unlink(keeper), 0);
    cr_assert(wait_until(socket_is_open, keeper));
    cr_assert(wait_until(answers, control));
    kill_engine();
    cr_assert(answers(control));
    cr_assert_eq(rename(directory, elsewhere), 0);
    cr_assert(wait_until(logged, (char *)"event=degraded what=control"));
    kill_engine();
    check_served(NULL);
    cr_assert_eq(mkdir(directory, 0755), 0);
    cr_assert(wait_until(answers, control));
    cr_assert(wait_until(socket_is_open, keeper));
    kill_engine();
    cr_assert(answers(control));
    end_vms();
    world_stop(world);
}

// --- limits ---

// From now on, and for all processes that are started from here.
static void deny(unsigned call, int error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

// It is named, and the store is followed all the same.
static void check_without_inotify(unsigned call, int error, const char *limit)
{
    make();
    deny(call, error);
    world_serve(world, NULL);
    cr_assert(lacks("inotify"));
    cr_assert(server_wait_log(&world->server, limit, 1));
    start_vms();
    world_pack(world, world->file, "later");
    cr_assert(wait_until(socket_is_open,
                         (void *)(uintptr_t)temp_path(&world->temp, "sockets/later.sock")));
    kill_engine();
    cr_assert(lacks("inotify"));
    end_vms();
    world_stop(world);
}

Test(lost_places, no_inotify_instance)
{
    check_without_inotify(SYS_inotify_init1, EMFILE, "fs.inotify.max_user_instances");
}

Test(lost_places, no_inotify_watch)
{
    check_without_inotify(SYS_inotify_add_watch, ENOSPC, "fs.inotify.max_user_watches");
}

// --- two servers ---

static void expect_second(const char *const *args, int status, const char *reason)
{
    char output[4096];
    cr_expect_eq(faultline_run(output, sizeof(output), args), status, "%s", output);
    cr_expect_not_null(strstr(output, reason), "%s", output);
}

// The second does not start, whether the first has a keeper or not, and starts when it has ended.
static bool is_there(void *path)
{
    return access(path, F_OK) == 0;
}

Test(lost_places, two_servers_with_one_directory_of_sockets)
{
    struct server second;
    char lock[2 * TEST_PATH];
    char sockets[2 * TEST_PATH];
    make();
    world_serve(world, NULL);
    keep(lock, "sockets/.faultline.lock");
    const char *args[] = {"serve",
                          "--store",
                          store,
                          "--sockets",
                          temp_path(&world->temp, "sockets"),
                          "--control",
                          temp_path(&world->temp, "second.sock"),
                          NULL};
    expect_second(args, 1, temp_path(&world->temp, "control.sock"));
    check_served(NULL);
    kill_engine(); // its successor has the lock as well
    expect_second(args, 1, "give each server a directory of its own");
    // The directory is made anew, and so is the lock.
    cr_assert_eq(rename(keep(sockets, "sockets"), elsewhere), 0);
    cr_assert(wait_until(is_there, lock), "there is no lock in the new directory");
    expect_second(args, 1, temp_path(&world->temp, "control.sock"));
    check_served(NULL);
    world_stop(world);
    cr_expect_eq(access(lock, F_OK), -1, "the lock is left");
    cr_assert(server_start(&second, &world->temp, "second", args));
    check_served(NULL);
    cr_expect_eq(server_logs(&second, "event=attach", 1), 1);
    cr_expect_eq(server_stop(&second), 0);
    cr_expect_eq(access(lock, F_OK), -1, "the lock is left");
}

// An engine that goes on alone keeps others out, and not the keeper that takes it over.
Test(lost_places, a_directory_of_sockets_is_an_engines_without_a_keeper)
{
    struct server next;
    make();
    world_serve(world, NULL);
    pid_t engine = server_engine(&world->server);
    server_kill_keeper(&world->server);
    const char *args[] = {"serve",
                          "--store",
                          store,
                          "--sockets",
                          temp_path(&world->temp, "sockets"),
                          "--control",
                          temp_path(&world->temp, "second.sock"),
                          NULL};
    expect_second(args, 1, temp_path(&world->temp, "control.sock"));
    args[6] = temp_path(&world->temp, "control.sock");
    server_spawn(&next, &world->temp, "next", args);
    cr_assert(server_wait_log(&next, "event=took_over", 1));
    cr_expect_eq(server_engine(&next), engine);
    args[6] = temp_path(&world->temp, "second.sock");
    expect_second(args, 1, "give each server a directory of its own");
    check_served(NULL);
    cr_expect_eq(server_stop(&next), 0);
}

// A process that is no server, and listens there first.
Test(lost_places, a_socket_that_another_process_has)
{
    char path[2 * TEST_PATH];
    make();
    keep(path, "sockets/image.sock");
    world_pack(world, world->file, "image");
    cr_assert_eq(mkdir(temp_path(&world->temp, "sockets"), 0755), 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 1) == 0);
    cr_assert(server_serve(&world->server, &world->temp, store, NULL));
    cr_assert(server_wait_log(&world->server, "event=degraded what=sockets", 1));
    cr_expect_eq(access(path, F_OK), 0);
    close(fd);
    cr_assert(server_wait_log(&world->server, "event=restored what=sockets", 1));
    world->socket = path;
    check_served(NULL);
    world_stop(world);
}

// --- the program ---

// The file of the program is deleted: engines are started from what the keeper holds open.
Test(lost_places, the_program_is_deleted)
{
    char command[6 * TEST_PATH];
    char program[2 * TEST_PATH];
    make();
    keep(program, "program");
    snprintf(command, sizeof(command), "cp '%s' '%s'", getenv("FAULTLINE_BIN"), program);
    cr_assert_eq(system(command), 0);
    const char *binary = getenv("FAULTLINE_BIN");
    setenv("FAULTLINE_BIN", program, 1);
    begin();
    setenv("FAULTLINE_BIN", binary, 1);
    cr_assert_eq(unlink(program), 0);
    kill_engine();
    kill_engine();
    end_vms();
    world_stop(world);
}

// --- no process can be started ---

static char pids[256];

static void write_pids(const char *file, const char *text)
{
    char path[320];
    snprintf(path, sizeof(path), "%s/%s", pids, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    cr_assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s: %s", path,
              strerror(errno));
    close(fd);
}

static bool remove_pids(void *arg)
{
    (void)arg;
    return rmdir(pids) == 0 || errno == ENOENT;
}

static void leave_pids(void)
{
    world_close();
    if (*pids)
        cr_expect(wait_until(remove_pids, NULL), "%s: %s", pids, strerror(errno));
}

// The controller of the second version, or of the first.
static bool make_pids(void)
{
    static const char *const roots[] = {"/sys/fs/cgroup/pids", "/sys/fs/cgroup"};
    for (unsigned i = 0; i < 2; i++) {
        char file[320];
        snprintf(pids, sizeof(pids), "%s/fl-places-%d", roots[i], (int)getpid());
        snprintf(file, sizeof(file), "%s/pids.max", pids);
        if (mkdir(pids, 0755) == 0 && access(file, W_OK) == 0)
            return true;
        rmdir(pids);
    }
    *pids = '\0';
    return false;
}

static bool stands_by(void *arg)
{
    (void)arg;
    return world_status(world, "keeper", "standby_pid") > 0;
}

static bool failed_closed(void)
{
    return server_count_log(&world->server, "event=failing_closed") > 0;
}

static bool wait_for(bool (*condition)(void), long ms)
{
    struct timespec start;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        if (condition())
            return true;
        poll(NULL, 0, 50);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < ms);
    return false;
}

TestSuite(no_process, .init = need_userfaultfd, .fini = leave_pids, .timeout = 180);

// The keeper cannot start the next standby. An engine serves: nobody is lost, and it says so.
Test(no_process, can_be_started)
{
    char text[32];
    make();
    if (!make_pids()) {
        cr_assert(!getenv("CI"), "CI must have the controller of pids");
        cr_skip_test("this test needs the controller of pids");
    }
    world_serve(world, NULL);
    cr_assert(wait_until(stands_by, NULL));
    snprintf(text, sizeof(text), "%d", (int)world->server.pid);
    write_pids("cgroup.procs", text);
    write_pids("pids.max", "0"); // of the keeper's cgroup: engines that run are elsewhere
    start_vms();
    kill_engine();
    cr_assert(wait_until(lacks_it, (char *)"standby"));
    cr_expect_eq(server_logs(&world->server, "event=engine_failed", 1), 1);
    // As many attempts as would have the VMs given up, had they been engines that died.
    cr_expect_not(wait_for(failed_closed, 27000));
    pid_t engine = server_engine(&world->server);
    unsigned ready = server_count_log(&world->server, "event=ready pid=");
    world->server.deaths++;
    cr_assert_eq(kill(engine, SIGKILL), 0); // the last one: VMs wait
    cr_assert(server_wait_log(&world->server, "event=engine_died", 2));
    write_pids("pids.max", "max");
    cr_assert(server_wait_log(&world->server, "event=ready pid=", ready + 1));
    cr_assert(wait_until(stands_by, NULL));
    cr_assert(wait_until(has_it, (char *)"standby"));
    kill_engine();
    end_vms();
    world_stop(world);
}
