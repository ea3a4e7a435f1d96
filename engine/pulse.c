// SPDX-License-Identifier: Apache-2.0
#include "engine/pulse.h"

#include <stdint.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/engine.h"
#include "engine/kept.h"
#include "engine/server.h"
#include "engine/worker.h"

struct fl_pulse {
    struct fl_server *server;
    unsigned outstanding;
    uint64_t oldest_ns;
    struct beat {
        struct fl_mail mail;
        struct fl_pulse *pulse;
        struct fl_worker *worker;
        uint64_t oldest_ns;
    } beat[];
};

static void came_back(void *control, struct fl_mail *mail)
{
    (void)control;
    struct beat *beat = caa_container_of(mail, struct beat, mail);
    struct fl_pulse *pulse = beat->pulse;
    if (beat->oldest_ns > pulse->oldest_ns)
        pulse->oldest_ns = beat->oldest_ns;
    if (--pulse->outstanding > 0)
        return;
    pulse->server->engine->oldest_wait_ns = pulse->oldest_ns;
    fl_kept_pong(pulse->server->engine->kept, pulse->oldest_ns);
}

static void at_worker(void *owner, struct fl_mail *mail)
{
    struct beat *beat = caa_container_of(mail, struct beat, mail);
    beat->oldest_ns = fl_worker_oldest_wait(owner);
    beat->mail.deliver = came_back;
    fl_mailbox_post(beat->worker->control, &beat->mail);
}

void fl_pulse_take(struct fl_server *server)
{
    struct fl_engine *engine = server->engine;
    if (!server->pulse)
        server->pulse =
            calloc(1, sizeof(*server->pulse) + engine->worker_count * sizeof(struct beat));
    struct fl_pulse *pulse = server->pulse;
    // No answer then, so it is seen that something is wrong here; or the one to the last question.
    if (!pulse || pulse->outstanding > 0)
        return;
    pulse->server = server;
    pulse->oldest_ns = 0;
    pulse->outstanding = engine->worker_count;
    for (unsigned i = 0; i < engine->worker_count; i++) {
        struct beat *beat = &pulse->beat[i];
        beat->pulse = pulse;
        beat->worker = &engine->workers[i];
        beat->mail.deliver = at_worker;
        fl_mailbox_post(&beat->worker->mailbox, &beat->mail);
    }
}
