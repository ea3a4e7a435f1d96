// SPDX-License-Identifier: Apache-2.0
#include "engine/doctor/doctor_walk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/userfaultfd.h>

#include "engine/doctor/doctor_fuse.h"
#include "engine/doctor/doctor_left.h"
#include "engine/doctor/doctor_protected.h"
#include "engine/host/proc_fd.h"
#include "engine/host/procfs.h"
#include "engine/rescue/orphan_state.h"

enum { PATH = 96, TEXT = 4096, STACK_DEPTH = 12 };

// Whether a process has registered memory: it takes long to find out.
struct memory {
    pid_t pid;
    bool registered;
};

// What a Faultline has kept of a process.
struct kept_state {
    pid_t pid;
    char image[FL_IMAGE_NAME_BYTES];
    uint64_t id;
    uint64_t left_protected;
};

// What has been found so far.
struct walk {
    struct fl_diagnosis found;
    size_t guests; // processes that have a KVM guest
    pid_t *guest;
    size_t states;
    struct kept_state *kept;
    size_t memories;
    struct memory *memory;
    struct fl_held_meetings held;
    pid_t pid;     // being looked at
    bool live;     // it has its memory and its descriptors
    double now_ms; // on the clock of se.exec_start
};

// Room for one more at the end of an array; NULL if there is no memory.
static void *one_more(void *array_address, size_t *count, size_t size)
{
    void **array = array_address;
    char *more = realloc(*array, (*count + 1) * size);
    if (!more)
        return NULL;
    *array = more;
    memset(more + *count * size, 0, size);
    return more + (*count)++ * size;
}

// --- descriptors ---

static struct fl_uffd_case *find_case(struct walk *walk, uint64_t inode)
{
    for (size_t i = 0; i < walk->found.cases; i++) {
        if (walk->found.uffd[i].inode == inode)
            return &walk->found.uffd[i];
    }
    struct fl_uffd_case *new = one_more(&walk->found.uffd, &walk->found.cases, sizeof(*new));
    if (new)
        *new = (struct fl_uffd_case){.inode = inode, .vm_fd = -1, .waiting_ms = -1};
    return new;
}

static void describe_holder(const struct fl_proc_fd *fd, struct fl_uffd_holder *ret_holder)
{
    char path[PATH];
    struct fl_proc_task task = {0};
    snprintf(path, sizeof(path), "/proc/%d/task/%d", (int)fd->pid, (int)fd->tid);
    fl_proc_task(path, &task);
    ret_holder->pid = fd->pid;
    ret_holder->parent = task.parent;
    ret_holder->fd = fd->fd;
    ret_holder->stopped = task.state == 'T' || task.state == 't';
    ret_holder->tracer = ret_holder->stopped ? fl_proc_tracer(fd->pid) : 0;
    fl_proc_name(fd->pid, ret_holder->name, sizeof(ret_holder->name));
}

static int take_userfaultfd(struct walk *walk, const struct fl_proc_fd *fd,
                            const struct fl_proc_uffd *info)
{
    struct fl_uffd_case *uffd = find_case(walk, info->inode);
    struct fl_uffd_holder *holder =
        uffd ? one_more(&uffd->holder, &uffd->holders, sizeof(*holder)) : NULL;
    if (!holder)
        return -ENOMEM;
    uffd->pending = info->pending;
    uffd->unresolved = info->total > info->pending ? info->total - info->pending : 0;
    uffd->removes = info->features & UFFD_FEATURE_EVENT_REMOVE;
    describe_holder(fd, holder);
    return 0;
}

static int take_fuse(struct walk *walk, const struct fl_proc_fd *fd)
{
    struct fl_uffd_holder holder = {0};
    describe_holder(fd, &holder);
    return fl_doctor_fuse_note_holder(&walk->found, fd, &holder);
}

static int take_guest(struct walk *walk, pid_t pid)
{
    pid_t *guest = one_more(&walk->guest, &walk->guests, sizeof(*guest));
    if (!guest)
        return -ENOMEM;
    *guest = pid;
    return 0;
}

static int take_kept(struct walk *walk, const struct kept_state *kept)
{
    struct kept_state *more = one_more(&walk->kept, &walk->states, sizeof(*more));
    if (!more)
        return -ENOMEM;
    *more = *kept;
    return 0;
}

// The keeper, its engine and the standby may hold one and the same.
static bool is_kept(const struct walk *walk, pid_t pid)
{
    for (size_t i = 0; i < walk->states; i++) {
        if (walk->kept[i].pid == pid)
            return true;
    }
    return false;
}

static int look_at_descriptor(void *arg, const struct fl_proc_fd *fd)
{
    struct walk *walk = arg;
    struct fl_proc_uffd info;
    struct kept_state kept = {0};
    if (fl_proc_uffd(fd, &info))
        return take_userfaultfd(walk, fd, &info);
    if (strcmp(fd->target, "anon_inode:kvm-vm") == 0)
        return take_guest(walk, fd->pid);
    if (fl_fuse_connection_of(fd) != 0)
        return take_fuse(walk, fd);
    if (fl_doctor_note_held(&walk->held, fd->target) != 0)
        return -ENOMEM;
    if (!fl_orphan_state_head(fd, &kept.pid, kept.image) || is_kept(walk, kept.pid))
        return 0;
    kept.left_protected = fl_doctor_protected(fd, &kept.id);
    return take_kept(walk, &kept);
}

// --- tasks ---

// "[<0>] name+0x1/0x2" a line; the names, innermost first.
static void read_stack(const char *task_path, char *stack, size_t size)
{
    char path[PATH];
    char text[TEXT];
    size_t used = 0;
    stack[0] = '\0';
    snprintf(path, sizeof(path), "%s/stack", task_path);
    if (fl_proc_read(path, text, sizeof(text)) <= 0)
        return;
    char *save = NULL;
    unsigned depth = 0;
    for (char *line = strtok_r(text, "\n", &save); line && depth < STACK_DEPTH;
         line = strtok_r(NULL, "\n", &save)) {
        char *name = strchr(line, ']');
        if (!name || used >= size)
            break;
        name += strspn(name, "] ");
        name[strcspn(name, "+")] = '\0';
        int more = snprintf(stack + used, size - used, "%s%s", depth++ ? " < " : "", name);
        used += more > 0 ? (size_t)more : 0;
    }
}

// When the task was last put on a processor, in milliseconds; negative if the kernel does not say.
static double last_ran_ms(const char *task_path)
{
    static const char key[] = "se.exec_start";
    char path[PATH];
    char text[TEXT];
    snprintf(path, sizeof(path), "%s/sched", task_path);
    if (fl_proc_read(path, text, sizeof(text)) <= 0)
        return -1;
    const char *at = strstr(text, key);
    if (!at)
        return -1;
    at += sizeof(key) - 1;
    return strtod(at + strspn(at, " \t:"), NULL);
}

static void describe_task(const struct walk *walk, pid_t tid, const char *task_path,
                          struct fl_waiting_task *task)
{
    struct fl_proc_task now = {.state = '?'};
    fl_proc_task(task_path, &now);
    task->pid = walk->pid;
    task->tid = tid;
    task->kernel = now.kernel;
    task->state = now.state;
    task->started = now.started;
    task->moved = !fl_proc_switches(task_path, &task->switches);
    fl_proc_name(tid, task->name, sizeof(task->name));
    double ran = last_ran_ms(task_path);
    task->waiting_ms = ran < 0 || walk->now_ms < 0 ? -1
                       : walk->now_ms > ran        ? (int64_t)(walk->now_ms - ran)
                                                   : 0;
    read_stack(task_path, task->stack, sizeof(task->stack));
}

// A process that has lost everything and is still there, for a task of it sleeps.
static int look_if_dying(struct walk *walk, pid_t tid, const char *task_path)
{
    struct fl_proc_task now;
    if (walk->live || fl_proc_task(task_path, &now) != 0 || now.kernel || !now.exiting ||
        now.state == 'Z' || now.state == 'X' || now.state == 'R')
        return 0;
    struct fl_waiting_task *task = one_more(&walk->found.dying, &walk->found.dyings, sizeof(*task));
    if (!task)
        return -ENOMEM;
    describe_task(walk, tid, task_path, task);
    return 0;
}

// Of a task that may wait for a server of files. 0 or -ENOMEM.
static int look_for_server(struct walk *walk, pid_t tid, const char *task_path, const char *wchan)
{
    struct fl_waiting_task task = {0};
    describe_task(walk, tid, task_path, &task);
    if (task.kernel || !fl_doctor_fuse_waits(&walk->found, wchan, &task))
        return 0;
    struct fl_waiting_task *more =
        one_more(&walk->found.fuse_task, &walk->found.fuse_tasks, sizeof(*more));
    if (!more)
        return -ENOMEM;
    *more = task;
    return 0;
}

static int look_at_task(void *arg, int tid)
{
    struct walk *walk = arg;
    char task_path[PATH / 2];
    char path[PATH];
    char text[TEXT];
    snprintf(task_path, sizeof(task_path), "/proc/%d/task/%d", (int)walk->pid, tid);
    snprintf(path, sizeof(path), "%s/wchan", task_path);
    if (fl_proc_read(path, text, sizeof(text)) <= 0)
        *text = '\0';
    if (fl_doctor_fuse_may_wait(&walk->found, text) &&
        look_for_server(walk, tid, task_path, text) != 0)
        return -ENOMEM;
    if (strcmp(text, "handle_userfault") != 0) {
        int error = fl_doctor_note_waiter(&walk->found, walk->pid, task_path, text);
        return error ? error : look_if_dying(walk, tid, task_path);
    }
    struct fl_waiting_task *task = one_more(&walk->found.task, &walk->found.tasks, sizeof(*task));
    if (!task)
        return -ENOMEM;
    describe_task(walk, tid, task_path, task);
    walk->found.kernel_tasks += task->kernel;
    return 0;
}

static int look_at_process(void *arg, int pid)
{
    struct walk *walk = arg;
    char path[PATH];
    pid_t tid = 0;
    walk->pid = pid;
    walk->live = fl_proc_live_task(pid, &tid) == 0;
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    int result = fl_proc_each(path, look_at_task, walk);
    return result == -ENOMEM ? result : 0;
}

// --- whose memory it is ---

static bool has_memory(struct walk *walk, pid_t pid)
{
    for (size_t i = 0; i < walk->memories; i++) {
        if (walk->memory[i].pid == pid)
            return walk->memory[i].registered;
    }
    bool registered = fl_proc_has_uffd_memory(pid);
    struct memory *memory = one_more(&walk->memory, &walk->memories, sizeof(*memory));
    if (memory)
        *memory = (struct memory){pid, registered};
    return registered;
}

// It is that of the one holder that has any registered. A child that inherited the descriptor has
// none (unless it asked for fork events, and then it has a descriptor of its own).
static void find_vm(struct walk *walk, struct fl_uffd_case *uffd)
{
    const struct fl_uffd_holder *vm = NULL;
    for (size_t i = 0; i < uffd->holders; i++) {
        const struct fl_uffd_holder *holder = &uffd->holder[i];
        if ((vm && holder->pid == vm->pid) || !has_memory(walk, holder->pid))
            continue;
        if (vm)
            return; // two: cannot be told
        vm = holder;
    }
    if (!vm)
        return;
    uffd->vm = vm->pid;
    uffd->vm_fd = vm->fd;
    memcpy(uffd->vm_name, vm->name, sizeof(uffd->vm_name));
    for (size_t i = 0; i < walk->guests; i++)
        uffd->kvm = uffd->kvm || walk->guest[i] == vm->pid;
    for (size_t i = 0; i < walk->states; i++) {
        if (walk->kept[i].pid != vm->pid)
            continue;
        memcpy(uffd->image, walk->kept[i].image, sizeof(uffd->image));
        uffd->kept_id = walk->kept[i].id;
        uffd->left_protected = walk->kept[i].left_protected;
    }
}

// Below our own root directory, and those of all VMs.
static int find_left(struct fl_diagnosis *found)
{
    int error = fl_doctor_note_directories(found, 0);
    for (size_t i = 0; i < found->cases && !error; i++) {
        if (found->uffd[i].vm != 0)
            error = fl_doctor_note_directories(found, found->uffd[i].vm);
    }
    return error;
}

int fl_doctor_walk(struct fl_diagnosis *ret_found)
{
    struct walk walk = {.now_ms = last_ran_ms("/proc/self")};
    walk.found.view = fl_proc_view();
    int result = fl_doctor_fuse_find(&walk.found);
    if (result >= 0)
        result = fl_proc_each_fd_of_all(look_at_descriptor, &walk, &walk.found.complete);
    if (result >= 0)
        result = fl_proc_each("/proc", look_at_process, &walk);
    walk.found.complete = walk.found.complete && walk.found.view == FL_PROC_ALL;
    for (size_t i = 0; result >= 0 && i < walk.found.cases; i++)
        find_vm(&walk, &walk.found.uffd[i]);
    if (result >= 0)
        result = find_left(&walk.found);
    fl_doctor_leave_out_held(&walk.found, &walk.held);
    free(walk.guest);
    free(walk.kept);
    free(walk.memory);
    if (result < 0) {
        fl_diagnosis_free(&walk.found);
        return result;
    }
    *ret_found = walk.found;
    return 0;
}
