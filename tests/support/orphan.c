// SPDX-License-Identifier: Apache-2.0
#include "tests/support/orphan.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { DRAM = ORPHAN_BYTES / 4 * 3 }; // of a VM with a region that can be plugged in

struct world *orphan_world;
struct client orphan_client;
char orphan_output[ORPHAN_OUTPUT];

struct orphan_told *orphan_told;

void orphan_begin(void)
{
    need_userfaultfd();
    orphan_told =
        mmap(NULL, sizeof(*orphan_told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(orphan_told, MAP_FAILED);
}

void orphan_end(void)
{
    client_kill(&orphan_client);
    world_close();
}

// --- VMs ---

// One mapping for both, so that nobody can see from outside that there are two.
static void swap_regions(struct vmm *vmm)
{
    uint8_t *all = mmap(NULL, ORPHAN_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(all != MAP_FAILED, "mmap");
    vmm->region[0].base = all + vmm->region[1].bytes;
    vmm->region[1].base = all;
}

// As Firecracker has it: the region that can be plugged in is the last of the image, but lies below
// the memory, and cannot be touched yet.
static void map_plugged(struct vmm *vmm)
{
    uint8_t *all = mmap(NULL, ORPHAN_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(all != MAP_FAILED, "mmap");
    CHECK(mprotect(all, ORPHAN_BYTES - DRAM, PROT_NONE) == 0, "mprotect");
    vmm->region[0] = (struct vmm_region){.base = all + (ORPHAN_BYTES - DRAM), .bytes = DRAM};
    vmm->region[1] = (struct vmm_region){.base = all, .bytes = ORPHAN_BYTES - DRAM, .offset = DRAM};
}

static void plug(const struct vmm *vmm)
{
    CHECK(mprotect(vmm->region[1].base, vmm->region[1].bytes, PROT_READ | PROT_WRITE) == 0,
          "mprotect");
}

static void empty_plugged(void)
{
    int fd = open(orphan_world->file, O_RDWR | O_CLOEXEC);
    cr_assert_eq(
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, DRAM, ORPHAN_BYTES - DRAM), 0);
    close(fd);
}

static void touch_half(struct vmm *vmm, const struct orphan_plan *plan)
{
    uint32_t pages = plan->plugged ? DRAM / vmm->page_bytes : vmm->pages;
    for (uint32_t page = 0; page < pages && !plan->idle; page += 2)
        vmm_check(vmm, page);
    for (uint32_t page = 0; page < pages && plan->dirt > 0; page += 2 * plan->dirt) {
        memset(vmm_page(vmm, page), 0, vmm->page_bytes);
        vmm->removed[page] = true; // it is zeros from now on
    }
    for (unsigned i = 0; i < vmm->regions && plan->swaps; i++)
        CHECK(madvise(vmm->region[i].base, vmm->region[i].bytes, MADV_PAGEOUT) == 0, "madvise");
}

static void remove_some(struct vmm *vmm)
{
    uint32_t from = vmm->pages / 4;
    uint32_t count = vmm->pages / 4;
    vmm_remove(vmm, from, count);
    for (uint32_t page = from; page < from + count; page++)
        vmm->removed[page] = true;
}

static void expect_poison(const struct vmm *vmm)
{
    vmm_catch_sigbus();
    for (uint32_t page = 1; page < vmm->pages; page += 2)
        CHECK(vmm_poisoned(vmm_page(vmm, page)), "page %u is not poisoned", page);
}

// Touches half of its memory; when its handler is gone, all of it.
static int run_vmm(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    const struct orphan_plan *plan = arg;
    if (plan->shared) {
        vmm_map_template(&vmm, &orphan_world->memory, plan->regions, orphan_told->socket, NULL);
    } else {
        vmm_map_memory(&vmm, &orphan_world->memory, plan->page_bytes, plan->regions, VMM_MAIN);
        if (plan->swapped)
            swap_regions(&vmm);
        if (plan->plugged)
            map_plugged(&vmm);
        vmm.uffd = vmm_open_uffd(VMM_MAIN);
        vmm_enable(vmm.uffd, 0);
        vmm_register(&vmm);
    }
    vmm.shared = shared;
    orphan_told->regions[vmm_handshake_text(&vmm, orphan_told->regions)] = '\0';
    orphan_told->first = vmm.region[0].base;
    if (plan->shared)
        vmm_handshake_template(&vmm);
    else
        vmm_handshake(&vmm, orphan_world->socket);
    touch_half(&vmm, plan);
    if (plan->removes)
        remove_some(&vmm);
    if (plan->shared) // it is the image's
        memset(vmm.removed, false, vmm.pages * sizeof(*vmm.removed));
    tell_test(channel, 'h');
    await_test(channel, 'g');
    if (plan->plugged)
        plug(&vmm);
    if (plan->poisoned)
        expect_poison(&vmm);
    else
        vmm_touch_all(&vmm, ORPHAN_THREADS, VMM_UP, false);
    return 0;
}

void orphan_start_vmm(const struct orphan_plan *plan)
{
    static struct orphan_plan kept;
    kept = *plan;
    client_start(&orphan_client, run_vmm, &kept);
    cr_assert(client_says(&orphan_client, 'h'));
}

void orphan_go_on(unsigned waiters)
{
    client_tell(&orphan_client, 'g');
    cr_assert(client_waits(&orphan_client, waiters));
}

// A VM whose handler, `faultline handler`, was killed in the middle.
void orphan_make(enum world_memory kind, const struct orphan_plan *plan)
{
    orphan_world = world_make(kind, ORPHAN_BYTES);
    if (plan->plugged)
        empty_plugged();
    world_handler(orphan_world, NULL);
    orphan_start_vmm(plan);
    server_kill(&orphan_world->server);
    orphan_go_on(plan->poisoned ? 1 : ORPHAN_THREADS);
}

// --- commands ---

// `faultline rescue OPTIONS... PID`, for the server and the store of this test.
int orphan_rescue(pid_t pid, const char *const *options)
{
    char number[16];
    const char *args[ORPHAN_ARGS] = {"rescue", "--control",
                                     temp_path(&orphan_world->temp, "control.sock"), "--store",
                                     orphan_world->store};
    unsigned count = 5;
    snprintf(number, sizeof(number), "%d", (int)pid);
    while (options && *options)
        args[count++] = *options++;
    args[count++] = number;
    args[count] = NULL;
    return faultline_run(orphan_output, sizeof(orphan_output), args);
}

// Whether the doctor, who is asked until he does, says this.
static bool doctor_says(void *arg)
{
    const char *args[] = {"doctor", "--patience", "50", NULL};
    return faultline_run(orphan_output, sizeof(orphan_output), args) == 1 &&
           strstr(orphan_output, arg);
}

void expect_doctor(const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    cr_expect(wait_until(doctor_says, text), "the doctor does not say '%s' but: %s", text,
              orphan_output);
}

void expect_served(void)
{
    int status = client_wait(&orphan_client);
    if (status != 0)
        server_print_log(&orphan_world->server);
    cr_assert_eq(status, 0, "the VM ends with %d", status);
    cr_assert(server_wait_log(&orphan_world->server, "event=detach vm=", 1));
    world_stop(orphan_world);
}
