// SPDX-License-Identifier: Apache-2.0
//
// The incident on a small scale: a process that waits on a userfaultfd which nobody serves.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "engine/doctor.h"

enum { BYTES = 1 << 20, DEADLINE_POLLS = 6000, POLL_MS = 5 };

static int open_uffd(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = {.api = UFFD_API};
    if (fd < 0 || ioctl(fd, UFFDIO_API, &api) != 0)
        return -1;
    return fd;
}

static void *touch(void *memory)
{
    return (void *)(long)*(volatile char *)memory;
}

// A child whose second thread touches missing memory, and waits.
static void be_waiter(void)
{
    pthread_t thread;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int uffd = open_uffd();
    char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register reg = {.range = {.start = (unsigned long)memory, .len = BYTES},
                                  .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(uffd, UFFDIO_REGISTER, &reg) != 0 ||
        pthread_create(&thread, NULL, touch, memory) != 0)
        _exit(1);
    for (;;)
        pause();
}

static pid_t spawn_waiter(void)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0)
        be_waiter();
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static const struct fl_uffd_case *case_of(const struct fl_diagnosis *found, pid_t vm)
{
    for (size_t i = 0; i < found->cases; i++) {
        if (found->uffd[i].vm == vm && found->uffd[i].pending > 0)
            return &found->uffd[i];
    }
    return NULL;
}

// Diagnoses until the child is seen to wait, and judged so.
static const struct fl_uffd_case *wait_for_case(struct fl_diagnosis *found, pid_t vm,
                                                int64_t patience_ms, enum fl_verdict verdict)
{
    for (int i = 0; i < DEADLINE_POLLS; i++) {
        cr_assert_eq(fl_diagnose(patience_ms, found), 0);
        const struct fl_uffd_case *uffd = case_of(found, vm);
        if (uffd && uffd->tasks > 0 && uffd->verdict == verdict)
            return uffd;
        fl_diagnosis_free(found);
        poll(NULL, 0, POLL_MS);
    }
    cr_assert_fail("the waiting child was never found");
    return NULL;
}

static void skip_without_userfaultfd(void)
{
    int fd = open_uffd();
    if (fd < 0 || geteuid() != 0)
        cr_skip_test("needs root and userfaultfd");
    close(fd);
}

TestSuite(doctor, .timeout = 60);

Test(doctor, finds_an_orphan)
{
    struct fl_diagnosis found;
    skip_without_userfaultfd();
    pid_t pid = spawn_waiter();
    const struct fl_uffd_case *uffd = wait_for_case(&found, pid, 0, FL_VERDICT_ORPHAN);
    cr_expect_eq(uffd->holders, 1);
    cr_expect_eq(uffd->pending, 1);
    cr_expect_eq(uffd->unresolved, 0);
    cr_expect_eq(uffd->tasks, 1);
    cr_expect_not(found.healthy);
    fl_diagnosis_free(&found);
    end(pid);
}

// With a holder that does not answer it is no orphan; a fault that was read counts as such.
Test(doctor, tells_stuck_from_orphan)
{
    struct fl_diagnosis found;
    struct uffd_msg message;
    skip_without_userfaultfd();
    // Made here, it belongs to our memory: so the child makes it, and we take it out of the child.
    pid_t pid = spawn_waiter();
    const struct fl_uffd_case *uffd = wait_for_case(&found, pid, 0, FL_VERDICT_ORPHAN);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int taken = (int)syscall(SYS_pidfd_getfd, pidfd, uffd->holder[0].fd, 0);
    fl_diagnosis_free(&found);
    cr_assert_geq(taken, 0);
    cr_assert_eq(read(taken, &message, sizeof(message)), (ssize_t)sizeof(message));

    cr_assert_eq(fl_diagnose(0, &found), 0);
    const struct fl_uffd_case *stuck = NULL;
    for (size_t i = 0; i < found.cases; i++) {
        if (found.uffd[i].vm == pid)
            stuck = &found.uffd[i];
    }
    cr_assert_not_null(stuck);
    cr_expect_eq(stuck->verdict, FL_VERDICT_STUCK);
    cr_expect_eq(stuck->holders, 2);
    cr_expect_eq(stuck->pending, 0);
    cr_expect_eq(stuck->unresolved, 1);
    fl_diagnosis_free(&found);
    end(pid);
    close(taken);
    close(pidfd);
}

Test(doctor, is_patient)
{
    struct fl_diagnosis found;
    skip_without_userfaultfd();
    pid_t pid = spawn_waiter();
    const struct fl_uffd_case *uffd = wait_for_case(&found, pid, INT64_MAX, FL_VERDICT_OK);
    cr_expect_eq(uffd->pending, 1);
    fl_diagnosis_free(&found);
    end(pid);
}
