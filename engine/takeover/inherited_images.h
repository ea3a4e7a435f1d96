// SPDX-License-Identifier: Apache-2.0
//
// Images that are being opened for VMs that another process served before, and the VMs that wait
// for them: those of the keeper's records from descriptors, others by name. Control thread.
#ifndef FAULTLINE_TAKEOVER_INHERITED_IMAGES_H
#define FAULTLINE_TAKEOVER_INHERITED_IMAGES_H

#include <urcu/list.h>

#include "engine/link/channel.h"

struct fl_engine;
struct fl_layout;
struct fl_vm;

// Embedded in what takes over.
struct fl_inherited_images {
    struct fl_engine *engine;
    struct cds_list_head list; // of inherited_images.c: one an image
};

void fl_inherited_images_init(struct fl_inherited_images *inherited, struct fl_engine *engine);

// One message of an image's record, or of a template's. Take the descriptors that they want (they
// are -1 after this).
void fl_inherited_images_add(struct fl_inherited_images *inherited,
                             const struct fl_message *message, int fds[FL_CHANNEL_FDS]);
void fl_inherited_images_add_template(struct fl_inherited_images *inherited,
                                      const struct fl_message *message, int fds[FL_CHANNEL_FDS]);
// Gives the VM, which is in no list, its image as soon as that is open.
void fl_inherited_images_wait(struct fl_inherited_images *inherited, struct fl_vm *vm);
// The same for one that no keeper has, whose image must fit it: else answer() is called with an
// error and a sentence, and the VM is forgotten. -ENOMEM, and then it is not called.
int fl_inherited_images_orphan(struct fl_inherited_images *inherited, struct fl_vm *vm,
                               void (*answer)(void *arg, int error, const char *text), void *arg);
// Answers what fl_inherited_images_orphan() would for a VM of that image and layout. -ENOMEM
// likewise.
int fl_inherited_images_check(struct fl_inherited_images *inherited, const char *image,
                              const struct fl_layout *layout,
                              void (*answer)(void *arg, int error, const char *text), void *arg);
// There are no more records: images that no VM needs go.
void fl_inherited_images_end(struct fl_inherited_images *inherited);
// When the server ends, before its engine: no VM waits any more. Templates and the keeper's records
// stay as they are.
void fl_inherited_images_stop(struct fl_inherited_images *inherited);

#endif
