// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/verdict.h"

#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"

// A page that is not there after so long keeps its VM waiting: sound storage takes milliseconds.
enum { LONG_WAIT_MS = 1000 };

static uint64_t count_of(const json_t *status, const char *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(json_object_get(status, object), key));
    return value > 0 ? (uint64_t)value : 0;
}

static bool say_shortage(const json_t *status, char ret_text[VERDICT_BYTES])
{
    uint64_t vms = count_of(status, "shortage", "vms");
    if (vms > 0)
        snprintf(ret_text, VERDICT_BYTES,
                 "SHORTAGE: %llu VM%s wait%s as the host has no memory for %s pages; of 2 MiB: "
                 "%llu in the pool, %llu free, %llu of these reserved",
                 (unsigned long long)vms, cli_s(vms), vms == 1 ? "s" : "",
                 vms == 1 ? "its" : "their",
                 (unsigned long long)count_of(status, "huge_pages", "total"),
                 (unsigned long long)count_of(status, "huge_pages", "free"),
                 (unsigned long long)count_of(status, "huge_pages", "reserved"));
    return vms > 0;
}

static bool say_waiting(const json_t *status, char ret_text[VERDICT_BYTES])
{
    uint64_t ms = count_of(status, "faults", "oldest_wait_ms");
    if (ms >= LONG_WAIT_MS)
        snprintf(ret_text, VERDICT_BYTES, "WAITING: a VM has waited for one page for %llu.%llu s",
                 (unsigned long long)ms / 1000, (unsigned long long)ms % 1000 / 100);
    return ms >= LONG_WAIT_MS;
}

static bool say_no_keeper(const json_t *status, char ret_text[VERDICT_BYTES])
{
    if (json_is_object(json_object_get(status, "keeper")))
        return false;
    snprintf(ret_text, VERDICT_BYTES, "NO KEEPER: if this engine dies, no other one replaces it");
    return true;
}

static bool say_keeper_stopped(const json_t *status, char ret_text[VERDICT_BYTES])
{
    const json_t *keeper = json_object_get(status, "keeper");
    if (!json_is_true(json_object_get(keeper, "stopped")))
        return false;
    snprintf(ret_text, VERDICT_BYTES,
             "KEEPER STOPPED: no new VM and no new engine until 'kill -CONT %llu'",
             (unsigned long long)count_of(status, "keeper", "pid"));
    return true;
}

static bool say_no_standby(const json_t *status, char ret_text[VERDICT_BYTES])
{
    const char *trouble =
        json_string_value(json_object_get(json_object_get(status, "keeper"), "trouble"));
    if (!trouble || !*trouble)
        return false;
    snprintf(ret_text, VERDICT_BYTES, "NO STANDBY: %s", trouble);
    return true;
}

static bool say_draining(const json_t *status, char ret_text[VERDICT_BYTES])
{
    if (!json_is_true(json_object_get(status, "draining")))
        return false;
    snprintf(ret_text, VERDICT_BYTES, "DRAINING: the server takes no new VM");
    return true;
}

// What is missing, but for the keeper that is stopped: that has its own words.
static bool say_degraded(const json_t *status, size_t number, char ret_text[VERDICT_BYTES])
{
    size_t i;
    const json_t *lack;
    bool stopped = json_is_true(json_object_get(json_object_get(status, "keeper"), "stopped"));
    json_array_foreach(json_object_get(status, "degraded"), i, lack)
    {
        const char *what = json_string_value(json_object_get(lack, "what"));
        const char *reason = json_string_value(json_object_get(lack, "reason"));
        if (!what || (stopped && strcmp(what, "keeper") == 0) || number-- > 0)
            continue;
        snprintf(ret_text, VERDICT_BYTES, "DEGRADED: %s: %s", what, reason ? reason : "-");
        return true;
    }
    return false;
}

bool verdict_say(const json_t *status, size_t number, char ret_text[VERDICT_BYTES])
{
    static bool (*const worse[])(const json_t *status, char *ret_text) = {
        say_shortage, say_waiting, say_no_keeper, say_keeper_stopped, say_no_standby,
    };
    size_t count = 0;
    for (size_t i = 0; i < sizeof(worse) / sizeof(worse[0]); i++) {
        if (worse[i](status, ret_text) && count++ == number)
            return true;
    }
    for (size_t i = 0; say_degraded(status, i, ret_text); i++) {
        if (count++ == number)
            return true;
    }
    if (say_draining(status, ret_text) && count == number)
        return true;
    snprintf(ret_text, VERDICT_BYTES, VERDICT_WELL);
    return false;
}

void verdict_no_answer(const char *control, const char *error, char ret_text[VERDICT_BYTES])
{
    snprintf(ret_text, VERDICT_BYTES, "NO ANSWER: %s: %s", control,
             error ? error : "no server answers there");
}
