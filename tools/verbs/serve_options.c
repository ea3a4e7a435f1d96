// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/serve_options.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/log.h"
#include "engine/base/tcp_socket.h"
#include "tools/cli/cli.h"

enum {
    NAME_MAX_BYTES = 256,
    CACHE_LEAST = 64 << 10,
    THREADS_MOST = 1024,
    SPIN_MOST = 1000000,
    RETRIES_MOST = 8,
    PREFETCH_MOST = 512
};

void serve_options_init(struct fl_server_options *options)
{
    *options = (struct fl_server_options){
        .engine = fl_engine_defaults,
        .channel = -1,
        .access = {.uid = (uid_t)-1, .gid = (gid_t)-1},
        .api = {.control_access = {.uid = (uid_t)-1, .gid = (gid_t)-1},
                .observe_access = {.uid = (uid_t)-1, .gid = (gid_t)-1}},
    };
}

static bool find_user(const char *name, uid_t *ret_uid)
{
    uint64_t number = 0;
    const struct passwd *user = NULL;
    if (cli_parse_number(name, 0, UINT32_MAX - 1, &number) == 0) {
        *ret_uid = (uid_t)number;
        return true;
    }
    if (*name != '\0')
        user = getpwnam(name);
    if (user)
        *ret_uid = user->pw_uid;
    return user != NULL;
}

static bool find_group(const char *name, gid_t *ret_gid)
{
    uint64_t number = 0;
    const struct group *group = NULL;
    if (cli_parse_number(name, 0, UINT32_MAX - 1, &number) == 0) {
        *ret_gid = (gid_t)number;
        return true;
    }
    if (*name != '\0')
        group = getgrnam(name);
    if (group)
        *ret_gid = group->gr_gid;
    return group != NULL;
}

const char *take_owner(void *arg, const char *text)
{
    struct fl_socket_access *access = arg;
    char user[NAME_MAX_BYTES];
    const char *colon = strchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof(user))
        return "is not USER:GROUP";
    memcpy(user, text, (size_t)(colon - text));
    user[colon - text] = '\0';
    uid_t uid = 0;
    if (!find_user(user, &uid))
        return "names a user that does not exist";
    if (!find_group(colon + 1, &access->gid))
        return "names a group that does not exist";
    access->uid = uid;
    return NULL;
}

const char *take_mode(void *arg, const char *text)
{
    struct fl_socket_access *access = arg;
    char *end = NULL;
    unsigned long mode = strtoul(text, &end, 8);
    if (strspn(text, "01234567") != strlen(text) || *text == '\0' || mode > 0777)
        return "is not an octal mode from 0 to 777";
    access->mode = (mode_t)mode;
    return NULL;
}

// A cache that is smaller than a frame could keep nothing.
const char *take_cache(void *arg, const char *text)
{
    uint64_t *bytes = arg;
    if (cli_parse_size(text, bytes) < 0)
        return "is not a size, such as 512M or 4G";
    return *bytes < CACHE_LEAST ? "is less than 64K, which is one frame" : NULL;
}

const char *take_nice(void *arg, const char *text)
{
    int *nice = arg;
    uint64_t number = 0;
    bool negative = text[0] == '-';
    if (cli_parse_number(text + negative, 0, negative ? 20 : 19, &number) != 0)
        return "is not a number from -20 to 19";
    *nice = negative ? -(int)number : (int)number;
    return NULL;
}

const char *take_on_error(void *arg, const char *text)
{
    struct fl_engine_options *engine = arg;
    return fl_policy_parse(text, &engine->on_error) ? NULL : "is neither auto, poison nor kill";
}

const char *take_log_level(void *arg, const char *text)
{
    enum fl_log_level *level = arg;
    return fl_log_parse_level(text, level) ? NULL : "is neither error, warning, info nor debug";
}

const char *take_admission(void *arg, const char *text)
{
    static const char *const names[] = {
        [FL_ADMISSION_OFF] = "off", [FL_ADMISSION_WARN] = "warn", [FL_ADMISSION_REFUSE] = "refuse"};
    enum fl_admission *admission = arg;
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *admission = (enum fl_admission)i;
            return NULL;
        }
    }
    return "is neither off, warn nor refuse";
}

const char *take_huge(void *arg, const char *text)
{
    return fl_huge_parse(text, arg) ? NULL : "is neither off nor after-replay";
}

const char *take_seccomp(void *arg, const char *text)
{
    static const char *const names[] = {
        [FL_CALL_FILTER_ON] = "on", [FL_CALL_FILTER_OFF] = "off", [FL_CALL_FILTER_LOG] = "log"};
    enum fl_call_filter_mode *mode = arg;
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *mode = (enum fl_call_filter_mode)i;
            return NULL;
        }
    }
    return "is neither on, off nor log";
}

const char *take_on_off(void *arg, const char *text)
{
    bool *flag = arg;
    *flag = strcmp(text, "on") == 0;
    return *flag || strcmp(text, "off") == 0 ? NULL : "is neither on nor off";
}

const char *take_orders(void *arg, const char *text)
{
    bool *group_orders = arg;
    *group_orders = strcmp(text, "group") == 0;
    return *group_orders || strcmp(text, "owner") == 0 ? NULL : "is neither owner nor group";
}

// Where it may be a path, a path has a slash: what has none, and is no address, is a mistake.
const char *take_metrics(void *arg, const char *text)
{
    const char **place = arg;
    struct fl_tcp_address address;
    *place = text;
    return strchr(text, '/') || fl_tcp_parse(text, &address)
               ? NULL
               : "is neither an address and a port, such as 127.0.0.1:9642, [::1]:9642 or :9642, "
                 "nor the path of a socket";
}

const struct cli_option api_options[] = {
    CLI_OTHER(struct fl_control_options, control_access, take_owner, .name = "control-owner",
              .value = "USER:GROUP", .otherwise = "that of the process",
              .help = "owner of the control socket, as names or numbers"),
    CLI_OTHER(struct fl_control_options, control_access, take_mode, .name = "control-mode",
              .value = "OCTAL", .preset = "600",
              .help = "mode of the control socket: it says which users may connect, and so read"),
    CLI_OTHER(struct fl_control_options, group_orders, take_orders, .name = "control-orders",
              .value = "owner|group", .choices = "owner|group", .preset = "owner",
              .help = "whether the group of the control socket may give orders, too, and not only "
                      "root, the server's own user and the socket's owner"),
    CLI_TEXT(struct fl_control_options, place[FL_DOOR_OBSERVE], .name = "observe", .value = "PATH",
             .hint = CLI_FILE, .otherwise = "none",
             .help = "a socket at which all can be read and nothing can be ordered"),
    CLI_OTHER(struct fl_control_options, place[FL_DOOR_METRICS], take_metrics, .name = "metrics",
              .value = "ADDRESS:PORT|PATH", .otherwise = "none",
              .help =
                  "where /metrics, /healthz and /readyz alone can be read: 127.0.0.1:9642, "
                  "[::1]:9642, :9642 for every address of the host, or a socket; the unit allows "
                  "an address only with a drop-in (docs/security.md)"),
    CLI_OTHER(struct fl_control_options, observe_access, take_owner, .name = "observe-owner",
              .value = "USER:GROUP", .otherwise = "that of the process",
              .help = "owner of the sockets of --observe and --metrics"),
    CLI_OTHER(struct fl_control_options, observe_access, take_mode, .name = "observe-mode",
              .value = "OCTAL", .preset = "660", .help = "mode of these sockets"),
    CLI_END,
};

const struct cli_option engine_options[] = {
    CLI_COUNT(struct fl_server_options, engine.workers, .name = "workers", .value = "N", .low = 1,
              .high = THREADS_MOST, .otherwise = "one a core", .help = "threads that serve faults"),
    CLI_COUNT(struct fl_server_options, engine.readers, .name = "readers", .value = "N", .low = 1,
              .high = THREADS_MOST, .otherwise = "one a core, at least 4",
              .help = "threads that read and decompress"),
    CLI_OTHER(struct fl_server_options, engine.cache_bytes, take_cache, .name = "cache",
              .value = "SIZE", .preset = "1G",
              .help = "limit of decompressed frames, at least 64K"),
    CLI_SIZE(struct fl_server_options, engine.template_bytes, .name = "template-bytes",
             .value = "SIZE", .otherwise = "half of the host's",
             .help = "limit of the memory of templates"),
    CLI_SIZE(struct fl_server_options, engine.capture_bytes, .name = "capture-bytes",
             .value = "SIZE", .otherwise = "a quarter of what is free when a capture begins",
             .help = "limit of the memory for pages that captures have copied and that are not "
                     "packed yet; each capture has 64M at least"),
    CLI_COUNT(struct fl_server_options, engine.spin_us, .name = "spin", .value = "US", .low = 0,
              .high = SPIN_MOST, .preset = "20",
              .help = "how long a worker looks for the next fault before it sleeps"),
    CLI_COUNT(struct fl_server_options, engine.prefetch_pages, .name = "prefetch", .value = "PAGES",
              .low = 0, .high = PREFETCH_MOST, .preset = "16",
              .help = "pages to install at once when a VM sweeps its memory; 0 turns this off"),
    CLI_SIZE(struct fl_server_options, engine.prefetch_vm_bytes, .name = "prefetch-vm",
             .value = "SIZE", .preset = "16M",
             .help = "limit of such pages that a VM may not need"),
    CLI_SIZE(struct fl_server_options, engine.prefetch_host_bytes, .name = "prefetch-host",
             .value = "SIZE", .preset = "1G", .help = "the same for all VMs together"),
    CLI_OTHER(struct fl_server_options, engine.nice, take_nice, .name = "nice", .value = "N",
              .preset = "0",
              .help = "priority of the workers, -20 to 19, if the process may set it"),
    CLI_OTHER(struct fl_server_options, engine.pin, take_on_off, .name = "pin", .choices = "on|off",
              .preset = "off", .help = "keep each worker on a core of its own"),
    CLI_OTHER(
        struct fl_server_options, engine, take_on_error, .name = "on-error", .value = "POLICY",
        .choices = "auto|poison|kill", .preset = "auto",
        .help =
            "what to do if a page cannot be had. poison: a process that touches it gets SIGBUS. "
            "kill: the VM gets SIGKILL. auto: kill if a guest runs under KVM, else poison"),
    CLI_OTHER(struct fl_server_options, log_level, take_log_level, .name = "log-level",
              .value = "LEVEL", .choices = "error|warning|info|debug", .preset = "info",
              .help = "what is logged: events of this level and those that matter more",
              .when = CLI_AT_RELOAD),
    CLI_COUNT(struct fl_server_options, engine.read_retries, .name = "retries", .value = "N",
              .low = 0, .high = RETRIES_MOST, .preset = "4",
              .help = "attempts after a read that failed"),
    CLI_TIME_MS(struct fl_server_options, engine.read_timeout_ms, .name = "read-timeout",
                .value = "TIME", .low = 1, .high = HOUR_MS, .preset = "30s",
                .help = "how long to wait for a page"),
    CLI_TIME_MS(struct fl_server_options, engine.handshake_timeout_ms, .name = "handshake-timeout",
                .value = "TIME", .low = 1, .high = HOUR_MS, .preset = "5s",
                .help = "how long to wait for a handshake"),
    CLI_TIME_MS(struct fl_server_options, engine.stop_timeout_ms, .name = "stop-timeout",
                .value = "TIME", .low = 0, .high = HOUR_MS, .preset = "60s",
                .help = "at the end, how long to fill VMs before they are killed",
                .when = CLI_AT_RELOAD),
    CLI_OTHER(struct fl_server_options, engine.replay, take_on_off, .name = "replay",
              .choices = "on|off", .preset = "on",
              .help =
                  "install the working set of an image that has a trace ahead of the VM's touches"),
    CLI_SIZE(struct fl_server_options, engine.replay_bytes, .name = "replay-max", .value = "SIZE",
             .otherwise = "all", .help = "limit of such pages for each VM"),
    CLI_COUNT(struct fl_server_options, engine.replay_reserve, .name = "replay-reserve",
              .value = "N", .low = 0, .high = 100, .preset = "5",
              .help = "pause this while less than N percent of the host's memory, or of its huge "
                      "pages, is available"),
    CLI_OTHER(struct fl_server_options, filter.mode, take_seccomp, .name = "seccomp",
              .choices = "on|off|log", .preset = "on",
              .help =
                  "What to do with system calls that the server never makes. on: refuse them, "
                  "and end an engine that would start a program or administer the host. log: let "
                  "the kernel's log name them",
              .when = CLI_AT_RESTART),
    CLI_OTHER(struct fl_server_options, engine.huge, take_huge, .name = "huge",
              .choices = "off|after-replay", .preset = "off",
              .help =
                  "whether the pages of a working set are put together to transparent pages of "
                  "2 MiB once replay has brought them and while the VM does not fault; it costs "
                  "the memory that completes them"),
    CLI_OTHER(struct fl_server_options, engine.admission, take_admission,
              .name = "huge-page-admission", .choices = "off|warn|refuse", .preset = "warn",
              .help = "what to do with a VM if the pool of 2 MiB pages cannot hold its working set "
                      "beside what others still need: nothing, a line in the log, or refuse it"),
    CLI_FLAG(
        struct fl_server_options, engine.allow_part, .name = "allow-part",
        .help =
            "take VMs that map only a part of their image, even if the handshake does not say so"),
    CLI_OTHER(struct fl_server_options, access, take_owner, .name = "owner", .value = "USER:GROUP",
              .otherwise = "that of the process",
              .help = "owner of the images' sockets, as names or numbers"),
    CLI_OTHER(struct fl_server_options, access, take_mode, .name = "mode", .value = "OCTAL",
              .preset = "660", .help = "mode of the images' sockets"),
    CLI_END,
};
