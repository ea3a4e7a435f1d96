// SPDX-License-Identifier: Apache-2.0
//
// Handshakes as they must not be. Each is refused with one line in the log, whoever touches memory
// of a refused userfaultfd gets SIGBUS, and a good VMM beside it never notices.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"
#include "tests/e2e/protocol/handshake_cases.h"

TestSuite(handshake, .init = need_userfaultfd, .fini = world_close, .timeout = 280);

enum { FDS = 12, BUSY_PAGES = 16, SIGBUS_STATUS = 128 + SIGBUS };

static struct world *world;

static void begin(struct good *good, const char *const *options)
{
    const char *all[SERVER_ARGS] = {"--allow-part"}; // guests are small here
    for (unsigned i = 0; options && options[i]; i++)
        all[i + 1] = options[i];
    world = world_make(MIXED, IMAGE_BYTES);
    world_serve(world, all);
    good_start(good, world->socket, &world->memory);
}

static bool brings_waiters(enum cargo cargo)
{
    return cargo == UFFD || cargo == THREE || cargo == TWELVE || cargo == LAST_OF_TWELVE ||
           cargo == BLOCKING_UFFD;
}

static uint8_t *map_guest(void)
{
    void *memory = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(memory != MAP_FAILED, "mmap");
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); // it may end in SIGBUS
    return memory;
}

static int registered_uffd(const uint8_t *memory, uint64_t features)
{
    int uffd = vmm_open_uffd(VMM_1_12);
    struct uffdio_register range = {.range = {(uintptr_t)memory, GUEST_BYTES},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING};
    vmm_enable(uffd, features);
    CHECK(ioctl(uffd, UFFDIO_REGISTER, &range) == 0, "UFFDIO_REGISTER");
    return uffd;
}

// The descriptors that go with the text. The memory is registered where a userfaultfd goes.
static unsigned load(enum cargo cargo, const uint8_t *memory, int *fds)
{
    int pair[2];
    bool many = cargo == TWELVE || cargo == LAST_OF_TWELVE;
    unsigned count = many ? FDS : cargo == THREE ? 3 : cargo == NOTHING ? 0 : 1;
    for (unsigned i = 0; i < count; i++)
        fds[i] = memfd_create("ballast", MFD_CLOEXEC);
    if (brings_waiters(cargo))
        fds[cargo == LAST_OF_TWELVE ? FDS - 1 : 0] = registered_uffd(memory, 0);
    if (cargo == BLOCKING_UFFD)
        CHECK(fcntl(fds[0], F_SETFL, O_RDWR) == 0, "fcntl");
    if (cargo == RAW_UFFD) {
        fds[0] = vmm_open_uffd(VMM_1_12);
    } else if (cargo == A_PIPE) {
        CHECK(pipe(pair) == 0, "pipe");
        fds[0] = pair[0];
    } else if (cargo == AN_EVENTFD) {
        fds[0] = eventfd(0, EFD_CLOEXEC);
    }
    return count;
}

static void deliver(const struct bad *bad, int socket, const char *text, size_t length,
                    const int *fds, unsigned count)
{
    switch (bad->delivery) {
    case AT_ONCE:
        if (length > 0)
            vmm_send(socket, text, 1, fds, count);
        if (length > 1) // a refusal may come before all is sent
            (void)!send(socket, text + 1, length - 1, MSG_NOSIGNAL);
        break;
    case BYTE_BY_BYTE:
        for (size_t i = 0; i < length; i++)
            vmm_send(socket, text + i, 1, fds, i == 0 ? count : 0);
        break;
    case IN_ONE_MESSAGE:
        vmm_send(socket, text, length, fds, count);
        break;
    case TEXT_THEN_FD:
        vmm_send(socket, text, length, NULL, 0);
        vmm_send(socket, "\n", 1, fds, count);
        break;
    case FD_THEN_TEXT:
        vmm_send(socket, " ", 1, fds, count);
        vmm_send(socket, text, length, NULL, 0);
        break;
    }
    if (bad->ending == HALF_CLOSE)
        shutdown(socket, SHUT_WR);
}

// Says 's' when all is sent, then waits for 't' and touches its memory: that ends it (SIGBUS), or
// gives the image's bytes.
static int bad_main(int channel, struct client_shared *shared, void *arg)
{
    static char text[TEXT_MAX];
    const struct bad *bad = arg;
    const uint8_t *memory = map_guest();
    int fds[FDS];
    (void)shared;
    unsigned count = load(bad->cargo, memory, fds);
    size_t length = expand(text, bad->text, memory);
    deliver(bad, vmm_connect(world->socket), text, length, fds, count);
    tell_test(channel, 's');
    await_test(channel, 't');
    CHECK(memory_same(&world->memory, 0, memory, GUEST_BYTES), "wrong bytes");
    return 0;
}

static void expect_refusal(const struct bad *bad, struct client *client)
{
    char line[512];
    char whole[2048];
    bool poisoned = brings_waiters(bad->cargo);
    snprintf(line, sizeof(line), "event=refuse image=image pid=%d faults=%s reason=\"%s",
             client->pid, poisoned ? "poisoned" : "none", bad->reason);
    cr_assert(server_wait_log(&world->server, line, 1), "%s", bad->name);
    cr_assert(server_find_log(&world->server, line, whole, sizeof(whole)));
    cr_assert_not_null(strstr(whole, "/store/images/image.img"), "no file: %s", whole);
    cr_assert_eq(strstr(whole, " vm=- ") == NULL, poisoned, "%s", whole);
    if (!poisoned) {
        client_kill(client);
        return;
    }
    client_tell(client, 't');
    cr_assert_eq(client_wait(client), SIGBUS_STATUS, "%s: not SIGBUS", bad->name);
}

static void visit(struct bad bad, struct good *good)
{
    struct client client;
    client_start(&client, bad_main, &bad);
    cr_assert(client_says(&client, 's'), "%s", bad.name);
    if (bad.reason) {
        expect_refusal(&bad, &client);
    } else {
        client_tell(&client, 't');
        cr_assert_eq(client_wait(&client), 0, "%s: refused or wrong", bad.name);
    }
    cr_assert(good_touch(good, BUSY_PAGES), "%s: the good client suffers", bad.name);
}

// Who was refused was no VM: one line tells of it, and no other.
static void end(struct good *good, unsigned refused)
{
    const struct server *server = &world->server;
    cr_assert_eq(good_end(good), 0);
    world_stop(world);
    cr_assert_eq(server_logs(server, "event=refuse", refused), refused);
    cr_assert_eq(server_count_log(server, "event=outside"), 0);
    cr_assert_eq(server_logs(server, "event=detach", server_count_log(server, "event=attach")),
                 server_count_log(server, "event=attach"));
    cr_assert_eq(server_count_log(server, " image= "), 0);
}

static bool descriptors_are(void *arg)
{
    return server_descriptors(&world->server) <= *(const unsigned *)arg;
}

Test(handshake, each_bad_one_is_refused_with_one_line)
{
    struct good good;
    unsigned refused = 0;
    begin(&good, NULL);
    unsigned before = server_descriptors(&world->server);
    for (unsigned i = 0; i < case_count; i++) {
        visit(cases[i], &good);
        refused += cases[i].reason != NULL;
        cr_assert_eq(server_logs(&world->server, "event=refuse", refused), refused, "after: %s",
                     cases[i].name);
    }
    cr_assert(wait_until(descriptors_are, &before), "descriptors are left");
    end(&good, refused);
    cr_assert_eq(server_logs(&world->server, "event=attach", 1 + case_count - refused),
                 1 + case_count - refused);
}

// --- peers that say nothing, or not enough ---

static const struct bad quiet[] = {
    {"silence", "", NOTHING, AT_ONCE, STAY, "the client did not send its request in time"},
    {"no fd", GOOD, NOTHING, AT_ONCE, STAY, "no userfaultfd came with the handshake in time"},
    {"half a text", "[{", UFFD, AT_ONCE, STAY, "the client did not send its request in time"},
};

Test(handshake, silence_ends_in_refusal)
{
    static const char *const options[] = {"--handshake-timeout", "200", NULL};
    struct good good;
    begin(&good, options);
    for (unsigned i = 0; i < 3; i++)
        visit(quiet[i], &good);
    end(&good, 3);
}

Test(handshake, looking_whether_somebody_listens_is_not_logged)
{
    struct good good;
    begin(&good, NULL);
    unsigned before = server_descriptors(&world->server);
    for (unsigned i = 0; i < 50; i++)
        close(vmm_connect(world->socket));
    cr_assert(wait_until(descriptors_are, &before), "descriptors are left");
    end(&good, 0);
}

Test(handshake, two_hundred_silent_peers_delay_nobody)
{
    static const char *const options[] = {"--handshake-timeout", "3600000", NULL};
    struct good good;
    struct good second;
    int peers[200];
    begin(&good, options);
    unsigned before = server_descriptors(&world->server);
    for (unsigned i = 0; i < 200; i++)
        peers[i] = vmm_connect(world->socket);
    good_start(&second, world->socket, &world->memory);
    cr_assert_eq(good_end(&second), 0);
    for (unsigned i = 0; i < 200; i++)
        close(peers[i]);
    cr_assert(wait_until(descriptors_are, &before), "descriptors are left");
    end(&good, 0);
}

// More than the engine keeps waiting at a time, and none of them ever says a word: they make room.
Test(handshake, silent_peers_keep_nobody_out)
{
    static const char *const options[] = {"--handshake-timeout", "3600000", NULL};
    enum { PEERS = 1500 };
    static int peers[PEERS];
    struct rlimit limit;
    struct good good;
    struct good second;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    begin(&good, options);
    for (unsigned i = 0; i < PEERS; i++)
        peers[i] = vmm_connect(world->socket);
    good_start(&second, world->socket, &world->memory);
    cr_assert_eq(good_end(&second), 0);
    cr_assert(server_wait_log(&world->server, "while too many others wait", 1)); // then it counts
    cr_assert_geq(world_status(world, "", "refused"), PEERS - 1024);
    for (unsigned i = 0; i < PEERS; i++)
        close(peers[i]);
    cr_assert_eq(good_end(&good), 0);
    world_stop(world);
}

// --- userfaultfds that are not as they should be ---

static void hand_over(int uffd, const uint8_t *memory)
{
    static char text[TEXT_MAX];
    size_t length = expand(text, GOOD, memory);
    vmm_send(vmm_connect(world->socket), text, length, &uffd, 1);
}

// With fork events a fork waits until the engine has read of it: the child's memory is served (with
// poison) as well.
static int forking_main(int channel, struct client_shared *shared, void *arg)
{
    const uint8_t *memory = map_guest();
    int status = 0;
    (void)shared;
    (void)arg;
    hand_over(registered_uffd(memory, UFFD_FEATURE_EVENT_FORK), memory);
    pid_t child = fork();
    if (child == 0)
        _exit(*(const volatile uint8_t *)memory);
    CHECK(child > 0 && waitpid(child, &status, 0) == child, "fork");
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "the child ended with %#x",
          (unsigned)status);
    tell_test(channel, 'c');
    return *(const volatile uint8_t *)(memory + PAGE);
}

Test(handshake, fork_events_are_refused_and_children_poisoned)
{
    struct good good;
    struct client client;
    begin(&good, NULL);
    client_start(&client, forking_main, NULL);
    cr_assert(client_says(&client, 'c'));
    cr_assert_eq(client_wait(&client), SIGBUS_STATUS);
    cr_assert(
        server_wait_log(&world->server, "reason=\"its userfaultfd has fork, remap or unmap", 1));
    cr_assert(server_wait_log(&world->server, "reason=\"it is the child of a refused VM\"", 1));
    cr_assert(good_touch(&good, BUSY_PAGES));
    end(&good, 2);
}

// Two in one message: refused, and the toucher of the second gets its answer too.
static int two_main(int channel, struct client_shared *shared, void *arg)
{
    static char text[TEXT_MAX];
    const uint8_t *first = map_guest();
    const uint8_t *second = map_guest();
    int fds[] = {registered_uffd(first, 0), registered_uffd(second, 0)};
    size_t length = expand(text, GOOD, first);
    (void)channel;
    (void)shared;
    (void)arg;
    vmm_send(vmm_connect(world->socket), text, length, fds, 2);
    return *(const volatile uint8_t *)second;
}

Test(handshake, the_second_of_two_userfaultfds_is_answered)
{
    struct good good;
    struct client client;
    begin(&good, NULL);
    client_start(&client, two_main, NULL);
    cr_assert_eq(client_wait(&client), SIGBUS_STATUS);
    end(&good, 1);
}

static int unregistered_main(int channel, struct client_shared *shared, void *arg)
{
    const uint8_t *memory = map_guest();
    int uffd = vmm_open_uffd(VMM_1_12);
    (void)shared;
    (void)arg;
    vmm_enable(uffd, 0);
    hand_over(uffd, memory);
    CHECK(all_zero(memory, GUEST_BYTES), "memory of its own is not zero");
    tell_test(channel, 'z');
    await_test(channel, 'e');
    return 0;
}

// The engine cannot see what is registered: it attaches, and has nothing to do, not even at the
// end.
Test(handshake, unregistered_memory_harms_nobody)
{
    struct good good;
    struct client client;
    begin(&good, NULL);
    client_start(&client, unregistered_main, NULL);
    cr_assert(client_says(&client, 'z'));
    cr_assert(server_wait_log(&world->server, "event=attach", 2));
    cr_assert(good_touch(&good, BUSY_PAGES));
    world_stop(world);
    client_tell(&client, 'e');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(good_end(&good), 0, "it was released with wrong bytes");
    cr_assert_eq(server_count_log(&world->server, "event=refuse"), 0);
}
