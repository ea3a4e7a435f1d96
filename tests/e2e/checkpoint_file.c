// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints of a VM that maps its memory file privately, as Firecracker's File backend does:
// nobody serves it, and the command copies what it has written while it is paused.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/checkpoint_world.h"
#include "tests/support/swap.h"

enum { BYTES = 24 << 20, PAGES = BYTES / PAGE, SWAP = 128 << 20 };

static struct checkpoint_world *all;

static void give_back(void)
{
    swap_off();
    checkpoint_world_close();
}

TestSuite(checkpoint_file, .init = need_userfaultfd, .fini = give_back, .timeout = 240);

static void make(void)
{
    all = checkpoint_world_make(MIXED, BYTES);
    all->mini->file = all->world->file;
    all->mini->writers->removes = 8;
}

static void start(void)
{
    checkpoint_world_start();
    cr_assert(writers_go_on(all->mini->writers, 4000));
}

static void make_and_start(void)
{
    make();
    start();
}

static int try(const char *name, char text[CHECKPOINT_TEXT], const char *const *extra)
{
    const char *args[CHECKPOINT_ARGS] = {"--base", "image", "--name", name};
    for (unsigned i = 0; extra && extra[i]; i++)
        args[i + 4] = extra[i];
    return checkpoint_do("checkpoint", text, args);
}

static void take(const char *name, const char *const *extra)
{
    char text[CHECKPOINT_TEXT];
    int status = try(name, text, extra);
    cr_assert_eq(status, 0, "%d: %s", status, text);
    checkpoint_image_is_right(name);
}

static void refused(const char *why)
{
    char text[CHECKPOINT_TEXT];
    int status = try("one", text, NULL);
    cr_assert_eq(status, 1, "%d: %s", status, text);
    cr_assert(strstr(text, why), "%s", text);
    cr_assert_not(checkpoint_has_image("one"));
    checkpoint_left_nothing();
}

// --- what it makes ---

// With pages that were given back, in both ways.
Test(checkpoint_file, is_what_the_memory_was)
{
    make_and_start();
    for (unsigned i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof(name), "image-%u", i);
        take(name, NULL);
        cr_assert(writers_go_on(all->mini->writers, 500));
    }
    checkpoint_left_nothing();
    take("last", NULL);
    checkpoint_restores("last");
    cr_assert_eq(world_status(all->world, "captures", "completed"),
                 0); // no engine has to do with it
    checkpoint_world_stop();
}

static long long number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    cr_assert(json_is_integer(value), "%s", key);
    return json_integer_value(value);
}

// Only what was written costs copying in the pause and bytes in the store.
Test(checkpoint_file, costs_what_was_written)
{
    enum { HOT = 64 };
    char text[CHECKPOINT_TEXT];
    static const char *const json[] = {"--json", NULL};
    make();
    all->mini->writers->removes = 0;
    all->mini->writers->hot = HOT;
    start();
    int status = try("one", text, json);
    const char *last = strstr(text, "{\"event\":\"done\"");
    cr_assert(status == 0 && last, "%s", text);
    json_t *result = json_loads(last, 0, NULL);
    cr_assert(result && json_is_null(json_object_get(result, "vm")), "%s", last);
    cr_assert_str_eq(json_string_value(json_object_get(result, "parent")), "image");
    cr_assert_eq(number(result, "pages"), PAGES);
    long long copied = number(result, "copied_by_sweep");
    cr_assert(copied >= HOT && copied <= HOT + 1, "%lld pages", copied); // and that of the device
    cr_assert_leq(number(result, "stored_pages"), copied);
    json_decref(result);
    checkpoint_image_is_right("one");
    checkpoint_world_stop();
}

// With a server that has nothing to do with it, and none to ask.
Test(checkpoint_file, needs_no_server)
{
    char text[CHECKPOINT_TEXT];
    make_and_start();
    const char *args[] = {"checkpoint",  "--control",       "/nowhere/control.sock",
                          "--store",     all->world->store, "--base",
                          "image",       "--name",          "one",
                          "--api",       all->api,          "--fifo-dir",
                          all->meetings, all->number,       NULL};
    cr_assert_eq(faultline_run(text, sizeof(text), args), 0, "%s", text);
    cr_assert(strstr(text, "one: process "), "%s", text);
    checkpoint_image_is_right("one");
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

static bool is_running_alone(void *arg)
{
    (void)arg;
    return world_status(all->world, "", "vms") == 0;
}

// A complete template is such a file.
Test(checkpoint_file, of_a_template)
{
    static char path[4 * TEST_PATH];
    make();
    const char *args[] = {"template", "--complete", "--control", all->control, "image", NULL};
    cr_assert_eq(faultline_run(path, sizeof(path), args), 0, "%s", path);
    path[strcspn(path, "\n")] = '\0';
    all->mini->file = path;
    start();
    cr_assert(is_running_alone(NULL));
    take("one", NULL);
    take("two", NULL);
    checkpoint_restores("two");
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// The file has holes, and bytes that the image has not.
Test(checkpoint_file, reads_the_file_and_not_the_image)
{
    char path[2 * TEST_PATH];
    make();
    snprintf(path, sizeof(path), "%s", temp_path(&all->world->temp, "other"));
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && ftruncate(fd, BYTES) == 0);
    uint8_t *data = // what the model is made of from here on
        mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(data != MAP_FAILED);
    memcpy(data, all->world->memory.data, BYTES);
    memory_free(&all->world->memory);
    all->world->memory = (struct memory){.bytes = BYTES, .data = data};
    memset(data, 0, BYTES / 2);
    memset(data + BYTES / 4, 7, 3 * PAGE);
    for (uint64_t at = BYTES / 4; at < BYTES; at += at == BYTES / 4 ? BYTES / 4 : PAGE) {
        size_t some = at == BYTES / 4 ? 3 * PAGE : PAGE;
        cr_assert_eq(pwrite(fd, data + at, some, (off_t)at), (ssize_t)some);
    }
    close(fd);
    all->mini->file = path;
    start();
    take("one", NULL);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

Test(checkpoint_file, of_pages_that_are_in_swap)
{
    enum { PAGED_OUT = 21 };
    char path[2 * TEST_PATH];
    make();
    snprintf(path, sizeof(path), "%s", temp_path(&all->world->temp, "swap"));
    if (!swap_on(path, SWAP))
        cr_skip_test("no swap file can be had");
    start();
    cr_assert(writers_pause(all->mini->writers));
    atomic_store(&all->mini->paused, true);
    int pidfd = (int)syscall(SYS_pidfd_open, all->pid, 0);
    for (unsigned i = 0; i < all->mini->regions; i++) {
        struct iovec iov = {all->mini->base[i], all->mini->bytes[i]};
        syscall(SYS_process_madvise, pidfd, &iov, 1UL, PAGED_OUT, 0UL);
    }
    close(pidfd);
    char command[128];
    snprintf(command, sizeof(command), "grep -q 'VmSwap:.*[1-9]' /proc/%d/status", (int)all->pid);
    cr_assert_eq(system(command), 0, "nothing of it is in swap");
    take("one", NULL);
    atomic_store(&all->mini->paused, false);
    writers_resume(all->mini->writers);
    checkpoint_left_nothing();
    checkpoint_world_stop();
    swap_off();
}

// --- what is refused ---

Test(checkpoint_file, of_a_file_of_another_size_is_refused)
{
    make();
    const char *path = temp_path(&all->world->temp, "small");
    struct memory small;
    memory_make_distinct(&small, path, BYTES / 2, 5);
    world_pack(all->world, path, "small");
    start();
    char text[CHECKPOINT_TEXT];
    const char *args[] = {"--base", "small", "--name", "one", NULL};
    cr_assert_eq(checkpoint_do("checkpoint", text, args), 1);
    cr_assert(strstr(text, "maps no file of 12582912 bytes privately"), "%s", text);
    checkpoint_left_nothing();
    memory_free(&small);
    checkpoint_world_stop();
}

Test(checkpoint_file, that_is_mapped_shared_is_refused)
{
    make();
    all->mini->writers->removes = 0;
    all->mini->shares_file = true;
    start();
    refused("shared, and not privately: what its guest writes is in that file");
    checkpoint_world_stop();
}

Test(checkpoint_file, that_is_mapped_in_part_is_refused)
{
    make();
    all->mini->writers->removes = 0;
    all->mini->writers->hot = PAGES / 2;
    all->mini->lacks_bytes = 16 * PAGE;
    start();
    refused("has nothing mapped, or it is not certain what, where bytes 25100288 to 25165824");
    client_kill(&all->vm);
    world_stop(all->world);
}

Test(checkpoint_file, of_a_vm_that_is_served_is_refused)
{
    make();
    all->mini->file = NULL;
    all->mini->writers->removes = 0;
    start();
    refused("maps no file of 25165824 bytes privately");
    checkpoint_world_stop();
}

Test(checkpoint_file, needs_a_process)
{
    make_and_start();
    snprintf(all->number, sizeof(all->number), "1");
    refused("'1' is no process: with --base the VM must be pid:N");
    snprintf(all->number, sizeof(all->number), "pid:%d", (int)all->pid);
    char text[CHECKPOINT_TEXT];
    static const char *const kept[] = {"--keep-armed", NULL};
    cr_assert_eq(try("one", text, kept), 2, "%s", text);
    checkpoint_world_stop();
}

// --- ends in the middle ---

static const enum mini_step steps[] = {MINI_PAUSE,   MINI_PAUSED, MINI_CREATE,
                                       MINI_WRITTEN, MINI_OPENED, MINI_RESUME};
enum { STEPS = sizeof(steps) / sizeof(steps[0]) };

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

static pid_t begin(const char *const *extra)
{
    const char *args[CHECKPOINT_ARGS] = {"--base", "image"};
    for (unsigned i = 0; extra && extra[i]; i++)
        args[i + 2] = extra[i];
    return checkpoint_begin("one", args, output());
}

Test(checkpoint_file, the_command_is_killed)
{
    make_and_start();
    for (unsigned i = 0; i < STEPS; i++) {
        atomic_store(&all->mini->at, MINI_NOWHERE);
        atomic_store(&all->mini->waits_at, steps[i]);
        pid_t pid = begin(NULL);
        cr_assert(mini_comes_to(all->mini, steps[i]), "step %u", i);
        kill(pid, SIGKILL);
        cr_assert_eq(checkpoint_ended(pid), 128 + SIGKILL);
        atomic_store(&all->mini->waits_at, MINI_NOWHERE);
        checkpoint_left_nothing();
        cr_assert_not(checkpoint_has_image("one"));
    }
    take("next", NULL);
    checkpoint_world_stop();
}

static void firecracker_dies_at(enum mini_step step)
{
    char text[CHECKPOINT_TEXT];
    make_and_start();
    atomic_store(&all->mini->dies_at, step);
    int status = checkpoint_ended(begin(NULL));
    read_output(text);
    cr_assert_eq(status, 1, "step %d: %d: %s", (int)step, status, text);
    cr_assert_not(checkpoint_has_image("one"));
    cr_assert_eq(client_wait(&all->vm), 128 + SIGKILL);
    cr_assert_eq(rmdir(all->meetings), 0, "step %d: something was left", (int)step);
    world_stop(all->world);
}

Test(checkpoint_file, firecracker_dies_at_pause)
{
    firecracker_dies_at(MINI_PAUSE);
}

Test(checkpoint_file, firecracker_dies_with_its_state_written)
{
    firecracker_dies_at(MINI_WRITTEN);
}

Test(checkpoint_file, firecracker_dies_in_the_fifo)
{
    firecracker_dies_at(MINI_OPENED);
}

// It is written to under the VM, in the pause. (What the VM sees of that is not looked at.)
Test(checkpoint_file, the_file_is_changed_meanwhile)
{
    char text[CHECKPOINT_TEXT];
    make();
    all->mini->writers->removes = 0;
    all->mini->writers->hot = 16;
    start();
    atomic_store(&all->mini->at, MINI_NOWHERE);
    atomic_store(&all->mini->waits_at, MINI_RESUME); // it was looked at by then
    pid_t pid = begin(NULL);
    cr_assert(mini_comes_to(all->mini, MINI_RESUME));
    int fd = open(all->world->file, O_WRONLY | O_CLOEXEC);
    uint8_t byte = all->world->memory.data[BYTES - 1];
    cr_assert_eq(pwrite(fd, &byte, 1, BYTES - 1), 1);
    close(fd);
    atomic_store(&all->mini->waits_at, MINI_NOWHERE);
    cr_assert_eq(checkpoint_ended(pid), 1);
    read_output(text);
    cr_assert(strstr(text, "was changed while it was read"), "%s", text);
    cr_assert_not(checkpoint_has_image("one"));
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// (Of the copying alone: file_memory_test.)
Test(checkpoint_file, does_not_pause_longer_than_it_may)
{
    char text[CHECKPOINT_TEXT];
    static const char *const args[] = {"--max-pause", "300ms", NULL};
    make_and_start();
    atomic_store(&all->mini->waits_at, MINI_CREATE);
    pid_t pid = begin(args);
    cr_assert(mini_comes_to(all->mini, MINI_CREATE));
    usleep(400 * 1000); // past the deadline
    atomic_store(&all->mini->waits_at, MINI_NOWHERE);
    cr_assert_eq(checkpoint_ended(pid), 1);
    read_output(text);
    cr_assert(strstr(text, "--max-pause"), "%s", text);
    checkpoint_left_nothing();
    cr_assert_not(checkpoint_has_image("one"));
    checkpoint_world_stop();
}
