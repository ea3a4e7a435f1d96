// SPDX-License-Identifier: Apache-2.0
//
// Memory that is dropped without an event: a hole punched into a memfd that guest memory is, a
// truncation, madvise() of a client that asked for no events. Zeros from then on, as if there had
// been one; and what only looks like it, a message that is older than its page, changes nothing.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/points.h"
#include "tests/support/world.h"

TestSuite(dropped, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

enum kind { SHARED, SHARED_HUGE, SILENT };

static struct world *world;

struct guest {
    struct vmm vmm;
    int fd; // of the memory, if it is shared
};

static void attach(struct guest *guest, enum kind kind)
{
    struct vmm *vmm = &guest->vmm;
    guest->fd = -1;
    if (kind == SILENT)
        vmm_map_silent(vmm, &world->memory, PAGE, 2);
    else
        guest->fd = vmm_map_shared(vmm, &world->memory, kind == SHARED_HUGE ? HUGE : PAGE, 2);
    vmm_handshake(vmm, world->socket);
}

static void expect_zeros(struct guest *guest, uint32_t page, uint32_t count)
{
    memset(guest->vmm.removed + page, true, count);
}

static void punch(struct guest *guest, uint32_t page, uint32_t count)
{
    struct vmm *vmm = &guest->vmm;
    if (guest->fd < 0)
        vmm_remove(vmm, page, count);
    else
        CHECK(fallocate(guest->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        (off_t)vmm_page_offset(vmm, page), (off_t)count * vmm->page_bytes) == 0,
              "fallocate: %s", strerror(errno));
    expect_zeros(guest, page, count);
}

static void truncate_to(struct guest *guest, uint32_t pages)
{
    off_t all = (off_t)vmm_page_offset(&guest->vmm, guest->vmm.pages);
    CHECK(ftruncate(guest->fd, (off_t)vmm_page_offset(&guest->vmm, pages)) == 0 &&
              ftruncate(guest->fd, all) == 0,
          "ftruncate: %s", strerror(errno));
    expect_zeros(guest, pages, guest->vmm.pages - pages);
}

static void write_pages(struct guest *guest, uint32_t page, uint32_t count)
{
    for (uint32_t i = page; i < page + count; i++)
        memset(vmm_page(&guest->vmm, i), 0xa5, guest->vmm.page_bytes);
}

static void check_written(struct guest *guest, uint32_t page, uint32_t count)
{
    for (uint32_t i = page; i < page + count; i++) {
        const uint8_t *bytes = vmm_page(&guest->vmm, i);
        CHECK(bytes[0] == 0xa5 && memcmp(bytes, bytes + 1, guest->vmm.page_bytes - 1) == 0,
              "page %u is not what was written", i);
    }
}

// Says 't' when it has touched all, then does what it is told: 'w' write to the first half, 'p'
// drop the first quarter, 't' drop the last quarter by truncation, 'c' check all, 'k' check what
// was written and not dropped, 'e' end.
static int obedient(int channel, struct client_shared *shared, void *arg)
{
    struct guest guest;
    struct vmm *vmm = &guest.vmm;
    char order = 0;
    attach(&guest, *(const enum kind *)arg);
    vmm->shared = shared;
    vmm_touch_all(vmm, 2, VMM_RANDOM, true);
    tell_test(channel, 't');
    uint32_t quarter = vmm->pages / 4;
    while (read(channel, &order, 1) == 1 && order != 'e') {
        if (order == 'w')
            write_pages(&guest, 0, 2 * quarter);
        if (order == 'p')
            punch(&guest, 0, quarter);
        if (order == 't')
            truncate_to(&guest, vmm->pages - quarter);
        if (order == 'c') {
            for (uint32_t page = 0; page < vmm->pages; page++) {
                if (vmm->removed[page])
                    vmm_check_zero(vmm, page);
                else if (page >= 2 * quarter)
                    vmm_check(vmm, page);
            }
        }
        if (order == 'k')
            check_written(&guest, quarter, quarter);
        tell_test(channel, 'd');
    }
    return 0;
}

static void begin(struct client *client, enum kind *kind, const char *const *extra)
{
    if (*kind == SHARED_HUGE)
        need_huge_pages(8);
    world = world_make(DISTINCT, *kind == SHARED_HUGE ? 16 << 20 : 4 << 20);
    world_serve(world, extra);
    client_start(client, obedient, kind);
    cr_assert(client_says(client, 't'));
}

static void end(struct client *client)
{
    client_tell(client, 'e');
    cr_assert_eq(client_wait(client), 0);
    world_stop(world);
}

// The toucher goes on a moment before its page is counted.
static bool are_dropped(void *arg)
{
    return world_status(world, "pages", "dropped") == *(const long long *)arg;
}

static void dropped_twice(enum kind kind)
{
    struct client client;
    begin(&client, &kind, NULL);
    cr_assert(client_obeys(&client, "wpck"));
    long long dropped = (long long)world->memory.bytes / PAGE / 4;
    cr_assert(wait_until(are_dropped, &dropped));
    cr_assert(server_wait_log(&world->server, "event=dropped vm=1 image=image ", 1));
    cr_assert(client_obeys(&client, "wpck"));
    dropped *= 2;
    cr_assert(wait_until(are_dropped, &dropped));
    cr_assert_eq(world_status(world, "pages", "removed"), 0);
    end(&client);
}

Test(dropped, by_a_hole_in_a_file)
{
    dropped_twice(SHARED);
}

Test(dropped, by_a_hole_in_a_file_of_huge_pages)
{
    dropped_twice(SHARED_HUGE);
}

Test(dropped, by_a_client_that_asked_for_no_events)
{
    dropped_twice(SILENT);
}

static void dropped_by_truncation(enum kind kind)
{
    struct client client;
    begin(&client, &kind, NULL);
    cr_assert(client_obeys(&client, "wtck"));
    end(&client);
}

Test(dropped, by_truncation)
{
    dropped_by_truncation(SHARED);
}

Test(dropped, by_truncation_of_a_file_of_huge_pages)
{
    dropped_by_truncation(SHARED_HUGE);
}

// --- and the engine dies ---

static void kill_engine(void)
{
    cr_assert(server_kill_engine(&world->server));
}

// The fault for what was dropped waits for an engine that dies, and is the next one's.
static void dropped_over_a_death(enum kind kind)
{
    struct client client;
    begin(&client, &kind, NULL);
    cr_assert(client_obeys(&client, "wp"));
    kill_engine();
    server_pause(&world->server);
    client_tell(&client, 'c');
    cr_assert(client_waits(&client, 1));
    kill_engine();
    cr_assert(client_says(&client, 'd'));
    kill_engine();
    cr_assert(client_obeys(&client, "kwpck"));
    end(&client);
}

Test(dropped, and_the_engine_dies)
{
    dropped_over_a_death(SHARED);
}

Test(dropped, of_huge_pages_and_the_engine_dies)
{
    dropped_over_a_death(SHARED_HUGE);
}

// Does as it is told: 'f' touch the first page and write to it, 'l' touch the last one, 'p' drop
// the first, 'z' check that it is zeros, 'e' end.
static int first_page(int channel, struct client_shared *shared, void *arg)
{
    struct guest guest;
    char order = 0;
    (void)shared;
    attach(&guest, *(const enum kind *)arg);
    tell_test(channel, 't');
    while (read(channel, &order, 1) == 1 && order != 'e') {
        if (order == 'f') {
            vmm_check(&guest.vmm, 0);
            write_pages(&guest, 0, 1);
        }
        if (order == 'l')
            vmm_check(&guest.vmm, guest.vmm.pages - 1);
        if (order == 'p')
            punch(&guest, 0, 1);
        if (order == 'z')
            vmm_check_zero(&guest.vmm, 0);
        tell_test(channel, 'd');
    }
    return 0;
}

// The engine dies when the page is there and it has not yet said so.
static void dropped_after_a_death_in_its_copy(enum kind kind)
{
    struct client client;
    need_points();
    if (kind == SHARED_HUGE)
        need_huge_pages(8);
    world = world_make(DISTINCT, kind == SHARED_HUGE ? 16 << 20 : 4 << 20);
    point_begin(world, "copied");
    world_serve(world, NULL);
    point_end();
    world->server.deaths = 1;
    client_start(&client, first_page, &kind);
    cr_assert(client_says(&client, 't'));
    point_arm(world);
    cr_assert(client_obeys(&client, "f"));
    cr_assert(wait_until(point_struck, world));
    cr_assert(client_obeys(&client, "lpz")); // 'l': the successor serves it
    cr_assert(server_wait_log(&world->server, "event=dropped vm=1", 1));
    end(&client);
}

Test(dropped, and_the_engine_had_died_in_its_copy)
{
    dropped_after_a_death_in_its_copy(SHARED);
}

Test(dropped, of_huge_pages_and_the_engine_had_died_in_its_copy)
{
    dropped_after_a_death_in_its_copy(SHARED_HUGE);
}

// --- and the VM is filled ---

static void filled(enum kind kind)
{
    static const char *const lazy[] = {"--prefetch", "0", "--replay", "off", NULL};
    struct client client;
    begin(&client, &kind, lazy);
    cr_assert(client_obeys(&client, "wp"));
    const char *args[] = {"drain", "--populate", "--control",
                          temp_path(&world->temp, "control.sock"), NULL};
    cr_assert_eq(faultline_run(NULL, 0, args), 0);
    cr_assert(client_obeys(&client, "ck"));
    end(&client);
}

Test(dropped, and_filled)
{
    filled(SHARED);
}

Test(dropped, of_huge_pages_and_filled)
{
    filled(SHARED_HUGE);
}

// --- what only looks like it ---

enum { TOUCHERS = 4 };

struct crowd {
    struct guest guest;
    pthread_t thread[TOUCHERS];
    _Atomic bool done;
    _Atomic unsigned running;
};

static void ignore(int signal)
{
    (void)signal;
}

static void *touch(void *arg)
{
    struct crowd *crowd = arg;
    for (uint32_t page = 0; page < crowd->guest.vmm.pages; page++)
        vmm_check(&crowd->guest.vmm, page);
    crowd->running--;
    return NULL;
}

// Who is signalled while it waits asks again, and all ask for the same pages: messages are read
// when their pages have come.
static int signalled(int channel, struct client_shared *shared, void *arg)
{
    struct sigaction action = {.sa_handler = ignore};
    struct crowd crowd = {.running = TOUCHERS};
    (void)channel;
    (void)shared;
    sigaction(SIGUSR1, &action, NULL);
    attach(&crowd.guest, *(const enum kind *)arg);
    for (unsigned i = 0; i < TOUCHERS; i++)
        CHECK(pthread_create(&crowd.thread[i], NULL, touch, &crowd) == 0, "pthread_create");
    while (crowd.running > 0) {
        for (unsigned i = 0; i < TOUCHERS; i++)
            pthread_kill(crowd.thread[i], SIGUSR1);
        usleep(20);
    }
    for (unsigned i = 0; i < TOUCHERS; i++)
        pthread_join(crowd.thread[i], NULL);
    return 0;
}

static void asked_for_again(enum kind kind)
{
    struct client client;
    if (kind == SHARED_HUGE)
        need_huge_pages(8);
    world = world_make(DISTINCT, kind == SHARED_HUGE ? 16 << 20 : 8 << 20);
    world_serve(world, NULL);
    client_start(&client, signalled, &kind);
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(world_status(world, "pages", "dropped"), 0);
    cr_assert_eq(server_count_log(&world->server, "event=dropped"), 0);
    world_stop(world);
}

Test(dropped, is_not_what_is_asked_for_again)
{
    asked_for_again(SHARED);
}

Test(dropped, is_not_a_huge_page_that_is_asked_for_again)
{
    asked_for_again(SHARED_HUGE);
}

Test(dropped, is_not_private_memory_that_is_asked_for_again)
{
    asked_for_again(SILENT);
}

// --- what the kernel tells of ---

// MADV_REMOVE punches the file and raises an event; MADV_DONTNEED of shared memory raises one, too,
// but leaves the file as it is, and so what the guest sees.
static int advised(int channel, struct client_shared *shared, void *arg)
{
    struct guest guest;
    struct vmm *vmm = &guest.vmm;
    uint32_t page_bytes = *(const enum kind *)arg == SHARED_HUGE ? HUGE : PAGE;
    (void)channel;
    (void)shared;
    attach(&guest, *(const enum kind *)arg);
    vmm_touch_all(vmm, 1, VMM_UP, false);
    uint32_t half = vmm->pages / 2;
    write_pages(&guest, 0, half);
    CHECK(madvise(vmm_page(vmm, 0), page_bytes, MADV_REMOVE) == 0, "%s", strerror(errno));
    vmm_check_zero(vmm, 0);
    write_pages(&guest, 0, 1);
    vmm_remove(vmm, 0, half);
    check_written(&guest, 0, half);
    CHECK(madvise(vmm_page(vmm, 0), (size_t)half * page_bytes, MADV_REMOVE) == 0, "%s",
          strerror(errno));
    for (uint32_t page = 0; page < vmm->pages; page++) {
        if (page < half)
            vmm_check_zero(vmm, page);
        else
            vmm_check(vmm, page);
    }
    return 0;
}

static void told_of(enum kind kind, client_main *main)
{
    struct client client;
    if (kind == SHARED_HUGE)
        need_huge_pages(8);
    world = world_make(DISTINCT, kind == SHARED_HUGE ? 16 << 20 : 1 << 20);
    world_serve(world, NULL);
    client_start(&client, main, &kind);
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(world_status(world, "pages", "dropped"), 0);
    cr_assert_gt(world_status(world, "pages", "removed"), 0);
    world_stop(world);
}

Test(dropped, by_madv_remove)
{
    told_of(SHARED, advised);
}

Test(dropped, by_madv_remove_of_huge_pages)
{
    told_of(SHARED_HUGE, advised);
}

// MADV_FREE raises its event at once and drops the pages when memory is short: until then they are
// what they were, then zeros, and those that were written to in between stay.
static int freed(int channel, struct client_shared *shared, void *arg)
{
    struct guest guest = {.fd = -1};
    struct vmm *vmm = &guest.vmm;
    (void)channel;
    (void)shared;
    (void)arg;
    vmm_map(vmm, &world->memory, PAGE, 1, VMM_MAIN);
    vmm_handshake(vmm, world->socket);
    vmm_touch_all(vmm, 1, VMM_UP, false);
    size_t bytes = (size_t)vmm->pages * PAGE;
    uint32_t half = vmm->pages / 2;
    CHECK(madvise(vmm_page(vmm, 0), bytes, MADV_FREE) == 0, "%s", strerror(errno));
    write_pages(&guest, 0, half);
    CHECK(madvise(vmm_page(vmm, half), bytes / 2, MADV_PAGEOUT) == 0, "%s", strerror(errno));
    check_written(&guest, 0, half);
    for (uint32_t page = half; page < vmm->pages; page++) {
        if (!all_zero(vmm_page(vmm, page), PAGE)) // the kernel was in no mood to take it
            vmm_check(vmm, page);
    }
    return 0;
}

Test(dropped, by_madv_free)
{
    told_of(SILENT, freed);
}
