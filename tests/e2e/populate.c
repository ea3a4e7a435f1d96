// SPDX-License-Identifier: Apache-2.0
//
// `faultline handler --populate`, used as Firecracker's tests use its example handlers.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/support/world.h"

TestSuite(populate, .init = need_userfaultfd, .fini = world_close, .timeout = 120);

static const char *const populate[] = {"--populate", NULL};
static struct world *world;

struct plan {
    uint32_t page_bytes;
    bool remove_first;
};

static bool present(const struct vmm *vmm, uint32_t page)
{
    unsigned char resident = 0;
    CHECK(mincore(vmm_page(vmm, page), PAGE, &resident) == 0, "mincore");
    return resident & 1;
}

// Touches one page; then all the others are to come without being asked for.
static int touch_one(int channel, struct client_shared *shared, void *arg)
{
    const struct plan *plan = arg;
    struct vmm vmm;
    vmm_map(&vmm, &world->memory, plan->page_bytes, 2, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    if (plan->remove_first) {
        vmm_remove(&vmm, 3, 1);
        vmm.removed[3] = true;
    }
    vmm_check(&vmm, 5);
    tell_test(channel, 't');
    await_test(channel, 'f'); // it says that it has finished
    for (uint32_t page = 0; page < vmm.pages; page++)
        CHECK(present(&vmm, page) || vmm.removed[page], "page %u is not there", page);
    vmm_touch_all(&vmm, 2, VMM_UP, true);
    return 0;
}

static bool finished(void *arg)
{
    const struct server *server = arg;
    char line[128];
    unsigned long long us = 0;
    int length = 0;
    FILE *file = fopen(server->out, "re");
    bool found = file && fgets(line, sizeof(line), file) &&
                 sscanf(line, "Finished Faulting All: %lluus\n%n", &us, &length) == 1 &&
                 length == (int)strlen(line);
    if (file)
        fclose(file);
    return found;
}

static void run(struct plan plan, uint64_t bytes)
{
    struct client client;
    world = world_make(MIXED, bytes);
    world_handler(world, populate);
    client_start(&client, touch_one, &plan);
    cr_assert(client_says(&client, 't'));
    cr_assert(wait_until(finished, &world->server));
    client_tell(&client, 'f');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

Test(populate, everything_comes_after_one_touch)
{
    run((struct plan){PAGE, false}, 24 << 20);
}

Test(populate, what_was_given_back_stays_zero)
{
    run((struct plan){PAGE, true}, 24 << 20);
}

// The page cache has lost each second MiB of the file: what it has comes out of it, the rest as
// frames.
Test(populate, out_of_a_file_that_is_cold_in_parts)
{
    struct plan plan = {PAGE, true};
    struct client client;
    world = world_make(MIXED, 24 << 20);
    world_handler(world, populate);
    int fd = open(world->file, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(fsync(fd), 0);
    munmap(world->memory.data, world->memory.bytes); // what is mapped stays
    for (off_t at = 0; at < 24 << 20; at += 2 << 20)
        posix_fadvise(fd, at, 1 << 20, POSIX_FADV_DONTNEED);
    world->memory.data = mmap(NULL, world->memory.bytes, PROT_READ, MAP_SHARED, fd, 0);
    cr_assert_neq(world->memory.data, MAP_FAILED);
    client_start(&client, touch_one, &plan);
    cr_assert(client_says(&client, 't'));
    cr_assert(wait_until(finished, &world->server));
    client_tell(&client, 'f');
    cr_assert_eq(client_wait(&client), 0);
    close(fd);
    world_stop(world);
}

// Whether the file system says what is in the page cache without a wait.
static bool reads_at_once(const char *file)
{
    uint8_t page[PAGE];
    struct iovec to = {.iov_base = page, .iov_len = sizeof(page)};
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    bool reads = fd >= 0 && preadv2(fd, &to, 1, 0, RWF_NOWAIT) == PAGE;
    if (fd >= 0)
        close(fd);
    return reads;
}

// What is in the page cache needs no second copy in the server.
Test(populate, takes_no_memory_for_what_is_in_the_page_cache)
{
    enum { BYTES = 128 << 20 };
    struct plan plan = {PAGE, false};
    struct client client;
    world = world_make(DISTINCT, BYTES);
    if (!reads_at_once(world->file))
        cr_skip_test("this file system cannot read without a wait");
    world_handler(world, populate);
    long before = server_memory_kib(&world->server);
    client_start(&client, touch_one, &plan);
    cr_assert(client_says(&client, 't'));
    cr_assert(wait_until(finished, &world->server));
    cr_assert_lt(server_memory_kib(&world->server) - before, BYTES / 4 / 1024);
    client_tell(&client, 'f');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

Test(populate, huge_pages)
{
    need_huge_pages(8);
    run((struct plan){HUGE, true}, 16 << 20);
}

#ifndef NEEDS_PROC
// As Firecracker's tests run a handler: in a chroot, in which there is no /proc. `world` has the
// server, whose socket and file are in the chroot.
static void serve_in_chroot(uint64_t bytes)
{
    static char script[2 * TEST_PATH];
    static char socket[2 * TEST_PATH];
    static const char *const args[] = {"handler", "--populate", "/mem.sock", "/memory", NULL};
    char root[TEST_PATH];
    char memory[2 * TEST_PATH];
    char binary[PATH_MAX];
    world = world_make(EMPTY, PAGE);
    cr_assert_not_null(realpath(getenv("FAULTLINE_BIN"), binary));
    snprintf(root, sizeof(root), "%s", temp_path(&world->temp, "root"));
    cr_assert_eq(mkdir(root, 0755), 0);
    snprintf(memory, sizeof(memory), "%s/memory", root);
    memory_free(&world->memory);
    memory_make(&world->memory, memory, bytes, 1);
    snprintf(socket, sizeof(socket), "%s/mem.sock", root);
    world->socket = socket;
    snprintf(script, sizeof(script), "%s", temp_path(&world->temp, "in-chroot"));
    FILE *file = fopen(script, "we");
    cr_assert_not_null(file);
    fprintf(file,
            "#!/bin/sh\n"
            "exec unshare --mount sh -ec '\n"
            "cd %s; mkdir -p usr bin\n"
            "for link in lib lib64; do ln -s usr/$link $link; done\n"
            "mount --bind /usr usr; touch bin/faultline; mount --bind %s bin/faultline\n"
            "exec chroot . /bin/faultline \"$@\"' sh \"$@\"\n",
            root, binary);
    fclose(file);
    cr_assert_eq(chmod(script, 0755), 0);
    cr_assert_eq(setenv("FAULTLINE_BIN", script, 1), 0);
    cr_assert(server_start(&world->server, &world->temp, "handler", args));
}

Test(populate, in_a_chroot_without_proc)
{
    struct plan plan = {PAGE, true};
    struct client client;
    serve_in_chroot(8 << 20);
    client_start(&client, touch_one, &plan);
    cr_assert(client_says(&client, 't'));
    cr_assert(wait_until(finished, &world->server));
    client_tell(&client, 'f');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(server_stop(&world->server), 0);
}
#endif

// The second half of the memory file is lost before it is read.
static int touch_what_is_left(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_1_12);
    vmm.shared = shared;
    vmm_catch_sigbus();
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 5);
    tell_test(channel, 't');
    await_test(channel, 'f');
    CHECK(vmm_poisoned(vmm_page(&vmm, vmm.pages - 1)), "it is not poisoned");
    return 0;
}

Test(populate, says_that_it_has_not_finished)
{
    static const char *const options[] = {"--populate", "--retries", "0",
                                          "--on-error", "poison",    NULL};
    struct client client;
    world = world_make(DISTINCT, 24 << 20);
    world_handler(world, options);
    cr_assert_eq(truncate(world->file, 12 << 20), 0);
    client_start(&client, touch_what_is_left, NULL);
    cr_assert(client_says(&client, 't'));
    cr_assert(server_wait_log(&world->server, "event=filled vm=1", 1));
    cr_expect_eq(server_logs(&world->server, "poisoned=3072", 1), 1);
    cr_expect_gt(server_count_log(&world->server, "reason=\"its frame is cut short"), 0);
    cr_expect_not(finished(&world->server));
    client_tell(&client, 'f');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(server_stop(&world->server), 3);
}

// Firecracker's own example handlers take SOCKET MEMFILE and nothing else.
Test(populate, wrong_arguments_are_refused)
{
    char output[1024];
    const char *none[] = {"handler", NULL};
    const char *one[] = {"handler", "/tmp/faultline-no.sock", NULL};
    const char *no_file[] = {"handler", "/tmp/faultline-no.sock", "/nonexistent/memory", NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), none), 2, "%s", output);
    cr_assert_eq(faultline_run(output, sizeof(output), one), 2, "%s", output);
    cr_assert_eq(faultline_run(output, sizeof(output), no_file), 1, "%s", output);
    cr_assert_not_null(strstr(output, "/nonexistent/memory"), "%s", output);
}
