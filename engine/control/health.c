// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. That the control thread lives is shown by the answer. That workers do is
// known by the heartbeat: the keeper asks, and each worker answers in its loop. Where the keeper
// does not ask, or seldom, a probe does: this one is answered by what is known, the next one by
// what became of the question.
#include "engine/control/health.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/accept/acceptor.h"
#include "engine/base/clock.h"
#include "engine/host/process_usage.h"
#include "engine/link/degraded.h"
#include "engine/link/keeper_link.h"
#include "engine/worker/engine.h"

char *fl_health_live(const struct fl_health *health, bool *ret_well)
{
    const struct fl_engine *engine = health->acceptor->engine;
    uint64_t now = fl_now();
    char *text = NULL;
    uint64_t silent_ns = engine->beat.open ? now - engine->beat.asked_ns : 0;
    *ret_well = silent_ns < health->silence_ns;
    health->ops.ask_workers(health->ops.arg);
    int length = *ret_well ? asprintf(&text, "ok\n")
                           : asprintf(&text, "not live: %s has not answered for %" PRIu64 " ms\n",
                                      engine->beat.files ? "the thread of the files" : "a worker",
                                      silent_ns / FL_NS_PER_MS);
    return length < 0 ? NULL : text;
}

// --- ready ---

// What new VMs need, in the order in which it is told. The rest of what a server can lack it lacks
// without harm to them.
static const struct need {
    const char *name;
    enum fl_lack lack;
} needs[] = {
    {"store", FL_LACK_STORE},
    {"sockets", FL_LACK_SOCKETS},
    {"descriptors", FL_LACK_DESCRIPTORS},
};
enum { NEEDS = sizeof(needs) / sizeof(needs[0]) };

static const char *why_not_serving(enum fl_service_state state)
{
    if (fl_service_ends(state))
        return "it is stopping";
    return fl_service_refuses(state) ? "it is drained, and takes no new VM until it is started anew"
                                     : NULL;
}

// One line; true if nothing is missing.
static bool tell_need(FILE *out, const char *name, const char *reason)
{
    bool there = !reason || *reason == '\0';
    fprintf(out, "%s: %s%s\n", name, there ? "ok" : "missing: ", there ? "" : reason);
    return there;
}

// New VMs are served without it, too.
static void tell_lack(FILE *out, const char *name, const char *reason)
{
    if (*reason)
        fprintf(out, "%s: degraded: %s\n", name, reason);
}

// A keeper that is stopped accepts no handshake, and replaces nothing.
static bool is_stopped(pid_t pid)
{
    struct fl_process_usage usage = {0};
    return fl_process_usage(pid, &usage) == 0 && (usage.state == 'T' || usage.state == 't');
}

static bool tell_keeper(FILE *out, const struct fl_engine *engine)
{
    const char *trouble = "";
    const char *missing = NULL;
    json_int_t pid = 0;
    json_int_t standby = 0;
    json_t *news = json_loads(fl_keeper_link_news(engine->keeper_link), JSON_DECODE_ANY, NULL);
    bool known = json_unpack(news, "{s:I, s?:I, s?:s}", "pid", &pid, "standby_pid", &standby,
                             "trouble", &trouble) == 0;
    if (!fl_keeper_link_any(engine->keeper_link))
        missing = "it has gone, and nothing would replace the engine if it died";
    else if (known && is_stopped((pid_t)pid))
        missing = "it is stopped (SIGSTOP), and accepts no VM";
    if (known && standby <= 0 && *trouble == '\0')
        trouble = "the next engine is being started";
    bool there = tell_need(out, "keeper", missing);
    tell_lack(out, "standby", trouble);
    json_decref(news);
    return there;
}

static bool tell_all(FILE *out, const struct fl_health *health)
{
    const struct fl_engine *engine = health->acceptor->engine;
    const struct fl_degraded *degraded = &engine->degraded;
    bool ready = tell_need(out, "service", why_not_serving(health->acceptor->state));
    for (int i = 0; i < NEEDS; i++)
        ready &= tell_need(out, needs[i].name, degraded->reason[needs[i].lack]);
    ready &= tell_keeper(out, engine);
    for (int lack = 0; lack < FL_LACKS; lack++) {
        bool told = lack == FL_LACK_RUNNING_KEEPER; // tell_keeper() has, and at once
        for (int i = 0; i < NEEDS; i++)
            told |= needs[i].lack == (enum fl_lack)lack;
        if (!told)
            tell_lack(out, fl_lack_name((enum fl_lack)lack), degraded->reason[lack]);
    }
    return ready;
}

char *fl_health_ready(const struct fl_health *health, bool *ret_well)
{
    char *lines = NULL;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&lines, &size);
    if (!out)
        return NULL;
    *ret_well = tell_all(out, health);
    if (fclose(out) == 0 && asprintf(&text, "%s\n%s", *ret_well ? "ready" : "not ready", lines) < 0)
        text = NULL;
    free(lines);
    return text;
}
