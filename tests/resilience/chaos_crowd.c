// SPDX-License-Identifier: Apache-2.0
#include "tests/resilience/chaos_crowd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "tests/resilience/chaos_image.h"
#include "tests/support/server.h"

int chaos_crowd_make(struct chaos_crowd *ret_crowd, const struct chaos_plan *plan, uint32_t slots,
                     uint64_t limit_ns)
{
    struct chaos_crowd crowd = {.plan = *plan, .slots = slots, .limit_ns = limit_ns};
    size_t size = sizeof(*crowd.board) + sizeof(crowd.board->slot[0]) * slots;
    crowd.board = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    crowd.member = calloc(slots, sizeof(*crowd.member));
    if (crowd.board == MAP_FAILED || crowd.member == NULL)
        return -ENOMEM;
    *ret_crowd = crowd;
    return 0;
}

// Some clients of each kind never pause. More of them would leave no CPU time to the others.
enum { HASTY = 8, HASTY_EVERY = 9 };

// The kind depends on the slot only. So no more huge pages are in use than has_huge_pages()
// counted.
enum chaos_kind chaos_crowd_kind(const struct chaos_plan *plan, uint32_t number)
{
    static const enum chaos_kind kinds[] = {CHAOS_SMALL, CHAOS_CLONE, CHAOS_SMALL, CHAOS_HUGE,
                                            CHAOS_SMALL, CHAOS_CLONE, CHAOS_SMALL, CHAOS_SMALL};
    enum chaos_kind kind = kinds[number % (sizeof(kinds) / sizeof(kinds[0]))];
    bool may = kind == CHAOS_HUGE ? plan->huge : kind != CHAOS_CLONE || plan->template_socket;
    return may ? kind : CHAOS_SMALL;
}

// --- a member ---

// The VMs of every fourth slot share a memory limit.
static void join_limit(const struct chaos_plan *plan, uint32_t number)
{
    if (plan->limit_procs == NULL || number % CHAOS_LIMITED_EVERY != 1)
        return;
    int fd = open(plan->limit_procs, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1) {
        perror(plan->limit_procs);
        _exit(CHAOS_BROKEN);
    }
    close(fd);
}

static void start(struct chaos_crowd *crowd, uint32_t number)
{
    struct chaos_plan plan = crowd->plan;
    struct chaos_slot *slot = &crowd->board->slot[number];
    plan.seed = chaos_hash(plan.seed, crowd->started);
    plan.kind = chaos_crowd_kind(&plan, number);
    plan.hasty = plan.brief && number < HASTY * HASTY_EVERY && number % HASTY_EVERY == 0;
    for (unsigned i = 0; i < CHAOS_THREADS; i++)
        atomic_store(&slot->thread[i].since_ns,
                     0); // the client before may have been killed in a wait
    atomic_store(&slot->thread[0].op, CHAOS_HANDSHAKE);
    pid_t pid = fork();
    if (pid == 0) {
        child_setup();
        join_limit(&plan, number);
        close_range(STDERR_FILENO + 1, ~0U, 0); // the descriptors of the fd store among them
        _exit(chaos_client_main(&plan, crowd->board, slot));
    }
    if (pid < 0) {
        perror("chaos: fork");
        crowd->lost++;
        return;
    }
    crowd->member[number] = (struct chaos_member){.pid = pid};
    crowd->started++;
}

static void judge(struct chaos_crowd *crowd, const struct chaos_member *member, int status)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == CHAOS_FINE) {
        crowd->finished++;
    } else if (member->killed) {
        crowd->killed++;
    } else if (!WIFEXITED(status) || WEXITSTATUS(status) != CHAOS_WRONG) {
        crowd->lost++;
        if (WIFSIGNALED(status))
            fprintf(stderr, "chaos: client %d was lost: %s\n", (int)member->pid,
                    strsignal(WTERMSIG(status)));
        else
            fprintf(stderr, "chaos: client %d was lost: exit status %d\n", (int)member->pid,
                    WEXITSTATUS(status));
    }
}

static void reap(struct chaos_crowd *crowd, uint32_t number)
{
    int status;
    struct chaos_member *member = &crowd->member[number];
    if (member->pid == 0 || waitpid(member->pid, &status, WNOHANG) != member->pid)
        return;
    judge(crowd, member, status);
    member->pid = 0;
}

static void watch(struct chaos_crowd *crowd, uint32_t number, unsigned thread)
{
    static const char *const ops[CHAOS_OPS] = {"its handshake", "a read", "a write", "a removal"};
    struct chaos_thread *shown = &crowd->board->slot[number].thread[thread];
    uint64_t since = atomic_load(&shown->since_ns);
    uint64_t now = bench_now_ns();
    if (since == 0 || now <= since || crowd->member[number].killed)
        return;
    if (now - since > crowd->longest_ns)
        crowd->longest_ns = now - since;
    if (now - since <= crowd->limit_ns)
        return;
    crowd->waited++;
    fprintf(stderr, "chaos: client %d has waited %llu ms in %s of page %u\n",
            (int)crowd->member[number].pid, (unsigned long long)((now - since) / 1000000),
            ops[atomic_load(&shown->op)], atomic_load(&shown->page));
}

void chaos_crowd_look(struct chaos_crowd *crowd)
{
    crowd->wrong = 0;
    for (uint32_t i = 0; i < crowd->slots; i++) {
        reap(crowd, i);
        crowd->wrong += atomic_load(&crowd->board->slot[i].wrong);
        if (crowd->member[i].pid == 0 && !crowd->closed && !crowd->held && chaos_crowd_good(crowd))
            start(crowd, i);
        for (unsigned k = 0; k < CHAOS_THREADS && crowd->member[i].pid != 0; k++)
            watch(crowd, i, k);
    }
}

// --- all of them ---

static bool waits(const struct chaos_crowd *crowd, uint32_t number)
{
    for (unsigned i = 0; i < CHAOS_THREADS; i++) {
        if (atomic_load(&crowd->board->slot[number].thread[i].since_ns) != 0)
            return true;
    }
    return false;
}

bool chaos_crowd_kill_one(struct chaos_crowd *crowd, uint64_t random)
{
    struct chaos_member *chosen = NULL;
    bool waiting = false;
    for (uint32_t i = 0; i < crowd->slots && !waiting; i++) {
        uint32_t number = (uint32_t)((random + i) % crowd->slots);
        if (crowd->member[number].pid == 0 || crowd->member[number].killed)
            continue;
        waiting = waits(crowd, number);
        if (chosen == NULL || waiting)
            chosen = &crowd->member[number];
    }
    if (chosen == NULL)
        return false;
    chosen->killed = true;
    crowd->killed_waiting += waiting;
    kill(chosen->pid, SIGKILL);
    return true;
}

void chaos_crowd_close(struct chaos_crowd *crowd, bool stop)
{
    crowd->closed = true;
    atomic_store(&crowd->board->stop, stop);
}

void chaos_crowd_open(struct chaos_crowd *crowd)
{
    crowd->closed = false;
    atomic_store(&crowd->board->stop, 0);
}

bool chaos_crowd_shakes_hands(const struct chaos_crowd *crowd)
{
    for (uint32_t i = 0; i < crowd->slots; i++) {
        // A new client's first thread says so until its handshake is over: start() has set it.
        const struct chaos_thread *shown = &crowd->board->slot[i].thread[0];
        if (crowd->member[i].pid != 0 && atomic_load(&shown->op) == CHAOS_HANDSHAKE)
            return true;
    }
    return false;
}

uint32_t chaos_crowd_count(const struct chaos_crowd *crowd)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < crowd->slots; i++)
        count += crowd->member[i].pid != 0;
    return count;
}

void chaos_crowd_kill(struct chaos_crowd *crowd)
{
    crowd->closed = true;
    for (uint32_t i = 0; i < crowd->slots; i++) {
        if (crowd->member[i].pid != 0)
            kill(crowd->member[i].pid, SIGKILL);
    }
    for (uint32_t i = 0; i < crowd->slots; i++) {
        if (crowd->member[i].pid != 0)
            waitpid(crowd->member[i].pid, NULL, 0);
        crowd->member[i].pid = 0;
    }
}

bool chaos_crowd_good(const struct chaos_crowd *crowd)
{
    return crowd->wrong == 0 && crowd->lost == 0 && crowd->waited == 0;
}

// --- sums ---

uint64_t chaos_crowd_attached(const struct chaos_crowd *crowd, enum chaos_kind kind)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < crowd->slots; i++)
        sum += atomic_load(&crowd->board->slot[i].attached[kind]);
    return sum;
}

uint64_t chaos_crowd_ops(const struct chaos_crowd *crowd, enum chaos_op op)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < crowd->slots * CHAOS_THREADS; i++)
        sum +=
            atomic_load(&crowd->board->slot[i / CHAOS_THREADS].thread[i % CHAOS_THREADS].ops[op]);
    return sum;
}

uint64_t chaos_crowd_checked(const struct chaos_crowd *crowd)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < crowd->slots * CHAOS_THREADS; i++)
        sum +=
            atomic_load(&crowd->board->slot[i / CHAOS_THREADS].thread[i % CHAOS_THREADS].checked);
    return sum;
}

void chaos_crowd_wait(const struct chaos_crowd *crowd, struct bench_hist *ret_wait)
{
    *ret_wait = (struct bench_hist){0};
    for (uint32_t i = 0; i < crowd->slots * CHAOS_THREADS; i++)
        bench_hist_merge(ret_wait,
                         &crowd->board->slot[i / CHAOS_THREADS].thread[i % CHAOS_THREADS].wait);
}
