// SPDX-License-Identifier: Apache-2.0
#include "tests/support/capture_world.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct captured captured;

// --- VMs ---

static int guest_main(int channel, struct client_shared *shared, void *arg)
{
    static struct vmm vmm;
    struct guest *guest = arg;
    if (guest->silent)
        vmm_map_silent(&vmm, &captured.world->memory, PAGE, CAPTURED_REGIONS);
    else
        vmm_map(&vmm, &captured.world->memory, PAGE, CAPTURED_REGIONS, VMM_1_12);
    vmm.shared = shared;
    if (guest->transparent)
        vmm_advise(&vmm, MADV_HUGEPAGE);
    memcpy(guest->place->region, vmm.region, sizeof(vmm.region));
    guest->place->uffd = vmm.uffd;
    vmm_handshake(&vmm, captured.world->socket);
    // Without events only what was there once is zeros after it was dropped.
    bool all = guest->silent && guest->writers->removes > 0;
    for (uint32_t page = all ? 0 : guest->writers->hot; page < vmm.pages; page++)
        vmm_check(&vmm, page);
    tell_test(channel, 's');
    writers_run(guest->writers, &vmm);
    return 0;
}

void guest_start(struct guest *guest, unsigned removes)
{
    guest->writers = writers_new(CAPTURED_PAGES, PAGE);
    cr_assert_not_null(guest->writers);
    guest->writers->threads = 3;
    guest->writers->hot = CAPTURED_PAGES / 4 * 3;
    guest->writers->removes = removes;
    guest->writers->rests_us = 20;
    guest->place = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(guest->place, MAP_FAILED);
    client_start(&guest->client, guest_main, guest);
    cr_assert(client_says(&guest->client, 's'));
    cr_assert(writers_go_on(guest->writers, OPERATIONS));
}

long guest_protected(const struct guest *guest)
{
    long count = 0;
    for (unsigned i = 0; i < CAPTURED_REGIONS; i++) {
        long here = writers_protected(guest->client.pid, guest->place->region[i].base,
                                      guest->place->region[i].bytes);
        if (here < 0)
            return here;
        count += here;
    }
    return count;
}

void guest_protect(const struct guest *guest, unsigned pages)
{
    int pidfd = (int)syscall(SYS_pidfd_open, guest->client.pid, 0);
    int uffd = (int)syscall(SYS_pidfd_getfd, pidfd, guest->place->uffd, 0);
    struct uffdio_writeprotect protect = {
        .range = {(uintptr_t)guest->place->region[0].base, (uint64_t)pages * PAGE},
        .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    cr_assert_eq(ioctl(uffd, UFFDIO_WRITEPROTECT, &protect), 0, "%s", strerror(errno));
    close(uffd);
    close(pidfd);
}

static bool is_unprotected(void *arg)
{
    return guest_protected(arg) == 0;
}

// It runs, and nothing of a capture is left.
void guest_is_free(struct guest *guest)
{
    cr_assert(wait_until(is_unprotected, guest), "%ld pages stay write-protected",
              guest_protected(guest));
    writers_resume(guest->writers);
    cr_assert(writers_go_on(guest->writers, OPERATIONS));
}

void guest_end(struct guest *guest)
{
    guest_is_free(guest);
    writers_end(guest->writers);
    cr_assert_eq(client_wait(&guest->client), 0, "%s", client_failure());
    writers_free(guest->writers);
    munmap(guest->place, PAGE);
    guest->writers = NULL;
}

void captured_make(void)
{
    captured.world = world_make(MIXED, CAPTURED_BYTES);
    snprintf(captured.control, sizeof(captured.control), "%s",
             temp_path(&captured.world->temp, "control.sock"));
    captured.image = malloc(CAPTURED_BYTES);
    captured.model = malloc(CAPTURED_BYTES);
    cr_assert(captured.image && captured.model);
}

void captured_serve(const char *const *extra, unsigned removes)
{
    world_serve(captured.world, extra);
    guest_start(&captured.guest[0], removes);
}

void captured_begin(const char *const *extra, unsigned removes)
{
    captured_make();
    captured_serve(extra, removes);
}

void captured_begin_silent(unsigned removes)
{
    captured.guest[0].silent = true;
    captured_begin(NULL, removes);
}

void captured_end_of_vm(void)
{
    guest_end(&captured.guest[0]);
    free(captured.image);
    free(captured.model);
}

void captured_end(void)
{
    captured_end_of_vm();
    world_stop(captured.world);
}

// --- captures ---

void connect_capture(struct capture_client *capture)
{
    cr_assert(capture_connect(capture, captured.control), "%s", capture->text);
}

void begin_capture(struct capture_client *capture, uint64_t vm, uint64_t flags)
{
    connect_capture(capture);
    cr_assert_eq(capture_begin(capture, vm, flags), 0, "%d: %s", capture->error, capture->text);
    cr_assert_eq(capture->board->image_pages, CAPTURED_PAGES);
    memcpy(captured.image, captured.world->memory.data, CAPTURED_BYTES);
}

// Pauses the VM, and knows what the captured.image must be.
void pause_guest(struct guest *guest)
{
    cr_assert(writers_pause(guest->writers));
    writers_image(guest->writers, &captured.world->memory, captured.model);
}

void freeze_capture(struct capture_client *capture, struct guest *guest)
{
    cr_assert(capture_await(capture, FL_CAPTURE_READY), "%s", capture->text);
    pause_guest(guest);
    cr_assert(capture_freeze(capture));
    cr_assert(capture_await(capture, FL_CAPTURE_FROZEN), "%s", capture->text);
    writers_resume(guest->writers);
}

void expect_same(const char *when)
{
    uint32_t wrong = 0;
    uint32_t first = 0;
    for (uint32_t page = CAPTURED_PAGES; page-- > 0;) {
        if (memcmp(captured.image + (size_t)page * PAGE, captured.model + (size_t)page * PAGE,
                   PAGE) == 0)
            continue;
        wrong++;
        first = page;
    }
    cr_assert_eq(wrong, 0, "%s: %u pages are wrong, the first is %u", when, wrong, first);
}

// All of it, byte by byte, but for the end.
void capture_all(struct capture_client *capture, struct guest *guest, uint64_t vm, uint64_t flags)
{
    begin_capture(capture, vm, flags);
    freeze_capture(capture, guest);
    cr_assert(capture_take_all(capture, captured.image), "%d: %s", capture->error, capture->text);
    expect_same("COPIED");
}

const char *published_as(const char *name)
{
    static char text[256];
    snprintf(text, sizeof(text),
             "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef %s", name);
    return text;
}

void publish(struct capture_client *capture, const char *name)
{
    cr_assert(capture_commit(capture, published_as(name)));
    cr_assert(capture_await(capture, FL_CAPTURE_KEPT), "%s", capture->text);
    capture_close(capture);
}

void capture_works(struct guest *guest, uint64_t vm)
{
    struct capture_client capture;
    capture_all(&capture, guest, vm, 0);
    publish(&capture, "image-2");
}

bool no_capture_runs(void *arg)
{
    (void)arg;
    return world_status(captured.world, "captures", "running") == 0;
}

void kill_captured_engine(void)
{
    cr_assert(server_kill_engine(&captured.world->server));
}

// Up to that moment; at ORDERED the VM is still paused.
void capture_until(struct capture_client *capture, struct guest *guest, enum moment moment)
{
    begin_capture(capture, 1, FL_CAPTURE_KEEP_ARMED);
    if (moment >= READY)
        cr_assert(capture_await(capture, FL_CAPTURE_READY), "%s", capture->text);
    if (moment >= ORDERED) {
        pause_guest(guest);
        cr_assert(capture_freeze(capture));
    }
    if (moment >= FROZEN) {
        cr_assert(capture_await(capture, FL_CAPTURE_FROZEN), "%s", capture->text);
        writers_resume(guest->writers);
    }
    if (moment >= COPIED)
        cr_assert(capture_take_all(capture, captured.image), "%s", capture->text);
}

bool captures_failed(void *count)
{
    return world_status(captured.world, "captures", "failed") == *(const int *)count;
}

bool no_vm_is_left(void *arg)
{
    (void)arg;
    return world_status(captured.world, "", "vms") == 0;
}
