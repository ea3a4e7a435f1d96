// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints for an orchestrator that has the API itself: with the program of docs/checkpoint.md,
// and with orchestrators that do not do as they should.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/checkpoint_page.h"
#include "tests/support/checkpoint_world.h"

TestSuite(checkpoint_external, .init = need_userfaultfd, .fini = checkpoint_world_close,
          .timeout = 240);

static struct checkpoint_world *all;

static void make_and_start(void)
{
    all = checkpoint_world_make(MIXED, 8 << 20);
    checkpoint_world_start();
}

// --- the program of the page ---

// The path of the command as `faultline`, with the server's control socket.
static void set_environment(void)
{
    char path[2 * TEST_PATH];
    char value[4096];
    snprintf(path, sizeof(path), "%s", temp_path(&all->world->temp, "faultline"));
    cr_assert_eq(symlink(getenv("FAULTLINE_BIN"), path), 0);
    snprintf(value, sizeof(value), "%s:%s", all->world->temp.path, getenv("PATH"));
    setenv("PATH", value, 1);
    setenv("FAULTLINE_CONTROL", all->control, 1);
}

static int run_program(const char *program, const char *image, const char *state)
{
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        child_setup();
        execlp("python3", "python3", program, all->number, image, all->api, state, NULL);
        _exit(127);
    }
    return checkpoint_ended(pid);
}

Test(checkpoint_external, with_the_program_of_the_page)
{
    char program[2 * TEST_PATH];
    char state[2 * TEST_PATH];
    char bad[3 * TEST_PATH];
    make_and_start();
    snprintf(program, sizeof(program), "%s", temp_path(&all->world->temp, "program.py"));
    snprintf(state, sizeof(state), "%s", temp_path(&all->world->temp, "state"));
    checkpoint_page_program("subprocess", program);
    set_environment();
    cr_assert_eq(run_program(program, "one", state), 0);
    checkpoint_image_is_right("one");
    cr_assert_eq(atomic_load(&all->mini->pauses), 1);
    checkpoint_left_nothing();
    // The state cannot be written: the checkpoint fails, and the program resumes the VM.
    snprintf(bad, sizeof(bad), "%s/nowhere/state", all->world->temp.path);
    cr_assert_eq(run_program(program, "two", bad), 1);
    cr_assert_eq(atomic_load(&all->mini->pauses), 2);
    cr_assert_not(checkpoint_has_image("two"));
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// --- by hand ---

struct command {
    pid_t pid;
    int in;
    int out;
};

static struct command begin(const char *const *extra)
{
    int in[2];
    int out[2];
    struct command command;
    cr_assert(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
    command.pid = fork();
    cr_assert(command.pid >= 0);
    if (command.pid == 0) {
        child_setup();
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        char *argv[CHECKPOINT_ARGS] = {"faultline", "checkpoint", "--external", "--name",
                                       "one",       "--control",  all->control};
        unsigned count = 7;
        for (unsigned i = 0; extra && extra[i]; i++)
            argv[count++] = strdup(extra[i]);
        argv[count] = all->number;
        execv(getenv("FAULTLINE_BIN"), argv);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    command.in = in[1];
    command.out = out[0];
    return command;
}

static bool hears(const struct command *command, const char *line)
{
    char text[512] = "";
    for (size_t used = 0; used < sizeof(text) - 1; used++) {
        if (read(command->out, text + used, 1) != 1 || text[used] == '\n')
            break;
    }
    if (strncmp(text, line, strlen(line)) == 0)
        return true;
    fprintf(stderr, "it said '%s'\n", text);
    return false;
}

static void tell(const struct command *command, const char *line)
{
    cr_assert_eq(write(command->in, line, strlen(line)), (ssize_t)strlen(line));
}

static int end(struct command *command)
{
    close(command->in);
    int status = checkpoint_ended(command->pid);
    close(command->out);
    return status;
}

static void pause_vm(void)
{
    cr_assert(writers_pause(all->mini->writers));
    memcpy(all->mini->moment, all->mini->writers,
           sizeof(*all->mini->writers) +
               all->mini->writers->pages * sizeof(all->mini->writers->page[0]));
}

Test(checkpoint_external, without_a_state)
{
    make_and_start();
    struct command command = begin(NULL);
    cr_assert(hears(&command, "pause"));
    pause_vm();
    tell(&command, "paused\n");
    cr_assert(hears(&command, "resume"));
    writers_resume(all->mini->writers);
    cr_assert(hears(&command, "done one"));
    cr_assert_eq(end(&command), 0);
    checkpoint_image_is_right("one");
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

static void fails_after(const char *said, const char *sentence)
{
    struct command command = begin(NULL);
    cr_assert(hears(&command, "pause"));
    if (said) {
        tell(&command, said);
    } else {
        close(command.in);
        command.in = -1;
    }
    cr_assert(hears(&command, sentence));
    cr_assert_eq(end(&command), 1);
    cr_assert_not(checkpoint_has_image("one"));
    checkpoint_left_nothing();
}

Test(checkpoint_external, of_an_orchestrator_that_does_not_pause)
{
    make_and_start();
    fails_after("abort\n", "failed the orchestrator has aborted the checkpoint");
    fails_after("what?\n", "failed the orchestrator said 'what?'");
    fails_after(NULL, "failed the orchestrator closed its end before the VM was paused");
    checkpoint_world_stop();
}

Test(checkpoint_external, that_hears_nothing)
{
    static const char *const extra[] = {"--max-pause", "300ms", NULL};
    make_and_start();
    struct command command = begin(extra);
    cr_assert(hears(&command, "pause"));
    cr_assert(hears(&command, "failed the orchestrator has not said that the VM is paused"));
    cr_assert_eq(end(&command), 1);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// It is told so by an error and not by a signal, which would end it wherever it is.
Test(checkpoint_external, whose_orchestrator_has_gone)
{
    const char *extra[] = {"--json", NULL};
    make_and_start();
    struct command command = begin(extra);
    close(command.out);
    command.out = -1;
    cr_assert_eq(end(&command), 1);
    cr_assert_not(checkpoint_has_image("one"));
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

Test(checkpoint_external, without_the_state_that_it_was_promised)
{
    static const char *const extra[] = {"--with", "vmstate=/nowhere/state", NULL};
    make_and_start();
    struct command command = begin(extra);
    cr_assert(hears(&command, "pause"));
    tell(&command, "paused\n");
    cr_assert(hears(&command, "failed the state of the VM, /nowhere/state, was not written"));
    cr_assert_eq(end(&command), 1);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

Test(checkpoint_external, is_killed_in_the_pause)
{
    make_and_start();
    struct command command = begin(NULL);
    cr_assert(hears(&command, "pause"));
    kill(command.pid, SIGKILL);
    cr_assert_eq(end(&command), 128 + SIGKILL);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}
