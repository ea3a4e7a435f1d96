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
// A node of the kernel's is a version of an image. One that was replaced is another node, and
// engines agree about them. A name is looked up at each open. The image of a node is held while the
// file is open somewhere, whatever becomes of it in the store; a node that nobody has open costs no
// descriptor, and goes when there is no room: the kernel is told ESTALE, and looks the name up
// anew.
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
#include "engine/base/loop.h"
#include "engine/base/mailbox.h"
#include "engine/files/files_options.h"
#include "engine/files/files_state.h"
#include "engine/files/protocol.h"
#include "engine/image/images.h"
#include "snapshot/read.h"

struct fl_image;

// Of calls in hand most wait, and are small; FL_FILES_READS_MOST have their frames. Each is one of
// a thread that waits for its answer, or of the kernel's readahead, which protocol.c bounds: to
// have so many that nothing is read takes as many threads of users who may read the files, as does
// to fill the host's table of threads.
enum {
    FL_FILES_BUCKETS = 256,
    FL_FILES_CALLS_MOST = 1 << 16,
    FL_FILES_READS_MOST = 1024,
    FL_FILES_FAILED = 32,
    FL_FILES_WARMED = 64,
};

// A user of an image (images.h), which the control thread takes away.
struct fl_files_held {
    struct fl_mail mail;
    struct fl_files *files;
    struct fl_image *image; // NULL: none yet
};

// A version of an image that the kernel knows. The files' thread's.
struct fl_files_node {
    struct cds_list_head in_bucket;
    struct cds_list_head in_name;
    struct fl_files_entry *entry;
    struct fl_files_held *held; // NULL: nobody has it open, or a successor still opens the image
    int error;                  // why that failed
    unsigned opening;           // OPENs in hand
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

// An image that was brought into the page cache.
struct fl_files_warmed {
    struct fl_image_id id;
    uint64_t at_ns; // 0: none
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
    struct cds_list_head calls;                  // in the order of their beginning
    struct cds_list_head node[FL_FILES_BUCKETS]; // by id
    struct cds_list_head name[FL_FILES_BUCKETS];
    unsigned reads_now; // that have room for frames
    struct fl_files_failed failed[FL_FILES_FAILED];
    unsigned next_failed;
    char *request;  // FL_FILES_REQUEST bytes
    uint8_t *zeros; // FL_FUSE_READ_MOST bytes, never written
    // Control thread's: images that are brought into the page cache, or wait for their turn.
    struct cds_list_head warms;
    unsigned warms_running;
    struct fl_files_warmed warmed[FL_FILES_WARMED]; // the last ones
    unsigned next_warmed;
    struct fl_source mounts; // the kernel's list of them; -1: it is not watched
    bool hidden;             // the files are not mounted, though the connection is there
    // Readers':
    pthread_mutex_t names_lock;   // never held over I/O
    struct fl_files_names *names; // of the last listing; NULL: none yet
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

// --- files_lookup.c, files_open.c, files_list.c: what blocks on the store is a job for later, as a
// fault is not to wait for who lists it ---

void fl_files_lookup(struct fl_files *files, const struct fuse_in_header *in, const char *name);
void fl_files_open_file(struct fl_files *files, const struct fuse_in_header *in);
void fl_files_release(struct fl_files *files, const struct fuse_in_header *in);
// What a program is told: the image is there, and cannot be used now; or it is not there.
int fl_files_error_of(int error);
void fl_files_list(struct fl_files *files, const struct fuse_in_header *in,
                   const struct fuse_read_in *arg);
void fl_files_names_put(struct fl_files *files, struct fl_files_names *names); // NULL is a no-op

// --- files_warm.c ---

// Reader threads: blocks on storage. Whether there is a trace by which to warm the image.
bool fl_files_can_warm(const struct fl_files *files, const struct fl_image *image);
// Control thread. Has the working set of the image read into the page cache by another process,
// unless that is being done, or was just now.
void fl_files_warm(struct fl_files *files, const struct fl_image *image);
// Control thread. These processes are told to end, or left to a successor. The caller sees to it
// that none is started after this.
void fl_files_warm_end(struct fl_files *files);
void fl_files_warm_leave(struct fl_files *files);

// --- files_mounted.c: control thread ---

void fl_files_watch_mounts(struct fl_files *files);
void fl_files_unwatch_mounts(struct fl_files *files); // before the loop closes

// --- nodes.c ---

// Files' thread. NULL: the kernel knows no such image.
struct fl_files_node *fl_files_node_find(struct fl_files *files, uint64_t id);
// Whose image is the keeper's of this record; NULL: none.
struct fl_files_node *fl_files_node_of_record(struct fl_files *files, uint64_t record);
// The node of a version, which is made if the kernel knows none: one that nobody has open goes for
// it if there is no room. -ENFILE: all are open; -ENOMEM.
int fl_files_node_get(struct fl_files *files, const char *name, const struct fl_image_look *look,
                      struct fl_files_node **ret_node);
struct fl_files_version fl_files_version_of(const struct stat *file);
bool fl_files_same_version(const struct fl_files_version *a, const struct fl_files_version *b);
// Lets go of the image if nobody has the file open.
void fl_files_node_let_go(struct fl_files_node *node);
// For each that the state names: without an image yet. 0 or -ENOMEM.
int fl_files_nodes_adopt(struct fl_files *files);
void fl_files_node_forget(struct fl_files *files, uint64_t id, uint64_t lookups);
// At the end: all of them, by the thread that has the files then.
void fl_files_nodes_free(struct fl_files *files);

// NULL without memory.
struct fl_files_held *fl_files_held_new(struct fl_files *files);
// Any thread. Has the control thread take the user away, if there is one; NULL is a no-op.
void fl_files_held_put(struct fl_files_held *held);
// At the end, when there is no control thread to do it.
void fl_files_held_free(struct fl_files_held *held);

#endif
