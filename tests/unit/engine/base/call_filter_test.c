// SPDX-License-Identifier: Apache-2.0
//
// The filters of system calls: that the names are real ones, and what a process that has a filter
// can really do. Each probe is a child, since a filter is for good.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/call_filter.h"
#include "engine/base/call_lists.h"
#include "engine/base/rcu.h"

// The run-time of a sanitizer needs some of what an engine never does.
#ifdef FAULTLINE_SANITIZED
enum { PLAIN = 0 };
#else
enum { PLAIN = 1 };
#endif
enum { UNKNOWN_CALL = 1000, INSTRUCTION = 8, MOST_INSTRUCTIONS = 1000 };

// What these tests call on purpose is nothing that an engine lacks.
static void keep_to_ourselves(void)
{
    unsetenv("FAULTLINE_UNLISTED");
}

TestSuite(call_filter, .init = keep_to_ourselves);

// --- the lists ---

static unsigned check_names(const char *const *names)
{
    unsigned count = 0;
    for (; names[count]; count++) {
        int here = seccomp_syscall_resolve_name(names[count]);
        cr_expect_neq(here, __NR_SCMP_ERROR, "libseccomp knows no call %s", names[count]);
    }
    return count;
}

Test(call_lists, names_are_known)
{
    cr_expect_gt(check_names(fl_calls_of_administration), 40);
    cr_expect_gt(check_names(fl_calls_of_the_engine), 100);
    check_names(fl_calls_that_start_programs);
    check_names(fl_calls_of_sanitizers);
}

static bool lists(const char *const *names, const char *name)
{
    while (*names && strcmp(*names, name) != 0)
        names++;
    return *names != NULL;
}

Test(call_lists, no_name_is_on_both_sides)
{
    for (const char *const *name = fl_calls_of_administration; *name; name++) {
        cr_expect(!lists(fl_calls_of_the_engine, *name), "%s", *name);
        cr_expect(!lists(fl_calls_of_sanitizers, *name), "%s", *name);
    }
    for (const char *const *name = fl_calls_that_start_programs; *name; name++)
        cr_expect(!lists(fl_calls_of_the_engine, *name), "%s", *name);
    for (const char *const *name = fl_calls_of_the_engine; *name; name++)
        cr_expect(!lists(name + 1, *name), "%s is there twice", *name);
}

// The kernel takes 32768 instructions for all filters of a process together.
Test(call_lists, programs_are_short)
{
    for (int which = FL_CALL_FILTER_KEEPER; which <= FL_CALL_FILTER_ENGINE; which++) {
        const struct fl_call_filter_options options = {.internet = true};
        int fd = memfd_create("filter", MFD_CLOEXEC);
        struct stat status;
        cr_assert_eq(fl_call_filter_export((enum fl_call_filter)which, &options, fd), 0);
        cr_assert_eq(fstat(fd, &status), 0);
        cr_expect_gt(status.st_size / INSTRUCTION, 50);
        cr_expect_lt(status.st_size / INSTRUCTION, MOST_INSTRUCTIONS);
        close(fd);
    }
}

// --- what it does ---

struct filter {
    enum fl_call_filter which;
    struct fl_call_filter_options options;
};

static const struct filter keeper = {.which = FL_CALL_FILTER_KEEPER};
static const struct filter engine = {.which = FL_CALL_FILTER_ENGINE};

// The wait status of a child that has the filter and then returned this from the probe.
static int probe(const struct filter *filter, int (*run)(void))
{
    int status = 0;
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        if (fl_call_filter_install(filter->which, &filter->options) != 0)
            _exit(99);
        _exit(run());
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return status;
}

#define expect_exit(STATUS, CODE)                                                                  \
    cr_expect(WIFEXITED(STATUS) && WEXITSTATUS(STATUS) == (CODE), "wait status %#x", STATUS)
#define expect_killed(STATUS)                                                                      \
    cr_expect(WIFSIGNALED(STATUS) && WTERMSIG(STATUS) == SIGSYS, "wait status %#x", STATUS)

static int error_of(long result)
{
    return result < 0 ? errno : 0;
}

static int starts_program(void)
{
    char *argv[] = {"/bin/true", NULL};
    execv(argv[0], argv);
    return errno;
}

static int forks(void)
{
    long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    return error_of(pid);
}

static int traces(void)
{
    return error_of(syscall(SYS_ptrace, 0, 0, 0, 0));
}

static int mounts(void)
{
    return error_of(syscall(SYS_mount, "none", "/nowhere", "tmpfs", 0, NULL));
}

static int loads_bpf(void)
{
    return error_of(syscall(SYS_bpf, 0, NULL, 0));
}

static int reads_keys(void)
{
    return error_of(syscall(SYS_keyctl, 0, 0, 0, 0, 0));
}

static int enters_namespace(void)
{
    return error_of(syscall(SYS_setns, -1, 0));
}

static int unknown_call(void)
{
    return error_of(syscall(UNKNOWN_CALL));
}

static int opens_internet(void)
{
    return error_of(socket(AF_INET, SOCK_STREAM, 0));
}

static int opens_packet(void)
{
    return error_of(socket(AF_NETLINK, SOCK_RAW, 0));
}

static int opens_local(void)
{
    return error_of(socket(AF_UNIX, SOCK_STREAM, 0));
}

static int makes_ring(void)
{
    return error_of(syscall(SYS_io_uring_setup, 1, NULL));
}

static int maps_code(void)
{
    int protection = PROT_READ | PROT_EXEC;
    void *memory = mmap(NULL, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? errno : 0;
}

static int makes_code(void)
{
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? 98 : error_of(mprotect(memory, 4096, PROT_READ | PROT_EXEC));
}

static int counts(void)
{
    uint64_t before = fl_call_filter_refused();
    unknown_call();
    unknown_call();
    return before == 0 && fl_call_filter_refused() == 2 ? 0 : 1;
}

static void *no_thread(void *arg)
{
    return arg;
}

static int works_as_usual(void)
{
    pthread_t thread;
    char byte = 0;
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, &byte, 1) != 1 || close(fd) != 0)
        return 1;
    if (pthread_create(&thread, NULL, no_thread, NULL) != 0 || pthread_join(thread, NULL) != 0)
        return 2;
    free(malloc(64 << 20));
    return fl_call_filter_refused() == 0 ? 0 : 3;
}

static void free_nothing(struct rcu_head *head)
{
    (void)head;
    fl_rcu_freeing();
    unknown_call();
}

// In the thread of liburcu, which has all signals blocked.
static int counts_while_it_frees(void)
{
    struct rcu_head head;
    rcu_register_thread();
    fl_rcu_defer(&head, free_nothing);
    rcu_barrier();
    rcu_unregister_thread();
    return fl_call_filter_refused() == 1 ? 0 : 1;
}

static int is_sent_sigsys(void)
{
    raise(SIGSYS);
    return 0;
}

Test(call_filter, engine_works, .timeout = 30)
{
    expect_exit(probe(&engine, works_as_usual), 0);
    expect_exit(probe(&engine, opens_local), 0);
    expect_exit(probe(&engine, counts_while_it_frees), 0);
}

// What cannot be done at all: the process ends.
Test(call_filter, engine_ends_when_hostile, .timeout = 30)
{
    if (PLAIN) {
        expect_killed(probe(&engine, starts_program));
        expect_killed(probe(&engine, traces));
    }
    expect_killed(probe(&engine, mounts));
    expect_killed(probe(&engine, loads_bpf));
    expect_killed(probe(&engine, reads_keys));
    expect_killed(probe(&engine, enters_namespace));
}

Test(call_filter, engine_is_refused_what_it_never_does, .timeout = 30)
{
    expect_exit(probe(&engine, unknown_call), ENOSYS);
    expect_exit(probe(&engine, opens_internet), ENOSYS);
    expect_exit(probe(&engine, opens_packet), ENOSYS);
    expect_exit(probe(&engine, makes_ring), ENOSYS);
    if (PLAIN) {
        expect_exit(probe(&engine, forks), ENOSYS);
        expect_exit(probe(&engine, maps_code), ENOSYS);
        expect_exit(probe(&engine, makes_code), ENOSYS);
    }
    expect_exit(probe(&engine, counts), 0);
}

Test(call_filter, engine_may_use_the_internet_if_it_is_told_to, .timeout = 30)
{
    const struct filter metrics = {.which = FL_CALL_FILTER_ENGINE, .options.internet = true};
    expect_exit(probe(&metrics, opens_internet), 0);
    expect_exit(probe(&metrics, opens_packet), ENOSYS);
}

// A later engine inherits it: no call may end it, and a program can be started.
Test(call_filter, keeper_refuses_administration_alone, .timeout = 30)
{
    expect_exit(probe(&keeper, starts_program), 0);
    expect_exit(probe(&keeper, forks), 0);
    expect_exit(probe(&keeper, maps_code), 0);
    expect_exit(probe(&keeper, opens_internet), 0);
    expect_exit(probe(&keeper, works_as_usual), 0);
    if (PLAIN)
        expect_exit(probe(&keeper, traces), EPERM);
    expect_exit(probe(&keeper, mounts), EPERM);
    expect_exit(probe(&keeper, loads_bpf), EPERM);
    expect_exit(probe(&keeper, reads_keys), EPERM);
    expect_exit(probe(&keeper, enters_namespace), EPERM);
    expect_exit(probe(&keeper, unknown_call), ENOSYS);
}

Test(call_filter, log_and_off_refuse_nothing, .timeout = 30)
{
    const enum fl_call_filter_mode modes[] = {FL_CALL_FILTER_LOG, FL_CALL_FILTER_OFF};
    for (unsigned i = 0; i < 2; i++) {
        const struct filter filter = {.which = FL_CALL_FILTER_ENGINE, .options.mode = modes[i]};
        expect_exit(probe(&filter, starts_program), 0);
        expect_exit(probe(&filter, opens_internet), 0);
        expect_exit(probe(&filter, counts), 1);
    }
}

Test(call_filter, a_signal_from_elsewhere_is_fatal_as_ever, .timeout = 30)
{
    expect_killed(probe(&engine, is_sent_sigsys));
}

// --- threads that were there before ---

static atomic_int go;

static void *try_when_told(void *ret_error)
{
    while (!atomic_load(&go))
        sched_yield();
    *(int *)ret_error = unknown_call() == ENOSYS ? opens_internet() : -1;
    return NULL;
}

Test(call_filter, is_for_threads_that_were_there_before, .timeout = 30)
{
    pthread_t thread;
    int error = -1;
    cr_assert_eq(pthread_create(&thread, NULL, try_when_told, &error), 0);
    cr_assert_eq(fl_call_filter_install(engine.which, &engine.options), 0);
    atomic_store(&go, 1);
    pthread_join(thread, NULL);
    cr_assert_eq(error, ENOSYS);
    cr_assert_eq(fl_call_filter_refused(), 2);
}
