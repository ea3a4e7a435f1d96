// SPDX-License-Identifier: Apache-2.0
#include "tests/support/traces.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "snapshot/format.h"

enum { RECORD_ARGS = 16 };

int touch_in_turn(int channel, struct client_shared *shared, void *arg)
{
    const struct touches *touches = arg;
    struct vmm vmm;
    const struct world *world = touches->world;
    vmm_map(&vmm, &world->memory, touches->page_bytes, touches->regions, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    for (uint32_t i = 0; i < touches->count; i++)
        vmm_check(&vmm, touches->page[i]);
    tell_test(channel, 't');
    await_test(channel, 'e');
    return 0;
}

static const char *output_path(const struct world *world)
{
    return temp_path(&world->temp, "record.out");
}

pid_t record_start(const struct world *world, const char *const *extra)
{
    const char *args[RECORD_ARGS] = {getenv("FAULTLINE_BIN"),
                                     "record",
                                     "--control",
                                     temp_path(&world->temp, "control.sock"),
                                     "--store",
                                     world->store};
    unsigned count = 6;
    unsigned orders = server_count_log(&world->server, "event=record image=image");
    for (unsigned i = 0; extra && extra[i]; i++)
        args[count++] = extra[i];
    args[count] = "image";
    const char *output = output_path(world);
    pid_t pid = fork();
    if (pid == 0) {
        child_setup();
        int fd = open(output, O_CREAT | O_TRUNC | O_WRONLY, 0600);
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
        execv(args[0], (char *const *)(uintptr_t)args);
        _exit(127);
    }
    cr_assert_gt(pid, 0);
    cr_assert(server_wait_log(&world->server, "event=record image=image", orders + 1));
    return pid;
}

struct ending {
    pid_t pid;
    int status;
};

static bool has_ended(void *arg)
{
    struct ending *ending = arg;
    return waitpid(ending->pid, &ending->status, WNOHANG) == ending->pid;
}

int record_wait(pid_t pid, const struct world *world, char *output, size_t size)
{
    struct ending ending = {.pid = pid};
    bool ended = wait_until(has_ended, &ending);
    int fd = open(output_path(world), O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 && size > 0 ? read(fd, output, size - 1) : 0;
    if (size > 0)
        output[got > 0 ? got : 0] = '\0';
    if (fd >= 0)
        close(fd);
    cr_assert(ended, "faultline record does not end");
    return WIFEXITED(ending.status) ? WEXITSTATUS(ending.status) : 128 + WTERMSIG(ending.status);
}

void record_one(const struct world *world, struct touches touches)
{
    char output[1024];
    struct client client;
    static const char *const all[] = {"--share", "100", NULL};
    touches.world = world;
    pid_t pid = record_start(world, all);
    client_start(&client, touch_in_turn, &touches);
    cr_assert(client_says(&client, 't'));
    client_tell(&client, 'e');
    cr_assert_eq(client_wait(&client), 0);
    int status = record_wait(pid, world, output, sizeof(output));
    cr_assert_eq(status, 0, "%s", output);
}

bool trace_read(const struct world *world, struct trace *ret_trace)
{
    char path[2 * TEST_PATH];
    struct fl_disk_trace_header header;
    struct fl_disk_trace_entry entry;
    snprintf(path, sizeof(path), "%s/traces/image.trace", world->store);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool good = fread(&header, sizeof(header), 1, file) == 1 && header.count <= TRACE_PAGES_MAX;
    *ret_trace = (struct trace){.runs = header.runs};
    while (good && fread(&entry, sizeof(entry), 1, file) == 1) {
        ret_trace->page[ret_trace->count] = entry.page;
        ret_trace->seen[ret_trace->count++] = entry.seen;
    }
    good = good && ret_trace->count == header.count;
    fclose(file);
    return good;
}
