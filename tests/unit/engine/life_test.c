// SPDX-License-Identifier: Apache-2.0
//
// An engine's death is seen when its last thread has stopped, and not before.
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/channel.h"
#include "engine/life.h"

enum { WAIT_MS = 30000 };

struct engine {
    pid_t pid;
    int channel;
    int life;
};

struct thread {
    struct fl_life *life;
    int begun;
};

static void *live(void *arg)
{
    struct thread *thread = arg;
    fl_life_begin(thread->life, 1);
    cr_assert_eq(write(thread->begun, "b", 1), 1);
    for (;;)
        pause();
    return NULL;
}

// Two threads, of which the second ends when it is told to.
static _Noreturn void be_engine(int channel)
{
    struct fl_life *life = NULL;
    struct thread thread = {0};
    struct fl_message message = {.type = FL_MESSAGE_READY, .slots = 1, .mask = 1};
    pthread_t other;
    int fd = -1;
    int begun[2];
    char byte = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (fl_life_new(2, &fd, &life) != 0 || pipe(begun) != 0)
        _exit(1);
    fl_life_begin(life, 0);
    thread = (struct thread){life, begun[1]};
    if (pthread_create(&other, NULL, live, &thread) != 0 || read(begun[0], &byte, 1) != 1)
        _exit(1);
    fl_channel_send(channel, &message, &fd, true);
    for (;;)
        pause();
}

static void start(struct engine *engine)
{
    int pair[2];
    static struct fl_message message;
    int fds[FL_CHANNEL_FDS];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    engine->pid = fork();
    if (engine->pid == 0)
        be_engine(pair[1]);
    close(pair[1]);
    engine->channel = pair[0];
    cr_assert_eq(fl_channel_receive(pair[0], &message, fds, true), 1);
    cr_assert_eq(message.type, FL_MESSAGE_READY);
    engine->life = fds[0];
    cr_assert_geq(engine->life, 0);
}

static bool is_over(int lifeless, int wait_ms)
{
    struct pollfd poll_fd = {.fd = lifeless, .events = POLLIN};
    return poll(&poll_fd, 1, wait_ms) == 1;
}

Test(life, ends_with_a_kill)
{
    struct engine engine;
    start(&engine);
    int lifeless = fl_life_watch(engine.life);
    cr_assert_geq(lifeless, 0);
    cr_expect_not(is_over(lifeless, 50));
    kill(engine.pid, SIGKILL);
    cr_expect(is_over(lifeless, WAIT_MS));
    cr_expect_eq(waitpid(engine.pid, NULL, 0), engine.pid);
    close(lifeless);
    close(engine.life);
    close(engine.channel);
}

Test(life, does_not_end_while_it_is_stopped)
{
    struct engine engine;
    start(&engine);
    int lifeless = fl_life_watch(engine.life);
    cr_assert_geq(lifeless, 0);
    kill(engine.pid, SIGSTOP);
    cr_expect_eq(waitpid(engine.pid, NULL, WUNTRACED), engine.pid);
    cr_expect_not(is_over(lifeless, 50));
    kill(engine.pid, SIGKILL);
    cr_expect(is_over(lifeless, WAIT_MS));
    cr_expect_eq(waitpid(engine.pid, NULL, 0), engine.pid);
    close(lifeless);
    close(engine.life);
    close(engine.channel);
}

Test(life, of_one_that_is_gone_already)
{
    struct engine engine;
    start(&engine);
    kill(engine.pid, SIGKILL);
    cr_expect_eq(waitpid(engine.pid, NULL, 0), engine.pid);
    int lifeless = fl_life_watch(engine.life);
    cr_assert_geq(lifeless, 0);
    cr_expect(is_over(lifeless, WAIT_MS));
    close(lifeless);
    close(engine.life);
    close(engine.channel);
}

Test(life, of_too_many_threads_is_refused)
{
    struct fl_life *life = NULL;
    int fd = -1;
    cr_expect_eq(fl_life_new(FL_LIFE_THREADS + 1, &fd, &life), -EINVAL);
}

// An engine of another version has a memfd of another size: reading beyond its end would kill the
// keeper.
Test(life, of_another_version_is_refused)
{
    int fd = memfd_create("other", MFD_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(fl_life_watch(fd), -EPROTONOSUPPORT);
    cr_assert_eq(ftruncate(fd, 4096), 0);
    cr_assert_eq(fl_life_watch(fd), -EPROTONOSUPPORT);
    close(fd);
}
