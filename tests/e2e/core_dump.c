// SPDX-License-Identifier: Apache-2.0
//
// What a core dump of the engine holds: enough to see why it crashed, and nothing of its guests.
#include <criterion/criterion.h>
#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/world.h"

TestSuite(core_dump, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

enum { GUEST = 96 << 20, OTHER_MEMORY_KIB = 8 << 10, CORE_MOST = 64 << 20 };

static struct world *world;

static int touch_all(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    (void)arg;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_MAIN);
    vmm.shared = shared;
    vmm_handshake(&vmm, world->socket);
    vmm_touch_all(&vmm, 2, VMM_UP, false);
    tell_test(channel, 'd');
    await_test(channel, 'e');
    return 0;
}

// A guest whose bytes are all in the cache, and that runs on.
static void fill_cache(struct client *client)
{
    static const char *const options[] = {"--cache", "1G", "--replay", "off", NULL};
    world = world_make(MIXED, GUEST);
    cr_assert_eq(chdir(world->temp.path), 0);
    world_serve(world, options);
    client_start(client, touch_all, NULL);
    cr_assert(client_says(client, 'd'));
}

// --- what is marked ---

struct mapping {
    char name[64];
    unsigned long resident_kib;
    bool write, dumped;
};

static void judge(const struct mapping *mapping)
{
    if (mapping->write && mapping->dumped)
        cr_expect_lt(mapping->resident_kib, OTHER_MEMORY_KIB,
                     "%lu KiB of a mapping of %s would be dumped", mapping->resident_kib,
                     mapping->name[0] ? mapping->name : "memory");
}

static bool is_header(const char *line)
{
    const char *dash = strchr(line, '-');
    const char *space = strchr(line, ' ');
    return dash && space && dash < space &&
           strspn(line, "0123456789abcdef-") == (size_t)(space - line);
}

static unsigned long read_smaps(pid_t pid)
{
    char path[64];
    char line[512];
    char mode[8] = "";
    unsigned long left_out = 0;
    struct mapping mapping = {.name = ""};
    snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file);
    while (fgets(line, sizeof(line), file)) {
        if (is_header(line)) {
            mapping = (struct mapping){.name = ""};
            sscanf(line, "%*s %7s %*s %*s %*s %63s", mode, mapping.name);
            mapping.write = mode[1] == 'w';
        } else if (strncmp(line, "VmFlags:", 8) == 0) {
            mapping.dumped = !strstr(line, " dd");
            left_out += mapping.dumped ? 0 : mapping.resident_kib;
            judge(&mapping);
        } else {
            sscanf(line, "Rss: %lu kB", &mapping.resident_kib);
        }
    }
    fclose(file);
    return left_out;
}

Test(core_dump, leaves_out_what_guests_have)
{
    struct client client;
    fill_cache(&client);
    unsigned long left_out = read_smaps(server_engine(&world->server));
    // A fifth of the pages are holes, a fifth zeros, and a fifth are three pages again and again.
    cr_expect_gt(left_out, (unsigned long)(GUEST >> 10) / 3, "%lu KiB", left_out);
    client_tell(&client, 'e');
    cr_expect_eq(client_wait(&client), 0);
    world_stop(world);
}

// --- a dump ---

static bool dumps_here(void)
{
    char pattern[128] = "";
    FILE *file = fopen("/proc/sys/kernel/core_pattern", "re");
    bool read = file && fgets(pattern, sizeof(pattern), file);
    if (file)
        fclose(file);
    return read && strncmp(pattern, "core", 4) == 0;
}

// Sanitizers forbid it, as theirs would be of terabytes.
static bool allowed(pid_t pid)
{
    struct rlimit limit = {0};
    return prlimit(pid, RLIMIT_CORE, NULL, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY;
}

static bool find_core(char *ret_path, size_t size)
{
    DIR *dir = opendir(world->temp.path);
    bool found = false;
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        if (strncmp(entry->d_name, "core", 4) == 0) {
            snprintf(ret_path, size, "%.400s/%.80s", world->temp.path, entry->d_name);
            found = true;
        }
    }
    if (dir)
        closedir(dir);
    return found;
}

static int compare_words(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

// The first words of the pages, in order. Those of text are all the same.
static uint64_t *first_words(size_t *ret_count)
{
    size_t pages = world->memory.bytes / PAGE;
    uint64_t *words = malloc(pages * sizeof(*words));
    size_t count = 0;
    cr_assert_not_null(words);
    for (size_t i = 0; i < pages; i++) {
        memcpy(&words[count], world->memory.data + i * PAGE, sizeof(*words));
        count += words[count] != 0;
    }
    qsort(words, count, sizeof(*words), compare_words);
    *ret_count = count;
    return words;
}

// Where memory begins: before it are the threads' registers, which may have just copied something.
static size_t memory_from(const char *core, size_t bytes)
{
    const Elf64_Ehdr *head = (const void *)core;
    const Elf64_Phdr *part = (const void *)(core + head->e_phoff);
    cr_assert(bytes > sizeof(*head) && head->e_phoff + head->e_phnum * sizeof(*part) <= bytes);
    for (unsigned i = 0; i < head->e_phnum; i++) {
        if (part[i].p_type == PT_LOAD)
            return part[i].p_offset;
    }
    return bytes;
}

static void look_for_guest(const char *path)
{
    size_t count = 0;
    uint64_t *words = first_words(&count);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    cr_assert(fd >= 0 && fstat(fd, &status) == 0);
    cr_expect_lt(status.st_blocks * 512, CORE_MOST, "%lld bytes",
                 (long long)status.st_blocks * 512);
    size_t bytes = (size_t)status.st_size;
    const char *core = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    cr_assert(core != MAP_FAILED);
    close(fd);
    size_t found = 0;
    for (size_t at = memory_from(core, bytes); at + sizeof(uint64_t) <= bytes; at++) {
        uint64_t word;
        memcpy(&word, core + at, sizeof(word));
        found += word > UINT32_MAX && bsearch(&word, words, count, sizeof(word), compare_words);
    }
    munmap((void *)(uintptr_t)core, bytes);
    free(words);
    // A word or two that were in a register are on a stack.
    cr_expect_lt(found, 16, "%zu pieces of the guest are in the dump", found);
}

// The stacks of threads, with names of functions: all of them wait.
static void look_at_stacks(const char *path)
{
    char command[1600];
    char line[512];
    unsigned named = 0;
    if (access("/usr/bin/gdb", X_OK) != 0)
        return;
    snprintf(command, sizeof(command),
             "/usr/bin/gdb -batch -nx -ex 'thread apply all bt' '%s' '%s' 2>/dev/null",
             getenv("FAULTLINE_BIN"), path);
    FILE *out = popen(command, "re");
    cr_assert_not_null(out);
    while (fgets(line, sizeof(line), out))
        named += strstr(line, " in worker_main") || strstr(line, " in fl_worker_work") ||
                 strstr(line, " in fl_engine") || strstr(line, " in main ");
    pclose(out);
    cr_expect_gt(named, 1, "gdb names %u functions", named);
}

static void await_end(pid_t pid)
{
    struct pollfd poll_fd = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
    kill(pid, SIGABRT);
    if (poll_fd.fd >= 0)
        cr_assert_eq(poll(&poll_fd, 1, TEST_DEADLINE_MS), 1);
    close(poll_fd.fd);
}

Test(core_dump, shows_the_crash_and_no_guest)
{
    struct client client;
    char path[TEST_PATH];
    const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    if (!dumps_here())
        cr_skip("core dumps go elsewhere: /proc/sys/kernel/core_pattern");
    cr_assert_eq(setrlimit(RLIMIT_CORE, &all), 0);
    fill_cache(&client);
    pid_t engine = server_engine(&world->server);
    if (allowed(engine)) {
        world->server.deaths = 1;
        await_end(engine);
        cr_assert(find_core(path, sizeof(path)), "no dump was written");
        look_for_guest(path);
        look_at_stacks(path);
    }
    client_tell(&client, 'e');
    cr_expect_eq(client_wait(&client), 0);
    world_stop(world);
}
