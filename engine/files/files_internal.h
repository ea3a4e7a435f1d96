// SPDX-License-Identifier: Apache-2.0
//
// The file door's own state, shared by its parts: files.c (control thread), files_thread.c (the
// loop), files_request.c (what is asked), files_lookup.c and files_list.c (what blocks on the
// store), files_read.c (bytes), nodes.c (which images the kernel knows).
// How it outlives an engine. The keeper has the descriptor of /dev/fuse. A successor is sent it, a
// memfd with what the kernel knows (files_state.h), and the images. It then has the kernel send
// again all that was read and not answered (FUSE_NOTIFY_RESEND, Linux 6.9). From that moment on the
// kernel refuses an answer of the engine before (ENOENT), so none is given twice. A request that
// comes again has the top bit set in its number, and so must have its answer.
//
// A node of the kernel's is a version of an image: its id is that of the keeper's record of the
// image, plus 2. An image that was replaced is another node, and engines agree about them. A name
// is looked up at each open; the image of a node is in use until the kernel has forgotten the node,
// whatever becomes of its file.
//
// Nothing of the engine's memory is ever a page of this file system, or it could wait for itself:
// it reads the store, never the mount. Nothing is written to it, so reclaim never waits for it.
#ifndef FAULTLINE_FILES_FILES_INTERNAL_H
#define FAULTLINE_FILES_FILES_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/base/io_pool.h"
#include "engine/base/mailbox.h"
#include "engine/files/files_options.h"
#include "engine/files/files_state.h"
#include "engine/files/protocol.h"

struct fl_image;

enum { FL_FILES_BUCKETS = 256, FL_FILES_CALLS_MOST = 1024, FL_FILES_FAILED = 32 };

// A version of an image that the kernel knows. The files' thread's, from the time it is in the
// table until it is mailed to the control thread, which frees it.
struct fl_files_node {
    struct cds_list_head in_bucket;
    struct fl_files *files;
    struct fl_files_entry *entry;
    struct fl_image *image; // a user of it (images.h); NULL: a successor still opens it
    int error;              // why that failed
    struct fl_mail mail;
};

// A request of the kernel's that is in hand. In fl_files.calls until it is freed; it may be
// answered before that, when its caller does not wait any more or has waited for too long.
struct fl_files_call {
    struct cds_list_head link;
    struct fl_files *files;
    uint64_t unique;
    pid_t tid; // who asks; 0: not of our PID namespace
    uint64_t since_ns;
    bool answered;
    bool signalled; // a signal has come for who asks: if it is SIGKILL, it waits for nothing
    // Called when the call was answered before its end, to free it as soon as that is possible.
    void (*leave)(struct fl_files_call *call);
    // Called when it has waited for too long, before it is answered with -EIO; NULL: nothing to do.
    void (*late)(struct fl_files_call *call);
};

// A range of pages that could not be had a moment ago: the kernel asks two or three times.
struct fl_files_failed {
    uint64_t node;
    uint64_t first;
    uint64_t end;
    uint64_t until_ns;
};

struct fl_files {
    struct fl_files_options options;
    int device;   // /dev/fuse; -1: none
    int state_fd; // likewise
    struct fl_files_state *state;
    atomic_bool refusing; // new files are not opened any more
    atomic_bool ended;    // the connection is gone
    bool running;         // control thread: the thread was started
    pthread_t thread;
    struct fl_mailbox mailbox; // to the files' thread
    struct fl_mail stop;
    struct fl_mail gone; // to the control thread: the connection is
    _Atomic uint64_t oldest_ns;
    _Atomic uint32_t calls_now;
    // The files' thread's:
    bool stopping;
    uint64_t now;
    struct cds_list_head calls; // in the order of their beginning
    struct cds_list_head node[FL_FILES_BUCKETS];
    struct fl_files_failed failed[FL_FILES_FAILED];
    unsigned next_failed;
    char *request;  // FL_FILES_REQUEST bytes
    uint8_t *zeros; // FL_FUSE_READ_MOST bytes, never written
};

enum { FL_FILES_REQUEST = 64 << 10 };

// --- files_request.c ---

// Acts on what was read of the device.
void fl_files_request(struct fl_files *files, const struct fuse_in_header *in, size_t bytes);
void fl_files_answer(struct fl_files *files, uint64_t unique, int error, const void *data,
                     size_t bytes);
// Notes what became of an answer; every one goes by here. True if the kernel has taken it.
bool fl_files_answered(struct fl_files *files, int result);

// The mode and owner of a file, and what else the kernel asks of it.
void fl_files_attr(const struct fl_files *files, const struct fl_files_entry *entry,
                   struct fuse_attr *ret_attr);

// --- calls ---

void fl_files_call_begin(struct fl_files *files, struct fl_files_call *call,
                         const struct fuse_in_header *in);
// Answers it, unless that was done. Does not free it.
void fl_files_call_answer(struct fl_files_call *call, int error, const void *data, size_t bytes);
void fl_files_call_end(struct fl_files_call *call); // the caller frees it
// Ends it if its caller was killed; true if so.
bool fl_files_call_leave_killed(struct fl_files_call *call);
// Of this number, resent or not; NULL: none.
struct fl_files_call *fl_files_call_find(struct fl_files *files, uint64_t unique);

// --- files_read.c ---

void fl_files_read(struct fl_files *files, const struct fuse_in_header *in,
                   const struct fuse_read_in *arg);
// READs of the node that waited for its image go on.
void fl_files_reads_go_on(struct fl_files *files, struct fl_files_node *node);
// READs that are to be tried again. FL_NEVER, or when there is one.
uint64_t fl_files_reads_due(struct fl_files *files);

// At the end, when the cache is gone: those whose waiters came too late.
void fl_files_reads_free(struct fl_files *files);

// --- files_lookup.c, files_list.c ---

void fl_files_lookup(struct fl_files *files, const struct fuse_in_header *in, const char *name);
void fl_files_list(struct fl_files *files, const struct fuse_in_header *in,
                   const struct fuse_read_in *arg);

// --- nodes.c ---

// Files' thread. NULL: the kernel knows no such image.
struct fl_files_node *fl_files_node_find(struct fl_files *files, uint64_t id);
// A node for an image that has a user for it. -ENFILE: too many are known already; -ENOMEM.
int fl_files_node_new(struct fl_files *files, uint64_t record, struct fl_image *image,
                      struct fl_files_node **ret_node);
// For each image that the state names: without an image yet. 0 or -ENOMEM.
int fl_files_nodes_adopt(struct fl_files *files);
void fl_files_node_forget(struct fl_files *files, uint64_t id, uint64_t lookups);
// At the end: all of them, by the thread that has the files then.
void fl_files_nodes_free(struct fl_files *files);

#endif
