// SPDX-License-Identifier: Apache-2.0
//
// Draining: no new VM, none left behind.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/world.h"

enum { BYTES = 16 << 20, COVERED = 1000 };

TestSuite(drain, .init = need_userfaultfd, .fini = world_close, .timeout = 120);

static struct world *world;

static int drain(const char *option, const char *value, char *output, size_t size)
{
    const char *args[] = {"drain", "--control", temp_path(&world->temp, "control.sock"),
                          option,  value,       NULL};
    return faultline_run(output, size, args);
}

static bool socket_exists(void)
{
    struct stat status;
    return stat(world->socket, &status) == 0;
}

// Touches a page, then, when told to, all of them.
static int touch_then_all(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 5);
    tell_test(channel, 't');
    await_test(channel, 'g');
    vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
    return 0;
}

static void begin(struct client *client)
{
    world = world_make(MIXED, BYTES);
    world_serve(world, NULL);
    client_start(client, touch_then_all, NULL);
    cr_assert(client_says(client, 't'));
}

Test(drain, waits_for_the_vms_and_takes_no_new_one)
{
    char output[512];
    struct client client;
    begin(&client);
    cr_assert_eq(drain("--timeout", "1", output, sizeof(output)), 1);
    cr_expect_not_null(strstr(output, "1 VM still depends on the server at"), "%s", output);
    cr_expect_not(socket_exists());
    const char *listen[] = {
        "listen", "--control", temp_path(&world->temp, "control.sock"), "--image",
        "image",  "--socket",  temp_path(&world->temp, "late.sock"),    NULL};
    cr_expect_eq(faultline_run(output, sizeof(output), listen), 1);
    cr_expect_not_null(strstr(output, "takes no new VM"), "%s", output);
    char status[4096];
    const char *ask[] = {"status", "--control", temp_path(&world->temp, "control.sock"), NULL};
    cr_expect_eq(faultline_run(status, sizeof(status), ask), 0);
    cr_expect_not_null(strstr(status, "DRAINING"), "%s", status);

    client_tell(&client, 'g'); // served to its end all the same
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(drain(NULL, NULL, output, sizeof(output)), 0, "%s", output);
    world_stop(world);
}

Test(drain, fills_the_vms_and_lets_them_live_without_it)
{
    char output[512];
    struct client client;
    begin(&client);
    cr_assert_eq(drain("--populate", NULL, output, sizeof(output)), 0, "%s", output);
    cr_assert_eq(world_status(world, "", "vms"), 0);
    cr_assert_eq(server_logs(&world->server, "event=release", 1), 1);
    server_kill(&world->server);
    client_tell(&client, 'g'); // every byte right, and nobody to ask
    cr_assert_eq(client_wait(&client), 0);
}

// Like it, and maps the memory file over a page of its memory meanwhile, as a VMM does for memory
// of a device.
static int cover_then_all(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    int file = open(world->file, O_RDONLY | O_CLOEXEC);
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 5);
    CHECK(mmap(vmm_page(&vmm, COVERED), PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, file,
               (off_t)vmm_page_offset(&vmm, COVERED)) != MAP_FAILED,
          "mmap: %s", strerror(errno));
    tell_test(channel, 't');
    await_test(channel, 'g');
    vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
    return 0;
}

// The kernel unregisters nothing of a range with such a page in it: who touches a page of zeros
// later would wait for ever.
Test(drain, lets_a_vm_go_that_has_mapped_a_file_over_its_memory)
{
    char output[512];
    struct client client;
    world = world_make(MIXED, BYTES);
    world_serve(world, NULL);
    client_start(&client, cover_then_all, NULL);
    cr_assert(client_says(&client, 't'));
    cr_assert_eq(drain("--populate", NULL, output, sizeof(output)), 0, "%s", output);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

// Hands its userfaultfd over, and touches a page at once.
static int touch_at_once(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    tell_test(channel, 'h');
    vmm_check(&vmm, 5);
    return 0;
}

// The engine that was told to dies before it has answered: its successor goes on, and is asked.
Test(drain, is_survived_by_its_order)
{
    char output[512];
    struct client client;
    char token[2 * TEST_PATH];
#ifndef FAULTLINE_POINTS
    cr_skip_test("this build has no test points: configure with FAULTLINE_POINTS=ON");
#endif
    world = world_make(MIXED, BYTES);
    snprintf(token, sizeof(token), "%s", temp_path(&world->temp, "token"));
    setenv("FAULTLINE_KILL_AT", "draining", 1);
    setenv("FAULTLINE_KILL_TOKEN", token, 1);
    world_serve(world, NULL);
    unsetenv("FAULTLINE_KILL_AT");
    unsetenv("FAULTLINE_KILL_TOKEN");
    world->server.deaths = 1;
    client_start(&client, touch_then_all, NULL);
    cr_assert(client_says(&client, 't'));
    int fd = open(token, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    close(fd);
    cr_assert_eq(drain("--populate", NULL, output, sizeof(output)), 0, "%s", output);
    cr_expect_neq(access(token, F_OK), 0, "no engine died of it");
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

// --- who is still in the queue ---

// More than are accepted in one go.
enum { SILENT = 300 };

static bool keeper_waits(void *arg)
{
    char line[256] = "";
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)world->server.pid);
    FILE *file = fopen(path, "re");
    bool read = file && fgets(line, sizeof(line), file);
    if (file)
        fclose(file);
    (void)arg;
    return read && strstr(line, ") S ");
}

static void connect_silently(int *sockets)
{
    for (unsigned i = 0; i < SILENT; i++)
        sockets[i] = vmm_connect(world->socket);
}

// Its handshake lies in the socket's queue, behind many who say nothing, when the server is told to
// end. A userfaultfd that was lost with the queue would leave it waiting for ever; that no new VM
// is taken it must be told: by SIGBUS, as it has touched memory by then.
Test(drain, answers_who_is_still_in_the_queue)
{
    struct client client;
    int sockets[SILENT];
    world = world_make(MIXED, BYTES);
    world_serve(world, NULL);
    server_pause(&world->server);
    connect_silently(sockets);
    client_start(&client, touch_at_once, NULL);
    cr_assert(client_says(&client, 'h'));
    cr_assert_eq(kill(world->server.pid, SIGTERM), 0);
    cr_assert(server_wait_log(&world->server, "event=stopping", 1));
    cr_assert(wait_until(keeper_waits, NULL)); // it has sent its word
    server_resume(&world->server);
    int status = client_wait(&client);
    cr_expect(status == 128 + SIGBUS || status == 128 + SIGKILL, "it ended with %d", status);
    cr_expect_eq(server_logs(&world->server, " faults=poisoned reason=", 1), 1);
    cr_expect_eq(server_count_log(&world->server, "event=attach"), 0);
    for (unsigned i = 0; i < SILENT; i++)
        close(sockets[i]);
    cr_assert_eq(server_stop(&world->server), 0);
}

// --- pages that are given back while the server lets go ---

enum { REMOVERS = 4, WARM_UP = 200 };

struct removers {
    struct vmm *vmm;
    unsigned number;
    atomic_bool *stop;
    _Atomic uint64_t *rounds;
    pthread_t thread;
};

static void *remove_again_and_again(void *arg)
{
    struct removers *remover = arg;
    while (!atomic_load(remover->stop)) {
        vmm_remove(remover->vmm, remover->number * 8, 4);
        atomic_fetch_add(remover->rounds, 1);
        poll(NULL, 0, 1); // removals without a pause leave the kernel no moment to fill a page
    }
    return NULL;
}

static int remove_until_told(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    struct removers removers[REMOVERS];
    static atomic_bool stop;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_1_12);
    vmm_handshake(&vmm, world->socket);
    for (unsigned i = 0; i < REMOVERS; i++) {
        removers[i] = (struct removers){&vmm, i, &stop, &shared->progress, 0};
        CHECK(pthread_create(&removers[i].thread, NULL, remove_again_and_again, &removers[i]) == 0,
              "a thread");
    }
    await_test(channel, 's');
    atomic_store(&stop, true);
    for (unsigned i = 0; i < REMOVERS; i++)
        pthread_join(removers[i].thread, NULL);
    return 0;
}

// madvise() waits for its event to be read: a server that unregisters and leaves in between would
// leave its thread there for ever.
Test(drain, a_removal_in_flight_comes_to_its_end)
{
    for (unsigned round = 0; round < 5; round++) {
        struct client client;
        world = world_make(DISTINCT, 2 << 20);
        world_serve(world, NULL);
        client_start(&client, remove_until_told, NULL);
        cr_assert(client_progressed(&client, WARM_UP));
        cr_assert_eq(server_stop(&world->server), 0);
        client_tell(&client, 's');
        cr_assert_eq(client_wait(&client), 0);
        world_close();
    }
    world = world_make(EMPTY, PAGE);
}
