// SPDX-License-Identifier: Apache-2.0
//
// docs/openapi.json says what the control API takes and answers: a server is asked all of it, and
// openapi_check compares. Whatever is renamed, or answered and not described, fails.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"
#include "tests/e2e/protocol/http.h"
#include "tests/support/capture_client.h"

TestSuite(openapi, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

enum { IMAGE_BYTES = 4 << 20, LONG = 70000 };

static struct world *world;
static struct http_answer answer;
static char control[2 * TEST_PATH];
static FILE *answers;

// The observers' socket is in a directory of its own, which can be moved away.
static void begin(void)
{
    char observe[2 * TEST_PATH];
    world = world_make(MIXED, IMAGE_BYTES);
    cr_assert_eq(mkdir(temp_path(&world->temp, "observers"), 0700), 0);
    snprintf(observe, sizeof(observe), "%s", temp_path(&world->temp, "observers/o.sock"));
    world_serve(world, (const char *[]){"--observe", observe, NULL});
    snprintf(control, sizeof(control), "%s", temp_path(&world->temp, "control.sock"));
    answers = fopen(temp_path(&world->temp, "answers"), "we");
    cr_assert_not_null(answers);
}

static void header(char *value, size_t size, const char *name)
{
    char wanted[64];
    snprintf(wanted, sizeof(wanted), "\r\n%s: ", name);
    const char *found = strstr(answer.text, wanted);
    found = found && found < answer.body ? found + strlen(wanted) : "";
    snprintf(value, size, "%.*s", (int)strcspn(found, "\r\n"), found);
}

// Asks, and notes it for openapi_check.
static int ask(const char *method, const char *path, const char *sent)
{
    char type[128];
    char allow[128];
    int status = http_ask(control, &answer, method, path, sent);
    header(type, sizeof(type), "Content-Type");
    header(allow, sizeof(allow), "Allow");
    json_t *line = json_pack("{s:s, s:s, s:s, s:i, s:s, s:s, s:s}", "method", method, "path", path,
                             "sent", strlen(sent) < LONG ? sent : "", "status", status, "allow",
                             allow, "type", type, "text", answer.body);
    cr_assert_not_null(line, "%s %s: %s", method, path, answer.text);
    json_dumpf(line, answers, JSON_COMPACT);
    fputc('\n', answers);
    json_decref(line);
    return status;
}

#define ASK(STATUS, METHOD, PATH, SENT)                                                            \
    cr_assert_eq(ask(METHOD, PATH, SENT), STATUS, "%s %s %s: %s", METHOD, PATH, SENT, answer.text)

static void ask_listeners(void)
{
    char body[3 * TEST_PATH];
    char extra[2 * TEST_PATH];
    snprintf(extra, sizeof(extra), "%s", temp_path(&world->temp, "extra.sock"));
    snprintf(body, sizeof(body),
             "{\"image\":\"image\",\"socket\":\"%s\",\"uid\":0,\"gid\":0,\"mode\":\"0660\","
             "\"on_error\":\"kill\",\"huge\":\"after-replay\"}",
             extra);
    ASK(201, "POST", "/v1/listeners", body);
    ASK(200, "POST", "/v1/listeners", body);
    snprintf(body, sizeof(body), "{\"image\":\"image\",\"socket\":\"%s\"}", extra);
    ASK(409, "POST", "/v1/listeners", body);
    ASK(404, "POST", "/v1/listeners", "{\"image\":\"none\",\"socket\":\"/none\"}");
    ASK(200, "GET", "/v1/listeners", "");
    snprintf(body, sizeof(body), "{\"socket\":\"%s\"}", extra);
    ASK(200, "DELETE", "/v1/listeners", body);
    ASK(404, "DELETE", "/v1/listeners", body);
    snprintf(body, sizeof(body), "{\"socket\":\"%s\"}", world->socket);
    ASK(409, "DELETE", "/v1/listeners", body);
}

static bool is_recorded(void *arg)
{
    (void)arg;
    return http_ask(control, &answer, "GET", "/v1/recordings?image=image", "") == 200 &&
           strstr(answer.body, "\"complete\":1,") != NULL;
}

static bool no_capture_runs(void *arg)
{
    (void)arg;
    return http_ask(control, &answer, "GET", "/v1/captures", "") == 200 &&
           strstr(answer.body, "[]") != NULL;
}

// Of the VM that there is.
static void ask_captures(void)
{
    struct capture_client capture;
    cr_assert(capture_connect(&capture, control), "%s", capture.text);
    cr_assert_eq(capture_begin(&capture, 1, 0), 0, "%s", capture.text);
    ASK(200, "GET", "/v1/captures", "");
    ASK(200, "DELETE", "/v1/captures", "{\"vm\":1}");
    capture_close(&capture);
    ASK(404, "DELETE", "/v1/captures", "{\"vm\":99}");
}

// The VM is being recorded: it cannot have pages of 2 MiB.
static void ask_huge(void)
{
    ASK(202, "POST", "/v1/huge", "{\"vm\":1,\"huge\":\"off\"}");
    ASK(409, "POST", "/v1/huge", "{\"vm\":1,\"huge\":\"after-replay\"}");
    ASK(404, "POST", "/v1/huge", "{\"vm\":99,\"huge\":\"off\"}");
    ASK(400, "POST", "/v1/huge", "{\"vm\":1,\"huge\":\"default\"}");
}

// --- a checkpoint, whose answer is an event a line ---

// HTTP/1.0: no chunks.
static int order_checkpoint(const char *sent)
{
    char request[256];
    int client = http_connect(control);
    int length = snprintf(request, sizeof(request),
                          "POST /v1/checkpoints HTTP/1.0\r\nContent-Length: %zu\r\n\r\n%s",
                          strlen(sent), sent);
    cr_assert_eq(send(client, request, (size_t)length, MSG_NOSIGNAL), length);
    return client;
}

static bool is_to_pause(void *arg)
{
    (void)arg;
    return http_ask(control, &answer, "GET", "/v1/checkpoints", "") == 200 &&
           strstr(answer.body, "\"state\":\"pause\"") != NULL;
}

// Reads to the end, and notes each event for openapi_check.
static void note_events(int client, const char *sent, const char *last)
{
    size_t used = 0;
    ssize_t got;
    while (used + 1 < sizeof(answer.text) &&
           (got = recv(client, answer.text + used, sizeof(answer.text) - used - 1, 0)) > 0)
        used += (size_t)got;
    close(client);
    answer.text[used] = '\0';
    char *body = strstr(answer.text, "\r\n\r\n");
    cr_assert(body && strstr(body, last), "%s", answer.text);
    char *rest = NULL;
    for (char *event = strtok_r(body + 4, "\n", &rest); event;
         event = strtok_r(NULL, "\n", &rest)) {
        json_t *line = json_pack("{s:s, s:s, s:s, s:i, s:s, s:s, s:s}", "method", "POST", "path",
                                 "/v1/checkpoints", "sent", sent, "status", 200, "allow", "",
                                 "type", "application/x-ndjson", "text", event);
        json_dumpf(line, answers, JSON_COMPACT);
        fputc('\n', answers);
        json_decref(line);
    }
}

// On offer, and of a VM that stays paused.
static void ask_live(void)
{
    static const char order[] = "{\"vm\":1,\"name\":\"live\",\"live\":true,\"leave_paused\":true}";
    int client = order_checkpoint(order);
    cr_assert(wait_until(is_to_pause, NULL), "%s", answer.text);
    ASK(200, "POST", "/v1/checkpoints/paused", "{\"vm\":1}");
    note_events(client, order, "\"done\"");
}

// Of a VM that maps its memory file, and that nobody serves: this process is one.
static void ask_base(void)
{
    char of[64];
    char order[256];
    int fd = open(world->file, O_RDONLY | O_CLOEXEC);
    void *memory = mmap(NULL, IMAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    cr_assert(fd >= 0 && memory != MAP_FAILED);
    snprintf(of, sizeof(of), "{\"pid\":%d}", (int)getpid());
    snprintf(order, sizeof(order), "{\"pid\":%d,\"name\":\"of-file\",\"base\":\"image\"}",
             (int)getpid());
    int client = order_checkpoint(order);
    cr_assert(wait_until(is_to_pause, NULL), "%s", answer.text);
    ASK(200, "GET", "/v1/checkpoints", "");
    ASK(200, "POST", "/v1/checkpoints/paused", of);
    note_events(client, order, "\"done\"");
    munmap(memory, IMAGE_BYTES);
    close(fd);
}

static void ask_qmp(void)
{
    static const char order[] = "{\"vm\":1,\"name\":\"of-qemu\",\"qmp\":\"/none/qmp.sock\"}";
    note_events(order_checkpoint(order), order, "\"failed\"");
}

// Nobody writes to the VM's memory, so that it need not be paused.
static void ask_checkpoints(void)
{
    static const char order[] =
        "{\"vm\":1,\"name\":\"new\",\"vmstate\":\"/etc/passwd\",\"drives\":[],"
        "\"labels\":[\"a=b\"],\"keep_armed\":false,\"full\":false,\"while_paused\":false,"
        "\"replace\":true,\"timeout_ms\":60000,\"max_pause_ms\":60000}";
    int client = order_checkpoint(order);
    cr_assert(wait_until(is_to_pause, NULL), "%s", answer.text);
    ASK(200, "GET", "/v1/checkpoints", "");
    ASK(409, "POST", "/v1/checkpoints", order);
    ASK(200, "DELETE", "/v1/checkpoints", "{\"vm\":1}");
    note_events(client, order, "\"failed\"");
    cr_assert(wait_until(no_capture_runs, NULL), "%s", answer.text);
    client = order_checkpoint(order);
    cr_assert(wait_until(is_to_pause, NULL), "%s", answer.text);
    ASK(200, "POST", "/v1/checkpoints/paused", "{\"vm\":1}");
    note_events(client, order, "\"done\"");
    ask_live();
    ask_base();
    ask_qmp();
    ASK(404, "POST", "/v1/checkpoints", "{\"vm\":99,\"name\":\"new\"}");
    ASK(404, "POST", "/v1/checkpoints/paused", "{\"vm\":1}");
    ASK(404, "DELETE", "/v1/checkpoints", "{\"vm\":1}");
}

// A VM that is recorded, and whose history is kept.
static void ask_of_a_vm(void)
{
    static const char order[] = "{\"image\":\"image\",\"id\":\"a\",\"runs\":1,\"window_ms\":60000,"
                                "\"share\":100}";
    struct good good;
    ASK(201, "POST", "/v1/recordings", order);
    ASK(200, "POST", "/v1/recordings", order);
    ASK(409, "POST", "/v1/recordings", "{\"image\":\"image\",\"id\":\"b\"}");
    ASK(404, "POST", "/v1/recordings", "{\"image\":\"none\"}");
    ASK(201, "POST", "/v1/histories", "{\"image\":\"image\",\"vms\":2}");
    ASK(200, "POST", "/v1/histories", "{\"image\":\"image\",\"vms\":2}");
    ASK(404, "POST", "/v1/histories", "{\"image\":\"none\"}");
    good_start(&good, world->socket, &world->memory);
    ASK(200, "GET", "/v1/status", "");
    ASK(200, "GET", "/v1/histories", "");
    ASK(200, "GET", "/v1/histories?vm=1", "");
    ASK(200, "GET", "/v1/histories?vm=1&log=0", "");
    ASK(200, "GET", "/v1/histories?vm=1&map=0", "");
    ASK(404, "GET", "/v1/histories?vm=99", "");
    ASK(400, "GET", "/v1/histories?vm=x", "");
    ask_huge();
    ask_captures();
    cr_assert(wait_until(no_capture_runs, NULL), "%s", answer.text);
    ask_checkpoints();
    cr_assert_eq(good_end(&good), 0);
    cr_assert(wait_until(is_recorded, NULL));
    ASK(200, "GET", "/v1/recordings", "");
    ASK(200, "GET", "/v1/recordings?image=image", "");
    ASK(200, "GET", "/v1/recordings?image=image&run=0&from=1", "");
    ASK(404, "GET", "/v1/recordings?image=image&run=7", "");
    ASK(400, "GET", "/v1/recordings?image=image&run=x", "");
    ASK(200, "DELETE", "/v1/recordings", "{\"image\":\"image\"}");
    ASK(404, "DELETE", "/v1/recordings", "{\"image\":\"image\"}");
    ASK(200, "DELETE", "/v1/histories", "{\"image\":\"image\"}");
    ASK(404, "DELETE", "/v1/histories", "{\"image\":\"image\"}");
}

static bool template_has(void *state)
{
    return http_ask(control, &answer, "GET", "/v1/templates", "") == 200 &&
           strstr(answer.body, state) != NULL;
}

static void ask_templates(void)
{
    ASK(202, "POST", "/v1/templates", "{\"image\":\"image\",\"complete\":true}");
    cr_assert(wait_until(template_has, (void *)"\"state\":\"complete\""), "%s", answer.text);
    ASK(200, "GET", "/v1/templates", "");
    ASK(404, "POST", "/v1/templates", "{\"image\":\"none\"}");
    ASK(200, "DELETE", "/v1/templates", "{\"image\":\"image\"}");
    ASK(404, "DELETE", "/v1/templates", "{\"image\":\"image\"}");
}

// One that cannot be had says why.
static void ask_of_a_bad_template(void)
{
    char path[2 * TEST_PATH];
    snprintf(path, sizeof(path), "%s", temp_path(&world->temp, "store/images/bad.img"));
    FILE *file = fopen(path, "we");
    cr_assert(file && fputs("no image", file) >= 0 && fclose(file) == 0);
    ASK(202, "POST", "/v1/templates", "{\"image\":\"bad\"}");
    cr_assert(wait_until(template_has, (void *)"\"state\":\"failed\""), "%s", answer.text);
    ASK(200, "GET", "/v1/templates", "");
    cr_assert_eq(unlink(path), 0);
}

// At the observers' socket each order is refused.
static void ask_what_is_forbidden(void)
{
    static const char *const paths[] = {"/v1/listeners", "/v1/recordings", "/v1/histories",
                                        "/v1/templates", "/v1/drain",      "/v1/upgrade",
                                        "/v1/huge"};
    char own[2 * TEST_PATH];
    snprintf(own, sizeof(own), "%s", control);
    snprintf(control, sizeof(control), "%s", temp_path(&world->temp, "observers/o.sock"));
    for (unsigned i = 0; i < 7; i++) {
        ASK(403, "POST", paths[i], "{}");
        if (i < 4)
            ASK(403, "DELETE", paths[i], "{}");
    }
    ASK(403, "DELETE", "/v1/captures", "{}");
    ASK(403, "POST", "/v1/checkpoints", "{}");
    ASK(403, "POST", "/v1/checkpoints/paused", "{}");
    ASK(403, "DELETE", "/v1/checkpoints", "{}");
    snprintf(control, sizeof(control), "%s", own);
}

// What every path has: errors of the body, methods that it does not take.
static void ask_nonsense(const json_t *paths)
{
    static const char *const methods[] = {"GET", "HEAD",  "POST",   "DELETE",
                                          "PUT", "PATCH", "OPTIONS"};
    static const char *const nowhere[] = {
        "/",          "/v1",       "/v1/",      "/v1/statu",     "/v1/status/",
        "/v2/status", "/metrics/", "//metrics", "/healthz/live", "/v1/vms"};
    char *body = malloc(LONG + 1);
    const char *path;
    json_t *item;
    memset(body, ' ', LONG);
    body[LONG] = '\0';
    json_object_foreach((json_t *)paths, path, item)
    {
        for (unsigned i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
            bool known = (i == 2 && json_object_get(item, "post")) ||
                         (i == 3 && json_object_get(item, "delete"));
            ask(methods[i], path, known ? "{\"no such field\":1}" : "");
            if (known)
                cr_assert_eq(answer.status, 400, "%s %s: %s", methods[i], path, answer.text);
            if (known || (i == 0 && json_object_get(item, "get")))
                ASK(413, methods[i], path, body);
        }
    }
    for (unsigned i = 0; i < sizeof(nowhere) / sizeof(nowhere[0]); i++)
        ASK(404, "GET", nowhere[i], "");
    free(body);
}

// The server names all its paths when it does not know one: these, and no other, are in the file.
static void compare_paths(const json_t *paths)
{
    const char *path;
    json_t *item;
    size_t known = 0;
    ASK(404, "GET", "/nowhere", "");
    const char *list = strstr(answer.body, "but these: ");
    cr_assert_not_null(list, "%s", answer.body);
    for (const char *slash = list + strlen("but these: "); slash; slash = strchr(slash, ','))
        known += *slash == ',' ? slash++ != NULL : 1;
    json_object_foreach((json_t *)paths, path, item)
        cr_assert_not_null(strstr(list, path), "%s is in the file and not in the server", path);
    cr_assert_eq(known, json_object_size(paths), "paths that are not in the file: %s", list);
}

static void compare_all(void)
{
    char command[4 * TEST_PATH];
    cr_assert_eq(fclose(answers), 0);
    snprintf(command, sizeof(command), OPENAPI_CHECK " " OPENAPI " '%s' >&2",
             temp_path(&world->temp, "answers"));
    cr_assert_eq(system(command), 0, "docs/openapi.json is not what the server does");
}

static bool is_degraded(void *arg)
{
    (void)arg;
    return http_ask(control, &answer, "GET", "/v1/status", "") == 200 &&
           strstr(answer.body, "\"what\":\"observe\"") != NULL;
}

static void ask_while_degraded(void)
{
    const char *path = temp_path(&world->temp, "observers");
    cr_assert_eq(rename(path, temp_path(&world->temp, "elsewhere")), 0);
    cr_assert(wait_until(is_degraded, NULL), "%s", answer.text);
    ASK(200, "GET", "/v1/status", "");
    ASK(200, "GET", "/readyz", "");
    cr_assert_not_null(strstr(answer.body, "\nobserve: degraded: "), "%s", answer.body);
    cr_assert_eq(rename(temp_path(&world->temp, "elsewhere"), path), 0);
}

static void ask_upgrades(void)
{
    char body[8192];
    ASK(202, "POST", "/v1/upgrade", "{\"engine\":\"/no/such/engine\",\"keeper\":false}");
    cr_assert(server_wait_log(&world->server, "event=upgrade state=failed", 1));
    ASK(400, "POST", "/v1/upgrade", "{\"engine\":\"not/absolute\"}");
    int length = snprintf(body, sizeof(body), "{\"engine\":\"/%06000d\"}", 0);
    cr_assert_lt(length, (int)sizeof(body));
    ASK(503, "POST", "/v1/upgrade", body);
}

static void ask_while_draining(void)
{
    ASK(200, "GET", "/readyz", "");
    ASK(200, "POST", "/v1/drain", "");
    ASK(200, "POST", "/v1/drain", "{\"populate\":true}");
    ASK(503, "GET", "/readyz", "");
    ASK(200, "GET", "/healthz", "");
    ASK(503, "POST", "/v1/listeners", "{\"image\":\"image\",\"socket\":\"/none\"}");
    ASK(503, "POST", "/v1/recordings", "{\"image\":\"image\"}");
    ASK(503, "POST", "/v1/histories", "{\"image\":\"image\"}");
    ASK(503, "POST", "/v1/templates", "{\"image\":\"image\"}");
}

Test(openapi, describes_all_that_the_server_does_and_no_more)
{
    json_t *document = json_load_file(OPENAPI, 0, NULL);
    const json_t *paths = json_object_get(document, "paths");
    cr_assert_not_null(paths, OPENAPI);
    begin();
    compare_paths(paths);
    ask_nonsense(paths);
    ask_what_is_forbidden();
    ask_listeners();
    ask_of_a_vm();
    ask_templates();
    ask_of_a_bad_template();
    ask_while_degraded();
    ask_upgrades();
    ask_while_draining();
    compare_all();
    json_decref(document);
    world_stop(world);
}
