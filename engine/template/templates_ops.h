// SPDX-License-Identifier: Apache-2.0
//
// What the templates of a server are given: what they work with, and what they ask of the rooms
// above them.
#ifndef FAULTLINE_TEMPLATE_TEMPLATES_OPS_H
#define FAULTLINE_TEMPLATE_TEMPLATES_OPS_H

#include <stdbool.h>
#include <stdint.h>

struct fl_images;
struct fl_io_pool;
struct fl_keeper_link;
struct fl_mailbox;
struct fl_template;

// What templates ask of those above them. Each is required and is called in the control thread,
// with the `arg` of the options; none may call fl_templates_free().
struct fl_templates_ops {
    // Opens a socket at `path` for VMs that map the image's template, and keeps it open until
    // close_door(). 0, or -errno with a sentence that is constant.
    int (*open_door)(void *arg, const char *image, const char *path, const char **ret_reason);
    // Closes that socket, which may be gone already. VMs that have connected are still served.
    void (*close_door)(void *arg, const char *path);
    // Follows when fl_template_ready() was false. With 0 or -ECANCELED the template may be sent to
    // the clients that wait for it, with another error it must not be: it cannot be read. It is
    // held during the call, which may hold, clone and give up templates, and may not ask for any.
    void (*ready)(void *arg, struct fl_template *template, int error);
    // True while no new VM is taken: a template that was asked for is not made then.
    bool (*refusing)(void *arg);
};

struct fl_templates_options {
    // All of these outlive the templates.
    struct fl_images *images;
    struct fl_keeper_link *keeper_link;
    struct fl_io_pool *io_pool; // its readers open images and go through templates
    struct fl_mailbox *control; // the control thread's
    const char *sockets;        // the directory of the images' sockets, and of templates' paths
    uint64_t limit_bytes;       // of memory; 0: a half of the host's
    const struct fl_templates_ops *ops;
    void *arg;
};

#endif
