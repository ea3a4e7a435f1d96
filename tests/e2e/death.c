// SPDX-License-Identifier: Apache-2.0
//
// VMs that end, or change under the engine's hands, at every bad moment.
#include <criterion/criterion.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/puppet.h"
#include "tests/support/world.h"

TestSuite(death, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

static struct world *world;

static void attach(struct vmm *vmm, struct client_shared *shared, enum vmm_protocol protocol)
{
    vmm_map(vmm, &world->memory, PAGE, 2, protocol);
    vmm->shared = shared;
    vmm_handshake(vmm, world->socket);
}

enum { TOUCHERS = 4 };

static int touch_forever(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    attach(&vmm, shared, *(const enum vmm_protocol *)arg);
    while (shared) {
        vmm_touch_all(&vmm, TOUCHERS, VMM_RANDOM, true);
        vmm_remove(&vmm, 0, vmm.pages / 2);
        for (uint32_t page = 0; page < vmm.pages / 2; page++)
            vmm.removed[page] = true;
    }
    return 0;
}

static int touch_once(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)arg;
    attach(&vmm, shared, VMM_MAIN);
    vmm_touch_all(&vmm, 2, VMM_RANDOM, false);
    return 0;
}

static bool no_more_descriptors(void *arg)
{
    return server_descriptors(&world->server) <= *(const unsigned *)arg;
}

// What the server holds when one VM has come and gone: an image may stay open.
static unsigned warm_up(void)
{
    struct client client;
    client_start(&client, touch_once, NULL);
    cr_assert_eq(client_wait(&client), 0);
    cr_assert(server_wait_log(&world->server, "event=detach vm=", 1));
    return server_descriptors(&world->server);
}

static void settle(unsigned descriptors, unsigned detached)
{
    cr_assert(server_wait_log(&world->server, "event=detach vm=", detached));
    cr_assert(wait_until(no_more_descriptors, &descriptors), "%u descriptors, there were %u",
              server_descriptors(&world->server), descriptors);
    cr_assert_eq(world_status(world, "", "vms"), 0);
    cr_assert_eq(world_status(world, "faults", "parked"), 0);
}

enum { KILLED = 24, AT_ONCE = 4 };

Test(death, killed_at_random_times)
{
    struct client clients[AT_ONCE];
    struct client witness;
    enum vmm_protocol protocols[AT_ONCE] = {VMM_1_1, VMM_1_7, VMM_1_12, VMM_MAIN};
    uint64_t seed = 5;
    world = world_make(DISTINCT, 8 << 20);
    world_serve(world, NULL);
    unsigned before = warm_up();
    client_start(&witness, touch_once, NULL);
    for (unsigned round = 0; round < KILLED / AT_ONCE; round++) {
        for (unsigned i = 0; i < AT_ONCE; i++)
            client_start(&clients[i], touch_forever, &protocols[i]);
        for (unsigned i = 0; i < AT_ONCE; i++) {
            cr_assert(client_progressed(&clients[i], random_next(&seed) % 5000));
            client_kill(&clients[i]);
        }
    }
    cr_assert_eq(client_wait(&witness), 0);
    // One that was killed before its message went out was never attached.
    cr_assert(server_wait_log(&world->server, "event=attach", 2));
    client_start(&witness, touch_once, NULL);
    cr_assert_eq(client_wait(&witness), 0);
    settle(before, server_count_log(&world->server, "event=attach"));
    world_stop(world);
}

// The engine is stopped while the VM faults, so it finds the faults of a VM that is dead.

static int touch_when_told(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    attach(&vmm, shared, VMM_MAIN);
    vmm_check(&vmm, 0);
    tell_test(channel, 'a');
    await_test(channel, 't');
    vmm_touch_all(&vmm, TOUCHERS, VMM_DOWN, true);
    return 0;
}

Test(death, killed_while_its_faults_are_unread)
{
    struct client client;
    world = world_make(DISTINCT, 8 << 20);
    world_serve(world, NULL);
    unsigned before = warm_up();
    for (unsigned round = 0; round < 8; round++) {
        client_start(&client, touch_when_told, NULL);
        cr_assert(client_says(&client, 'a'));
        server_pause(&world->server);
        client_tell(&client, 't');
        cr_assert(client_waits(&client, TOUCHERS));
        client_kill(&client);
        server_resume(&world->server);
        cr_assert(server_wait_log(&world->server, "event=detach vm=", round + 2));
    }
    settle(before, 9);
    world_stop(world);
}

// --- exec: the memory goes, the process stays ---

static int exec_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    attach(&vmm, shared, VMM_MAIN);
    vmm_check(&vmm, 7);
    if (*(const bool *)arg) // the socket survives the exec
        CHECK(dup(vmm.socket) >= 0, "dup");
    tell_test(channel, 'x');
    await_test(channel, 'x');
    CHECK(dup2(channel, STDIN_FILENO) == 0, "dup2");
    execl("/bin/sh", "sh", "-c", "read -r line; exit 3", (char *)NULL);
    return 1;
}

static void run_exec(bool keep_socket)
{
    struct client client;
    world = world_make(DISTINCT, 2 << 20);
    world_serve(world, NULL);
    unsigned before = warm_up();
    client_start(&client, exec_main, &keep_socket);
    cr_assert(client_says(&client, 'x'));
    client_tell(&client, 'x');
    if (!keep_socket) // Firecracker's is closed by the exec: that tells
        cr_assert(server_wait_log(&world->server, "event=detach vm=", 2));
    client_tell(&client, '\n');
    cr_assert_eq(client_wait(&client), 3);
    settle(before, 2);
    world_stop(world);
}

Test(death, exec)
{
    run_exec(false);
}

Test(death, exec_that_keeps_the_socket)
{
    run_exec(true);
}

// --- a child that shares the memory outlives the VMM ---

struct heir {
    struct vmm vmm;
    int channel;
};

// Runs in the VMM's memory without its thread library: raw calls and comparisons only.
static int heir_main(void *arg)
{
    struct heir *heir = arg;
    char said = 0;
    close(heir->vmm.uffd);
    close(heir->vmm.socket);
    if (send(heir->channel, "c", 1, MSG_NOSIGNAL) != 1 || recv(heir->channel, &said, 1, 0) != 1)
        _exit(1);
    for (uint32_t page = 0; page < heir->vmm.pages; page++) {
        const uint8_t *bytes = vmm_page(&heir->vmm, page);
        if (memcmp(bytes, heir->vmm.memory->data + vmm_page_offset(&heir->vmm, page), PAGE) != 0)
            said = 'w';
    }
    send(heir->channel, said == 'w' ? "w" : "r", 1, MSG_NOSIGNAL);
    _exit(0);
}

static int parent_main(int channel, struct client_shared *shared, void *arg)
{
    static struct heir heir;
    static char stack[64 << 10] __attribute__((aligned(16)));
    (void)arg;
    attach(&heir.vmm, shared, VMM_MAIN);
    heir.channel = channel;
    vmm_check(&heir.vmm, 3);
    CHECK(clone(heir_main, stack + sizeof(stack), CLONE_VM | SIGCHLD, &heir) > 0, "clone");
    _exit(0);
}

Test(death, a_child_that_shares_the_memory_goes_on)
{
    struct client client;
    world = world_make(DISTINCT, 4 << 20);
    world_serve(world, NULL);
    unsigned before = warm_up();
    client_start(&client, parent_main, NULL);
    cr_assert(client_says(&client, 'c'));
    struct client heir = {.channel = dup(client.channel)};
    cr_assert_eq(client_wait(&client), 0);
    // The engine has seen that its process is gone, but not its memory.
    cr_assert_eq(world_status(world, "", "vms"), 1);
    client_tell(&heir, 't');
    cr_assert(client_says(&heir, 'r'), "it read something else than its memory");
    close(heir.channel);
    settle(before, 2);
    world_stop(world);
}

// --- the userfaultfd is another process's: an orchestrator does the handshake ---

// What becomes of who did the handshake says nothing about the memory.
static void puppet_play(bool master_ends_first)
{
    struct client doll;
    struct client master;
    world = world_make(DISTINCT, 4 << 20);
    world_serve(world, NULL);
    unsigned before = warm_up();
    struct puppet puppet = {.memory = &world->memory};
    struct puppeteer puppeteer = {.puppet = &doll, .socket = world->socket};
    client_start(&doll, puppet_main, &puppet);
    client_start(&master, puppeteer_main, &puppeteer);
    cr_assert(client_says(&master, 'h'));
    cr_assert(server_wait_log(&world->server, "event=attach", 2));
    for (unsigned act = 0; act < 2; act++) {
        bool masters_turn = master_ends_first == (act == 0);
        client_tell(masters_turn ? &master : &doll, masters_turn ? 'e' : 't');
        cr_assert_eq(client_wait(masters_turn ? &master : &doll), 0);
    }
    settle(before, 2);
    world_stop(world);
}

Test(death, of_another_who_did_the_handshake)
{
    puppet_play(true);
}

Test(death, before_another_who_did_the_handshake)
{
    puppet_play(false);
}

// --- regions that go away while they are served ---

struct shrink {
    struct vmm *vmm;
    uint32_t first; // pages it touches: the other half goes
};

static void *touch_half(void *arg)
{
    const struct shrink *shrink = arg;
    for (uint32_t i = 0; i < shrink->vmm->pages / 2; i++)
        vmm_check(shrink->vmm, shrink->first + i);
    return NULL;
}

static void unregister(struct vmm *vmm, uint32_t page)
{
    struct uffdio_range range = {(uintptr_t)vmm_page(vmm, page), PAGE};
    CHECK(ioctl(vmm->uffd, UFFDIO_UNREGISTER, &range) == 0, "UFFDIO_UNREGISTER");
}

// Some pages of the second half are unregistered, the rest is unmapped, each right after somebody
// may have asked for it.
static int shrinking(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    pthread_t toucher;
    bool populated = *(const bool *)arg;
    (void)channel;
    attach(&vmm, shared, VMM_MAIN);
    struct shrink shrink = {&vmm, 0};
    CHECK(pthread_create(&toucher, NULL, touch_half, &shrink) == 0, "pthread_create");
    for (uint32_t page = vmm.pages / 2; page < vmm.pages; page += 16) {
        vmm_check(&vmm, page);
        unregister(&vmm, page + 1);
        // Nobody serves it any more: the kernel's zeros, unless it was there already.
        CHECK(populated || all_zero(vmm_page(&vmm, page + 1), PAGE), "page %u is served", page);
        CHECK(munmap(vmm_page(&vmm, page + 2), (size_t)14 * PAGE) == 0, "munmap");
    }
    pthread_join(toucher, NULL);
    return 0;
}

Test(death, of_regions)
{
    struct client client;
    bool populated = false;
    world = world_make(DISTINCT, 4 << 20);
    world_serve(world, NULL);
    unsigned before = warm_up();
    client_start(&client, shrinking, &populated);
    cr_assert_eq(client_wait(&client), 0);
    settle(before, 2);
    world_stop(world);
}

// The same while the engine fills everything: it meets the holes itself.
Test(death, of_regions_that_are_populated)
{
    static const char *const populate[] = {"--populate", NULL};
    struct client client;
    bool populated = true;
    world = world_make(DISTINCT, 4 << 20);
    world_handler(world, populate);
    client_start(&client, shrinking, &populated);
    cr_assert_eq(client_wait(&client), 0);
    cr_assert(server_wait_log(&world->server, "event=detach vm=", 1));
    world_stop(world);
}
