// SPDX-License-Identifier: Apache-2.0
#include "tests/resilience/chaos_shortage.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "tests/resilience/chaos_process.h"
#include "tests/support/memory.h"

// A shortage ends well before a wait becomes too long for the run.
enum {
    OFF_MS = 2500,
    ON_MS = 1500,
    ASK_MS = 30,
    LOOKS_AGAIN_MS = 2500,
    SPARE_FDS = 6,
    HUGE_BYTES = 2 << 20
};

static uint64_t dice(struct chaos_shortages *shortages, uint64_t sides)
{
    return random_next(&shortages->random) % sides;
}

static uint64_t some_ns(struct chaos_shortages *shortages, uint64_t most_ms)
{
    return (most_ms / 4 + dice(shortages, most_ms - most_ms / 4)) * 1000000;
}

static void fail(struct chaos_shortages *shortages, const char *what, const char *name)
{
    fprintf(stderr, "chaos: %s: %s: %s\n", what, name, strerror(errno));
    shortages->bad = true;
}

// --- huge pages ---

// Takes all free huge pages. Called again and again, as VMs that end free others.
static void take_huge_pages(struct chaos_shortages *shortages)
{
    while (shortages->taken < CHAOS_TAKEN_PAGES) {
        void *page = mmap(NULL, HUGE_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
        if (page == MAP_FAILED)
            break;
        shortages->page[shortages->taken++] = page;
    }
    if (shortages->taken > shortages->taken_most)
        shortages->taken_most = shortages->taken;
}

static void give_huge_pages(struct chaos_shortages *shortages)
{
    while (shortages->taken > 0)
        munmap(shortages->page[--shortages->taken], HUGE_BYTES);
}

// --- the store ---

// Where the store's files are; `store` is a mount of this directory.
static void real_store(const struct chaos_service *service, char path[CHAOS_PATH + 8])
{
    snprintf(path, CHAOS_PATH + 8, "%s.files", service->store);
}

static int mount_store(const struct chaos_service *service)
{
    char files[CHAOS_PATH + 8];
    real_store(service, files);
    return mount(files, service->store, NULL, MS_BIND, NULL) < 0 ? -errno : 0;
}

int chaos_shortages_prepare(const struct chaos_service *service)
{
    char files[CHAOS_PATH + 8];
    real_store(service, files);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        rename(service->store, files) < 0 || mkdir(service->store, 0755) < 0)
        return -errno;
    return mount_store(service);
}

// --- descriptors ---

static uint64_t count_descriptors(pid_t pid)
{
    char path[64];
    uint64_t count = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *directory = opendir(path);
    while (directory != NULL && readdir(directory) != NULL)
        count++;
    if (directory != NULL)
        closedir(directory);
    return count;
}

static void limit(struct chaos_shortages *shortages, pid_t pid)
{
    struct rlimit before;
    uint64_t used = count_descriptors(pid);
    if (shortages->limited == CHAOS_LIMITED_PROCESSES || used == 0 ||
        prlimit(pid, RLIMIT_NOFILE, NULL, &before) < 0)
        return; // it has ended
    struct rlimit few = {.rlim_cur = used + dice(shortages, SPARE_FDS),
                         .rlim_max = before.rlim_max};
    if (few.rlim_cur >= before.rlim_cur || prlimit(pid, RLIMIT_NOFILE, &few, NULL) < 0)
        return;
    unsigned at = shortages->limited++;
    shortages->process[at].pid = pid;
    shortages->process[at].soft = before.rlim_cur;
    shortages->process[at].hard = before.rlim_max;
}

static bool is_client(const struct chaos_shortages *shortages, pid_t pid)
{
    for (uint32_t i = 0; i < shortages->crowd->slots; i++) {
        if (shortages->crowd->member[i].pid == pid)
            return true;
    }
    return false;
}

// Limits the keeper and its engines. The hard limits stay, and an engine that starts meanwhile
// raises its limit to that: only the processes that run now are short.
static void limit_all(struct chaos_shortages *shortages)
{
    static pid_t pids[4096];
    unsigned count = chaos_descendants(pids, 4096);
    for (unsigned i = 0; i < count && i < 4096; i++) {
        if (!is_client(shortages, pids[i]))
            limit(shortages, pids[i]);
    }
}

static void give_descriptors(struct chaos_shortages *shortages)
{
    for (uint32_t i = 0; i < shortages->limited; i++) {
        struct rlimit had = {.rlim_cur = shortages->process[i].soft,
                             .rlim_max = shortages->process[i].hard};
        prlimit(shortages->process[i].pid, RLIMIT_NOFILE, &had, NULL); // it may have ended
    }
    shortages->limited = 0;
}

// --- one after the other ---

static void take(struct chaos_shortages *shortages)
{
    switch (shortages->kind) {
    case CHAOS_NO_HUGE_PAGES:
        take_huge_pages(shortages);
        break;
    case CHAOS_NO_STORE:
        if (umount2(shortages->service->store, MNT_DETACH) < 0)
            fail(shortages, "umount", shortages->service->store);
        break;
    case CHAOS_NO_DESCRIPTORS:
        limit_all(shortages);
        break;
    case CHAOS_SHORTAGE_KINDS:
        break;
    }
}

static void give_back(struct chaos_shortages *shortages)
{
    int error = 0;
    switch (shortages->kind) {
    case CHAOS_NO_HUGE_PAGES:
        give_huge_pages(shortages);
        break;
    case CHAOS_NO_STORE:
        error = mount_store(shortages->service);
        break;
    case CHAOS_NO_DESCRIPTORS:
        give_descriptors(shortages);
        break;
    case CHAOS_SHORTAGE_KINDS:
        break;
    }
    errno = -error;
    if (error)
        fail(shortages, "mount", shortages->service->store);
}

static void choose(struct chaos_shortages *shortages)
{
    do
        shortages->kind = (enum chaos_shortage)dice(shortages, CHAOS_SHORTAGE_KINDS);
    while (shortages->kind == CHAOS_NO_HUGE_PAGES && !shortages->huge);
}

// Returns true if the service knows all VMs that have started. A VM whose handshake waits in a
// socket is not known. Asks not too often, as that takes a process.
static bool all_are_known(struct chaos_shortages *shortages, uint64_t now)
{
    if (chaos_crowd_shakes_hands(shortages->crowd))
        return false;
    shortages->next_ns = now + (uint64_t)ASK_MS * 1000000;
    return chaos_service_status(shortages->service).vms ==
           (long long)chaos_crowd_count(shortages->crowd);
}

// Returns true if the service lacks nothing. It looks again once a second, and then its sockets
// come back.
static bool is_whole(struct chaos_shortages *shortages, uint64_t now)
{
    shortages->next_ns = now + (uint64_t)ASK_MS * 1000000;
    return access(shortages->service->socket, F_OK) == 0 &&
           chaos_service_status(shortages->service).lacks == 0;
}

// Moves to the next state. No VM starts while there is no store or no descriptor: the service would
// be right to refuse it.
static void go_on(struct chaos_shortages *shortages, uint64_t now)
{
    switch (shortages->state) {
    case CHAOS_SHORTAGE_OFF:
        choose(shortages);
        shortages->crowd->held = shortages->kind != CHAOS_NO_HUGE_PAGES;
        shortages->state = CHAOS_SHORTAGE_QUIET;
        break;
    case CHAOS_SHORTAGE_QUIET:
        if (shortages->crowd->held && !all_are_known(shortages, now))
            return;
        shortages->service->scarce = shortages->crowd->held;
        take(shortages);
        shortages->state = CHAOS_SHORTAGE_ON;
        shortages->next_ns = now + some_ns(shortages, ON_MS);
        break;
    case CHAOS_SHORTAGE_ON:
        give_back(shortages);
        shortages->state = CHAOS_SHORTAGE_OVER;
        shortages->next_ns = now + (shortages->crowd->held ? LOOKS_AGAIN_MS * 1000000ull : 0);
        break;
    case CHAOS_SHORTAGE_OVER:
        if (shortages->crowd->held && !is_whole(shortages, now))
            return;
        shortages->crowd->held = false;
        shortages->service->scarce = false;
        shortages->state = CHAOS_SHORTAGE_OFF;
        shortages->done[shortages->kind]++;
        shortages->next_ns = now + some_ns(shortages, OFF_MS);
        break;
    }
}

void chaos_shortages_start(struct chaos_shortages *shortages)
{
    shortages->on = true;
    shortages->next_ns = bench_now_ns() + some_ns(shortages, OFF_MS);
}

void chaos_shortages_look(struct chaos_shortages *shortages)
{
    uint64_t now = bench_now_ns();
    if (!shortages->on)
        return;
    if (shortages->state == CHAOS_SHORTAGE_ON && shortages->kind == CHAOS_NO_HUGE_PAGES)
        take_huge_pages(shortages);
    if (now >= shortages->next_ns)
        go_on(shortages, now);
}

void chaos_shortages_stop(struct chaos_shortages *shortages)
{
    if (shortages->state == CHAOS_SHORTAGE_ON)
        give_back(shortages);
    shortages->service->scarce = false;
    shortages->state = CHAOS_SHORTAGE_OFF;
    shortages->crowd->held = false;
    shortages->on = false;
}
