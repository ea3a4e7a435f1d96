// SPDX-License-Identifier: Apache-2.0
//
// Images as files: what a program reads, maps, lists and may not do, and what becomes of a file
// whose image is replaced, removed or damaged.
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "tests/support/files_world.h"
#include "tests/support/stop.h"

TestSuite(files, .init = need_fuse, .fini = files_close, .timeout = 240);

enum { BYTES = (24 << 20) + 8 * PAGE, IO_MOST = 300 << 10 };

static struct world *world;
static const char *const quick[] = {"--retries", "0", "--read-timeout", "3s", NULL};

static void begin(const char *const *extra)
{
    world = files_make(MIXED, BYTES);
    files_serve(world, extra);
}

static int map_and_check(int channel, struct client_shared *shared, void *arg)
{
    uint64_t bytes = 0;
    (void)channel;
    (void)shared;
    (void)arg;
    uint8_t *map = files_map(files_path(world, "image"), &bytes);
    CHECK(map && bytes == BYTES, "cannot map it, or it has %llu bytes", (unsigned long long)bytes);
    files_check(&world->memory, map, 3, 1);
    memset(map, 7, BYTES); // its own from now on
    uint8_t *again = files_map(files_path(world, "image"), &bytes);
    CHECK(again, "cannot map it again");
    files_check(&world->memory, again, 1, 2);
    return 0;
}

static void run_client(client_main *main)
{
    struct client client;
    client_start(&client, main, NULL);
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
}

Test(files, every_page_of_a_mapping_is_right)
{
    begin(NULL);
    run_client(map_and_check);
    run_client(map_and_check);
    world_stop(world);
    cr_assert_not(files_mounted(world));
}

// Any offset and length, by way of the page cache and past it.
static int read_anywhere(int channel, struct client_shared *shared, void *arg)
{
    static uint8_t buf[IO_MOST] __attribute__((aligned(PAGE)));
    uint64_t state = 5;
    (void)channel;
    (void)shared;
    (void)arg;
    for (int direct = 0; direct < 2; direct++) {
        int fd = open(files_path(world, "image"), O_RDONLY | (direct ? O_DIRECT : 0));
        CHECK(fd >= 0, "cannot open it: %s", strerror(errno));
        for (unsigned i = 0; i < 300; i++) {
            uint64_t offset = random_next(&state) % BYTES;
            uint64_t length = 1 + random_next(&state) % IO_MOST;
            uint64_t there = BYTES - offset < length ? BYTES - offset : length;
            ssize_t got = pread(fd, buf, length, (off_t)offset);
            CHECK(got == (ssize_t)there, "%zd bytes at %llu", got, (unsigned long long)offset);
            CHECK(memory_same(&world->memory, offset, buf, there), "wrong at %llu",
                  (unsigned long long)offset);
        }
        CHECK(pread(fd, buf, 1, BYTES) == 0, "there is something behind the end");
        close(fd);
    }
    return 0;
}

Test(files, any_offset_and_length_is_answered_in_full)
{
    begin(NULL);
    run_client(read_anywhere);
    world_stop(world);
}

static unsigned count_files(const char *path)
{
    unsigned count = 0;
    DIR *directory = opendir(path);
    cr_assert_not_null(directory);
    const struct dirent *entry;
    while ((entry = readdir(directory)) != NULL)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

static const char *name_of(unsigned i)
{
    static char name[32];
    snprintf(name, sizeof(name), "another-%04u", i);
    return name;
}

static void add_names(unsigned count)
{
    memory_make_empty(&(struct memory){0}, temp_path(&world->temp, "empty"), PAGE);
    for (unsigned i = 1; i <= count; i++)
        world_pack(world, temp_path(&world->temp, "empty"), name_of(i));
}

static void nothing_can_be_changed(const char *path)
{
    cr_assert(open(path, O_RDWR | O_CLOEXEC) < 0 && errno == EROFS);
    cr_assert(unlink(path) < 0 && errno == EROFS);
    cr_assert(chmod(path, 0777) < 0 && errno == EROFS);
    cr_assert(truncate(path, 0) < 0 && errno == EROFS);
    cr_assert(open(temp_path(&world->temp, "files/new"), O_CREAT | O_WRONLY, 0600) < 0 &&
              errno == EROFS);
}

Test(files, the_directory_has_the_images_of_the_store)
{
    enum { IMAGES = 90 }; // more than one answer has room for
    struct stat status;
    struct stat image;
    struct stat directory;
    struct statfs fs;
    begin(NULL);
    add_names(IMAGES - 1);
    cr_assert_eq(count_files(temp_path(&world->temp, "files")), IMAGES);
    cr_assert_eq(stat(files_path(world, "image"), &status), 0);
    cr_assert_eq(stat(temp_path(&world->temp, "store/images/image.img"), &image), 0);
    cr_assert_eq(status.st_size, BYTES);
    cr_assert_eq(status.st_mode, S_IFREG | 0440); // who may connect to its socket may read it
    cr_assert_eq(stat(temp_path(&world->temp, "files"), &directory), 0);
    cr_assert_eq(directory.st_mode, S_IFDIR | 0550); // and list it
    cr_assert_eq(status.st_mtim.tv_sec, image.st_mtim.tv_sec);
    cr_assert_eq(status.st_mtim.tv_nsec, image.st_mtim.tv_nsec);
    cr_assert(stat(files_path(world, "none"), &status) < 0 && errno == ENOENT);
    cr_assert(stat(temp_path(&world->temp, "files/image"), &status) < 0 && errno == ENOENT);
    cr_assert_eq(statfs(temp_path(&world->temp, "files"), &fs), 0);
    nothing_can_be_changed(files_path(world, "image"));
    world_stop(world);
}

static unsigned take_part(int fd)
{
    enum { PART = 512 };
    char buf[PART] __attribute__((aligned(8)));
    unsigned count = 0;
    ssize_t got = getdents64(fd, buf, sizeof(buf));
    for (ssize_t at = 0; at < got;) {
        const struct dirent64 *entry = (const void *)(buf + at);
        count += entry->d_name[0] != '.';
        at += entry->d_reclen;
    }
    return got > 0 ? count : 0;
}

// The parts of it are those of one listing: none is left out because one before it went.
Test(files, a_listing_is_made_once_for_all_its_parts)
{
    enum { IMAGES = 90 };
    char path[2 * TEST_PATH];
    unsigned count = 0;
    begin(NULL);
    add_names(IMAGES - 1);
    int fd = open(temp_path(&world->temp, "files"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    count = take_part(fd);
    cr_assert(count > 0 && count < IMAGES);
    snprintf(path, sizeof(path), "%s/images/%s.img", world->store, name_of(1));
    cr_assert_eq(unlink(path), 0);
    for (unsigned part = take_part(fd); part > 0; part = take_part(fd))
        count += part;
    cr_assert_eq(count, IMAGES);
    close(fd);
    cr_assert_eq(count_files(temp_path(&world->temp, "files")), IMAGES - 1);
    world_stop(world);
}

// --- what is held ---

enum { HELD_IMAGES = 40 };
static unsigned held_before;

// Each would be two or more. What else the keeper opens meanwhile, for a standby, is less.
static bool few_are_held(void *arg)
{
    return server_descriptors(arg) < held_before + HELD_IMAGES / 2;
}

// Whoever may list the files would hold all images, and their disk space.
Test(files, an_image_is_held_while_its_file_is_open)
{
    struct stat status;
    int fd[HELD_IMAGES];
    begin(NULL);
    add_names(HELD_IMAGES);
    held_before = server_descriptors(&world->server);
    for (unsigned i = 0; i < HELD_IMAGES; i++)
        cr_assert_eq(stat(files_path(world, name_of(i + 1)), &status), 0);
    cr_assert(few_are_held(&world->server));
    for (unsigned i = 0; i < HELD_IMAGES; i++) {
        fd[i] = open(files_path(world, name_of(i + 1)), O_RDONLY | O_CLOEXEC);
        cr_assert(fd[i] >= 0);
    }
    cr_assert_not(few_are_held(&world->server));
    for (unsigned i = 0; i < HELD_IMAGES; i++)
        close(fd[i]);
    cr_assert(wait_until(few_are_held, &world->server));
    run_client(map_and_check);
    world_stop(world);
}

// As if it had been replaced: the time of its change is another one, as soon as the clock is.
static void make_another_version(const char *path)
{
    struct stat before;
    struct stat after;
    cr_assert_eq(stat(path, &before), 0);
    do {
        cr_assert_eq(chmod(path, before.st_mode), 0);
        cr_assert_eq(stat(path, &after), 0);
    } while (before.st_ctim.tv_sec == after.st_ctim.tv_sec &&
             before.st_ctim.tv_nsec == after.st_ctim.tv_nsec);
}

// More than the table has room for, none of which the kernel forgets: those that nobody has open
// go. Clocks may be slow, so several files have new versions at a time.
Test(files, any_number_of_versions_can_be_looked_at)
{
    enum { IMAGES = 30, VERSIONS = 140 };
    static int looked_at[IMAGES * VERSIONS];
    const struct rlimit limit = {IMAGES * VERSIONS + 1024, IMAGES * VERSIONS + 1024};
    char path[2 * TEST_PATH];
    uint64_t bytes = 0;
    begin(NULL);
    add_names(IMAGES);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    uint8_t *map = files_map(files_path(world, "image"), &bytes);
    cr_assert_not_null(map);
    for (unsigned i = 0; i < IMAGES * VERSIONS; i++) {
        const char *name = name_of(1 + i % IMAGES);
        snprintf(path, sizeof(path), "%s/images/%s.img", world->store, name);
        make_another_version(path);
        looked_at[i] = open(files_path(world, name), O_PATH | O_CLOEXEC);
        cr_assert(looked_at[i] >= 0, "%u: %s", i, strerror(errno));
    }
    int fd = open(files_path(world, name_of(1)), O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0, "%s", strerror(errno));
    close(fd);
    cr_assert(memory_same(&world->memory, 0, map, bytes));
    munmap(map, bytes);
    for (unsigned i = 0; i < IMAGES * VERSIONS; i++)
        close(looked_at[i]);
    world_stop(world);
}

static int list_as_a_stranger(int channel, struct client_shared *shared, void *arg)
{
    struct stat status;
    (void)channel;
    (void)shared;
    (void)arg;
    CHECK(chdir(temp_path(&world->temp, "files")) == 0, "no directory");
    CHECK(setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0, "still root");
    CHECK(open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) < 0 && errno == EACCES, "it lists them");
    CHECK(stat("image.mem", &status) < 0 && errno == EACCES, "it looks at them");
    return 0;
}

Test(files, who_may_not_read_may_not_list)
{
    begin(NULL);
    run_client(list_as_a_stranger);
    world_stop(world);
}

// --- what happens to an image ---

static int map_before_and_after(int channel, struct client_shared *shared, void *arg)
{
    uint64_t bytes = 0;
    (void)shared;
    (void)arg;
    uint8_t *map = files_map(files_path(world, "image"), &bytes);
    CHECK(map, "cannot map it");
    CHECK(memory_same(&world->memory, PAGE, map + PAGE, PAGE), "the second page is wrong");
    tell_test(channel, 'm');
    await_test(channel, 'g');
    files_check(&world->memory, map, 2, 3);
    return 0;
}

static void replace_image(struct memory *other)
{
    char output[1024];
    const char *file = temp_path(&world->temp, "other");
    memory_make_distinct(other, file, 4 << 20, 77);
    const char *args[] = {"pack",  "--store",   world->store, "--name",
                          "image", "--replace", file,         NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
}

// The file at the end of a bind mount is of one version: it is not looked up.
Test(files, a_bind_mount_of_an_image_that_was_replaced_opens_no_other)
{
    struct memory other;
    char place[2 * TEST_PATH];
    begin(NULL);
    snprintf(place, sizeof(place), "%s", temp_path(&world->temp, "bound"));
    close(open(place, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    cr_assert_eq(mount(files_path(world, "image"), place, NULL, MS_BIND, NULL), 0);
    int fd = open(place, O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0);
    close(fd);
    replace_image(&other);
    cr_assert(open(place, O_RDONLY | O_CLOEXEC) < 0 && errno == ESTALE);
    cr_assert_eq(umount2(place, 0), 0);
    cr_assert_eq(mount(files_path(world, "image"), place, NULL, MS_BIND, NULL), 0);
    fd = open(place, O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0);
    close(fd);
    cr_assert_eq(umount2(place, 0), 0);
    world_stop(world);
    memory_free(&other);
}

Test(files, a_file_that_is_open_stays_as_it_was)
{
    struct client client;
    struct memory other;
    uint64_t bytes = 0;
    begin(NULL);
    client_start(&client, map_before_and_after, NULL);
    cr_assert(client_says(&client, 'm'));
    replace_image(&other);
    uint8_t *map = files_map(files_path(world, "image"), &bytes);
    cr_assert(map && bytes == other.bytes && memory_same(&other, 0, map, bytes));
    munmap(map, bytes);
    const char *args[] = {"rm", "--store", world->store, "image", NULL};
    cr_assert_eq(faultline_run(NULL, 0, args), 0);
    const char *gc[] = {"gc", "--store", world->store, NULL};
    cr_assert_eq(faultline_run(NULL, 0, gc), 0);
    cr_assert(open(files_path(world, "image"), O_RDONLY) < 0 && errno == ENOENT);
    world->server.deaths = 1; // a successor has the removed image, too
    kill(server_engine(&world->server), SIGKILL);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    world_stop(world);
    memory_free(&other);
}

static void flip_packs(void)
{
    DIR *packs = opendir(temp_path(&world->temp, "store/packs"));
    const struct dirent *entry;
    while ((entry = readdir(packs)) != NULL) {
        uint8_t byte;
        if (entry->d_name[0] == '.')
            continue;
        int fd = openat(dirfd(packs), entry->d_name, O_RDWR | O_CLOEXEC);
        cr_assert(fd >= 0 && pread(fd, &byte, 1, 9000) == 1);
        byte ^= 1;
        cr_assert_eq(pwrite(fd, &byte, 1, 9000), 1);
        close(fd);
    }
    closedir(packs);
}

// SIGBUS where the frame is damaged, and the right bytes everywhere else.
static int touch_damaged(int channel, struct client_shared *shared, void *arg)
{
    uint64_t bytes = 0;
    unsigned bad = 0;
    (void)channel;
    (void)shared;
    (void)arg;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    uint8_t *map = files_map(files_path(world, "image"), &bytes);
    CHECK(map, "cannot map it");
    vmm_catch_sigbus();
    for (uint64_t at = 0; at < bytes; at += PAGE) {
        if (vmm_poisoned(map + at))
            bad++;
        else
            CHECK(memory_same(&world->memory, at, map + at, PAGE), "wrong at %llu",
                  (unsigned long long)at);
    }
    CHECK(bad > 0 && bad <= 2 * FL_FRAME_PAGES, "%u pages could not be had", bad);
    return 0;
}

Test(files, a_damaged_frame_is_an_error_for_its_pages_alone)
{
    world = files_make(DISTINCT, 8 << 20);
    files_serve(world, quick);
    flip_packs();
    run_client(touch_damaged);
    cr_assert(server_wait_log(&world->server, "event=file_failed image=image", 1));
    world_stop(world);
}

// --- where it is mounted ---

static bool not_mounted(void *arg)
{
    return !files_mounted(arg);
}

Test(files, a_stop_waits_for_mappings_and_unmounts)
{
    struct client client;
    begin(NULL);
    client_start(&client, map_before_and_after, NULL);
    cr_assert(client_says(&client, 'm'));
    kill(world->server.pid, SIGTERM);
    cr_assert(server_wait_log(&world->server, "event=draining", 1));
    cr_assert(open(files_path(world, "image"), O_RDONLY) < 0 && errno == ESHUTDOWN);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    cr_assert_eq(server_stop(&world->server), 0);
    cr_assert(wait_until(not_mounted, world));
}

Test(files, an_operator_who_unmounts_leaves_mappings_alone)
{
    struct client client;
    begin(NULL);
    client_start(&client, map_before_and_after, NULL);
    cr_assert(client_says(&client, 'm'));
    cr_assert_eq(umount2(temp_path(&world->temp, "files"), MNT_DETACH), 0);
    world->server.deaths = 1;
    kill(server_engine(&world->server), SIGKILL);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    cr_assert(server_wait_log(&world->server, "event=degraded", 1)); // the last user has gone
    world_stop(world);
}

// --- another server at the same place ---

static void serve_second(struct server *second, const char *const *extra)
{
    enum { ARGS = 16 };
    const char *args[ARGS] = {"serve",
                              "--store",
                              world->store,
                              "--sockets",
                              temp_path(&world->temp, "sockets-2"),
                              "--control",
                              temp_path(&world->temp, "control-2.sock")};
    for (unsigned i = 7; extra[i - 7] && i < ARGS - 1; i++)
        args[i] = extra[i - 7];
    cr_assert(server_start(second, &world->temp, "second", args));
}

static int hold_open(int channel, struct client_shared *shared, void *arg)
{
    (void)shared;
    (void)arg;
    CHECK(open(files_path(world, "image"), O_RDONLY | O_CLOEXEC) >= 0, "cannot open it");
    tell_test(channel, 'm');
    await_test(channel, 'g');
    return 0;
}

Test(files, a_stop_leaves_what_another_server_has_mounted_there)
{
    struct client holder;
    struct client client;
    struct server second = {0};
    begin((const char *const[]){"--stop-timeout", "500ms", NULL});
    client_start(&holder, hold_open, NULL); // or the connection would end with its mount
    cr_assert(client_says(&holder, 'm'));
    cr_assert_eq(umount2(temp_path(&world->temp, "files"), MNT_DETACH), 0);
    serve_second(&second, files_options(world, NULL));
    client_start(&client, map_before_and_after, NULL);
    cr_assert(client_says(&client, 'm'));
    world_stop(world);
    cr_assert(files_mounted(world));
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    client_kill(&holder);
    cr_assert_eq(server_stop(&second), 0);
    cr_assert_not(files_mounted(world));
}

// Nor what an operator has mounted over it.
Test(files, a_stop_leaves_what_was_mounted_over_it)
{
    const char *path = NULL;
    struct statfs fs;
    begin(NULL);
    path = temp_path(&world->temp, "files");
    cr_assert_eq(mount("over", path, "tmpfs", 0, NULL), 0);
    world_stop(world);
    cr_assert_eq(statfs(path, &fs), 0);
    cr_assert_eq(fs.f_type, 0x01021994); // TMPFS_MAGIC
    cr_assert_eq(umount2(path, 0), 0);
}

// The first place is where they are until the end: the connection outlives the keeper.
Test(files, a_server_started_anew_with_another_place_unmounts_the_first)
{
    const char *elsewhere[] = {"--files", NULL, NULL};
    begin(NULL);
    elsewhere[1] = temp_path(&world->temp, "elsewhere");
    server_kill_keeper(&world->server);
    cr_assert(server_serve(&world->server, &world->temp, world->store, elsewhere));
    cr_assert(files_mounted(world));
    world_stop(world);
    cr_assert_not(files_mounted(world));
}

// It is asked whether it serves, and does not answer.
Test(files, a_server_that_is_stopped_holds_up_no_other)
{
    char output[1024];
    begin(NULL);
    cr_assert(process_stop(world->server.pid)); // or it would have another engine serve
    server_pause(&world->server);
    const char *args[] = {"serve",
                          "--store",
                          world->store,
                          "--sockets",
                          temp_path(&world->temp, "sockets-2"),
                          "--control",
                          temp_path(&world->temp, "control-2.sock"),
                          "--files",
                          temp_path(&world->temp, "files"),
                          NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 1, "%s", output);
    cr_assert(strstr(output, "another server has its files at"), "%s", output);
    server_resume(&world->server);
    kill(world->server.pid, SIGCONT);
    world_stop(world);
}

// As a VMM sees it that is jailed: the one file, by a bind mount, below its own root.
static int map_in_jail(int channel, struct client_shared *shared, void *arg)
{
    uint64_t bytes = 0;
    (void)channel;
    (void)shared;
    (void)arg;
    CHECK(chroot(temp_path(&world->temp, "jail")) == 0 && chdir("/") == 0, "no jail");
    uint8_t *map = files_map("/mem", &bytes);
    CHECK(map && bytes == BYTES, "cannot map it");
    files_check(&world->memory, map, 2, 4);
    return 0;
}

Test(files, a_jail_gets_the_one_file_by_a_bind_mount)
{
    char place[2 * TEST_PATH];
    begin(NULL);
    cr_assert_eq(mkdir(temp_path(&world->temp, "jail"), 0755), 0);
    snprintf(place, sizeof(place), "%s", temp_path(&world->temp, "jail/mem"));
    close(open(place, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    cr_assert_eq(mount(files_path(world, "image"), place, NULL, MS_BIND, NULL), 0);
    world->server.deaths = 1;
    kill(server_engine(&world->server), SIGKILL);
    run_client(map_in_jail);
    cr_assert_eq(umount2(place, 0), 0);
    world_stop(world);
}
