// SPDX-License-Identifier: Apache-2.0
#include "tests/support/world.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <jansson.h>

static struct world the_world;

static void make_memory(struct world *world, enum world_memory kind, uint64_t bytes)
{
    switch (kind) {
    case MIXED:
        memory_make(&world->memory, world->file, bytes, 7);
        break;
    case DISTINCT:
        memory_make_distinct(&world->memory, world->file, bytes, 7);
        break;
    case EMPTY:
        memory_make_empty(&world->memory, world->file, bytes);
        break;
    }
}

// A copy of the path that outlives temp_path()'s ring.
static const char *keep(char to[2 * TEST_PATH], const struct world *world, const char *name)
{
    snprintf(to, (size_t)2 * TEST_PATH, "%s", temp_path(&world->temp, name));
    return to;
}

struct world *world_make(enum world_memory kind, uint64_t bytes)
{
    static char file[2 * TEST_PATH];
    static char store[2 * TEST_PATH];
    struct world *world = &the_world;
    temp_make(&world->temp);
    world->file = keep(file, world, "memory");
    world->store = keep(store, world, "store");
    make_memory(world, kind, bytes);
    return world;
}

void world_close(void)
{
    struct world *world = &the_world;
    if (!world->file)
        return;
    server_kill(&world->server);
    memory_free(&world->memory);
    temp_remove(&world->temp);
}

// The version of a pack tells whether it has zstd frames.
static void expect_codec(const struct world *world, const char *codec)
{
    char pattern[2 * TEST_PATH];
    uint32_t version = 0;
    glob_t packs;
    bool zstd = false;
    snprintf(pattern, sizeof(pattern), "%s/packs/*.pack", world->store);
    cr_assert_eq(glob(pattern, 0, NULL, &packs), 0);
    for (size_t i = 0; i < packs.gl_pathc; i++) {
        FILE *file = fopen(packs.gl_pathv[i], "re");
        cr_assert(file && fseek(file, 8, SEEK_SET) == 0 &&
                  fread(&version, sizeof(version), 1, file) == 1);
        fclose(file);
        zstd |= version == 3;
    }
    globfree(&packs);
    cr_assert_eq(zstd, strcmp(codec, "zstd") == 0, "the pack is of %s", codec);
}

void world_pack(struct world *world, const char *file, const char *image)
{
    char output[1024];
    const char *codec =
        getenv("FAULTLINE_TEST_CODEC"); // a ctest of its own runs it with another one
    const char *args[] = {"pack",   "--store", world->store, "--codec", codec ? codec : "lz4",
                          "--name", image,     file,         NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
    if (codec)
        expect_codec(world, codec);
}

void world_serve(struct world *world, const char *const *extra)
{
    static char socket[2 * TEST_PATH];
    world_pack(world, world->file, "image");
    cr_assert(server_serve(&world->server, &world->temp, world->store, extra));
    world->socket = keep(socket, world, "sockets/image.sock");
    cr_assert(server_wait_log(&world->server, "event=listen image=image", 1));
}

void world_add_image(struct world *world, const char *name, uint64_t bytes, struct memory *memory,
                     char socket[2 * TEST_PATH])
{
    char file[2 * TEST_PATH];
    char leaf[TEST_PATH];
    char line[2 * TEST_PATH];
    snprintf(leaf, sizeof(leaf), "%s.mem", name);
    keep(file, world, leaf);
    snprintf(leaf, sizeof(leaf), "sockets/%s.sock", name);
    keep(socket, world, leaf);
    memory_make_distinct(memory, file, bytes, 99);
    world_pack(world, file, name);
    snprintf(line, sizeof(line), "event=listen image=%s", name);
    cr_assert(server_wait_log(&world->server, line, 1));
}

void world_handler(struct world *world, const char *const *extra)
{
    static char socket[2 * TEST_PATH];
    const char *args[SERVER_ARGS + 1] = {"handler"};
    unsigned count = 1;
    world->socket = keep(socket, world, "handler.sock");
    while (extra && extra[count - 1]) {
        args[count] = extra[count - 1];
        count++;
    }
    args[count] = socket;
    args[count + 1] = world->file;
    cr_assert(server_start(&world->server, &world->temp, "handler", args));
}

void world_touch_when_told(const struct world *world, int channel, struct client_shared *shared,
                           unsigned threads)
{
    struct vmm vmm;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    tell_test(channel, 'a');
    await_test(channel, 't');
    vmm_touch_all(&vmm, threads, VMM_RANDOM, true);
}

int world_touch_on(const struct world *world, int channel, struct client_shared *shared)
{
    struct vmm vmm;
    vmm_map(&vmm, &world->memory, PAGE, 2, VMM_1_12);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 5);
    tell_test(channel, 't');
    vmm_touch_all(&vmm, 3, VMM_RANDOM, true);
    await_test(channel, 'g');
    vmm_touch_all(&vmm, 3, VMM_DOWN, false);
    return 0;
}

void world_stop(struct world *world)
{
    int status = server_stop(&world->server);
    if (status != 0)
        server_print_log(&world->server);
    cr_assert_eq(status, 0, "the server ended with %d", status);
}

static json_t *get_status_of(const char *control)
{
    static char output[1 << 16];
    const char *args[] = {"status", "--control", control, "--json", NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
    json_t *status = json_loads(output, 0, NULL);
    cr_assert_not_null(status, "%s", output);
    return status;
}

static json_t *get_status(const struct world *world)
{
    return get_status_of(temp_path(&world->temp, "control.sock"));
}

long long server_status(const char *control, const char *object, const char *key)
{
    json_t *status = get_status_of(control);
    const json_t *at = *object ? json_object_get(status, object) : status;
    const json_t *value = json_object_get(at, key);
    long long number = json_is_integer(value) ? json_integer_value(value) : -1;
    json_decref(status);
    return number;
}

long long world_status(const struct world *world, const char *object, const char *key)
{
    return server_status(temp_path(&world->temp, "control.sock"), object, key);
}

// NULL if it is not there; belongs to the status.
static const json_t *find_vm(const json_t *status, long long id)
{
    size_t i;
    const json_t *vm;
    json_array_foreach(json_object_get(status, "vm_list"), i, vm)
    {
        if (json_integer_value(json_object_get(vm, "id")) == id)
            return vm;
    }
    return NULL;
}

long long world_vm_status(const struct world *world, long long vm, const char *object,
                          const char *key)
{
    json_t *status = get_status(world);
    const json_t *at = find_vm(status, vm);
    at = at && *object ? json_object_get(at, object) : at;
    long long number = json_integer_value(json_object_get(at, key));
    json_decref(status);
    return number;
}

static bool vm_state_is(const struct world *world, long long vm, const char *what,
                        const char *state)
{
    json_t *status = get_status(world);
    const json_t *object = json_object_get(find_vm(status, vm), what);
    const char *is = json_string_value(json_object_get(object, "state"));
    bool same = is && strcmp(is, state) == 0;
    json_decref(status);
    return same;
}

bool world_vm_replay_is(const struct world *world, long long vm, const char *state)
{
    return vm_state_is(world, vm, "replay", state);
}

bool world_vm_huge_is(const struct world *world, long long vm, const char *state)
{
    return vm_state_is(world, vm, "huge", state);
}

static void need(bool there, const char *what)
{
    const char *ci = getenv("CI");
    if (there)
        return;
    cr_assert(!ci || strcmp(ci, "true") != 0, "CI must have %s", what);
    cr_skip_test("this test needs %s", what);
}

void need_userfaultfd(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    bool there = fd >= 0 && geteuid() == 0;
    if (fd >= 0)
        close(fd);
    need(there, "root and userfaultfd");
}

void need_huge_pages(unsigned pages)
{
    need(huge_pages_free() >= pages, "free huge pages of 2 MiB");
}

void need_kvm(void)
{
    need(access("/dev/kvm", R_OK | W_OK) == 0, "/dev/kvm");
}

void need_transparent_huge(void)
{
    char text[128] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
    if (file && !fgets(text, sizeof(text), file))
        text[0] = '\0';
    if (file)
        fclose(file);
    need(text[0] != '\0' && !strstr(text, "[never]"), "transparent huge pages");
}

void need_collapse(void)
{
    enum { ADVICE_COLLAPSE = 25 };
    char *map =
        mmap(NULL, 2 * (size_t)HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(map, MAP_FAILED);
    char *range = map + (HUGE - (uintptr_t)map % HUGE) % HUGE;
    *range = 1;
    bool works = madvise(range, HUGE, ADVICE_COLLAPSE) == 0 || errno != EINVAL;
    munmap(map, 2 * (size_t)HUGE);
    need(works, "MADV_COLLAPSE");
}
