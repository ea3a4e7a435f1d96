// SPDX-License-Identifier: Apache-2.0
//
// The incident on a small scale: a process that waits on a userfaultfd which nobody serves.
#include <criterion/criterion.h>
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "engine/doctor/doctor.h"
#include "engine/doctor/doctor_compare.h"
#include "engine/doctor/doctor_judge.h"
#include "engine/doctor/doctor_left.h"
#include "engine/doctor/doctor_walk.h"

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

// What becomes of the descriptor once its memory is registered.
enum fate { KEPT, CLOSED_WHEN_TAKEN, SENT_TO_NOBODY };

struct shared {
    _Atomic int taken; // the test has a copy of it
    int uffd;
    char *memory;
};
static struct shared *shared;

// In a message that is never received, so that no process has it.
static void send_to_nobody(int fd)
{
    int pair[2];
    char byte = 0;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(int));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0 ||
        sendmsg(pair[0], &message, 0) != 1)
        _exit(2);
    close(fd);
}

static void leave(int uffd, enum fate fate)
{
    shared->uffd = uffd;
    if (fate == SENT_TO_NOBODY)
        send_to_nobody(uffd);
    for (int i = 0; fate == CLOSED_WHEN_TAKEN && i < DEADLINE_POLLS && !shared->taken; i++)
        poll(NULL, 0, POLL_MS);
    if (fate == CLOSED_WHEN_TAKEN)
        close(uffd);
}

// A child whose second thread touches missing memory, and waits.
static void be_waiter(enum fate fate)
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
    shared->memory = memory;
    leave(uffd, fate);
    for (;;)
        pause();
}

static pid_t spawn(enum fate fate)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0)
        be_waiter(fate);
    return pid;
}

static pid_t spawn_waiter(void)
{
    return spawn(KEPT);
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
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(shared, MAP_FAILED);
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

static int take_uffd(pid_t pid, int fd)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int taken = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    close(pidfd);
    cr_assert_geq(taken, 0);
    return taken;
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

static const struct fl_waiting_task *task_of(const struct fl_diagnosis *found, pid_t pid)
{
    for (size_t i = 0; i < found->tasks; i++) {
        if (found->task[i].pid == pid)
            return &found->task[i];
    }
    return NULL;
}

// Only what is ours of a walk's findings: what cannot be seen is told by elimination, and others
// may test here as well. `inode`: 0 for no userfaultfd.
static void keep_ours(struct fl_diagnosis *found, uint64_t inode, pid_t vm, pid_t reader)
{
    size_t cases = 0;
    size_t tasks = 0;
    for (size_t i = 0; i < found->cases; i++) {
        if (found->uffd[i].inode == inode)
            found->uffd[cases++] = found->uffd[i];
        else
            free(found->uffd[i].holder);
    }
    for (size_t i = 0; i < found->tasks; i++) {
        if (found->task[i].pid == vm || found->task[i].pid == reader)
            found->task[tasks++] = found->task[i];
    }
    found->cases = cases;
    found->tasks = tasks;
    found->dyings = 0;
}

// Walks until the process `waiter` waits, and judges what is ours.
static const struct fl_waiting_task *judge_ours(struct fl_diagnosis *found, uint64_t inode,
                                                pid_t vm, pid_t waiter)
{
    for (int i = 0; i < DEADLINE_POLLS; i++) {
        cr_assert_eq(fl_doctor_walk(found), 0);
        keep_ours(found, inode, vm, waiter);
        if (task_of(found, waiter)) {
            fl_doctor_judge(found, 0);
            return task_of(found, waiter);
        }
        fl_diagnosis_free(found);
        poll(NULL, 0, POLL_MS);
    }
    cr_assert_fail("it does not wait");
    return NULL;
}

static bool has_closed(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, shared->uffd);
    return access(path, F_OK) != 0;
}

// Its handler may live, but nobody else can say whose memory it is.
Test(doctor, finds_a_vm_that_has_closed_its_userfaultfd)
{
    struct fl_diagnosis found;
    skip_without_userfaultfd();
    pid_t pid = spawn(CLOSED_WHEN_TAKEN);
    const struct fl_uffd_case *uffd = wait_for_case(&found, pid, 0, FL_VERDICT_ORPHAN);
    uint64_t inode = uffd->inode;
    int taken = take_uffd(pid, uffd->holder[0].fd);
    fl_diagnosis_free(&found);
    shared->taken = 1;
    for (int i = 0; i < DEADLINE_POLLS && !has_closed(pid); i++)
        poll(NULL, 0, POLL_MS);
    const struct fl_waiting_task *task = judge_ours(&found, inode, pid, pid);
    cr_assert_eq(found.cases, 1);
    cr_expect_eq(found.uffd[0].vm, pid);
    cr_expect_eq(found.uffd[0].vm_fd, -1);
    cr_expect_eq(found.uffd[0].verdict, FL_VERDICT_STUCK);
    cr_expect_eq(task->vm, pid);
    fl_diagnosis_free(&found);
    end(pid);
    close(taken);
}

Test(doctor, finds_a_task_whom_nobody_can_answer)
{
    struct fl_diagnosis found;
    skip_without_userfaultfd();
    pid_t pid = spawn(SENT_TO_NOBODY);
    for (int i = 0; i < DEADLINE_POLLS && !(shared->uffd > 0 && has_closed(pid)); i++)
        poll(NULL, 0, POLL_MS);
    const struct fl_waiting_task *task = judge_ours(&found, 0, pid, pid);
    cr_expect(task->unexplained);
    cr_expect_not(found.healthy);
    cr_expect_eq(found.unexplained, 1);
    fl_diagnosis_free(&found);
    end(pid);
}

// Works in the memory of another, as a debugger does.
static pid_t spawn_reader(pid_t vm)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        char byte;
        struct iovec ours = {&byte, 1};
        struct iovec theirs = {shared->memory + BYTES / 2, 1};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        process_vm_readv(vm, &ours, 1, &theirs, 1, 0);
        _exit(0);
    }
    return pid;
}

Test(doctor, knows_for_whom_others_wait)
{
    struct fl_diagnosis found;
    skip_without_userfaultfd();
    pid_t pid = spawn_waiter();
    uint64_t inode = wait_for_case(&found, pid, 0, FL_VERDICT_ORPHAN)->inode;
    fl_diagnosis_free(&found);
    pid_t reader = spawn_reader(pid);
    judge_ours(&found, inode, pid, reader); // now he waits, and the fault is counted
    fl_diagnosis_free(&found);
    const struct fl_waiting_task *task = judge_ours(&found, inode, pid, reader);
    cr_expect_eq(task->vm, pid);
    cr_expect_not(task->unexplained);
    cr_expect_eq(found.uffd[0].tasks, 1);
    fl_diagnosis_free(&found);
    end(reader);
    end(pid);
}

Test(doctor, sees_that_a_handler_is_stopped)
{
    struct fl_diagnosis found;
    int status;
    skip_without_userfaultfd();
    pid_t pid = spawn_waiter();
    const struct fl_uffd_case *uffd = wait_for_case(&found, pid, 0, FL_VERDICT_ORPHAN);
    int taken = take_uffd(pid, uffd->holder[0].fd);
    fl_diagnosis_free(&found);
    pid_t holder = fork();
    cr_assert_geq(holder, 0);
    if (holder == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    close(taken);
    kill(holder, SIGSTOP);
    cr_assert_eq(waitpid(holder, &status, WUNTRACED), holder);
    uffd = wait_for_case(&found, pid, 0, FL_VERDICT_STUCK);
    for (size_t i = 0; i < uffd->holders; i++)
        cr_expect_eq(uffd->holder[i].stopped, uffd->holder[i].pid == holder);
    fl_diagnosis_free(&found);
    end(holder);
    end(pid);
}

// --- kernel workers, which tests cannot have: what follows from what was seen of them ---

#define ASYNC_FAULT "handle_userfault < handle_mm_fault < async_pf_execute < process_one_work"

static const struct fl_uffd_case of_a_guest = {.inode = 1, .unresolved = 1, .vm = 101, .kvm = true};
static const struct fl_uffd_case of_another = {.inode = 2, .pending = 1, .vm = 102, .kvm = true};
static const struct fl_uffd_case of_no_guest = {.inode = 3, .pending = 1, .vm = 103};
static const struct fl_waiting_task worker = {.pid = 7,
                                              .tid = 7,
                                              .kernel = true,
                                              .state = 'D',
                                              .name = "kworker/0:1",
                                              .waiting_ms = 5000,
                                              .stack = ASYNC_FAULT};

struct scene {
    struct fl_uffd_case uffd[3];
    struct fl_waiting_task task[2];
    struct fl_waiting_task dying[2];
    struct fl_diagnosis found;
};

static void judge(struct scene *scene, size_t cases, size_t tasks, size_t dyings)
{
    scene->found = (struct fl_diagnosis){.cases = cases,
                                         .uffd = scene->uffd,
                                         .tasks = tasks,
                                         .task = scene->task,
                                         .dyings = dyings,
                                         .dying = scene->dying,
                                         .complete = true};
    fl_doctor_judge(&scene->found, 1000);
}

Test(doctor, a_kernel_worker_of_the_only_guest)
{
    struct scene scene = {.uffd = {of_a_guest, of_no_guest}, .task = {worker}};
    judge(&scene, 2, 1, 0);
    cr_expect_eq(scene.task[0].vm, 101);
    cr_expect_not(scene.task[0].unexplained);
    cr_expect_eq(scene.uffd[0].waiting_ms, 5000);
    cr_expect_not(scene.found.healthy);
}

Test(doctor, a_kernel_worker_of_one_of_several_guests)
{
    struct scene scene = {.uffd = {of_a_guest, of_another, of_no_guest}, .task = {worker}};
    judge(&scene, 3, 1, 0);
    cr_expect_eq(scene.task[0].vm, 0);
    cr_expect_not(scene.task[0].unexplained);
    cr_expect(fl_doctor_may_wait(&scene.task[0], &scene.uffd[0]));
    cr_expect(fl_doctor_may_wait(&scene.task[0], &scene.uffd[1]));
    cr_expect_not(fl_doctor_may_wait(&scene.task[0], &scene.uffd[2]));
}

// The other guest's fault is that of its own task.
Test(doctor, a_kernel_worker_of_the_guest_with_a_fault_to_spare)
{
    struct scene scene = {.uffd = {of_a_guest, of_another}, .task = {worker}};
    scene.task[1] =
        (struct fl_waiting_task){.pid = 102, .tid = 1020, .state = 'S', .waiting_ms = 5000};
    judge(&scene, 2, 2, 0);
    cr_expect_eq(scene.task[0].vm, 101);
    cr_expect_eq(scene.task[1].vm, 102);
    cr_expect_eq(scene.uffd[1].tasks, 1);
}

Test(doctor, a_kernel_worker_that_has_its_process_in_its_name)
{
    struct scene scene = {.uffd = {of_a_guest, of_another, of_no_guest}, .task = {worker}};
    strcpy(scene.task[0].name, "vhost-103");
    strcpy(scene.task[0].stack, "handle_userfault < vhost_worker");
    judge(&scene, 3, 1, 0);
    cr_expect_eq(scene.task[0].vm, 103);
}

// The incident's end: killed, nothing of it left, and its worker waits for ever.
Test(doctor, a_kernel_worker_of_a_process_that_is_dying)
{
    struct scene scene = {
        .task = {worker},
        .dying = {{.pid = 104, .tid = 104, .state = 'D', .stack = "flush_work < kvm_destroy_vm"}}};
    judge(&scene, 0, 1, 1);
    cr_expect_eq(scene.task[0].vm, 104);
    cr_expect(scene.task[0].unexplained);
    cr_expect_eq(scene.found.unexplained, 1);
    cr_expect_not(scene.found.healthy);
    scene.dying[1] = scene.dying[0];
    scene.dying[1].pid = 105;
    scene.task[0].vm = 0;
    judge(&scene, 0, 1, 2);
    cr_expect_eq(scene.task[0].vm, 0);
    cr_expect(scene.task[0].unexplained);
}

Test(doctor, a_task_that_waits_a_moment_is_no_trouble)
{
    struct scene scene = {.task = {worker}};
    scene.task[0].waiting_ms = 10;
    judge(&scene, 0, 1, 0);
    cr_expect_not(scene.task[0].unexplained);
    cr_expect(scene.found.healthy);
}

// --- what two looks agree on ---

static const struct fl_waiting_task own_task = {
    .pid = 103, .tid = 1030, .state = 'S', .started = 5, .switches = 9, .waiting_ms = 5000};

// One VM with one task that waits, and a handler.
static void served(struct scene *scene)
{
    static struct fl_uffd_holder holders[2] = {{.pid = 103, .fd = 3}, {.pid = 200, .fd = 7}};
    *scene = (struct scene){.uffd = {of_no_guest}, .task = {own_task}};
    scene->uffd[0].holders = 2;
    scene->uffd[0].holder = holders;
    judge(scene, 1, 1, 0);
}

static enum fl_verdict compare(struct scene *first, struct scene *second, int64_t elapsed_ms)
{
    fl_doctor_compare(&first->found, &second->found, elapsed_ms);
    fl_doctor_judge(&second->found, 1000);
    return second->uffd[0].verdict;
}

Test(doctor, a_task_that_has_not_run_since_waits_for_the_same_fault)
{
    struct scene first, second;
    served(&first);
    served(&second);
    cr_expect_eq(compare(&first, &second, 250), FL_VERDICT_STUCK);
    cr_expect_eq(second.uffd[0].waiting_ms, 5000);
}

Test(doctor, a_task_that_has_run_since_waits_for_another)
{
    struct scene first, second;
    served(&first);
    served(&second);
    second.task[0].switches++;
    cr_expect_eq(compare(&first, &second, 250), FL_VERDICT_OK);
    cr_expect(second.found.healthy);
}

// The number of a task is given to another once it has ended.
Test(doctor, a_task_of_the_same_number_is_not_the_same)
{
    struct scene first, second;
    served(&first);
    served(&second);
    second.task[0].started++;
    cr_expect_eq(compare(&first, &second, 250), FL_VERDICT_OK);
}

// A look reads faults first and tasks then: meanwhile the fault was answered.
Test(doctor, faults_without_a_task_accuse_nobody)
{
    struct scene scene;
    served(&scene);
    judge(&scene, 1, 0, 0);
    cr_expect_eq(scene.uffd[0].verdict, FL_VERDICT_OK);
    cr_expect(scene.found.healthy);
}

Test(doctor, a_wait_that_the_kernel_does_not_tell_is_watched)
{
    struct scene first, second;
    served(&first);
    first.task[0].waiting_ms = -1;
    served(&second);
    second.task[0].waiting_ms = -1;
    cr_expect_eq(compare(&first, &second, 250), FL_VERDICT_OK);
    cr_expect_eq(second.task[0].waiting_ms, 250);
    cr_expect(fl_doctor_must_watch(&first.found, &second.found, 1000));
    cr_expect_not(fl_doctor_must_watch(&first.found, &second.found, 250));
    second.task[0].waiting_ms = -1;
    cr_expect_eq(compare(&first, &second, 1000), FL_VERDICT_STUCK);
    cr_expect_not(fl_doctor_must_watch(&first.found, &second.found, 1000));
    second.task[0].switches++;
    cr_expect_eq(compare(&first, &second, 250), FL_VERDICT_OK);
    cr_expect_not(fl_doctor_must_watch(&first.found, &second.found, 1000));
}

// Signals wake it, and it asks again, each time for a moment: but nobody can answer.
Test(doctor, an_orphan_whose_task_is_woken_by_signals)
{
    struct scene first, second;
    served(&first);
    served(&second);
    first.uffd[0].holders = second.uffd[0].holders = 1;
    second.task[0].switches++;
    first.task[0].waiting_ms = second.task[0].waiting_ms = 2;
    cr_expect_eq(compare(&first, &second, 250), FL_VERDICT_OK);
    cr_expect(fl_doctor_must_watch(&first.found, &second.found, 1000));
    second.task[0].waiting_ms = 2;
    cr_expect_eq(compare(&first, &second, 1000), FL_VERDICT_ORPHAN);
}

// Two that are served, and a worker that may wait for either.
Test(doctor, a_doubtful_worker_accuses_neither)
{
    static struct fl_uffd_holder one[2] = {{.pid = 101, .fd = 3}, {.pid = 200, .fd = 7}};
    static struct fl_uffd_holder other[2] = {{.pid = 102, .fd = 3}, {.pid = 200, .fd = 8}};
    struct scene scene = {.uffd = {of_a_guest, of_another}, .task = {worker}};
    scene.uffd[0].holder = one;
    scene.uffd[1].holder = other;
    scene.uffd[0].holders = scene.uffd[1].holders = 2;
    judge(&scene, 2, 1, 0);
    cr_expect_eq(scene.uffd[0].verdict, FL_VERDICT_UNKNOWN);
    cr_expect_eq(scene.uffd[1].verdict, FL_VERDICT_UNKNOWN);
    scene.uffd[0].holders = 1; // nobody serves it: it is its own
    judge(&scene, 2, 1, 0);
    cr_expect_eq(scene.uffd[0].verdict, FL_VERDICT_ORPHAN);
    cr_expect_eq(scene.uffd[1].verdict, FL_VERDICT_OK);
    scene.uffd[0].holders = 2;
    scene.uffd[0].answered = 1; // its fault was not there all the time
    judge(&scene, 2, 1, 0);
    cr_expect_eq(scene.uffd[0].verdict, FL_VERDICT_OK);
    cr_expect_eq(scene.uffd[1].verdict, FL_VERDICT_STUCK);
}

Test(doctor, a_holder_that_is_stopped_is_trouble_though_nobody_waits)
{
    struct fl_uffd_holder holders[2] = {{.pid = 103, .fd = 3}, {.pid = 200, .fd = 7}};
    struct scene first = {.uffd = {of_no_guest}};
    struct scene second = {.uffd = {of_no_guest}};
    struct fl_uffd_holder before[2] = {holders[0], holders[1]};
    first.uffd[0].holders = second.uffd[0].holders = 2;
    first.uffd[0].holder = before;
    second.uffd[0].holder = holders;
    holders[0].stopped = before[0].stopped = true; // the VM itself
    judge(&second, 1, 0, 0);
    cr_expect_eq(second.found.stopped, 0);
    cr_expect(second.found.healthy);
    holders[1].stopped = true;
    judge(&second, 1, 0, 0);
    cr_expect_eq(second.found.stopped, 1);
    cr_expect_not(second.found.healthy);
    judge(&first, 1, 0, 0);
    compare(&first, &second, 250); // it was not, at the first look
    cr_expect_eq(second.found.stopped, 0);
}

// Whoever is in a jail can make up names there: that must not keep the doctor from the others.
Test(doctor, directories_in_a_jail_are_many)
{
    enum { MANY = 200, BOUND = 64 };
    char root[] = "/tmp/faultline-jail-XXXXXX";
    char path[128];
    struct fl_diagnosis found = {0};
    if (geteuid() != 0)
        cr_skip_test("only root can make a jail");
    cr_assert_not_null(mkdtemp(root));
    snprintf(path, sizeof(path), "%s/tmp", root);
    cr_assert_eq(mkdir(path, 0700), 0);
    for (int i = 0; i < MANY; i++) {
        snprintf(path, sizeof(path), "%s/tmp/faultline-checkpoint-%016x", root, (unsigned)i);
        cr_assert_eq(mkdir(path, 0700), 0);
    }
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (chroot(root) == 0)
            raise(SIGSTOP);
        _exit(1);
    }
    int status = 0;
    cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
    int error = WIFSTOPPED(status) ? fl_doctor_note_directories(&found, pid) : -1;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    for (int i = 0; i < MANY; i++) {
        snprintf(path, sizeof(path), "%s/tmp/faultline-checkpoint-%016x", root, (unsigned)i);
        rmdir(path);
    }
    snprintf(path, sizeof(path), "%s/tmp", root);
    rmdir(path);
    rmdir(root);
    cr_assert_eq(error, 0);
    cr_assert_geq(found.left_count, 1);
    cr_assert_leq(found.left_count, BOUND);
    fl_diagnosis_free(&found);
}
