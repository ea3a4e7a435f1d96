// SPDX-License-Identifier: Apache-2.0
//
// The command of a checkpoint is killed with the process that guards it: the doctor finds what they
// have left, and the commands that it prints put it right.
#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/e2e/protocol/http.h"
#include "tests/support/checkpoint_world.h"
#include "tests/support/stop.h"

TestSuite(checkpoint_left, .init = need_userfaultfd, .fini = checkpoint_world_close,
          .timeout = 240);

enum { DOCTOR_TEXT = 1 << 18, COMMAND = 4096 };

static struct checkpoint_world *all;
static char said[DOCTOR_TEXT];

static void make_and_start(void)
{
    all = checkpoint_world_make(MIXED, 8 << 20);
    checkpoint_world_start();
}

static bool is_child_of(const char *number, pid_t parent)
{
    char path[300];
    char line[256];
    char want[64];
    bool found = false;
    snprintf(path, sizeof(path), "/proc/%s/status", number);
    snprintf(want, sizeof(want), "PPid:\t%d\n", (int)parent);
    FILE *file = fopen(path, "re");
    while (file && !found && fgets(line, sizeof(line), file))
        found = strcmp(line, want) == 0;
    if (file)
        fclose(file);
    return found;
}

static pid_t guard_of(pid_t command)
{
    pid_t found = 0;
    const struct dirent *entry;
    DIR *directory = opendir("/proc");
    while (directory && !found && (entry = readdir(directory))) {
        if (strtol(entry->d_name, NULL, 10) > 0 && is_child_of(entry->d_name, command))
            found = (pid_t)strtol(entry->d_name, NULL, 10);
    }
    closedir(directory);
    return found;
}

static void kill_both_at(enum mini_step step, const char *const *extra)
{
    atomic_store(&all->mini->waits_at, step);
    pid_t command = checkpoint_begin("one", extra, temp_path(&all->world->temp, "output"));
    cr_assert(mini_comes_to(all->mini, step));
    pid_t guard = guard_of(command);
    cr_assert(guard > 0);
    kill(guard, SIGKILL);
    kill(command, SIGKILL);
    cr_assert_eq(checkpoint_ended(command), 128 + SIGKILL);
    atomic_store(&all->mini->waits_at, MINI_NOWHERE);
}

// Other VMs of the host, of other tests, may be ill just now.
static int ask_doctor(void)
{
    const char *args[] = {"doctor", NULL};
    return faultline_run(said, sizeof(said), args);
}

static char wanted[2048];

static bool doctor_says(void *arg)
{
    (void)arg;
    return ask_doctor() == 1 && strstr(said, wanted);
}

// What stands behind the words in the first line that has them after `wanted`.
static void take_command(const char *words, char command[COMMAND])
{
    const char *about = strstr(said, wanted);
    const char *line = about ? strstr(about, words) : NULL;
    cr_assert_not_null(line, "%s", said);
    line += strlen(words);
    snprintf(command, COMMAND, "%.*s", (int)strcspn(line, "\n"), line);
}

// As `to resume` says. The connection stays open behind the answer.
static void resume(void)
{
    static const char request[] = "PATCH /vm HTTP/1.1\r\nHost: localhost\r\nContent-Length: 19\r\n"
                                  "\r\n{\"state\":\"Resumed\"}";
    char answer[256] = "";
    int fd = http_connect(all->api);
    cr_assert(fd >= 0 && send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) > 0);
    cr_assert(recv(fd, answer, sizeof(answer) - 1, 0) > 0);
    close(fd);
    cr_assert(strncmp(answer, "HTTP/1.1 2", 10) == 0, "%s", answer);
}

Test(checkpoint_left, firecracker_in_the_fifo)
{
    char command[COMMAND];
    char text[CHECKPOINT_TEXT];
    make_and_start();
    kill_both_at(MINI_WRITTEN, NULL);
    snprintf(wanted, sizeof(wanted), "(pid %d) waits in open() of %s/faultline-checkpoint-",
             (int)all->pid, all->meetings);
    cr_assert(wait_until(doctor_says, NULL), "%s", said);
    take_command("  to mend     ", command);
    cr_assert(strstr(command, "timeout 1 cat"), "%s", command);
    cr_assert_eq(system(command), 0, "%s", command);
    resume();
    checkpoint_left_nothing();
    ask_doctor();
    cr_assert_null(strstr(said, wanted), "%s", said);
    // And the next one works.
    const char *args[] = {"--name", "next", NULL};
    cr_assert_eq(checkpoint_do("checkpoint", text, args), 0, "%s", text);
    checkpoint_image_is_right("next");
    checkpoint_world_stop();
}

// Not one of another test, in whose FIFO a Firecracker waits.
static bool find_left(const char *before, char name[64])
{
    static const char words[] = " was left by a checkpoint";
    const char *at = strstr(said, "faultline-checkpoint-");
    for (; at; at = strstr(at + 1, "faultline-checkpoint-")) {
        size_t length = strcspn(at, "/ '\n");
        snprintf(name, 64, "%.*s", (int)length, at);
        if (strncmp(at + length, words, strlen(words)) == 0 && !strstr(before, name))
            return true;
    }
    return false;
}

static char before[DOCTOR_TEXT];
static char left[64];

static bool doctor_finds_one_more(void *arg)
{
    (void)arg;
    ask_doctor();
    return find_left(before, left);
}

// In one of the usual places, of a checkpoint that was killed behind its pause. Those of checkpoints
// that go on are not named.
Test(checkpoint_left, a_directory)
{
    char command[COMMAND];
    const char *own_api[] = {"--api", NULL, NULL};
    make_and_start();
    own_api[1] = all->api;
    ask_doctor();
    memcpy(before, said, sizeof(before));
    kill_both_at(MINI_RESUMED, own_api);
    cr_assert(wait_until(doctor_finds_one_more, NULL), "%s", said);
    snprintf(wanted, sizeof(wanted), "%s was left by a checkpoint", left);
    take_command("  to mend     ", command);
    cr_assert(strstr(command, left), "%s", command);
    cr_assert_eq(system(command), 0, "%s", command);
    checkpoint_left_nothing();
    ask_doctor();
    cr_assert_null(strstr(said, left), "%s", said);
    checkpoint_world_stop();
}

static bool waits_in_open(void *arg)
{
    const pid_t *pid = arg;
    char path[300];
    char text[64] = "";
    bool waits = false;
    const struct dirent *entry;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)*pid);
    DIR *directory = opendir(path);
    while (directory && !waits && (entry = readdir(directory))) {
        snprintf(path, sizeof(path), "/proc/%d/task/%s/wchan", (int)*pid, entry->d_name);
        FILE *file = fopen(path, "re");
        waits = file && fgets(text, sizeof(text), file) && strcmp(text, "wait_for_partner") == 0;
        if (file)
            fclose(file);
    }
    closedir(directory);
    return waits;
}

// Firecracker waits in open(), and the command would have it go on.
Test(checkpoint_left, one_that_goes_on_is_none)
{
    static const char *const patient[] = {"--max-pause", "2m", NULL};
    make_and_start();
    atomic_store(&all->mini->waits_at, MINI_CREATE);
    pid_t command = checkpoint_begin("one", patient, temp_path(&all->world->temp, "output"));
    cr_assert(mini_comes_to(all->mini, MINI_CREATE));
    cr_assert(process_stop(command));
    atomic_store(&all->mini->waits_at, MINI_NOWHERE);
    cr_assert(wait_until(waits_in_open, &all->pid));
    ask_doctor();
    kill(command, SIGCONT);
    cr_assert_null(strstr(said, all->meetings), "%s", said);
    cr_assert_eq(checkpoint_ended(command), 0);
    checkpoint_image_is_right("one");
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// A process that is no Firecracker waits in such a FIFO, and says that its API is at a path that
// would be a command if it stood in one.
Test(checkpoint_left, what_a_process_says_is_no_command)
{
    char base[] = "/tmp/faultline-left-XXXXXX";
    char path[128];
    char fifo[256];
    char api[128];
    char command[COMMAND];
    cr_assert_not_null(mkdtemp(base));
    snprintf(path, sizeof(path), "%s/faultline-checkpoint-0123456789abcdef", base);
    snprintf(fifo, sizeof(fifo), "%s/memory", path);
    snprintf(api, sizeof(api), "%s/x'; reboot; '\033[2J", base);
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_assert_eq(mkfifo(fifo, 0600), 0);
    cr_assert_eq(mknod(api, S_IFREG | 0600, 0), 0);
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        child_setup();
        execl("/bin/sh", "sh", "-c", "exec 3< \"$0\"", fifo, "--api-sock", api, NULL);
        _exit(127);
    }
    bool waits = wait_until(waits_in_open, &pid);
    snprintf(wanted, sizeof(wanted), "(pid %d) waits in open() of %s/", (int)pid, path);
    bool found = wait_until(doctor_says, NULL);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    unlink(api);
    unlink(fifo);
    rmdir(path);
    rmdir(base);
    cr_assert(waits);
    cr_assert(found, "%s", said);
    take_command("  to resume   ", command);
    cr_assert(strstr(command, "--unix-socket 'API-SOCKET' "), "%s", command);
    cr_assert_null(strstr(said, "reboot"));
}
