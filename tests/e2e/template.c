// SPDX-License-Identifier: Apache-2.0
//
// Templates: what one VM has touched is there for all, nobody can write it, and nothing depends on
// it but memory.
#include <criterion/criterion.h>
#include <errno.h>
#include <faultline_client.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "tests/support/points.h"
#include "tests/support/traces.h"
#include "tests/support/world.h"

enum { BYTES = 8 << 20, PAGES = BYTES / PAGE, CROWD = 12, KILLS = 8 };

TestSuite(template, .init = need_userfaultfd, .fini = world_close, .timeout = 180);

static struct world *world;
// Nothing comes that nobody has touched.
static const char *const by_touch[] = {"--prefetch", "0", NULL};
static char template_socket[2 * TEST_PATH];
static char template_path[2 * TEST_PATH];

// --- the verb, and what the server says ---

static int run(char output[4096], const char *a, const char *b, const char *c)
{
    const char *args[] = {"template", "--control", temp_path(&world->temp, "control.sock"), a, b,
                          c,          NULL};
    return faultline_run(output, 4096, args);
}

static void make_template(void)
{
    char output[4096];
    cr_assert_eq(run(output, "image", NULL, NULL), 0, "%s", output);
    output[strcspn(output, "\n")] = '\0';
    cr_assert_str_eq(output, template_socket);
}

static void complete_template(void)
{
    char output[4096];
    cr_assert_eq(run(output, "--complete", "image", NULL), 0, "%s", output);
    output[strcspn(output, "\n")] = '\0';
    cr_assert_str_eq(output, template_path);
}

static void serve(const char *const *extra)
{
    world_serve(world, extra);
    snprintf(template_socket, sizeof(template_socket), "%s",
             temp_path(&world->temp, "sockets/image.template"));
    snprintf(template_path, sizeof(template_path), "%s",
             temp_path(&world->temp, "sockets/image.mem"));
}

static void prepare(enum world_memory kind, const char *const *extra)
{
    world = world_make(kind, BYTES);
    serve(extra);
}

static void begin(enum world_memory kind, const char *const *extra)
{
    prepare(kind, extra);
    make_template();
}

// A number of the nth entry; -1 if there is none.
static long long of_template(size_t n, const char *key)
{
    char output[4096];
    cr_assert_eq(run(output, "--list", "--json", NULL), 0, "%s", output);
    json_t *answer = json_loads(output, 0, NULL);
    cr_assert_not_null(answer, "%s", output);
    const json_t *value = json_object_get(json_array_get(json_object_get(answer, "list"), n), key);
    long long number = json_is_integer(value) ? json_integer_value(value) : -1;
    json_decref(answer);
    return number;
}

static size_t templates(void)
{
    char output[4096];
    cr_assert_eq(run(output, "--list", "--json", NULL), 0, "%s", output);
    json_t *answer = json_loads(output, 0, NULL);
    size_t count = json_array_size(json_object_get(answer, "list"));
    json_decref(answer);
    return count;
}

static bool no_template_is_left(void *arg)
{
    (void)arg;
    return templates() == 0;
}

static bool no_vm_is_left(void *arg)
{
    (void)arg;
    return world_status(world, "", "vms") == 0;
}

static void kill_engine(void)
{
    cr_assert(server_kill_engine(&world->server));
}

// --- a client that does what it is told ---

// 't' touches all and checks it, 'm' with many threads, after which next to nothing is its own; 'h'
// touches the first half; 'w' writes to every third page; 'c' checks
// that those are its own and the rest the image's; 'r' gives everything back; 'd' checks again that
// all is the image's; 'k' that what it was given cannot be written; 'z' reads page 3 through a
// mapping that nobody watches; 'e' ends.
struct guest {
    struct vmm vmm;
    int given;
};

static void check_from(struct guest *guest, uint32_t first, uint32_t end)
{
    for (uint32_t page = first; page < end; page++)
        vmm_check(&guest->vmm, page);
}

static void write_own(struct guest *guest)
{
    for (uint32_t page = 0; page < guest->vmm.pages; page += 3)
        memset(vmm_page(&guest->vmm, page), (int)getpid() & 0xff, PAGE);
}

static void check_own(struct guest *guest)
{
    uint8_t own[PAGE];
    memset(own, (int)getpid() & 0xff, PAGE);
    for (uint32_t page = 0; page < guest->vmm.pages; page++) {
        if (page % 3 == 0)
            CHECK(memcmp(vmm_page(&guest->vmm, page), own, PAGE) == 0, "page %u", page);
        else
            vmm_check(&guest->vmm, page);
    }
}

static void try_to_write(const struct guest *guest)
{
    char path[40];
    CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, guest->given, 0) == MAP_FAILED,
          "it can be mapped to write");
    CHECK(pwrite(guest->given, "x", 1, 0) < 0, "it can be written");
    CHECK(ftruncate(guest->given, 0) != 0, "it can be cut");
    CHECK(fallocate(guest->given, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) != 0,
          "it can be punched");
    CHECK(setgid(65534) == 0 && setuid(65534) == 0, "setuid");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", guest->given);
    CHECK(open(path, O_RDWR | O_CLOEXEC) < 0, "it can be opened to write");
    CHECK(fchmod(guest->given, 0666) != 0, "its mode can be changed");
}

static void read_unwatched(const struct guest *guest)
{
    const volatile uint8_t *memory = mmap(NULL, BYTES, PROT_READ, MAP_PRIVATE, guest->given, 0);
    CHECK(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    CHECK(memory[3 * PAGE] == 0, "a hole that nobody watches is zeros");
}

// What it has of its own of the mapping, in KiB.
static unsigned long own_memory(const struct guest *guest)
{
    char line[256];
    char start[32];
    unsigned long kib = 0;
    bool here = false;
    snprintf(start, sizeof(start), "%lx-", (unsigned long)(uintptr_t)guest->vmm.region[0].base);
    FILE *file = fopen("/proc/self/smaps", "re");
    CHECK(file, "smaps");
    while (fgets(line, sizeof(line), file)) {
        if (strchr(line, '-') && strstr(line, "/memfd:"))
            here = strncmp(line, start, strlen(start)) == 0;
        if (here && sscanf(line, "Anonymous: %lu", &kib) == 1)
            break;
    }
    fclose(file);
    return kib;
}

static bool obey(struct guest *guest, char order)
{
    uint32_t pages = guest->vmm.pages;
    switch (order) {
    case 't':
        vmm_touch_all(&guest->vmm, 2, VMM_RANDOM, true);
        break;
    case 'm':
        vmm_touch_all(&guest->vmm, 8, VMM_UP, false);
        CHECK(own_memory(guest) <= BYTES / 1024 / 64, "%lu KiB of its own", own_memory(guest));
        memset(vmm_page(&guest->vmm, 0), 1, BYTES / 32);
        CHECK(own_memory(guest) >= BYTES / 1024 / 32, "%lu KiB of its own", own_memory(guest));
        break;
    case 'h':
        check_from(guest, 0, pages / 2);
        break;
    case 'w':
        write_own(guest);
        break;
    case 'c':
        check_own(guest);
        break;
    case 'r':
        vmm_remove(&guest->vmm, 0, pages);
        break;
    case 'd':
        check_from(guest, 0, pages);
        break;
    case 'k':
        try_to_write(guest);
        break;
    case 'z':
        read_unwatched(guest);
        break;
    default:
        return false;
    }
    return true;
}

static int guest_main(int channel, struct client_shared *shared, void *arg)
{
    struct guest guest;
    (void)arg;
    vmm_map_template(&guest.vmm, &world->memory, 1, template_socket, &guest.given);
    guest.vmm.shared = shared;
    vmm_handshake_template(&guest.vmm);
    tell_test(channel, 'd');
    for (;;) {
        char order = next_order(channel);
        if (!obey(&guest, order))
            return 0;
        tell_test(channel, 'd');
    }
}

static void start(struct client *client)
{
    client_start(client, guest_main, NULL);
    cr_assert(client_says(client, 'd'));
}

// --- ahead of touches ---

static bool is_replayed(void *arg)
{
    return world_vm_replay_is(world, *(long long *)arg, "done");
}

// The working set goes into the template once; a clone after that needs nothing of it, and reads
// nothing for it.
Test(template, gets_the_working_set_ahead_once)
{
    struct client first;
    struct client second;
    long long vm = 2;
    uint32_t *order = random_order(PAGES, 3);
    prepare(DISTINCT, NULL);
    record_one(world, (struct touches){NULL, PAGE, 1, order, PAGES / 2});
    make_template();
    start(&first);
    cr_assert(wait_until(is_replayed, &vm));
    cr_assert_eq(world_vm_status(world, vm, "replay", "pages"), PAGES / 2);
    cr_assert_eq(of_template(0, "filled"), BYTES / 2);
    vm = 3;
    start(&second);
    cr_assert(wait_until(is_replayed, &vm));
    cr_assert_eq(world_vm_status(world, vm, "replay", "pages"), 0);
    client_tell(&first, 't');
    cr_assert(client_says(&first, 'd'));
    client_tell(&second, 't');
    cr_assert(client_says(&second, 'd'));
    client_tell(&first, 'e');
    client_tell(&second, 'e');
    cr_assert_eq(client_wait(&first), 0);
    cr_assert_eq(client_wait(&second), 0);
    free(order);
    world_stop(world);
}

static void end(struct client *client)
{
    client_tell(client, 'e');
    cr_assert_eq(client_wait(client), 0);
}

static long long faults(void)
{
    return world_status(world, "faults", "read");
}

// --- sharing ---

Test(template, the_second_takes_no_fault)
{
    struct client first;
    struct client second;
    begin(MIXED, by_touch);
    start(&first);
    cr_assert(client_obeys(&first, "t"));
    long long before = faults();
    cr_assert_gt(before, 0);
    start(&second);
    cr_assert(client_obeys(&second, "t"));
    cr_assert_eq(faults(), before);
    cr_assert_eq(of_template(0, "filled"), BYTES);
    cr_assert_eq(of_template(0, "clones"), 2);
    end(&first);
    end(&second);
    world_stop(world);
}

// Of many messages for one page, some come when it is there already.
Test(template, what_nobody_writes_is_nobodys_own)
{
    struct client clients[3];
    begin(DISTINCT, NULL);
    for (unsigned i = 0; i < 3; i++) {
        start(&clients[i]);
        client_tell(&clients[i], 'm');
    }
    for (unsigned i = 0; i < 3; i++)
        cr_assert(client_says(&clients[i], 'd'));
    for (unsigned i = 0; i < 3; i++)
        end(&clients[i]);
    world_stop(world);
}

Test(template, what_one_writes_is_its_own)
{
    struct client first;
    struct client second;
    begin(MIXED, NULL);
    start(&first);
    start(&second);
    cr_assert(client_obeys(&first, "hwc"));
    cr_assert(client_obeys(&second, "twc"));
    cr_assert(client_obeys(&first, "c"));
    end(&second);
    start(&second);
    cr_assert(client_obeys(&second, "t"));
    end(&first);
    end(&second);
    world_stop(world);
}

Test(template, what_is_given_back_is_the_images)
{
    struct client first;
    struct client second;
    begin(MIXED, NULL);
    start(&first);
    // Holes and pages, touched and not.
    cr_assert(client_obeys(&first, "r"));
    cr_assert(client_obeys(&first, "hwrd"));
    start(&second);
    cr_assert(client_obeys(&second, "t"));
    end(&first);
    end(&second);
    world_stop(world);
}

Test(template, many_at_once)
{
    struct client crowd[CROWD];
    begin(MIXED, NULL);
    for (unsigned i = 0; i < CROWD; i++)
        start(&crowd[i]);
    for (unsigned i = 0; i < CROWD; i++)
        client_tell(&crowd[i], i % 3 ? 't' : 'd');
    for (unsigned i = 0; i < CROWD; i++)
        cr_assert(client_says(&crowd[i], 'd'));
    cr_assert_eq(of_template(0, "filled"), BYTES);
    cr_assert_eq(of_template(0, "private_pages"), 0);
    cr_assert_eq(of_template(0, "repaired_pages"), 0);
    for (unsigned i = 0; i < CROWD; i++)
        cr_assert(client_obeys(&crowd[i], "wc"));
    for (unsigned i = 0; i < CROWD; i++)
        end(&crowd[i]);
    cr_assert_eq(world_status(world, "faults", "parked"), 0);
    world_stop(world);
}

Test(template, through_the_client_library)
{
    struct fl_client *client = NULL;
    struct fl_client_region regions[2] = {{.bytes = BYTES / 4, .offset = BYTES / 2},
                                          {.bytes = BYTES / 4, .offset = 0}};
    struct fl_client_region beyond = {.bytes = BYTES, .offset = PAGE};
    begin(MIXED, NULL);
    cr_assert_eq(fl_client_map_template(template_socket, &beyond, 1, &client), -EINVAL);
    cr_assert_eq(fl_client_map_template(template_socket, regions, 2, &client), 0);
    for (int i = 0; i < 2; i++)
        cr_assert(
            memory_same(&world->memory, regions[i].offset, regions[i].address, regions[i].bytes));
    memset(regions[0].address, 1, PAGE);
    fl_client_close(client);
    cr_assert_eq(of_template(0, "filled"), BYTES / 2);
    cr_assert(wait_until(no_vm_is_left, NULL));
    world_stop(world);
}

// Anonymous memory, or the template at another place: its owner's bytes are right all the same.
static int wrong_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)channel;
    (void)arg;
    vmm_map_template(&vmm, &world->memory, 2, template_socket, NULL);
    for (unsigned i = 0; i < 2; i++)
        CHECK(mmap(vmm.region[i].base, vmm.region[i].bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED,
              "mmap");
    vmm_register(&vmm);
    vmm.shared = shared;
    vmm_handshake_template(&vmm);
    vmm_touch_all(&vmm, 2, VMM_UP, true);
    return 0;
}

Test(template, who_maps_something_else_gets_its_bytes)
{
    struct client client;
    begin(MIXED, NULL);
    client_start(&client, wrong_main, NULL);
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

// --- nobody else writes ---

Test(template, cannot_be_written_by_a_client)
{
    struct client client;
    begin(DISTINCT, NULL);
    start(&client);
    cr_assert(client_obeys(&client, "hk"));
    end(&client);
    start(&client);
    cr_assert(client_obeys(&client, "t"));
    end(&client);
    world_stop(world);
}

Test(template, zeros_that_a_client_made_are_found)
{
    struct client first;
    struct client second;
    begin(DISTINCT, NULL);
    start(&first);
    cr_assert(client_obeys(&first, "z"));
    start(&second);
    cr_assert(client_obeys(&second, "t"));
    cr_assert_eq(of_template(0, "repaired_pages"), 1);
    cr_assert(
        server_wait_log(&world->server, "event=template_repaired image=image image_page=3 ", 1));
    cr_assert(client_obeys(&first, "t"));
    end(&first);
    end(&second);
    world_stop(world);
}

// --- complete ---

static void check_path(void)
{
    int fd = open(template_path, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0, "%s: %s", template_path, strerror(errno));
    uint8_t *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    cr_assert_neq(memory, MAP_FAILED);
    cr_assert(memory_same(&world->memory, 0, memory, BYTES));
    memory[0] ^= 1;
    munmap(memory, BYTES);
    close(fd);
}

Test(template, complete_is_a_file_that_root_cannot_write)
{
    struct client client;
    prepare(MIXED, NULL);
    complete_template();
    check_path();
    int fd = open(template_path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0, "root may open it");
    cr_assert_eq(pwrite(fd, "x", 1, 0), -1);
    cr_assert_eq(errno, EPERM);
    cr_assert_eq(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    cr_assert_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), -1);
    close(fd);
    start(&client);
    cr_assert(client_obeys(&client, "twcrd"));
    cr_assert_eq(faults(), 0);
    end(&client);
    check_path();
    world_stop(world);
    cr_assert_eq(access(template_path, F_OK), -1);
}

Test(template, is_completed_while_clones_run)
{
    struct client clients[4];
    begin(MIXED, NULL);
    for (unsigned i = 0; i < 4; i++)
        start(&clients[i]);
    cr_assert(client_obeys(&clients[0], "hw"));
    for (unsigned i = 0; i < 4; i++)
        client_tell(&clients[i], "cttd"[i]);
    complete_template();
    check_path();
    for (unsigned i = 0; i < 4; i++)
        cr_assert(client_says(&clients[i], 'd'));
    cr_assert_eq(of_template(0, "filled"), BYTES);
    cr_assert_eq(of_template(0, "repaired_pages"), 0);
    cr_assert(client_obeys(&clients[0], "c"));
    for (unsigned i = 0; i < 4; i++)
        end(&clients[i]);
    world_stop(world);
}

Test(template, completing_repairs_what_a_client_made)
{
    struct client client;
    begin(DISTINCT, NULL);
    start(&client);
    cr_assert(client_obeys(&client, "z"));
    complete_template();
    check_path();
    cr_assert_eq(of_template(0, "repaired_pages"), 1);
    cr_assert(client_obeys(&client, "t"));
    end(&client);
    world_stop(world);
}

// --- the bound ---

Test(template, without_room_pages_are_private)
{
    static const char *const quarter[] = {"--template-bytes", "2M", NULL};
    struct client first;
    struct client second;
    char output[4096];
    begin(DISTINCT, quarter);
    start(&first);
    start(&second);
    cr_assert(client_obeys(&first, "twc"));
    cr_assert(client_obeys(&second, "twcrd"));
    cr_assert_eq(of_template(0, "filled"), 2 << 20);
    cr_assert_geq(of_template(0, "private_pages"), 2 * (PAGES - 512));
    cr_assert_eq(run(output, "--complete", "image", NULL), 1);
    cr_assert_not_null(strstr(output, "the bound on the memory of templates is reached"), "%s",
                       output);
    cr_assert(client_obeys(&first, "c"));
    end(&first);
    end(&second);
    world_stop(world);
}

// --- replay ---

static bool half_is_filled(void *arg)
{
    (void)arg;
    return of_template(0, "filled") >= BYTES / 2;
}

// The working set comes once for the host, before anybody touches it.
Test(template, a_trace_is_replayed_into_it)
{
    struct client clients[2];
    uint32_t *order = random_order(PAGES, 11);
    world = world_make(DISTINCT, BYTES);
    serve(by_touch);
    record_one(world, (struct touches){NULL, PAGE, 1, order, PAGES / 2});
    make_template();
    long long before = faults();
    start(&clients[0]);
    cr_assert(wait_until(half_is_filled, NULL));
    cr_assert_eq(faults(), before);
    start(&clients[1]);
    cr_assert(client_obeys(&clients[0], "t"));
    cr_assert(client_obeys(&clients[1], "twcrd"));
    cr_assert_leq(faults(), before + PAGES / 2 + PAGES / 8);
    for (unsigned i = 0; i < 2; i++)
        end(&clients[i]);
    free(order);
    world_stop(world);
}

// --- its life ---

Test(template, removed_it_lives_as_long_as_its_clones)
{
    struct client first;
    struct client second;
    struct fl_client *client = NULL;
    struct fl_client_region region = {.bytes = PAGE};
    char output[4096];
    begin(MIXED, NULL);
    start(&first);
    start(&second);
    cr_assert(client_obeys(&first, "h"));
    cr_assert_eq(run(output, "--remove", "image", NULL), 0, "%s", output);
    cr_assert_eq(run(output, "--remove", "image", NULL), 1);
    cr_assert_eq(fl_client_map_template(template_socket, &region, 1, &client), -ENOENT);
    cr_assert(client_obeys(&first, "twc"));
    long long before = faults();
    cr_assert(client_obeys(&second, "t"));
    cr_assert_eq(faults(), before);
    cr_assert_eq(templates(), 1);
    end(&first);
    client_kill(&second);
    cr_assert(wait_until(no_template_is_left, NULL));
    cr_assert_eq(world_status(world, "templates", "bytes"), 0);
    // And again.
    make_template();
    start(&first);
    cr_assert(client_obeys(&first, "t"));
    end(&first);
    world_stop(world);
}

Test(template, asked_for_again_it_is_the_same)
{
    struct client client;
    char output[4096];
    begin(MIXED, NULL);
    start(&client);
    cr_assert(client_obeys(&client, "t"));
    make_template();
    cr_assert_eq(templates(), 1);
    cr_assert_eq(run(output, "--remove", "image", NULL), 0, "%s", output);
    make_template();
    cr_assert_eq(templates(), 1);
    cr_assert_eq(of_template(0, "filled"), BYTES);
    end(&client);
    world_stop(world);
}

Test(template, of_an_image_that_is_replaced)
{
    struct client old;
    struct client new;
    struct memory other;
    begin(DISTINCT, NULL);
    start(&old);
    cr_assert(client_obeys(&old, "h"));
    const char *args[] = {"rm", "--store", world->store, "image", NULL};
    cr_assert_eq(faultline_run(NULL, 0, args), 0);
    memory_make_distinct(&other, temp_path(&world->temp, "other"), BYTES, 99);
    world_pack(world, temp_path(&world->temp, "other"), "image");
    cr_assert(server_wait_log(&world->server, "event=template_unpinned image=image", 1));
    make_template();
    struct world two = *world;
    two.memory = other;
    struct world *one = world;
    world = &two;
    start(&new);
    cr_assert(client_obeys(&new, "twcrd"));
    world = one;
    cr_assert(client_obeys(&old, "twcrd"));
    cr_assert_eq(templates(), 2);
    end(&old);
    end(&new);
    memory_free(&other);
    world_stop(world);
}

// Is sent the template, and says nothing before it is told to.
static int greeted_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    vmm_map_template(&vmm, &world->memory, 1, template_socket, NULL);
    vmm.shared = shared;
    tell_test(channel, 'o');
    await_test(channel, 'h');
    vmm_handshake_template(&vmm);
    vmm_touch_all(&vmm, 2, VMM_RANDOM, true);
    return 0;
}

// The engine that has sent it dies, and the image's name stands for nothing by then, or for another
// image that has a template, too.
static void sent_and_replaced(bool again)
{
    static const char *const patient[] = {"--handshake-timeout", "60000", NULL};
    struct client client;
    struct memory other;
    begin(DISTINCT, patient);
    client_start(&client, greeted_main, NULL);
    cr_assert(client_says(&client, 'o'));
    const char *args[] = {"rm", "--store", world->store, "image", NULL};
    cr_assert_eq(faultline_run(NULL, 0, args), 0);
    cr_assert(server_wait_log(&world->server, "event=template_unpinned image=image", 1));
    if (again) {
        memory_make_distinct(&other, temp_path(&world->temp, "other"), BYTES, 99);
        world_pack(world, temp_path(&world->temp, "other"), "image");
        memory_free(&other);
        make_template();
    }
    kill_engine();
    client_tell(&client, 'h');
    cr_assert_eq(client_wait(&client), 0);
    cr_assert(wait_until(no_vm_is_left, NULL));
    cr_assert_eq(templates(), again);
    world_stop(world);
}

Test(template, that_was_sent_is_served_when_its_image_is_gone)
{
    sent_and_replaced(false);
}

Test(template, that_was_sent_is_served_when_there_is_another)
{
    sent_and_replaced(true);
}

Test(template, of_no_image)
{
    char output[4096];
    prepare(MIXED, NULL);
    cr_assert_eq(run(output, "nothing", NULL, NULL), 1);
    cr_assert_not_null(strstr(output, "the store has no image 'nothing'"), "%s", output);
    cr_assert_eq(run(output, "--remove", "image", NULL), 1);
    world_stop(world);
}

// --- restarts ---

Test(template, outlives_engines_and_keepers)
{
    struct client first;
    struct client second;
    begin(MIXED, by_touch);
    start(&first);
    cr_assert(client_obeys(&first, "h"));
    long long half = faults();
    cr_assert_gt(half, 0);
    kill_engine();
    start(&second);
    cr_assert(client_obeys(&second, "h"));
    cr_assert_eq(faults(), half, "the template has it, and a successor goes on counting");
    server_kill_keeper(&world->server);
    cr_assert(server_serve(&world->server, &world->temp, world->store, by_touch));
    kill_engine();
    cr_assert(client_obeys(&second, "t"));
    long long before = faults();
    cr_assert_gt(before, 0);
    cr_assert(client_obeys(&first, "twcrd"));
    cr_assert_eq(faults(), before);
    cr_assert_eq(of_template(0, "clones"), 2);
    end(&first);
    end(&second);
    world_stop(world);
}

Test(template, the_path_outlives_engines)
{
    static const char *const trial[] = {"--upgrade-trial", "200", NULL};
    char output[4096];
    prepare(MIXED, trial);
    complete_template();
    kill_engine();
    check_path();
    // The keeper becomes another program on the way.
    const char *args[] = {"upgrade", "--keeper", "--control",
                          temp_path(&world->temp, "control.sock"), NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
    cr_assert(server_wait_log(&world->server, "event=keeper_exec", 1));
    check_path();
    kill_engine();
    check_path();
    cr_assert_eq(run(output, "--remove", "image", NULL), 0, "%s", output);
    cr_assert_eq(access(template_path, F_OK), -1);
    cr_assert(wait_until(no_template_is_left, NULL));
    kill_engine();
    cr_assert_eq(templates(), 0);
    world_stop(world);
}

Test(template, while_faults_are_under_way)
{
    struct client crowd[3];
    begin(DISTINCT, NULL);
    for (unsigned i = 0; i < 3; i++) {
        start(&crowd[i]);
        client_tell(&crowd[i], i == 1 ? 'w' : 't');
    }
    for (unsigned i = 0; i < KILLS; i++) {
        client_progressed(&crowd[0], 64 * (i + 1));
        kill_engine();
    }
    for (unsigned i = 0; i < 3; i++)
        cr_assert(client_says(&crowd[i], 'd'));
    cr_assert(client_obeys(&crowd[1], "c"));
    complete_template();
    check_path();
    cr_assert_eq(of_template(0, "repaired_pages"), 0);
    for (unsigned i = 0; i < 3; i++)
        end(&crowd[i]);
    world_stop(world);
}

// --- at every named point ---

// `when` says before which step the point is armed: the template's making, a VM's coming, its
// touching, the completing.
static void live_through(const char *point, char when)
{
    struct client first;
    struct client second;
    need_points();
    world = world_make(MIXED, BYTES);
    point_begin(world, point);
    serve(NULL);
    point_end();
    world->server.deaths = 2;
    if (when == 'm')
        point_arm(world);
    make_template();
    if (when == 'h')
        point_arm(world);
    start(&first);
    start(&second);
    if (when == 't')
        point_arm(world);
    cr_expect(client_obeys(&first, "h"), "%s", point);
    cr_expect(client_obeys(&second, when == 'c' ? "h" : "t"), "%s", point);
    if (when == 'c')
        point_arm(world);
    complete_template();
    cr_expect(wait_until(point_struck, world), "no engine came to %s", point);
    cr_expect(client_obeys(&first, "twcrd"), "%s", point);
    cr_expect(client_obeys(&second, "twcrd"), "%s", point);
    check_path();
    cr_expect_eq(of_template(0, "repaired_pages"), 0, "%s", point);
    end(&first);
    end(&second);
    world_stop(world);
}

Test(template, killed_when_it_is_kept_and_nobody_knows)
{
    live_through("template_kept", 'm');
}

Test(template, killed_when_a_client_is_greeted)
{
    live_through("template_greeted", 'h');
}

Test(template, killed_when_its_vm_is_not_kept)
{
    live_through("image_kept", 'h');
}

Test(template, killed_when_its_vm_is_kept)
{
    live_through("vm_kept", 'h');
}

Test(template, killed_when_a_page_is_there_and_not_noted)
{
    live_through("template_filled:100", 't');
}

Test(template, killed_when_a_page_is_noted)
{
    live_through("template_marked:100", 't');
}

Test(template, killed_when_nobody_is_woken)
{
    live_through("template_unwoken:100", 't');
}

Test(template, killed_when_it_is_to_be_completed_and_nobody_knows)
{
    live_through("template_opened", 'c');
}

Test(template, killed_while_it_is_completed)
{
    live_through("template_filled:3", 'c');
}

Test(template, killed_when_it_is_sealed_and_not_noted)
{
    live_through("template_sealed", 'c');
}

// --- the end ---

Test(template, its_clones_are_let_go_whole)
{
    struct client first;
    struct client second;
    begin(MIXED, NULL);
    start(&first);
    cr_assert(client_obeys(&first, "hw"));
    start(&second);
    cr_assert(server_wait_log(&world->server, "event=attach vm=2 ", 1)); // else it is refused
    cr_assert_eq(server_stop(&world->server), 0);
    cr_assert(client_obeys(&first, "c"));
    cr_assert(client_obeys(&second, "t"));
    end(&first);
    end(&second);
}
