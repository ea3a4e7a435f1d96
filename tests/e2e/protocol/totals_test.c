// SPDX-License-Identifier: Apache-2.0
//
// Totals go on, whatever becomes of the engine and of its keeper: no counter of /metrics and no
// bucket of a histogram is ever smaller than it was at the scrape before.
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"
#include "tests/e2e/protocol/metrics.h"
#include "tests/support/points.h"

TestSuite(totals, .init = need_userfaultfd, .fini = world_close, .timeout = 150);

enum { IMAGE_BYTES = 16 << 20, PAGES = IMAGE_BYTES / PAGE, KILLS = 8 };

static struct world *world;
static struct http_answer before;
static struct http_answer after;
static struct good good;

static void begin_with(const char *const *extra)
{
    world = world_make(DISTINCT, IMAGE_BYTES);
    world_serve(world, extra);
    good_start(&good, world->socket, &world->memory);
    cr_assert(good_touch(&good, PAGES / 8));
    metrics_scrape(world, &after);
}

static void begin(void)
{
    begin_with(NULL);
}

// --- what may not grow smaller ---

static bool ends_with(const char *name, size_t length, const char *end)
{
    size_t tail = strlen(end);
    return length >= tail && strncmp(name + length - tail, end, tail) == 0;
}

// Of the processes themselves, which are others now, nothing is a total.
static bool is_total(const char *line)
{
    size_t name = strcspn(line, "{ ");
    if (strncmp(line, "faultline_", strlen("faultline_")) != 0 || strstr(line, "_process_") != NULL)
        return false;
    return ends_with(line, name, "_total") || ends_with(line, name, "_bucket") ||
           ends_with(line, name, "_sum") || ends_with(line, name, "_count");
}

// Compares a new scrape with the last one. How many totals there are that were above 0.
static unsigned check_totals(void)
{
    char series[256];
    unsigned above = 0;
    before = after;
    metrics_scrape(world, &after);
    before.body = strstr(before.text, "\r\n\r\n") + 4;
    for (const char *line = before.body; *line != '\0'; line = strchr(line, '\n') + 1) {
        size_t length = strcspn(line, " \n");
        if (*line == '#' || length >= sizeof(series))
            continue;
        snprintf(series, sizeof(series), "%.*s", (int)length, line);
        if (!is_total(series))
            continue;
        double was = strtod(line + length, NULL);
        cr_assert_geq(metrics_value(&after, series), was, "%s was %g", series, was);
        above += was > 0;
    }
    return above;
}

// The engine's own numbers begin anew: it is another one.
static void check_is_another(void)
{
    cr_assert_neq(metrics_value(&after, "process_start_time_seconds"), -1);
    cr_assert_geq(metrics_value(&after, "faultline_engine_generation"), 2);
}

static void check_goes_on(void)
{
    double attached = metrics_value(&after, "faultline_vms_attached_total");
    double faults = metrics_value(&after, "faultline_faults_read_total");
    cr_assert_gt(faults, 0);
    cr_assert_gt(check_totals(), 40, "too few numbers were compared");
    check_is_another();
    cr_assert_eq(metrics_value(&after, "faultline_vms_attached_total"), attached);
    cr_assert(good_touch(&good, PAGES / 8));
    check_totals();
    cr_assert_gt(metrics_value(&after, "faultline_faults_read_total"), faults);
    cr_assert_eq(metrics_value_of(&after, "image_vms_attached_total", "image", "image"), 1);
    cr_assert_eq(metrics_value_of(&after, "image_faults_total", "image", "image"),
                 metrics_value(&after, "faultline_faults_read_total"));
}

static void end(void)
{
    cr_assert_eq(good_end(&good), 0);
    world_stop(world);
}

static void kill_engine(void)
{
    unsigned ready = server_count_log(&world->server, "event=engine_serving");
    world->server.deaths++;
    cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
    cr_assert(server_wait_log(&world->server, "event=engine_serving", ready + 1));
}

// --- an engine that dies while it goes on from another one's ---

static void go_on_through(const char *point)
{
    need_points();
    world = world_make(DISTINCT, IMAGE_BYTES);
    point_begin(world, point);
    world_serve(world, NULL);
    point_end();
    good_start(&good, world->socket, &world->memory);
    cr_assert(good_touch(&good, PAGES / 8));
    metrics_scrape(world, &after);
    double faults = metrics_value(&after, "faultline_faults_read_total");
    unsigned ready = server_count_log(&world->server, "event=engine_serving");
    world->server.deaths = 2;
    point_arm(world);
    cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
    cr_assert(wait_until(point_struck, world), "no engine came to %s", point);
    cr_assert(server_wait_log(&world->server, "event=engine_serving", ready + 2));
    check_totals();
    // Once each, and not twice.
    cr_assert_eq(metrics_value(&after, "faultline_vms_attached_total"), 1);
    cr_assert_leq(metrics_value(&after, "faultline_faults_read_total"), faults);
    end();
}

Test(totals, are_no_less_and_no_more_when_it_has_read_them)
{
    go_on_through("counters_carried");
}

Test(totals, are_no_less_and_no_more_when_it_has_said_so)
{
    go_on_through("counters_included");
}

// --- ends of engines and keepers ---

Test(totals, go_on_when_an_engine_is_killed)
{
    begin();
    double deaths = metrics_value(&after, "faultline_engine_deaths_total");
    kill_engine();
    check_goes_on();
    cr_assert_eq(metrics_value(&after, "faultline_engine_deaths_total"), deaths + 1);
    cr_assert_gt(metrics_value(&after, "faultline_takeover_stall_seconds"), 0);
    cr_assert_eq(metrics_value(&after, "faultline_takeover_duration_seconds_count"), 1);
    cr_assert_eq(metrics_value(&after, "faultline_attach_duration_seconds_count"), 1);
    kill_engine();
    check_goes_on();
    cr_assert_eq(metrics_value(&after, "faultline_takeover_duration_seconds_count"), 2);
    end();
}

static void upgrade(const char *more)
{
    char output[1024];
    const char *args[] = {"upgrade", "--control", temp_path(&world->temp, "control.sock"), more,
                          NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
}

static const char *const short_trial[] = {"--upgrade-trial", "200", NULL};

Test(totals, go_on_with_an_upgrade)
{
    begin_with(short_trial);
    upgrade(NULL);
    check_goes_on();
    upgrade("--keeper");
    check_goes_on();
    kill_engine(); // the new keeper has them
    check_goes_on();
    end();
}

Test(totals, go_on_when_the_keeper_is_killed_and_then_the_engine)
{
    begin();
    server_kill_keeper(&world->server);
    cr_assert(server_wait_log(&world->server, "event=keeper_lost", 1));
    check_totals();
    cr_assert(server_serve(&world->server, &world->temp, world->store, NULL));
    check_totals();
    kill_engine();
    check_totals();
    check_totals();
    cr_assert_eq(metrics_value_of(&after, "image_vms_attached_total", "image", "image"), 1);
    cr_assert_eq(metrics_value(&after, "faultline_vms_attached_total"), 1);
    end();
}

static bool a_scrape_works(void *arg)
{
    (void)arg;
    return http_ask(temp_path(&world->temp, "control.sock"), &before, "GET", "/metrics", "") == 200;
}

Test(totals, never_go_backwards_in_a_row_of_kills)
{
    begin();
    for (unsigned i = 0; i < KILLS; i++) {
        cr_assert(good_touch(&good, PAGES / 8));
        check_totals();
        unsigned ready = server_count_log(&world->server, "event=ready pid=");
        world->server.deaths++;
        cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
        cr_assert(good_touch(&good, 1));
        cr_assert(wait_until(a_scrape_works, NULL));
        check_totals();
        cr_assert(server_wait_log(&world->server, "event=ready pid=", ready + 1));
    }
    cr_assert_eq(metrics_value(&after, "faultline_vms_attached_total"), 1);
    end();
}
