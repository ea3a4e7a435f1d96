// SPDX-License-Identifier: Apache-2.0
//
// The options of the verbs that run an engine, and the options that say who may use a socket.
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

// Read the value of a CLI_OTHER option (see `take` in struct cli_option). The first argument is a
// uint64_t for --cache, an int for --nice, a struct fl_engine_options for --on-error, an enum
// fl_admission for --huge-page-admission, a bool for an option that is on or off, and a struct
// fl_socket_access for --owner and --mode.
const char *take_cache(void *bytes, const char *text);
const char *take_nice(void *nice, const char *text);
const char *take_on_error(void *engine, const char *text);
const char *take_admission(void *admission, const char *text);
const char *take_on_off(void *flag, const char *text);
const char *take_owner(void *access, const char *text);
const char *take_mode(void *access, const char *text);

// Entries of a struct cli_option[] that write into a struct fl_server_options *.
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

// The help of these options. It is a part of the help of `serve`, which must stay below 4096 bytes:
// a compiler of ISO C need not take a longer string.
#define SERVE_OPTIONS_HELP                                                                         \
    "  --workers N             threads that serve faults (default: one a core)\n"                  \
    "  --readers N             threads that read and decompress (default: one a core,\n"           \
    "                          at least 4)\n"                                                      \
    "  --cache SIZE            limit of decompressed frames (default 1G, at least 64K)\n"          \
    "  --template-bytes SIZE   limit of the memory of templates (default: half of the\n"           \
    "                          host's)\n"                                                          \
    "  --spin US               how long a worker looks for the next fault before it\n"             \
    "                          sleeps (default 50)\n"                                              \
    "  --prefetch PAGES        pages to install at once when a VM sweeps its memory;\n"            \
    "                          0 turns this off (default 16)\n"                                    \
    "  --prefetch-vm SIZE      limit of such pages that a VM may not need (default 16M)\n"         \
    "  --prefetch-host SIZE    the same for all VMs together (default 1G)\n"                       \
    "  --nice N                priority of the workers, -20 to 19, if the process may\n"           \
    "                          set it (default -10)\n"                                             \
    "  --on-error POLICY       what to do if a page cannot be had. poison: a process\n"            \
    "                          that touches it gets SIGBUS. kill: the VM gets SIGKILL.\n"          \
    "                          auto: kill if a guest runs under KVM, else poison\n"                \
    "                          (default auto)\n"                                                   \
    "  --retries N             attempts after a read that failed (default 4)\n"                    \
    "  --read-timeout MS       how long to wait for a page (default 30000)\n"                      \
    "  --handshake-timeout MS  how long to wait for a handshake (default 5000)\n"                  \
    "  --stop-timeout MS       at the end, how long to fill VMs before they are killed\n"          \
    "                          (default 60000)\n"                                                  \
    "  --replay on|off         install the working set of an image that has a trace\n"             \
    "                          ahead of the VM's touches (default on)\n"                           \
    "  --replay-max SIZE       limit of such pages for each VM (default: all)\n"                   \
    "  --replay-reserve N      pause this while less than N percent of the host's\n"               \
    "                          memory, or of its huge pages, is available (default 5)\n"           \
    "  --huge-page-admission off|warn|refuse\n"                                                    \
    "                          what to do with a VM if the pool of 2 MiB pages cannot\n"           \
    "                          hold its working set beside what others still need:\n"              \
    "                          nothing, a line in the log, or refuse it (default warn)\n"          \
    "  --allow-part            take VMs that map only a part of their image, even if\n"            \
    "                          the handshake does not say so\n"                                    \
    "  --owner USER:GROUP      owner of the images' sockets, as names or numbers\n"                \
    "  --mode OCTAL            mode of the images' sockets (default 660)\n"

// Sets the defaults.
void serve_options_init(struct fl_server_options *options);

#endif
