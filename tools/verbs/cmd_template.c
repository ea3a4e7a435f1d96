// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli/cli.h"
#include "tools/cli/control_client.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/paths.h"
#include "tools/cli/progress.h"
#include "tools/verbs/verbs.h"

enum { POLL_MS = 20, TTY_EVERY = 10 };
static const char templates[] = "/v1/templates";

struct order {
    const char *control;
    const char *image;
    bool complete;
    bool remove;
    bool list;
    bool json;
};

static const struct verb_argument arguments[] = {{.name = "IMAGE", .hint = CLI_IMAGE},
                                                 {.name = NULL}};
static const struct cli_option options[] = {
    CLI_FLAG(struct order, complete, .name = "complete",
             .help = "fill all of the template first, and print the path of a file that a VMM can "
                     "map without a handler, as Firecracker's File backend does"),
    CLI_FLAG(struct order, remove, .name = "remove", .help = "stop keeping the template"),
    CLI_FLAG(struct order, list, .name = "list", .help = "list all templates"),
    CLI_JSON(struct order, json),
    CLI_CONTROL(struct order, control),
    CLI_END,
};

static const char *template_text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

static uint64_t template_number(const json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static void print_template_json(const json_t *object)
{
    json_dumpf(object, stdout, JSON_COMPACT);
    putchar('\n');
}

// --- making one ---

static int order_template(const struct order *order)
{
    json_t *answer = NULL;
    json_t *body = json_pack("{s:s, s:b}", "image", order->image, "complete", order->complete);
    if (!body)
        return cli_fail("template", "%s cannot name an image", order->image);
    int result = control_order("template", order->control, templates, body, &answer);
    json_decref(body);
    json_decref(answer);
    return result;
}

// Returns the template that a VMM gets that connects now, or NULL.
static const json_t *find_template(const json_t *answer, const char *image)
{
    size_t i;
    const json_t *entry;
    const json_t *found = NULL;
    json_array_foreach(json_object_get(answer, "list"), i, entry)
    {
        const json_t *pinned = json_object_get(entry, "pinned");
        if (strcmp(template_text(entry, "image"), image) == 0 && (!pinned || json_is_true(pinned)))
            found = entry;
    }
    return found;
}

static void show_progress(const json_t *entry, bool end)
{
    uint64_t bytes = template_number(entry, "bytes");
    if (progress_is_drawn() && bytes > 0)
        fprintf(stderr, "\r%s: %" PRIu64 " %%%s", template_text(entry, "image"),
                template_number(entry, "filled") * 100 / bytes, end ? "\n" : "");
}

// True if there is nothing more to wait for; *ret_result is the exit status then.
static bool template_settled(const struct order *order, const json_t *entry, int *ret_result)
{
    const char *state = template_text(entry, "state");
    if (strcmp(state, "failed") == 0) {
        *ret_result = cli_fail("template", "the server cannot make the template of %s: %s",
                               order->image, template_text(entry, "error"));
        return true;
    }
    bool complete = strcmp(state, "complete") == 0 && *template_text(entry, "path");
    if (order->complete ? !complete : strcmp(state, "opening") == 0)
        return false;
    if (order->json)
        print_template_json(entry);
    else
        puts(order->complete ? template_text(entry, "path") : template_text(entry, "socket"));
    *ret_result = EXIT_DONE;
    return true;
}

// True if the engine knows nothing of the order: it was lost with an engine that died.
static bool is_forgotten(const struct order *order, const json_t *entry)
{
    return !entry || (order->complete && strcmp(template_text(entry, "state"), "open") == 0);
}

// Gives the order and waits until it is done. If an engine dies and the order is lost with it, the
// order is given again.
static int make_template(const struct order *order)
{
    int result = order_template(order);
    for (unsigned round = 0; result == EXIT_DONE; round++) {
        json_t *answer = NULL;
        result = control_ask("template", order->control, templates, NULL, &answer);
        if (result != EXIT_DONE)
            break;
        const json_t *entry = find_template(answer, order->image);
        bool done = entry && template_settled(order, entry, &result);
        if (entry && order->complete && (done || round % TTY_EVERY == 0))
            show_progress(entry, done);
        if (!done && is_forgotten(order, entry))
            result = order_template(order);
        json_decref(answer);
        if (done)
            break;
        poll(NULL, 0, POLL_MS);
    }
    return result;
}

// --- removing and listing ---

static int remove_one(const struct order *order)
{
    json_t *answer = NULL;
    json_t *body = json_pack("{s:s}", "image", order->image);
    if (!body)
        return cli_fail("template", "%s cannot name an image", order->image);
    int result = control_ask_by("template", order->control, "DELETE", templates, body, &answer);
    json_decref(body);
    if (result == EXIT_DONE && order->json)
        print_template_json(answer);
    json_decref(answer);
    return result;
}

static void print_templates(json_t *answer)
{
    control_plain(answer);
    size_t i;
    const json_t *entry;
    char bytes[32];
    char filled[32];
    printf("%-24s %-9s %10s %10s %7s %s\n", "IMAGE", "STATE", "SIZE", "FILLED", "CLONES", "WHERE");
    json_array_foreach(json_object_get(answer, "list"), i, entry)
    {
        bool kept = json_is_true(json_object_get(entry, "pinned"));
        const char *where = *template_text(entry, "path") ? template_text(entry, "path")
                                                          : template_text(entry, "socket");
        printf("%-24s %-9s %10s %10s %7" PRIu64 " %s\n", template_text(entry, "image"),
               template_text(entry, "state"),
               cli_format_bytes(template_number(entry, "bytes"), bytes, sizeof(bytes)),
               cli_format_bytes(template_number(entry, "filled"), filled, sizeof(filled)),
               template_number(entry, "clones"),
               *template_text(entry, "error") ? template_text(entry, "error")
               : kept                         ? where
                                              : "(removed)");
    }
}

static int list_templates(const struct order *order)
{
    json_t *answer = NULL;
    int result = control_ask("template", order->control, templates, NULL, &answer);
    if (result != EXIT_DONE)
        return result;
    if (order->json)
        print_template_json(answer);
    else
        print_templates(answer);
    json_decref(answer);
    return EXIT_DONE;
}

static int cmd_template(int argc, char **argv)
{
    struct order order = {.control = NULL};
    int status = cli_parse(&verb_template, &order, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (argc - optind > 1 || (order.list && optind < argc))
        return cli_usage("template", "it takes no argument '%s'", argv[argc - 1]);
    if (!order.list && optind == argc)
        return cli_usage("template", "it needs the name of an image");
    if (order.remove + order.list + order.complete > 1)
        return cli_usage("template", "--complete, --remove and --list exclude each other");
    order.image = argv[optind];
    if (order.list)
        return list_templates(&order);
    return order.remove ? remove_one(&order) : make_template(&order);
}

const struct verb verb_template = {
    .name = "template",
    .run = cmd_template,
    .summary = "have a running server keep an image in memory that VMs share",
    .synopsis = {"IMAGE [--complete] [OPTION...]", "--remove IMAGE [OPTION...]",
                 "--list [OPTION...]"},
    .about = "Has a running server keep an image in shared memory, which VMs map "
             "privately. A page that one VM has touched is there for all others, and "
             "a page that no VM writes to exists once. Prints the socket to which a "
             "VMM connects that maps the template (docs/qemu.md). The template stays "
             "until --remove, or until the image is removed or replaced; after that, "
             "as long as VMs map it.",
    .arguments = arguments,
    .options = options,
};
