// SPDX-License-Identifier: Apache-2.0
//
// Clients that do a template wrong, or mean ill: the other clones read right bytes and do not wait.
#include <criterion/criterion.h>
#include <errno.h>
#include <faultline_client.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/support/stop.h"
#include "tests/support/world.h"

enum { BYTES = 4 << 20, CROWD = 100, KILLS = 3, FLOOD = 1100, FDS_FREE = 64 };

TestSuite(template_hostile, .init = need_userfaultfd, .fini = world_close, .timeout = 120);

static struct world *world;
static char template_socket[2 * TEST_PATH];

static int ask(char output[4096], const char *option)
{
    const char *args[] = {"template", "--control", temp_path(&world->temp, "control.sock"),
                          "image",    option,      NULL};
    return faultline_run(output, 4096, args);
}

static void begin(const char *const *options)
{
    char output[4096];
    world = world_make(DISTINCT, BYTES);
    world_serve(world, options);
    cr_assert_eq(ask(output, NULL), 0, "%s", output);
    snprintf(template_socket, sizeof(template_socket), "%s",
             temp_path(&world->temp, "sockets/image.template"));
}

// --- the others ---

static int clone_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    vmm_map_template(&vmm, &world->memory, 2, template_socket, NULL);
    vmm.shared = shared;
    vmm_handshake_template(&vmm);
    vmm_check(&vmm, 0);
    tell_test(channel, 'a');
    await_test(channel, 't');
    vmm_touch_all(&vmm, 1, VMM_UP, false);
    return 0;
}

static void start(struct client *client, client_main *main, void *arg)
{
    client_start(client, main, arg);
    cr_assert(client_says(client, 'a'));
}

static void touches_all(struct client *client)
{
    client_tell(client, 't');
    cr_assert_eq(client_wait(client), 0);
}

// Nothing that was done has harmed the template.
static void end(struct client *clone)
{
    struct client late;
    char output[4096];
    touches_all(clone);
    start(&late, clone_main, NULL);
    touches_all(&late);
    cr_assert_eq(ask(output, "--complete"), 0, "%s", output);
    cr_assert_eq(server_count_log(&world->server, "event=template_repaired"), 0);
    cr_assert_eq(server_count_log(&world->server, "event=poison "), 0);
    world_stop(world);
}

// --- what comes over the socket ---

// The greeting is taken; then this comes, with so many descriptors of this kind.
struct wrong {
    const char *text; // NULL: a whole handshake
    char kind;        // 'u' a userfaultfd, 't' the template, 'p' a pidfd, 'm' a memfd
    unsigned count;
};

static int a_descriptor(const struct vmm *vmm, int given, char kind)
{
    switch (kind) {
    case 'u':
        return vmm->uffd;
    case 't':
        return given;
    case 'p':
        return (int)syscall(SYS_pidfd_open, getpid(), 0);
    default:
        return memfd_create("wrong", MFD_CLOEXEC);
    }
}

static int wrong_main(int channel, struct client_shared *shared, void *arg)
{
    const struct wrong *wrong = arg;
    struct vmm vmm;
    char text[VMM_TEXT];
    int given = -1;
    int fds[4];
    (void)shared;
    vmm_map_template(&vmm, &world->memory, 1, template_socket, &given);
    for (unsigned i = 0; i < wrong->count; i++)
        fds[i] = a_descriptor(&vmm, given, i == 0 ? wrong->kind : 'm');
    size_t length = wrong->text ? strlen(wrong->text) : vmm_handshake_text(&vmm, text);
    vmm_send(vmm.socket, wrong->text ? wrong->text : text, length, fds, wrong->count);
    tell_test(channel, 'a');
    await_test(channel, 'e');
    return 0;
}

// Each is refused; what a userfaultfd watches there is not filled for anybody.
Test(template_hostile, what_is_no_handshake_is_refused)
{
    static const struct wrong wrongs[] = {
        {NULL, 't', 1},
        {NULL, 'p', 1},
        {NULL, 'm', 1},
        {NULL, 'u', 3},
        {"GET / HTTP/1.0", 'u', 0},
        {"{\"image\":\"image\"}", 't', 1},
        {"[{\"size\":1}]", 'u', 1},
        {"[]", 'u', 1},
    };
    enum { WRONGS = sizeof(wrongs) / sizeof(wrongs[0]) };
    struct client clone;
    struct client client[WRONGS];
    begin(NULL);
    start(&clone, clone_main, NULL);
    for (unsigned i = 0; i < WRONGS; i++)
        start(&client[i], wrong_main, (void *)(uintptr_t)&wrongs[i]);
    cr_assert(server_wait_log(&world->server, "event=refuse image=image ", WRONGS));
    for (unsigned i = 0; i < WRONGS; i++) {
        client_tell(&client[i], 'e');
        cr_assert_eq(client_wait(&client[i]), 0);
    }
    end(&clone);
}

// Who waits for a greeting where there is none is told so, once the engine has lost its patience.
Test(template_hostile, an_images_own_socket_offers_no_template)
{
    static const char *const impatient[] = {"--handshake-timeout", "200", NULL};
    struct client clone;
    struct fl_client *client = NULL;
    struct fl_client_region region = {.bytes = PAGE};
    begin(impatient);
    start(&clone, clone_main, NULL);
    cr_assert_eq(fl_client_map_template(world->socket, &region, 1, &client), -EPROTO);
    end(&clone);
}

static int flood_main(int channel, struct client_shared *shared, void *arg)
{
    const struct rlimit files = {FLOOD + FDS_FREE, FLOOD + FDS_FREE};
    (void)shared;
    (void)arg;
    CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0, "setrlimit");
    for (unsigned i = 0; i < FLOOD; i++)
        vmm_connect(template_socket);
    tell_test(channel, 'a');
    await_test(channel, 'e');
    return 0;
}

Test(template_hostile, a_flood_of_silent_connections)
{
    struct client clone;
    struct client flood;
    begin(NULL);
    start(&clone, clone_main, NULL);
    start(&flood, flood_main, NULL);
    end(&clone);
    client_kill(&flood);
}

// --- who stops, or dies, on the way ---

// Stops when it has come as far as `arg` says: greeted, mapped, or attached.
static int stopping_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    char step = *(const char *)arg;
    (void)shared;
    if (step == 'g') {
        vmm_connect(template_socket);
    } else {
        vmm_map_template(&vmm, &world->memory, 1, template_socket, NULL);
        if (step == 'a')
            vmm_handshake_template(&vmm);
    }
    tell_test(channel, 'a');
    if (step == 'a') // a hole; as often as not it is stopped in the middle of the fault
        (void)*(volatile uint8_t *)vmm_page(&vmm, vmm.pages - 1);
    await_test(channel, 'e');
    return 0;
}

Test(template_hostile, who_stops_or_dies_on_the_way)
{
    struct client clone;
    struct client stopped[3];
    begin(NULL);
    start(&clone, clone_main, NULL);
    for (unsigned i = 0; i < 3; i++) {
        start(&stopped[i], stopping_main, (void *)(uintptr_t) & "gma"[i]);
        cr_assert(process_stop(stopped[i].pid));
    }
    struct client other;
    start(&other, clone_main, NULL);
    touches_all(&other);
    for (unsigned i = 0; i < 3; i++)
        client_kill(&stopped[i]);
    end(&clone);
}

// Its own userfaultfd is not what its faults go by: the engine has it, too.
static int closing_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)shared;
    (void)arg;
    vmm_map_template(&vmm, &world->memory, 1, template_socket, NULL);
    vmm_handshake_template(&vmm);
    vmm_check(&vmm, 0);
    tell_test(channel, 'a');
    await_test(channel, 't');
    close(vmm.uffd);
    close(vmm.socket);
    vmm_touch_all(&vmm, 2, VMM_DOWN, true);
    return 0;
}

Test(template_hostile, who_closes_all_it_has_and_goes_on)
{
    struct client clone;
    struct client closing;
    begin(NULL);
    start(&clone, clone_main, NULL);
    start(&closing, closing_main, NULL);
    cr_assert(server_wait_log(&world->server, "event=attach ", 2));
    touches_all(&closing);
    end(&clone);
}

// --- the memory ---

// A page of the template in a pipe, for as long as the client likes.
static int holding_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    int ends[2];
    (void)shared;
    (void)arg;
    vmm_map_template(&vmm, &world->memory, 1, template_socket, NULL);
    vmm_handshake_template(&vmm);
    struct iovec page = {vmm_page(&vmm, 1), PAGE};
    CHECK(pipe2(ends, O_CLOEXEC) == 0, "pipe");
    CHECK(vmsplice(ends[1], &page, 1, 0) == PAGE, "vmsplice: %s", strerror(errno));
    tell_test(channel, 'a');
    await_test(channel, 'e');
    return 0;
}

Test(template_hostile, who_holds_a_page_is_named_when_it_is_completed)
{
    char output[4096];
    struct client clone;
    struct client holding;
    begin(NULL);
    start(&clone, clone_main, NULL);
    start(&holding, holding_main, NULL);
    cr_assert_eq(ask(output, "--complete"), 1, "%s", output);
    cr_assert_not_null(strstr(output, "while a client holds pages of it"), "%s", output);
    client_tell(&holding, 'e');
    cr_assert_eq(client_wait(&holding), 0);
    end(&clone);
}

// The kernel fills at once what such a program maps.
static int locking_main(int channel, struct client_shared *shared, void *arg)
{
    struct fl_client *client[2] = {NULL, NULL};
    struct fl_client_region region = {.bytes = BYTES};
    void *private = NULL;
    (void)shared;
    (void)arg;
    CHECK(mlockall(MCL_CURRENT | MCL_FUTURE) == 0, "mlockall: %s", strerror(errno));
    CHECK(fl_client_map_template(template_socket, &region, 1, &client[0]) == 0, "template");
    CHECK(fl_client_map(world->socket, BYTES, PAGE, &client[1], &private) == 0, "image");
    tell_test(channel, 'a');
    await_test(channel, 't');
    CHECK(memory_same(&world->memory, 0, region.address, BYTES), "the template's bytes");
    CHECK(memory_same(&world->memory, 0, private, BYTES), "the image's bytes");
    return 0;
}

Test(template_hostile, who_locks_all_its_memory)
{
    struct client clone;
    struct client locking;
    begin(NULL);
    start(&clone, clone_main, NULL);
    start(&locking, locking_main, NULL);
    touches_all(&locking);
    end(&clone);
}

// --- many at once, and nobody there ---

Test(template_hostile, a_crowd_at_the_same_holes_while_engines_die)
{
    static struct client crowd[CROWD];
    struct client clone;
    begin(NULL);
    start(&clone, clone_main, NULL);
    for (unsigned i = 0; i < CROWD; i++)
        start(&crowd[i], clone_main, NULL);
    server_pause(&world->server); // all of them wait for the same page when it dies
    for (unsigned i = 0; i < CROWD; i++)
        client_tell(&crowd[i], 't');
    for (unsigned i = 0; i < CROWD; i++)
        cr_assert(client_waits(&crowd[i], 1));
    for (unsigned i = 0; i < KILLS; i++)
        cr_assert(server_kill_engine(&world->server));
    for (unsigned i = 0; i < CROWD; i++)
        cr_assert_eq(client_wait(&crowd[i]), 0);
    end(&clone);
}
