// SPDX-License-Identifier: Apache-2.0
//
// Deaths in the middle of a checkpoint: of the command, of the VM, of the engine, at each step. The
// VM is never left paused, nor in the open() of a FIFO; nothing is published, and nothing is left.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/checkpoint_world.h"
#include "tests/support/points.h"
#include "tests/support/stop.h"

TestSuite(checkpoint_killed, .init = need_userfaultfd, .fini = checkpoint_world_close,
          .timeout = 240);

static struct checkpoint_world *all;

static const enum mini_step steps[] = {MINI_PAUSE,   MINI_PAUSED, MINI_CREATE,
                                       MINI_WRITTEN, MINI_OPENED, MINI_RESUME};
enum { STEPS = sizeof(steps) / sizeof(steps[0]) };

static void make_and_start(void)
{
    all = checkpoint_world_make(MIXED, 8 << 20);
    checkpoint_world_start();
}

static const char *output(void)
{
    return temp_path(&all->world->temp, "output");
}

static void read_output(char text[CHECKPOINT_TEXT])
{
    int fd = open(output(), O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text, CHECKPOINT_TEXT - 1) : -1;
    text[got > 0 ? got : 0] = '\0';
    if (fd >= 0)
        close(fd);
}

static bool says(void *arg)
{
    char text[CHECKPOINT_TEXT];
    read_output(text);
    return strstr(text, arg) != NULL;
}

// --- the command ---

enum victim { PROCESS, GROUP };

// Holds Firecracker at a step, ends the command, and lets Firecracker go on.
static void end_command_at(enum mini_step step, int signal, enum victim victim)
{
    atomic_store(&all->mini->at, MINI_NOWHERE);
    atomic_store(&all->mini->waits_at, step);
    pid_t pid = checkpoint_begin("one", NULL, output());
    cr_assert(mini_comes_to(all->mini, step), "step %d", (int)step);
    kill(victim == GROUP ? -pid : pid, signal);
    if (signal == SIGKILL)
        cr_assert_eq(checkpoint_ended(pid), 128 + SIGKILL);
    atomic_store(&all->mini->waits_at, MINI_NOWHERE);
    if (signal != SIGKILL)
        cr_assert_eq(checkpoint_ended(pid), 1);
    checkpoint_left_nothing();
    cr_assert_not(checkpoint_has_image("one"));
}

static void end_command(int signal, enum victim victim)
{
    char text[CHECKPOINT_TEXT];
    make_and_start();
    for (unsigned i = 0; i < STEPS; i++) {
        if (signal != SIGKILL && steps[i] == MINI_RESUME)
            continue; // by then it can as well be finished
        end_command_at(steps[i], signal, victim);
    }
    // And the next one works.
    const char *args[] = {"--name", "next", NULL};
    cr_assert_eq(checkpoint_do("checkpoint", text, args), 0, "%s", text);
    checkpoint_image_is_right("next");
    checkpoint_world_stop();
}

Test(checkpoint_killed, the_command_by_sigkill)
{
    end_command(SIGKILL, PROCESS);
}

Test(checkpoint_killed, the_command_with_its_process_group)
{
    end_command(SIGKILL, GROUP);
}

Test(checkpoint_killed, the_command_by_sigterm)
{
    end_command(SIGTERM, PROCESS);
}

Test(checkpoint_killed, the_command_by_sigint_to_its_process_group)
{
    end_command(SIGINT, GROUP);
}

static bool has_child(pid_t pid)
{
    char path[64];
    char line[64] = "";
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *file = fopen(path, "re");
    bool has = file && fgets(line, sizeof(line), file) && strtol(line, NULL, 10) > 0;
    if (file)
        fclose(file);
    return has;
}

// Of a command: it has started its guard, and its first thread sleeps in a read().
static bool waits_for_its_guard(void *arg)
{
    pid_t pid = *(const pid_t *)arg;
    char path[64];
    char line[256] = "";
    char *end = line;
    snprintf(path, sizeof(path), "/proc/%d/syscall", (int)pid);
    FILE *file = fopen(path, "re");
    bool reads = file && fgets(line, sizeof(line), file) && strtol(line, &end, 10) == SYS_read;
    if (file)
        fclose(file);
    return reads && end > line && has_child(pid);
}

// A guard that is still in the group dies as well: nothing is paused before it has left it.
Test(checkpoint_killed, the_command_with_its_process_group_before_its_guard_has_left_it)
{
    need_points();
    make_and_start();
    point_hold(all->world, "left_behind");
    pid_t pid = checkpoint_begin("one", NULL, output());
    cr_assert(wait_until(waits_for_its_guard, &pid));
    kill(-pid, SIGKILL);
    cr_assert_eq(checkpoint_ended(pid), 128 + SIGKILL);
    cr_assert_eq(atomic_load(&all->mini->pauses), 0);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// While Firecracker waits in open(), and while it is on its way there. If it was frozen before the
// server had stopped, the command goes on, but not to its end: packing is held back.
Test(checkpoint_killed, the_command_while_firecracker_waits)
{
    need_points();
    make_and_start();
    point_hold(all->world, "pack_next");
    for (unsigned round = 0; round < 10; round++) {
        atomic_store(&all->mini->at, MINI_NOWHERE);
        atomic_store(&all->mini->waits_at, MINI_WRITTEN);
        pid_t pid = checkpoint_begin("one", NULL, output());
        cr_assert(mini_comes_to(all->mini, MINI_WRITTEN));
        server_pause(&all->world->server);
        atomic_store(&all->mini->waits_at, MINI_NOWHERE);
        usleep(1000 * round);
        kill(pid, SIGKILL);
        cr_assert_eq(checkpoint_ended(pid), 128 + SIGKILL);
        server_resume(&all->world->server);
        checkpoint_left_nothing();
        cr_assert_not(checkpoint_has_image("one"));
    }
    checkpoint_world_stop();
}

// When the VM runs again, and its pages are packed.
Test(checkpoint_killed, the_command_after_the_pause)
{
    make_and_start();
    static const int signals[] = {SIGKILL, SIGTERM};
    for (unsigned i = 0; i < 2; i++) {
        pid_t pid = checkpoint_begin("one", NULL, output());
        cr_assert(wait_until(says, "\"resumed\""));
        kill(pid, signals[i]);
        int status = checkpoint_ended(pid);
        cr_assert(status == 0 || status == 1 || status == 128 + SIGKILL, "%d", status);
        checkpoint_left_nothing();
        if (checkpoint_has_image("one"))
            checkpoint_image_is_right("one"); // it was too late
        const char *args[] = {"rm", "--store", all->world->store, "one", NULL};
        faultline_run(NULL, 0, args);
    }
    checkpoint_world_stop();
}

// --- Firecracker ---

static void kill_firecracker_at(enum mini_step step)
{
    char text[CHECKPOINT_TEXT];
    make_and_start();
    atomic_store(&all->mini->dies_at, step);
    pid_t pid = checkpoint_begin("one", NULL, output());
    int status = checkpoint_ended(pid);
    read_output(text);
    cr_assert_eq(status, 1, "step %d: %d: %s", (int)step, status, text);
    cr_assert(strstr(text, "faultline checkpoint: "), "%s", text);
    cr_assert_not(checkpoint_has_image("one"));
    cr_assert_eq(client_wait(&all->vm), 128 + SIGKILL);
    cr_assert_eq(rmdir(all->meetings), 0, "step %d: something was left", (int)step);
    world_stop(all->world);
}

Test(checkpoint_killed, firecracker_at_pause)
{
    kill_firecracker_at(MINI_PAUSE);
}

Test(checkpoint_killed, firecracker_paused)
{
    kill_firecracker_at(MINI_PAUSED);
}

Test(checkpoint_killed, firecracker_at_create)
{
    kill_firecracker_at(MINI_CREATE);
}

Test(checkpoint_killed, firecracker_with_its_state_written)
{
    kill_firecracker_at(MINI_WRITTEN);
}

Test(checkpoint_killed, firecracker_in_the_fifo)
{
    kill_firecracker_at(MINI_OPENED);
}

Test(checkpoint_killed, firecracker_at_resume)
{
    kill_firecracker_at(MINI_RESUME);
}

// A Firecracker that is stopped answers nothing: the command does not wait for ever, and what it
// leaves behind resumes the VM when it can.
Test(checkpoint_killed, firecracker_is_stopped_for_a_while)
{
    char text[CHECKPOINT_TEXT];
    // However short: it is held there, and stopped before it goes on.
    static const char *const args[] = {"--max-pause", "300ms", NULL};
    make_and_start();
    atomic_store(&all->mini->waits_at, MINI_WRITTEN);
    pid_t pid = checkpoint_begin("one", args, output());
    cr_assert(mini_comes_to(all->mini, MINI_WRITTEN));
    cr_assert(process_stop(all->pid));
    atomic_store(&all->mini->waits_at, MINI_NOWHERE);
    cr_assert_eq(checkpoint_ended(pid), 1);
    kill(all->pid, SIGCONT);
    read_output(text);
    cr_assert(strstr(text, "a process that was left behind tries on"), "%s", text);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// --- the engine ---

static void kill_engine_at(enum mini_step step)
{
    char text[CHECKPOINT_TEXT];
    atomic_store(&all->mini->at, MINI_NOWHERE);
    atomic_store(&all->mini->waits_at, step);
    pid_t pid = checkpoint_begin("one", NULL, output());
    cr_assert(mini_comes_to(all->mini, step));
    unsigned ready = server_count_log(&all->world->server, "event=ready pid=");
    all->world->server.deaths++;
    cr_assert_eq(kill(server_engine(&all->world->server), SIGKILL), 0);
    atomic_store(&all->mini->waits_at, MINI_NOWHERE);
    int status = checkpoint_ended(pid);
    read_output(text);
    cr_assert_eq(status, 1, "step %d: %d: %s", (int)step, status, text);
    cr_assert(strstr(text, "the engine that served the VM has ended"), "%s", text);
    checkpoint_left_nothing();
    cr_assert_not(checkpoint_has_image("one"));
    cr_assert(server_wait_log(&all->world->server, "event=ready pid=", ready + 1));
}

Test(checkpoint_killed, the_engine)
{
    make_and_start();
    kill_engine_at(MINI_PAUSE);
    kill_engine_at(MINI_CREATE);
    kill_engine_at(MINI_WRITTEN);
    checkpoint_world_stop();
}
