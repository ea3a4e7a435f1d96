// SPDX-License-Identifier: Apache-2.0
//
// Histories: what is said of a page is what brought it, what is said of faults adds up, and what is
// kept is what was asked for.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "tests/e2e/protocol/http.h"
#include "tests/support/traces.h"

enum { BYTES = 8 << 20, PAGES = BYTES / PAGE, SWEPT = 128, FAR = 64 };
#define HISTORIES "/v1/histories"
#define ORDER "{\"image\":\"image\",\"vms\":2}"

TestSuite(history, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

static struct world *world;
static char control[2 * TEST_PATH];
static char template_socket[2 * TEST_PATH];
static struct http_answer answer;
static const char *const kept[] = {"--history", "3", NULL};

// --- the API ---

static int ask(const char *method, const char *path, const char *body)
{
    return http_ask(control, &answer, method, path, body);
}

// A part of the history of a VM, to be dropped.
static json_t *get(long long vm, const char *part)
{
    char path[128];
    snprintf(path, sizeof(path), HISTORIES "?vm=%lld%s", vm, part);
    cr_assert_eq(ask("GET", path, ""), 200, "%s: %s", path, answer.text);
    json_t *body = json_loads(answer.body, 0, NULL);
    cr_assert_not_null(body, "%s", answer.text);
    return body;
}

static long long number(const json_t *object, const char *first, const char *second)
{
    const json_t *value = json_object_get(object, first);
    value = second ? json_object_get(value, second) : value;
    return json_is_integer(value) ? json_integer_value(value) : -1;
}

// Of [FROM, TO, COUNT]: all counts. Buckets are in order and do not overlap.
static long long sum(const json_t *buckets)
{
    size_t i;
    const json_t *bucket;
    long long all = 0;
    long long last = 0;
    json_array_foreach(buckets, i, bucket)
    {
        long long from = json_integer_value(json_array_get(bucket, 0));
        long long to = json_integer_value(json_array_get(bucket, 1));
        cr_assert(from >= last && to > from, "%lld to %lld", from, to);
        last = to;
        all += json_integer_value(json_array_get(bucket, 2));
    }
    return all;
}

// What brought each page, as the history of this VM says. Its length is checked.
static const char *map_of(long long vm)
{
    static char map[PAGES + 1];
    json_t *part = get(vm, "&map=0");
    uint64_t at = 0;
    for (const char *text = json_string_value(json_object_get(part, "map")); *text;) {
        char letter = *text++;
        char *end = NULL;
        unsigned long pages = *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : 1;
        text = end ? end : text;
        cr_assert(at + pages <= PAGES);
        memset(map + at, letter, pages);
        at += pages;
    }
    cr_assert_eq(number(part, "pages", NULL), (long long)at);
    map[at] = '\0';
    json_decref(part);
    return map;
}

static long long letters(const char *map, char letter)
{
    long long count = 0;
    for (; *map; map++)
        count += *map == letter;
    return count;
}

// What is said of faults adds up, whoever counted them; of pages, what came with a time.
static json_t *head_of(long long vm)
{
    json_t *head = get(vm, "");
    json_t *log = get(vm, "&log=0");
    const json_t *faults = json_object_get(head, "faults");
    long long took = 0;
    const char *key;
    const json_t *waited;
    json_object_foreach(json_object_get(head, "latency"), key, waited)
    {
        cr_assert_eq(number(waited, "count", NULL), sum(json_object_get(waited, "buckets")));
        took += number(waited, "count", NULL);
    }
    long long count = number(faults, "count", NULL);
    cr_assert_eq(took, count);
    cr_assert_eq(sum(json_object_get(faults, "over_time")), count);
    cr_assert_eq(number(log, "total", NULL), count);
    cr_assert_eq((long long)json_array_size(json_object_get(log, "page")), count);
    json_decref(log);
    return head;
}

// --- a VM that does as it is told ---
//
// 's' sweeps the first pages, 'f' touches every third one of the last ones, 'e' ends. With an
// argument it maps the template whose socket that is.

static int obedient(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    int given = -1;
    (void)shared;
    if (arg) {
        vmm_map_template(&vmm, &world->memory, 1, arg, &given);
        vmm_handshake_template(&vmm);
    } else {
        vmm_map(&vmm, &world->memory, PAGE, 2, VMM_1_12);
        vmm_handshake(&vmm, world->socket);
    }
    tell_test(channel, 'h');
    for (;;) {
        char order = next_order(channel);
        if (order == 'e')
            return 0;
        for (uint32_t page = 0; order == 's' && page < SWEPT; page++)
            vmm_check(&vmm, page);
        for (uint32_t i = 0; order == 'f' && i < FAR; i++)
            vmm_check(&vmm, vmm.pages - 1 - 3 * i);
        tell_test(channel, 'd');
    }
}

static bool is_attached(void *vm)
{
    return world_vm_status(world, *(long long *)vm, "", "id") > 0;
}

// VMs have their numbers in the order in which they came.
static void start_on(struct client *client, long long vm, char *template)
{
    client_start(client, obedient, template);
    cr_assert(client_says(client, 'h'));
    cr_assert(wait_until(is_attached, &vm));
}

static void start(struct client *client, long long vm)
{
    start_on(client, vm, NULL);
}

static bool has_ended(void *arg)
{
    json_t *head = get(*(long long *)arg, "");
    bool ended = json_is_false(json_object_get(head, "running"));
    json_decref(head);
    return ended;
}

static void end(struct client *client, long long vm)
{
    client_tell(client, 'e');
    cr_assert_eq(client_wait(client), 0);
    cr_assert(wait_until(has_ended, &vm));
}

// A thread goes on as soon as its page is there: what has brought it is noted a moment later.
struct noted {
    long long vm;
    long long pages;
};

static bool is_noted(void *arg)
{
    const struct noted *noted = arg;
    const char *map = map_of(noted->vm);
    return letters(map, 'd') + letters(map, 'n') + letters(map, 'z') >= noted->pages;
}

static void begin(enum world_memory kind, const char *const *extra)
{
    world = world_make(kind, BYTES);
    world_serve(world, extra);
    snprintf(control, sizeof(control), "%s", temp_path(&world->temp, "control.sock"));
}

static bool is_zero(uint32_t page)
{
    return all_zero(world->memory.data + (size_t)page * PAGE, PAGE);
}

// --- what is told ---

Test(history, tells_what_brought_each_page)
{
    struct client client;
    begin(MIXED, kept);
    start(&client, 1);
    cr_assert(client_obeys(&client, "sf"));
    end(&client, 1);
    json_t *head = head_of(1);
    const char *map = map_of(1);
    for (uint32_t page = 0; page < PAGES; page++) {
        bool far = page >= PAGES - 3 * FAR && (PAGES - 1 - page) % 3 == 0;
        const char *may = page < SWEPT ? (is_zero(page) ? "z" : "dn") : ".dnz";
        may = far ? (is_zero(page) ? "z" : "d") : may;
        cr_assert(strchr(may, map[page]), "page %u: %c and not %s", page, map[page], may);
    }
    cr_assert_gt(letters(map, 'n'), 0); // a sweep has neighbours
    cr_assert_gt(letters(map, 'z'), 0);
    const json_t *came = json_object_get(head, "came");
    cr_assert_eq(sum(json_object_get(came, "demand")), letters(map, 'd'));
    cr_assert_eq(sum(json_object_get(came, "neighbour")), letters(map, 'n'));
    cr_assert_eq(sum(json_object_get(came, "zero")), letters(map, 'z'));
    cr_assert_eq(letters(map, 'd') + letters(map, 'n'), number(head, "counters", "installed"));
    cr_assert_eq(letters(map, 'z'), number(head, "counters", "zeroed"));
    cr_assert_str_eq(json_string_value(json_object_get(head, "since")), "attach");
    cr_assert_gt(number(json_object_get(head, "latency"), "read", "count"), 0);
    json_decref(head);
    world_stop(world);
}

static bool is_replayed(void *arg)
{
    return world_vm_replay_is(world, *(long long *)arg, "done");
}

Test(history, tells_what_came_ahead)
{
    struct client client;
    long long vm = 2;
    uint32_t *order = random_order(PAGES, 5);
    begin(MIXED, kept);
    record_one(world, (struct touches){NULL, PAGE, 2, order, PAGES / 3});
    start(&client, vm);
    cr_assert(wait_until(is_replayed, &vm));
    const char *map = map_of(vm);
    for (uint32_t i = 0; i < PAGES; i++) {
        char expected = i >= PAGES / 3 ? '.' : is_zero(order[i]) ? 'z' : 'r';
        cr_assert_eq(map[order[i]], expected, "page %u: %c", order[i], map[order[i]]);
    }
    json_decref(head_of(vm));
    end(&client, vm);
    free(order);
    world_stop(world);
}

// In the first piece of the map.
Test(history, tells_what_could_not_be_had)
{
    static const char *const poison[] = {"--history", "1", "--on-error", "poison",
                                         "--retries", "0", NULL};
    struct client client;
    uint8_t byte;
    off_t at = (off_t)(sizeof(struct fl_disk_image_header) + 1234);
    long long vm = 1;
    begin(DISTINCT, poison);
    int fd = open(temp_path(&world->temp, "store/images/image.img"), O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 2;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    close(fd);
    start(&client, vm);
    client_tell(&client, 's');
    cr_assert_eq(client_wait(&client), 128 + SIGBUS);
    cr_assert(wait_until(has_ended, &vm));
    cr_assert_eq(map_of(vm)[0], 'x');
    cr_assert_eq(letters(map_of(vm), 'x'), 1);
    json_decref(head_of(vm));
    cr_assert_eq(server_stop(&world->server), 0);
}

// What one VM has put into it is there for the other, which no fault tells of; also once it has
// ended.
Test(history, tells_what_a_template_had)
{
    const char *template[] = {"template", "--control", NULL, "image", NULL};
    struct client clients[2];
    char first[PAGES + 1];
    begin(DISTINCT, kept);
    snprintf(template_socket, sizeof(template_socket), "%s",
             temp_path(&world->temp, "sockets/image.template"));
    template[2] = control;
    cr_assert_eq(faultline_run(NULL, 0, template), 0);
    for (unsigned i = 0; i < 2; i++)
        start_on(&clients[i], i + 1, template_socket);
    cr_assert(client_obeys(&clients[0], "sf"));
    cr_assert(wait_until(is_noted, &(struct noted){1, SWEPT + FAR}));
    snprintf(first, sizeof(first), "%s", map_of(1));
    cr_assert_eq(letters(first, '.') + letters(first, 'd') + letters(first, 'n'), PAGES, "%s",
                 first);
    for (unsigned ended = 0; ended < 2; ended++) {
        const char *map = map_of(2);
        for (uint32_t page = 0; page < PAGES; page++)
            cr_assert_eq(map[page], first[page] == '.' ? '.' : 't', "page %u: %c", page, map[page]);
        if (!ended)
            end(&clients[1], 2);
    }
    end(&clients[0], 1);
    json_decref(head_of(2));
    world_stop(world);
}

// --- what is kept ---

static size_t listed(const char *key)
{
    cr_assert_eq(ask("GET", HISTORIES, ""), 200, "%s", answer.text);
    json_t *all = json_loads(answer.body, 0, NULL);
    size_t count = json_array_size(json_object_get(all, key));
    json_decref(all);
    return count;
}

static void live(long long vm)
{
    struct client client;
    start(&client, vm);
    cr_assert(client_obeys(&client, "f"));
    client_tell(&client, 'e');
    cr_assert_eq(client_wait(&client), 0);
}

static bool is_gone(void *vm)
{
    return !is_attached(vm);
}

static void live_and_go(long long vm)
{
    live(vm);
    cr_assert(wait_until(is_gone, &vm));
}

Test(history, is_off_unless_asked_for)
{
    begin(DISTINCT, NULL);
    live_and_go(1);
    cr_assert_eq(listed("histories"), 0);
    cr_assert_eq(ask("GET", HISTORIES "?vm=1", ""), 404);
    cr_assert(http_says(&answer, "no history of VM 1 is kept"));
    world_stop(world);
}

Test(history, is_kept_of_the_next_vms_of_an_image)
{
    begin(DISTINCT, NULL);
    cr_assert_eq(ask("POST", HISTORIES, ORDER), 201, "%s", answer.text);
    cr_assert_eq(listed("orders"), 1);
    for (long long vm = 1; vm <= 3; vm++)
        live_and_go(vm);
    cr_assert_eq(listed("histories"), 2);
    json_decref(head_of(1));
    json_decref(head_of(2));
    cr_assert_eq(ask("POST", HISTORIES, ORDER), 200, "%s", answer.text); // two more
    live_and_go(4);
    cr_assert_eq(listed("histories"), 3);
    cr_assert_eq(ask("DELETE", HISTORIES, "{\"image\":\"image\"}"), 200, "%s", answer.text);
    live_and_go(5);
    cr_assert_eq(listed("histories"), 3);
    cr_assert_eq(ask("DELETE", HISTORIES, "{\"image\":\"image\"}"), 404, "%s", answer.text);
    world_stop(world);
}

// Those of VMs that run stay longest. One that loses its own is served on.
Test(history, of_the_oldest_goes_first)
{
    enum { MOST = 16, VMS = MOST + 4 };
    static struct client client[VMS];
    begin(DISTINCT, kept);
    start(&client[0], 1);
    for (long long vm = 2; vm <= 3; vm++)
        live_and_go(vm);
    for (unsigned i = 3; i < VMS; i++)
        start(&client[i], i + 1);
    cr_assert_eq(listed("histories"), MOST);
    for (unsigned vm = 1; vm <= VMS; vm++) {
        char path[64];
        snprintf(path, sizeof(path), HISTORIES "?vm=%u", vm);
        cr_assert_eq(ask("GET", path, ""), vm <= VMS - MOST ? 404 : 200, "VM %u", vm);
    }
    for (unsigned i = 0; i < VMS; i++) {
        if (i == 1 || i == 2)
            continue;
        cr_assert(client_obeys(&client[i], "sf"));
        client_tell(&client[i], 'e');
        cr_assert_eq(client_wait(&client[i]), 0);
    }
    world_stop(world);
}

// It says from when on it knows anything, and which pages were there by then.
Test(history, of_a_successor_says_that_it_is_one)
{
    struct client client;
    long long vm = 1;
    begin(DISTINCT, kept);
    start(&client, vm);
    cr_assert(client_obeys(&client, "f"));
    cr_assert(wait_until(is_noted, &(struct noted){vm, FAR}));
    unsigned adopted = server_count_log(&world->server, "event=adopt vm=1");
    world->server.deaths++;
    kill(server_engine(&world->server), SIGKILL);
    cr_assert(server_wait_log(&world->server, "event=adopt vm=1", adopted + 1));
    cr_assert(client_obeys(&client, "s"));
    end(&client, vm);
    json_t *head = head_of(vm);
    const char *map = map_of(vm);
    for (uint32_t i = 0; i < FAR; i++)
        cr_assert_eq(map[PAGES - 1 - 3 * i], 'o', "%u: %c %s", i, map[PAGES - 1 - 3 * i], map);
    for (uint32_t page = 0; page < SWEPT; page++)
        cr_assert(map[page] == 'd' || map[page] == 'n');
    cr_assert_str_eq(json_string_value(json_object_get(head, "since")), "take-over");
    cr_assert_lt(number(head, "faults", "count"), number(head, "counters", "faults"));
    json_decref(head);
    world_stop(world);
}

// --- errors ---

static const struct {
    int status;
    const char *method;
    const char *path;
    const char *body;
    const char *sentence;
} wrong[] = {
    {400, "POST", HISTORIES, "null", "the body is not a JSON object"},
    {400, "POST", HISTORIES, "{\"image\":\"image\",\"runs\":1}",
     "the body must be {\"image\": NAME, \"vms\": N}"},
    {400, "POST", HISTORIES, "{\"image\":\"image\",\"vms\":0}", "vms is not from 1 to 16"},
    {400, "POST", HISTORIES, "{\"image\":\"image\",\"vms\":17}", "vms is not from 1 to 16"},
    {400, "POST", HISTORIES, "{\"image\":\"../image\"}", "'../image' cannot name an image"},
    {404, "POST", HISTORIES, "{\"image\":\"other\"}", "the store has no image 'other'"},
    {404, "DELETE", HISTORIES, "{\"image\":\"other\"}",
     "no histories of image 'other' are ordered"},
    {404, "GET", HISTORIES "?vm=7", "", "no history of VM 7 is kept"},
    {400, "GET", HISTORIES "?vm=image", "",
     "vm is not the number of a VM: its history cannot be found"},
    {400, "GET", HISTORIES "?vm=1&map=x", "",
     "map is not a number: that part of the history of VM 1 cannot be found"},
    {400, "GET", HISTORIES "?vm=1&log=-1", "",
     "log is not a number: that part of the history of VM 1 cannot be found"},
    {405, "PUT", HISTORIES, "", HISTORIES " does not take this method"},
};

Test(history, errors_name_what_they_are_about)
{
    begin(DISTINCT, kept);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        cr_assert_eq(ask(wrong[i].method, wrong[i].path, wrong[i].body), wrong[i].status,
                     "%s %s: %s", wrong[i].method, wrong[i].body, answer.text);
        cr_assert(http_says(&answer, wrong[i].sentence), "%s", answer.text);
    }
    live_and_go(1);
    // Beyond its end there is nothing, and no error.
    json_t *part = get(1, "&map=99999999");
    cr_assert_str_eq(json_string_value(json_object_get(part, "map")), "");
    json_decref(part);
    part = get(1, "&log=99999999");
    cr_assert_eq(json_array_size(json_object_get(part, "page")), 0);
    json_decref(part);
    world_stop(world);
}

// --- the verb ---

static int report(char output[1024], const char *a, const char *b, const char *c)
{
    const char *args[] = {"report", "--control", control, a, b, c, NULL};
    return faultline_run(output, 1024, args);
}

static char *contents(const char *path)
{
    static char *text[4];
    static unsigned next;
    size_t size = 0;
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file, "%s", path);
    FILE *to = open_memstream(&text[next], &size);
    for (int c = fgetc(file); c != EOF; c = fgetc(file))
        fputc(c, to);
    fclose(file);
    fclose(to);
    return text[next++ % 4];
}

// Of a VM that has ended, a page is the same whoever makes it, and whatever names the VM.
Test(history, becomes_a_page)
{
    struct client client;
    char output[1024];
    char pid[32];
    char record[2 * TEST_PATH];
    char page[2 * TEST_PATH];
    char again[2 * TEST_PATH];
    begin(MIXED, kept);
    start(&client, 1);
    cr_assert(client_obeys(&client, "sf"));
    snprintf(pid, sizeof(pid), "%d", (int)client.pid);
    end(&client, 1);
    snprintf(record, sizeof(record), "--save=%s", temp_path(&world->temp, "record"));
    snprintf(page, sizeof(page), "--output=%s", temp_path(&world->temp, "page"));
    snprintf(again, sizeof(again), "--output=%s", temp_path(&world->temp, "again"));
    cr_assert_eq(report(output, record, page, "1"), 0, "%s", output);
    const char *first = contents(strchr(page, '=') + 1);
    cr_assert_eq(strncmp(first, "<!DOCTYPE html>", 15), 0, "%.80s", first);
    cr_assert(strstr(first, "<bdi>image</bdi>"));
    const char *const names[] = {"1", "image", pid};
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(report(output, again, names[i], NULL), 0, "%s", output);
        cr_assert_str_eq(contents(strchr(again, '=') + 1), first, "%s", names[i]);
    }
    snprintf(record, sizeof(record), "--record=%s", temp_path(&world->temp, "record"));
    cr_assert_eq(report(output, again, record, NULL), 0, "%s", output);
    cr_assert_str_eq(contents(strchr(again, '=') + 1), first);
    world_stop(world);
}

static void fails(int status, const char *a, const char *b, const char *c, const char *sentence)
{
    char output[1024];
    cr_assert_eq(report(output, a, b, c), status, "%s", output);
    cr_assert(strstr(output, sentence), "%s", output);
}

static const char *record_with(const char *text)
{
    static char option[2 * TEST_PATH];
    const char *path = temp_path(&world->temp, "bad");
    FILE *file = fopen(path, "we");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
    snprintf(option, sizeof(option), "--record=%s", path);
    return option;
}

// In order, and each right: what a hostile record has that takes time by the square of their
// number.
static const char *with_many_buckets(void)
{
    enum { BUCKETS = 5000, BUCKET_TEXT = 32 };
    static char text[BUCKETS * BUCKET_TEXT + 1024];
    int length = snprintf(
        text, sizeof(text), "%s",
        "{\"faultline_history\":1,\"version\":\"0\",\"host\":\"h\",\"image\":\"i\",\"since\":\"s\","
        "\"vm\":1,\"pid\":2,\"page_size\":4096,\"pages\":1,\"begun\":0,\"age_us\":0,"
        "\"counters\":{\"faults\":0,\"installed\":0,\"zeroed\":0,\"poisoned\":0,\"removed\":0},"
        "\"faults\":{\"count\":0,\"logged\":0,\"last_us\":0,\"over_time\":[[0,1,1]");
    for (int i = 1; i < BUCKETS; i++)
        length += snprintf(text + length, sizeof(text) - (size_t)length, ",[%d,%d,1]", i, i + 1);
    snprintf(text + length, sizeof(text) - (size_t)length, "]}}");
    return text;
}

Test(history, report_says_what_is_wrong)
{
    begin(DISTINCT, NULL);
    fails(1, "1", NULL, NULL, "keeps no histories: give it --history");
    cr_assert_eq(ask("POST", HISTORIES, ORDER), 201, "%s", answer.text);
    live_and_go(1);
    fails(1, "7", NULL, NULL, "has no history of a VM, a process or an image '7'");
    fails(1, "--output=/dev/null", "1", NULL, "cannot write /dev/null: ");
    fails(2, "--output=x", NULL, NULL, "one VM is needed");
    fails(2, "--record=x", "1", NULL, "--record takes no VM '1'");
    fails(2, "--save=y", "--record=x", NULL, "--record and --save cannot be given together");
    fails(1, "--record=/does/not/exist", NULL, NULL, "cannot open /does/not/exist: ");
    fails(1, record_with("{"), NULL, NULL, "is not JSON: ");
    fails(1, record_with("[]"), NULL, NULL, "is not a record of 'faultline report --save'");
    fails(1, record_with("{\"faultline_history\":2}"), NULL, NULL, "is of another version");
    fails(1, record_with("{\"faultline_history\":1}"), NULL, NULL, "lacks a text");
    fails(1, record_with(with_many_buckets()), NULL, NULL, "has more buckets than a server writes");
    world_stop(world);
}
