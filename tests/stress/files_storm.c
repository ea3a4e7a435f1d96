// SPDX-License-Identifier: Apache-2.0
//
// Images as files under load, while engines are killed one after the other. Clones, each of an
// image of its own, map its file privately, touch all pages in random orders by several threads,
// compare every byte, and begin anew with an empty page cache. What a touch took is noted apart for
// those that a kill fell into, or that began while no engine served.
//
// usage: files_storm [--seed N] [--kills N] [--clones N] [--hasty N] [--meddle]
// --hasty: of a hundred kills, so many come before the next standby is ready: waits are longer.
// --meddle: a clone changes a byte of its own without noting it, and the storm must see that.
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/host/fuse_mount.h"
#include "tests/support/client.h"
#include "tests/support/memory.h"
#include "tests/support/server.h"

enum {
    CLONES_MOST = 16,
    THREADS = 2,
    OUTAGES_MOST = 10000,
    WAITS_MOST = 1 << 20,
    SKIPPED = 77,
    REST_MS = 20
};
enum { BYTES = 16 << 20 };
// A touch of a page that is in the page cache takes less, and is no wait.
#define WAIT_NS UINT64_C(30000)
#define LIVED UINT64_C(300000000)
#define MS 1e6

// How the kills are that waits are told apart by.
enum kind { CALM, STANDBY, HASTY, KINDS };
static const char *const kind_name[KINDS] = {"waits, no kill", "waits, a kill, a standby was ready",
                                             "waits, a kill before a standby was ready"};

struct waits {
    _Atomic uint32_t count;
    uint32_t us[WAITS_MOST];
};

// Shared with all clones.
struct board {
    atomic_bool end;
    _Atomic unsigned kills;  // begun
    _Atomic enum kind since; // since when no engine serves; CALM: one does
    _Atomic uint64_t pages;  // compared
    _Atomic uint64_t rounds;
    struct waits waits[KINDS];
};

static struct {
    struct temp temp;
    struct memory memory;
    struct server server;
    char store[2 * TEST_PATH];
    char files[2 * TEST_PATH];
    uint64_t seed;
    unsigned kills, clones, hasty;
    bool meddle;
    struct client client[CLONES_MOST];
    struct board *board;
    int log;         // of the server, read as far as it was
    unsigned served; // engines that have come to serve
    int engine;      // that serves
    int standby;     // 0: none is ready
    uint64_t since_ns;
    unsigned outages;
    uint32_t outage_us[OUTAGES_MOST]; // as the keeper says
} storm = {.seed = 1, .kills = 15, .clones = 3, .hasty = 10};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

// --- a clone ---

struct part {
    const uint8_t *map;
    uint64_t seed;
};

static void note_wait(enum kind kind, uint64_t ns)
{
    struct waits *waits = &storm.board->waits[kind];
    if (ns < WAIT_NS)
        return;
    uint32_t at = atomic_fetch_add(&waits->count, 1);
    if (at < WAITS_MOST)
        waits->us[at] = (uint32_t)(ns / 1000);
}

static void touch(const volatile uint8_t *byte)
{
    unsigned kills = atomic_load(&storm.board->kills);
    enum kind kind = atomic_load(&storm.board->since);
    uint64_t begun = now_ns();
    (void)*byte;
    uint64_t took = now_ns() - begun;
    if (kind == CALM && atomic_load(&storm.board->kills) != kills)
        kind = atomic_load(&storm.board->since) == HASTY ? HASTY : STANDBY;
    note_wait(kind, took);
}

static void *touch_part(void *arg)
{
    const struct part *part = arg;
    uint32_t *order = random_order(BYTES / PAGE, part->seed);
    for (uint32_t i = 0; i < BYTES / PAGE; i++) {
        uint64_t offset = (uint64_t)order[i] * PAGE;
        touch(part->map + offset);
        CHECK(memory_same(&storm.memory, offset, part->map + offset, PAGE), "page %u is wrong",
              order[i]);
        atomic_fetch_add(&storm.board->pages, 1);
    }
    free(order);
    return NULL;
}

static uint8_t *map_empty(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return MAP_FAILED;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    uint8_t *map = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    close(fd);
    return map;
}

static void one_round(const char *path, uint64_t seed)
{
    pthread_t thread[THREADS];
    struct part part[THREADS];
    uint8_t *map = map_empty(path);
    CHECK(map != MAP_FAILED, "cannot map %s", path);
    if (storm.meddle)
        map[seed % BYTES] ^= 1;
    for (unsigned i = 0; i < THREADS; i++) {
        part[i] = (struct part){map, seed * THREADS + i};
        CHECK(pthread_create(&thread[i], NULL, touch_part, &part[i]) == 0, "no thread");
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    munmap(map, BYTES);
    atomic_fetch_add(&storm.board->rounds, 1);
}

static int clone_main(int channel, struct client_shared *shared, void *arg)
{
    char path[4 * TEST_PATH];
    uint64_t seed = storm.seed + ((uint64_t)(uintptr_t)arg << 32);
    (void)channel;
    snprintf(path, sizeof(path), "%s/image-%u.mem", storm.files, (unsigned)(uintptr_t)arg);
    while (!atomic_load(&storm.board->end)) {
        one_round(path, ++seed);
        shared->progress++;
    }
    return 0;
}

// --- the server ---

static bool fail(const char *what)
{
    fprintf(stderr, "files_storm: %s\n", what);
    return false;
}

static void read_line(const char *line)
{
    const char *serving = strstr(line, "event=engine_serving pid=");
    const char *ready = strstr(line, "event=engine_ready pid=");
    if (ready)
        sscanf(ready, "event=engine_ready pid=%d", &storm.standby);
    if (serving && sscanf(serving, "event=engine_serving pid=%d", &storm.engine) == 1) {
        const char *us = strstr(serving, " us=");
        uint32_t took = us ? (uint32_t)strtoul(us + 4, NULL, 10) : 0;
        if (storm.served > 0 && storm.outages < OUTAGES_MOST)
            storm.outage_us[storm.outages++] = took;
        storm.served++;
        storm.since_ns = now_ns();
        storm.standby = storm.standby == storm.engine ? 0 : storm.standby;
    }
}

// What the log has had since.
static void read_log(void)
{
    static char text[1 << 16];
    static size_t kept;
    ssize_t got = read(storm.log, text + kept, sizeof(text) - 1 - kept);
    if (got <= 0)
        return;
    kept += (size_t)got;
    text[kept] = '\0';
    char *line = text;
    for (char *end = strchr(line, '\n'); end; line = end + 1, end = strchr(line, '\n')) {
        *end = '\0';
        read_line(line);
    }
    kept = strlen(line);
    memmove(text, line, kept + 1);
}

static bool has_served(void *arg)
{
    read_log();
    return storm.served >= *(unsigned *)arg;
}

// And the engine that serves is old enough for the keeper not to take it for one that cannot live.
static bool is_prepared(void *arg)
{
    (void)arg;
    read_log();
    return storm.standby != 0 && now_ns() - storm.since_ns > LIVED;
}

static bool pack(unsigned number)
{
    char name[32];
    char output[1024];
    const char *args[] = {
        "pack", "--store", storm.store, "--name", name, temp_path(&storm.temp, "memory"), NULL};
    snprintf(name, sizeof(name), "image-%u", number);
    return faultline_run(output, sizeof(output), args) == 0 || fail(output);
}

static bool start(void)
{
    const char *extra[] = {"--files", storm.files, "--stop-timeout", "10s", NULL};
    snprintf(storm.store, sizeof(storm.store), "%s", temp_path(&storm.temp, "store"));
    snprintf(storm.files, sizeof(storm.files), "%s", temp_path(&storm.temp, "files"));
    memory_make_distinct(&storm.memory, temp_path(&storm.temp, "memory"), BYTES, 3);
    for (unsigned i = 0; i < storm.clones; i++) {
        if (!pack(i))
            return false;
    }
    if (!server_serve(&storm.server, &storm.temp, storm.store, extra))
        return fail("the server does not start");
    storm.server.deaths = storm.kills;
    storm.log = open(storm.server.log, O_RDONLY | O_CLOEXEC);
    unsigned first = 1;
    return storm.log >= 0 && wait_until(has_served, &first);
}

static void start_clones(void)
{
    for (uintptr_t i = 0; i < storm.clones; i++)
        client_start(&storm.client[i], clone_main, (void *)i);
}

static bool any_failed(void)
{
    bool failed = false;
    for (unsigned i = 0; i < storm.clones; i++)
        failed |= atomic_load(&storm.client[i].shared->failed);
    return failed;
}

// Or one has failed.
static bool all_in_a_round(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < storm.clones; i++) {
        if (storm.client[i].shared->progress == 0)
            return any_failed();
    }
    return true;
}

static unsigned dice(unsigned sides)
{
    return (unsigned)(random_next(&storm.seed) >> 33) % sides;
}

static bool kill_one(bool hasty)
{
    unsigned served = storm.served + 1;
    if (!hasty && !wait_until(is_prepared, NULL))
        return fail("there is no standby");
    poll(NULL, 0, hasty ? 0 : (int)dice(REST_MS)); // any moment of the clones' rounds
    atomic_store(&storm.board->since, hasty ? HASTY : STANDBY);
    atomic_fetch_add(&storm.board->kills, 1);
    if (kill(storm.engine, SIGKILL) != 0)
        return fail("there is no engine");
    bool came = wait_until(has_served, &served);
    atomic_store(&storm.board->since, CALM);
    return came || fail("no engine came to serve");
}

// Two in a row that are hasty would look to the keeper like engines that cannot live.
static bool kill_all(void)
{
    bool before = true;
    for (unsigned i = 0; i < storm.kills && !any_failed(); i++) {
        bool hasty = !before && dice(100) < storm.hasty;
        if (!kill_one(hasty))
            return false;
        before = hasty;
    }
    return true;
}

static bool end_clones(void)
{
    bool right = true;
    atomic_store(&storm.board->end, true);
    for (unsigned i = 0; i < storm.clones; i++) {
        if (client_wait(&storm.client[i]) == 0)
            continue;
        fprintf(stderr, "files_storm: a clone: %s\n", client_failure());
        right = false;
    }
    return right;
}

// --- the end ---

static int by_size(const void *a, const void *b)
{
    uint32_t one = *(const uint32_t *)a;
    uint32_t two = *(const uint32_t *)b;
    return (one > two) - (one < two);
}

static void report_times(const char *what, uint32_t *us, uint32_t count)
{
    if (count == 0)
        return;
    qsort(us, count, sizeof(us[0]), by_size);
    printf("%8u %s: p50 %.3f ms, p99 %.3f ms, longest %.1f ms\n", count, what, us[count / 2] / 1e3,
           us[count * UINT64_C(99) / 100] / 1e3, us[count - 1] / 1e3);
}

static void report(double seconds)
{
    printf("%u engines killed in %.0f s; %" PRIu64 " pages compared in %" PRIu64 " rounds\n",
           atomic_load(&storm.board->kills), seconds, atomic_load(&storm.board->pages),
           atomic_load(&storm.board->rounds));
    for (enum kind kind = CALM; kind < KINDS; kind++) {
        struct waits *waits = &storm.board->waits[kind];
        uint32_t count = atomic_load(&waits->count);
        report_times(kind_name[kind], waits->us, count < WAITS_MOST ? count : WAITS_MOST);
    }
    report_times("times without an engine that serves", storm.outage_us, storm.outages);
}

// Whoever waits for a page cannot be killed while nothing answers.
static void clear_mount(void)
{
    struct fl_fuse_mount mount;
    while (*storm.files && fl_fuse_mount_find(storm.files, &mount) == 0) {
        fl_fuse_abort(mount.connection);
        if (umount2(storm.files, MNT_DETACH) != 0)
            return;
    }
}

static bool run(void)
{
    uint64_t begun = now_ns();
    if (!start())
        return false;
    start_clones();
    bool right = wait_until(all_in_a_round, NULL) || storm.meddle || fail("no clone gets anywhere");
    right = right && kill_all();
    if (!right)
        clear_mount();
    bool same = end_clones();
    report((double)(now_ns() - begun) / (1000 * MS));
    storm.server.deaths = atomic_load(&storm.board->kills);
    int status = server_stop(&storm.server);
    if (status != 0 && !storm.meddle)
        right = fail("the server did not end as it should");
    if (storm.meddle)
        return !same || fail("a byte that was changed was not seen");
    return right && same;
}

static bool parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},   {"kills", required_argument, NULL, 'k'},
        {"clones", required_argument, NULL, 'c'}, {"hasty", required_argument, NULL, 'h'},
        {"meddle", no_argument, NULL, 'm'},       {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 's')
            storm.seed = strtoull(optarg, NULL, 0);
        else if (option == 'k')
            storm.kills = (unsigned)strtoul(optarg, NULL, 0);
        else if (option == 'c')
            storm.clones = (unsigned)strtoul(optarg, NULL, 0);
        else if (option == 'h')
            storm.hasty = (unsigned)strtoul(optarg, NULL, 0);
        else if (option == 'm')
            storm.meddle = true;
        else
            return false;
    }
    return storm.clones > 0 && storm.clones <= CLONES_MOST && storm.seed > 0;
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: files_storm [--seed N] [--kills N] [--clones N] [--hasty N] "
                        "[--meddle]\n");
        return 2;
    }
    if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0) {
        fprintf(stderr, "SKIPPED: this test needs root and /dev/fuse\n");
        return SKIPPED;
    }
    if (access("/sys/fs/fuse/connections", F_OK) == 0)
        (void)mount("fusectl", "/sys/fs/fuse/connections", "fusectl", 0, NULL); // EBUSY: it is
    storm.board = mmap(NULL, sizeof(*storm.board), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (storm.board == MAP_FAILED)
        return 1;
    setvbuf(stdout, NULL, _IOLBF, 0); // in the order of stderr
    temp_make(&storm.temp);
    printf("seed %" PRIu64 "\n", storm.seed);
    bool right = run();
    memory_free(&storm.memory);
    temp_remove(&storm.temp);
    return right ? 0 : 1;
}
