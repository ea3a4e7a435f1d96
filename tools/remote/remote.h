// SPDX-License-Identifier: Apache-2.0
//
// The program that works on buckets for the verbs of the command (tools/verbs/remote_options.h). It
// is a program of its own, so that the command, which runs as root beside VMs, loads nothing that
// speaks to the network. Main thread.
#ifndef FAULTLINE_TOOLS_REMOTE_REMOTE_H
#define FAULTLINE_TOOLS_REMOTE_REMOTE_H

#include "snapshot/remote/remote.h"

struct remote_arguments {
    const char *verb;
    const char *url;
    const char *store;
    struct fl_s3_config config;
    bool json, names, replace, trust_store, dry_run, quick;
    char **images;
    int images_count;
};

// Each returns an exit status, and has printed what there is to say.
int remote_push(struct fl_remote *remote, const struct remote_arguments *args);
int remote_pull(struct fl_remote *remote, const struct remote_arguments *args);
int remote_ls(struct fl_remote *remote, const struct remote_arguments *args);
int remote_rm(struct fl_remote *remote, const struct remote_arguments *args);
int remote_gc(struct fl_remote *remote, const struct remote_arguments *args);
int remote_verify(struct fl_remote *remote, const struct remote_arguments *args);

#endif
