// SPDX-License-Identifier: Apache-2.0
//
// A storm: VMs that read, write and give back random pages from several threads, and some that are
// killed in the middle of it, all on one server with a cache that is too small for them. Each
// thread owns every Nth page and knows what must be in it, byte for byte.
//
// usage: storm [--seed N] [--vms N] [--operations N] [--huge] [--lanes] [--brief]
// With --lanes it is an error if no VM came to a lane of its own. With --brief a VM ends when its
// operations are done, without a look at all of its pages: VMs come and go much faster.
// When it fails, its last line says why.
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "tests/support/client.h"
#include "tests/support/memory.h"
#include "tests/support/server.h"
#include "tests/support/vmm.h"

enum { THREADS = 3, AT_ONCE = 5, SKIPPED = 77 };
enum { HUGE_PAGES_EACH = 12, HUGE_PAGES = AT_ONCE * HUGE_PAGES_EACH };

struct plan {
    uint64_t seed;
    unsigned vms;
    unsigned operations; // of each thread
    uint32_t page_bytes;
    bool lanes;
    bool brief;
};

static struct {
    struct temp temp;
    struct memory memory;
    struct server server;
    char socket[2 * TEST_PATH];
    struct plan plan;
    char reason[2048]; // all that has failed; empty: nothing has
} storm = {.plan = {.seed = 1, .vms = 45, .operations = 5000, .page_bytes = PAGE}};

// Adds to the reason why the storm failed. False.
__attribute__((format(printf, 1, 2))) static bool fail(const char *format, ...)
{
    size_t used = strlen(storm.reason);
    va_list args;
    va_start(args, format);
    used += (size_t)snprintf(storm.reason + used, sizeof(storm.reason) - used, "%s",
                             used > 0 ? "; " : "");
    if (used < sizeof(storm.reason))
        vsnprintf(storm.reason + used, sizeof(storm.reason) - used, format, args);
    va_end(args);
    return false;
}

// --- one VM ---

// What a page holds: as in the image, or zeros with a stamp at its beginning and end (0: zeros
// only).
struct cell {
    bool touched; // written or given back since the image
    uint64_t stamp;
};

struct toucher {
    pthread_t thread;
    struct vmm *vmm;
    struct cell *cells; // of all pages; it uses its own
    unsigned number;
    uint64_t seed;
};

static void check_page(const struct toucher *toucher, uint32_t page)
{
    struct vmm *vmm = toucher->vmm;
    const struct cell *cell = &toucher->cells[page];
    const uint8_t *bytes = vmm_page(vmm, page);
    uint64_t first;
    uint64_t last;
    if (!cell->touched) {
        vmm_check(vmm, page);
        return;
    }
    memcpy(&first, bytes, sizeof(first));
    memcpy(&last, bytes + vmm->page_bytes - sizeof(last), sizeof(last));
    CHECK(first == cell->stamp && last == cell->stamp,
          "page %u has the stamps %" PRIx64 " and %" PRIx64 ", not %" PRIx64, page, first, last,
          cell->stamp);
    CHECK(all_zero(bytes + sizeof(first), vmm->page_bytes - 2 * sizeof(first)),
          "page %u is not zero around its stamps", page);
}

static void give_back(const struct toucher *toucher, uint32_t page)
{
    toucher->cells[page] = (struct cell){.touched = true};
    vmm_remove(toucher->vmm, page, 1);
}

// Stamps a page that is zero; the write may be what faults.
static void stamp(const struct toucher *toucher, uint32_t page, uint64_t value)
{
    uint8_t *bytes = vmm_page(toucher->vmm, page);
    if (!toucher->cells[page].touched)
        give_back(toucher, page);
    memcpy(bytes, &value, sizeof(value));
    memcpy(bytes + toucher->vmm->page_bytes - sizeof(value), &value, sizeof(value));
    toucher->cells[page].stamp = value;
}

static void *touch(void *arg)
{
    struct toucher *toucher = arg;
    uint32_t own = toucher->vmm->pages / THREADS;
    for (unsigned i = 0; i < storm.plan.operations; i++) {
        uint64_t dice = random_next(&toucher->seed);
        uint32_t page = (uint32_t)(dice % own) * THREADS + toucher->number;
        switch ((dice >> 32) % 8) {
        case 0:
            give_back(toucher, page);
            break;
        case 1:
            stamp(toucher, page, dice | 1);
            break;
        default:
            check_page(toucher, page);
        }
    }
    for (uint32_t k = 0; k < own && !storm.plan.brief; k++)
        check_page(toucher, k * THREADS + toucher->number);
    return NULL;
}

static int vm_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    struct toucher touchers[THREADS];
    uint64_t seed = *(const uint64_t *)arg;
    (void)channel;
    vmm_map(&vmm, &storm.memory, storm.plan.page_bytes, 1 + (unsigned)(seed % 3),
            (enum vmm_protocol)(VMM_1_7 + seed % 3));
    vmm.shared = shared;
    struct cell *cells = calloc(vmm.pages, sizeof(*cells));
    CHECK(cells, "no memory");
    vmm_handshake(&vmm, storm.socket);
    for (unsigned i = 0; i < THREADS; i++) {
        touchers[i] = (struct toucher){.vmm = &vmm, .cells = cells, .number = i, .seed = seed + i};
        CHECK(pthread_create(&touchers[i].thread, NULL, touch, &touchers[i]) == 0, "a thread");
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(touchers[i].thread, NULL);
    free(cells);
    return 0;
}

// --- all of them ---

// Every third is killed after so many pages, if it has not ended by then.
static bool end_vm(struct client *client, unsigned number, uint64_t dice)
{
    int status = 0;
    if (number % 3 == 2 && client_progressed(client, dice % storm.plan.operations))
        client_kill(client);
    else
        status = client_wait(client);
    if (status == 0 && client_failure()[0] == '\0')
        return true;
    return fail("VM %u %s %d: %s", number, status < 0 ? "hangs:" : "ended with", status,
                client_failure());
}

static bool run_vms(void)
{
    struct client clients[AT_ONCE];
    uint64_t seed = storm.plan.seed;
    uint64_t seeds[AT_ONCE];
    bool right = true;
    for (unsigned i = 0; i < storm.plan.vms + AT_ONCE; i++) {
        unsigned slot = i % AT_ONCE;
        if (i >= AT_ONCE)
            right &= end_vm(&clients[slot], i - AT_ONCE, seeds[slot]);
        if (i >= storm.plan.vms)
            continue;
        seeds[slot] = random_next(&seed);
        client_start(&clients[slot], vm_main, &seeds[slot]);
    }
    return right;
}

static bool start(void)
{
    static const char *const options[] = {"--cache", "4M", "--workers", "2", NULL};
    char output[1024];
    const char *store = temp_path(&storm.temp, "store");
    const char *file = temp_path(&storm.temp, "memory");
    const char *args[] = {"pack", "--store", store, "--name", "image", file, NULL};
    memory_make(&storm.memory, file,
                storm.plan.page_bytes == HUGE ? HUGE_PAGES_EACH * HUGE : 12 << 20, storm.plan.seed);
    if (faultline_run(output, sizeof(output), args) != 0)
        return fail("the image cannot be packed: %s", output);
    snprintf(storm.socket, sizeof(storm.socket), "%s",
             temp_path(&storm.temp, "sockets/image.sock"));
    return (server_serve(&storm.server, &storm.temp, store, options) &&
            server_wait_log(&storm.server, "event=listen image=image", 1)) ||
           fail("the server does not listen");
}

static bool all_detached(void)
{
    unsigned attached = server_count_log(&storm.server, "event=attach");
    return server_wait_log(&storm.server, "event=detach", attached) ||
           fail("%u of %u VMs were not detached",
                attached - server_count_log(&storm.server, "event=detach"), attached);
}

static bool has_log(const char *text, const char *meaning)
{
    char line[512];
    bool found = server_find_log(&storm.server, text, line, sizeof(line));
    if (found)
        fail("%s: %s", meaning, line);
    return found;
}

static bool run(void)
{
    bool right = start() && run_vms() && all_detached();
    int status = server_stop(&storm.server);
    if (status != 0)
        right = fail("the server ended with %d", status);
    if (has_log("event=poison", "pages were poisoned"))
        right = false;
    if (storm.plan.lanes) {
        unsigned lanes = server_count_log(&storm.server, "event=lane ");
        printf("%u VMs had a lane, once or more\n", lanes);
        right = right && (lanes > 0 || fail("no VM had a lane"));
    }
    if (has_log("event=engine_died", "an engine died"))
        right = false;
    if (has_log(SERVER_SANITIZER_SUMMARY, "a sanitizer's report"))
        right = false;
    if (!right && status != -1) // else it has been printed
        server_print_log(&storm.server);
    return right;
}

static bool parse(int argc, char **argv)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"vms", required_argument, NULL, 'v'},
                                            {"operations", required_argument, NULL, 'o'},
                                            {"huge", no_argument, NULL, 'h'},
                                            {"lanes", no_argument, NULL, 'l'},
                                            {"brief", no_argument, NULL, 'b'},
                                            {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 's')
            storm.plan.seed = strtoull(optarg, NULL, 0);
        else if (option == 'v')
            storm.plan.vms = (unsigned)strtoul(optarg, NULL, 0);
        else if (option == 'o')
            storm.plan.operations = (unsigned)strtoul(optarg, NULL, 0);
        else if (option == 'h')
            storm.plan.page_bytes = HUGE;
        else if (option == 'l')
            storm.plan.lanes = true;
        else if (option == 'b')
            storm.plan.brief = true;
        else
            return false;
    }
    return storm.plan.operations > 0;
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: storm [--seed N] [--vms N] [--operations N] [--huge] [--lanes] "
                        "[--brief]\n");
        return 2;
    }
    if (geteuid() != 0 || access("/dev/userfaultfd", R_OK | W_OK) != 0) {
        fprintf(stderr, "SKIPPED: this test needs root and userfaultfd\n");
        return SKIPPED;
    }
    if (storm.plan.page_bytes == HUGE && huge_pages_free() < HUGE_PAGES) {
        fprintf(stderr, "SKIPPED: this test needs %d free huge pages\n", HUGE_PAGES);
        return SKIPPED;
    }
    setvbuf(stdout, NULL, _IOLBF, 0); // in the order of stderr
    temp_make(&storm.temp);
    printf("seed %" PRIu64 "\n", storm.plan.seed);
    bool right = run();
    memory_free(&storm.memory);
    temp_remove(&storm.temp);
    if (!right)
        fprintf(stderr, "storm: FAILED with seed %" PRIu64 ": %s\n", storm.plan.seed, storm.reason);
    return right ? 0 : 1;
}
