// SPDX-License-Identifier: Apache-2.0
//
// Stores that are damaged, or taken away, while they are served: the bytes are right or there is
// SIGBUS, and only for those who touch what is damaged.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "tests/e2e/protocol/good.h"

TestSuite(corrupt, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

enum { IMAGE_BYTES = 2 << 20, BUSY_PAGES = 16, BAD_FRAME = 7, FRAME_PAGES = 16, ATTEMPTS = 3 };
enum { FIRST_BAD = BAD_FRAME * FRAME_PAGES, BEHIND_BAD = FIRST_BAD + FRAME_PAGES };
enum { SIGBUS_STATUS = 128 + SIGBUS, SIGKILL_STATUS = 128 + SIGKILL };

static struct world *world;
static struct memory other_memory;
static char other_socket[2 * TEST_PATH];
static char pack[2 * TEST_PATH]; // of "image"

// In a buffer of 2 * TEST_PATH bytes: temp_path() keeps few of them.
static void put_path(char *to, const char *name)
{
    snprintf(to, (size_t)2 * TEST_PATH, "%s", temp_path(&world->temp, name));
}

static void only_pack(void)
{
    glob_t found;
    cr_assert_eq(glob(temp_path(&world->temp, "store/packs/*.pack"), 0, NULL, &found), 0);
    cr_assert_eq(found.gl_pathc, 1);
    snprintf(pack, sizeof(pack), "%s", found.gl_pathv[0]);
    globfree(&found);
}

// A server with "image", whose pages all differ, and "other", which shares nothing with it.
static void begin(const char *const *options)
{
    char file[2 * TEST_PATH];
    world = world_make(DISTINCT, IMAGE_BYTES);
    world_serve(world, options);
    only_pack();
    put_path(file, "other.mem");
    put_path(other_socket, "sockets/other.sock");
    memory_make_distinct(&other_memory, file, IMAGE_BYTES, 99);
    world_pack(world, file, "other");
    cr_assert(server_wait_log(&world->server, "event=listen image=other", 1));
}

static void flip(const char *path, uint64_t offset)
{
    uint8_t byte;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0, "%s", path);
    cr_assert_eq(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 0x10;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

// Where a frame's bytes are in the pack. Frames are in the order of the memory file.
static uint64_t frame_middle(unsigned frame)
{
    struct fl_disk_pack_footer footer;
    struct fl_disk_frame entry;
    struct stat status;
    int fd = open(pack, O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0 && fstat(fd, &status) == 0);
    off_t end = status.st_size - (off_t)sizeof(footer);
    cr_assert_eq(pread(fd, &footer, sizeof(footer), end), sizeof(footer));
    off_t at = (off_t)(footer.table_offset + frame * sizeof(entry));
    cr_assert_eq(pread(fd, &entry, sizeof(entry), at), sizeof(entry));
    close(fd);
    cr_assert_eq(entry.pages, FRAME_PAGES);
    return entry.offset + entry.stored / 2;
}

// --- clients ---

static void attach(struct vmm *vmm)
{
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); // it may end in SIGBUS
    vmm_map(vmm, &world->memory, PAGE, 2, VMM_1_12);
    vmm_handshake(vmm, world->socket);
}

static int touch_around_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)shared;
    (void)arg;
    attach(&vmm);
    vmm_catch_sigbus();
    for (uint32_t page = 0; page < vmm.pages; page++) {
        bool bad = page >= FIRST_BAD && page < BEHIND_BAD;
        CHECK(vmm_poisoned(vmm_page(&vmm, page)) == bad, "page %u: SIGBUS or not", page);
        if (!bad)
            vmm_check(&vmm, page);
    }
    for (uint32_t page = FIRST_BAD; page < BEHIND_BAD; page++)
        CHECK(vmm_poisoned(vmm_page(&vmm, page)), "page %u is no longer poisoned", page);
    return 0;
}

static int touch_bad_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)shared;
    (void)arg;
    attach(&vmm);
    return *(volatile const uint8_t *)vmm_page(&vmm, FIRST_BAD) & 1;
}

// Touches one page, then the rest when it is told to.
static int touch_later_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)shared;
    (void)arg;
    attach(&vmm);
    vmm_check(&vmm, 0);
    tell_test(channel, 'r');
    await_test(channel, 'g');
    for (uint32_t page = 0; page < vmm.pages; page++)
        vmm_check(&vmm, page);
    return 0;
}

static int run(client_main *main)
{
    struct client client;
    client_start(&client, main, NULL);
    return client_wait(&client);
}

static void end(struct good *good)
{
    cr_assert_eq(good_end(good), 0, "another image's VM suffered");
    world_stop(world);
    memory_free(&other_memory);
}

// Lines that say this, and then that it is this file.
static unsigned count_file(const char *text, const char *path)
{
    char both[2 * TEST_PATH + 128];
    snprintf(both, sizeof(both), "%s file=%s", text, path);
    return server_count_log(&world->server, both);
}

// --- damage ---

static const char *const few_retries[] = {"--retries", "2", NULL};

Test(corrupt, a_bad_frame_poisons_its_pages_and_no_other)
{
    struct good good;
    begin(few_retries);
    good_start(&good, other_socket, &other_memory);
    flip(pack, frame_middle(BAD_FRAME));
    cr_assert_eq(run(touch_around_main), 0);
    cr_assert(server_wait_log(&world->server, "event=detach vm=2", 1));
    // The 1st, 2nd, 4th, 8th and 16th page.
    cr_assert_eq(server_logs(&world->server, "event=poison vm=2 image=image", 5), 5);
    cr_assert_eq(server_logs(&world->server, "event=poison", 5), 5);
    cr_assert_eq(count_file("reason=\"its frame does not match its checksum\"", pack), 5);
    cr_assert_geq(count_file("reason=\"does not match its checksum\"", pack), 1); // read_failed
    cr_assert_eq(world_status(world, "faults", "poisoned"), FRAME_PAGES);
    long long errors = world_status(world, "cache", "read_errors");
    cr_assert(errors > 0 && errors % ATTEMPTS == 0, "%lld failed reads", errors);
    cr_assert_eq(world_status(world, "faults", "parked"), 0);
    cr_assert(good_touch(&good, BUSY_PAGES));
    // A frame that failed is not remembered as bad: once the disk is right again, so are the pages.
    flip(pack, frame_middle(BAD_FRAME));
    struct good healed;
    good_start(&healed, world->socket, &world->memory);
    cr_assert_eq(good_end(&healed), 0);
    end(&good);
}

// --- damage in the middle of what is read ahead ---

// All of the VM's memory comes without a touch, and is then its own. A bad frame fails the pages of
// the VM that it is in, whatever was read with it.
static int filled_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    uint32_t page_bytes = *(const uint32_t *)arg;
    (void)shared;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    vmm_map(&vmm, &world->memory, page_bytes, 1, VMM_1_12);
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, vmm.pages - 1);
    tell_test(channel, 'a');
    await_test(channel, 'd');
    vmm_catch_sigbus();
    for (uint32_t page = 0; page < vmm.pages; page++) {
        uint64_t end = vmm_page_offset(&vmm, page) + page_bytes;
        bool bad = end > FIRST_BAD * PAGE && end - page_bytes < BEHIND_BAD * PAGE;
        CHECK(vmm_poisoned(vmm_page(&vmm, page)) == bad, "page %u: SIGBUS or not", page);
        if (!bad)
            vmm_check(&vmm, page);
    }
    return 0;
}

static void fill_from_damaged(uint32_t page_bytes)
{
    static const char *const options[] = {"--retries", "0", NULL};
    char output[1024];
    struct client client;
    world = world_make(DISTINCT, 4 * IMAGE_BYTES);
    world_serve(world, options);
    only_pack();
    client_start(&client, filled_main, &page_bytes);
    cr_assert(client_says(&client, 'a'));
    flip(pack, frame_middle(BAD_FRAME));
    const char *drain[] = {"drain", "--populate", "--control",
                           temp_path(&world->temp, "control.sock"), NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), drain), 3, "%s", output);
    client_tell(&client, 'd');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_geq(world_status(world, "ahead", "errors"), 1, "it was not read ahead");
    cr_assert_geq(server_logs(&world->server, "does not match its checksum\"", 1), 1);
    cr_assert_eq(server_stop(&world->server), 3);
}

Test(corrupt, a_bad_frame_among_those_that_are_read_ahead)
{
    fill_from_damaged(PAGE);
}

Test(corrupt, a_bad_frame_in_a_huge_page_that_is_read_ahead)
{
    need_huge_pages(4);
    fill_from_damaged(HUGE);
}

Test(corrupt, on_error_kill_kills_that_vm_only)
{
    static const char *const options[] = {"--retries", "2", "--on-error", "kill", NULL};
    struct good good;
    struct client neighbour;
    begin(options);
    good_start(&good, other_socket, &other_memory);
    client_start(&neighbour, touch_later_main, NULL);
    cr_assert(client_says(&neighbour, 'r'));
    flip(pack, frame_middle(BAD_FRAME));
    cr_assert_eq(run(touch_bad_main), SIGKILL_STATUS);
    cr_assert(server_wait_log(&world->server, "event=detach vm=3", 1));
    cr_assert_eq(server_logs(&world->server, "event=kill vm=3 image=image", 1), 1);
    cr_assert_eq(count_file("reason=\"its frame does not match its checksum\"", pack), 1);
    cr_assert_eq(server_logs(&world->server, "event=kill", 1), 1);
    cr_assert_eq(server_count_log(&world->server, "event=poison"), 0);
    flip(pack, frame_middle(BAD_FRAME));
    client_tell(&neighbour, 'g');
    cr_assert_eq(client_wait(&neighbour), 0, "a VM of the same image that never touched it");
    end(&good);
}

static void expect_refusal(const char *reason)
{
    char line[256];
    char whole[2048];
    struct client client;
    client_start(&client, touch_bad_main, NULL);
    snprintf(line, sizeof(line), "event=refuse image=image pid=%d faults=poisoned reason=\"%s",
             (int)client.pid, reason);
    cr_assert_eq(client_wait(&client), SIGBUS_STATUS);
    cr_assert(server_wait_log(&world->server, line, 1));
    cr_assert(server_find_log(&world->server, line, whole, sizeof(whole)));
    cr_assert_not_null(strstr(whole, "/store/images/image.img"), "%s", whole);
    const char *vm = strstr(whole, "\" vm=");
    cr_assert(vm && atoi(vm + 5) > 1, "of the VM that was poisoned: %s", whole);
}

Test(corrupt, a_damaged_image_is_refused_and_its_faults_poisoned)
{
    struct good good;
    struct stat status;
    begin(few_retries);
    good_start(&good, other_socket, &other_memory);
    const char *image = temp_path(&world->temp, "store/images/image.img");
    cr_assert_eq(stat(image, &status), 0);
    // The header, the list of the map's pieces, the table of packs.
    const uint64_t places[] = {20, (uint64_t)status.st_size - 20, (uint64_t)status.st_size - 3};
    for (unsigned i = 0; i < 3; i++) {
        flip(image, places[i]);
        expect_refusal("the image cannot be opened: ");
        cr_assert(good_touch(&good, BUSY_PAGES));
        flip(image, places[i]);
    }
    cr_assert_eq(truncate(image, status.st_size / 2), 0);
    expect_refusal("the image cannot be opened: ");
    cr_assert_eq(server_logs(&world->server, "event=refuse", 4), 4);
    end(&good);
}

// --- removal ---

// A bound of one frame: almost every touch reads the pack.
static const char *const small_cache[] = {"--cache", "64K", "--retries", "0", NULL};

static struct client start_attached(void)
{
    struct client client;
    client_start(&client, touch_later_main, NULL);
    cr_assert(client_says(&client, 'r'));
    return client;
}

Test(corrupt, a_deleted_pack_is_served_to_those_who_have_it)
{
    struct good good;
    begin(small_cache);
    good_start(&good, other_socket, &other_memory);
    struct client client = start_attached();
    cr_assert_eq(unlink(pack), 0);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0, "it had the pack open");
    cr_assert(server_wait_log(&world->server, "event=detach vm=2", 1));
    expect_refusal("the image cannot be opened: ");
    end(&good);
}

Test(corrupt, a_collected_image_is_served_to_those_who_have_it)
{
    char output[1024];
    struct good good;
    begin(small_cache);
    good_start(&good, other_socket, &other_memory);
    struct client client = start_attached();
    const char *rm[] = {"rm", "--store", world->store, "image", NULL};
    const char *gc[] = {"gc", "--store", world->store, NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), rm), 0, "%s", output);
    cr_assert_eq(faultline_run(output, sizeof(output), gc), 0, "%s", output);
    cr_assert_neq(access(pack, F_OK), 0, "nothing was collected");
    cr_assert(server_wait_log(&world->server, "event=unlisten image=image", 1));
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0, "it had the image open");
    end(&good);
}

// The name is the same, the bytes are not: each VM keeps those it began with.
Test(corrupt, a_replaced_image_is_another)
{
    char output[1024];
    char file[2 * TEST_PATH];
    struct memory memory;
    struct good good;
    struct good later;
    begin(small_cache);
    good_start(&good, other_socket, &other_memory);
    struct client client = start_attached();
    put_path(file, "new.mem");
    memory_make_distinct(&memory, file, IMAGE_BYTES, 1234);
    const char *args[] = {"pack",  "--store",   world->store, "--name",
                          "image", "--replace", file,         NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
    good_start(&later, world->socket, &memory);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0, "the old bytes");
    cr_assert_eq(good_end(&later), 0, "the new bytes");
    memory_free(&memory);
    end(&good);
}

static bool is_no_socket(void *path)
{
    return access(path, F_OK) != 0;
}

// A restore fails at connect(), and not at the first page; the others are served.
Test(corrupt, an_image_without_its_pack_has_no_socket)
{
    char away[2 * TEST_PATH];
    struct good good;
    begin(NULL);
    put_path(away, "pack-away");
    cr_assert_eq(rename(pack, away), 0);
    world_pack(world, temp_path(&world->temp, "other.mem"), "another"); // all are looked at
    cr_assert(server_wait_log(&world->server, "event=degraded what=images", 1));
    cr_assert(wait_until(is_no_socket, (void *)(uintptr_t)world->socket));
    good_start(&good, other_socket, &other_memory);
    cr_assert_eq(good_end(&good), 0);
    cr_assert_eq(rename(away, pack), 0);
    cr_assert(server_wait_log(&world->server, "event=restored what=images", 1));
    cr_assert(wait_until(socket_is_open, (void *)(uintptr_t)world->socket));
    good_start(&good, world->socket, &world->memory);
    cr_assert_eq(good_end(&good), 0);
    cr_assert_eq(rename(pack, away), 0);
    world_stop(world);
    cr_assert(server_serve(&world->server, &world->temp, world->store, NULL));
    cr_expect_eq(access(world->socket, F_OK), -1, "a new server makes it");
    cr_expect_eq(access(other_socket, F_OK), 0);
    world_stop(world);
}
