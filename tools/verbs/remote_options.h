// SPDX-License-Identifier: Apache-2.0
//
// What verbs that work on a bucket share: its options, and the program that does the work. libcurl
// and what that brings is loaded only there (tools/remote/).
#ifndef FAULTLINE_TOOLS_VERBS_REMOTE_OPTIONS_H
#define FAULTLINE_TOOLS_VERBS_REMOTE_OPTIONS_H

#include "tools/cli/option.h"

struct remote_options {
    const char *url; // of --to, --from or --remote
    const char *endpoint, *region, *style, *ca_file, *credentials, *profile;
    uint64_t timeout_ms, retry_for_ms;
};

extern const struct cli_option remote_server_options[]; // all but the URL

// --remote and all others, for a verb that works on a store otherwise.
#define REMOTE_OPTIONS(TYPE, MEMBER)                                                               \
    CLI_TEXT(TYPE, MEMBER.url, .name = "remote", .value = "URL", .otherwise = "the store",         \
             .help = "work on the remote store s3://BUCKET/PREFIX instead (docs/remote.md)"),      \
        CLI_GROUP(TYPE, MEMBER, remote_server_options)

// Becomes that program. extra: "NAME=VALUE" or NULL entries, as tools/remote/remote.c reads them.
// Returns only if it cannot be run: an exit status, after a sentence.
int remote_run(const char *verb, const struct remote_options *options, const char *const *extra,
               int extra_count, char *const *images, int images_count);

#endif
