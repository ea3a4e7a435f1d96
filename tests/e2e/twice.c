// SPDX-License-Identifier: Apache-2.0
//
// A userfaultfd that comes more than once: a client that tries again, that tries something else, or
// that lies. The VM that is served stays right, with one owner.
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/support/world.h"

TestSuite(twice, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

enum { BYTES = 4 << 20, AT_ONCE = 8 };

static struct world *world;
static struct memory other_memory;
static char other_socket[2 * TEST_PATH];

static void begin(void)
{
    world = world_make(DISTINCT, BYTES);
    world_serve(world, NULL);
    world_add_image(world, "other", BYTES, &other_memory, other_socket);
}

static void end(void)
{
    world_stop(world);
    memory_free(&other_memory);
}

// What the guest gives back are zeros, and the rest is the image's: also when it has been asked for
// by two owners.
static void check_all(struct vmm *vmm)
{
    vmm_touch_all(vmm, 2, VMM_RANDOM, false);
    for (uint32_t page = 0; page < vmm->pages; page += 2) {
        vmm_remove(vmm, page, 1);
        vmm->removed[page] = true;
        vmm_check_zero(vmm, page);
    }
    for (uint32_t page = 1; page < vmm->pages; page += 2)
        vmm_check(vmm, page);
}

static int hand_over(const struct vmm *vmm, const char *socket, const char *text)
{
    char own[VMM_TEXT];
    size_t length = vmm_handshake_text(vmm, own);
    int fd = vmm_connect(socket);
    vmm_send(fd, text ? text : own, text ? strlen(text) : length, &vmm->uffd, 1);
    return fd;
}

// Client: a VM of two regions that is served.
static void begin_served(struct vmm *vmm)
{
    vmm_map(vmm, &world->memory, PAGE, 2, VMM_MAIN);
    hand_over(vmm, world->socket, NULL);
    vmm_check(vmm, 0);
}

// Client: says that it is ready, and checks all when it is told to.
static void check_when_told(int channel, struct vmm *vmm)
{
    tell_test(channel, 'h');
    await_test(channel, 'c');
    check_all(vmm);
}

// Test: the client checks all, and its VM ends as one that was served all along.
static void checks_and_ends(struct client *client)
{
    client_tell(client, 'c');
    cr_assert_eq(client_wait(client), 0);
    cr_assert(server_wait_log(&world->server, "event=detach vm=1", 1));
    cr_assert_eq(server_logs(&world->server, "event=attach", 1), 1);
    cr_assert_eq(world_status(world, "faults", "poisoned"), 0);
    end();
}

// --- the same again ---

static void *hand_over_again(void *arg)
{
    const struct vmm *vmm = arg;
    hand_over(vmm, world->socket, NULL);
    return NULL;
}

static int same_main(int channel, struct client_shared *shared, void *arg)
{
    static struct vmm vmm;
    pthread_t thread[AT_ONCE];
    (void)shared;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_MAIN);
    for (unsigned i = 0; i < AT_ONCE; i++)
        CHECK(pthread_create(&thread[i], NULL, hand_over_again, &vmm) == 0, "pthread_create");
    for (unsigned i = 0; i < AT_ONCE; i++)
        pthread_join(thread[i], NULL);
    check_when_told(channel, &vmm);
    return 0;
}

Test(twice, the_same_handshakes_at_once_are_one_vm)
{
    struct client client;
    begin();
    client_start(&client, same_main, NULL);
    cr_assert(client_says(&client, 'h'));
    cr_assert(server_wait_log(&world->server, "event=rejoin vm=1 image=image", AT_ONCE - 1));
    cr_assert_eq(world_status(world, "", "vms"), 1);
    checks_and_ends(&client);
}

// The last socket is the one whose end counts: here that of a process that lives on without the
// memory.
static int last_socket_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)shared;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_MAIN);
    int first = hand_over(&vmm, world->socket, NULL);
    vmm_check(&vmm, 0);
    int last = hand_over(&vmm, world->socket, NULL);
    tell_test(channel, 'h');
    await_test(channel, 'c');
    close(first);
    check_all(&vmm);
    munmap(vmm.region[0].base, vmm.region[0].bytes);
    tell_test(channel, 'u');
    await_test(channel, 'e');
    close(last);
    await_test(channel, 'q');
    return 0;
}

Test(twice, the_last_socket_is_the_one_that_counts)
{
    struct client client;
    begin();
    client_start(&client, last_socket_main, NULL);
    cr_assert(client_says(&client, 'h'));
    cr_assert(server_wait_log(&world->server, "event=rejoin vm=1", 1));
    client_tell(&client, 'c');
    cr_assert(client_says(&client, 'u'));
    cr_assert_eq(world_status(world, "", "vms"), 1);
    client_tell(&client, 'e');
    cr_assert(server_wait_log(&world->server, "event=detach vm=1", 1));
    client_tell(&client, 'q');
    cr_assert_eq(client_wait(&client), 0);
    end();
}

// While no engine serves, and of a VM that the next one has from the keeper.
static int takeover_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)shared;
    (void)arg;
    begin_served(&vmm);
    tell_test(channel, 'h');
    await_test(channel, 'k');
    hand_over(&vmm, world->socket, NULL);
    check_all(&vmm);
    tell_test(channel, 'h');
    await_test(channel, 'k');
    check_all(&vmm);
    return 0;
}

Test(twice, over_the_death_of_an_engine)
{
    struct client client;
    begin();
    client_start(&client, takeover_main, NULL);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert(client_says(&client, 'h'));
        cr_assert(server_wait_log(&world->server, "event=engine_ready", i + 1));
        // What the log's thread has not written when an engine is killed is lost.
        cr_assert(
            server_wait_log(&world->server, i == 0 ? "event=attach" : "event=rejoin vm=1", 1));
        cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
        world->server.deaths++;
        client_tell(&client, 'k');
    }
    cr_assert_eq(client_wait(&client), 0);
    cr_assert(server_wait_log(&world->server, "event=detach vm=1", 1));
    cr_assert_eq(server_logs(&world->server, "event=rejoin vm=1", 1), 1);
    cr_assert_eq(server_logs(&world->server, "event=attach", 1), 1);
    end();
}

// --- something else ---

enum lie { OTHER_IMAGE, OTHER_REGIONS, NONSENSE, TWO_OF_THEM, NO_IMAGE, REPLACED };

static void tell_lie(const struct vmm *vmm, enum lie lie)
{
    struct vmm half = *vmm;
    char text[VMM_TEXT];
    int both[2] = {vmm->uffd, vmm->uffd};
    half.regions = 1;
    switch (lie) {
    case OTHER_IMAGE:
        hand_over(vmm, other_socket, NULL);
        break;
    case OTHER_REGIONS:
        hand_over(&half, world->socket, NULL);
        break;
    case NONSENSE:
        hand_over(vmm, world->socket, "[{\"size\":1}]");
        break;
    case TWO_OF_THEM:
        vmm_send(vmm_connect(world->socket), text, vmm_handshake_text(vmm, text), both, 2);
        break;
    case NO_IMAGE:
        hand_over(vmm, other_socket, NULL); // which is damaged meanwhile
        break;
    case REPLACED:
        hand_over(vmm, world->socket, NULL); // which stands for another image by now
        break;
    }
}

static int lie_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)shared;
    begin_served(&vmm);
    tell_test(channel, 'a');
    await_test(channel, 'l');
    tell_lie(&vmm, *(const enum lie *)arg);
    check_when_told(channel, &vmm);
    return 0;
}

static void replace_image(void)
{
    char output[1024];
    const char *args[] = {"pack",
                          "--replace",
                          "--store",
                          world->store,
                          "--name",
                          "image",
                          temp_path(&world->temp, "other.mem"),
                          NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
}

static void refuses(enum lie lie, const char *reason)
{
    struct client client;
    char line[256];
    begin();
    if (lie == NO_IMAGE)
        cr_assert_eq(truncate(temp_path(&world->temp, "store/images/other.img"), 100), 0);
    client_start(&client, lie_main, &lie);
    cr_assert(client_says(&client, 'a'));
    if (lie == REPLACED)
        replace_image();
    client_tell(&client, 'l');
    cr_assert(client_says(&client, 'h'));
    snprintf(line, sizeof(line), "faults=served reason=\"%s", reason);
    cr_assert(server_wait_log(&world->server, line, 1));
    checks_and_ends(&client);
}

Test(twice, for_another_image_is_refused)
{
    refuses(OTHER_IMAGE, "its userfaultfd is served already, from another image");
}

Test(twice, for_other_regions_is_refused)
{
    refuses(OTHER_REGIONS, "its userfaultfd is served already, for other regions");
}

Test(twice, with_nonsense_is_refused)
{
    refuses(NONSENSE, "");
}

Test(twice, in_one_message_is_refused)
{
    refuses(TWO_OF_THEM, "more than one file descriptor");
}

Test(twice, for_an_image_that_cannot_be_opened_is_refused)
{
    refuses(NO_IMAGE, "the image cannot be opened");
}

Test(twice, for_an_image_that_was_replaced_is_refused)
{
    refuses(REPLACED, "its userfaultfd is served already, from another image");
}

// --- memory that is not its own ---

static int unregistered_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)shared;
    (void)arg;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); // it ends in SIGBUS
    vmm_map_memory(&vmm, &world->memory, PAGE, 2, VMM_MAIN);
    vmm.uffd = vmm_open_uffd(VMM_MAIN);
    vmm_enable(vmm.uffd, 0);
    vmm.regions = 1; // of two
    vmm_register(&vmm);
    vmm.regions = 2;
    hand_over(&vmm, world->socket, NULL);
    vmm_check(&vmm, 0);
    return 0;
}

Test(twice, memory_that_is_not_registered_is_refused)
{
    struct client client;
    begin();
    client_start(&client, unregistered_main, NULL);
    cr_assert_eq(client_wait(&client), 128 + SIGBUS);
    cr_assert(server_wait_log(&world->server, "reason=\"not all memory of its regions is", 1));
    end();
}

// --- the same memory, another userfaultfd ---

static int another_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)shared;
    (void)arg;
    begin_served(&vmm);
    struct vmm liar = vmm;
    liar.uffd = vmm_open_uffd(VMM_MAIN);
    vmm_enable(liar.uffd, 0);
    hand_over(&liar, other_socket, NULL);
    check_when_told(channel, &vmm);
    return 0;
}

Test(twice, the_memory_with_another_userfaultfd_is_refused)
{
    struct client client;
    begin();
    client_start(&client, another_main, NULL);
    cr_assert(client_says(&client, 'h'));
    cr_assert(server_wait_log(&world->server,
                              "reason=\"memory of its regions is registered with another", 1));
    checks_and_ends(&client);
}

// --- after a refusal ---

static int again_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)shared;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_MAIN);
    hand_over(&vmm, world->socket, "[{\"size\":1}]");
    await_test(channel, 'a');
    hand_over(&vmm, world->socket, NULL);
    vmm_catch_sigbus();
    for (uint32_t page = 0; page < vmm.pages; page++)
        CHECK(vmm_poisoned(vmm_page(&vmm, page)), "page %u is not poisoned", page);
    return 0;
}

Test(twice, after_a_refusal_stays_refused)
{
    struct client client;
    begin();
    client_start(&client, again_main, NULL);
    cr_assert(server_wait_log(&world->server, "event=refuse image=image", 1));
    client_tell(&client, 'a');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert(server_wait_log(
        &world->server, "faults=poisoned reason=\"its userfaultfd came before, with a handshake",
        1));
    end();
}
