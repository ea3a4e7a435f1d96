// SPDX-License-Identifier: Apache-2.0
//
// What the verbs of a store say: to people, and of stores that are not there or lack something.
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/world.h"

TestSuite(store_verbs, .fini = world_close, .timeout = 120);

enum { IMAGE_BYTES = 2 << 20, OUTPUT = 8192 };

static struct world *world;

static void begin(void)
{
    world = world_make(DISTINCT, IMAGE_BYTES);
    world_pack(world, world->file, "first");
    world_pack(world, world->file, "second");
}

// Runs a verb with its arguments, up to a NULL, on the world's store.
static int run(char output[OUTPUT], const char *verb, const char *const *more)
{
    const char *args[16] = {verb, "--store", world->store};
    for (unsigned i = 0; more && more[i]; i++)
        args[3 + i] = more[i];
    return faultline_run(output, OUTPUT, args);
}

static void expect(const char *verb, const char *const *more, int status, const char *says)
{
    char output[OUTPUT];
    cr_assert_eq(run(output, verb, more), status, "%s: %s", verb, output);
    cr_assert_not_null(strstr(output, says), "%s: no '%s': %s", verb, says, output);
}

// The only pack there is.
static void find_pack(char *ret_path, char ret_id[17])
{
    const char *directory = temp_path(&world->temp, "store/packs");
    DIR *dir = opendir(directory);
    cr_assert_not_null(dir);
    *ret_id = '\0';
    for (const struct dirent *entry; (entry = readdir(dir));) {
        if (strstr(entry->d_name, ".pack")) {
            cr_assert_eq(*ret_id, '\0', "more than one");
            snprintf(ret_path, (size_t)2 * TEST_PATH, "%s/%s", directory, entry->d_name);
            snprintf(ret_id, 17, "%.16s", entry->d_name);
        }
    }
    closedir(dir);
    cr_assert_neq(*ret_id, '\0', "none");
}

Test(store_verbs, a_missing_pack_is_named)
{
    char path[2 * TEST_PATH];
    char id[17];
    char says[64];
    begin();
    find_pack(path, id);
    cr_assert_eq(unlink(path), 0);
    snprintf(says, sizeof(says), "pack %s, which it needs, is missing", id);
    const char *first[] = {"first", NULL};
    const char *unpack[] = {"first", temp_path(&world->temp, "out"), NULL};
    expect("inspect", first, 1, says);
    expect("unpack", unpack, 1, says);
    expect("gc", NULL, 1, says);
    expect("verify", NULL, 1, says);
    expect("verify", first, 1, says);
    expect("ls", NULL, 0, "CANNOT BE USED: 1 pack missing");
}

// The number after "KEY":, in what ls says of this image, and inspect as well.
static long long space_of(const char *image, const char *key)
{
    char output[OUTPUT];
    char detail[OUTPUT];
    char text[64];
    const char *inspect[] = {"--json", image, NULL};
    static const char *const json[] = {"--json", NULL};
    cr_assert_eq(run(output, "ls", json), 0, "%s", output);
    snprintf(text, sizeof(text), "\"name\":\"%s\"", image);
    const char *at = strstr(output, text);
    snprintf(text, sizeof(text), "\"%s\":", key);
    at = at ? strstr(at, text) : NULL;
    cr_assert_not_null(at, "%s", output);
    cr_assert_eq(run(detail, "inspect", inspect), 0, "%s", detail);
    const char *also = strstr(detail, text);
    cr_assert_not_null(also, "%s", detail);
    cr_expect_eq(strtoll(also + strlen(text), NULL, 10), strtoll(at + strlen(text), NULL, 10));
    return strtoll(at + strlen(text), NULL, 10);
}

static long long file_bytes(const char *path)
{
    struct stat status;
    cr_assert_eq(stat(path, &status), 0, "%s", path);
    return (long long)status.st_size;
}

// What one image alone has on disk, and what it shares: rm and gc free the former.
Test(store_verbs, bytes_on_disk_are_ones_own_or_shared)
{
    char pack[2 * TEST_PATH];
    char id[17];
    begin();
    find_pack(pack, id);
    long long map = file_bytes(temp_path(&world->temp, "store/images/first.img"));
    cr_expect_eq(space_of("first", "own_bytes"), map);
    cr_expect_eq(space_of("first", "shared_bytes"), file_bytes(pack));
    cr_expect_eq(space_of("second", "shared_bytes"), file_bytes(pack));
    static const char *const second[] = {"second", NULL};
    expect("rm", second, 0, "");
    cr_expect_eq(space_of("first", "own_bytes"), map + file_bytes(pack));
    cr_expect_eq(space_of("first", "shared_bytes"), 0);
}

Test(store_verbs, images_that_need_a_bad_frame_are_named)
{
    char path[2 * TEST_PATH];
    char id[17];
    char output[OUTPUT];
    struct memory memory;
    begin();
    find_pack(path, id);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_eq(pwrite(fd, "nonsense", 8, IMAGE_BYTES / 2), 8);
    close(fd);
    memory_make_distinct(&memory, temp_path(&world->temp, "other.mem"), IMAGE_BYTES, 99);
    world_pack(world, temp_path(&world->temp, "other.mem"), "other");
    cr_assert_eq(run(output, "verify", NULL), 1, "%s", output);
    cr_assert_not_null(strstr(output, "does not match its checksum"), "%s", output);
    cr_assert_not_null(strstr(output, "bad: image first: 16 of its pages"), "%s", output);
    cr_assert_not_null(strstr(output, "bad: image second: 16 of its pages"), "%s", output);
    cr_assert_null(strstr(output, "image other"), "%s", output);
    memory_free(&memory);
}

Test(store_verbs, a_store_that_is_not_there_is_said_so_by_all)
{
    static const char *const verbs[][3] = {{"ls"},     {"inspect", "i"}, {"rm", "i"},
                                           {"verify"}, {"gc"},           {"unpack", "i", "o"}};
    char says[2 * TEST_PATH];
    char output[OUTPUT];
    world = world_make(EMPTY, IMAGE_BYTES);
    const char *nowhere = temp_path(&world->temp, "nowhere");
    snprintf(says, sizeof(says), "there is no store at %s: 'faultline pack' makes one; --store",
             nowhere);
    for (unsigned i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        const char *args[] = {verbs[i][0], "--store", nowhere, verbs[i][1], verbs[i][2], NULL};
        cr_assert_eq(faultline_run(output, sizeof(output), args), 1, "%s", output);
        cr_assert_not_null(strstr(output, says), "%s", output);
    }
    const char *serve[] = {"serve",
                           "--store",
                           nowhere,
                           "--sockets",
                           world->temp.path,
                           "--control",
                           temp_path(&world->temp, "c"),
                           NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), serve), 1);
    cr_assert_not_null(strstr(output, says), "%s", output);
}

Test(store_verbs, a_pack_that_cannot_be_makes_no_store)
{
    char output[OUTPUT];
    world = world_make(EMPTY, IMAGE_BYTES);
    const char *nowhere = temp_path(&world->temp, "nowhere");
    const char *const bad[] = {temp_path(&world->temp, "none"), world->temp.path, "/dev/null"};
    for (unsigned i = 0; i < 3; i++) {
        const char *args[] = {"pack", "--store", nowhere, "--name", "x", bad[i], NULL};
        cr_assert_eq(faultline_run(output, sizeof(output), args), 1, "%s", output);
        cr_assert_not_null(strstr(output, bad[i]), "%s", output);
        cr_assert_neq(access(nowhere, F_OK), 0, "a store was made");
    }
    const char *handler[] = {"handler", temp_path(&world->temp, "x"), world->temp.path, NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), handler), 1);
    cr_assert_not_null(strstr(output, "is not a regular file"), "%s", output);
}

Test(store_verbs, what_people_read)
{
    char output[OUTPUT];
    unsigned year, month, day, hour, minute, second;
    begin();
    const char *first[] = {"first", NULL};
    cr_assert_eq(run(output, "inspect", first), 0);
    const char *created = strstr(output, "created        ");
    cr_assert_not_null(created, "%s", output);
    cr_assert_eq(sscanf(created, "created %4u-%2u-%2uT%2u:%2u:%2uZ", &year, &month, &day, &hour,
                        &minute, &second),
                 6, "%s", output);
    cr_assert_not_null(strstr(output, "in 1 pack\n"), "%s", output);
    expect("gc", NULL, 0, "1 pack stays, with 0 B");
    expect("verify", first, 0, "ok: 1 image, 1 pack, ");
    const char *both[] = {"first", "second", NULL};
    cr_assert_eq(run(output, "rm", both), 0, "%s", output);
    expect("ls", NULL, 0, "IMAGE");
    const char *bad[] = {"a/b", "out", NULL};
    expect("unpack", bad, 1, "'a/b' cannot name an image");
    expect("verify", bad, 2, "'a/b' cannot name an image");
}
