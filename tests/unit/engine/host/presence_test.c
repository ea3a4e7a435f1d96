// SPDX-License-Identifier: Apache-2.0
//
// What the kernel tells of another process's pages, in both ways of asking. Each test has a process
// that arranges its memory and then waits.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "engine/base/bitmap.h"
#include "engine/host/presence.h"
#include "engine/host/uffd.h"

enum { PAGE = 4096, HUGE = 2 << 20, PAGES = 2048, POLLS = 2000, POLL_MS = 5 };

struct shared {
    char *memory;
    int uffd;
    _Atomic int ready;
    _Atomic int go;
    _Atomic int gone; // as far as it was told to
};

static struct shared *shared;
static pid_t child;

static bool wait_for(const _Atomic int *what)
{
    for (int i = 0; i < POLLS && !*what; i++)
        poll(NULL, 0, POLL_MS);
    return *what;
}

static void stop_child(void)
{
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    child = 0;
}

static pid_t start(void (*arrange)(void))
{
    child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        arrange();
        shared->ready = 1;
        for (;;)
            pause();
    }
    cr_assert(wait_for(&shared->ready), "the process did not come to be");
    return child;
}

static void begin(void)
{
    if (geteuid() != 0)
        cr_skip_test("needs root");
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(shared, MAP_FAILED);
}

TestSuite(presence, .init = begin, .fini = stop_child, .timeout = 60);

static char *map(size_t bytes, int flags)
{
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
    if (memory == MAP_FAILED)
        _exit(3);
    return memory;
}

static uint64_t address(size_t page)
{
    return (uintptr_t)shared->memory + page * PAGE;
}

static struct fl_presence open_presence(void)
{
    struct fl_presence presence = FL_PRESENCE_UNKNOWN;
    int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
    cr_assert_geq(pidfd, 0);
    cr_assert_eq(fl_presence_open(child, pidfd, &presence), 0);
    close(pidfd);
    return presence;
}

// --- pages of 4 KiB ---

// Runs of one page and of many: more runs than fit into one answer.
static bool is_touched(size_t page)
{
    return page < 700 ? page % 2 == 1 : page >= 1000 && page < 1900 && page != 1500;
}

static void touched_here_and_there(void)
{
    shared->memory = map((size_t)PAGES * PAGE, 0);
    madvise(shared->memory, (size_t)PAGES * PAGE, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < PAGES; i++) {
        if (is_touched(i))
            shared->memory[i * PAGE] = 1;
    }
}

static void expect_first(const struct fl_presence *presence, size_t from, size_t to, bool there,
                         size_t page)
{
    uint64_t found = 0;
    int result = there ? fl_presence_first_present(presence, address(from), address(to), &found)
                       : fl_presence_first_absent(presence, address(from), address(to), &found);
    cr_assert_eq(result, page < to, "[%zu,%zu): %d", from, to, result);
    if (page < to)
        cr_assert_eq(found, address(page), "[%zu,%zu): page %zu, not %zu", from, to,
                     (size_t)((found - address(0)) / PAGE), page);
}

static void expect_all(const struct fl_presence *presence)
{
    uint64_t bits[PAGES / 64];
    expect_first(presence, 0, PAGES, true, 1);
    expect_first(presence, 0, PAGES, false, 0);
    expect_first(presence, 1, PAGES, false, 2);
    expect_first(presence, 700, 1000, true, 1000);
    expect_first(presence, 700, PAGES, true, 1000);
    expect_first(presence, 1000, 1500, false, 1500);
    expect_first(presence, 1000, PAGES, false, 1500);
    expect_first(presence, 1900, PAGES, true, PAGES);
    cr_assert_eq(fl_presence_bits(presence, address(0), PAGES, 12, bits), 0);
    for (size_t i = 0; i < PAGES; i++)
        cr_assert_eq(fl_bit_test(bits, i), is_touched(i), "page %zu", i);
}

Test(presence, tells_pages_that_were_touched_from_those_that_were_not)
{
    start(touched_here_and_there);
    struct fl_presence presence = open_presence();
    expect_all(&presence);
    presence.by_read = true;
    expect_all(&presence);
    fl_presence_close(&presence);
}

Test(presence, says_how_far_it_looked)
{
    start(touched_here_and_there);
    struct fl_presence presence = open_presence();
    struct fl_presence_run run[3];
    for (int by_read = 0; by_read < 2; by_read++) {
        uint64_t looked = 0;
        presence.by_read = by_read || presence.by_read;
        cr_assert_eq(fl_presence_runs(&presence, address(0), address(PAGES), run, 3, &looked), 3);
        cr_expect_eq(run[2].start, address(5));
        cr_expect_eq(run[2].end, address(6));
        cr_expect_eq(looked, address(7));
        cr_assert_eq(fl_presence_runs(&presence, address(1800), address(PAGES), run, 3, &looked),
                     1);
        cr_expect_eq(run[0].end, address(1900));
        cr_expect_eq(looked, address(PAGES));
    }
    fl_presence_close(&presence);
}

// --- what was written to ---

static void read_and_written(void)
{
    shared->memory = map((size_t)PAGES * PAGE, 0);
    madvise(shared->memory, (size_t)PAGES * PAGE, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < 300; i++)
        (void)*(volatile char *)(shared->memory + i * PAGE);
    for (size_t i = 0; i < 300; i += 3)
        shared->memory[i * PAGE] = 1;
}

Test(presence, tells_what_was_written_to_from_zeros_that_were_read)
{
    uint64_t written = 0;
    start(read_and_written);
    struct fl_presence presence = open_presence();
    cr_assert_eq(fl_presence_written(&presence, address(0), 512, &written), 0);
    cr_assert_eq(written, 100);
    cr_assert_eq(fl_presence_written(&presence, address(1), 2, &written), 0);
    cr_assert_eq(written, 0);
    cr_assert_eq(fl_presence_written(&presence, address(0), 513, &written), -EINVAL);
    stop_child();
    cr_assert_eq(fl_presence_written(&presence, address(0), 512, &written), -ESRCH);
    fl_presence_close(&presence);
    cr_assert_eq(fl_presence_written(&presence, address(0), 512, &written), -EBADF);
}

// --- what userfaultfd makes of them ---

static void poisoned_and_protected(void)
{
    uint64_t features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | 1U << 13; // WP_UNPOPULATED, Linux 6.4
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    shared->memory = map((size_t)PAGES * PAGE, 0);
    shared->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_register request = {.range = {address(0), (uint64_t)PAGES * PAGE},
                                      .mode =
                                          UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP};
    struct uffdio_writeprotect protect = {.range = {address(1), PAGE},
                                          .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    uint64_t done = 0;
    if (ioctl(shared->uffd, UFFDIO_API, &api) != 0 ||
        ioctl(shared->uffd, UFFDIO_REGISTER, &request) != 0 ||
        ioctl(shared->uffd, UFFDIO_WRITEPROTECT, &protect) != 0)
        _exit(4);
    if (fl_uffd_poison(shared->uffd, address(0), PAGE) != 0 ||
        fl_uffd_zero(shared->uffd, address(2), PAGE, true, &done) != 0)
        _exit(5);
}

Test(presence, takes_what_is_poisoned_for_there_and_what_is_only_protected_for_absent)
{
    start(poisoned_and_protected);
    struct fl_presence presence = open_presence();
    for (int by_read = 0; by_read < 2; by_read++) {
        uint64_t bits = 0;
        presence.by_read = by_read || presence.by_read;
        cr_assert_eq(fl_presence_bits(&presence, address(0), 64, 12, &bits), 0);
        cr_expect_eq(bits, 5, "%lx", (unsigned long)bits);
    }
    fl_presence_close(&presence);
}

// --- its bytes ---

// Page 2 is there; of page 3 nobody answers the fault.
Test(presence, memory_that_is_missing_is_read_without_a_wait)
{
    uint8_t byte[PAGE];
    start(poisoned_and_protected);
    int memory = fl_presence_open_memory(child, -1);
    cr_assert_geq(memory, 0, "%s", strerror(-memory));
    struct fl_presence_kind there = {.start = address(2), .end = address(3)};
    struct fl_presence_kind both[] = {there, {.start = address(3), .end = address(4)}};
    byte[0] = 1;
    cr_expect_eq(fl_presence_read(memory, &there, 1, byte), 0);
    cr_expect_eq(byte[0], 0);
    cr_expect_eq(fl_presence_read(memory, both, 2, (uint8_t[2 * PAGE]){0}), -EIO);
    stop_child();
    cr_expect_eq(fl_presence_read(memory, &there, 1, byte), -ESRCH);
    close(memory);
}

// --- pages of 2 MiB ---

static void every_other_huge_page(void)
{
    shared->memory = map((size_t)4 * HUGE, MAP_HUGETLB | 21 << MAP_HUGE_SHIFT);
    shared->memory[HUGE] = 1;
    shared->memory[3 * HUGE] = 1;
}

// Mapping with MAP_NORESERVE says nothing of what there is: the touch would be a SIGBUS.
static void need_huge_pages(size_t count)
{
    void *probe = mmap(NULL, count * HUGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | 21 << MAP_HUGE_SHIFT, -1, 0);
    if (probe == MAP_FAILED)
        cr_skip_test("needs %zu free pages of 2 MiB", count);
    munmap(probe, count * HUGE);
}

Test(presence, knows_huge_pages)
{
    struct fl_presence presence;
    need_huge_pages(2);
    start(every_other_huge_page);
    presence = open_presence();
    for (int by_read = 0; by_read < 2; by_read++) {
        uint64_t bits = 0;
        presence.by_read = by_read || presence.by_read;
        cr_assert_eq(fl_presence_bits(&presence, address(0), 4, 21, &bits), 0);
        cr_expect_eq(bits, 10, "%lx", (unsigned long)bits);
        expect_first(&presence, 512, 2048, true, 512);
        expect_first(&presence, 512, 2048, false, 1024);
    }
    fl_presence_close(&presence);
}

// --- whose memory it is ---

static void expect_unknown(const struct fl_presence *presence)
{
    uint64_t found = 0;
    uint64_t bits = 0;
    struct fl_presence read = *presence;
    read.by_read = true;
    cr_expect_eq(fl_presence_first_present(presence, address(0), address(PAGES), &found), -ESRCH);
    cr_expect_eq(fl_presence_first_absent(presence, address(0), address(PAGES), &found), -ESRCH);
    cr_expect_eq(fl_presence_bits(presence, address(0), 64, 12, &bits), -ESRCH);
    cr_expect_eq(fl_presence_first_absent(&read, address(0), address(PAGES), &found), -ESRCH);
}

Test(presence, of_a_process_that_has_ended_is_unknown)
{
    siginfo_t info;
    struct fl_presence presence;
    struct fl_presence again;
    pid_t pid = start(touched_here_and_there);
    presence = open_presence();
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    kill(pid, SIGKILL);
    cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    expect_unknown(&presence);
    cr_expect_eq(fl_presence_open(pid, pidfd, &again), -ESRCH);
    stop_child();
    expect_unknown(&presence);
    cr_expect_eq(fl_presence_open(getpid(), pidfd, &again), -ESRCH, "a number that is used again");
    fl_presence_close(&presence);
    close(pidfd);
}

static void executes_when_told(void)
{
    touched_here_and_there();
    shared->ready = 1;
    while (!shared->go)
        poll(NULL, 0, POLL_MS);
    execlp("sleep", "sleep", "60", NULL);
    _exit(6);
}

static bool is_sleep(pid_t pid)
{
    char path[64];
    char name[16] = "";
    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    FILE *file = fopen(path, "re");
    bool is = file && fscanf(file, "%15s", name) == 1 && strcmp(name, "sleep") == 0;
    if (file)
        fclose(file);
    return is;
}

Test(presence, of_a_process_that_runs_another_program_is_unknown)
{
    pid_t pid = start(executes_when_told);
    struct fl_presence presence = open_presence();
    shared->go = 1;
    for (int i = 0; i < POLLS && !is_sleep(pid); i++)
        poll(NULL, 0, POLL_MS);
    cr_assert(is_sleep(pid));
    expect_unknown(&presence);
    fl_presence_close(&presence);
}

Test(presence, of_nobody_is_unknown)
{
    struct fl_presence presence = FL_PRESENCE_UNKNOWN;
    uint64_t found = 0;
    cr_expect_eq(fl_presence_open(0, -1, &presence), -ENOENT);
    cr_expect_eq(fl_presence_open(-1, -1, &presence), -ENOENT);
    cr_expect_eq(fl_presence_open(4194304, -1, &presence), -ENOENT); // beyond the largest number
    cr_expect_eq(fl_presence_first_absent(&presence, 0, PAGE, &found), -EBADF);
    fl_presence_close(&presence);
}
