// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints of a VM that writes all the time: the image is what its memory was when its state was
// written, byte for byte, and the VM never notices.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/checkpoint_world.h"

TestSuite(checkpoint, .init = need_userfaultfd, .fini = checkpoint_world_close, .timeout = 240);

enum { HUGE_PAGES = 8 };

static struct checkpoint_world *all;

static void make_and_start(void)
{
    all = checkpoint_world_make(MIXED, 24 << 20);
    checkpoint_world_start();
}

static void take(const char *name, const char *const *extra)
{
    char text[CHECKPOINT_TEXT];
    const char *args[CHECKPOINT_ARGS] = {"--name", name};
    for (unsigned i = 0; extra && extra[i]; i++)
        args[i + 2] = extra[i];
    int status = checkpoint_do("checkpoint", text, args);
    cr_assert_eq(status, 0, "%d: %s", status, text);
}

// The last line of what it prints with --json.
static json_t *take_json(const char *name, const char *option)
{
    char text[CHECKPOINT_TEXT];
    const char *args[] = {"--name", name, "--json", option, NULL};
    int status = checkpoint_do("checkpoint", text, args);
    cr_assert_eq(status, 0, "%d: %s", status, text);
    const char *last = strstr(text, "{\"event\":\"done\"");
    cr_assert(last, "%s", text);
    json_t *result = json_loads(last, 0, NULL);
    cr_assert(result, "%s", last);
    return result;
}

static long long number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    cr_assert(json_is_integer(value), "%s", key);
    return json_integer_value(value);
}

Test(checkpoint, is_what_the_memory_was)
{
    make_and_start();
    take("one", NULL);
    checkpoint_left_nothing();
    checkpoint_image_is_right("one");
    checkpoint_restores("one");
    checkpoint_world_stop();
}

// Of the state of the devices, which the image has as a companion.
Test(checkpoint, has_the_state_with_it)
{
    char text[CHECKPOINT_TEXT];
    char want[64];
    make_and_start();
    take("one", NULL);
    const char *path = temp_path(&all->world->temp, "state");
    char with[2 * TEST_PATH];
    snprintf(with, sizeof(with), "vmstate=%s", path);
    const char *args[] = {"unpack", "--store", all->world->store, "--with", with, "one", NULL};
    cr_assert_eq(faultline_run(text, sizeof(text), args), 0, "%s", text);
    FILE *file = fopen(path, "re");
    cr_assert(file && fgets(text, sizeof(text), file));
    fclose(file);
    snprintf(want, sizeof(want), "state 1 of %d\n", (int)all->pid);
    cr_assert_str_eq(text, want);
    checkpoint_world_stop();
}

Test(checkpoint, again_and_again)
{
    char name[16];
    make_and_start();
    for (unsigned i = 0; i < 5; i++) {
        snprintf(name, sizeof(name), "image-%u", i);
        take(name, NULL);
        checkpoint_image_is_right(name);
        cr_assert(writers_go_on(all->mini->writers, 500));
    }
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

Test(checkpoint, in_a_chain_copies_what_changed)
{
    make_and_start();
    cr_assert(writers_go_on(all->mini->writers, 4000));
    all->mini->writers->hot = 512; // however long the first one takes, no more changes meanwhile
    json_t *first = take_json("first", "--keep-armed");
    checkpoint_image_is_right("first");
    cr_assert(json_is_true(json_object_get(first, "kept_armed")));
    json_t *second = take_json("second", "--keep-armed");
    checkpoint_image_is_right("second");
    cr_assert_str_eq(json_string_value(json_object_get(second, "parent")), "first");
    long long before = number(first, "copied_by_fault") + number(first, "copied_by_sweep");
    long long after = number(second, "copied_by_fault") + number(second, "copied_by_sweep");
    cr_assert_lt(after, before / 2, "%lld, then %lld", before, after);
    json_decref(first);
    json_decref(second);
    take("third", NULL);
    checkpoint_image_is_right("third");
    checkpoint_restores("third");
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// The VM by its number.
Test(checkpoint, tells_events_and_numbers)
{
    char text[CHECKPOINT_TEXT];
    static const char *const events[] = {"begun", "ready", "resumed", "copied"};
    make_and_start();
    snprintf(all->number, sizeof(all->number), "1");
    const char *args[] = {"--name", "one", "--json", NULL};
    cr_assert_eq(checkpoint_do("checkpoint", text, args), 0, "%s", text);
    const char *at = text;
    for (unsigned i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        char line[64];
        snprintf(line, sizeof(line), "{\"event\":\"%s\"}\n", events[i]);
        cr_assert(strncmp(at, line, strlen(line)) == 0, "%s", at);
        at += strlen(line);
    }
    json_t *result = json_loads(at, 0, NULL);
    cr_assert(result, "%s", at);
    cr_assert_eq(number(result, "pages"), (24 << 20) / PAGE);
    cr_assert_gt(json_real_value(json_object_get(result, "pause_ms")), 0);
    cr_assert_str_eq(json_string_value(json_object_get(result, "parent")), "image");
    cr_assert(json_is_false(json_object_get(result, "was_paused")));
    json_decref(result);
    checkpoint_world_stop();
}

// A VM that its owner has paused is not resumed.
Test(checkpoint, leaves_a_paused_vm_paused)
{
    all = checkpoint_world_make(MIXED, 8 << 20);
    checkpoint_world_start();
    cr_assert(writers_pause(all->mini->writers));
    atomic_store(&all->mini->paused, true);
    json_t *result = take_json("one", "--full");
    cr_assert(json_is_true(json_object_get(result, "was_paused")));
    json_decref(result);
    cr_assert(atomic_load(&all->mini->paused));
    cr_assert_eq(atomic_load(&all->mini->resumes), 0);
    checkpoint_image_is_right("one");
    atomic_store(&all->mini->paused, false);
    writers_resume(all->mini->writers);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// Firecracker before 1.12 closes the socket after the handshake, and says another version.
Test(checkpoint, of_an_older_firecracker)
{
    all = checkpoint_world_make(MIXED, 8 << 20);
    all->mini->protocol = VMM_1_7;
    all->mini->version = "1.10.1";
    checkpoint_world_start();
    take("one", NULL);
    checkpoint_image_is_right("one");
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// Such a one without a balloon asks for no events: nothing is kept, and the result says so.
Test(checkpoint, of_an_older_firecracker_without_a_balloon)
{
    all = checkpoint_world_make(MIXED, 8 << 20);
    all->mini->protocol = VMM_1_7;
    all->mini->silent = true;
    all->mini->writers->removes = 0;
    checkpoint_world_start();
    static const char *const names[] = {"one", "two"};
    for (unsigned i = 0; i < 2; i++) {
        json_t *result = take_json(names[i], "--keep-armed");
        cr_assert(json_is_false(json_object_get(result, "kept_armed")));
        cr_assert_str_eq(json_string_value(json_object_get(result, "parent")), "image");
        json_decref(result);
        checkpoint_image_is_right(names[i]);
    }
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// Its API is at the usual place in its own root, and nothing is said of directories: both are
// found.
Test(checkpoint, of_a_jailed_firecracker)
{
    static char jail[2 * TEST_PATH];
    char run[3 * TEST_PATH];
    char text[CHECKPOINT_TEXT];
    all = checkpoint_world_make(MIXED, 8 << 20);
    snprintf(jail, sizeof(jail), "%s", temp_path(&all->world->temp, "jail"));
    snprintf(run, sizeof(run), "%s/run", jail);
    cr_assert(mkdir(jail, 0755) == 0 && mkdir(run, 0755) == 0 && chown(run, 10007, 10007) == 0);
    all->mini->jail = jail;
    all->mini->api = "/run/firecracker.socket";
    checkpoint_world_start();
    const char *args[] = {"checkpoint", "--control", all->control, "--name",
                          "one",        all->number, NULL};
    cr_assert_eq(faultline_run(text, sizeof(text), args), 0, "%s", text);
    checkpoint_image_is_right("one");
    cr_assert_eq(rmdir(run), -1); // the socket is in it, and no more
    const char *socket = "/run/firecracker.socket";
    char path[4 * TEST_PATH];
    snprintf(path, sizeof(path), "%s%s", jail, socket);
    unlink(path);
    cr_assert_eq(rmdir(run), 0, "something was left in %s", run);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// The directory as this process sees it; a directory outside is refused.
Test(checkpoint, finds_a_directory_in_the_jail)
{
    static char jail[2 * TEST_PATH];
    char run[3 * TEST_PATH];
    char text[CHECKPOINT_TEXT];
    all = checkpoint_world_make(MIXED, 8 << 20);
    snprintf(jail, sizeof(jail), "%s", temp_path(&all->world->temp, "jail"));
    snprintf(run, sizeof(run), "%s/deep", jail);
    snprintf(all->api, sizeof(all->api), "%.900s/deep/api.sock", jail);
    cr_assert(mkdir(jail, 0755) == 0 && mkdir(run, 0755) == 0 && chown(run, 10007, 10007) == 0);
    all->mini->jail = jail;
    all->mini->api = "/deep/api.sock";
    checkpoint_world_start();
    const char *outside[] = {"--name", "one", NULL};
    cr_assert_eq(checkpoint_do("checkpoint", text, outside), 1);
    cr_assert(strstr(text, "is not below the root directory of the VM's process"), "%s", text);
    snprintf(all->meetings, sizeof(all->meetings), "%.900s", run);
    take("one", NULL);
    checkpoint_image_is_right("one");
    snprintf(all->meetings, sizeof(all->meetings), "%s", temp_path(&all->world->temp, "meetings"));
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// All of it is copied in the pause, so that no write is waited for.
Test(checkpoint, while_it_is_paused)
{
    make_and_start();
    json_t *result = take_json("one", "--while-paused");
    cr_assert_eq(number(result, "write_faults"), 0);
    cr_assert_eq(number(result, "copied_by_fault"), 0);
    cr_assert_gt(number(result, "copied_by_sweep"), 0);
    json_decref(result);
    cr_assert_eq(atomic_load(&all->mini->pauses), 1);
    checkpoint_left_nothing();
    checkpoint_image_is_right("one");
    checkpoint_restores("one");
    checkpoint_world_stop();
}

Test(checkpoint, of_huge_pages)
{
    static const char *const keep_armed[] = {"--keep-armed", NULL};
    static const char *const while_paused[] = {"--while-paused", NULL};
    need_huge_pages(HUGE_PAGES);
    all = checkpoint_world_make(MIXED, (uint64_t)HUGE_PAGES * HUGE);
    cr_assert(mini_make_writers(all->mini, HUGE));
    checkpoint_world_start();
    take("one", NULL);
    checkpoint_left_nothing();
    checkpoint_image_is_right("one");
    take("two", keep_armed);
    checkpoint_image_is_right("two");
    take("three", while_paused);
    checkpoint_image_is_right("three");
    checkpoint_left_nothing();
    checkpoint_restores("three");
    checkpoint_world_stop();
}

// What it has written itself is all that is copied, and only while it is paused.
Test(checkpoint, of_a_vm_that_maps_a_template)
{
    static char socket[2 * TEST_PATH];
    char text[CHECKPOINT_TEXT];
    all = checkpoint_world_make(MIXED, 24 << 20);
    const char *template[] = {"template", "--control", all->control, "image", NULL};
    cr_assert_eq(faultline_run(text, sizeof(text), template), 0, "%s", text);
    snprintf(socket, sizeof(socket), "%s", temp_path(&all->world->temp, "sockets/image.template"));
    all->mini->socket = socket;
    all->mini->maps_template = true;
    checkpoint_world_start();
    const char *args[] = {"--name", "one", NULL};
    cr_assert_eq(checkpoint_do("checkpoint", text, args), 1);
    cr_assert(strstr(text, "it maps a template: it can be captured while it is paused"), "%s",
              text);
    checkpoint_left_nothing();
    json_t *result = take_json("one", "--while-paused");
    cr_assert_lt(number(result, "copied_by_sweep"), number(result, "pages"));
    json_decref(result);
    checkpoint_left_nothing();
    checkpoint_image_is_right("one");
    checkpoint_restores("one");
    checkpoint_world_stop();
}
