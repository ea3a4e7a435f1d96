// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/host/memory_limit.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/verbs.h"
#include "tools/verbs/warm_file.h"

struct arguments {
    const char *store;
    const char *image; // NULL: by the file's name
    bool all;
    uint64_t most; // bytes
    unsigned reserve;
    bool until_told;
    bool json;
    const char *path;
    char name[FL_NAME_MAX + 1];
};

static const struct verb_argument arguments[] = {{.name = "FILE", .hint = CLI_FILE},
                                                 {.name = NULL}};
static const struct cli_option options[] = {
    CLI_STORE(struct arguments, store),
    CLI_TEXT(struct arguments, image, .name = "image", .value = "IMAGE", .hint = CLI_IMAGE,
             .otherwise = "the name of FILE without .mem",
             .help = "whose trace: for a file that was bound under another name"),
    CLI_FLAG(struct arguments, all, .name = "all",
             .help = "all of the file, in its own order; no trace is needed"),
    CLI_SIZE(struct arguments, most, .name = "max", .value = "SIZE", .otherwise = "all",
             .help = "so much at most, and never more than half of the memory limit of the "
                     "process's own cgroup"),
    CLI_COUNT(struct arguments, reserve, .name = "reserve", .value = "N", .low = 0, .high = 100,
              .preset = "5",
              .help = "end when less than N percent of the host's memory is available"),
    CLI_FLAG(struct arguments, until_told, .name = "until-told",
             .help = "end when a byte comes from standard input, a socket"),
    CLI_JSON(struct arguments, json),
    CLI_END,
};

static const char suffix[] = ".mem";

static int find_name(struct arguments *args)
{
    const char *base = strrchr(args->path, '/');
    const char *name = args->image ? args->image : base ? base + 1 : args->path;
    size_t length = strlen(name);
    size_t end = sizeof(suffix) - 1;
    if (!args->image && length > end && strcmp(name + length - end, suffix) == 0)
        length -= end;
    if (length >= sizeof(args->name))
        return cli_fail("warm", "%s is not the name of an image", name);
    memcpy(args->name, name, length);
    args->name[length] = '\0';
    return EXIT_DONE;
}

static int parse_warm(int argc, char **argv, struct arguments *args)
{
    int status = cli_parse(&verb_warm, args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (argc - optind != 1)
        return cli_usage("warm", "exactly one file is needed");
    args->path = argv[optind];
    return find_name(args);
}

// Reads past that would take the place of what was read.
static uint64_t pages_at_most(const struct arguments *args)
{
    struct fl_cgroup_mounts mounts;
    struct fl_memory_limit limit;
    uint64_t most = args->most > 0 ? args->most : UINT64_MAX;
    fl_cgroup_mounts(&mounts);
    if (fl_memory_limit(&mounts, getpid(), &limit) == 0 && limit.limit > 0 &&
        limit.limit / 2 < most)
        most = limit.limit / 2;
    return most / FL_PAGE_SIZE;
}

static int order_of_trace(const struct arguments *args, struct fl_reader *reader, uint64_t bytes,
                          struct warm_order *ret_order)
{
    struct fl_image *image;
    struct fl_trace *trace;
    int r = fl_image_open_lazy(reader, args->name, &image);
    if (r < 0)
        return cli_fail("warm", "image '%s': %s", args->name, fl_image_strerror(r));
    bool same = fl_image_bytes(image) == bytes;
    r = same ? fl_trace_open(reader, image, &trace) : 0;
    fl_image_unref(image);
    if (!same)
        return cli_fail("warm", "%s is not a file of image '%s', as it has another size",
                        args->path, args->name);
    if (r == -ENOENT)
        return cli_fail("warm", "image '%s' has no trace: record one, or use --all", args->name);
    if (r < 0)
        return cli_fail_errno("warm", r, "the trace of image '%s' cannot be used", args->name);
    r = warm_order_of_trace(trace, pages_at_most(args), ret_order);
    fl_trace_unref(trace);
    return r ? cli_fail_errno("warm", r, "%s", args->path) : EXIT_DONE;
}

static int make_order(const struct arguments *args, uint64_t bytes, struct warm_order *ret_order)
{
    struct fl_reader *reader;
    if (args->all) {
        int error = warm_order_of_all((bytes + FL_PAGE_SIZE - 1) / FL_PAGE_SIZE,
                                      pages_at_most(args), ret_order);
        return error ? cli_fail_errno("warm", error, "%s", args->path) : EXIT_DONE;
    }
    int r = fl_reader_open(args->store, &reader);
    if (r == -ENOENT)
        return cli_fail("warm", FL_NO_STORE, args->store);
    if (r < 0)
        return cli_fail_errno("warm", r, "cannot open the store %s", args->store);
    int status = order_of_trace(args, reader, bytes, ret_order);
    fl_reader_close(reader);
    return status;
}

static const char *word_of(enum warm_end end)
{
    static const char *const words[] = {
        [WARM_DONE] = "done", [WARM_SCARCE] = "scarce", [WARM_TOLD] = "told"};
    return words[end];
}

static int print_warmed(const struct arguments *args, const struct warm_order *order,
                        const struct warmed *warmed, double ms)
{
    char size[32];
    if (args->json)
        return store_print_json(
            "warm", json_pack("{s:s,s:I,s:I,s:I,s:I,s:s,s:f}", "image", args->name, "pages",
                              (json_int_t)order->pages, "there", (json_int_t)warmed->there, "warm",
                              (json_int_t)warmed->brought, "failed", (json_int_t)warmed->failed,
                              "end", word_of(warmed->end), "ms", ms));
    cli_format_bytes(warmed->brought * FL_PAGE_SIZE, size, sizeof(size));
    printf("%s: %" PRIu64 " of %" PRIu64 " pages (%s) are in the page cache, %" PRIu64
           " were before, %.0f ms%s\n",
           args->name, warmed->brought, order->pages, size, warmed->there, ms,
           warmed->end == WARM_SCARCE ? "; ended as memory is short" : "");
    return EXIT_DONE;
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int warm_opened(const struct arguments *args, int fd, uint64_t bytes)
{
    struct warm_order order;
    struct warmed warmed;
    const struct warm_file file = {.fd = fd,
                                   .bytes = bytes,
                                   .reserve = args->reserve,
                                   .told_fd = args->until_told ? STDIN_FILENO : -1};
    int status = make_order(args, bytes, &order);
    if (status != EXIT_DONE)
        return status;
    double since = now_ms();
    int error = warm_file(&file, &order, &warmed);
    if (error)
        status = cli_fail_errno("warm", error, "%s", args->path);
    else
        status = print_warmed(args, &order, &warmed, now_ms() - since);
    if (!error && warmed.failed > 0)
        status = cli_fail_errno("warm", warmed.error, "%" PRIu64 " pages of %s cannot be read",
                                warmed.failed, args->path);
    warm_order_free(&order);
    return status;
}

static int cmd_warm(int argc, char **argv)
{
    struct stat status;
    struct arguments args = {.store = NULL};
    int result = parse_warm(argc, argv, &args);
    if (result != EXIT_DONE)
        return result;
    if (cli_check_page_size("warm") != EXIT_DONE)
        return EXIT_FAILED;
    int fd = open(args.path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0)
        result = cli_fail_errno("warm", -errno, "cannot open %s", args.path);
    else if (!S_ISREG(status.st_mode) || status.st_size == 0)
        result = cli_fail("warm", "%s is not the file of an image", args.path);
    else
        result = warm_opened(&args, fd, (uint64_t)status.st_size);
    if (fd >= 0)
        close(fd);
    return result;
}

const struct verb verb_warm = {
    .name = "warm",
    .run = cmd_warm,
    .summary = "bring the working set of an image's file into the page cache",
    .synopsis = {"[--store DIR] [--max SIZE] [OPTION...] FILE", "--all [OPTION...] FILE"},
    .about = "Reads what the trace of an image names, in its order, of the image's file of "
             "'faultline serve --files'. VMs that map the file find these pages in the page "
             "cache. They are charged to the memory cgroup of this process, and given back when "
             "memory is short. The server does the same when a file is opened whose image has "
             "a trace; this is for before, or for another cgroup.",
    .arguments = arguments,
    .options = options,
};
