// SPDX-License-Identifier: Apache-2.0
//
// What the parts of templates.h share: the table (templates.c), the life of one (template_life.c),
// what is asked for (template_order.c), the path of one (template_link.c), what is said of them
// (templates_json.c). Control thread, but for the atomics.
#ifndef FAULTLINE_TEMPLATE_TEMPLATES_INTERNAL_H
#define FAULTLINE_TEMPLATE_TEMPLATES_INTERNAL_H

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <urcu/compiler.h>
#include <urcu/list.h>

#include "engine/base/io_pool.h"
#include "engine/base/mailbox.h"
#include "engine/template/template.h"
#include "engine/template/templates_ops.h"
#include "snapshot/read.h"

enum { FL_TEMPLATE_REASON_BYTES = 160 };

struct fl_templates {
    struct fl_template_shared shared;
    struct fl_templates_options options;
    struct cds_list_head list;
    struct cds_list_head orders;
};

// Moves: OPENING > CANCELLED, OPENING > FAILED. An order that is fulfilled is freed, and so is a
// cancelled one when its reader's mail is back, and a failed one when it is asked for anew or not
// wanted any more.
enum fl_template_order_state {
    FL_TEMPLATE_ORDER_OPENING,   // a reader opens the image
    FL_TEMPLATE_ORDER_CANCELLED, // the same, and the template is not wanted any more
    FL_TEMPLATE_ORDER_FAILED,    // `reason` says why, for the status
};

// A template was asked for, and is not there yet.
struct fl_template_order {
    struct cds_list_head link;
    struct fl_templates *templates;
    char image[FL_NAME_MAX + 1];
    bool complete;
    enum fl_template_order_state state;
    char reason[FL_TEMPLATE_REASON_BYTES]; // why it failed
    struct fl_image *opened;
    int error;
    struct fl_io_job job;
    struct fl_mail mail;
};

static inline struct fl_templates *fl_template_table(const struct fl_template *template)
{
    return caa_container_of(template->shared, struct fl_templates, shared);
}

// --- template_life.c ---

// It was asked for: it stays without clones. A second call does nothing.
void fl_template_pin(struct fl_template *template);
// Its socket and its path go, and so does the template if nothing needs it: the caller must not
// use it after this.
void fl_template_unpin(struct fl_template *template);
// Opens the socket of a pinned one; 0 or -errno with a sentence that is constant.
int fl_template_open_door(struct fl_template *template, const char **ret_reason);
// Has all of it filled, now or when the reader that looks at it is through.
void fl_template_want_complete(struct fl_template *template);
// Calls back ready(), which fl_template_ready() has promised.
void fl_template_tell_ready(struct fl_template *template, int error);

// --- templates_json.c ---

const char *fl_template_strerror(int error);

// --- template_link.c ---

// Where something of its image is, beside the images' sockets; false if that is too long.
bool fl_template_path(const struct fl_template *template, const char *suffix, char path[PATH_MAX]);
// The path for processes that map the file themselves: leads to us from now on, or not any more.
void fl_template_link(struct fl_template *template);
// Again if it is gone, or leads nowhere.
void fl_template_link_look(struct fl_template *template);
void fl_template_unlink(struct fl_template *template);

#endif
