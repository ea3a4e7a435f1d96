// SPDX-License-Identifier: Apache-2.0
//
// The log with a reader that does not read, and with peers that would fill it: VMs are served all
// the same, and every line is either there or counted.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"
#include "tests/e2e/protocol/http.h"

TestSuite(log, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

enum { IMAGE_BYTES = 4 << 20, PIPE_BYTES = 4096, LINE = 4096 };

static struct world *world;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// --- a pipe that is not read ---

// The server's log is a pipe that is full from the first line on. Returns its end to read from.
static int serve_into_full_pipe(void)
{
    static char socket[2 * TEST_PATH];
    static char control[2 * TEST_PATH];
    char fill[256];
    world = world_make(MIXED, IMAGE_BYTES);
    world_pack(world, world->file, "image");
    snprintf(socket, sizeof(socket), "%s", temp_path(&world->temp, "sockets/image.sock"));
    snprintf(control, sizeof(control), "%s", temp_path(&world->temp, "control.sock"));
    world->socket = socket;
    const char *path = temp_path(&world->temp, "full.log");
    cr_assert_eq(mkfifo(path, 0600), 0);
    int pipe = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    cr_assert_geq(pipe, 0);
    cr_assert_eq(fcntl(pipe, F_SETPIPE_SZ, PIPE_BYTES), PIPE_BYTES);
    memset(fill, '\n', sizeof(fill));
    while (write(pipe, fill, sizeof(fill)) > 0) {
    }
    const char *args[] = {
        "serve",     "--store", world->store, "--sockets", temp_path(&world->temp, "sockets"),
        "--control", control,   NULL};
    server_spawn(&world->server, &world->temp, "full", args);
    cr_assert(wait_until(socket_is_open, socket), "it waits for the reader of its log");
    return pipe;
}

// From now on the log is a file again, with what is in the pipe and comes later.
static void read_pipe(int pipe, int seconds_of_silence)
{
    char bytes[1 << 16];
    const char *path = temp_path(&world->temp, "read.log");
    int file = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    double last = seconds();
    cr_assert_geq(file, 0);
    while (seconds() < last + seconds_of_silence) {
        ssize_t got = read(pipe, bytes, sizeof(bytes));
        if (got > 0) {
            cr_assert_eq(write(file, bytes, (size_t)got), got);
            last = seconds();
        } else {
            const struct timespec pause = {.tv_nsec = 2000000};
            nanosleep(&pause, NULL);
        }
    }
    close(file);
    snprintf(world->server.log, sizeof(world->server.log), "%s", path);
}

static void serve_one(void)
{
    struct good good;
    double before = seconds();
    good_start(&good, world->socket, &world->memory);
    cr_assert_eq(good_end(&good), 0);
    cr_assert_lt(seconds() - before, 20.0);
}

// Lines of more than a KiB each: sockets with long paths. More than the queue has room for.
static void say_much(void)
{
    char directory[LINE] = "";
    char body[2 * LINE];
    static struct http_answer answer;
    char name[201];
    memset(name, 'd', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    snprintf(directory, sizeof(directory), "%s", temp_path(&world->temp, ""));
    for (unsigned depth = 0; depth < 6; depth++) {
        size_t used = strlen(directory);
        snprintf(directory + used, sizeof(directory) - used, "/%s", name);
        cr_assert_eq(mkdir(directory, 0755), 0, "%s: %s", directory, strerror(errno));
    }
    for (unsigned i = 0; i < 200; i++) {
        snprintf(body, sizeof(body), "{\"image\":\"image\",\"socket\":\"%s/%u\"}", directory, i);
        cr_assert_eq(http_ask(temp_path(&world->temp, "control.sock"), &answer, "POST",
                              "/v1/listeners", body),
                     201, "%s", answer.text);
    }
}

Test(log, one_that_is_never_read_holds_no_vm_up_and_not_the_end)
{
    int pipe = serve_into_full_pipe();
    serve_one();
    say_much();
    cr_assert_gt(world_status(world, "log", "dropped"), 0);
    serve_one();
    double before = seconds();
    read_pipe(pipe, 0); // nothing: the log is this empty file for who looks at it
    cr_assert_eq(server_stop(&world->server), 0);
    cr_assert_lt(seconds() - before, 20.0);
    close(pipe);
}

// The engine has seen that its keeper is gone; a new one would else be told that it has one.
static bool is_alone(void *control)
{
    static struct http_answer answer;
    return http_ask(control, &answer, "GET", "/metrics", "") == 200 &&
           strstr(answer.text, "\nfaultline_keeper_up 0\n");
}

// A new keeper brings a reader of its own: the engine does not wait for the old one any more.
Test(log, goes_on_with_the_reader_of_a_new_keeper)
{
    char control[TEST_PATH];
    int pipe = serve_into_full_pipe();
    serve_one();
    server_kill_keeper(&world->server);
    snprintf(control, sizeof(control), "%s", temp_path(&world->temp, "control.sock"));
    cr_assert(wait_until(is_alone, control));
    const char *args[] = {
        "serve",     "--store", world->store, "--sockets", temp_path(&world->temp, "sockets"),
        "--control", control,   NULL};
    server_spawn(&world->server, &world->temp, "next", args);
    cr_expect(server_wait_log(&world->server, "reason=\"a new keeper has come\"", 1));
    cr_expect_eq(server_stop(&world->server), 0);
    close(pipe);
}

// Until then it is kept; what is too much is counted, and said.
Test(log, what_was_not_read_in_time_is_there_or_counted)
{
    unsigned long lines = 0;
    char line[LINE];
    int pipe = serve_into_full_pipe();
    serve_one();
    say_much();
    unsigned long dropped = (unsigned long)world_status(world, "log", "dropped");
    cr_assert_gt(dropped, 0);
    read_pipe(pipe, 2);
    cr_assert_eq(server_logs(&world->server, "event=attach vm=1 ", 1), 1);
    cr_assert_eq(server_logs(&world->server, "event=detach vm=1 ", 1), 1);
    cr_assert_eq(server_logs(&world->server, "event=log_dropped", 1), 1);
    cr_assert(server_find_log(&world->server, "event=log_dropped", line, sizeof(line)));
    cr_assert_eq(sscanf(strstr(line, "lines="), "lines=%lu poison=0 kill=0 refuse=0", &lines), 1);
    cr_assert_eq(lines, dropped);
    // Each listener has a line of its own, and one that its path is long: there, or counted.
    unsigned shown = server_count_log(&world->server, "event=listen ") +
                     server_count_log(&world->server, "event=long_path ");
    unsigned long held = (unsigned long)world_status(world, "log", "held_back");
    cr_assert_eq(shown + dropped + held, 401, "%u shown, %lu dropped, %lu held back", shown,
                 dropped, held);
    close(pipe);
    cr_assert_eq(server_stop(&world->server), 0); // its log is a pipe without a reader now
}

// --- peers that fill the log ---

enum { FLOOD = 4000 };

static int flood_main(int channel, struct client_shared *shared, void *arg)
{
    (void)shared;
    (void)arg;
    for (unsigned i = 0; i < FLOOD; i++) {
        int socket = vmm_connect(world->socket);
        char byte = 0;
        vmm_send(socket, "nonsense", 8, NULL, 0);
        while (read(socket, &byte, 1) > 0) { // refused
        }
        close(socket);
    }
    tell_test(channel, 'd');
    return 0;
}

static bool all_refused(void *arg)
{
    (void)arg;
    return world_status(world, "", "refused") >= FLOOD;
}

static bool all_told(void *arg)
{
    char line[LINE];
    unsigned long held = 0;
    unsigned long *ret_held = arg;
    if (!server_find_log(&world->server, "event=log_held_back of=refuse image=image peer=\"pid ",
                         line, sizeof(line)))
        return false;
    sscanf(strstr(line, "lines="), "lines=%lu", &held);
    *ret_held = held;
    return true;
}

Test(log, a_flood_of_bad_handshakes_makes_few_lines_and_a_right_count)
{
    struct client flood;
    struct good good;
    unsigned long held = 0;
    world = world_make(MIXED, IMAGE_BYTES);
    world_serve(world, NULL);
    good_start(&good, world->socket, &world->memory);
    double before = seconds();
    client_start(&flood, flood_main, NULL);
    cr_assert(client_says(&flood, 'd'));
    cr_assert_eq(client_wait(&flood), 0);
    cr_assert(wait_until(all_refused, NULL));
    double took = seconds() - before;
    cr_assert(wait_until(all_told, &held));
    unsigned lines = server_count_log(&world->server, "event=refuse ");
    cr_assert_leq(lines, 100 + (unsigned)(10 * took) + 2, "%u lines in %.1f s", lines, took);
    if (took < 10) // else there is more than one line of it
        cr_assert_eq(lines + held, FLOOD, "%u lines, %lu held back", lines, held);
    cr_assert_eq(world_status(world, "log", "held_back"), FLOOD - (long long)lines);
    // Another client is refused with a line of its own.
    cr_assert_eq(good_end(&good), 0);
    serve_one();
    cr_assert_eq(server_logs(&world->server, "event=attach ", 2), 2);
    world_stop(world);
}

// --- levels ---

static unsigned lines_of(const char *level)
{
    char text[32];
    snprintf(text, sizeof(text), " level=%s ", level);
    return server_count_log(&world->server, text);
}

static void bad_and_good_peer(const char *level)
{
    static char socket[2 * TEST_PATH];
    world = world_make(MIXED, IMAGE_BYTES);
    world_pack(world, world->file, "image");
    snprintf(socket, sizeof(socket), "%s", temp_path(&world->temp, "sockets/image.sock"));
    world->socket = socket;
    const char *args[] = {"serve",
                          "--store",
                          world->store,
                          "--sockets",
                          temp_path(&world->temp, "sockets"),
                          "--control",
                          temp_path(&world->temp, "control.sock"),
                          "--log-level",
                          level,
                          NULL};
    server_spawn(&world->server, &world->temp, "level", args);
    cr_assert(wait_until(socket_is_open, socket));
    int bad = vmm_connect(socket);
    char byte = 0;
    vmm_send(bad, "nonsense", 8, NULL, 0);
    while (read(bad, &byte, 1) > 0) { // refused
    }
    close(bad);
    serve_one();
    cr_assert_eq(server_stop(&world->server), 0);
    cr_assert_eq(lines_of("error"), 0);
}

Test(log, has_the_levels_that_it_is_told_to_have)
{
    static const char *const levels[] = {"error", "warning", "info", "debug"};
    for (unsigned i = 0; i < 4; i++) {
        if (i > 0) { // world_close() ends the last
            memory_free(&world->memory);
            temp_remove(&world->temp);
        }
        bad_and_good_peer(levels[i]);
        cr_assert_eq(lines_of("warning") > 0, i >= 1, "at %s", levels[i]);
        cr_assert_eq(lines_of("info") > 0, i >= 2, "at %s", levels[i]);
        cr_assert_eq(lines_of("debug") > 0, i >= 3, "at %s", levels[i]);
    }
}
