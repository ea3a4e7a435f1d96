// SPDX-License-Identifier: Apache-2.0
//
// Each way in which a checkpoint can fail: one sentence says why, there is no image, and the VM
// runs on as if nothing had happened.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/checkpoint_world.h"

TestSuite(checkpoint_failures, .init = need_userfaultfd, .fini = checkpoint_world_close,
          .timeout = 240);

static struct checkpoint_world *all;

static void make_and_start(void)
{
    all = checkpoint_world_make(MIXED, 8 << 20);
    checkpoint_world_start();
}

// One line on stderr, with this in it; and nothing happened.
static void fails(const char *const *args, const char *sentence)
{
    char text[CHECKPOINT_TEXT];
    int status = checkpoint_do("checkpoint", text, args);
    cr_assert_eq(status, 1, "%d: %s", status, text);
    cr_assert(strncmp(text, "faultline checkpoint: ", 22) == 0, "%s", text);
    cr_assert(strstr(text, sentence), "'%s' is not in: %s", sentence, text);
    cr_assert(strchr(text, '\n') == text + strlen(text) - 1, "more than one line: %s", text);
    cr_assert_not(checkpoint_has_image("one"));
}

static const char *const plain[] = {"--name", "one", NULL};

static void fails_plainly(const char *sentence)
{
    fails(plain, sentence);
    checkpoint_left_nothing();
}

Test(checkpoint_failures, of_a_vm_that_is_not_there)
{
    make_and_start();
    char number[sizeof(all->number)];
    memcpy(number, all->number, sizeof(number));
    snprintf(all->number, sizeof(all->number), "%d", 4711);
    fails_plainly("serves no VM with the number 4711");
    snprintf(all->number, sizeof(all->number), "pid:%d", 4711);
    fails_plainly("serves no VM with the process id 4711");
    snprintf(all->number, sizeof(all->number), "all");
    fails_plainly("'all' is no VM");
    memcpy(all->number, number, sizeof(number));
    checkpoint_world_stop();
}

Test(checkpoint_failures, without_the_api)
{
    make_and_start();
    unlink(all->api);
    const char *named[] = {"--name", "one", NULL};
    fails(named, "no Firecracker listens at");
    const char *looked_for[] = {"checkpoint", "--control", all->control, "--name",
                                "one",        all->number, NULL};
    char text[CHECKPOINT_TEXT];
    cr_assert_eq(faultline_run(text, sizeof(text), looked_for), 1);
    cr_assert(strstr(text, "--api names it"), "%s", text);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// The server's own control socket, for example.
Test(checkpoint_failures, with_the_api_of_another_process)
{
    make_and_start();
    const char *args[] = {"--name",     "one",         "--api", all->control,
                          "--fifo-dir", all->meetings, NULL};
    fails(args, "--api must name the socket of the VM's own Firecracker");
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

Test(checkpoint_failures, of_a_name_that_is_taken)
{
    char text[CHECKPOINT_TEXT];
    make_and_start();
    const char *args[] = {"--name", "image", NULL};
    cr_assert_eq(checkpoint_do("checkpoint", text, args), 1);
    cr_assert(strstr(text, "the store has an image 'image' already"), "%s", text);
    cr_assert_eq(atomic_load(&all->mini->pauses), 0);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

Test(checkpoint_failures, where_firecracker_does_not_pause)
{
    make_and_start();
    atomic_store(&all->mini->refuses_at, MINI_PAUSE);
    fails_plainly("does not pause the VM (400): Failed to pause the vCPUs");
    checkpoint_world_stop();
}

Test(checkpoint_failures, where_the_state_is_not_written)
{
    make_and_start();
    atomic_store(&all->mini->refuses_at, MINI_CREATE);
    fails_plainly("does not write the state of the VM (400): Create snapshot error: Cannot save");
    checkpoint_world_stop();
}

// It says something else than that it was in the FIFO: the VM may have run meanwhile.
Test(checkpoint_failures, without_the_proof_that_firecracker_waited)
{
    make_and_start();
    atomic_store(&all->mini->impatient, true);
    fails_plainly("No such device or address");
    checkpoint_world_stop();
}

// It was in the FIFO, but says something else than that it cannot be truncated.
Test(checkpoint_failures, of_another_answer_than_the_proof)
{
    make_and_start();
    atomic_store(&all->mini->refuses_at, MINI_OPENED);
    fails_plainly("Cannot write memory file: no");
    checkpoint_world_stop();
}

Test(checkpoint_failures, of_a_pause_that_is_too_long)
{
    make_and_start();
    atomic_store(&all->mini->waits_at, MINI_PAUSED);
    const char *args[] = {"--name", "one", "--max-pause", "300ms", "--json", NULL};
    char text[CHECKPOINT_TEXT];
    pid_t pid = checkpoint_begin("one", args + 2, temp_path(&all->world->temp, "output"));
    cr_assert(mini_comes_to(all->mini, MINI_PAUSED));
    usleep(400 * 1000); // an answer that takes longer than the pause may
    atomic_store(&all->mini->waits_at, MINI_NOWHERE);
    cr_assert_eq(checkpoint_ended(pid), 1);
    int fd = open(temp_path(&all->world->temp, "output"), O_RDONLY | O_CLOEXEC);
    ssize_t got = read(fd, text, sizeof(text) - 1);
    text[got > 0 ? got : 0] = '\0';
    close(fd);
    cr_assert(strstr(text, "has not paused the VM and written its state in time"), "%s", text);
    cr_assert(strstr(text, "\"event\":\"failed\""), "%s", text);
    cr_assert_not(checkpoint_has_image("one"));
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

Test(checkpoint_failures, in_a_directory_that_is_not_there)
{
    make_and_start();
    char saved[sizeof(all->meetings)];
    memcpy(saved, all->meetings, sizeof(saved));
    snprintf(all->meetings, sizeof(all->meetings), "%s", temp_path(&all->world->temp, "nowhere"));
    fails(plain, "nowhere cannot be used: No such file or directory");
    snprintf(all->meetings, sizeof(all->meetings), "%s", all->world->file);
    fails(plain, "cannot be used: Not a directory");
    memcpy(all->meetings, saved, sizeof(saved));
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

Test(checkpoint_failures, of_a_drive_that_cannot_be_cloned)
{
    make_and_start();
    const char *drive = temp_path(&all->world->temp, "store/faultline-store");
    char path[TEST_PATH];
    snprintf(path, sizeof(path), "%s", drive);
    const char *args[] = {"--name", "one", "--drive", path, NULL};
    fails(args, "cannot clone files, as XFS and Btrfs can");
    const char *absent[] = {"--name", "one", "--drive", "/nowhere/disk", NULL};
    fails(absent, "the drive /nowhere/disk cannot be opened: No such file or directory");
    cr_assert_eq(atomic_load(&all->mini->pauses), 0);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// Without the image that the VM came from, what it has not touched is nowhere.
Test(checkpoint_failures, where_the_store_has_its_image_no_more)
{
    char text[CHECKPOINT_TEXT];
    make_and_start();
    const char *args[] = {"rm", "--store", all->world->store, "image", NULL};
    cr_assert_eq(faultline_run(text, sizeof(text), args), 0, "%s", text);
    fails_plainly("image");
    cr_assert_eq(atomic_load(&all->mini->pauses), 0);
    checkpoint_world_stop();
}

Test(checkpoint_failures, in_another_store)
{
    char text[CHECKPOINT_TEXT];
    char other[TEST_PATH];
    make_and_start();
    snprintf(other, sizeof(other), "%s", temp_path(&all->world->temp, "other"));
    const char *nowhere[] = {"--name", "one", "--store", other, NULL};
    fails(nowhere, "other");
    const char *pack[] = {"pack", "--store", other, "--name", "image", all->world->file, NULL};
    cr_assert_eq(faultline_run(text, sizeof(text), pack), 0, "%s", text);
    const char *args[] = {"--name", "one", "--store", other, NULL};
    cr_assert_eq(checkpoint_do("checkpoint", text, args), 0, "%s", text);
    cr_assert_not(checkpoint_has_image("one"));
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// Another checkpoint of the same VM runs.
Test(checkpoint_failures, beside_another_one)
{
    make_and_start();
    atomic_store(&all->mini->waits_at, MINI_WRITTEN);
    pid_t pid = checkpoint_begin("first", NULL, temp_path(&all->world->temp, "output"));
    cr_assert(mini_comes_to(all->mini, MINI_WRITTEN));
    char text[CHECKPOINT_TEXT];
    const char *second[] = {"--external", "--name", "one", NULL};
    cr_assert_eq(checkpoint_do("checkpoint", text, second), 1);
    cr_assert(strstr(text, "capture"), "%s", text);
    atomic_store(&all->mini->waits_at, MINI_NOWHERE);
    cr_assert_eq(checkpoint_ended(pid), 0);
    checkpoint_image_is_right("first");
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

Test(checkpoint_failures, wrong_options_are_named)
{
    char text[CHECKPOINT_TEXT];
    static const struct {
        const char *const args[8];
        const char *sentence;
    } wrong[] = {
        {{"checkpoint", "1"}, "--name is missing"},
        {{"checkpoint", "--name", "one"}, "exactly one VM is needed"},
        {{"checkpoint", "--name", "a/b", "1"}, "'a/b' cannot name an image"},
        {{"checkpoint", "--name", "one", "--with", "vmstate=x", "1"}, "--with needs --external"},
        {{"checkpoint", "--name", "one", "--with", "x", "1"}, "is not vmstate=PATH"},
        {{"checkpoint", "--name", "one", "--external", "--api", "x", "1"}, "--external cannot"},
        {{"checkpoint", "--name", "one", "--while-paused", "--keep-armed", "1"},
         "--while-paused tracks no writes"},
        {{"fork", "--count", "0", "1"}, "--count"},
        {{"fork", "--name", "-x", "1"}, "cannot name an image"},
    };
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        int status = faultline_run(text, sizeof(text), wrong[i].args);
        cr_assert_eq(status, 2, "%u: %d: %s", i, status, text);
        cr_assert(strstr(text, wrong[i].sentence), "%u: %s", i, text);
    }
}
