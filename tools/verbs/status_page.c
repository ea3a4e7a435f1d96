// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/status_page.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/cli/verdict.h"

enum { INDENT = 10, LINE_BYTES = 2 * VERDICT_BYTES, VMS_AT_LEAST = 3, BYTES_TEXT = 32 };

struct page {
    FILE *out;
    size_t lines;
    const json_t *status;
};

// --- lines ---

// How much of the text goes into a line that has `room`: up to a space, or one word.
static size_t line_of(const char *text, size_t room)
{
    size_t length = strlen(text);
    if (length <= room)
        return length;
    for (size_t i = room + 1; i-- > 0;) {
        if (text[i] == ' ')
            return i;
    }
    return strcspn(text, " ");
}

// A name and what there is to say of it, in as many lines as that takes.
static void put_text(struct page *page, const char *name, const char *text)
{
    int indent = *name ? INDENT : 0;
    do {
        size_t length = line_of(text, STATUS_COLUMNS - (size_t)indent);
        fprintf(page->out, "%-*s%.*s\n", indent, name, (int)length, text);
        text += length;
        text += strspn(text, " ");
        indent = INDENT;
        name = "";
        page->lines++;
    } while (*text);
}

__attribute__((format(printf, 3, 4))) static void put(struct page *page, const char *name,
                                                      const char *format, ...)
{
    char text[LINE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    put_text(page, name, cli_plain(text));
}

static long long number(const struct page *page, const char *object, const char *key)
{
    return top_number(page->status, object, key);
}

static double real(const struct page *page, const char *object, const char *key)
{
    return json_number_value(json_object_get(json_object_get(page->status, object), key));
}

static const char *bytes(const struct page *page, const char *object, const char *key,
                         char buf[BYTES_TEXT])
{
    return cli_format_bytes((uint64_t)number(page, object, key), buf, BYTES_TEXT);
}

// --- what there is to say ---

static void put_verdict(struct page *page)
{
    char text[VERDICT_BYTES];
    size_t i = 0;
    do {
        verdict_say(page->status, i++, text);
        put_text(page, "", cli_plain(text));
    } while (verdict_say(page->status, i, text));
}

static void put_faults(struct page *page, const struct top_model *model)
{
    char rate[32] = "";
    char oldest[48] = "";
    long long wait_ms = number(page, "faults", "oldest_wait_ms");
    if (model->faults >= 0)
        snprintf(rate, sizeof(rate), "%.0f/s now, ", model->faults);
    if (wait_ms > 0)
        snprintf(oldest, sizeof(oldest), " (one for %.1f s)", (double)wait_ms / 1e3);
    put(page, "VMs", "%lld now, %lld ever, %lld handshake%s refused, %lld killed",
        number(page, "", "vms"), number(page, "", "attached"), number(page, "", "refused"),
        cli_s((uint64_t)number(page, "", "refused")), number(page, "ended", "killed"));
    put(page, "faults",
        "%s%lld installed, %lld zeroed, %lld poisoned, %lld duplicate, %lld waiting%s", rate,
        number(page, "faults", "installed"), number(page, "faults", "zeroed"),
        number(page, "faults", "poisoned"), number(page, "faults", "duplicates"),
        number(page, "faults", "parked"), oldest);
    put(page, "latency", "p50 %.1f us, p90 %.1f us, p99 %.1f us, max %.1f us",
        real(page, "latency_us", "p50"), real(page, "latency_us", "p90"),
        real(page, "latency_us", "p99"), real(page, "latency_us", "max"));
}

static void put_cache(struct page *page)
{
    char used[BYTES_TEXT];
    char limit[BYTES_TEXT];
    put(page, "cache", "%s of %s, %lld hits, %lld misses, %lld read error%s",
        bytes(page, "cache", "bytes", used), bytes(page, "cache", "limit", limit),
        number(page, "cache", "hits"), number(page, "cache", "misses"),
        number(page, "cache", "read_errors"),
        cli_s((uint64_t)number(page, "cache", "read_errors")));
}

static void put_replay(struct page *page)
{
    const json_t *replay = json_object_get(page->status, "replay");
    bool scarce = json_is_true(json_object_get(replay, "scarce")) ||
                  json_is_true(json_object_get(replay, "huge_scarce"));
    if (json_is_true(json_object_get(replay, "on")))
        put(page, "replay", "%lld running, %lld done, %lld pages, %lld late%s",
            number(page, "replay", "running"), number(page, "replay", "done"),
            number(page, "replay", "pages"), number(page, "replay", "late"),
            scarce ? ", PAUSED: memory is scarce" : "");
    else
        put(page, "replay", "off");
}

static void put_memory(struct page *page)
{
    char resident[BYTES_TEXT];
    char pool[128] = "";
    if (number(page, "huge_pages", "total") > 0)
        snprintf(pool, sizeof(pool), "; pages of 2 MiB: %lld, %lld free, %lld of these reserved",
                 number(page, "huge_pages", "total"), number(page, "huge_pages", "free"),
                 number(page, "huge_pages", "reserved"));
    put(page, "memory", "%s resident%s", bytes(page, "memory", "resident", resident), pool);
}

static void put_processes(struct page *page)
{
    char standby[48] = "no standby engine yet";
    long long pid = number(page, "keeper", "standby_pid");
    const char *version = json_string_value(json_object_get(page->status, "version"));
    if (pid > 0)
        snprintf(standby, sizeof(standby), "standby engine %lld", pid);
    if (json_is_object(json_object_get(page->status, "keeper")))
        put(page, "keeper", "pid %lld, %s, %lld engine death%s", number(page, "keeper", "pid"),
            standby, number(page, "keeper", "deaths"),
            cli_s((uint64_t)number(page, "keeper", "deaths")));
    else
        put(page, "keeper", "NONE");
    put(page, "server", "faultline %s, pid %lld, %lld worker%s, up %.0f s", version ? version : "-",
        number(page, "", "pid"), number(page, "", "workers"),
        cli_s((uint64_t)number(page, "", "workers")),
        json_number_value(json_object_get(page->status, "uptime_seconds")));
}

static void put_captures(struct page *page)
{
    long long running = number(page, "captures", "running");
    long long kept = number(page, "captures", "kept");
    if (running > 0 || kept > 0)
        put(page, "captures", "%lld checkpoint%s being taken, %lld VM%s tracked for the next one",
            running, cli_s((uint64_t)running), kept, cli_s((uint64_t)kept));
}

static void put_files(struct page *page)
{
    long long waiting = number(page, "files", "waiting");
    long long failed = number(page, "files", "failed");
    char read[BYTES_TEXT];
    if (!json_is_true(json_object_get(json_object_get(page->status, "files"), "mounted")))
        return;
    put(page, "files", "%lld open, %s read, %lld request%s waiting%s",
        number(page, "files", "open"), bytes(page, "files", "bytes", read), waiting,
        cli_s((uint64_t)waiting), failed > 0 ? ", some could not be read" : "");
}

// What is there only now and then: VMs that hold a worker up, recordings, templates.
static void put_others(struct page *page)
{
    char used[BYTES_TEXT];
    char limit[BYTES_TEXT];
    uint64_t lanes = (uint64_t)number(page, "lanes", "vms");
    uint64_t orders = (uint64_t)number(page, "recordings", "orders");
    const json_t *templates = json_object_get(page->status, "templates");
    size_t count = json_array_size(json_object_get(templates, "list"));
    if (lanes > 0)
        put(page, "lanes",
            "%llu VM%s make%s the server wait (memory limit), %lld of these in the kernel now",
            (unsigned long long)lanes, cli_s(lanes), lanes == 1 ? "s" : "",
            number(page, "lanes", "blocked"));
    if (orders > 0)
        put(page, "record", "%llu order%s, %lld VMs now, %lld pages", (unsigned long long)orders,
            cli_s(orders), number(page, "recordings", "vms"), number(page, "recordings", "pages"));
    if (count > 0)
        put(page, "templates", "%zu, %s of %s", count, bytes(page, "templates", "bytes", used),
            bytes(page, "templates", "limit", limit));
    put_files(page);
    put_captures(page);
}

// --- VMs ---

// Those that lack something come first, then those that wait, then those with the most faults.
static int compare_vms(const void *left, const void *right)
{
    const struct top_vm *a = left;
    const struct top_vm *b = right;
    bool a_bad = *a->trouble || strcmp(a->state, "serving") != 0;
    bool b_bad = *b->trouble || strcmp(b->state, "serving") != 0;
    if (a_bad != b_bad)
        return a_bad ? -1 : 1;
    if (a->waiting != b->waiting)
        return a->waiting > b->waiting ? -1 : 1;
    if (a->fault_count != b->fault_count)
        return a->fault_count > b->fault_count ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

static void put_row(struct page *page, const char *row)
{
    fprintf(page->out, "%.*s\n", STATUS_COLUMNS, row);
    page->lines++;
}

static void put_vm(struct page *page, const struct top_vm *vm)
{
    char row[2 * STATUS_COLUMNS];
    char memory[BYTES_TEXT];
    char present[BYTES_TEXT];
    char image[TOP_NAME];
    snprintf(image, sizeof(image), "%s", vm->image);
    if (strlen(image) > 20)
        strcpy(image + 19, "~");
    snprintf(row, sizeof(row), "%6llu %-20.20s %7lld %-9.9s %9s %9s %8llu %5llu",
             (unsigned long long)vm->id, image, vm->pid, *vm->trouble ? vm->trouble : vm->state,
             cli_format_bytes(vm->memory, memory, sizeof(memory)),
             cli_format_bytes(vm->present, present, sizeof(present)),
             (unsigned long long)vm->fault_count, (unsigned long long)vm->waiting);
    put_row(page, cli_plain(row));
}

static void put_vms(struct page *page, struct top_model *model, size_t most)
{
    char row[2 * STATUS_COLUMNS];
    size_t shown = model->vms;
    if (model->vms == 0)
        return;
    qsort(model->vm, model->vms, sizeof(*model->vm), compare_vms);
    put_row(page, "");
    snprintf(row, sizeof(row), "%6s %-20s %7s %-9s %9s %9s %8s %5s", "VM", "IMAGE", "PID", "STATE",
             "MEMORY", "PRESENT", "FAULTS", "WAIT");
    put_row(page, row);
    if (most > 0 && page->lines + model->vms > most) {
        shown = most > page->lines + 1 ? most - page->lines - 1 : 0;
        shown = shown > VMS_AT_LEAST ? shown : VMS_AT_LEAST;
        shown = shown < model->vms ? shown : model->vms;
    }
    for (size_t i = 0; i < shown; i++)
        put_vm(page, &model->vm[i]);
    if (shown < model->vms) {
        snprintf(row, sizeof(row), "and %zu more VM%s: 'faultline status --all', or faultline top",
                 model->vms - shown, cli_s(model->vms - shown));
        put_row(page, row);
    }
}

// --- the page ---

static bool begin(struct page *page, char **ret_text, size_t *ret_size)
{
    *page = (struct page){.out = open_memstream(ret_text, ret_size)};
    return page->out != NULL;
}

static char *end(struct page *page, char **text)
{
    bool failed = ferror(page->out) != 0;
    failed = fclose(page->out) != 0 || failed;
    if (failed) {
        free(*text);
        return NULL;
    }
    return *text;
}

char *status_page(struct top_model *model, size_t most)
{
    char *text = NULL;
    size_t size;
    struct page page;
    if (!begin(&page, &text, &size))
        return NULL;
    page.status = model->status;
    put_verdict(&page);
    put_row(&page, "");
    put_faults(&page, model);
    put_cache(&page);
    put_replay(&page);
    put_memory(&page);
    put_processes(&page);
    put_others(&page);
    put_vms(&page, model, most);
    return end(&page, &text);
}

char *status_page_lost(const char *control, const char *error)
{
    char *text = NULL;
    size_t size;
    char verdict[VERDICT_BYTES];
    struct page page;
    if (!begin(&page, &text, &size))
        return NULL;
    verdict_no_answer(control, error, verdict);
    put_text(&page, "", cli_plain(verdict));
    return end(&page, &text);
}
