// SPDX-License-Identifier: Apache-2.0
#include "engine/takeover/pulse.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/link/death_watch.h"
#include "engine/link/keeper_link.h"
#include "engine/server/server.h"
#include "engine/worker/engine.h"
#include "engine/worker/worker.h"

#define LOOK_EVERY (250 * FL_NS_PER_MS)

// One question at a time; each beat is on its way or with us.
struct fl_pulse {
    struct fl_server *server;
    bool asked;       // and not answered yet
    uint64_t look_ns; // when it is looked who is held up
    uint64_t oldest_ns;
    unsigned count;
    struct beat {
        struct fl_mail mail;
        struct fl_pulse *pulse;
        struct fl_worker *worker;
        bool outstanding;
        uint64_t oldest_ns;
    } beat[FL_LIFE_TABLE_THREADS];
};

// What is in the kernel for a VM comes back when that lets it: to kill the engine would mend
// nothing. Others are served meanwhile (lane.h).
static bool is_in_call(const struct fl_worker *worker)
{
    const struct fl_thread *thread = fl_worker_runs(worker);
    return fl_call_state(atomic_load(&thread->call.word)) != FL_CALL_NONE;
}

// True if no thread is waited for, but those that are held up.
static bool all_well(const struct fl_pulse *pulse)
{
    for (unsigned i = 0; i < pulse->count; i++) {
        const struct beat *beat = &pulse->beat[i];
        if (beat->outstanding && !is_in_call(beat->worker))
            return false;
    }
    return true;
}

static void answer(struct fl_pulse *pulse)
{
    pulse->server->engine->oldest_wait_ns = pulse->oldest_ns;
    fl_keeper_link_pong(pulse->server->engine->keeper_link, pulse->oldest_ns);
    pulse->asked = false;
}

static void came_back(void *control, struct fl_mail *mail)
{
    (void)control;
    struct beat *beat = caa_container_of(mail, struct beat, mail);
    struct fl_pulse *pulse = beat->pulse;
    beat->outstanding = false;
    if (beat->oldest_ns > pulse->oldest_ns)
        pulse->oldest_ns = beat->oldest_ns;
    if (pulse->asked && all_well(pulse))
        answer(pulse);
}

static void at_worker(void *owner, struct fl_mail *mail)
{
    struct beat *beat = caa_container_of(mail, struct beat, mail);
    beat->oldest_ns = fl_worker_oldest_wait(owner);
    beat->mail.deliver = came_back;
    fl_mailbox_post(beat->worker->control, &beat->mail);
}

static void ask(struct fl_pulse *pulse, struct beat *beat, struct fl_worker *worker)
{
    if (beat->outstanding)
        return;
    beat->pulse = pulse;
    beat->worker = worker;
    beat->outstanding = true;
    beat->mail.deliver = at_worker;
    fl_mailbox_post(&worker->mailbox, &beat->mail);
}

void fl_pulse_take(struct fl_server *server)
{
    struct fl_engine *engine = server->engine;
    if (!server->pulse)
        server->pulse = calloc(1, sizeof(*server->pulse));
    struct fl_pulse *pulse = server->pulse;
    // No answer then, so it is seen that something is wrong here; or the one to the last question.
    if (!pulse || (pulse->asked && !all_well(pulse)))
        return;
    pulse->server = server;
    pulse->oldest_ns = 0;
    pulse->asked = true;
    pulse->look_ns = fl_now() + LOOK_EVERY;
    pulse->count = fl_engine_workers(engine);
    for (unsigned i = 0; i < pulse->count; i++)
        ask(pulse, &pulse->beat[i], fl_engine_worker(engine, i));
}

void fl_pulse_run(struct fl_server *server, uint64_t now)
{
    struct fl_pulse *pulse = server->pulse;
    if (!pulse || !pulse->asked || now < pulse->look_ns)
        return;
    pulse->look_ns = now + LOOK_EVERY;
    if (all_well(pulse))
        answer(pulse);
}

uint64_t fl_pulse_next_due(const struct fl_server *server)
{
    return server->pulse && server->pulse->asked ? server->pulse->look_ns : FL_NEVER;
}
