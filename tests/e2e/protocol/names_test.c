// SPDX-License-Identifier: Apache-2.0
//
// Names and paths that somebody else has chosen: they forge no log line and write nothing to a
// terminal, and a path that is too long for an address is told of, and served.
#include <criterion/criterion.h>
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"

enum { IMAGE_BYTES = 2 << 20, OUTPUT_MAX = 1 << 16 };

static struct world *world;

static void begin(void)
{
    world = world_make(MIXED, IMAGE_BYTES);
    world_serve(world, NULL);
}

TestSuite(names, .init = need_userfaultfd, .fini = world_close, .timeout = 100);

static int listen_at(const char *path, char *output, size_t size)
{
    const char *args[] = {"listen",  "--control", temp_path(&world->temp, "control.sock"),
                          "--image", "image",     "--socket",
                          path,      NULL};
    return faultline_run(output, size, args);
}

static void expect_printable(const char *output)
{
    for (const char *at = output; *at; at++)
        cr_assert(*at == '\n' || !iscntrl((unsigned char)*at), "byte %d: %s", *at, output);
}

Test(names, a_listeners_path_forges_no_line_and_no_key)
{
    static const char *const hostile[] = {"a\nevent=attach vm=99", "b event=forged reason=none",
                                          "c\033[2J\033]0;title\007\r", "d\" event=quoted"};
    char output[OUTPUT_MAX];
    begin();
    for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++)
        cr_assert_eq(listen_at(temp_path(&world->temp, hostile[i]), output, sizeof(output)), 0,
                     "%s", output);
    cr_assert(server_wait_log(&world->server, "event=listen image=image", 5));
    cr_assert_eq(server_logs(&world->server, "event=attach vm=99", 1), 1,
                 "within the line of its listener");
    cr_assert_eq(server_logs(&world->server, "socket=\"", 4), 4, "quoted");
    cr_assert_eq(server_count_log(&world->server, "\033"), 0);
    cr_assert_eq(server_count_log(&world->server, "d\" event"), 0, "a quote does not end it");
    cr_assert_eq(server_count_log(&world->server, "vm=99\" "), 0);
    const char *list[] = {"listen", "--control", temp_path(&world->temp, "control.sock"), "--list",
                          NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), list), 0, "%s", output);
    expect_printable(output);
    cr_assert_not_null(strstr(output, "c?[2J"), "%s", output);
    world_stop(world);
}

Test(names, errors_print_no_control_characters)
{
    static const char *const verbs[][4] = {{"inspect", "\033[31mred", NULL},
                                           {"verify", "a\nb", NULL},
                                           {"\033[31mverb", NULL},
                                           {"pack", "--name", "a", "/no/\033[31m/file"},
                                           {"rm", "x\ry", NULL},
                                           {"ls", "--store", "/no/\033\n/store", NULL}};
    char output[OUTPUT_MAX];
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        const char *args[8] = {NULL};
        for (int k = 0; k < 4 && verbs[i][k]; k++)
            args[k] = verbs[i][k];
        cr_assert_neq(faultline_run(output, sizeof(output), args), 0);
        expect_printable(output);
        cr_assert_gt(strlen(output), 10);
    }
}

// The directory of sockets is deep: clients that connect by the path cannot reach these.
Test(names, a_socket_path_that_is_too_long_is_told_of)
{
    char directory[200];
    char output[OUTPUT_MAX];
    begin();
    snprintf(directory, sizeof(directory), "%s/%0100d", temp_path(&world->temp, "deep"), 0);
    cr_assert_eq(mkdir(temp_path(&world->temp, "deep"), 0755), 0);
    cr_assert_eq(mkdir(directory, 0755), 0);
    char path[256];
    snprintf(path, sizeof(path), "%s/image.sock", directory);
    cr_assert_eq(listen_at(path, output, sizeof(output)), 0, "%s", output);
    cr_assert(server_wait_log(&world->server, "event=long_path socket=", 1));
    cr_assert_eq(server_logs(&world->server, "event=long_path", 1), 1, "and of no other");
    struct good good; // our client connects to any length
    good_start(&good, path, &world->memory);
    cr_assert_eq(good_end(&good), 0);
    world_stop(world);
}

Test(names, pack_says_that_a_name_is_too_long_for_a_socket)
{
    char output[OUTPUT_MAX];
    char name[129];
    begin();
    memset(name, 'n', sizeof(name) - 1);
    name[128] = '\0';
    const char *args[] = {
        "pack", "--store", world->store, "--name", name, temp_path(&world->temp, "memory"), NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
    cr_assert_not_null(strstr(output, "107"), "%s", output);
    cr_assert(server_wait_log(&world->server, "event=long_path socket=", 1));
    name[60] = '\0';
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
    cr_assert_null(strstr(output, "107"), "%s", output);
    cr_assert(server_wait_log(&world->server, "event=listen image=nnn", 2));
    world_stop(world);
}
