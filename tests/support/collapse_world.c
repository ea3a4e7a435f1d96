// SPDX-License-Identifier: Apache-2.0
#include "tests/support/collapse_world.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/cgroup.h"
#include "tests/support/traces.h"

enum { RANGE = HUGE / PAGE };

struct collapse_vm collapse_vm;

static struct world *world;

// --- the VM ---

static bool is_ours(const struct vmm *vmm, unsigned long start)
{
    bool ours = false;
    for (unsigned i = 0; i < vmm->regions; i++) {
        uintptr_t base = (uintptr_t)vmm->region[i].base;
        ours = ours || (start >= base && start < base + vmm->region[i].bytes);
    }
    return ours;
}

static uint32_t huge_pages(const struct vmm *vmm)
{
    char line[512];
    unsigned long start = 0;
    unsigned long end = 0;
    unsigned long kib = 0;
    unsigned long all = 0;
    FILE *file = fopen("/proc/self/smaps", "re");
    CHECK(file, "smaps");
    while (fgets(line, sizeof(line), file)) {
        if (strchr(line, '-') && sscanf(line, "%lx-%lx ", &start, &end) == 2)
            continue;
        if (sscanf(line, "AnonHugePages: %lu", &kib) == 1 && is_ours(vmm, start))
            all += kib;
    }
    fclose(file);
    return (uint32_t)(all / (HUGE / 1024));
}

// Of each region's second range.
static uint32_t inner_page(const struct vmm *vmm, unsigned region)
{
    uint32_t ranges;
    return vmm_first_range(vmm, region, &ranges) + RANGE + 7;
}

static void give_back(struct vmm *vmm)
{
    for (unsigned i = 0; i < vmm->regions; i++) {
        uint32_t page = inner_page(vmm, i);
        vmm_remove(vmm, page, 1);
        vmm->removed[page] = true;
    }
}

// Advice of its own makes a mapping of a page.
static void divide(const struct vmm *vmm)
{
    for (unsigned i = 0; i < vmm->regions; i++)
        CHECK(madvise(vmm_page(vmm, inner_page(vmm, i)), PAGE, MADV_DONTDUMP) == 0, "madvise");
}

static void give_rights_up(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};
    CHECK(syscall(SYS_capset, &header, none) == 0, "capset");
}

static void prepare(struct vmm *vmm, const struct collapse_plan *plan)
{
    const char *socket = plan->socket ? plan->socket : world->socket;
    CHECK(!plan->limited || cgroup_enter(), "it cannot enter the cgroup");
    CHECK(!plan->thp_off || prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");
    if (plan->template) {
        vmm_map_template(vmm, &world->memory, COLLAPSE_REGIONS, socket, NULL);
        vmm_handshake_template(vmm);
        return;
    }
    vmm_map(vmm, &world->memory, PAGE, COLLAPSE_REGIONS, VMM_1_12);
    vmm_advise(vmm, plan->advice);
    if (plan->boundary)
        divide(vmm);
    if (plan->no_rights)
        give_rights_up();
    vmm_handshake(vmm, socket);
}

static void check_second_pages(struct vmm *vmm)
{
    for (uint32_t page = 0; page < vmm->pages; page++) {
        if (vmm_page_offset(vmm, page) / PAGE % 2 == 0)
            vmm_check(vmm, page);
    }
}

static void obey(struct vmm *vmm, char order, struct client_shared *shared)
{
    if (order == 'h')
        atomic_store(&shared->progress, huge_pages(vmm));
    if (order == 'a')
        vmm_touch_all(vmm, 2, VMM_RANDOM, true);
    if (order == 'c')
        check_second_pages(vmm);
    if (order == 'r')
        give_back(vmm);
    if (order == 'p')
        CHECK(prctl(PR_SET_DUMPABLE, 0) == 0, "prctl");
}

static int obedient(int channel, struct client_shared *shared, void *arg)
{
    const struct collapse_plan *plan = arg;
    struct vmm vmm;
    prepare(&vmm, plan);
    if (plan->gives_back)
        give_back(&vmm);
    atomic_store(&shared->progress, vmm_all_ranges(&vmm));
    tell_test(channel, 's');
    for (;;) {
        char order = next_order(channel);
        if (order == 'e')
            return 0;
        obey(&vmm, order, shared);
        tell_test(channel, 'd');
    }
}

// --- the test's side ---

void collapse_need(void)
{
    need_transparent_huge();
    need_collapse();
}

void collapse_record(struct world *of, uint32_t pages, unsigned one_in)
{
    uint32_t count = 0;
    uint32_t *order = random_order(pages, 7);
    uint32_t *traced = malloc(pages * sizeof(*traced));
    cr_assert(order && traced);
    for (uint32_t i = 0; i < pages; i++) {
        if (order[i] % one_in == 0)
            traced[count++] = order[i];
    }
    record_one(of, (struct touches){NULL, PAGE, COLLAPSE_REGIONS, traced, count});
    free(traced);
    free(order);
}

struct world *collapse_begin(enum world_memory kind, const char *const *options, unsigned one_in)
{
    collapse_need();
    struct world *made = world_make(kind, COLLAPSE_BYTES);
    world_serve(made, options);
    collapse_record(made, COLLAPSE_PAGES, one_in);
    return made;
}

void collapse_start(struct world *of, struct collapse_plan plan)
{
    world = of;
    collapse_vm.plan = plan;
    client_start(&collapse_vm.client, obedient, &collapse_vm.plan);
    cr_assert(client_says(&collapse_vm.client, 's'), "%s", client_failure());
    collapse_vm.ranges = (long long)atomic_load(&collapse_vm.client.shared->progress);
    cr_assert_gt(collapse_vm.ranges, COLLAPSE_BYTES / HUGE / 2);
}

struct wanted {
    struct world *world;
    long long vm;
    const char *state;
};

static bool is_so(void *arg)
{
    const struct wanted *wanted = arg;
    return world_vm_huge_is(wanted->world, wanted->vm, wanted->state);
}

void collapse_await(struct world *of, long long vm, const char *state)
{
    struct wanted wanted = {of, vm, state};
    bool so = false;
    // A range that the guest has read zeros in is tried four times, and the pauses grow to 4 s:
    // some of them take longer than what one waits for else.
    for (unsigned i = 0; i < 3 && !so; i++)
        so = wait_until(is_so, &wanted);
    if (!so)
        server_print_log(&of->server);
    cr_assert(so, "the huge pages of VM %lld are not %s", vm, state);
}

long long collapse_of(const char *key)
{
    return world_vm_status(world, 2, "huge", key);
}

void collapse_tell(const char *orders)
{
    cr_assert(client_obeys(&collapse_vm.client, orders), "%s", client_failure());
}

long long collapse_huge(void)
{
    collapse_tell("h");
    return (long long)atomic_load(&collapse_vm.client.shared->progress);
}

void collapse_end(void)
{
    collapse_tell("a");
    client_tell(&collapse_vm.client, 'e');
    cr_assert_eq(client_wait(&collapse_vm.client), 0, "%s", client_failure());
}

void collapse_finish(void)
{
    collapse_end();
    world_stop(world);
}
