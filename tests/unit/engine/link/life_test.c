// SPDX-License-Identifier: Apache-2.0
//
// An engine's death is seen when its last thread has stopped, and not before, but for those that
// are held up in the kernel for a single VM.
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/link/channel.h"
#include "engine/link/death_watch.h"

enum { WAIT_MS = 30000 };

struct engine {
    pid_t pid;
    pid_t thread; // its second
    int channel;
    int life;
    struct fl_death_watch *watch;
};

struct thread {
    struct fl_life_table *life;
    uint64_t vm; // within a call for it
    int begun;
    pid_t tid;
};

static void *live(void *arg)
{
    struct thread *thread = arg;
    fl_life_table_join(thread->life, 7);
    atomic_store(fl_life_table_call(thread->life, 7), thread->vm);
    thread->tid = gettid();
    cr_assert_eq(write(thread->begun, "b", 1), 1);
    for (;;)
        pause();
    return NULL;
}

// Two threads, of which the second ends when it is told to.
static _Noreturn void be_engine(int channel, uint64_t vm)
{
    struct fl_life_table *life = NULL;
    struct thread thread = {0};
    struct fl_message message = {.type = FL_MESSAGE_READY, .slots = 1, .mask = 1};
    pthread_t other;
    int fd = -1;
    int begun[2];
    char byte = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (fl_life_table_new(&fd, &life) != 0 || pipe(begun) != 0)
        _exit(1);
    fl_life_table_join(life, 0);
    thread = (struct thread){.life = life, .vm = vm, .begun = begun[1]};
    if (pthread_create(&other, NULL, live, &thread) != 0 || read(begun[0], &byte, 1) != 1)
        _exit(1);
    message.value = (uint64_t)thread.tid;
    fl_channel_send(channel, &message, &fd, true);
    for (;;)
        pause();
}

static void start_unwatched(struct engine *engine, uint64_t vm)
{
    int pair[2];
    static struct fl_message message;
    int fds[FL_CHANNEL_FDS];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    engine->pid = fork();
    if (engine->pid == 0)
        be_engine(pair[1], vm);
    close(pair[1]);
    engine->channel = pair[0];
    cr_assert_eq(fl_channel_receive(pair[0], &message, fds, true), 1);
    cr_assert_eq(message.type, FL_MESSAGE_READY);
    engine->life = fds[0];
    engine->thread = (pid_t)message.value;
    cr_assert_geq(engine->life, 0);
}

static void start(struct engine *engine, uint64_t vm)
{
    start_unwatched(engine, vm);
    cr_assert_eq(fl_death_watch_start(engine->life, &engine->watch), 0);
}

static void end(struct engine *engine)
{
    cr_expect_eq(waitpid(engine->pid, NULL, 0), engine->pid);
    fl_death_watch_stop(engine->watch);
    close(engine->life);
    close(engine->channel);
}

static bool is_over(const struct engine *engine, int wait_ms)
{
    struct pollfd poll_fd = {.fd = fl_death_watch_event_fd(engine->watch), .events = POLLIN};
    bool readable = poll(&poll_fd, 1, wait_ms) == 1;
    cr_expect_eq(readable, fl_death_watch_is_over(engine->watch));
    return readable;
}

// A thread that was killed and got no CPU for some milliseconds counts as held up until it has
// ended.
static bool lets_go(const struct engine *engine, uint64_t vm)
{
    uint64_t count = 0;
    struct pollfd again = {.fd = fl_death_watch_event_fd(engine->watch), .events = POLLIN};
    while (fl_death_watch_holds(engine->watch, vm)) {
        if (read(again.fd, &count, sizeof(count)) < 0 && poll(&again, 1, WAIT_MS) != 1)
            return false;
    }
    return true;
}

Test(life, ends_with_a_kill)
{
    struct engine engine;
    start(&engine, 0);
    cr_expect_not(is_over(&engine, 50));
    kill(engine.pid, SIGKILL);
    cr_expect(is_over(&engine, WAIT_MS));
    end(&engine);
}

Test(life, does_not_end_while_it_is_stopped)
{
    struct engine engine;
    start(&engine, 0);
    kill(engine.pid, SIGSTOP);
    cr_expect_eq(waitpid(engine.pid, NULL, WUNTRACED), engine.pid);
    cr_expect_not(is_over(&engine, 50));
    kill(engine.pid, SIGKILL);
    cr_expect(is_over(&engine, WAIT_MS));
    end(&engine);
}

Test(life, of_one_that_is_gone_already)
{
    struct engine engine;
    siginfo_t info;
    start_unwatched(&engine, 0);
    kill(engine.pid, SIGKILL);
    cr_expect_eq(waitid(P_PID, (id_t)engine.pid, &info, WEXITED | WNOWAIT), 0);
    cr_assert_eq(fl_death_watch_start(engine.life, &engine.watch), 0);
    cr_expect(is_over(&engine, WAIT_MS));
    end(&engine);
}

// --- a thread that was killed and does not end: stopped on its way out, before it gives up its
// mutex ---

static void hold_at_exit(pid_t thread)
{
    cr_assert_eq(ptrace(PTRACE_SEIZE, thread, NULL, (void *)(long)PTRACE_O_TRACEEXIT), 0);
}

static void let_exit(pid_t thread)
{
    int status = 0;
    cr_assert_eq(waitpid(thread, &status, __WALL), thread);
    cr_assert(WIFSTOPPED(status) && status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8));
    cr_assert_eq(ptrace(PTRACE_CONT, thread, NULL, NULL), 0);
    cr_assert_eq(waitpid(thread, &status, __WALL), thread);
}

Test(life, is_over_for_others_while_a_thread_is_held_up_for_one_vm)
{
    struct engine engine;
    uint64_t count = 0;
    start(&engine, 12);
    hold_at_exit(engine.thread);
    cr_expect(fl_death_watch_holds(engine.watch, 12)); // while it lives, too
    kill(engine.pid, SIGKILL);
    cr_expect(is_over(&engine, WAIT_MS));
    cr_expect(fl_death_watch_holds(engine.watch, 12));
    cr_expect_not(fl_death_watch_holds(engine.watch, 13));
    cr_assert_eq(read(fl_death_watch_event_fd(engine.watch), &count, sizeof(count)), 8);
    let_exit(engine.thread);
    struct pollfd again = {.fd = fl_death_watch_event_fd(engine.watch), .events = POLLIN};
    cr_expect_eq(poll(&again, 1, WAIT_MS), 1);
    cr_expect_not(fl_death_watch_holds(engine.watch, 12));
    end(&engine);
}

Test(life, is_not_over_while_a_thread_is_held_up_for_all)
{
    struct engine engine;
    start(&engine, 0);
    hold_at_exit(engine.thread);
    kill(engine.pid, SIGKILL);
    cr_expect_not(is_over(&engine, 100));
    let_exit(engine.thread);
    cr_expect(is_over(&engine, WAIT_MS));
    end(&engine);
}

// The keeper that had the engine before still watches: neither may take the end from the other.
Test(life, is_seen_by_two_keepers)
{
    enum { TIMES = 20 };
    for (unsigned i = 0; i < TIMES; i++) {
        struct engine engine;
        int status = -1;
        start_unwatched(&engine, 12);
        pid_t other = fork();
        if (other == 0) {
            alarm(WAIT_MS / 1000);
            bool seen =
                fl_death_watch_start(engine.life, &engine.watch) == 0 && is_over(&engine, WAIT_MS);
            _exit(seen ? 0 : 1);
        }
        cr_assert_eq(fl_death_watch_start(engine.life, &engine.watch), 0);
        kill(engine.pid, SIGKILL);
        cr_expect(is_over(&engine, WAIT_MS));
        cr_expect(lets_go(&engine, 12));
        cr_assert_eq(waitpid(other, &status, 0), other);
        cr_expect_eq(status, 0);
        end(&engine);
    }
}

// An engine of another version has a memfd of another size: reading beyond its end would kill the
// keeper.
Test(life, of_another_version_is_refused)
{
    struct fl_death_watch *watch = NULL;
    int fd = memfd_create("other", MFD_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(fl_death_watch_start(fd, &watch), -EPROTONOSUPPORT);
    cr_assert_eq(ftruncate(fd, 4096), 0);
    cr_assert_eq(fl_death_watch_start(fd, &watch), -EPROTONOSUPPORT);
    close(fd);
}
