// SPDX-License-Identifier: Apache-2.0
//
// What the kernel asks, one request at a time. What blocks on the store goes to a reader; the rest
// is answered here.
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/crash_point.h"
#include "engine/base/log.h"
#include "engine/files/files_internal.h"
#include "engine/host/procfs.h"

enum {
    KEPT_S = 3600, // an image never changes
    ROOT_S = 1,
    NAME_MOST = 255,
};

// --- answers and calls ---

bool fl_files_answered(struct fl_files *files, int result)
{
    if (result == -ENOENT)
        atomic_fetch_add(&files->options.counts->taken_over, 1);
    return result == 0;
}

void fl_files_answer(struct fl_files *files, uint64_t unique, int error, const void *data,
                     size_t bytes)
{
    fl_files_answered(files, fl_fuse_answer(files->device, unique, error, data, bytes));
}

void fl_files_call_begin(struct fl_files *files, struct fl_files_call *call,
                         const struct fuse_in_header *in)
{
    call->files = files;
    call->unique = in->unique;
    call->tid = (pid_t)in->pid;
    call->since_ns = files->now;
    cds_list_add_tail(&call->link, &files->calls);
    atomic_fetch_add(&files->calls_now, 1);
}

void fl_files_call_answer(struct fl_files_call *call, int error, const void *data, size_t bytes)
{
    if (!call->answered)
        fl_files_answer(call->files, call->unique, error, data, bytes);
    call->answered = true;
}

void fl_files_call_end(struct fl_files_call *call)
{
    cds_list_del(&call->link);
    atomic_fetch_sub(&call->files->calls_now, 1);
}

struct fl_files_call *fl_files_call_find(struct fl_files *files, uint64_t unique)
{
    struct fl_files_call *call;
    cds_list_for_each_entry(call, &files->calls, link)
    {
        if ((call->unique & ~FL_FUSE_RESENT) == (unique & ~FL_FUSE_RESENT))
            return call;
    }
    return NULL;
}

// --- requests ---

void fl_files_attr(const struct fl_files *files, const struct fl_files_entry *entry,
                   struct fuse_attr *ret_attr)
{
    const struct fl_files_options *options = &files->options;
    mode_t readers = options->mode & 0444; // who may read none may not list them either
    *ret_attr = (struct fuse_attr){
        .ino = entry ? entry->id : FL_FILES_ROOT,
        .mode = entry ? S_IFREG | readers : S_IFDIR | readers | readers >> 2,
        .nlink = entry ? 1 : 2,
        .uid = options->uid,
        .gid = options->gid,
        .blksize = 4096,
    };
    if (!entry)
        return;
    ret_attr->size = entry->bytes;
    ret_attr->blocks = (entry->bytes + 511) / 512;
    ret_attr->atime = ret_attr->mtime = ret_attr->ctime = (uint64_t)entry->mtime_s;
    ret_attr->atimensec = ret_attr->mtimensec = ret_attr->ctimensec = entry->mtime_ns;
}

static void getattr(struct fl_files *files, const struct fuse_in_header *in)
{
    const struct fl_files_node *node = fl_files_node_find(files, in->nodeid);
    struct fuse_attr_out out = {.attr_valid = node ? KEPT_S : ROOT_S};
    if (!node && in->nodeid != FL_FILES_ROOT) {
        fl_files_answer(files, in->unique, -ESTALE, NULL, 0);
        return;
    }
    fl_files_attr(files, node ? node->entry : NULL, &out.attr);
    fl_files_answer(files, in->unique, 0, &out, sizeof(out));
}

static void open_directory(struct fl_files *files, const struct fuse_in_header *in)
{
    const struct fuse_open_out out = {0};
    fl_files_answer(files, in->unique, 0, &out, sizeof(out));
}

static void statfs(struct fl_files *files, const struct fuse_in_header *in)
{
    const struct fuse_statfs_out out = {
        .st = {.bsize = 4096, .frsize = 4096, .namelen = NAME_MOST}};
    fl_files_answer(files, in->unique, 0, &out, sizeof(out));
}

// An error where a page is asked for is SIGBUS, or EFAULT of a system call or of KVM: a signal that
// is only to be handled must wait.
bool fl_files_call_leave_killed(struct fl_files_call *call)
{
    if (!fl_proc_is_killed(call->tid))
        return false;
    atomic_fetch_add(&call->files->options.counts->interrupted, 1);
    fl_files_call_answer(call, -EINTR, NULL, 0);
    call->leave(call);
    return true;
}

// Its caller was killed, or has a signal to handle, which the kernel does not tell apart; nor does
// it say so a second time. A waiter for a single page cannot be killed before it is answered.
static void interrupt(struct fl_files *files, const struct fuse_interrupt_in *arg)
{
    struct fl_files_call *call = fl_files_call_find(files, arg->unique);
    if (!call || call->answered)
        return;
    call->signalled = true;
    fl_files_call_leave_killed(call);
}

static void forget_many(struct fl_files *files, const struct fuse_batch_forget_in *arg,
                        size_t bytes)
{
    const struct fuse_forget_one *one = (const void *)(arg + 1);
    size_t room = bytes >= sizeof(*arg) ? (bytes - sizeof(*arg)) / sizeof(*one) : 0;
    for (uint32_t i = 0; i < arg->count && i < room; i++)
        fl_files_node_forget(files, one[i].nodeid, one[i].nlookup);
}

// A request that is shorter than it says is no request of this kernel's.
static bool has(size_t bytes, size_t least)
{
    return bytes >= least;
}

static void act(struct fl_files *files, const struct fuse_in_header *in, const char *arg,
                size_t bytes)
{
    switch (in->opcode) {
    case FUSE_LOOKUP:
        fl_files_lookup(files, in, arg);
        break;
    case FUSE_READDIR:
        if (has(bytes, sizeof(struct fuse_read_in)))
            fl_files_list(files, in, (const void *)arg);
        break;
    case FUSE_READ:
        if (has(bytes, sizeof(struct fuse_read_in)))
            fl_files_read(files, in, (const void *)arg);
        break;
    case FUSE_GETATTR:
        getattr(files, in);
        break;
    case FUSE_OPEN:
        fl_files_open_file(files, in);
        break;
    case FUSE_RELEASE:
        fl_files_release(files, in);
        break;
    case FUSE_OPENDIR:
        open_directory(files, in);
        break;
    case FUSE_RELEASEDIR:
    case FUSE_DESTROY:
    case FUSE_FLUSH:
    case FUSE_FSYNC:
        fl_files_answer(files, in->unique, 0, NULL, 0);
        break;
    case FUSE_STATFS:
        statfs(files, in);
        break;
    case FUSE_INIT:
        if (has(bytes, offsetof(struct fuse_init_in, flags2)) &&
            fl_fuse_answer_init(files->device, in->unique, (const void *)arg, bytes) != 0)
            fl_log(FL_LOG_ERROR, "event=files_failed reason=\"the kernel's FUSE is too old\"");
        break;
    default: // the kernel asks no more for most of these
        fl_files_answer(files, in->unique, -ENOSYS, NULL, 0);
        break;
    }
}

// Those that are not answered come first.
void fl_files_request(struct fl_files *files, const struct fuse_in_header *in, size_t bytes)
{
    const char *arg = (const char *)(in + 1);
    size_t rest = bytes - sizeof(*in);
    if (in->unique & FL_FUSE_RESENT)
        atomic_fetch_add(&files->options.counts->resent, 1);
    switch (in->opcode) {
    case FUSE_FORGET:
        if (has(rest, sizeof(struct fuse_forget_in)))
            fl_files_node_forget(files, in->nodeid, ((const struct fuse_forget_in *)arg)->nlookup);
        break;
    case FUSE_BATCH_FORGET:
        if (has(rest, sizeof(struct fuse_batch_forget_in)))
            forget_many(files, (const void *)arg, rest);
        break;
    case FUSE_INTERRUPT:
        if (has(rest, sizeof(struct fuse_interrupt_in)))
            interrupt(files, (const void *)arg);
        break;
    default:
        act(files, in, arg, rest);
        break;
    }
}
