// SPDX-License-Identifier: Apache-2.0
//
// What can be learned of a VM from outside. Each test forks a process that registers memory in some
// way and then does nothing more.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
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

#include "engine/rescue/orphan_look.h"

enum { PAGE = 4096, HUGE = 2 << 20, BYTES = 1 << 20, POLLS = 2000, POLL_MS = 5, REASON = 1024 };

// What the test and its process share.
struct shared {
    char *memory[4];
    int uffd[4];
    int state_fd;
    _Atomic int ready;
};

static struct shared *shared;
static pid_t child;

static int open_uffd(uint64_t features)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    if (fd < 0 || ioctl(fd, UFFDIO_API, &api) != 0)
        return -1;
    return fd;
}

static char *map_at(void *at, size_t bytes, int flags)
{
    char *memory =
        mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (memory == MAP_FAILED)
        _exit(3);
    return memory;
}

static char *map(size_t bytes)
{
    return map_at(NULL, bytes, MAP_NORESERVE);
}

static void add(int uffd, char *memory, size_t bytes)
{
    struct uffdio_register request = {.range = {(uintptr_t)memory, bytes},
                                      .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(uffd, UFFDIO_REGISTER, &request) != 0)
        _exit(4);
}

static void *touch(void *memory)
{
    return (void *)(long)*(volatile char *)memory;
}

static void touch_later(char *memory)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, touch, memory) != 0)
        _exit(5);
}

static void stop_child(void)
{
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
}

// Runs `arrange` in a process of its own, which then waits.
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
    for (int i = 0; i < POLLS && !shared->ready; i++)
        poll(NULL, 0, POLL_MS);
    cr_assert(shared->ready, "the process did not come to be");
    return child;
}

static void need_userfaultfd(void)
{
    int fd = open_uffd(0);
    if (fd < 0 || geteuid() != 0)
        cr_skip_test("needs root and userfaultfd");
    close(fd);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(shared, MAP_FAILED);
}

TestSuite(orphan, .init = need_userfaultfd, .fini = stop_child, .timeout = 60);

static void look(struct fl_orphan *orphan, pid_t pid, int fd)
{
    struct fl_error reason;
    cr_assert_eq(fl_orphan_look(pid, fd, orphan, &reason), 0, "%s", reason.text);
}

static void look_fails(pid_t pid, int fd, int error, const char *text)
{
    struct fl_orphan orphan;
    struct fl_error reason;
    cr_assert_eq(fl_orphan_look(pid, fd, &orphan, &reason), error, "%s", reason.text);
    cr_assert(strstr(reason.text, text), "%s", reason.text);
}

static void expect_range(const struct fl_orphan *orphan, size_t i, const char *start, size_t bytes,
                         size_t page_bytes)
{
    cr_assert_lt(i, orphan->ranges);
    cr_expect_eq(orphan->range[i].start, (uintptr_t)start);
    cr_expect_eq(orphan->range[i].bytes, bytes);
    cr_expect_eq(orphan->range[i].page_bytes, page_bytes);
}

// --- the memory ---

static void one_range(void)
{
    shared->uffd[0] = open_uffd(UFFD_FEATURE_EVENT_REMOVE);
    shared->memory[0] = map(BYTES);
    add(shared->uffd[0], shared->memory[0], BYTES);
}

Test(orphan, one_range)
{
    struct fl_orphan orphan;
    look(&orphan, start(one_range), -1);
    cr_expect_eq(orphan.fd, shared->uffd[0]);
    cr_expect_eq(orphan.features & UFFD_FEATURE_EVENT_REMOVE, UFFD_FEATURE_EVENT_REMOVE);
    cr_expect_eq(orphan.holders, 0);
    cr_expect_eq(orphan.waiting, 0);
    cr_assert_eq(orphan.ranges, 1);
    expect_range(&orphan, 0, shared->memory[0], BYTES, PAGE);
    cr_expect_eq(orphan.layout.regions, 0);
    cr_expect_eq(orphan.layout_from, FL_LAYOUT_UNKNOWN);
    cr_expect(fl_orphan_unknowable(&orphan));
    fl_orphan_close(&orphan);
}

static void no_events(void)
{
    shared->uffd[0] = open_uffd(0);
    shared->memory[0] = map(BYTES);
    add(shared->uffd[0], shared->memory[0], BYTES);
}

Test(orphan, without_remove_events_all_is_known)
{
    struct fl_orphan orphan;
    look(&orphan, start(no_events), -1);
    cr_expect_eq(orphan.features & UFFD_FEATURE_EVENT_REMOVE, 0);
    cr_expect_not(fl_orphan_unknowable(&orphan));
    fl_orphan_close(&orphan);
}

// Another protection in its middle makes three mappings of it.
static void split(void)
{
    one_range();
    if (mprotect(shared->memory[0] + BYTES / 4, BYTES / 4, PROT_READ) != 0)
        _exit(6);
}

Test(orphan, mappings_that_were_split_are_one)
{
    struct fl_orphan orphan;
    look(&orphan, start(split), -1);
    cr_assert_eq(orphan.ranges, 1);
    expect_range(&orphan, 0, shared->memory[0], BYTES, PAGE);
    fl_orphan_close(&orphan);
}

static void several_ranges(void)
{
    char *all = map(4 * BYTES);
    shared->uffd[0] = open_uffd(0);
    shared->memory[0] = all;
    shared->memory[1] = all + 2 * BYTES;
    munmap(all + BYTES, BYTES);
    add(shared->uffd[0], shared->memory[0], BYTES);
    add(shared->uffd[0], shared->memory[1], 2 * BYTES);
}

static void look_at_two(struct fl_orphan *orphan)
{
    look(orphan, start(several_ranges), -1);
    cr_assert_eq(orphan->ranges, 2);
    expect_range(orphan, 0, shared->memory[0], BYTES, PAGE);
    expect_range(orphan, 1, shared->memory[1], 2 * BYTES, PAGE);
}

Test(orphan, several_ranges_are_to_be_told)
{
    struct fl_orphan orphan;
    struct fl_error reason;
    char text[REASON];
    look_at_two(&orphan);
    cr_expect_eq(orphan.layout.regions, 0);
    snprintf(text, sizeof(text),
             "[{\"base_host_virt_addr\":%ld,\"size\":%d,\"offset\":%d,\"page_size\":4096},"
             "{\"base_host_virt_addr\":%ld,\"size\":%d,\"offset\":0,\"page_size\":4096}]",
             (long)shared->memory[0], BYTES, 2 * BYTES, (long)shared->memory[1], 2 * BYTES);
    cr_assert_eq(fl_orphan_set_regions(&orphan, text, &reason), 0, "%s", reason.text);
    cr_assert_eq(orphan.layout.regions, 2);
    cr_expect_eq(orphan.layout.region[0].offset, 2 * BYTES);
    cr_expect_eq(orphan.layout.region[1].first_page, BYTES / PAGE);
    fl_orphan_close(&orphan);
}

Test(orphan, regions_must_hold_all_that_is_registered)
{
    struct fl_orphan orphan;
    struct fl_error reason;
    char text[REASON];
    look_at_two(&orphan);
    snprintf(text, sizeof(text),
             "[{\"base_host_virt_addr\":%ld,\"size\":%d,\"offset\":0,\"page_size\":4096}]",
             (long)shared->memory[1], 2 * BYTES);
    cr_assert_eq(fl_orphan_set_regions(&orphan, text, &reason), -EINVAL);
    cr_expect(strstr(reason.text, "leave out memory"), "%s", reason.text);
    cr_assert_eq(fl_orphan_set_regions(&orphan, "[{]", &reason), -EINVAL);
    cr_expect(strstr(reason.text, "are not valid"), "%s", reason.text);
    cr_expect_eq(orphan.layout.regions, 0);
    fl_orphan_close(&orphan);
}

static void huge_pages(void)
{
    shared->uffd[0] = open_uffd(0);
    shared->memory[0] = map_at(NULL, 2 * HUGE, MAP_NORESERVE | MAP_HUGETLB | 21 << 26);
    add(shared->uffd[0], shared->memory[0], 2 * HUGE);
}

Test(orphan, huge_pages)
{
    struct fl_orphan orphan;
    void *probe = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | 21 << 26, -1, 0);
    if (probe == MAP_FAILED)
        cr_skip_test("needs huge pages of 2 MiB");
    munmap(probe, 2 * HUGE);
    look(&orphan, start(huge_pages), -1);
    cr_assert_eq(orphan.ranges, 1);
    expect_range(&orphan, 0, shared->memory[0], 2 * HUGE, HUGE);
    struct fl_layout layout;
    cr_assert(fl_orphan_one_region(&orphan, 2 * HUGE, &layout));
    cr_expect_eq(layout.page_shift, 21);
    cr_expect_eq(layout.pages, 2);
    fl_orphan_close(&orphan);
}

// Where nothing else tells: only if it can be the whole image.
Test(orphan, one_region_of_the_images_size)
{
    struct fl_orphan orphan;
    struct fl_layout layout;
    look(&orphan, start(one_range), -1);
    cr_assert(fl_orphan_one_region(&orphan, BYTES, &layout));
    cr_expect_eq(layout.region[0].base, (uintptr_t)shared->memory[0]);
    cr_expect_eq(layout.region[0].offset, 0);
    cr_expect_eq(layout.pages, BYTES / PAGE);
    cr_expect(fl_orphan_one_region(&orphan, 0, &layout));
    cr_expect_not(fl_orphan_one_region(&orphan, 2 * BYTES, &layout));
    fl_orphan_close(&orphan);
}

Test(orphan, two_ranges_are_not_one_region)
{
    struct fl_orphan orphan;
    struct fl_layout layout;
    look_at_two(&orphan);
    cr_expect_eq(fl_orphan_bytes(&orphan), 3 * BYTES);
    cr_expect_not(fl_orphan_one_region(&orphan, 3 * BYTES, &layout));
    fl_orphan_close(&orphan);
}

// --- the userfaultfd ---

// Neighbours in memory: smaps alone does not tell whose is whose.
static void two_uffds(void)
{
    char *all = map(2 * BYTES);
    for (int i = 0; i < 2; i++) {
        shared->uffd[i] = open_uffd(0);
        shared->memory[i] = all + i * BYTES;
        add(shared->uffd[i], shared->memory[i], BYTES);
    }
}

Test(orphan, several_userfaultfds_are_to_be_chosen_from)
{
    struct fl_orphan orphan;
    pid_t pid = start(two_uffds);
    look_fails(pid, -1, -ENOTUNIQ, "--fd");
    look_fails(pid, 0, -ENXIO, "is not a userfaultfd");
    for (int i = 0; i < 2; i++) {
        look(&orphan, pid, shared->uffd[i]);
        cr_assert_eq(orphan.ranges, 1);
        expect_range(&orphan, 0, shared->memory[i], BYTES, PAGE);
        fl_orphan_close(&orphan);
    }
}

static void one_of_two_waits(void)
{
    two_uffds();
    touch_later(shared->memory[1]);
}

static bool someone_waits(pid_t pid, int fd)
{
    char path[64];
    char text[512] = "";
    snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)pid, fd);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = read(file, text, sizeof(text) - 1);
    close(file);
    return got > 0 && strstr(text, "pending:\t1");
}

static void await_waiter(pid_t pid, int fd)
{
    for (int i = 0; i < POLLS && !someone_waits(pid, fd); i++)
        poll(NULL, 0, POLL_MS);
    cr_assert(someone_waits(pid, fd));
}

Test(orphan, the_userfaultfd_with_faults_waiting)
{
    struct fl_orphan orphan;
    pid_t pid = start(one_of_two_waits);
    await_waiter(pid, shared->uffd[1]);
    look(&orphan, pid, -1);
    cr_expect_eq(orphan.fd, shared->uffd[1]);
    cr_expect_eq(orphan.waiting, 1);
    cr_assert_eq(orphan.ranges, 1);
    expect_range(&orphan, 0, shared->memory[1], BYTES, PAGE);
    fl_orphan_close(&orphan);
}

static void twice_the_same(void)
{
    one_range();
    if (dup(shared->uffd[0]) < 0)
        _exit(7);
}

Test(orphan, two_descriptors_of_one_are_one)
{
    struct fl_orphan orphan;
    look(&orphan, start(twice_the_same), -1);
    cr_expect_eq(orphan.ranges, 1);
    fl_orphan_close(&orphan);
}

static void nothing(void)
{
}

Test(orphan, no_userfaultfd)
{
    look_fails(start(nothing), -1, -ENXIO, "has no userfaultfd");
}

static void nothing_registered(void)
{
    shared->uffd[0] = open_uffd(0);
}

Test(orphan, nothing_registered)
{
    struct fl_orphan orphan;
    look(&orphan, start(nothing_registered), -1);
    cr_expect_eq(orphan.ranges, 0);
    cr_expect_eq(orphan.layout.regions, 0);
    fl_orphan_close(&orphan);
}

// --- who else holds it ---

static void one_range_and_a_child(void)
{
    one_range();
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
}

Test(orphan, another_holder)
{
    struct fl_orphan orphan;
    look(&orphan, start(one_range_and_a_child), -1);
    cr_assert_eq(orphan.holders, 1);
    cr_expect_eq(orphan.holder[0].fd, shared->uffd[0]);
    cr_expect_neq(orphan.holder[0].pid, child);
    fl_orphan_close(&orphan);
}

// --- a process that is not what it was ---

static void *one_range_of_a_thread(void *arg)
{
    (void)arg;
    one_range();
    shared->ready = 1;
    for (;;)
        pause();
    return NULL;
}

static void first_thread_ends(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, one_range_of_a_thread, NULL) != 0)
        _exit(5);
    syscall(SYS_exit, 0);
}

Test(orphan, a_process_whose_first_thread_has_ended)
{
    struct fl_orphan orphan;
    look(&orphan, start(first_thread_ends), -1);
    cr_assert_eq(orphan.ranges, 1);
    expect_range(&orphan, 0, shared->memory[0], BYTES, PAGE);
    fl_orphan_close(&orphan);
}

Test(orphan, a_process_that_has_ended)
{
    siginfo_t info;
    pid_t pid = start(one_range);
    kill(pid, SIGKILL);
    cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    look_fails(pid, -1, -ESRCH, "is dying");
    stop_child();
    child = 0;
    look_fails(pid, -1, -ESRCH, "there is no process");
}

// --- what was kept ---

static void make_state(pid_t pid, const char *base, uint64_t bytes, int *ret_fd)
{
    struct fl_vm_state *state = NULL;
    const char *reason = NULL;
    struct fl_layout layout = {.page_shift = 12, .regions = 1};
    layout.region[0] =
        (struct fl_region){.base = (uintptr_t)base, .bytes = bytes, .offset = 16 * BYTES};
    cr_assert_eq(fl_layout_finish(&layout, &reason), 0, "%s", reason);
    cr_assert_eq(fl_vm_state_create(7, pid, "debian", &layout, ret_fd, &state), 0);
    fl_vm_state_unmap(state);
}

// The states are in a process of their own, as they are not looked for in ours.
static pid_t keep(const int *fds, size_t count)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

Test(orphan, what_was_kept)
{
    struct fl_orphan orphan;
    int fds[3];
    pid_t pid = start(one_range);
    make_state(pid, shared->memory[0] - BYTES, 2 * BYTES, &fds[0]);
    make_state(pid + 1, shared->memory[0], BYTES, &fds[1]); // another's
    make_state(pid, shared->memory[0], BYTES / 2, &fds[2]); // not all of it
    pid_t keeper = keep(fds, 3);
    look(&orphan, pid, -1);
    cr_assert_not_null(orphan.state);
    cr_expect_eq(orphan.state_holder.pid, keeper);
    cr_expect_eq(orphan.state_holder.fd, fds[0]);
    cr_expect_str_eq(orphan.state->image, "debian");
    cr_expect_eq(orphan.layout.region[0].offset, 16 * BYTES);
    cr_expect_not(fl_orphan_unknowable(&orphan));
    cr_expect_eq(orphan.holders, 0);
    fl_orphan_close(&orphan);
    end(keeper);
}

Test(orphan, several_states_that_fit)
{
    int fds[2];
    pid_t pid = start(one_range);
    make_state(pid, shared->memory[0], BYTES, &fds[0]);
    make_state(pid, shared->memory[0], BYTES, &fds[1]);
    pid_t keeper = keep(fds, 2);
    look_fails(pid, -1, -ENOTUNIQ, "more than one kept state");
    end(keeper);
}

// A second descriptor of the same memfd is the same state.
Test(orphan, a_state_that_two_hold)
{
    struct fl_orphan orphan;
    int fds[2];
    pid_t pid = start(one_range);
    make_state(pid, shared->memory[0], BYTES, &fds[0]);
    fds[1] = dup(fds[0]);
    pid_t keeper = keep(fds, 2);
    look(&orphan, pid, -1);
    cr_expect_not_null(orphan.state);
    fl_orphan_close(&orphan);
    end(keeper);
}

Test(orphan, a_state_of_another_version)
{
    struct fl_orphan orphan;
    int fd;
    uint32_t version = FL_VM_STATE_VERSION + 1;
    pid_t pid = start(one_range);
    make_state(pid, shared->memory[0], BYTES, &fd);
    cr_assert_eq(pwrite(fd, &version, sizeof(version), offsetof(struct fl_vm_state, version)),
                 (ssize_t)sizeof(version));
    pid_t keeper = keep(&fd, 1);
    look(&orphan, pid, -1);
    cr_expect_null(orphan.state);
    cr_expect(orphan.state_unreadable);
    cr_expect_eq(orphan.state_holder.pid, keeper);
    cr_expect(fl_orphan_unknowable(&orphan));
    fl_orphan_close(&orphan);
    end(keeper);
}

// Anybody can make such a memfd.
Test(orphan, a_state_that_somebody_else_made)
{
    struct fl_orphan orphan;
    int fd;
    pid_t pid = start(one_range);
    pid_t liar = fork();
    cr_assert_geq(liar, 0);
    if (liar == 0) {
        if (setresuid(65534, 65534, 65534) != 0)
            _exit(8);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        make_state(pid, shared->memory[0], BYTES, &fd);
        shared->ready = 2;
        for (;;)
            pause();
    }
    for (int i = 0; i < POLLS && shared->ready != 2; i++)
        poll(NULL, 0, POLL_MS);
    cr_assert_eq(shared->ready, 2);
    look(&orphan, pid, -1);
    cr_expect_null(orphan.state);
    cr_expect_not(orphan.state_unreadable);
    fl_orphan_close(&orphan);
    end(liar);
}
