// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/cli/cli.h"
#include "tools/cli/control_client.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/verbs/verbs.h"

struct arguments {
    const char *control;
    bool json;
};

static const struct cli_option options[] = {
    CLI_FLAG(struct arguments, json, .name = "json",
             .help = "print the state as JSON (docs/control-api.md)"),
    CLI_CONTROL(struct arguments, control),
    CLI_END,
};

static json_int_t status_number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static double status_real(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static const char *status_text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value && *value ? value : "-";
}

static void print_totals(const json_t *status)
{
    char used[32];
    char limit[32];
    char resident[32];
    const json_t *faults = json_object_get(status, "faults");
    const json_t *latency = json_object_get(status, "latency_us");
    const json_t *cache = json_object_get(status, "cache");
    const json_t *memory = json_object_get(status, "memory");
    printf("server    faultline %s, pid %lld, %lld worker%s, up %.0f s\n",
           status_text(status, "version"), (long long)status_number(status, "pid"),
           (long long)status_number(status, "workers"),
           cli_s((uint64_t)status_number(status, "workers")),
           status_real(status, "uptime_seconds"));
    printf("VMs       %lld now, %lld ever, %lld handshake%s refused\n",
           (long long)status_number(status, "vms"), (long long)status_number(status, "attached"),
           (long long)status_number(status, "refused"),
           cli_s((uint64_t)status_number(status, "refused")));
    printf("faults    %lld installed, %lld zeroed, %lld poisoned, %lld duplicate, %lld waiting\n",
           (long long)status_number(faults, "installed"),
           (long long)status_number(faults, "zeroed"), (long long)status_number(faults, "poisoned"),
           (long long)status_number(faults, "duplicates"),
           (long long)status_number(faults, "parked"));
    printf("latency   p50 %.1f us, p90 %.1f us, p99 %.1f us, max %.1f us\n",
           status_real(latency, "p50"), status_real(latency, "p90"), status_real(latency, "p99"),
           status_real(latency, "max"));
    printf("frames    %s of %s, %lld hits, %lld misses, %lld read errors\n",
           cli_format_bytes((uint64_t)status_number(cache, "bytes"), used, sizeof(used)),
           cli_format_bytes((uint64_t)status_number(cache, "limit"), limit, sizeof(limit)),
           (long long)status_number(cache, "hits"), (long long)status_number(cache, "misses"),
           (long long)status_number(cache, "read_errors"));
    printf("memory    %s resident\n", cli_format_bytes((uint64_t)status_number(memory, "resident"),
                                                       resident, sizeof(resident)));
}

static void print_keeper(const json_t *keeper)
{
    if (!json_is_object(keeper))
        printf("keeper    NONE: if this engine dies, no other one replaces it\n");
    else
        printf("keeper    pid %lld, standby engine %lld, %lld engine death%s\n",
               (long long)status_number(keeper, "pid"),
               (long long)status_number(keeper, "standby_pid"),
               (long long)status_number(keeper, "deaths"),
               cli_s((uint64_t)status_number(keeper, "deaths")));
}

static void print_replay(const json_t *replay)
{
    bool scarce = json_is_true(json_object_get(replay, "scarce")) ||
                  json_is_true(json_object_get(replay, "huge_scarce"));
    if (!json_is_true(json_object_get(replay, "on"))) {
        printf("replay    off\n");
        return;
    }
    printf("replay    %lld running, %lld done, %lld pages, %lld late%s\n",
           (long long)status_number(replay, "running"), (long long)status_number(replay, "done"),
           (long long)status_number(replay, "pages"), (long long)status_number(replay, "late"),
           scarce ? ", PAUSED: memory is scarce" : "");
}

static void print_degraded(const json_t *degraded)
{
    size_t i;
    const json_t *lack;
    json_array_foreach(degraded, i, lack)
        printf("DEGRADED  %s: %s\n", status_text(lack, "what"), status_text(lack, "reason"));
}

static void print_lanes(const json_t *lanes)
{
    uint64_t vms = (uint64_t)status_number(lanes, "vms");
    if (vms > 0)
        printf("lanes     %lld VM%s make%s the server wait (memory limit), %lld of these in the "
               "kernel now\n",
               (long long)vms, cli_s(vms), vms == 1 ? "s" : "",
               (long long)status_number(lanes, "blocked"));
}

static void print_shortage(const json_t *status)
{
    const json_t *shortage = json_object_get(status, "shortage");
    const json_t *pool = json_object_get(status, "huge_pages");
    uint64_t vms = (uint64_t)status_number(shortage, "vms");
    if (vms > 0)
        printf(
            "SHORTAGE  %lld VM%s lack%s memory for pages; pages of 2 MiB: %lld in the pool, %lld "
            "free, %lld of these reserved\n",
            (long long)vms, cli_s(vms), vms == 1 ? "s" : "",
            (long long)status_number(pool, "total"), (long long)status_number(pool, "free"),
            (long long)status_number(pool, "reserved"));
}

// Prints what only an order brings about: recordings, templates, draining.
static void print_asked_for(const json_t *status)
{
    char used[32];
    char limit[32];
    const json_t *recordings = json_object_get(status, "recordings");
    const json_t *templates = json_object_get(status, "templates");
    size_t count = json_array_size(json_object_get(templates, "list"));
    if (status_number(recordings, "orders") > 0)
        printf("record    %lld order%s, %lld VMs now, %lld pages\n",
               (long long)status_number(recordings, "orders"),
               cli_s((uint64_t)status_number(recordings, "orders")),
               (long long)status_number(recordings, "vms"),
               (long long)status_number(recordings, "pages"));
    if (count > 0)
        printf("templates %zu, %s of %s\n", count,
               cli_format_bytes((uint64_t)status_number(templates, "bytes"), used, sizeof(used)),
               cli_format_bytes((uint64_t)status_number(templates, "limit"), limit, sizeof(limit)));
    if (json_is_true(json_object_get(status, "draining")))
        printf("DRAINING  the server takes no new VM\n");
}

static void print_vms(const json_t *vms)
{
    size_t i;
    const json_t *vm;
    if (json_array_size(vms) == 0)
        return;
    printf("\n%6s  %-24s %8s  %-9s %9s %9s %9s %9s\n", "VM", "IMAGE", "PID", "STATE", "MEMORY",
           "PRESENT", "REMOVED", "FAULTS");
    json_array_foreach(vms, i, vm)
    {
        char memory[32];
        char present[32];
        char removed[32];
        uint64_t there = (uint64_t)(status_number(vm, "installed") + status_number(vm, "zeroed"));
        printf("%6lld  %-24s %8lld  %-9s %9s %9s %9s %9lld\n", (long long)status_number(vm, "id"),
               status_text(vm, "image"), (long long)status_number(vm, "pid"),
               status_text(vm, "state"),
               cli_format_bytes((uint64_t)status_number(vm, "pages") << 12, memory, sizeof(memory)),
               cli_format_bytes(there << 12, present, sizeof(present)),
               cli_format_bytes((uint64_t)status_number(vm, "removed") << 12, removed,
                                sizeof(removed)),
               (long long)status_number(vm, "faults"));
    }
}

static int cmd_status(int argc, char **argv)
{
    struct arguments args = {.control = NULL};
    int parsed = cli_parse(&verb_status, &args, argc, argv);
    if (parsed != EXIT_DONE)
        return parsed;
    if (optind != argc)
        return cli_usage("status", "it takes no argument '%s'", argv[optind]);
    json_t *status = NULL;
    int result = control_ask("status", args.control, "/v1/status", NULL, &status);
    if (result != EXIT_DONE)
        return result;
    if (args.json) {
        json_dumpf(status, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        putchar('\n');
    } else {
        control_plain(status);
        print_totals(status);
        print_keeper(json_object_get(status, "keeper"));
        print_replay(json_object_get(status, "replay"));
        print_lanes(json_object_get(status, "lanes"));
        print_shortage(status);
        print_degraded(json_object_get(status, "degraded"));
        print_asked_for(status);
        print_vms(json_object_get(status, "vm_list"));
    }
    json_decref(status);
    return EXIT_DONE;
}

const struct verb verb_status = {
    .name = "status",
    .run = cmd_status,
    .summary = "show the state of a running server and of its VMs",
    .synopsis = {"[OPTION...]"},
    .about = "Shows the state of a running server, and of each of its VMs.",
    .options = options,
};
