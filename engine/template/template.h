// SPDX-License-Identifier: Apache-2.0
//
// A template: an image in one memfd that many VMs map privately, so that a page which one of them
// has touched is there for all.
//
// A VM's fault on a hole is answered by filling the memfd and waking the VM. It is filled by
// UFFDIO_COPY into a mapping of our own, which makes a page appear whole or not at all, once,
// however many threads fill it; a write() does not (it shows zeros for a moment when the source is
// not in memory, and makes larger folios than was asked for where the host allows them). A page
// that cannot be had in this way (the bound on memory, no memory) is copied into the VM alone:
// templates save memory, and nothing depends on them.
//
// Theory of operation.
//
// Three things say what is true of a template. Its memfd and its bits (template_state.h) outlive
// the engine: a bit is set after its page is there, so a page without a bit may be there, and is
// compared before it is trusted. The flags beside them say what was asked for (PINNED, COMPLETE)
// and that it is SEALED, after which neither memfd nor bits change. The stage (template_stage.h) is
// of this process: what a reader thread does with it now.
//
// Threads: the control thread owns the template and its place in the table. Workers fill pages of
// VMs that map it, a reader fills or compares pages (template_pass.c); these touch what is
// constant, the state's atomics, and the reader its own struct fl_template_pass. Two threads that
// fill one page are told apart by the kernel: UFFDIO_COPY makes it once, and the other one gets
// -EEXIST.
//
// References, all counted in the control thread, which alone takes them and gives them up:
// `clones`, one for each VM that maps it, from its attaching until fl_vm_dispose(), so that a
// worker may use it for as long as it has the VM; `holds`, one for being pinned, one for each
// connection that waits for it or was sent it, one while a predecessor's VMs are still to come. The
// reader that goes through it has none: a template that is not RESTING stays until that reader's
// mail is back. With no reference and no reader it leaves the table, and a reader frees it
// (template_life.c).
//
// Control thread, unless a function says otherwise.
#ifndef FAULTLINE_TEMPLATE_TEMPLATE_H
#define FAULTLINE_TEMPLATE_TEMPLATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/base/io_pool.h"
#include "engine/base/mailbox.h"
#include "engine/template/budget.h"
#include "engine/template/template_stage.h"
#include "engine/template/template_state.h"
#include "snapshot/read.h"

// What the templates of a server share. Constant but for the atomics; any thread.
struct fl_template_shared {
    struct fl_template_budget budget;
    struct fl_io_pool *io_pool; // its readers go through templates
    struct fl_mailbox *control; // where a reader's mail goes
    _Atomic bool ending;        // readers that go through a template end soon
};

#define FL_TEMPLATE_FRAME_BYTES ((size_t)FL_FRAME_PAGES_MAX << FL_PAGE_SHIFT)

// What a reader goes through it for.
enum fl_template_goal {
    FL_TEMPLATE_CHECK, // pages that are there and that we have not filled
    FL_TEMPLATE_FILL,  // all of it, and then to seal it
};

// What a reader that goes through a template works with. The reader's from fl_template_pass_start()
// until its mail is delivered, else the control thread's; but for `cancel`.
struct fl_template_pass {
    enum fl_template_goal goal;
    _Atomic bool cancel; // the template is not needed: the reader ends soon
    uint64_t next;       // page
    uint8_t *frame;      // FL_TEMPLATE_FRAME_BYTES of fl_dontdump_map(); NULL: none
    struct fl_frame_id frame_id;
    bool frame_read; // the frame has the bytes of frame_id
    unsigned attempts;
    int error; // 0; -ECANCELED: it ended before it was through
    struct fl_io_job job;
    struct fl_mail mail;
};

struct fl_template {
    // Constant.
    uint64_t id; // the keeper's record, and that of its image
    struct fl_template_shared *shared;
    int memory;   // the memfd, and
    int readable; // one that cannot write, for clients
    int state_fd;
    int uffd;        // by which it is filled; -1: it was sealed when we got it
    uint64_t window; // where it is mapped for that, or was: its addresses are ours until it is
                     // freed; 0: it was never mapped
    struct fl_template_state *state;
    _Atomic uint64_t *filled;

    // Control thread.
    struct cds_list_head link;
    enum fl_template_stage stage;
    struct fl_image *image; // NULL until a predecessor's was opened
    unsigned clones;
    unsigned holds;      // of all others that need it
    uint64_t clones_all; // ever
    bool linked;         // its path is there
    int error;           // why it could not be filled as was asked

    struct fl_template_pass pass;
};

// --- pages: any thread ---

static inline bool fl_template_has(const struct fl_template *template, uint64_t page)
{
    return page < template->state->pages &&
           (atomic_load_explicit(&template->filled[page / 64], memory_order_acquire) >>
            (page % 64)) &
               1;
}

// How many pages from `page` on are there, at most `count`; from which on one is not, up to end.
uint64_t fl_template_there(const struct fl_template *template, uint64_t page, uint64_t count);
uint64_t fl_template_next_hole(const struct fl_template *template, uint64_t page);
// The first page of [page, end) that is there; end if none is.
uint64_t fl_template_next(const struct fl_template *template, uint64_t page, uint64_t end);

// Puts the image's bytes there (NULL: zeros). How many pages, from the first on, are there now; 0:
// the VM must have them privately. Never blocks on storage.
uint64_t fl_template_fill(struct fl_template *template, uint64_t page, const void *from,
                          uint64_t count);
// The page is there, but not by us: makes sure that it is the image's.
bool fl_template_check(struct fl_template *template, uint64_t page, const void *from);
// Pages are there that we have not filled, or are just being filled.
bool fl_template_suspect(const struct fl_template *template);
bool fl_template_sealed(const struct fl_template *template);

// --- making one; what it has is closed by fl_template_free() ---

int fl_template_new(struct fl_template_shared *shared, uint64_t id, const char *image,
                    uint64_t pages, struct fl_template **ret_template);
// Of a predecessor's descriptors, which it takes only if there is no error.
int fl_template_open(struct fl_template_shared *shared, uint64_t id, int memory, int state_fd,
                     struct fl_template **ret_template);
// Any thread, when no other uses it any more. Unmapping takes its time.
void fl_template_free(struct fl_template *template);
// Ends the filling; after that no process can write to it. -EBUSY: another one still could.
int fl_template_seal(struct fl_template *template);

#endif
