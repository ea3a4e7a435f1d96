// SPDX-License-Identifier: Apache-2.0
//
// The limit of open files: each VM is served, or is told that it is not; the status says so; and
// deaths of engines at the limit lose no VM.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/world.h"

TestSuite(descriptors, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

enum { BYTES = 1 << 20, VMS_MOST = 256 };

static struct world *world;
static struct client clients[VMS_MOST];
static bool served[VMS_MOST];
static char socket_path[2 * TEST_PATH];

// What a VMM does whose restore may fail: 'r' if nobody listens, 'p' if its pages are poisoned, 't'
// if it is served. Then it touches all when it is told to.
static int try_it(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    char text[VMM_TEXT];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", (const char *)arg);
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_1_12);
    vmm.shared = shared;
    vmm.socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(vmm.socket, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        tell_test(channel, 'r');
        return 0;
    }
    size_t length = vmm_handshake_text(&vmm, text);
    vmm_send(vmm.socket, text, length, &vmm.uffd, 1);
    vmm_catch_sigbus();
    if (vmm_poisoned(vmm_page(&vmm, 3))) {
        tell_test(channel, 'p');
        return 0;
    }
    vmm_check(&vmm, 3);
    tell_test(channel, 't');
    await_test(channel, 'g');
    vmm_touch_all(&vmm, 1, VMM_UP, true);
    return 0;
}

static char first_word(struct client *client)
{
    struct pollfd poll_fd = {.fd = client->channel, .events = POLLIN};
    char word = 0;
    cr_assert_eq(poll(&poll_fd, 1, TEST_DEADLINE_MS), 1, "a VM is neither served nor refused");
    cr_assert_eq(read(client->channel, &word, 1), 1);
    return word;
}

static void pack_images(unsigned images)
{
    char name[32];
    world_pack(world, world->file, "image");
    for (unsigned i = 1; i < images; i++) {
        snprintf(name, sizeof(name), "other%u", i);
        world_pack(world, world->file, name);
    }
}

// Runs the program from now on as under `ulimit -n`, which nobody can take back.
static void limit_program(unsigned limit)
{
    static char wrapper[2 * TEST_PATH];
    snprintf(wrapper, sizeof(wrapper), "%s", temp_path(&world->temp, "wrapper"));
    FILE *file = fopen(wrapper, "we");
    cr_assert_not_null(file);
    fprintf(file, "#!/bin/sh\nulimit -n %u && exec '%s' \"$@\"\n", limit, getenv("FAULTLINE_BIN"));
    cr_assert_eq(fchmod(fileno(file), 0755), 0);
    cr_assert_eq(fclose(file), 0);
    setenv("FAULTLINE_BIN", wrapper, 1);
}

static bool serve(unsigned limit)
{
    char *binary = strdup(getenv("FAULTLINE_BIN"));
    world->socket = socket_path;
    snprintf(socket_path, sizeof(socket_path), "%s", temp_path(&world->temp, "sockets/image.sock"));
    limit_program(limit);
    bool serves = server_serve(&world->server, &world->temp, world->store, NULL);
    setenv("FAULTLINE_BIN", binary, 1);
    free(binary);
    return serves;
}

static bool lacks_descriptors(void *arg)
{
    static char output[1 << 18];
    const char *args[] = {"status", "--control", temp_path(&world->temp, "control.sock"), "--json",
                          NULL};
    (void)arg;
    return faultline_run(output, sizeof(output), args) == 0 &&
           strstr(output, "\"what\": \"descriptors\"") != NULL;
}

static void kill_engine(void)
{
    cr_assert(server_kill_engine(&world->server));
}

// As many standbys have got ready as there were deaths, and one.
static bool has_standby(void)
{
    return server_wait_log(&world->server, "event=engine_ready", world->server.deaths + 1);
}

// One after the other. Returns how many are served.
static unsigned start_vms(unsigned vms)
{
    unsigned count = 0;
    for (unsigned i = 0; i < vms; i++) {
        client_start(&clients[i], try_it, socket_path);
        char word = first_word(&clients[i]);
        served[i] = word == 't';
        // One after the other, who finds no room has not handed anything over.
        cr_expect_neq(word, 'p', "VM %u of %u is poisoned", i, vms);
        count += served[i];
        if (!served[i])
            cr_assert_eq(client_wait(&clients[i]), 0);
    }
    return count;
}

static void end_vms(unsigned vms)
{
    for (unsigned i = 0; i < vms; i++) {
        if (!served[i])
            continue;
        client_tell(&clients[i], 'g');
        cr_assert_eq(client_wait(&clients[i]), 0);
    }
}

static void check(unsigned limit, unsigned images, unsigned vms)
{
    world = world_make(DISTINCT, BYTES);
    pack_images(images);
    cr_assert(serve(limit));
    cr_assert(has_standby(), "there was no room for a standby");
    bool listens = socket_is_open(socket_path);
    unsigned count = start_vms(vms);
    fprintf(stderr, "limit %u, %u images: %u of %u VMs are served\n", limit, images, count, vms);
    cr_expect_eq(count > 0, listens);
    cr_expect(count == vms || wait_until(lacks_descriptors, NULL), "the status is calm");
    kill_engine();
    cr_assert(has_standby(), "there was no room for the next standby");
    kill_engine();
    end_vms(vms);
    if (listens) {
        cr_assert(wait_until(socket_is_open, socket_path), "the socket does not come back");
        cr_expect_gt(start_vms(1), 0, "there is room again");
        end_vms(1);
    }
    world_stop(world);
}

Test(descriptors, limit_64_and_2_images)
{
    check(64, 2, 12);
}

Test(descriptors, limit_64_and_40_images)
{
    check(64, 40, 12);
}

Test(descriptors, limit_256_and_100_images)
{
    check(256, 100, 100);
}

Test(descriptors, limit_256_and_10_images)
{
    check(256, 10, 60);
}

Test(descriptors, limit_1024_and_10_images)
{
    check(1024, 10, 200);
}

// Too few for one VM: it does not start, and says why.
static void check_too_low(unsigned limit)
{
    char sentence[96];
    world = world_make(DISTINCT, BYTES);
    pack_images(1);
    const char *args[] = {"serve",
                          "--store",
                          world->store,
                          "--sockets",
                          temp_path(&world->temp, "sockets"),
                          "--control",
                          temp_path(&world->temp, "control.sock"),
                          NULL};
    char output[1024];
    limit_program(limit);
    cr_assert_eq(faultline_run(output, sizeof(output), args), 1);
    snprintf(sentence, sizeof(sentence),
             "the limit of open files, %u, leaves no room for a single VM", limit);
    cr_assert_not_null(strstr(output, sentence), "%s", output);
}

Test(descriptors, limit_32_is_too_low)
{
    check_too_low(32);
}

// Enough for the engine, and for nothing else once all that it needs for itself is open.
Test(descriptors, limit_44_is_too_low)
{
    check_too_low(44);
}

static bool waits(void *arg)
{
    (void)arg;
    return server_count_log(&world->server, "event=handshake_waits") > 0;
}

static unsigned used(void)
{
    return (unsigned)world_status(world, "descriptors", "used");
}

static void limit_process(pid_t pid, rlim_t soft, struct rlimit *ret_before)
{
    struct rlimit limit;
    cr_assert_eq(prlimit(pid, RLIMIT_NOFILE, NULL, &limit), 0);
    if (ret_before)
        *ret_before = limit;
    limit.rlim_cur = soft;
    cr_assert_eq(prlimit(pid, RLIMIT_NOFILE, &limit, NULL), 0);
}

// Connects, says so, and sends its handshake when it is told to.
static int handshake_later(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    char text[VMM_TEXT];
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_1_12);
    vmm.shared = shared;
    vmm.socket = vmm_connect(socket_path);
    tell_test(channel, 'c');
    await_test(channel, 's');
    vmm_send(vmm.socket, text, vmm_handshake_text(&vmm, text), &vmm.uffd, 1);
    vmm_touch_all(&vmm, 1, VMM_UP, true);
    tell_test(channel, 't');
    await_test(channel, 'g');
    return 0;
}

static bool is_connected(void *arg)
{
    return used() > *(unsigned *)arg;
}

// The table fills up between the connection and the handshake: it is not the client's error, and
// goes on as soon as there is room.
Test(descriptors, a_handshake_whose_descriptor_had_no_room)
{
    struct client client;
    struct rlimit before;
    world = world_make(DISTINCT, BYTES);
    pack_images(1);
    cr_assert(serve(256));
    cr_assert(wait_until(socket_is_open, socket_path));
    pid_t engine = server_engine(&world->server);
    unsigned calm = used();
    client_start(&client, handshake_later, NULL);
    cr_assert(client_says(&client, 'c'));
    cr_assert(wait_until(is_connected, &calm));
    limit_process(engine, 3, &before); // lower than anything that is free
    client_tell(&client, 's');
    cr_assert(wait_until(waits, NULL));
    cr_expect_eq(server_count_log(&world->server, "more than one file descriptor"), 0);
    limit_process(engine, before.rlim_cur, NULL);
    cr_assert(client_says(&client, 't'));
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    cr_expect_eq(server_count_log(&world->server, "event=refuse"), 0);
    world_stop(world);
}

static bool opens_or_lacks_room(void *path)
{
    return socket_is_open(path) || lacks_descriptors(NULL);
}

// False: there is no room for a single VM.
static bool check_late_handshake(unsigned limit)
{
    struct client client;
    world = world_make(DISTINCT, BYTES);
    pack_images(2);
    cr_assert(serve(limit));
    cr_assert(has_standby());
    cr_assert(wait_until(opens_or_lacks_room, socket_path));
    if (!socket_is_open(socket_path)) {
        world_stop(world);
        return false;
    }
    unsigned calm = used();
    client_start(&client, handshake_later, NULL);
    cr_assert(client_says(&client, 'c'));
    cr_assert(wait_until(is_connected, &calm));
    client_tell(&client, 's');
    cr_assert(client_says(&client, 't'));
    unsigned count = start_vms(4);
    fprintf(stderr, "limit %u: %u more VMs are served\n", limit, count);
    cr_expect_lt(count, 4);
    end_vms(4);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
    return true;
}

// What a VM needs is known only when its image is open, which may be long after it has connected:
// at one of these limits that takes the last room. From which one on there is room for a VM says
// how many descriptors the engine needs for itself.
Test(descriptors, a_handshake_that_takes_the_last_room)
{
    unsigned tried = 0;
    for (unsigned limit = 61; tried < 6 && limit < 80; limit++) {
        if (world)
            world_close();
        tried += check_late_handshake(limit);
    }
    cr_assert_eq(tried, 6);
}

static bool put_failed(void *arg)
{
    (void)arg;
    return server_count_log(&world->server, "event=put_failed") > 0;
}

// The keeper's table fills up: the engine is not left alone, and what could not be kept is kept as
// soon as there is room.
Test(descriptors, the_keeper_has_no_room)
{
    struct rlimit before;
    char other[2 * TEST_PATH];
    world = world_make(DISTINCT, BYTES);
    pack_images(1);
    cr_assert(serve(256));
    cr_assert(has_standby());
    cr_assert_eq(start_vms(1), 1);
    limit_process(world->server.pid, 3, &before);
    snprintf(other, sizeof(other), "%s", temp_path(&world->temp, "asked.sock"));
    const char *args[] = {"listen",  "--control", temp_path(&world->temp, "control.sock"),
                          "--image", "image",     "--socket",
                          other,     NULL};
    cr_assert_eq(faultline_run(NULL, 0, args), 0);
    cr_assert(wait_until(put_failed, NULL));
    cr_expect_eq(server_count_log(&world->server, "event=keeper_lost"), 0);
    limit_process(world->server.pid, before.rlim_cur, NULL);
    snprintf(socket_path, sizeof(socket_path), "%s", other);
    cr_assert(server_wait_log(&world->server, "event=kept_again", 1));
    kill_engine();
    end_vms(1);
    cr_assert_eq(start_vms(1), 1); // at the socket that was put again
    end_vms(1);
    world_stop(world);
}

// Somebody has lowered the soft limit of the keeper below what it holds: it and successors take
// what the hard limit gives.
Test(descriptors, a_limit_that_is_lowered)
{
    enum { VMS = 10 };
    struct rlimit low = {3, 256};
    world = world_make(DISTINCT, BYTES);
    pack_images(1);
    cr_assert(serve(256));
    cr_assert(has_standby());
    cr_assert_eq(start_vms(VMS), VMS);
    cr_assert_eq(prlimit(world->server.pid, RLIMIT_NOFILE, &low, NULL), 0);
    kill_engine();
    cr_assert(has_standby());
    kill_engine();
    end_vms(VMS);
    world_stop(world);
}
