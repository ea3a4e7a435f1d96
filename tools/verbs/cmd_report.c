// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/output.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/verbs/report.h"
#include "tools/verbs/verbs.h"

struct arguments {
    const char *control;
    const char *record; // to read; NULL: from a server
    const char *output;
    const char *save;
    const char *which;
};

static const struct verb_argument arguments[] = {
    {.name = "VM"},
    {.name = NULL},
};
static const struct cli_option options[] = {
    CLI_TEXT(struct arguments, output, .name = "output", .value = "FILE", .hint = CLI_FILE,
             .help = "where to write the page",
             .otherwise = "standard output, if that is no terminal"),
    CLI_TEXT(struct arguments, save, .name = "save", .value = "FILE", .hint = CLI_FILE,
             .help = "save the record as JSON, from which the page can be made later, and make no "
                     "page unless --output is given"),
    CLI_TEXT(struct arguments, record, .name = "record", .value = "FILE", .hint = CLI_FILE,
             .help = "make the page of a saved record, and ask no server"),
    CLI_CONTROL(struct arguments, control),
    CLI_END,
};

static int parse_report(int argc, char **argv, struct arguments *args)
{
    int status = cli_parse(&verb_report, args, argc, argv);
    if (status != EXIT_DONE)
        return status;
    int names = argc - optind;
    if (args->record && names > 0)
        return cli_usage("report", "--record takes no VM '%s'", argv[optind]);
    if (!args->record && names != 1)
        return cli_usage("report", "one VM is needed: its number, its pid, or its image");
    if (args->record && args->save)
        return cli_usage("report", "--record and --save cannot be given together");
    if (!args->output && !args->save && isatty(STDOUT_FILENO))
        return cli_usage("report", "--output is needed: the page is nothing for a terminal");
    args->which = args->record ? NULL : argv[optind];
    args->output = args->output || args->save ? args->output : "-";
    return EXIT_DONE;
}

// --- the record ---

static int read_record(const char *path, json_t **ret_record)
{
    json_error_t error;
    FILE *file = fopen(path, "re");
    if (!file)
        return cli_fail_errno("report", errno, "cannot open %s", path);
    *ret_record = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
    bool failed = ferror(file) != 0;
    fclose(file);
    if (failed)
        return cli_fail("report", "cannot read %s", path);
    return *ret_record ? EXIT_DONE : cli_fail("report", "%s is not JSON: %s", path, error.text);
}

// --- what is written ---

struct what {
    const json_t *record;
    const struct report *report; // NULL: the record is written
};

static void write_to(FILE *out, const struct what *what)
{
    if (what->report) {
        report_write(out, what->report);
        return;
    }
    json_dumpf(what->record, out, JSON_COMPACT);
    fputc('\n', out);
}

// Through a copy of the descriptor: fclose() closes the copy, and the file is published by the
// other one.
static int write_through(int fd, const struct what *what)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    FILE *out = copy < 0 ? NULL : fdopen(copy, "w");
    if (!out) {
        int error = errno;
        if (copy >= 0)
            close(copy);
        return -error;
    }
    write_to(out, what);
    bool failed = ferror(out) != 0;
    return fclose(out) != 0 || failed ? (errno ? -errno : -EIO) : 0;
}

static int write_file(const char *path, const struct what *what)
{
    struct fl_output output;
    if (strcmp(path, "-") == 0) {
        int r = write_through(STDOUT_FILENO, what);
        return r < 0 ? cli_fail_errno("report", r, "cannot write to standard output") : EXIT_DONE;
    }
    int r = fl_output_open(path, true, &output);
    if (r == 0)
        r = write_through(output.temp.fd, what);
    if (r == 0)
        r = fl_output_publish(&output);
    fl_output_close(&output);
    return r < 0 ? cli_fail("report", "cannot write %s: %s", path, fl_output_strerror(r))
                 : EXIT_DONE;
}

static int write_all(const struct arguments *args, const json_t *record)
{
    struct report report;
    const char *wrong = report_read(record, &report);
    int status = EXIT_DONE;
    if (wrong)
        status =
            cli_fail("report", "%s %s", args->record ? args->record : "the server's record", wrong);
    if (status == EXIT_DONE && args->save)
        status = write_file(args->save, &(struct what){.record = record});
    if (status == EXIT_DONE && args->output)
        status = write_file(args->output, &(struct what){.record = record, .report = &report});
    report_free(&report);
    return status;
}

static int cmd_report(int argc, char **argv)
{
    struct arguments args = {.control = NULL};
    json_t *record = NULL;
    int status = parse_report(argc, argv, &args);
    if (status == EXIT_DONE)
        status = args.record ? read_record(args.record, &record)
                             : report_fetch(args.control, args.which, &record);
    if (status == EXIT_DONE)
        status = write_all(&args, record);
    json_decref(record);
    return status;
}

const struct verb verb_report = {
    .name = "report",
    .run = cmd_report,
    .summary = "write a page that shows how a VM was restored",
    .synopsis = {"[--output FILE] [--save FILE] VM", "[--output FILE] --record FILE"},
    .about =
        "Writes a page of HTML that shows how the memory of a VM came to be there: faults over "
        "time, how long they took, what brought each page, and what was late. It is one file, "
        "which loads nothing. VM is the number of a VM, the pid of its process, or an image: "
        "then it is the last VM of that image. It may have ended.\n"
        "\n"
        "The server must have kept the VM's history (serve --history, docs/report.md).",
    .arguments = arguments,
    .options = options,
};
