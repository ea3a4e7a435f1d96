// SPDX-License-Identifier: Apache-2.0
//
// The options that all verbs share which run an engine, and what sockets are given.
#ifndef FAULTLINE_TOOLS_VERBS_SERVE_OPTIONS_H
#define FAULTLINE_TOOLS_VERBS_SERVE_OPTIONS_H

#include "engine/server/server.h"
#include "tools/cli/cli.h"

enum {
    SERVE_THREADS_MAX = 1024,
    SERVE_SPIN_MAX = 1000000,
    SERVE_RETRIES_MAX = 8,
    SERVE_PREFETCH_MAX = 512
};
enum { HOUR_MS = 3600 * 1000 };

// Values of CLI_OTHER: a bool for those that are on or off, a uint64_t for --cache, an int for
// --nice, struct fl_engine_options for --on-error, enum fl_admission for
// --huge-page-admission, struct fl_socket_access for the others.
const char *take_cache(void *bytes, const char *text);
const char *take_nice(void *nice, const char *text);
const char *take_on_error(void *engine, const char *text);
const char *take_admission(void *admission, const char *text);
const char *take_on_off(void *flag, const char *text);
// USER:GROUP, numbers or names.
const char *take_owner(void *access, const char *text);
const char *take_mode(void *access, const char *text);

// Entries of a struct cli_option[], for a struct fl_server_options *.
#define SERVE_OPTIONS(SERVER)                                                                      \
    CLI_COUNT("workers", &(SERVER)->engine.workers, 1, SERVE_THREADS_MAX),                         \
        CLI_COUNT("readers", &(SERVER)->engine.readers, 1, SERVE_THREADS_MAX),                     \
        CLI_OTHER("cache", take_cache, &(SERVER)->engine.cache_bytes),                             \
        CLI_SIZE("template-bytes", &(SERVER)->engine.template_bytes),                              \
        CLI_COUNT("spin", &(SERVER)->engine.spin_us, 0, SERVE_SPIN_MAX),                           \
        CLI_COUNT("prefetch", &(SERVER)->engine.prefetch_pages, 0, SERVE_PREFETCH_MAX),            \
        CLI_SIZE("prefetch-vm", &(SERVER)->engine.prefetch_vm_bytes),                              \
        CLI_SIZE("prefetch-host", &(SERVER)->engine.prefetch_host_bytes),                          \
        CLI_OTHER("nice", take_nice, &(SERVER)->engine.nice),                                      \
        CLI_OTHER("on-error", take_on_error, &(SERVER)->engine),                                   \
        CLI_COUNT("retries", &(SERVER)->engine.read_retries, 0, SERVE_RETRIES_MAX),                \
        CLI_NUMBER("read-timeout", &(SERVER)->engine.read_timeout_ms, 1, HOUR_MS),                 \
        CLI_NUMBER("handshake-timeout", &(SERVER)->engine.handshake_timeout_ms, 1, HOUR_MS),       \
        CLI_NUMBER("stop-timeout", &(SERVER)->engine.stop_timeout_ms, 0, HOUR_MS),                 \
        CLI_OTHER("replay", take_on_off, &(SERVER)->engine.replay),                                \
        CLI_SIZE("replay-max", &(SERVER)->engine.replay_bytes),                                    \
        CLI_COUNT("replay-reserve", &(SERVER)->engine.replay_reserve, 0, 100),                     \
        CLI_OTHER("huge-page-admission", take_admission, &(SERVER)->engine.admission),             \
        CLI_FLAG("allow-part", &(SERVER)->engine.allow_part),                                      \
        CLI_OTHER("owner", take_owner, &(SERVER)->access),                                         \
        CLI_OTHER("mode", take_mode, &(SERVER)->access)

#define SERVE_OPTIONS_HELP                                                                         \
    "  --workers N             threads that serve faults (default: one a core)\n"                  \
    "  --readers N             threads that read and decompress (default: one a core, at least "   \
    "4)\n"                                                                                         \
    "  --cache SIZE            bound on decompressed frames in memory (default 1G, at least "      \
    "64K)\n"                                                                                       \
    "  --template-bytes SIZE   bound on the memory of templates (default: a half of the host's)\n" \
    "  --spin US               look this long for the next fault before blocking (default 50)\n"   \
    "  --prefetch PAGES        install so many at once when a VM sweeps its memory; 0: never "     \
    "(default 16)\n"                                                                               \
    "  --prefetch-vm SIZE      of a VM, at most so much that it may not need (default 16M)\n"      \
    "  --prefetch-host SIZE    ... of all VMs (default 1G)\n"                                      \
    "  --nice N                priority of those threads, -20 to 19, where we may (default -10)\n" \
    "  --on-error POLICY       for a page that cannot be had: poison (SIGBUS to its toucher), "    \
    "kill "                                                                                        \
    "(SIGKILL\n"                                                                                   \
    "                          to the VM), or auto: kill where a guest runs under KVM, else "      \
    "poison\n"                                                                                     \
    "                          (default auto)\n"                                                   \
    "  --retries N             attempts after a read that failed (default 4)\n"                    \
    "  --read-timeout MS       give up a page that is still being read (default 30000)\n"          \
    "  --handshake-timeout MS  for a peer to say what it wants (default 5000)\n"                   \
    "  --stop-timeout MS       for filling VMs at the end before they are killed (default "        \
    "60000)\n"                                                                                     \
    "  --replay on|off         stream the working sets of images that have a trace in, ahead of "  \
    "touches\n"                                                                                    \
    "                          (default on)\n"                                                     \
    "  --replay-max SIZE       of each VM at most so much (default: all of its trace)\n"           \
    "  --replay-reserve N      pause while less than N percent of the host's memory, or of its "   \
    "huge pages,\n"                                                                                \
    "                          is available (default 5)\n"                                         \
    "  --huge-page-admission off|warn|refuse\n"                                                    \
    "                          a VM whose working set (its image's trace, or all that is not "     \
    "zero) the\n"                                                                                  \
    "                          pool of 2 MiB pages cannot hold with what others still need: a "    \
    "line in the\n"                                                                                \
    "                          log (default), or no VM\n"                                          \
    "  --allow-part            take VMs that have a part of their image only (default: those "     \
    "whose "                                                                                       \
    "client says so)\n"                                                                            \
    "  --owner USER:GROUP      owner of the images' sockets, names or numbers\n"                   \
    "  --mode OCTAL            their mode (default 660)\n"

void serve_options_init(struct fl_server_options *options);

#endif
