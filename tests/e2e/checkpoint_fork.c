// SPDX-License-Identifier: Apache-2.0
//
// Several images of one moment, from which as many VMs go on at once; and drives that are cloned in
// the pause.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/checkpoint_world.h"
#include "tests/support/traces.h"

TestSuite(checkpoint_fork, .init = need_userfaultfd, .fini = checkpoint_world_close,
          .timeout = 240);

static struct checkpoint_world *all;

static void make_and_start(void)
{
    all = checkpoint_world_make(MIXED, 8 << 20);
    checkpoint_world_start();
}

Test(checkpoint_fork, all_can_be_restored_when_it_ends)
{
    char text[CHECKPOINT_TEXT];
    make_and_start();
    const char *args[] = {"--count", "3", "--name", "box", NULL};
    cr_assert_eq(checkpoint_do("fork", text, args), 0, "%s", text);
    cr_assert_str_eq(text, "box-1\nbox-2\nbox-3\n");
    for (unsigned i = 1; i <= 3; i++) {
        char name[16];
        char leaf[64];
        snprintf(name, sizeof(name), "box-%u", i);
        snprintf(leaf, sizeof(leaf), "sockets/%s.sock", name);
        cr_assert_eq(access(temp_path(&all->world->temp, leaf), F_OK), 0, "%s", leaf);
        checkpoint_image_is_right(name);
        checkpoint_restores(name);
    }
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// Named after the image and the VM; the second time these names are taken.
Test(checkpoint_fork, all_or_none)
{
    char text[CHECKPOINT_TEXT];
    make_and_start();
    const char *one[] = {"--count", "1", NULL};
    cr_assert_eq(checkpoint_do("fork", text, one), 0, "%s", text);
    cr_assert_str_eq(text, "image-1-1\n");
    const char *taken[] = {"--count", "3", "--name", "box", NULL};
    const char *pack[] = {"pack",           "--store", all->world->store, "--name", "box-3",
                          all->world->file, NULL};
    cr_assert_eq(faultline_run(text, sizeof(text), pack), 0, "%s", text);
    unsigned pauses = atomic_load(&all->mini->pauses);
    cr_assert_eq(checkpoint_do("fork", text, taken), 1);
    cr_assert(strstr(text, "the store has an image 'box-3' already"), "%s", text);
    cr_assert_eq(atomic_load(&all->mini->pauses), pauses);
    cr_assert_not(checkpoint_has_image("box-1"));
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// --- the trace ---

enum { TRACED = 300 };

// It touches nothing: what comes, comes by itself.
static int wait_for_replay(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)shared;
    vmm_map(&vmm, &all->world->memory, PAGE, 2, VMM_MAIN);
    vmm_handshake(&vmm, arg);
    tell_test(channel, 'h');
    return next_order(channel) == 'e' ? 0 : 1;
}

Test(checkpoint_fork, clones_are_replayed_what_vms_of_the_image_touched)
{
    char text[CHECKPOINT_TEXT];
    char socket[2 * TEST_PATH];
    struct client clone;
    static uint32_t pages[TRACED];
    for (uint32_t i = 0; i < TRACED; i++)
        pages[i] = (TRACED - i) * 3;
    all = checkpoint_world_make(MIXED, 8 << 20);
    record_one(all->world, (struct touches){NULL, PAGE, 2, pages, TRACED});
    checkpoint_world_start();
    const char *args[] = {"--count", "2", "--name", "box", "--json", NULL};
    cr_assert_eq(checkpoint_do("fork", text, args), 0, "%s", text);
    cr_assert(strstr(text, "\"trace_pages\":300") || strstr(text, "\"trace_pages\": 300"), "%s",
              text);
    for (unsigned i = 1; i <= 2; i++) {
        char leaf[64];
        snprintf(leaf, sizeof(leaf), "sockets/box-%u.sock", i);
        snprintf(socket, sizeof(socket), "%s", temp_path(&all->world->temp, leaf));
        snprintf(leaf, sizeof(leaf), "event=replayed vm=%u image=box-%u", i + 2, i);
        client_start(&clone, wait_for_replay, socket);
        cr_assert(client_says(&clone, 'h'));
        cr_assert(server_wait_log(&all->world->server, leaf, 1), "%s", leaf);
        client_tell(&clone, 'e');
        cr_assert_eq(client_wait(&clone), 0, "%s", client_failure());
    }
    checkpoint_world_stop();
}

// --- drives ---

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0640);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static bool file_has(const char *path, const char *want)
{
    char text[64] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    if (fd >= 0)
        close(fd);
    return got >= 0 && strcmp(text, want) == 0;
}

Test(checkpoint_fork, drives_are_cloned_in_the_pause)
{
    char text[CHECKPOINT_TEXT];
    char drive[2 * TEST_PATH];
    char clone[3 * TEST_PATH];
    make_and_start();
    snprintf(drive, sizeof(drive), "%s", temp_path(&all->world->temp, "disk"));
    snprintf(clone, sizeof(clone), "%s.one", drive);
    write_file(drive, "before");
    setenv("LD_PRELOAD", CLONING_LIBRARY, 1);
    atomic_store(&all->mini->waits_at, MINI_PAUSE);
    const char *extra[] = {"--drive", drive, NULL};
    pid_t pid = checkpoint_begin("one", extra, temp_path(&all->world->temp, "output"));
    cr_assert(mini_comes_to(all->mini, MINI_PAUSE));
    write_file(drive, "in the pause");
    atomic_store(&all->mini->waits_at, MINI_RESUME);
    cr_assert(mini_comes_to(all->mini, MINI_RESUME));
    write_file(drive, "after");
    cr_assert_neq(access(clone, F_OK), 0); // not before there is an image
    atomic_store(&all->mini->waits_at, MINI_NOWHERE);
    cr_assert_eq(checkpoint_ended(pid), 0);
    cr_assert(file_has(clone, "in the pause"));
    // There already; then replaced.
    const char *args[] = {"--name", "one", "--drive", drive, "--replace", NULL};
    cr_assert_eq(checkpoint_do("checkpoint", text, args), 0, "%s", text);
    cr_assert(file_has(clone, "after"));
    snprintf(clone, sizeof(clone), "%s.two", drive);
    write_file(clone, "mine");
    const char *taken[] = {"--name", "two", "--drive", drive, NULL};
    cr_assert_eq(checkpoint_do("checkpoint", text, taken), 1);
    cr_assert(strstr(text, "disk.two is there already"), "%s", text);
    cr_assert(file_has(clone, "mine"));
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

Test(checkpoint_fork, each_has_a_drive)
{
    char text[CHECKPOINT_TEXT];
    char drive[2 * TEST_PATH];
    make_and_start();
    snprintf(drive, sizeof(drive), "%s", temp_path(&all->world->temp, "disk"));
    write_file(drive, "disk");
    setenv("LD_PRELOAD", CLONING_LIBRARY, 1);
    const char *args[] = {"--count", "3", "--name", "box", "--drive", drive, NULL};
    cr_assert_eq(checkpoint_do("fork", text, args), 0, "%s", text);
    for (unsigned i = 1; i <= 3; i++) {
        char clone[3 * TEST_PATH];
        snprintf(clone, sizeof(clone), "%s.box-%u", drive, i);
        cr_assert(file_has(clone, "disk"), "%s", clone);
    }
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// The image is not made: its drive must not be there either.
Test(checkpoint_fork, no_image_no_drive)
{
    char drive[2 * TEST_PATH];
    char clone[3 * TEST_PATH];
    make_and_start();
    snprintf(drive, sizeof(drive), "%s", temp_path(&all->world->temp, "disk"));
    snprintf(clone, sizeof(clone), "%s.one", drive);
    write_file(drive, "disk");
    setenv("LD_PRELOAD", CLONING_LIBRARY, 1);
    atomic_store(&all->mini->refuses_at, MINI_RESUME);
    const char *extra[] = {"--drive", drive, NULL};
    pid_t pid = checkpoint_begin("one", extra, temp_path(&all->world->temp, "output"));
    cr_assert(mini_comes_to(all->mini, MINI_RESUME));
    cr_assert_eq(checkpoint_ended(pid), 1);
    cr_assert_neq(access(clone, F_OK), 0);
    cr_assert_not(checkpoint_has_image("one"));
    atomic_store(&all->mini->refuses_at, MINI_NOWHERE);
    atomic_store(&all->mini->paused, false);
    writers_resume(all->mini->writers);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

static void pack(const char *name)
{
    char text[CHECKPOINT_TEXT];
    const char *args[] = {"pack",           "--store", all->world->store, "--name", name,
                          all->world->file, NULL};
    cr_assert_eq(faultline_run(text, sizeof(text), args), 0, "%s", text);
}

// The third of four cannot be made: who has the first or the second in use has an image still, with
// the drive that belongs to it. What was not there before is not there.
Test(checkpoint_fork, that_fails_removes_nothing_that_was_there)
{
    char text[CHECKPOINT_TEXT];
    char drive[2 * TEST_PATH];
    char clone[3 * TEST_PATH];
    make_and_start();
    pack("box-2");
    pack("box-4");
    snprintf(drive, sizeof(drive), "%s", temp_path(&all->world->temp, "disk"));
    write_file(drive, "new");
    snprintf(clone, sizeof(clone), "%s.box-1", drive);
    write_file(clone, "old");
    snprintf(clone, sizeof(clone), "%s.box-4", drive);
    write_file(clone, "old");
    snprintf(clone, sizeof(clone), "%s.box-3", drive);
    cr_assert_eq(mkdir(clone, 0700), 0);
    setenv("LD_PRELOAD", CLONING_LIBRARY, 1);
    const char *args[] = {"--count", "4", "--name", "box", "--drive", drive, "--replace", NULL};
    cr_assert_eq(checkpoint_do("fork", text, args), 1, "%s", text);
    cr_assert(strstr(text, "disk.box-3 is there already, and is no regular file"), "%s", text);
    cr_assert(strstr(text, "of the images that were to be replaced 1 are the new ones"), "%s",
              text);
    cr_assert_not(checkpoint_has_image("box-1"));
    snprintf(clone, sizeof(clone), "%s.box-1", drive);
    cr_assert(file_has(clone, "old"));
    checkpoint_image_is_right("box-2");
    snprintf(clone, sizeof(clone), "%s.box-2", drive);
    cr_assert(file_has(clone, "new"));
    cr_assert_not(checkpoint_has_image("box-3"));
    cr_assert(checkpoint_has_image("box-4"));
    snprintf(clone, sizeof(clone), "%s.box-4", drive);
    cr_assert(file_has(clone, "old"));
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// The image cannot get its name, when the clone has got its own already.
Test(checkpoint_fork, a_drive_that_was_to_be_replaced_is_there_again)
{
    char text[CHECKPOINT_TEXT];
    char drive[2 * TEST_PATH];
    char clone[3 * TEST_PATH];
    make_and_start();
    cr_assert_eq(mkdir(temp_path(&all->world->temp, "store/images/one.img"), 0700), 0);
    snprintf(drive, sizeof(drive), "%s", temp_path(&all->world->temp, "disk"));
    write_file(drive, "new");
    snprintf(clone, sizeof(clone), "%s.one", drive);
    write_file(clone, "old");
    setenv("LD_PRELOAD", CLONING_LIBRARY, 1);
    const char *args[] = {"--name", "one", "--drive", drive, "--replace", "--json", NULL};
    cr_assert_eq(checkpoint_do("checkpoint", text, args), 1, "%s", text);
    cr_assert(strstr(text, "\"copied\""), "%s", text);
    cr_assert(file_has(clone, "old"));
    checkpoint_left_nothing();
    checkpoint_world_stop();
}
