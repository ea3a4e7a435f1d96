// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. One question of the keeper sends a beat to the thread of the files, and to
// every worker and lane that is awake, and now and then to those that sleep. A beat is a piece of
// mail that belongs to the thread it is with: it is `outstanding` from ask_worker() until
// beat_came_back(), and is not sent again before. The keeper is answered when none is outstanding
// but with threads that the kernel holds up in a call for a VM. The control thread owns the rest.
#include "engine/takeover/heartbeat.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/pace.h"
#include "engine/files/files.h"
#include "engine/link/death_watch.h"
#include "engine/link/keeper_link.h"
#include "engine/worker/engine.h"
#include "engine/worker/worker.h"

#define LOOK_EVERY (250 * FL_NS_PER_MS)
// Threads that sleep are asked so often while someone asks whether the server lives, else seldom.
#define SLEEPERS_EVERY (4 * FL_NS_PER_S)
#define SLEEPERS_SELDOM (60 * FL_NS_PER_S)
#define PROBE_AFTER (2 * FL_NS_PER_S) // without a question of the keeper's, a probe's is one

// One question at a time; each beat is on its way or with us.
struct fl_heartbeat {
    struct fl_engine *engine;
    bool asked;       // and not answered yet
    uint64_t look_ns; // when to look which threads are held up
    struct fl_pace probes;
    uint64_t oldest_ns;
    unsigned count;
    struct beat {
        struct fl_mail mail;
        struct fl_heartbeat *heartbeat;
        struct fl_worker *worker;
        bool outstanding;
        uint64_t asked_ns; // when it was sent last
        uint64_t oldest_ns;
    } beat[FL_LIFE_TABLE_THREADS];
    struct beat files; // of the file door, which has no worker
};

// What is in the kernel for a VM comes back when that lets it: to kill the engine would mend
// nothing. Others are served meanwhile (lane.h).
static bool is_in_call(const struct fl_worker *worker)
{
    const struct fl_thread *thread = fl_worker_runs(worker);
    return fl_call_state(atomic_load(&thread->call.word)) != FL_CALL_NONE;
}

// True if no thread is waited for, but those that are held up.
static bool all_well(const struct fl_heartbeat *heartbeat)
{
    for (unsigned i = 0; i < heartbeat->count; i++) {
        const struct beat *beat = &heartbeat->beat[i];
        if (beat->outstanding && !is_in_call(beat->worker))
            return false;
    }
    return !heartbeat->files.outstanding || !fl_files_runs(heartbeat->engine->files);
}

static void answer_keeper(struct fl_heartbeat *heartbeat)
{
    heartbeat->engine->beat.open = false;
    fl_keeper_link_pong(heartbeat->engine->keeper_link, heartbeat->oldest_ns);
    heartbeat->asked = false;
}

static void beat_came_back(void *control, struct fl_mail *mail)
{
    (void)control;
    struct beat *beat = caa_container_of(mail, struct beat, mail);
    struct fl_heartbeat *heartbeat = beat->heartbeat;
    beat->outstanding = false;
    if (beat == &heartbeat->files)
        heartbeat->engine->beat.files = false;
    if (beat->oldest_ns > heartbeat->oldest_ns)
        heartbeat->oldest_ns = beat->oldest_ns;
    if (heartbeat->asked && all_well(heartbeat))
        answer_keeper(heartbeat);
}

static void beat_at_worker(void *owner, struct fl_mail *mail)
{
    struct beat *beat = caa_container_of(mail, struct beat, mail);
    beat->oldest_ns = fl_worker_oldest_wait(fl_worker_of(owner));
    beat->mail.deliver = beat_came_back;
    fl_mailbox_post(beat->worker->shard.control, &beat->mail);
}

// One that sleeps until it is woken, and has nothing that waits for storage, is most likely well.
// To wake each of them once a second would be most of what an idle server costs. Faults that it
// does not wake for are seen by the keeper itself, and mail that it does not take makes it one that
// does not sleep.
static bool is_asleep(struct fl_worker *worker)
{
    return fl_mailbox_sleeps(&worker->shard.mailbox) &&
           fl_counter_get(&worker->shard.stats->parked) == 0;
}

static bool is_due(const struct fl_heartbeat *heartbeat, const struct beat *beat, bool asleep)
{
    uint64_t now = fl_now();
    bool probed = !fl_pace_is_calm(&heartbeat->probes, now);
    return !asleep || now >= beat->asked_ns + (probed ? SLEEPERS_EVERY : SLEEPERS_SELDOM);
}

static void ask_worker(struct fl_heartbeat *heartbeat, struct beat *beat, struct fl_worker *worker)
{
    if (beat->outstanding || !is_due(heartbeat, beat, is_asleep(worker)))
        return;
    beat->asked_ns = fl_now();
    beat->heartbeat = heartbeat;
    beat->worker = worker;
    beat->outstanding = true;
    beat->mail.deliver = beat_at_worker;
    fl_mailbox_post(&worker->shard.mailbox, &beat->mail);
}

static void beat_at_files(void *owner, struct fl_mail *mail)
{
    struct beat *beat = caa_container_of(mail, struct beat, mail);
    (void)owner;
    beat->mail.deliver = beat_came_back;
    fl_mailbox_post(&beat->heartbeat->engine->control, &beat->mail);
}

// A call that waits for storage is not counted as what the keeper lets an engine off for: the
// thread of the files waits for none.
static void ask_files(struct fl_heartbeat *heartbeat)
{
    struct beat *beat = &heartbeat->files;
    struct fl_files *files = heartbeat->engine->files;
    if (!fl_files_runs(files) || beat->outstanding ||
        !is_due(heartbeat, beat, fl_files_rests(files)))
        return;
    beat->asked_ns = fl_now();
    beat->heartbeat = heartbeat;
    beat->outstanding = true;
    heartbeat->engine->beat.files = true;
    beat->mail.deliver = beat_at_files;
    fl_files_post(files, &beat->mail);
}

struct fl_heartbeat *fl_heartbeat_new(struct fl_engine *engine)
{
    struct fl_heartbeat *heartbeat = calloc(1, sizeof(*heartbeat));
    if (heartbeat)
        heartbeat->engine = engine;
    return heartbeat;
}

void fl_heartbeat_free(struct fl_heartbeat *heartbeat)
{
    free(heartbeat);
}

void fl_heartbeat_take(struct fl_heartbeat *heartbeat)
{
    // No answer then, so it is seen that something is wrong here; or the one to the last question.
    if (heartbeat->asked && !all_well(heartbeat))
        return;
    heartbeat->oldest_ns = 0;
    heartbeat->asked = true;
    heartbeat->engine->beat.asked_ns = fl_now();
    heartbeat->engine->beat.open = true;
    heartbeat->look_ns = fl_now() + LOOK_EVERY;
    heartbeat->count = fl_engine_workers(heartbeat->engine);
    for (unsigned i = 0; i < heartbeat->count; i++)
        ask_worker(heartbeat, &heartbeat->beat[i], fl_engine_worker(heartbeat->engine, i));
    ask_files(heartbeat);
    if (all_well(heartbeat)) // none had to be asked: answered in this round of the loop
        heartbeat->look_ns = 0;
}

void fl_heartbeat_probe(struct fl_heartbeat *heartbeat)
{
    uint64_t now = fl_now();
    fl_pace_news(&heartbeat->probes, now);
    if (!heartbeat->engine->beat.open && now - heartbeat->engine->beat.asked_ns > PROBE_AFTER)
        fl_heartbeat_take(heartbeat);
}

void fl_heartbeat_run(struct fl_heartbeat *heartbeat, uint64_t now)
{
    if (!heartbeat || !heartbeat->asked || now < heartbeat->look_ns)
        return;
    heartbeat->look_ns = now + LOOK_EVERY;
    if (all_well(heartbeat))
        answer_keeper(heartbeat);
}

uint64_t fl_heartbeat_next_due(const struct fl_heartbeat *heartbeat)
{
    return heartbeat && heartbeat->asked ? heartbeat->look_ns : FL_NEVER;
}
