// SPDX-License-Identifier: Apache-2.0
#include "tests/support/checkpoint_world.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct checkpoint_world the_world;

static void name_path(char to[2 * TEST_PATH], const char *name)
{
    snprintf(to, (size_t)2 * TEST_PATH, "%s", temp_path(&the_world.world->temp, name));
}

struct checkpoint_world *checkpoint_world_make(enum world_memory kind, uint64_t bytes)
{
    return checkpoint_world_make_longer(kind, bytes, 0);
}

struct checkpoint_world *checkpoint_world_make_longer(enum world_memory kind, uint64_t bytes,
                                                      uint64_t longer)
{
    struct checkpoint_world *all = &the_world;
    all->world = world_make(kind, bytes);
    cr_assert_eq(truncate(all->world->file, (off_t)(bytes + longer)), 0);
    world_serve(all->world, NULL);
    name_path(all->api, "api.sock");
    name_path(all->meetings, "meetings");
    name_path(all->control, "control.sock");
    cr_assert_eq(mkdir(all->meetings, 0700), 0);
    all->mini = mini_new(&all->world->memory, all->world->socket, all->api);
    cr_assert(all->mini);
    return all;
}

void checkpoint_world_start(void)
{
    struct checkpoint_world *all = &the_world;
    client_start(&all->vm, mini_main, all->mini);
    all->pid = all->vm.pid;
    cr_assert(client_says(&all->vm, 'a'));
    if (!all->mini->starts_paused)
        cr_assert(mini_runs(all->mini));
    snprintf(all->number, sizeof(all->number), "pid:%d", (int)all->pid);
}

void checkpoint_world_stop(void)
{
    struct checkpoint_world *all = &the_world;
    writers_end(all->mini->writers);
    cr_assert_eq(client_wait(&all->vm), 0, "%s", client_failure());
    world_stop(all->world);
}

void checkpoint_world_close(void)
{
    if (the_world.mini)
        client_kill(&the_world.vm);
    world_close();
}

// --- the command ---

static void make_args(const char *args[CHECKPOINT_ARGS + 1], const char *verb,
                      const char *const *extra)
{
    const struct checkpoint_world *all = &the_world;
    unsigned count = 0;
    args[count++] = verb;
    args[count++] = "--control";
    args[count++] = all->control;
    for (unsigned i = 0; extra && extra[i] && count < CHECKPOINT_ARGS - 6; i++)
        args[count++] = extra[i];
    bool external = false;
    bool own_api = false;
    for (unsigned i = 0; i < count; i++) {
        external = external || strcmp(args[i], "--external") == 0;
        own_api = own_api || strcmp(args[i], "--api") == 0 || strcmp(args[i], "--no-api") == 0;
    }
    if (!external && !own_api) {
        args[count++] = "--api";
        args[count++] = all->api;
        args[count++] = "--fifo-dir";
        args[count++] = all->meetings;
    }
    args[count++] = all->number;
    args[count] = NULL;
}

int checkpoint_do(const char *verb, char text[CHECKPOINT_TEXT], const char *const *extra)
{
    const char *args[CHECKPOINT_ARGS + 1];
    make_args(args, verb, extra);
    return faultline_run(text, CHECKPOINT_TEXT, args);
}

pid_t checkpoint_begin(const char *name, const char *const *extra, const char *output)
{
    const char *all[CHECKPOINT_ARGS] = {"--name", name, "--json"};
    for (unsigned i = 0; extra && extra[i]; i++)
        all[i + 3] = extra[i];
    return checkpoint_begin_verb("checkpoint", all, output);
}

pid_t checkpoint_begin_verb(const char *verb, const char *const *extra, const char *output)
{
    const char *args[CHECKPOINT_ARGS + 1];
    make_args(args, verb, extra);
    unlink(output); // of an earlier one
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid > 0)
        return pid;
    child_setup();
    setpgid(0, 0);
    int fd = open(output, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    char *argv[CHECKPOINT_ARGS + 2] = {"faultline"};
    for (unsigned i = 0; args[i]; i++)
        argv[i + 1] = strdup(args[i]);
    execv(getenv("FAULTLINE_BIN"), argv);
    _exit(127);
}

static bool has_ended(void *arg)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t) * (const pid_t *)arg, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid != 0;
}

int checkpoint_ended(pid_t pid)
{
    int status = 0;
    bool ended = wait_until(has_ended, &pid);
    if (!ended)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return !ended ? -1 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// --- what it left ---

static bool is_empty(void *arg)
{
    unsigned count = 0;
    DIR *directory = opendir(arg);
    while (directory && readdir(directory))
        count++;
    if (directory)
        closedir(directory);
    return directory && count == 2;
}

static bool is_unprotected(void *arg)
{
    const struct checkpoint_world *all = arg;
    return mini_protected(all->mini, all->pid) == 0;
}

void checkpoint_left_nothing(void)
{
    struct checkpoint_world *all = &the_world;
    cr_assert(wait_until(is_empty, all->meetings), "something was left in %s", all->meetings);
    cr_assert(mini_runs(all->mini), "the VM does not run");
    cr_assert(wait_until(is_unprotected, all), "%ld pages are still write-protected",
              mini_protected(all->mini, all->pid));
}

bool checkpoint_has_image(const char *name)
{
    const char *args[] = {"inspect", "--store", the_world.world->store, name, NULL};
    return faultline_run(NULL, 0, args) == 0;
}

void checkpoint_image_is_right(const char *name)
{
    const struct checkpoint_world *all = &the_world;
    char text[CHECKPOINT_TEXT];
    char path[2 * TEST_PATH];
    char leaf[TEST_PATH];
    snprintf(leaf, sizeof(leaf), "%s.unpacked", name);
    name_path(path, leaf);
    const char *args[] = {"unpack", "--force", "--store", all->world->store, name, path, NULL};
    cr_assert_eq(faultline_run(text, sizeof(text), args), 0, "%s", text);
    uint64_t bytes = (uint64_t)all->mini->writers->pages * all->mini->page_bytes;
    uint8_t *want = malloc(bytes);
    cr_assert(want);
    writers_image(all->mini->moment, &all->world->memory, want);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    const uint8_t *is = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    struct stat status;
    cr_assert(fd >= 0 && is != MAP_FAILED && fstat(fd, &status) == 0);
    cr_assert_eq((uint64_t)status.st_size, bytes);
    unsigned wrong = 0;
    for (uint64_t at = 0; at < bytes; at += PAGE)
        wrong += memcmp(is + at, want + at, PAGE) != 0;
    cr_assert_eq(wrong, 0, "%u pages of %s are not as they were", wrong, name);
    munmap((void *)is, bytes);
    close(fd);
    free(want);
    unlink(path);
}

struct restored {
    struct memory memory;
    char socket[2 * TEST_PATH];
    bool in_order;
};

static int touch_restored(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    const struct restored *restored = arg;
    (void)channel;
    vmm_map(&vmm, &restored->memory, PAGE, 2, VMM_MAIN);
    vmm.shared = shared;
    vmm_handshake(&vmm, restored->socket);
    if (restored->in_order)
        vmm_touch_all(&vmm, 1, VMM_UP, true);
    else
        vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
    return 0;
}

// The client has a copy of what it is to find.
void checkpoint_clone(struct client *client, const char *socket, bool in_order)
{
    const struct checkpoint_world *all = &the_world;
    uint64_t bytes = (uint64_t)all->mini->writers->pages * all->mini->page_bytes;
    struct restored restored = {.memory = {.bytes = bytes, .data = malloc(bytes)},
                                .in_order = in_order};
    cr_assert(restored.memory.data);
    snprintf(restored.socket, sizeof(restored.socket), "%s", socket);
    cr_assert(wait_until(socket_is_open, restored.socket), "%s is not there", socket);
    writers_image(all->mini->moment, &all->world->memory, restored.memory.data);
    client_start(client, touch_restored, &restored);
    free(restored.memory.data);
}

void checkpoint_restores(const char *name)
{
    struct client client;
    char socket[2 * TEST_PATH];
    char leaf[TEST_PATH];
    snprintf(leaf, sizeof(leaf), "sockets/%s.sock", name);
    name_path(socket, leaf);
    checkpoint_clone(&client, socket, false);
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
}
