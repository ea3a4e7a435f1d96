// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/checkpoint.h"

// A line at once: an orchestrator waits for it, and the VM may be paused.
static void say_line(json_t *object)
{
    if (object) {
        json_dumpf(object, stdout, JSON_COMPACT);
        putchar('\n');
    }
    json_decref(object);
    fflush(stdout);
}

void checkpoint_say(const struct checkpoint_order *order, const char *event)
{
    if (order->json)
        say_line(json_pack("{s:s}", "event", event));
}

void checkpoint_tell(const struct checkpoint_order *order, const char *event)
{
    checkpoint_say(order, event);
    if (!order->json) {
        printf("%s\n", event);
        fflush(stdout);
    }
}

// As text `fork` prints names alone: each is told once.
void checkpoint_say_restorable(const struct checkpoint_order *order, const char *image)
{
    if (order->json)
        say_line(json_pack("{s:s,s:s}", "event", "restorable", "image", image));
    else
        printf("%s%s\n", order->live ? "restorable " : "", image);
    fflush(stdout);
}

void checkpoint_say_failed(const struct checkpoint_order *order, const char *sentence)
{
    if (order->json) {
        json_t *reason = json_string(sentence);
        say_line(json_pack("{s:s, s:o}", "event", "failed", "reason",
                           reason ? reason : json_string("the reason is not UTF-8")));
    } else if (order->external) {
        char *plain = NULL;
        if (asprintf(&plain, "failed %s", sentence) >= 0)
            printf("%s\n", cli_plain(plain));
        free(plain);
        fflush(stdout);
    }
}

static json_t *capture_json(const struct checkpoint_result *r)
{
    return json_pack("{s:f,s:f,s:f,s:b,s:b,s:b,s:I,s:I,s:I,s:I}", "pause_ms", r->pause_ms,
                     "freeze_ms", r->freeze_ms, "copy_ms", r->copy_ms, "was_paused", r->was_paused,
                     "left_paused", r->left_paused, "kept_armed", r->kept_armed, "pages",
                     (json_int_t)r->pages, "copied_by_fault", (json_int_t)r->by_fault,
                     "copied_by_sweep", (json_int_t)r->by_sweep, "write_faults",
                     (json_int_t)r->write_faults);
}

static json_t *pack_json(const struct fl_pack_result *p)
{
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f}", "bytes",
                     (json_int_t)(p->stored_bytes + p->image_bytes), "zero_pages",
                     (json_int_t)p->zero_pages, "inherited_pages", (json_int_t)p->inherited_pages,
                     "shared_pages", (json_int_t)p->shared_pages, "duplicate_pages",
                     (json_int_t)p->duplicate_pages, "stored_pages", (json_int_t)p->stored_pages,
                     "stored_bytes", (json_int_t)p->stored_bytes, "declined_pages",
                     (json_int_t)p->declined_pages, "trace_pages", (json_int_t)p->trace_pages,
                     "settle_seconds", p->settle_seconds);
}

static json_t *drives_json(const struct drives *drives)
{
    json_t *list = json_array();
    for (size_t i = 0; i < drives->count && list; i++) {
        json_t *name = json_string(drives->all[i].name);
        json_array_append_new(list, name ? name : json_null());
    }
    return list;
}

json_t *checkpoint_json(const struct checkpoint_order *order, const struct checkpoint_result *r)
{
    char id[65];
    store_format_id(r->pack.content_id, id);
    json_t *object =
        json_pack("{s:s,s:s,s:o,s:o,s:s,s:f,s:o}", "event", "done", "name", order->name, "vm",
                  r->vm.id ? json_integer((json_int_t)r->vm.id) : json_null(), "parent",
                  r->parent[0] ? json_string(r->parent) : json_null(), "content_id", id, "seconds",
                  r->seconds, "drives", drives_json(&order->drives));
    json_t *capture = capture_json(r);
    json_t *pack = pack_json(&r->pack);
    bool ok = object && capture && pack && json_object_update(object, capture) == 0 &&
              json_object_update(object, pack) == 0;
    json_decref(capture);
    json_decref(pack);
    if (ok)
        return object;
    json_decref(object);
    return NULL;
}

static void print_text(const struct checkpoint_order *order, const struct checkpoint_result *r)
{
    char stored[32];
    char vm[CHECKPOINT_VM_TEXT];
    uint64_t bytes = r->pack.stored_bytes + r->pack.image_bytes;
    printf("%s: %s in %.2f s", order->name, checkpoint_vm_text(&r->vm, vm), r->seconds);
    if (r->was_paused)
        printf("; it was paused before, and still is\n");
    else if (r->left_paused)
        printf("; it is paused\n");
    else
        printf("; it was paused for %.1f ms\n", r->pause_ms);
    printf("  pages      %12" PRIu64 "\n", r->pages);
    printf("  copied     %12" PRIu64 "  of them %" PRIu64 " as the guest wrote to them\n",
           r->by_fault + r->by_sweep, r->by_fault);
    printf("  stored     %12" PRIu64 "  in %s\n", r->pack.stored_pages,
           cli_format_bytes(bytes, stored, sizeof(stored)));
    if (r->parent[0])
        printf("  parent     %s\n", r->parent);
    if (r->pack.trace_pages > 0)
        printf("  trace      %12" PRIu64 "  pages of the parent's\n", r->pack.trace_pages);
    if (r->pack.trace_error < 0)
        printf("  trace      the parent's could not be kept: %s\n",
               strerror(-r->pack.trace_error));
}

int checkpoint_print(const struct checkpoint_order *order, const struct checkpoint_result *result)
{
    if (order->json)
        return store_print_json(order->verb, checkpoint_json(order, result));
    if (order->external)
        printf("done %s\n", order->name);
    else
        print_text(order, result);
    return EXIT_DONE;
}
