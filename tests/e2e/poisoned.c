// SPDX-License-Identifier: Apache-2.0
//
// A page that is poisoned stays so. Its bit says that it is there, and in memory that can be
// dropped without an event a message that is older than the poison looks like one for a page that
// was dropped: zeros would take the place of bytes that could not be had.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "tests/support/world.h"

TestSuite(poisoned, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

enum { TOUCHERS = 16 };

static struct world *world;

struct crowd {
    struct vmm vmm;
    pthread_t thread[TOUCHERS];
    _Atomic unsigned running;
};

// In the first piece of the map: all of its pages fail.
static void damage(void)
{
    uint8_t byte;
    off_t at = (off_t)(sizeof(struct fl_disk_image_header) + 1234);
    int fd = open(temp_path(&world->temp, "store/images/image.img"), O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 2;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void ignore(int signal)
{
    (void)signal;
}

static void *touch(void *arg)
{
    struct crowd *crowd = arg;
    for (uint32_t page = 0; page < crowd->vmm.pages; page++)
        CHECK(vmm_poisoned(vmm_page(&crowd->vmm, page)), "page %u has %d", page,
              *vmm_page(&crowd->vmm, page));
    crowd->running--;
    return NULL;
}

// Who is signalled while it waits asks again: messages are read when their pages are poisoned.
static int signalled(int channel, struct client_shared *shared, void *arg)
{
    static struct crowd crowd;
    struct sigaction action = {.sa_handler = ignore};
    (void)channel;
    (void)shared;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    crowd.running = TOUCHERS;
    sigaction(SIGUSR1, &action, NULL);
    vmm_map_shared(&crowd.vmm, &world->memory, *(const uint32_t *)arg, 2);
    vmm_catch_sigbus();
    vmm_handshake(&crowd.vmm, world->socket);
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

static void asked_for_again(uint32_t page_bytes, unsigned rounds)
{
    static const char *const options[] = {
        "--retries", "0", "--replay", "off", "--on-error", "poison", "--huge-page-admission",
        "off",       NULL};
    struct client client;
    world = world_make(DISTINCT, page_bytes == HUGE ? 16 << 20 : 4 << 20);
    world_serve(world, options);
    damage();
    for (unsigned i = 0; i < rounds; i++) {
        client_start(&client, signalled, &page_bytes);
        int status = client_wait(&client);
        if (status)
            server_print_log(&world->server);
        cr_assert_eq(status, 0);
    }
    cr_assert_eq(world_status(world, "pages", "dropped"), 0);
    world_stop(world);
}

Test(poisoned, stays_so_when_it_is_asked_for_again)
{
    asked_for_again(PAGE, 5);
}

Test(poisoned, stays_so_when_a_huge_page_is_asked_for_again)
{
    need_huge_pages(8);
    asked_for_again(HUGE, 100); // few pages: it meets few such messages
}
