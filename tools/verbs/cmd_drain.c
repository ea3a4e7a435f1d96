// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "tools/cli/cli.h"
#include "tools/cli/control_client.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/cli/progress.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/verbs.h"

enum { LOOK_EVERY_MS = 200 };

// Counts of VMs that did not get all of their memory.
struct ends {
    json_int_t poisoned;       // VMs that were let go with poisoned pages
    json_int_t poisoned_pages; // their pages
    json_int_t killed;
};

struct drain {
    const char *control;
    bool populate;
    bool json;
    uint64_t timeout_s; // 0: none
    json_int_t engine;  // pid of the engine that answered last
    struct ends before; // its counts in that answer
    struct ends ends;   // the sum since the drain began
};

static const struct cli_option options[] = {
    CLI_FLAG(
        struct drain, populate, .name = "populate",
        .help =
            "give VMs all memory that they miss, and let them go: they run on without Faultline"),
    CLI_TIME_S(struct drain, timeout_s, .name = "timeout", .value = "TIME", .low = 1, .high = DAY_S,
               .help = "stop waiting after this time; the server goes on draining",
               .otherwise = "wait for ever"),
    CLI_JSON(struct drain, json),
    CLI_CONTROL(struct drain, control),
    CLI_END,
};

static int64_t now_ms(void)
{
    return (int64_t)(fl_now() / FL_NS_PER_MS);
}

static void show_drain(const json_t *status, long long vms)
{
    size_t i;
    const json_t *vm;
    json_int_t pages = 0;
    json_int_t present = 0;
    if (!progress_is_drawn())
        return;
    json_array_foreach(json_object_get(status, "vm_list"), i, vm)
    {
        pages += json_integer_value(json_object_get(vm, "pages"));
        present += json_integer_value(json_object_get(vm, "installed"));
        present += json_integer_value(json_object_get(vm, "zeroed"));
    }
    double share = pages > 0 ? 100.0 * (double)present / (double)pages : 100;
    fprintf(stderr, "\r\033[Kdraining: %lld VM%s left, %.0f %% of their memory filled", vms,
            cli_s((uint64_t)vms), share);
    if (vms == 0)
        fputc('\n', stderr);
}

static json_int_t count_ended(const json_t *status, const char *key)
{
    return json_integer_value(json_object_get(json_object_get(status, "ended"), key));
}

// Adds what has happened since the last answer. An engine's counts begin with the engine, and a new
// engine may answer this time.
static void count_ends(struct drain *drain, const json_t *status, bool first)
{
    json_int_t engine = json_integer_value(json_object_get(status, "pid"));
    struct ends now = {count_ended(status, "poisoned"), count_ended(status, "poisoned_pages"),
                       count_ended(status, "killed")};
    if (!first && drain->engine != engine)
        drain->before = (struct ends){0};
    if (!first) {
        drain->ends.poisoned += now.poisoned - drain->before.poisoned;
        drain->ends.poisoned_pages += now.poisoned_pages - drain->before.poisoned_pages;
        drain->ends.killed += now.killed - drain->before.killed;
    }
    drain->engine = engine;
    drain->before = now;
}

// Gives the order, or asks for the status if order is NULL. Returns the number of VMs that are
// left, or -1 after a sentence.
static long long look_at_server(struct drain *drain, const json_t *order)
{
    json_t *status = NULL;
    int result = order ? control_order("drain", drain->control, "/v1/drain", order, &status)
                       : control_ask("drain", drain->control, "/v1/status", NULL, &status);
    if (result != EXIT_DONE)
        return -1;
    long long vms = json_integer_value(json_object_get(status, "vms"));
    show_drain(status, vms);
    count_ends(drain, status, order != NULL);
    json_decref(status);
    return vms;
}

// Prints what became of the VMs, and returns the exit status.
static int tell_ends(const struct drain *drain)
{
    const struct ends *ends = &drain->ends;
    if (ends->poisoned == 0 && ends->killed == 0)
        return EXIT_DONE;
    cli_fail("drain",
             "not every VM got all of its memory: %lld VMs were let go with %lld poisoned pages, "
             "%lld were killed; the log of the server at %s says why",
             (long long)ends->poisoned, (long long)ends->poisoned_pages, (long long)ends->killed,
             drain->control);
    return EXIT_INCOMPLETE;
}

// What holds when it stops waiting, before the sentence if that is not all well.
static int print_drained(const struct drain *drain, long long vms)
{
    const struct ends *ends = &drain->ends;
    if (!drain->json)
        return EXIT_DONE;
    return store_print_json("drain", json_pack("{s:I,s:I,s:I,s:I}", "vms", (json_int_t)vms,
                                               "poisoned", ends->poisoned, "poisoned_pages",
                                               ends->poisoned_pages, "killed", ends->killed));
}

static int run_drain(struct drain *drain)
{
    json_t *order = json_pack("{s:b}", "populate", drain->populate);
    int64_t end = drain->timeout_s > 0 ? now_ms() + (int64_t)drain->timeout_s * 1000 : INT64_MAX;
    long long vms = look_at_server(drain, order);
    json_decref(order);
    while (vms > 0) {
        int64_t left = end - now_ms();
        if (left <= 0)
            print_drained(drain, vms);
        if (left <= 0)
            return cli_fail("drain", "%lld VM%s still depend%s on the server at %s", vms,
                            cli_s((uint64_t)vms), vms == 1 ? "s" : "", drain->control);
        poll(NULL, 0, left < LOOK_EVERY_MS ? (int)left : LOOK_EVERY_MS);
        vms = look_at_server(drain, NULL);
    }
    if (vms < 0 || print_drained(drain, vms) != EXIT_DONE)
        return EXIT_FAILED;
    return tell_ends(drain);
}

static int cmd_drain(int argc, char **argv)
{
    struct drain drain = {.control = NULL};
    int status = cli_parse(&verb_drain, &drain, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (optind != argc)
        return cli_usage("drain", "it takes no argument '%s'", argv[optind]);
    return run_drain(&drain);
}

const struct verb verb_drain = {
    .name = "drain",
    .run = cmd_drain,
    .summary = "have a running server take no new VM, and wait until none needs it",
    .synopsis = {"[OPTION...]"},
    .about = "Has a running server take no new VM, and waits until no VM depends on "
             "it any more. The images' sockets are removed, so that a restore fails "
             "at once. Without --populate, this waits for the VMs to end. An order "
             "to drain cannot be taken back, and an upgraded engine goes on "
             "draining; to serve again, end the server (SIGTERM) and start it.",
    .status = "0 if no VM depends on the server; 3 likewise, but VMs were killed "
              "meanwhile or let go with poisoned pages; 1 if VMs are left.",
    .options = options,
};
