// SPDX-License-Identifier: Apache-2.0
//
// What is known of a client's capture of a VM: see capture_session.h.
#ifndef FAULTLINE_ACCEPT_CAPTURE_SESSION_STATE_H
#define FAULTLINE_ACCEPT_CAPTURE_SESSION_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/base/image_name.h"
#include "engine/base/loop.h"
#include "engine/base/mailbox.h"
#include "engine/vm/capture_state.h"

struct fl_capture_session;
struct fl_engine;

// What a worker is ordered to do.
enum fl_capture_order {
    FL_CAPTURE_ORDER_BEGIN,
    FL_CAPTURE_ORDER_FREEZE,
    FL_CAPTURE_ORDER_COMMIT,
    FL_CAPTURE_ORDER_CANCEL,
    FL_CAPTURE_ORDER_FORGET, // of one that is KEPT
};

// Mail of what a worker tells: each phase once.
struct fl_capture_told {
    struct fl_mail mail;
    struct fl_capture_session *session;
};

// Control thread, but for what says otherwise.
struct fl_capture_session {
    // Constant:
    struct fl_engine *engine;
    struct fl_loop *loop;
    struct cds_list_head *all; // the list that it is in
    uint64_t vm;               // not the VM: it may be gone first
    char image[FL_IMAGE_NAME_BYTES];
    uint64_t since_ns;
    struct fl_capture *capture; // held
    // What has come from the worker (capture_order.h).
    void (*told)(struct fl_capture_session *session, enum fl_capture_phase phase);
    void (*order_is_back)(struct fl_capture_session *session);

    struct fl_source source; // .fd -1: the client has gone, or was told the end
    struct cds_list_head link;
    enum fl_capture_phase phase; // that its worker has told last
    bool begun;                  // and the client was told so
    bool committed;              // the client has published the image
    bool failed;                 // it is being undone, or was
    bool settled;                // its worker tells nothing any more
    bool forgotten;              // it was KEPT, and is not to be known of any more

    // An order that is with a worker is the worker's to read.
    struct fl_mail order_mail;
    enum fl_capture_order order;
    bool order_out;
    char published[FL_CAPTURE_PARENT]; // for COMMIT: "CONTENTID NAME"
    bool undo_wanted;                  // as soon as the order that is out is back
    int undo_error;                    // for CANCEL
    char undo_reason[FL_CAPTURE_REASON];

    // Its worker's, until it is mailed.
    struct fl_capture_told mail[FL_CAPTURE_FAILED + 1];
    int error;
    char reason[FL_CAPTURE_REASON];
};

#endif
