// SPDX-License-Identifier: Apache-2.0
//
// Faults that are answered without bytes, until the memory is gone. The memory is that of a child,
// the userfaultfd is taken out of it.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "engine/host/answer_without_image.h"

enum { PAGE = 4096, HUGE = 2 << 20, PAGES = 8, POLLS = 6000, POLL_MS = 5 };
enum { GOOD = 7, BAD = 8 };

static struct shared {
    int uffd;
    _Atomic int go;
} * shared;

static sigjmp_buf escape;
static bool huge;

static void on_sigbus(int signal)
{
    (void)signal;
    siglongjmp(escape, 1);
}

static bool poisoned(volatile const char *byte)
{
    if (sigsetjmp(escape, 1) == 0) {
        (void)*byte;
        return false;
    }
    return true;
}

static bool all_poisoned(const char *memory)
{
    size_t page = huge ? HUGE : PAGE;
    for (size_t i = 0; i < (huge ? 2 : PAGES); i++) {
        if (!poisoned(memory + i * page))
            return false;
    }
    return true;
}

static char *map(size_t bytes)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        flags | (huge ? MAP_HUGETLB | 21 << 26 : 0), -1, 0);
    if (memory == MAP_FAILED)
        _exit(BAD);
    return memory;
}

static void await_go(int value)
{
    shared->go++;
    for (int i = 0; i < POLLS && shared->go < value; i++)
        poll(NULL, 0, POLL_MS);
}

static char *arrange(uint64_t features)
{
    size_t bytes = huge ? 2 * HUGE : PAGES * PAGE;
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    struct sigaction action = {.sa_handler = on_sigbus};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigaction(SIGBUS, &action, NULL);
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    char *memory = map(bytes);
    struct uffdio_register request = {.range = {(uintptr_t)memory, bytes},
                                      .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0 ||
        ioctl(uffd, UFFDIO_REGISTER, &request) != 0)
        _exit(BAD);
    shared->uffd = uffd;
    return memory;
}

static void touch_all(void)
{
    const char *memory = arrange(0);
    await_go(2);
    _exit(all_poisoned(memory) ? GOOD : BAD);
}

// Its child touches what it has inherited; both are told.
static void touch_and_fork(void)
{
    int status = 0;
    const char *memory = arrange(UFFD_FEATURE_EVENT_FORK);
    await_go(2);
    pid_t pid = fork();
    if (pid == 0)
        _exit(all_poisoned(memory) ? GOOD : BAD);
    bool good = all_poisoned(memory);
    _exit(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == GOOD &&
                  good
              ? GOOD
              : BAD);
}

static void remove_and_touch(void)
{
    char *memory = arrange(UFFD_FEATURE_EVENT_REMOVE);
    await_go(2);
    bool good = all_poisoned(memory);
    _exit(madvise(memory, (size_t)PAGES * PAGE, MADV_DONTNEED) == 0 && all_poisoned(memory) && good
              ? GOOD
              : BAD);
}

static void touch_one(void)
{
    const char *memory = arrange(0);
    shared->go++;
    poisoned(memory);
    for (;;)
        pause();
}

static pid_t start(void (*run)(void), int *ret_uffd)
{
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(shared, MAP_FAILED);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0)
        run();
    for (int i = 0; i < POLLS && !shared->go; i++)
        poll(NULL, 0, POLL_MS);
    cr_assert(shared->go, "the process did not come to be");
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    *ret_uffd = (int)syscall(SYS_pidfd_getfd, pidfd, shared->uffd, 0);
    close(pidfd);
    cr_assert_geq(*ret_uffd, 0);
    return pid;
}

static void need_userfaultfd(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || geteuid() != 0)
        cr_skip_test("needs root and userfaultfd");
    close(fd);
}

TestSuite(condemn, .init = need_userfaultfd, .timeout = 60);

static void expect_good(void (*run)(void), uint64_t page_bytes, uint64_t pages)
{
    int uffd = -1;
    int status = 0;
    struct fl_answered done;
    pid_t pid = start(run, &uffd);
    shared->go = 2;
    cr_assert_eq(fl_answer_without_image(uffd, page_bytes, false, &done), 0);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == GOOD, "status %d", status);
    cr_expect_eq(done.poisoned, pages);
    cr_expect_geq(done.faults, pages);
    cr_expect_eq(done.zeroed, 0);
    close(uffd);
}

Test(condemn, poisons_what_is_touched)
{
    expect_good(touch_all, PAGE, PAGES);
}

Test(condemn, finds_the_page_size)
{
    expect_good(touch_all, 0, PAGES);
}

static void need_huge_pages(void)
{
    huge = true;
    void *probe = mmap(NULL, HUGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | 21 << 26, -1, 0);
    if (probe == MAP_FAILED)
        cr_skip_test("needs huge pages of 2 MiB");
    munmap(probe, HUGE);
}

Test(condemn, poisons_huge_pages)
{
    need_huge_pages();
    expect_good(touch_all, HUGE, 2);
}

Test(condemn, finds_the_size_of_huge_pages)
{
    need_huge_pages();
    expect_good(touch_all, 0, 2);
}

Test(condemn, answers_a_child)
{
    expect_good(touch_and_fork, PAGE, (uint64_t)2 * PAGES);
}

Test(condemn, lets_removals_go_on)
{
    expect_good(remove_and_touch, PAGE, (uint64_t)2 * PAGES);
}

// What a handler has read before it died is asked for again. The process is killed first.
Test(condemn, ends_with_a_process_that_was_killed)
{
    int uffd = -1;
    struct uffd_msg message;
    struct fl_answered done;
    pid_t pid = start(touch_one, &uffd);
    struct pollfd poll_fd = {.fd = uffd, .events = POLLIN};
    cr_assert_eq(poll(&poll_fd, 1, POLLS * POLL_MS), 1);
    cr_assert_eq(read(uffd, &message, sizeof(message)), (ssize_t)sizeof(message));
    kill(pid, SIGKILL);
    cr_assert_eq(fl_answer_without_image(uffd, PAGE, true, &done), 0);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    close(uffd);
}
