// SPDX-License-Identifier: Apache-2.0
//
// The templates of a server: which there are, which were asked for, what they may cost together.
// Control thread, unless a function says otherwise.
#ifndef FAULTLINE_TEMPLATE_TEMPLATES_H
#define FAULTLINE_TEMPLATE_TEMPLATES_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/template/templates_ops.h"

struct fl_image;
struct fl_template;
struct fl_templates;
struct json_t;

struct fl_templates_stats {
    unsigned templates;
    uint64_t bytes; // filled
    uint64_t limit;
    uint64_t clones;
    uint64_t repaired;
    uint64_t refused; // pages that went to VMs privately
};

int fl_templates_new(const struct fl_templates_options *options,
                     struct fl_templates **ret_templates);
// Readers that go through one end soon.
void fl_templates_stop(struct fl_templates *templates);
// After the readers. Removes paths that are ours; NULL is a no-op.
void fl_templates_free(struct fl_templates *templates);

// --- asking for one ---

// Has one made, unless there is one of the image as it is now, and keeps it until
// fl_templates_unpin() or the end of the image; `complete`: has all of it filled. It may take a
// while: what becomes of it is in fl_templates_json(). -ENOMEM.
int fl_templates_ask(struct fl_templates *templates, const char *image, bool complete);
// Takes that back; false if none of that image was asked for.
bool fl_templates_unpin(struct fl_templates *templates, const char *image);
// Lets go of those whose images were removed from the store or replaced.
void fl_templates_follow(struct fl_templates *templates);
// {"bytes": .., "limit": .., "list": [TEMPLATE...]}
struct json_t *fl_templates_json(const struct fl_templates *templates);
struct fl_templates_stats fl_templates_stats(const struct fl_templates *templates);

// --- clones ---

// The pinned one of the image, which a client that connects for it gets; NULL: none.
struct fl_template *fl_templates_find(struct fl_templates *templates, const char *image);
// That of the keeper's record; NULL: none (any more). `templates` may be NULL.
struct fl_template *fl_templates_of_record(struct fl_templates *templates, uint64_t record);
// Adds a hold: it stays while there is one. Takes it away: the template may be gone after that.
void fl_template_hold(struct fl_template *template);
void fl_template_unhold(struct fl_template *template);
// The same for a VM that maps it.
void fl_template_clone(struct fl_template *template);
void fl_template_unclone(struct fl_template *template);
// False while pages of it are looked at that a client may have made, or its image is still to be
// opened: the callback ready() follows.
bool fl_template_ready(struct fl_template *template);

// --- from a predecessor, and for a successor ---

// Its descriptors: those that it takes are -1 after this. True if there is one: it is held until
// fl_templates_settle().
bool fl_templates_adopt(struct fl_templates *templates, uint64_t id, int fds[]);
// Its image was opened (NULL: it cannot be).
void fl_templates_image_opened(struct fl_templates *templates, uint64_t id, struct fl_image *image);
// All VMs that it has are there.
void fl_templates_settle(struct fl_templates *templates, uint64_t id);
// We serve from now on: their paths lead to us.
void fl_templates_serve(struct fl_templates *templates);
// Paths that were removed come back. NULL is a no-op.
void fl_templates_look(struct fl_templates *templates);
// Has a new keeper hold them all.
void fl_templates_keep_all(struct fl_templates *templates);

#endif
