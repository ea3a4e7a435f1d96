// SPDX-License-Identifier: Apache-2.0
//
// The doors of the control API: who may read and who may order at each, the listener of the
// metrics, and that none of them is lost.
#include <criterion/criterion.h>
#include <grp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"
#include "tests/e2e/protocol/http.h"

TestSuite(doors, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

#define PORT "127.0.0.1:9642"
enum {
    IMAGE_BYTES = 1 << 20,
    STRANGER = 65533,
    GROUP = 4711,
    DEATHS = 3,
    SCRAPES = 20,
    ASKED = 64,
    OBSERVERS = 16
};

static struct world *world;
static struct http_answer answer;
// temp_path() keeps few.
static char control[2 * TEST_PATH];
static char observe[2 * TEST_PATH];

// A loopback of the test's own, so that its ports are free.
static void own_network(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    cr_assert_eq(unshare(CLONE_NEWNET), 0, "it is not root");
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0);
    close(fd);
}

static void prepare(void)
{
    own_network();
    world = world_make(MIXED, IMAGE_BYTES);
    cr_assert_eq(chmod(world->temp.path, 0755), 0); // others must come to the sockets
    snprintf(control, sizeof(control), "%s", temp_path(&world->temp, "control.sock"));
    snprintf(observe, sizeof(observe), "%s", temp_path(&world->temp, "observe.sock"));
}

static void begin(const char *const *options)
{
    prepare();
    world_serve(world, options);
}

static int ask(const char *place, const char *method, const char *path, const char *body)
{
    return http_ask(place, &answer, method, path, body);
}

// `generation`: of the engine that comes, under its keeper.
static void die_once(unsigned generation)
{
    world->server.deaths++;
    cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
    cr_assert(server_wait_log(&world->server, "event=engine_serving", generation));
}

static bool is_draining(void)
{
    cr_assert_eq(ask(control, "GET", "/metrics", ""), 200, "%s", answer.text);
    return strstr(answer.body, "\nfaultline_draining 1\n") != NULL;
}

// --- the listener of the metrics ---

static void check_metrics_door(const char *place)
{
    static const char *const there[] = {"/metrics", "/healthz", "/readyz"};
    static const char *const orders[] = {"/v1/drain", "/v1/upgrade", "/v1/listeners",
                                         "/v1/recordings", "/v1/templates"};
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(ask(place, "GET", there[i], ""), 200, "%s: %s", there[i], answer.text);
        cr_assert_eq(ask(place, "HEAD", there[i], ""), 200, "%s: %s", there[i], answer.text);
        cr_assert_str_eq(answer.body, "");
        cr_assert_eq(ask(place, "POST", there[i], "{}"), 405, "%s: %s", there[i], answer.text);
        cr_assert_not_null(strstr(answer.text, "\r\nAllow: GET, HEAD\r\n"), "%s", answer.text);
    }
    for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        cr_assert_eq(ask(place, "POST", orders[i], "{}"), 404, "%s", answer.text);
        cr_assert_eq(ask(place, "GET", orders[i], ""), 404, "%s", answer.text);
    }
    cr_assert_eq(ask(place, "GET", "/v1/status", ""), 404, "%s", answer.text);
    cr_assert(http_says(&answer, "there is no such path as /v1/status here, but these: /metrics, "
                                 "/healthz, /readyz"));
    cr_assert_eq(ask(control, "GET", "/metrics", ""), 200);
    cr_assert_not_null(strstr(answer.body, "\nfaultline_draining 0\n"));
}

Test(doors, metrics_can_be_read_by_tcp_and_nothing_ordered)
{
    begin((const char *[]){"--metrics", PORT, NULL});
    check_metrics_door(PORT);
    cr_assert_eq(http_connect("[::1]:9642"), -1, "it listens elsewhere, too");
    world_stop(world);
    cr_assert_eq(http_connect(PORT), -1);
}

Test(doors, metrics_can_be_read_at_every_address)
{
    begin((const char *[]){"--metrics", ":9642", NULL});
    check_metrics_door("[::1]:9642");
    check_metrics_door("127.0.0.2:9642");
    world_stop(world);
}

Test(doors, metrics_can_be_read_at_an_address_of_ipv6)
{
    begin((const char *[]){"--metrics", "[::1]:9642", NULL});
    check_metrics_door("[::1]:9642");
    cr_assert_eq(http_connect(PORT), -1, "it listens elsewhere, too");
    die_once(2);
    check_metrics_door("[::1]:9642");
    world_stop(world);
}

Test(doors, metrics_can_be_read_at_a_socket)
{
    char path[2 * TEST_PATH];
    struct stat status;
    prepare();
    snprintf(path, sizeof(path), "%s", temp_path(&world->temp, "metrics.sock"));
    world_serve(world, (const char *[]){"--metrics", path, "--observe-mode", "0604", NULL});
    cr_assert_eq(stat(path, &status), 0);
    cr_assert_eq(status.st_mode & 07777, 0604);
    check_metrics_door(path);
    cr_assert_eq(unlink(path), 0);
    cr_assert(wait_until(socket_is_open, path), "the socket does not come back");
    check_metrics_door(path);
    world_stop(world);
    cr_assert_neq(stat(path, &status), 0, "a socket is left");
}

// --- a port that is taken, or is no port ---

Test(doors, a_port_that_is_taken_is_one_sentence)
{
    char output[4096];
    char other[2 * TEST_PATH];
    begin((const char *[]){"--metrics", PORT, NULL});
    snprintf(other, sizeof(other), "%s", temp_path(&world->temp, "other.sock"));
    const char *args[] = {
        "serve",     "--store", world->store, "--sockets", temp_path(&world->temp, "others"),
        "--control", other,     "--metrics",  PORT,        NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 1, "%s", output);
    cr_assert_not_null(strstr(output, "faultline serve: the server cannot listen at " PORT
                                      ": another process uses this port\n"),
                       "%s", output);
    cr_assert_null(strstr(output, "degraded"), "%s", output);
    args[8] = "192.0.2.1:9642";
    cr_assert_eq(faultline_run(output, sizeof(output), args), 1, "%s", output);
    cr_assert_not_null(strstr(output, "192.0.2.1:9642: this host has no such address\n"), "%s",
                       output);
    check_metrics_door(PORT);
    world_stop(world);
}

Test(doors, what_is_no_address_is_said)
{
    static const char *const bad[] = {
        "9642",  "localhost:9642", "127.0.0.1",    "127.0.0.1:0",   "127.0.0.1:65536", "::1:9642",
        "[::1]", "[127.0.0.1]:80", "256.0.0.1:80", "127.0.0.1:80x", "metrics.sock",    ":"};
    char output[4096];
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *args[] = {"serve", "--metrics", bad[i], NULL};
        cr_assert_eq(faultline_run(output, sizeof(output), args), 2, "%s: %s", bad[i], output);
        cr_assert_not_null(strstr(output, "is neither an address and a port"), "%s", output);
    }
}

// --- no client is refused while engines come and go ---

// Asks again and again; a connection that is refused ends it.
static int scrape_main(int channel, struct client_shared *shared, void *arg)
{
    static const char request[] = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    char buffer[4096];
    char byte;
    (void)arg;
    while (recv(channel, &byte, 1, MSG_DONTWAIT) < 0) {
        bool any = false;
        int fd = http_connect(PORT);
        CHECK(fd >= 0, "the port cannot be connected to");
        if (send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) > 0) {
            while (recv(fd, buffer, sizeof(buffer), 0) > 0)
                any = true;
        }
        shared->progress += any;
        close(fd);
    }
    return 0;
}

static void scrape_some(struct client *scraper)
{
    cr_assert(client_progressed(scraper, scraper->shared->progress + SCRAPES), "%s",
              client_failure());
}

Test(doors, a_port_outlives_engines_and_keepers)
{
    struct client scraper;
    char output[4096];
    begin((const char *[]){"--metrics", PORT, "--upgrade-trial", "500", NULL});
    client_start(&scraper, scrape_main, NULL);
    for (unsigned i = 0; i < DEATHS; i++) {
        scrape_some(&scraper);
        die_once(i + 2);
    }
    scrape_some(&scraper);
    const char *args[] = {"upgrade", "--control", control, "--keeper", NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
    cr_assert(server_wait_log(&world->server, "event=keeper_exec", 1));
    scrape_some(&scraper);
    die_once(DEATHS + 3);
    scrape_some(&scraper);
    client_tell(&scraper, 'e');
    cr_assert_eq(client_wait(&scraper), 0, "%s", client_failure());
    check_metrics_door(PORT);
    world_stop(world);
}

// A keeper that comes with other options: they are those of its next engine.
static void new_keeper(const char *const *options)
{
    const char *args[SERVER_ARGS] = {
        "serve",     "--store", world->store, "--sockets", temp_path(&world->temp, "sockets"),
        "--control", control};
    unsigned count = 7;
    for (unsigned i = 0; options[i]; i++)
        args[count++] = options[i];
    server_kill_keeper(&world->server);
    server_spawn(&world->server, &world->temp, "next", args);
    cr_assert(server_wait_log(&world->server, "event=took_over", 1));
    cr_assert(server_wait_log(&world->server, "event=engine_ready", 1));
}

Test(doors, a_successor_listens_where_it_is_told_to)
{
    struct stat status;
    prepare();
    world_serve(world, (const char *[]){"--metrics", PORT, "--observe", observe, NULL});
    new_keeper((const char *[]){"--metrics", "127.0.0.1:9643", NULL});
    check_metrics_door(PORT); // the engine is the one that there was
    die_once(2);
    check_metrics_door("127.0.0.1:9643");
    cr_assert_eq(http_connect(PORT), -1, "the port of before is still open");
    cr_assert_neq(stat(observe, &status), 0, "the socket of before is still there");
    world_stop(world);
}

static bool connects(void *place)
{
    int fd = http_connect(place);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static bool is_refused(void *place)
{
    return !connects(place);
}

// The port stays, and the socket of before stands in the way.
Test(doors, a_successor_listens_at_more_addresses_or_fewer)
{
    prepare();
    world_serve(world, (const char *[]){"--metrics", PORT, NULL});
    new_keeper((const char *[]){"--metrics", ":9642", NULL});
    die_once(2);
    cr_assert(wait_until(connects, "[::1]:9642"));
    check_metrics_door("[::1]:9642");
    check_metrics_door(PORT);
    new_keeper((const char *[]){"--metrics", PORT, NULL});
    die_once(2);
    cr_assert(wait_until(is_refused, "[::1]:9642"));
    cr_assert(wait_until(connects, PORT));
    check_metrics_door(PORT);
    world_stop(world);
}

// --- many observers ---

// Of the status that comes.
static double uptime_of(int fd)
{
    char text[1 << 14] = "";
    size_t used = 0;
    ssize_t got = 1;
    const char *uptime = NULL;
    while (!uptime && got > 0 && used + 1 < sizeof(text)) {
        got = recv(fd, text + used, sizeof(text) - used - 1, 0);
        used += got > 0 ? (size_t)got : 0;
        text[used] = '\0';
        uptime = strstr(text, "\"uptime_seconds\":");
    }
    cr_assert_not_null(uptime, "%s", text);
    return strtod(uptime + strlen("\"uptime_seconds\":"), NULL);
}

// All who ask in one turn get the same: however many they are, it is made once.
Test(doors, a_status_is_made_once_for_all_observers_of_a_turn)
{
    static const char request[] = "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    int fd[OBSERVERS];
    begin((const char *[]){"--observe", observe, NULL});
    server_pause(&world->server);
    for (unsigned i = 0; i < OBSERVERS; i++) {
        fd[i] = http_connect(observe);
        cr_assert_geq(fd[i], 0);
        cr_assert_gt(send(fd[i], request, sizeof(request) - 1, 0), 0);
    }
    server_resume(&world->server);
    unsigned same = 0;
    double before = 0;
    for (unsigned i = 0; i < OBSERVERS; i++) {
        double uptime = uptime_of(fd[i]);
        same += uptime == before;
        before = uptime;
        close(fd[i]);
    }
    cr_expect_geq(same, OBSERVERS / 2, "%u of %d", same, (int)OBSERVERS);
    world_stop(world);
}

// --- no file can be opened ---

// A door that can accept no client tries again, and neither at once nor with a line of the log each
// time.
Test(doors, a_door_that_can_open_no_file_waits)
{
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    char buffer[4096];
    struct rlimit before;
    begin((const char *[]){"--observe", observe, NULL});
    pid_t engine = server_engine(&world->server);
    int asks = http_connect(control);
    cr_assert_geq(asks, 0);
    cr_assert_eq(send(asks, request, sizeof(request) - 1, 0), (ssize_t)sizeof(request) - 1);
    cr_assert_gt(recv(asks, buffer, sizeof(buffer), 0), 0); // it is accepted
    cr_assert_eq(prlimit(engine, RLIMIT_NOFILE, NULL, &before), 0);
    const struct rlimit none = {.rlim_cur = 3, .rlim_max = before.rlim_max};
    cr_assert_eq(prlimit(engine, RLIMIT_NOFILE, &none, NULL), 0);
    int waits = http_connect(observe);
    cr_assert_geq(waits, 0);
    cr_assert(server_wait_log(&world->server, "event=control_api", 1));
    for (unsigned i = 0; i < ASKED; i++) {
        cr_assert_eq(send(asks, request, sizeof(request) - 1, 0), (ssize_t)sizeof(request) - 1);
        cr_assert_gt(recv(asks, buffer, sizeof(buffer), 0), 0);
    }
    cr_expect_lt(server_count_log(&world->server, "event=control_api"), ASKED / 2);
    cr_assert_eq(prlimit(engine, RLIMIT_NOFILE, &before, NULL), 0);
    cr_assert_eq(send(waits, request, sizeof(request) - 1, 0), (ssize_t)sizeof(request) - 1);
    cr_assert_gt(recv(waits, buffer, sizeof(buffer), 0), 0);
    cr_assert_eq(strncmp(buffer, "HTTP/1.1 200", 12), 0);
    close(waits);
    close(asks);
    world_stop(world);
}

// --- observers ---

static const char *const all_gets[] = {"/v1/status",    "/v1/listeners", "/v1/recordings",
                                       "/v1/histories", "/v1/templates", "/metrics",
                                       "/healthz",      "/readyz"};
static const char *const all_orders[][2] = {
    {"POST", "/v1/drain"},       {"POST", "/v1/upgrade"},     {"POST", "/v1/listeners"},
    {"DELETE", "/v1/listeners"}, {"POST", "/v1/recordings"},  {"DELETE", "/v1/recordings"},
    {"POST", "/v1/histories"},   {"DELETE", "/v1/histories"}, {"POST", "/v1/templates"},
    {"DELETE", "/v1/templates"}, {"POST", "/v1/huge"},
};

struct peer {
    uid_t uid;
    gid_t gid;
    gid_t extra; // one more group; 0: none
};

// As another user: the status of the answer, or 255 if it cannot connect; the sentence in `answer`
// is the child's alone.
static int ask_as(struct peer peer, const char *place, const char *method, const char *path,
                  const char *body, const char *says)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        if (setgroups(peer.extra != 0, &peer.extra) != 0 ||
            setresgid(peer.gid, peer.gid, peer.gid) != 0 ||
            setresuid(peer.uid, peer.uid, peer.uid) != 0)
            _exit(254);
        int fd = http_connect(place);
        if (fd < 0)
            _exit(255);
        close(fd);
        ask(place, method, path, body);
        if (says && !strstr(answer.body, says))
            _exit(253);
        _exit(answer.status / 100 * 50 + answer.status % 50);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

enum { SAID_200 = 100, SAID_400 = 200, SAID_403 = 203, SAID_404 = 204, CANNOT = 255 };

Test(doors, an_observer_reads_all_and_orders_nothing)
{
    static const struct peer root = {0, 0, 0};
    static const struct peer stranger = {STRANGER, STRANGER, 0};
    prepare();
    world_serve(world, (const char *[]){"--observe", observe, "--observe-mode", "666", NULL});
    for (unsigned i = 0; i < sizeof(all_gets) / sizeof(all_gets[0]); i++) {
        cr_assert_eq(ask_as(stranger, observe, "GET", all_gets[i], "", NULL), SAID_200, "%s",
                     all_gets[i]);
        cr_assert_eq(ask_as(stranger, observe, "HEAD", all_gets[i], "", NULL), SAID_200);
    }
    for (unsigned i = 0; i < sizeof(all_orders) / sizeof(all_orders[0]); i++) {
        cr_assert_eq(ask_as(stranger, observe, all_orders[i][0], all_orders[i][1], "{}",
                            "is an order, and this socket is for observers"),
                     SAID_403, "%s %s", all_orders[i][0], all_orders[i][1]);
        cr_assert_eq(ask_as(root, observe, all_orders[i][0], all_orders[i][1], "", NULL), SAID_403);
    }
    cr_assert_eq(ask_as(stranger, control, "GET", "/v1/status", "", NULL), CANNOT);
    cr_assert_not(is_draining());
    cr_assert_eq(unlink(observe), 0);
    cr_assert(wait_until(socket_is_open, observe), "the socket does not come back");
    cr_assert_eq(ask_as(stranger, observe, "GET", "/v1/status", "", NULL), SAID_200);
    world_stop(world);
}

Test(doors, an_observers_socket_has_its_owner)
{
    static const struct peer member = {STRANGER, GROUP, 0};
    static const struct peer stranger = {STRANGER, STRANGER, 0};
    prepare();
    world_serve(world, (const char *[]){"--observe", observe, "--observe-owner", "0:4711", NULL});
    cr_assert_eq(ask_as(member, observe, "GET", "/v1/status", "", NULL), SAID_200);
    cr_assert_eq(ask_as(stranger, observe, "GET", "/v1/status", "", NULL), CANNOT);
    world_stop(world);
}

// --- the control socket ---

Test(doors, at_the_control_socket_the_owner_orders_and_the_group_reads)
{
    static const struct peer owner = {STRANGER - 1, STRANGER, 0};
    static const struct peer member = {STRANGER, GROUP, 0};
    static const struct peer in_group = {STRANGER, STRANGER, GROUP};
    static const struct peer stranger = {STRANGER, STRANGER, 0};
    begin((const char *[]){"--control-owner", "65532:4711", "--control-mode", "0660", NULL});
    cr_assert_eq(ask_as(owner, control, "GET", "/v1/status", "", NULL), SAID_200);
    cr_assert_eq(ask_as(owner, control, "POST", "/v1/listeners", "{\"x\":1}", NULL), SAID_400);
    cr_assert_eq(ask_as(member, control, "GET", "/v1/status", "", NULL), SAID_200);
    for (unsigned i = 0; i < sizeof(all_orders) / sizeof(all_orders[0]); i++)
        cr_assert_eq(ask_as(member, control, all_orders[i][0], all_orders[i][1], "{}",
                            "is an order, and user 65533 may read here and not order"),
                     SAID_403);
    cr_assert_eq(ask_as(in_group, control, "GET", "/v1/status", "", NULL), SAID_200);
    cr_assert_eq(ask_as(in_group, control, "POST", "/v1/drain", "", NULL), SAID_403);
    cr_assert_eq(ask_as(stranger, control, "GET", "/v1/status", "", NULL), CANNOT);
    cr_assert_eq(ask(control, "POST", "/v1/listeners", "{\"x\":1}"), 400, "root may order");
    cr_assert_not(is_draining());
    die_once(2); // a successor has the same access
    cr_assert_eq(ask_as(member, control, "POST", "/v1/drain", "", NULL), SAID_403);
    world_stop(world);
}

Test(doors, the_group_orders_where_it_is_allowed_to)
{
    static const struct peer member = {STRANGER, GROUP, 0};
    static const struct peer in_group = {STRANGER, STRANGER, GROUP};
    static const struct peer stranger = {STRANGER, STRANGER, 0};
    begin((const char *[]){"--control-owner", "0:4711", "--control-mode", "0666",
                           "--control-orders", "group", NULL});
    cr_assert_eq(ask_as(stranger, control, "GET", "/v1/status", "", NULL), SAID_200);
    cr_assert_eq(ask_as(stranger, control, "POST", "/v1/drain", "", NULL), SAID_403);
    cr_assert_eq(ask_as(in_group, control, "DELETE", "/v1/listeners", "{\"socket\":\"/no\"}", NULL),
                 SAID_404);
    cr_assert_eq(ask_as(member, control, "POST", "/v1/drain", "", NULL), SAID_200);
    cr_assert(is_draining());
    world_stop(world);
}
