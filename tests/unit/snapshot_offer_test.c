// SPDX-License-Identifier: Apache-2.0
//
// Images on offer: what is asked for comes first, and is right, while the rest is not there; what
// was packed stays when the image is published, and when its process dies; what cannot come any
// more is an error; what is left over is removed.
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "snapshot/offer_head.h"
#include "snapshot/offer_table.h"
#include "snapshot/store_dir.h"
#include "tests/unit/live_source.h"
#include "tests/unit/snapshot_support.h"

enum { CHUNK = FL_OFFER_CHUNK, CHUNKS = 9, DEADLINE_S = 60, FILES = 16 };
#define BYTES (CHUNKS * (uint64_t)CHUNK * FL_PAGE_SIZE - 3 * FL_PAGE_SIZE - 77)

static const char *const names[] = {"child", "other"};
static struct workspace space;
static uint64_t state;
static char expected[128];
static struct fl_pack_result parent;

// What the process that packs shares with the test.
static struct live_source *source;

static void setup(void)
{
    state = test_seed();
    cr_assert_eq(workspace_make(&space), 0);
    snprintf(expected, sizeof(expected), "%s/expected", space.dir);
    source = mmap(NULL, sizeof(*source), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(source, MAP_FAILED);
    cr_assert_eq(make_memory(space.memory, BYTES, &state), 0);
    cr_assert_eq(pack_file(space.store, "parent", space.memory, &parent), 0);
    cr_assert_eq(
        live_make(source, space.memory, expected, BYTES, (struct live_mix){110, 50, 40}, &state),
        0);
}

static void teardown(void)
{
    live_free(source);
    munmap(source, sizeof(*source));
    workspace_remove(&space);
}

TestSuite(offer, .init = setup, .fini = teardown, .timeout = 150);

// --- the process that packs ---

static struct fl_pack_result *packed; // shared

static pid_t start_pack(const struct fl_companion_file *with)
{
    packed = mmap(NULL, sizeof(*packed), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(packed, MAP_FAILED);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int r = live_pack_offered(source, space.store, names, 2, "parent", parent.content_id, with,
                                  packed);
        atomic_store(&source->packed, true);
        while (r == 0 && !atomic_load(&source->started)) // the test lets it end
            usleep(1000);
        fl_offer_end(source->offer);
        _exit(r == 0 ? 0 : 1);
    }
    return pid;
}

static void expect_offered(void)
{
    time_t end = time(NULL) + DEADLINE_S;
    while (!atomic_load(&source->offered) && time(NULL) < end)
        usleep(1000);
    cr_assert(atomic_load(&source->offered));
}

static pid_t begin_pack(const struct fl_companion_file *with)
{
    pid_t pid = start_pack(with);
    expect_offered();
    return pid;
}

static void expect_exit(pid_t pid, int status)
{
    int how = 0;
    cr_assert_eq(waitpid(pid, &how, 0), pid);
    cr_assert(WIFEXITED(how));
    cr_assert_eq(WEXITSTATUS(how), status);
}

static void kill_pack(pid_t pid)
{
    cr_assert_eq(kill(pid, SIGKILL), 0);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

static void let_publish(void)
{
    atomic_store(&source->released, true);
    atomic_store(&source->may_settle, true);
}

// Waits until the image is in its place.
static void expect_published(void)
{
    time_t end = time(NULL) + DEADLINE_S;
    struct fl_image *image = NULL;
    while (open_image(space.store, "child", &image) != 0 && time(NULL) < end)
        usleep(1000);
    cr_assert_not_null(image);
    fl_image_unref(image);
}

// Waits until the packing has ended, but for what the test holds up.
static void expect_packed(void)
{
    time_t end = time(NULL) + DEADLINE_S;
    while (!atomic_load(&source->packed) && time(NULL) < end)
        usleep(1000);
    cr_assert(atomic_load(&source->packed));
}

// --- who restores ---

static struct fl_image *open_offered(const char *name)
{
    struct fl_reader *reader;
    struct fl_image *image = NULL;
    cr_assert_eq(fl_reader_open(space.store, &reader), 0);
    cr_assert_eq(fl_image_open_lazy(reader, name, &image), 0);
    cr_assert(fl_image_is_offered(image));
    fl_reader_close(reader);
    return image;
}

static int open_error(const char *name)
{
    struct fl_reader *reader;
    struct fl_image *image = NULL;
    cr_assert_eq(fl_reader_open(space.store, &reader), 0);
    int r = fl_image_open_lazy(reader, name, &image);
    if (r == 0)
        fl_image_unref(image);
    fl_reader_close(reader);
    return r;
}

// As a reader thread does for a VM.
static int want(const struct fl_image *image, uint64_t page)
{
    time_t end = time(NULL) + DEADLINE_S;
    int r = fl_image_read_map(image, page, 1);
    while (r == -EINPROGRESS && time(NULL) < end) {
        usleep(500);
        r = fl_image_read_map(image, page, 1);
    }
    return r;
}

static void expect_page(const struct fl_image *image, uint64_t page)
{
    static uint8_t frame[FL_FRAME_PAGES_MAX * FL_PAGE_SIZE];
    static const uint8_t zeros[FL_PAGE_SIZE];
    uint8_t right[FL_PAGE_SIZE] = {0};
    uint64_t left = BYTES - page * FL_PAGE_SIZE;
    memcpy(right, source->expected + page * FL_PAGE_SIZE,
           left < FL_PAGE_SIZE ? left : FL_PAGE_SIZE);
    struct fl_run run = fl_image_run(image, page, 1);
    cr_assert(!run.unread);
    if (!run.zero)
        cr_assert_eq(fl_frame_read(image, run.id, frame), 0);
    const uint8_t *got = run.zero ? zeros : frame + (size_t)run.slot * FL_PAGE_SIZE;
    cr_assert(memcmp(got, right, FL_PAGE_SIZE) == 0, "page %lu", page);
}

static uint64_t chunk_end(uint64_t chunk)
{
    uint64_t end = (chunk + 1) * CHUNK;
    return end < source->pages ? end : source->pages;
}

static void expect_chunk(const struct fl_image *image, uint64_t chunk)
{
    cr_assert_eq(want(image, chunk * CHUNK + test_random(&state) % 200), 0);
    for (uint64_t page = chunk * CHUNK; page < chunk_end(chunk); page++)
        expect_page(image, page);
}

static void expect_unread(const struct fl_image *image, uint64_t chunk)
{
    struct fl_run run = fl_image_run(image, chunk * CHUNK, 1);
    cr_assert(run.unread);
    cr_assert_eq(run.pages, 1);
}

static void expect_nothing_left(void)
{
    cr_assert_eq(count_files(space.store, "tmp"), 0);
    // The images alone.
    cr_assert_eq(count_files(space.store, "images"), open_error("child") == 0 ? 2 : 1);
}

// --- tests ---

// Nothing comes unless somebody asks for it: so each answer shows that what is wanted comes first.
Test(offer, what_is_wanted_comes_first_and_the_rest_later)
{
    static const uint64_t asked[] = {CHUNKS - 1, 3, 0, 7};
    uint64_t bad;
    pid_t pid = begin_pack(NULL);
    struct fl_image *image = open_offered("child");
    struct fl_image *other = open_offered("other");
    cr_assert(fl_image_same(image, other));
    cr_assert_eq(fl_image_pages(image), source->pages);
    cr_assert_eq(fl_image_bytes(image), BYTES);
    cr_assert_null(fl_image_content_id(image));
    cr_assert_eq(fl_image_settle(image), -EINPROGRESS);
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        expect_unread(image, asked[i]);
        expect_chunk(image, asked[i]);
        cr_assert_eq(atomic_load(&source->hurried), i + 1);
        expect_chunk(other, asked[i]); // it is there already
        cr_assert_eq(atomic_load(&source->hurried), i + 1);
    }
    expect_unread(image, 5);
    let_publish();
    expect_published();
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
        expect_chunk(image, chunk);
    cr_assert_eq(fl_image_settle(image), 0);
    cr_assert_arr_eq(fl_image_content_id(image), packed->content_id, 32);
    cr_assert_eq(open_error("other"), 0); // its copy is still to be made
    source->started = true;
    expect_exit(pid, 0);
    expect_nothing_left();
    cr_assert_eq(open_error("other"), -ENOENT);
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
        expect_chunk(other, chunk);
    fl_image_unref(image);
    fl_image_unref(other);
    cr_assert_eq(open_image(space.store, "child", &image), 0);
    cr_assert(image_is_file(image, expected));
    fl_image_unref(image);
    cr_assert_eq(verify_store(space.store, &bad), 0);
    cr_assert_eq(bad, 0);
}

// Then the pack that was written is left out: what a name leads to before its copy is made needs
// none.
Test(offer, of_which_nothing_has_changed)
{
    live_free(source);
    cr_assert_eq(
        live_make(source, space.memory, expected, BYTES, (struct live_mix){0, 0, 9}, &state), 0);
    pid_t pid = begin_pack(NULL);
    let_publish();
    expect_packed();
    struct fl_image *other = open_offered("other");
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
        expect_chunk(other, chunk);
    fl_image_unref(other);
    source->started = true;
    expect_exit(pid, 0);
    cr_assert_eq(packed->stored_pages, 0);
    expect_nothing_left();
}

// The id of the content does not depend on the order in which chunks were packed.
Test(offer, the_content_is_that_of_the_memory)
{
    char plain[128];
    struct fl_pack_result result;
    pid_t pid = begin_pack(NULL);
    struct fl_image *image = open_offered("child");
    for (uint64_t chunk = CHUNKS; chunk > 0; chunk--)
        expect_chunk(image, chunk - 1);
    let_publish();
    source->started = true;
    expect_exit(pid, 0);
    snprintf(plain, sizeof(plain), "%s/plain", space.dir);
    cr_assert_eq(pack_file(plain, "plain", expected, &result), 0);
    cr_assert_arr_eq(result.content_id, packed->content_id, 32);
    cr_assert_eq(result.zero_pages, packed->zero_pages);
    fl_image_unref(image);
}

// As it goes to a successor, which reads the same, hurries the rest, and needs no store.
Test(offer, descriptors_are_the_image)
{
    int fds[FILES];
    int again[FILES];
    pid_t pid = begin_pack(NULL);
    struct fl_image *image = open_offered("other");
    expect_chunk(image, 2);
    uint32_t count = fl_image_files(image, fds, FILES);
    cr_assert_leq(count, FILES);
    for (uint32_t i = 0; i < count; i++)
        again[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
    fl_image_unref(image);
    cr_assert_eq(fl_image_open_files(again, count, &image), 0);
    cr_assert_str_eq(fl_image_name(image), "other");
    expect_unread(image, 4);
    expect_chunk(image, 4);
    expect_chunk(image, 2);
    let_publish();
    expect_published();
    source->started = true;
    expect_exit(pid, 0);
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
        expect_chunk(image, chunk);
    count = fl_image_files(image, fds, FILES);
    for (uint32_t i = 0; i < count; i++)
        again[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
    fl_image_unref(image);
    cr_assert_eq(fl_image_open_files(again, count, &image), 0); // all names are gone by now
    for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
        expect_chunk(image, chunk);
    count = fl_image_files(image, fds, FILES);
    for (uint32_t i = 0; i < count; i++)
        again[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
    fl_image_unref(image);
    close(again[count - 1]);
    int before = count_descriptors();
    cr_assert_eq(fl_image_open_files(again, count - 1, &image), -EINVAL);
    cr_assert_eq(count_descriptors(), before - (int)count + 1);
}

Test(offer, what_a_killed_process_has_packed_stays_and_the_rest_is_an_error)
{
    struct fl_gc_result collected;
    pid_t pid = begin_pack(NULL);
    struct fl_image *image = open_offered("child");
    expect_chunk(image, 6);
    kill_pack(pid);
    for (uint64_t page = 6 * CHUNK; page < chunk_end(6); page++)
        expect_page(image, page);
    cr_assert_eq(want(image, 0), -EOWNERDEAD);
    expect_unread(image, 0);
    cr_assert_eq(fl_image_settle(image), -EINPROGRESS);
    cr_assert_eq(open_error("child"), -EOWNERDEAD);
    cr_assert_eq(unpack_file(space.store, "child", space.output), -EOWNERDEAD);
    cr_assert_eq(collect_store(space.store, false, &collected), 0);
    cr_assert_geq(collected.temporaries_removed, 3); // the pack, and the files of the offer
    expect_nothing_left();
    cr_assert_eq(open_error("child"), -ENOENT);
    expect_page(image, chunk_end(6) - 1);
    fl_image_unref(image);
}

Test(offer, a_name_that_was_left_over_is_taken_and_one_that_is_in_use_is_not)
{
    struct live_source second;
    struct fl_pack_result result;
    kill_pack(begin_pack(NULL));
    cr_assert_eq(count_files(space.store, "images"), 4);
    atomic_store(&source->offered, false);
    pid_t pid = begin_pack(NULL);
    cr_assert_eq(
        live_make(&second, space.memory, expected, BYTES, (struct live_mix){9, 9, 9}, &state), 0);
    atomic_store(&second.released, true);
    cr_assert_eq(live_pack_offered(&second, space.store, names + 1, 1, "parent", parent.content_id,
                                   NULL, &result),
                 -EEXIST);
    fl_offer_end(second.offer);
    live_free(&second);
    struct fl_image *image = open_offered("other"); // it is still there
    fl_image_unref(image);
    let_publish();
    source->started = true;
    expect_exit(pid, 0);
    cr_assert_eq(collect_store(space.store, false, NULL), 0); // the first one's pack
    expect_nothing_left();
}

static void make_newer(const char *name)
{
    char path[256];
    const uint32_t newer = FL_OFFER_VERSION + 1;
    snprintf(path, sizeof(path), "%s/images/%s" FL_OFFER_SUFFIX, space.store, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    cr_assert_eq(pwrite(fd, &newer, sizeof(newer), offsetof(struct fl_disk_offer_head, version)),
                 (ssize_t)sizeof(newer));
    close(fd);
}

static size_t list_offers(struct fl_offer_info found[2])
{
    struct fl_store *store;
    struct fl_error error;
    struct fl_offer_info *all;
    size_t count;
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0);
    cr_assert_eq(fl_store_offers(store, &all, &count, &error), 0, "%s", error.text);
    cr_assert_leq(count, 2);
    for (size_t i = 0; i < count; i++)
        found[i] = all[i];
    free(all);
    fl_store_close(store);
    return count;
}

Test(offer, names_are_listed_with_what_is_packed)
{
    struct fl_offer_info found[2];
    cr_assert_eq(list_offers(found), 0);
    pid_t pid = begin_pack(NULL);
    struct fl_image *image = open_offered("child");
    expect_chunk(image, 6); // at least that
    fl_image_unref(image);
    cr_assert_eq(list_offers(found), 2);
    cr_assert_str_eq(found[0].name, "child");
    cr_assert_str_eq(found[1].name, "other");
    for (unsigned i = 0; i < 2; i++) {
        cr_assert(!found[i].left && found[i].bytes == BYTES);
        cr_assert(found[i].packed_pages >= CHUNK && found[i].packed_pages < found[i].pages);
    }
    kill_pack(pid);
    cr_assert_eq(list_offers(found), 2);
    cr_assert(found[0].left && found[1].left);
    cr_assert_eq(collect_store(space.store, false, NULL), 0);
    cr_assert_eq(list_offers(found), 0);
}

// After a downgrade: what lives is left alone, and what does not blocks no name for ever.
Test(offer, heads_of_a_newer_version)
{
    struct live_source second;
    struct fl_offer_info found[2];
    struct fl_pack_result result;
    pid_t pid = begin_pack(NULL);
    make_newer("other");
    cr_assert_eq(list_offers(found), 2);
    cr_assert(!found[1].left && found[1].bytes == 0);
    cr_assert_eq(
        live_make(&second, space.memory, expected, BYTES, (struct live_mix){9, 9, 9}, &state), 0);
    atomic_store(&second.released, true);
    cr_assert_eq(live_pack_offered(&second, space.store, names + 1, 1, "parent", parent.content_id,
                                   NULL, &result),
                 -EEXIST);
    fl_offer_end(second.offer);
    kill_pack(pid);
    make_newer("child");
    cr_assert_eq(list_offers(found), 2);
    cr_assert(found[0].left && found[1].left);
    live_free(&second);
    cr_assert_eq(collect_store(space.store, false, NULL), 0);
    cr_assert_eq(list_offers(found), 0);
    expect_nothing_left();
}

// A thread of the process sleeps until a lock is free.
static bool waits_for_lock(pid_t pid)
{
    char path[300];
    char text[64];
    bool waits = false;
    const struct dirent *entry;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    while (tasks && !waits && (entry = readdir(tasks))) {
        snprintf(path, sizeof(path), "/proc/%d/task/%s/wchan", (int)pid, entry->d_name);
        FILE *file = fopen(path, "re");
        waits = file && fgets(text, sizeof(text), file) && strstr(text, "lock_inode_wait");
        if (file)
            fclose(file);
    }
    if (tasks)
        closedir(tasks);
    return waits;
}

// So that of two processes none removes the other's as what was left over before both.
Test(offer, no_name_is_taken_while_names_are_locked)
{
    struct fl_store *store;
    struct fl_error error;
    time_t end = time(NULL) + DEADLINE_S;
    kill_pack(begin_pack(NULL));
    atomic_store(&source->offered, false);
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0);
    cr_assert_eq(fl_store_lock_names(store), 0);
    pid_t pid = start_pack(NULL);
    while (!waits_for_lock(pid) && !atomic_load(&source->offered) && time(NULL) < end)
        usleep(1000);
    cr_assert(!atomic_load(&source->offered));
    cr_assert(waits_for_lock(pid));
    fl_store_unlock_names(store);
    fl_store_close(store);
    expect_offered();
    let_publish();
    source->started = true;
    expect_exit(pid, 0);
}

static int read_companion(const char *name)
{
    struct fl_store *store;
    struct fl_error error;
    struct fl_unpack_result result;
    struct fl_companion_file with = {.name = name, .path = space.output};
    struct fl_unpack_options options = {.name = "child", .with = &with, .with_count = 1};
    cr_assert_eq(fl_store_open(space.store, false, &store, &error), 0);
    int r = fl_store_unpack(store, &options, &result, &error);
    fl_store_close(store);
    return r;
}

Test(offer, companions_are_there_before_the_memory_is)
{
    char path[128];
    struct fl_companion_file with = {.name = "vmstate", .path = path};
    snprintf(path, sizeof(path), "%s/vmstate", space.dir);
    cr_assert_eq(make_memory(path, 70000, &state), 0);
    pid_t pid = begin_pack(&with);
    cr_assert_eq(read_companion("none"), -ENOENT);
    cr_assert_eq(read_companion("vmstate"), 0);
    cr_assert(same_files(path, space.output));
    cr_assert_eq(read_companion("vmstate"), -EEXIST);
    unlink(space.output);
    let_publish();
    source->started = true;
    expect_exit(pid, 0);
    cr_assert_eq(read_companion("vmstate"), 0);
    cr_assert(same_files(path, space.output));
}

Test(offer, a_capture_that_fails_is_told_to_who_waits)
{
    source->fail_at = 5 * CHUNK;
    source->fail_with = -EIO;
    pid_t pid = begin_pack(NULL);
    struct fl_image *image = open_offered("child");
    expect_chunk(image, 2);
    atomic_store(&source->released, true);
    cr_assert_eq(want(image, 5 * CHUNK), -EOWNERDEAD);
    expect_exit(pid, 1);
    expect_chunk(image, 2);
    expect_nothing_left();
    fl_image_unref(image);
}

static void damage(const char *file, uint64_t at)
{
    char path[256];
    uint8_t byte;
    snprintf(path, sizeof(path), "%s/images/%s", space.store, file);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= 0x5a;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

// The only table, and where its sections are.
static struct fl_offer_table table_of(char file[FL_OFFER_TABLE_NAME_BYTES])
{
    char path[256];
    struct fl_disk_offer_head head;
    struct fl_offer_table table;
    snprintf(path, sizeof(path), "%s/images/child.live", space.store);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert_eq(fl_offer_head_read(fd, "child", &head, NULL), 0);
    close(fd);
    fl_offer_table_name(head.id, file);
    snprintf(path, sizeof(path), "%s/images/%s", space.store, file);
    fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_eq(fl_offer_table_open(fd, head.id, head.pages, true, &table), 0);
    close(fd);
    return table;
}

// A file system that cannot say who holds a lock does not say that the process is dead: a page that
// is still to come would be lost.
Test(offer, what_is_not_known_is_no_death)
{
    char file[FL_OFFER_TABLE_NAME_BYTES];
    char path[256];
    kill_pack(begin_pack(NULL));
    table_of(file);
    snprintf(path, sizeof(path), "%s/images/%s", space.store, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int unlockable = open(path, O_PATH | O_CLOEXEC);
    cr_assert(fd >= 0 && unlockable >= 0);
    cr_assert(!fl_offer_table_alive(fd));
    cr_assert(fl_offer_table_alive(unlockable));
    close(fd);
    close(unlockable);
}

Test(offer, no_damaged_byte_is_believed)
{
    char file[FL_OFFER_TABLE_NAME_BYTES];
    pid_t pid = begin_pack(NULL);
    struct fl_offer_table table = table_of(file);
    struct fl_image *image = open_offered("child");
    struct fl_image *other = open_offered("other");
    expect_chunk(image, 1);
    damage(file, table.entries_at + CHUNK * sizeof(uint64_t) + 5);
    cr_assert_eq(want(other, CHUNK), -EBADMSG);
    expect_chunk(image, 1); // what was read stays
    damage(file, table.entries_at + CHUNK * sizeof(uint64_t) + 5);
    damage(file, table.chunks_at + sizeof(struct fl_disk_offer_chunk) + 8);
    cr_assert_eq(want(other, CHUNK), -EBADMSG);
    damage(file, table.chunks_at + sizeof(struct fl_disk_offer_chunk) + 8);
    damage(file, table.frames_at + 3); // of the first frame that was packed
    int r = want(other, CHUNK);
    cr_assert(r == 0 || r == -EBADMSG); // not if no page of the chunk is stored anew
    damage(file, table.frames_at + 3);
    expect_chunk(other, 1);
    damage(file, 3);
    cr_assert_eq(open_error("child"), -EBADMSG);
    damage(file, 3);
    damage("child.live", 70);
    cr_assert_eq(open_error("child"), -EBADMSG);
    damage("child.live", 70);
    let_publish();
    source->started = true;
    expect_exit(pid, 0);
    fl_image_unref(image);
    fl_image_unref(other);
}
