// SPDX-License-Identifier: Apache-2.0
//
// Of each part of a process's memory samples are taken, however little of it is there; and what is
// not there is not touched.
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/host/procfs.h"
#include "engine/rescue/memory_samples.h"

enum { PAGE = 4096, MIB = 1 << 20, LARGE = 64 * MIB, SMALL = 2 * MIB, PARTS = 64 };

static uint8_t *memory[2];
static pid_t child;

static void end_child(void)
{
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
}

TestSuite(samples, .fini = end_child, .timeout = 60);

static uint8_t *map(size_t bytes)
{
    uint8_t *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cr_assert_neq(at, MAP_FAILED);
    cr_assert_eq(madvise(at, bytes, MADV_NOHUGEPAGE), 0);
    return at;
}

// Here, for the child inherits it.
static void fill(uint8_t *at, uint8_t content)
{
    memset(at, content, PAGE);
}

static void start_child(void)
{
    child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
}

static void take(struct fl_samples *samples)
{
    struct fl_proc_range range[2] = {
        {.start = (uintptr_t)memory[0], .bytes = LARGE, .page_bytes = PAGE},
        {.start = (uintptr_t)memory[1], .bytes = SMALL, .page_bytes = PAGE}};
    if (memory[0] > memory[1]) {
        struct fl_proc_range first = range[1];
        range[1] = range[0];
        range[0] = first;
    }
    int error = fl_samples_take(child, -1, range, 2, samples);
    if (error == -EPERM || error == -EACCES)
        cr_skip_test("needs the right to trace a child");
    cr_assert_eq(error, 0, "%d", error);
}

static size_t count_in(const struct fl_samples *samples, const uint8_t *from, size_t bytes)
{
    size_t count = 0;
    for (size_t i = 0; i < samples->count; i++)
        count += samples->sample[i].address - (uintptr_t)from < bytes;
    return count;
}

Test(samples, of_each_part_some)
{
    struct fl_samples samples;
    memory[0] = map(LARGE);
    memory[1] = map(SMALL);
    for (size_t i = 0; i < LARGE / 2 / PAGE; i++) // half of it is full
        fill(memory[0] + i * PAGE, 1);
    for (size_t i = PARTS / 2; i < PARTS; i++) // and of the rest there are single pages
        fill(memory[0] + i * (LARGE / PARTS) + (size_t)5 * PAGE, (uint8_t)i);
    fill(memory[1] + SMALL - PAGE, 7);
    start_child();
    take(&samples);
    for (size_t i = 0; i < PARTS; i++)
        cr_expect_geq(count_in(&samples, memory[0] + i * (LARGE / PARTS), LARGE / PARTS), 1,
                      "part %zu", i);
    cr_expect_eq(count_in(&samples, memory[1], SMALL), 1);
    cr_expect_leq(samples.count, FL_SAMPLES_MAX);
    for (size_t i = 1; i < samples.count; i++)
        cr_assert_lt(samples.sample[i - 1].address, samples.sample[i].address);
    fl_samples_free(&samples);
}

Test(samples, what_is_in_a_page)
{
    struct fl_samples samples;
    uint8_t page[PAGE];
    memory[0] = map(LARGE);
    memory[1] = map(SMALL);
    fill(memory[1], 9);
    fill(memory[1] + PAGE, 0);
    start_child();
    take(&samples);
    cr_assert_eq(samples.count, 2);
    memset(page, 9, PAGE);
    cr_expect_eq(samples.sample[0].address, (uintptr_t)memory[1]);
    cr_expect_eq(samples.sample[0].hash, fl_sample_hash(page));
    cr_expect_not(samples.sample[0].zero);
    cr_expect(samples.sample[1].zero);
    page[PAGE - 1]++;
    cr_expect_neq(samples.sample[0].hash, fl_sample_hash(page));
    fl_samples_free(&samples);
}
