// SPDX-License-Identifier: Apache-2.0
//
// Nothing that dies costs a VM a byte: the engine, the keeper, both in turn, at any moment.
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/points.h"
#include "tests/support/world.h"

enum { BYTES = 16 << 20, KILLS = 12 };

TestSuite(restart, .init = need_userfaultfd, .fini = world_close, .timeout = 180);

static struct world *world;

// Touches page 5, says so, and from then on does what it is told: 'g' touch all and end, 'r' give
// the first half back, 'z' check that it is zeros, 'c' close its own userfaultfd.
static int obedient(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 5);
    tell_test(channel, 't');
    for (;;) {
        char order = next_order(channel);
        if (order == 'g') {
            vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
            return 0;
        }
        if (order == 'r') {
            vmm_remove(&vmm, 0, vmm.pages / 2);
            memset(vmm.removed, true, vmm.pages / 2);
        }
        if (order == 'z') {
            for (uint32_t page = 0; page < vmm.pages / 2; page++)
                vmm_check_zero(&vmm, page);
        }
        if (order == 'c')
            close(vmm.uffd);
        tell_test(channel, 'd');
    }
}

static void begin_with(struct client *client, const char *const *extra)
{
    world = world_make(MIXED, BYTES);
    world_serve(world, extra);
    client_start(client, obedient, NULL);
    cr_assert(client_says(client, 't'));
}

static void begin(struct client *client)
{
    begin_with(client, NULL);
}

// SIGKILL to the engine, and the next one serves.
static void kill_engine(void)
{
    cr_assert(server_kill_engine(&world->server));
}

// --- the engine ---

static bool is_called(pid_t pid, const char *comm, const char *title)
{
    char path[64];
    char text[512] = "";
    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    FILE *file = fopen(path, "re");
    bool right = file && fgets(text, sizeof(text), file) && strcmp(text, comm) == 0;
    if (file)
        fclose(file);
    snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    file = fopen(path, "re");
    right = right && file && fread(text, 1, sizeof(text) - 1, file) > 0 &&
            strncmp(text, title, strlen(title)) == 0;
    if (file)
        fclose(file);
    return right;
}

static bool standby_is_called_so(void *unused)
{
    (void)unused;
    long long pid = world_status(world, "keeper", "standby_pid");
    return pid > 0 && is_called((pid_t)pid, "faultline-stand\n", "faultline: standby --store ");
}

// In ps and top; a standby that serves is called so.
Test(restart, each_process_has_its_name)
{
    world = world_make(DISTINCT, BYTES);
    world_serve(world, NULL);
    const struct server *server = &world->server;
    cr_expect(is_called(server->pid, "faultline-keepe\n", "faultline: keeper --store "));
    cr_expect(is_called(server_engine(server), "faultline-engin\n", "faultline: engine --store "));
    cr_assert(wait_until(standby_is_called_so, NULL));
    pid_t standby = (pid_t)world_status(world, "keeper", "standby_pid");
    kill_engine();
    cr_assert(server_wait_log(server, "event=engine_serving", 2));
    cr_expect_eq(server_engine(server), standby);
    cr_expect(is_called(standby, "faultline-engin\n", "faultline: engine --store "));
    world_stop(world);
}

Test(restart, of_the_engine_costs_no_byte)
{
    struct client client;
    begin(&client);
    kill_engine();
    kill_engine();
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert(server_wait_log(&world->server, "event=detach vm=1 ", 1));
    world_stop(world);
}

static int touch_slowly(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    (void)channel;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_MAIN);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    vmm_touch_all(&vmm, 4, VMM_RANDOM, false);
    return 0;
}

Test(restart, while_faults_are_under_way)
{
    struct client client;
    world = world_make(DISTINCT, 4 * BYTES);
    world_serve(world, NULL);
    client_start(&client, touch_slowly, NULL);
    for (unsigned i = 0; i < KILLS; i++) {
        client_progressed(&client, 64 * (i + 1));
        kill_engine();
    }
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

Test(restart, what_was_given_back_stays_zeros)
{
    struct client client;
    begin(&client);
    cr_assert(client_obeys(&client, "r"));
    kill_engine();
    cr_assert(client_obeys(&client, "z"));
    kill_engine();
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

// --- at every named point ---

static bool no_vm_is_left(void *arg)
{
    (void)arg;
    return world_status(world, "", "vms") == 0;
}

static void begin_armed(const char *point, const char *const *extra)
{
    need_points();
    world = world_make(MIXED, BYTES);
    point_begin(world, point);
    world_serve(world, extra);
    point_end();
    world->server.deaths = 2;
}

// A VM from its handshake to its end: `when` says before which of its steps the point is armed.
static void live_through(const char *point, char when)
{
    struct client client;
    begin_armed(point, NULL);
    if (when == 'h')
        point_arm(world);
    client_start(&client, obedient, NULL);
    cr_expect(client_says(&client, 't'), "%s", point);
    if (when == 'r')
        point_arm(world);
    cr_expect(client_obeys(&client, "r"), "%s", point);
    if (when == 'z')
        point_arm(world);
    cr_expect(client_obeys(&client, "z"), "%s", point);
    if (when == 'g')
        point_arm(world);
    client_tell(&client, 'g');
    cr_expect_eq(client_wait(&client), 0, "%s", point);
    cr_expect(wait_until(point_struck, world), "no engine came to %s", point);
    cr_expect(wait_until(no_vm_is_left, NULL), "%s", point);
    world_stop(world);
}

Test(restart, at_accept)
{
    live_through("accepted", 'h');
}

Test(restart, at_the_first_look_at_a_handshake)
{
    live_through("handshake_read", 'h');
}

Test(restart, when_the_image_is_kept_and_the_vm_is_not)
{
    live_through("image_kept", 'h');
}

Test(restart, when_the_vm_is_kept_and_nobody_owns_it)
{
    live_through("vm_kept", 'h');
}

Test(restart, when_the_handshake_is_still_in_the_socket)
{
    live_through("attached", 'h');
}

Test(restart, when_a_vm_that_has_gone_is_counted)
{
    live_through("vm_counted", 'g');
}

Test(restart, when_a_removal_was_read)
{
    live_through("messages_read", 'r');
}

Test(restart, when_a_removal_is_noted)
{
    live_through("removed_set", 'r');
}

Test(restart, when_events_were_acted_on)
{
    live_through("events_acted", 'z');
}

Test(restart, when_a_piece_of_a_map_is_asked_for)
{
    live_through("map_wanted", 'h');
}

Test(restart, when_a_fault_was_read)
{
    live_through("messages_read:100", 'g');
}

Test(restart, when_a_page_is_there_and_not_noted)
{
    live_through("copied:100", 'g');
}

Test(restart, when_all_was_acted_on)
{
    live_through("messages_acted:100", 'g');
}

Test(restart, when_a_vm_is_gone_and_kept)
{
    live_through("vm_gone", 'g');
}

Test(restart, when_a_vm_is_gone_and_not_closed)
{
    live_through("vm_dropped", 'g');
}

// Those of a successor: two die in a row.
static void live_through_two_and(const char *point, bool look)
{
    struct client client;
    begin_armed(point, NULL);
    client_start(&client, obedient, NULL);
    cr_expect(client_says(&client, 't'), "%s", point);
    cr_expect(client_obeys(&client, "r"), "%s", point);
    point_arm(world);
    cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
    if (look)
        cr_expect(client_obeys(&client, "z"), "%s", point);
    client_tell(&client, 'g');
    cr_expect_eq(client_wait(&client), 0, "%s", point);
    cr_expect(point_struck(world), "no engine came to %s", point);
    world_stop(world);
}

static void live_through_two(const char *point)
{
    live_through_two_and(point, true);
}

Test(restart, in_a_take_over)
{
    live_through_two("vm_inherited");
}

Test(restart, when_an_image_is_open_and_nobody_has_it)
{
    live_through_two("image_inherited");
}

Test(restart, when_a_successor_asks_for_a_piece_of_a_map)
{
    live_through_two_and("map_wanted", false); // a sweep would have it read ahead
}

Test(restart, in_a_replay)
{
    live_through_two("replayed");
}

Test(restart, when_all_are_woken)
{
    live_through_two("woken");
}

Test(restart, before_the_keeper_hears)
{
    live_through_two("doors_open");
}

// The one that ends is filled, unregistered and let go, whoever dies meanwhile.
static void release_through(const char *point)
{
    struct client client;
    begin_armed(point, NULL);
    client_start(&client, obedient, NULL);
    cr_expect(client_says(&client, 't'), "%s", point);
    cr_expect(client_obeys(&client, "r"), "%s", point);
    point_arm(world);
    cr_expect_eq(server_stop(&world->server), 0, "%s", point);
    cr_expect(point_struck(world), "no engine came to %s", point);
    cr_expect(client_obeys(&client, "z"), "%s", point);
    client_tell(&client, 'g');
    cr_expect_eq(client_wait(&client), 0, "%s", point);
}

Test(restart, while_a_vm_is_being_filled)
{
    release_through("copied:20");
}

Test(restart, when_a_part_is_unregistered)
{
    release_through("unregistered");
}

Test(restart, when_a_vm_is_complete)
{
    release_through("released");
}

// --- handshakes ---

// Connects and sends half of its handshake; the rest when it is told to.
static int hesitant(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    char text[VMM_TEXT];
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_1_12);
    vmm.shared = shared;
    size_t length = vmm_handshake_text(&vmm, text);
    vmm.socket = vmm_connect(world->socket);
    vmm_send(vmm.socket, text, length / 2, &vmm.uffd, 1);
    tell_test(channel, 'h');
    await_test(channel, 'g');
    vmm_send(vmm.socket, text + length / 2, length - length / 2, NULL, 0);
    vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
    return 0;
}

Test(restart, in_the_middle_of_a_handshake)
{
    struct client client;
    world = world_make(MIXED, BYTES);
    world_serve(world, NULL);
    client_start(&client, hesitant, NULL);
    cr_assert(client_says(&client, 'h'));
    kill_engine();
    client_tell(&client, 'g');
    int status = client_wait(&client);
    if (status != 0)
        server_print_log(&world->server);
    cr_assert_eq(status, 0);
    world_stop(world);
}

Test(restart, of_an_engine_that_has_refused)
{
    world = world_make(MIXED, BYTES);
    struct memory larger = {.bytes = 2 * BYTES, .data = world->memory.data};
    world_serve(world, NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct vmm vmm;
        child_setup();
        vmm_map(&vmm, &larger, PAGE, 1, VMM_1_12);
        vmm_handshake(&vmm, world->socket);
        vmm_catch_sigbus();
        bool first = vmm_poisoned(vmm_page(&vmm, 1));
        raise(SIGSTOP);
        _exit(first && vmm_poisoned(vmm_page(&vmm, 2)) ? 0 : 1);
    }
    siginfo_t info;
    int status = -1;
    cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WSTOPPED), 0);
    cr_assert(server_wait_log(&world->server, "event=refuse", 1)); // its log's thread dies with it
    kill_engine();
    kill(pid, SIGCONT);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0, "a page of a refused VM was not poisoned");
    world_stop(world);
    cr_assert_eq(server_logs(&world->server, "event=refuse", 1), 1);
    cr_assert_eq(server_count_log(&world->server, "event=attach"), 0, "it never was a VM");
}

// --- the image ---

Test(restart, when_the_image_is_not_in_the_store_any_more)
{
    struct client client;
    char path[TEST_PATH];
    begin(&client);
    const char *rm[] = {"rm", "--store", world->store, "image", NULL};
    const char *gc[] = {"gc", "--store", world->store, NULL};
    cr_assert_eq(faultline_run(NULL, 0, rm), 0);
    cr_assert_eq(faultline_run(NULL, 0, gc), 0);
    snprintf(path, sizeof(path), "%s/images/image.img", world->store);
    cr_assert_neq(access(path, F_OK), 0);
    kill_engine();
    kill_engine();
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

// --- policies ---

static void spoil_packs(void)
{
    char path[2 * TEST_PATH];
    const char *directory = temp_path(&world->temp, "store/packs");
    DIR *packs = opendir(directory);
    cr_assert_not_null(packs);
    for (const struct dirent *entry; (entry = readdir(packs));) {
        snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
        if (entry->d_name[0] != '.')
            cr_assert_eq(truncate(path, 0), 0);
    }
    closedir(packs);
}

// Each VM keeps the policy of the socket that it came by, whoever serves it.
Test(restart, keeps_what_is_to_become_of_a_vm)
{
    static const char *const impatient[] = {"--retries", "0", NULL};
    struct client poisoned;
    struct client killed;
    begin_with(&poisoned, impatient);
    const char *usual = world->socket;
    world->socket = temp_path(&world->temp, "kill.sock");
    const char *listen[] = {"listen",      "--control",  temp_path(&world->temp, "control.sock"),
                            "--image",     "image",      "--socket",
                            world->socket, "--on-error", "kill",
                            NULL};
    cr_assert_eq(faultline_run(NULL, 0, listen), 0);
    kill_engine(); // the listener keeps it, too
    client_start(&killed, obedient, NULL);
    cr_assert(client_says(&killed, 't'));
    world->socket = usual;
    kill_engine();
    spoil_packs();
    client_tell(&killed, 'g');
    cr_expect_eq(client_wait(&killed), 128 + SIGKILL);
    client_tell(&poisoned, 'g');
    cr_expect_eq(client_wait(&poisoned), 128 + SIGBUS);
    world_stop(world);
}

// --- an engine that hangs ---

Test(restart, of_an_engine_that_hangs)
{
    static const char *const soon[] = {"--hang-timeout", "1000", NULL};
    struct client client;
    begin_with(&client, soon);
    world->server.deaths = 1;
    server_pause(&world->server);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(server_logs(&world->server, "event=engine_hangs", 1), 1);
    world_stop(world);
}

// --- the keeper ---

static const char *const *more(const char *option, const char *value)
{
    static const char *args[3];
    args[0] = option;
    args[1] = value;
    return args;
}

Test(restart, of_the_keeper)
{
    struct client client;
    begin(&client);
    pid_t engine = server_engine(&world->server);
    cr_assert(client_obeys(&client, "r"));
    server_kill_keeper(&world->server);
    cr_assert(server_wait_log(&world->server, "event=keeper_lost", 1));
    cr_assert(client_obeys(&client, "z")); // the engine serves on
    cr_assert(server_serve(&world->server, &world->temp, world->store, NULL));
    cr_assert_eq(server_engine(&world->server), engine,
                 "a new engine, though the old one was there");
    kill_engine(); // all that it held is the new keeper's
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

Test(restart, of_the_keeper_without_a_word)
{
    struct client client;
    begin(&client);
    cr_assert_eq(kill(world->server.pid, SIGUSR1), 0);
    int status = -1;
    cr_assert_eq(waitpid(world->server.pid, &status, 0), world->server.pid);
    cr_assert_eq(status, 0);
    cr_assert(client_obeys(&client, "r"));
    cr_assert(server_serve(&world->server, &world->temp, world->store, NULL));
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

Test(restart, of_a_keeper_that_is_alive_is_refused)
{
    char output[512];
    struct client client;
    begin(&client);
    const char *args[] = {"serve",
                          "--store",
                          world->store,
                          "--sockets",
                          temp_path(&world->temp, "sockets"),
                          "--control",
                          temp_path(&world->temp, "control.sock"),
                          NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 1);
    cr_assert_not_null(strstr(output, "another server listens"), "%s", output);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

Test(restart, an_engine_that_nobody_needs_ends)
{
    world = world_make(MIXED, BYTES);
    world_serve(world, NULL);
    pid_t engine = server_engine(&world->server);
    server_kill_keeper(&world->server);
    cr_assert(wait_until(process_ended, &engine));
    cr_assert_neq(access(temp_path(&world->temp, "control.sock"), F_OK), 0);
}

// --- the end ---

Test(restart, with_the_last_reference_at_the_servers)
{
    struct client client;
    begin(&client);
    cr_assert(client_obeys(&client, "c"));
    kill_engine();
    server_kill_keeper(&world->server);
    cr_assert(
        server_serve(&world->server, &world->temp, world->store, more("--stop-timeout", "30000")));
    cr_assert_eq(server_stop(&world->server), 0);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
}
