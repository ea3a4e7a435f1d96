// SPDX-License-Identifier: Apache-2.0
//
// Traces and the layout by them, as people and VMs see them.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"

TestSuite(trace_verbs, .fini = world_close, .timeout = 120);

enum { IMAGE_BYTES = 2 << 20, OUTPUT = 65536, TRACED = 100 };

static struct world *world;

static int run(char output[OUTPUT], const char *const *args)
{
    return faultline_run(output, OUTPUT, args);
}

static void expect(const char *const *args, int status, const char *says)
{
    static char output[OUTPUT];
    cr_assert_eq(run(output, args), status, "%s: %s", args[0], output);
    cr_assert_not_null(strstr(output, says), "%s: no '%s': %s", args[0], says, output);
}

#define EXPECT(STATUS, SAYS, ...)                                                                  \
    do {                                                                                           \
        const char *const args_[] = {__VA_ARGS__, "--store", world->store, NULL};                  \
        expect(args_, STATUS, SAYS);                                                               \
    } while (0)

// Every fourth page from the end, 5 ms apart.
static void record(const char *image)
{
    char command[3 * TEST_PATH + 4096];
    const char *path = temp_path(&world->temp, "recording");
    FILE *file = fopen(path, "we");
    cr_assert_not_null(file);
    for (int i = 0; i < TRACED; i++)
        fprintf(file, "%d %d\n", 4 * (TRACED - 1 - i), 5 * i);
    cr_assert_eq(fclose(file), 0);
    snprintf(command, sizeof(command), "'%s' '%s' '%s' '%s'", RECORD_TRACE, world->store, image,
             path);
    int status = system(command); // NOLINT(cert-env33-c): a path of the build and names of ours
    cr_assert_eq(status, 0);
}

static void begin(void)
{
    world = world_make(DISTINCT, IMAGE_BYTES);
    world_pack(world, world->file, "image");
}

Test(trace_verbs, without_a_trace_they_say_so)
{
    begin();
    EXPECT(1, "image 'image' has no trace", "trace", "show", "image");
    EXPECT(1, "image 'image' has no trace", "trace", "rm", "image");
    EXPECT(1, "image 'image' has no trace: record one first", "optimize", "image");
    EXPECT(1, "no trace of an image 'image'", "pack", "--name", "new", "--trace", "image",
           world->file);
    EXPECT(1, "nobody", "optimize", "nobody");
    EXPECT(0, "trace          none", "inspect", "image");
    static const char *const bare[] = {"trace", NULL};
    expect(bare, 2, "show or rm is needed");
    EXPECT(2, "there is no 'trace draw'", "trace", "draw", "image");
    EXPECT(2, "exactly one image", "trace", "show");
    EXPECT(2, "exactly one image", "optimize");
    EXPECT(0, "usage: faultline trace show", "trace", "--help");
}

static json_t *show_json(void)
{
    static char output[OUTPUT];
    const char *const args[] = {"trace", "show", "--json", "--store", world->store, "image", NULL};
    json_error_t error;
    cr_assert_eq(run(output, args), 0, "%s", output);
    json_t *object = json_loads(output, 0, &error);
    cr_assert_not_null(object, "%s: %s", error.text, output);
    return object;
}

static json_int_t number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

Test(trace_verbs, it_is_shown_in_the_order_of_touch)
{
    begin();
    record("image");
    EXPECT(0, "19.5 % of the image", "trace", "show", "image");
    EXPECT(0, "100  pages, merged from 1 recording\n", "inspect", "image");
    json_t *object = show_json();
    const json_t *order = json_object_get(object, "order");
    cr_assert_eq(number(object, "pages"), TRACED);
    cr_assert_eq(number(object, "image_pages"), IMAGE_BYTES / 4096);
    cr_assert_eq(number(object, "last_ms"), 5 * (TRACED - 1));
    cr_assert_eq(number(json_object_get(object, "stretches"), "count"), TRACED);
    cr_assert_eq(json_array_size(order), TRACED);
    cr_assert_eq(json_array_size(json_object_get(object, "ms")), TRACED);
    cr_assert_eq(json_array_size(json_object_get(object, "seen")), TRACED);
    for (int i = 0; i < TRACED; i++)
        cr_assert_eq(json_integer_value(json_array_get(order, (size_t)i)), 4 * (TRACED - 1 - i));
    json_decref(object);
}

Test(trace_verbs, a_picture_is_drawn)
{
    static char text[OUTPUT];
    begin();
    record("image");
    const char *path = temp_path(&world->temp, "picture.svg");
    EXPECT(0, "trace of       image", "trace", "show", "--svg", path, "image");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = read(fd, text, sizeof(text) - 1);
    close(fd);
    cr_assert_gt(length, 1000);
    cr_assert_eq(strncmp(text, "<svg ", 5), 0);
    cr_assert_str_eq(text + length - 7, "</svg>\n");
    cr_assert_not_null(strstr(text, "First touches of image"));
    cr_assert_not_null(strstr(text, "time after attach (ms)"));
    cr_assert_not_null(strstr(text, "guest memory offset (KiB)"));
    cr_assert_null(strstr(text, "nan"), "%s", text);
    const char *nowhere = temp_path(&world->temp, "no/picture.svg");
    EXPECT(1, "cannot write", "trace", "show", "--svg", nowhere, "image");
}

// Every file of the store: name, size, mode, times and content.
static void list_store(char list[OUTPUT])
{
    char command[4 * TEST_PATH];
    snprintf(command, sizeof(command),
             "cd '%s' && find . -printf '%%p %%s %%m %%T@ %%C@\\n' | sort && "
             "find . -type f -print0 | sort -z | xargs -0 sha256sum",
             world->store);
    FILE *file = popen(command, "re"); // NOLINT(cert-env33-c): a path of ours
    cr_assert_not_null(file);
    size_t length = fread(list, 1, OUTPUT - 1, file);
    list[length] = '\0';
    cr_assert_eq(pclose(file), 0);
    cr_assert(length > 0 && length < OUTPUT - 1);
}

Test(trace_verbs, a_dry_run_changes_nothing)
{
    static char before[OUTPUT];
    static char after[OUTPUT];
    begin();
    record("image");
    list_store(before);
    EXPECT(0, "100 pages again beside each other, 0 zero; nothing was changed", "optimize",
           "--dry-run", "image");
    EXPECT(0, "by estimate, at most ", "optimize", "--dry-run", "image");
    EXPECT(0, "then:  replay reads 7 frames in 1 piece (", "optimize", "--dry-run", "image");
    EXPECT(0, "\"dry_run\":true,\"estimate\":{\"read_bytes\":", "optimize", "--dry-run", "--json",
           "image");
    list_store(after);
    cr_expect_str_eq(before, after);
    EXPECT(0, "now:   replay reads 7 frames in 1 piece (", "optimize", "image");
    EXPECT(0, "\"already\":true", "optimize", "--dry-run", "--json", "image");
    EXPECT(0, "was laid out by its trace before", "optimize", "--dry-run", "image");
}

Test(trace_verbs, an_image_is_laid_out_once)
{
    begin();
    record("image");
    EXPECT(0, "in 1 piece (", "optimize", "image");
    EXPECT(0, "was laid out by its trace before", "optimize", "image");
    EXPECT(0, "\"already\":true", "optimize", "--json", "image");
    EXPECT(0, "in 2 packs", "inspect", "image");
    EXPECT(0, "ok: 1 image, 2 packs", "verify");
    EXPECT(0, "", "trace", "rm", "image");
    EXPECT(1, "has no trace: record one first", "optimize", "image");
}

// The trace of an earlier snapshot is the first one of the next; also where that has its name.
Test(trace_verbs, a_new_image_is_laid_out_by_an_older_ones_trace)
{
    begin();
    record("image");
    record("image");
    EXPECT(0, "100 pages stored again", "pack", "--name", "next", "--trace", "image", world->file);
    EXPECT(0, "100  pages, merged from 1 recording\n", "inspect", "next");
    EXPECT(0, "was laid out by its trace before", "optimize", "next");
    EXPECT(0, "\"layout\":{", "pack", "--json", "--replace", "--name", "image", "--trace", "image",
           world->file);
    EXPECT(0, "merged from 1 recording\n", "trace", "show", "image");
    int r = truncate(world->file, IMAGE_BYTES / 4);
    cr_assert_eq(r, 0);
    EXPECT(0, "32 pages stored again", "pack", "--name", "small", "--trace", "image", world->file);
    EXPECT(0, "ok: 3 images", "verify");
}

// One VM has the old layout, one comes when there is the new one; and what the old one alone needs
// is collected.
Test(trace_verbs, vms_of_either_layout_are_served, .init = need_userfaultfd)
{
    struct good before;
    struct good after;
    world = world_make(DISTINCT, IMAGE_BYTES);
    world_serve(world, NULL);
    record("image");
    good_start(&before, world->socket, &world->memory);
    EXPECT(0, "in 1 piece (", "optimize", "image");
    record("image");
    good_start(&after, world->socket, &world->memory);
    EXPECT(0, "laid out by its trace before", "optimize", "image");
    EXPECT(0, "freed", "gc");
    cr_assert(good_touch(&before, 200));
    cr_assert_eq(good_end(&after), 0);
    cr_assert_eq(good_end(&before), 0);
    world_stop(world);
}
