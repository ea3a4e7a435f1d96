// SPDX-License-Identifier: Apache-2.0
//
// What the keeper tells its service manager and gets from it: the messages on a socket of our own,
// then whole lives of a service under the notify peer.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/keeper/service_manager.h"
#include "tests/support/client.h"
#include "tests/support/notify_peer.h"
#include "tests/support/server.h"

static struct temp temp;

static void begin(void)
{
    static const char *const names[] = {"NOTIFY_SOCKET", "FDSTORE",       "FAULTLINE_FDSTORE",
                                        "WATCHDOG_USEC", "WATCHDOG_PID",  "LISTEN_PID",
                                        "LISTEN_FDS",    "LISTEN_FDNAMES"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
    temp_make(&temp);
}

static void end(void)
{
    temp_remove(&temp);
}

TestSuite(service_manager, .init = begin, .fini = end, .timeout = 120);

// --- one message ---

// A manager's socket at a path, and $NOTIFY_SOCKET says so.
static int manager_open(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", temp_path(&temp, "notify"));
    cr_assert_eq(bind(s, (struct sockaddr *)&address, sizeof address), 0);
    setenv("NOTIFY_SOCKET", address.sun_path, 1);
    return s;
}

static void assert_got(int s, const char *wanted)
{
    char text[512] = "";
    cr_assert_geq(recv(s, text, sizeof text - 1, MSG_DONTWAIT), 0, "nothing came");
    cr_assert_str_eq(text, wanted);
}

Test(service_manager, without_one_there_is_nobody_to_tell)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    setenv("FAULTLINE_FDSTORE", "1", 1);
    cr_assert_not(fl_sm_present());
    cr_assert_not(fl_sm_keeps());
    cr_assert_eq(fl_sm_notify("READY=1"), -ENOTCONN);
    cr_assert_eq(fl_sm_store("vm.1", fd), -ENOTCONN);
    cr_assert_eq(fl_sm_remove("vm.1"), -ENOTCONN);
    cr_assert_eq(fl_sm_barrier(1000), -ENOTCONN);
    cr_assert_eq(fl_sm_watchdog_ms(), 0);
    cr_assert_eq(fl_sm_inherit(NULL, NULL), 0); // nothing to call it with
    close(fd);
}

Test(service_manager, who_keeps_descriptors)
{
    static const struct {
        const char *systemds, *ours;
        bool keeps;
    } cases[] = {{NULL, NULL, false}, {NULL, "1", true},   {NULL, "0", false},
                 {"0", "1", false},   {"512", NULL, true}, {"", NULL, false}};
    setenv("NOTIFY_SOCKET", "/nowhere", 1);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsetenv("FDSTORE");
        unsetenv("FAULTLINE_FDSTORE");
        if (cases[i].systemds)
            setenv("FDSTORE", cases[i].systemds, 1);
        if (cases[i].ours)
            setenv("FAULTLINE_FDSTORE", cases[i].ours, 1);
        cr_assert_eq(fl_sm_keeps(), cases[i].keeps, "case %u", i);
    }
}

Test(service_manager, says_what_the_protocol_wants)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    int s = manager_open();
    cr_assert_eq(fl_sm_notify("READY=1\nSTATUS=3 VMs"), 0);
    cr_assert_eq(fl_sm_store("vm.1", fd), 0);
    cr_assert_eq(fl_sm_remove("vm.1"), 0);
    assert_got(s, "READY=1\nSTATUS=3 VMs");
    assert_got(s, "FDSTORE=1\nFDPOLL=0\nFDNAME=vm.1");
    assert_got(s, "FDSTOREREMOVE=1\nFDNAME=vm.1");
    cr_assert_neq(fcntl(fd, F_GETFD), -1, "a stored descriptor stays open here");
    close(fd);
    close(s);
}

Test(service_manager, refuses_what_a_manager_would_misunderstand)
{
    char longest[FL_SM_NAME_MAX + 2] = {0};
    int fd = eventfd(0, EFD_CLOEXEC);
    int s = manager_open();
    memset(longest, 'a', FL_SM_NAME_MAX);
    cr_assert_eq(fl_sm_store(longest, fd), 0);
    longest[FL_SM_NAME_MAX] = 'a';
    const char *const bad[] = {"", "a:b", "a\nREADY=1", "\xc3\xa4", longest};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(fl_sm_store(bad[i], fd), -EINVAL, "name %u", i);
        cr_assert_eq(fl_sm_remove(bad[i]), -EINVAL, "name %u", i);
    }
    cr_assert_eq(fl_sm_store("a", -1), -EBADF);
    setenv("NOTIFY_SOCKET", "relative", 1);
    cr_assert_eq(fl_sm_notify("READY=1"), -EAFNOSUPPORT);
    setenv("NOTIFY_SOCKET", temp_path(&temp, "nobody"), 1);
    cr_assert_eq(fl_sm_notify("READY=1"), -ENOENT);
    close(fd);
    close(s);
}

static uint64_t ms_of_notify(int wanted)
{
    uint64_t start = fl_now();
    cr_assert_eq(fl_sm_notify("WATCHDOG=1"), wanted);
    return (fl_now() - start) / FL_NS_PER_MS;
}

Test(service_manager, a_manager_that_does_not_read_holds_us_up_once)
{
    char text[64];
    int s = manager_open();
    uint64_t start = fl_now();
    unsigned sent = 0;
    while (fl_sm_notify("WATCHDOG=1") == 0)
        sent++;
    uint64_t ms = (fl_now() - start) / FL_NS_PER_MS;
    cr_assert(ms >= FL_SM_WAIT_MS && ms < 10 * FL_SM_WAIT_MS, "%lu ms", (unsigned long)ms);
    cr_assert_gt(sent, 0);
    // Not again, for as long as it does not read.
    for (int i = 0; i < 5; i++)
        cr_assert_lt(ms_of_notify(-EAGAIN), FL_SM_WAIT_MS / 2);
    cr_assert_eq(fl_sm_barrier(60000), -EAGAIN);
    // It reads again: all is as before, the wait too.
    cr_assert_gt(recv(s, text, sizeof text, 0), 0);
    cr_assert_lt(ms_of_notify(0), FL_SM_WAIT_MS / 2);
    cr_assert_geq(ms_of_notify(-EAGAIN), FL_SM_WAIT_MS);
    close(s);
}

// The test's thread waits for room.
static bool waits_in_ppoll(void *arg)
{
    char path[64], text[32] = "";
    (void)arg;
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)getpid());
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file);
    bool read = fgets(text, sizeof text, file);
    fclose(file);
    return read && strtol(text, NULL, 10) == SYS_ppoll;
}

static void *make_room(void *arg)
{
    char text[64];
    bool waits = wait_until(waits_in_ppoll, NULL);
    return waits && recv(*(int *)arg, text, sizeof text, 0) > 0 ? arg : NULL;
}

Test(service_manager, waits_for_room)
{
    pthread_t reader;
    void *made = NULL;
    int s = manager_open();
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", getenv("NOTIFY_SOCKET"));
    int other = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    while (sendto(other, "X=1", 3, 0, (struct sockaddr *)&address, sizeof address) == 3)
        ;
    cr_assert_eq(errno, EAGAIN);
    cr_assert_eq(pthread_create(&reader, NULL, make_room, &s), 0);
    cr_assert_eq(fl_sm_notify("READY=1"), 0);
    pthread_join(reader, &made);
    cr_assert_not_null(made);
    close(other);
    close(s);
}

Test(service_manager, a_barrier_nobody_answers_ends)
{
    int s = manager_open();
    uint64_t start = fl_now();
    cr_assert_eq(fl_sm_barrier(100), -ETIMEDOUT);
    cr_assert_geq(fl_now() - start, 100 * FL_NS_PER_MS);
    close(s);
}

Test(service_manager, watchdog_wants_half_its_time)
{
    char pid[32];
    setenv("WATCHDOG_USEC", "3000000", 1);
    cr_assert_eq(fl_sm_watchdog_ms(), 1500);
    snprintf(pid, sizeof pid, "%d", (int)getppid());
    setenv("WATCHDOG_PID", pid, 1);
    cr_assert_eq(fl_sm_watchdog_ms(), 0, "it waits for another process");
}

// --- whole lives ---

struct life {
    struct notify_peer *peer;
    struct notify_peer_options options;
    const char *argv[12];
    struct server output; // only its log
};

static void life_new(struct life *life, const char *const *actions)
{
    static const char *const environment[] = {"FAULTLINE_FDSTORE=1", NULL};
    *life = (struct life){.argv = {NOTIFY_SERVICE}};
    for (unsigned i = 0; actions[i]; i++)
        life->argv[i + 1] = actions[i];
    snprintf(life->output.log, sizeof life->output.log, "%s", temp_path(&temp, "service.log"));
    life->options.argv = life->argv;
    life->options.environment = environment;
    life->options.log = life->output.log;
    life->options.store_max = 12000;
}

static void life_begin(struct life *life, const char *const *actions)
{
    life_new(life, actions);
    life->peer = notify_peer_new(&life->options);
    if (!notify_peer_start(life->peer, TEST_DEADLINE_MS)) {
        server_print_log(&life->output);
        cr_assert_fail("not ready");
    }
}

static void life_says(struct life *life, const char *line, unsigned times)
{
    cr_assert(server_wait_log(&life->output, line, times), "%s", line);
}

Test(service_manager, every_kind_of_descriptor_lives_on)
{
    struct life life;
    life_begin(&life, (const char *const[]){"kinds", "remove=memfd.0", NULL});
    cr_assert_eq(notify_peer_stored(life.peer, ""), 5);
    cr_assert_eq(notify_peer_stored(life.peer, "left-socket."), 2);
    cr_assert_eq(notify_peer_stored(life.peer, "memfd."), 0);
    cr_assert(notify_peer_restart(life.peer, SIGUSR1, TEST_DEADLINE_MS));
    life_says(&life, "got=5 bad=0", 1);
    life_says(&life, "signal USR1", 1);

    // A crash.
    kill(notify_peer_pid(life.peer), SIGKILL);
    cr_assert(notify_peer_restart_ended(life.peer, TEST_DEADLINE_MS));
    life_says(&life,
              "got=5 bad=", 2); // what the sockets had to say has been read in the second life
    cr_assert_eq(notify_peer_stored(life.peer, ""), 5);

    int status = notify_peer_stop(life.peer, SIGTERM, TEST_DEADLINE_MS);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_assert_eq(notify_peer_stored(life.peer, ""), 0);
    cr_assert_eq(notify_peer_seen(life.peer).hung_up, 0);
    notify_peer_free(life.peer);
}

Test(service_manager, thousands_of_descriptors_live_on)
{
    struct life life;
    life_begin(&life, (const char *const[]){"fill=4000", NULL});
    cr_assert_eq(notify_peer_stored(life.peer, "memfd."), 4000);
    cr_assert(notify_peer_restart(life.peer, SIGUSR1, TEST_DEADLINE_MS));
    life_says(&life, "got=4000 bad=0", 1);
    notify_peer_free(life.peer);
}

Test(service_manager, a_description_is_kept_once)
{
    struct life life;
    life_begin(&life, (const char *const[]){"twice", NULL});
    cr_assert_eq(notify_peer_stored(life.peer, "memfd.again"), 1);
    cr_assert_eq(notify_peer_stored(life.peer, "memfd.twice"), 0);
    cr_assert_eq(notify_peer_seen(life.peer).twice, 1);
    notify_peer_free(life.peer);
}

// The others of the service are left alone until its main process has ended, and then killed.
Test(service_manager, no_process_of_a_service_outlives_a_restart)
{
    struct life life;
    char text[4096] = "", *child;
    life_begin(&life, (const char *const[]){"child", NULL});
    FILE *log = fopen(life.output.log, "r");
    cr_assert_gt(fread(text, 1, sizeof text - 1, log), 0);
    fclose(log);
    cr_assert_not_null(child = strstr(text, "child "));
    pid_t pid = atoi(child + 6);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    cr_assert_eq(poll(&p, 1, 0), 0, "it lives");
    cr_assert(notify_peer_restart(life.peer, SIGUSR1, TEST_DEADLINE_MS));
    cr_assert_eq(poll(&p, 1, 0), 1, "it is dead");
    close(pidfd);
    notify_peer_free(life.peer);
}

static bool has_heard_three(void *arg)
{
    return notify_peer_seen(arg).watchdog >= 3;
}

Test(service_manager, the_watchdog_is_fed)
{
    struct life life;
    life_new(&life, (const char *const[]){NULL});
    life.options.watchdog_ms = 2000;
    life.peer = notify_peer_new(&life.options);
    cr_assert(notify_peer_start(life.peer, TEST_DEADLINE_MS));
    cr_assert(wait_until(has_heard_three, life.peer));
    cr_assert_eq(notify_peer_seen(life.peer).late, 0);
    cr_assert_str_eq(notify_peer_seen(life.peer).status, "serving");
    notify_peer_free(life.peer);
}

Test(service_manager, the_watchdog_bites)
{
    struct life life;
    life_new(&life, (const char *const[]){"deaf", "fill=3", NULL});
    life.options.watchdog_ms = 500;
    life.peer = notify_peer_new(&life.options);
    cr_assert(notify_peer_start(life.peer, TEST_DEADLINE_MS));
    cr_assert(notify_peer_restart_ended(life.peer, TEST_DEADLINE_MS));
    cr_assert_geq(notify_peer_seen(life.peer).late, 1);
    life_says(&life, "got=3 bad=0", 1);
    notify_peer_free(life.peer);
}

// What a VM's memory waits for is served by the next life, from a descriptor that only the manager
// had meanwhile.
static int touch_at(int channel, struct client_shared *shared, void *arg)
{
    (void)channel, (void)shared;
    execl(NOTIFY_SERVICE, NOTIFY_SERVICE, "vm", (char *)arg, (char *)NULL);
    return 127;
}

Test(service_manager, a_fault_waits_for_the_next_life)
{
    struct life life;
    struct client vm;
    char listen[TEST_PATH + 16];
    snprintf(listen, sizeof listen, "listen=%s", temp_path(&temp, "sock"));
    life_begin(&life, (const char *const[]){listen, NULL});
    client_start(&vm, touch_at, (void *)(uintptr_t)(listen + strlen("listen=")));
    life_says(&life, "vm kept", 1);
    cr_assert_eq(notify_peer_stored(life.peer, "vm."), 1);
    cr_assert(client_waits(&vm, 1));
    cr_assert(notify_peer_restart(life.peer, SIGUSR1, TEST_DEADLINE_MS));
    life_says(&life, "vm served", 1);
    cr_assert_eq(client_wait(&vm), 0);
    notify_peer_free(life.peer);
}
