// SPDX-License-Identifier: Apache-2.0
//
// Everybody at once on one store: the verbs of the command, who records, and readers that keep an
// image open, on so few images that they meet all the time; every fourth is killed at a random
// moment. Whatever happens, a verb fails only because another was faster, and says so; an image
// that is there is one of those that were packed under its name, an open one stays what it is; and
// when all have ended the store is whole, and a gc leaves nothing over.
//
// usage: store_race [--rounds N] [--steps N]        FAULTLINE_SEED=N repeats the same steps
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/stress/race_contents.h"
#include "tests/stress/race_verbs.h"
#include "tests/support/temp.h"
#include "tests/unit/snapshot_support.h"

enum { AT_ONCE = 5, KILLED = 4 }; // one in KILLED is killed
#define SECOND UINT64_C(1000000000)
#define DEADLOCK_S 60
#define KILL_WITHIN (SECOND / 33)

struct slot {
    pid_t pid;        // 0: free
    uint64_t kill_at; // in ns; 0: it may live
    bool killed;
    struct race_order order;
    char output[RACE_PATH], log[RACE_PATH];
};

static struct {
    struct temp temp;
    char store[RACE_PATH];
    unsigned rounds, steps;
    uint64_t seed;
    struct slot slots[AT_ONCE];
} race = {.rounds = 4, .steps = 150};

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static void start(struct slot *slot)
{
    slot->killed = false;
    slot->pid = fork();
    if (slot->pid == 0)
        race_order_run(&slot->order);
    if (slot->pid < 0)
        abort();
}

static void start_any(struct slot *slot)
{
    slot->order.seed = test_random(&race.seed);
    race_order_choose(&slot->order);
    uint64_t dice = test_random(&race.seed);
    slot->kill_at = dice % KILLED == 0 ? now() + (dice >> 8) % KILL_WITHIN : 0;
    start(slot);
}

// 0: none.
static uint64_t next_kill(void)
{
    uint64_t at = 0;
    for (unsigned i = 0; i < AT_ONCE; i++) {
        const struct slot *slot = &race.slots[i];
        if (slot->pid != 0 && slot->kill_at != 0 && (at == 0 || slot->kill_at < at))
            at = slot->kill_at;
    }
    return at;
}

static void kill_due(void)
{
    for (unsigned i = 0; i < AT_ONCE; i++) {
        struct slot *slot = &race.slots[i];
        if (slot->pid == 0 || slot->kill_at == 0 || slot->kill_at > now())
            continue;
        kill(slot->pid, SIGKILL);
        slot->killed = true;
        slot->kill_at = 0;
    }
}

static struct slot *slot_of(pid_t pid)
{
    for (unsigned i = 0; i < AT_ONCE; i++) {
        if (race.slots[i].pid == pid)
            return &race.slots[i];
    }
    abort();
}

// Until one has ended or is to be killed. False: none has for so long that they must wait for each
// other.
static bool wait_signal(void)
{
    uint64_t at = now();
    uint64_t until = next_kill();
    uint64_t ns = until == 0 ? DEADLOCK_S * SECOND : until > at ? until - at : 0;
    struct timespec time = {(time_t)(ns / SECOND), (long)(ns % SECOND)};
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    return sigtimedwait(&children, NULL, &time) >= 0 || errno != EAGAIN || until != 0;
}

static void say_who_waits(void)
{
    fprintf(stderr, "store_race: nothing has ended for %u s:", (unsigned)DEADLOCK_S);
    for (unsigned i = 0; i < AT_ONCE; i++) {
        if (race.slots[i].pid != 0)
            fprintf(stderr, " '%s' (%d)", race.slots[i].order.verb, (int)race.slots[i].pid);
    }
    fprintf(stderr, "\n");
}

// The slot that has become free, or NULL if something was wrong with it.
static struct slot *wait_one(void)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) == 0) {
        if (!wait_signal()) {
            say_who_waits();
            return NULL;
        }
        kill_due();
    }
    struct slot *slot = slot_of(pid);
    slot->pid = 0;
    return race_order_check(&slot->order, status, slot->killed) ? slot : NULL;
}

static unsigned running(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < AT_ONCE; i++)
        count += race.slots[i].pid != 0;
    return count;
}

static bool wait_all(void)
{
    while (running() > 0) {
        if (!wait_one())
            return false;
    }
    return true;
}

// Several make the store at a time, and none of them is told that it could not.
static bool begin_store(void)
{
    for (unsigned i = 0; i < AT_ONCE; i++) {
        struct slot *slot = &race.slots[i];
        slot->order.verb = "pack --replace";
        slot->order.content = i;
        slot->order.name = i % RACE_NAMES;
        slot->kill_at = 0;
        start(slot);
    }
    return wait_all() && race_make_sources(race.temp.path, race.store);
}

static bool storm(void)
{
    for (unsigned step = 0; step < race.steps; step++) {
        struct slot *slot = step < AT_ONCE ? &race.slots[step] : wait_one();
        if (!slot)
            return false;
        start_any(slot);
    }
    return wait_all();
}

static bool run_round(unsigned round)
{
    snprintf(race.store, sizeof(race.store), "%s/store-%u", race.temp.path, round);
    bool right = begin_store() && storm() && race_settle(race.temp.path, race.store);
    if (!right)
        fprintf(stderr, "store_race: in round %u\n", round);
    for (unsigned i = 0; i < AT_ONCE; i++) {
        if (race.slots[i].pid != 0 && kill(race.slots[i].pid, SIGKILL) == 0)
            waitpid(race.slots[i].pid, NULL, 0);
    }
    remove_tree(race.store);
    return right;
}

static void prepare(void)
{
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    race_make_memories(race.temp.path);
    for (unsigned i = 0; i < AT_ONCE; i++) {
        struct slot *slot = &race.slots[i];
        snprintf(slot->output, sizeof(slot->output), "%s/output-%u", race.temp.path, i);
        snprintf(slot->log, sizeof(slot->log), "%s/log-%u", race.temp.path, i);
        slot->order = (struct race_order){
            .dir = race.temp.path, .store = race.store, .output = slot->output, .log = slot->log};
    }
}

static bool parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"rounds", required_argument, NULL, 'r'}, {"steps", required_argument, NULL, 's'}, {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'r')
            race.rounds = (unsigned)strtoul(optarg, NULL, 0);
        else if (option == 's')
            race.steps = (unsigned)strtoul(optarg, NULL, 0);
        else
            return false;
    }
    return optind == argc && race.rounds > 0;
}

int main(int argc, char **argv)
{
    bool right = true;
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: store_race [--rounds N] [--steps N]\n");
        return 2;
    }
    race.seed = test_seed();
    if (access("/dev/shm", W_OK) == 0) // no disk to wait for: they meet more often
        setenv("TMPDIR", "/dev/shm", 0);
    temp_make(&race.temp);
    prepare();
    for (unsigned round = 0; right && round < race.rounds; round++)
        right = run_round(round);
    temp_remove(&race.temp);
    return right ? 0 : 1;
}
