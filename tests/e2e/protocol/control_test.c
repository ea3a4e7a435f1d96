// SPDX-License-Identifier: Apache-2.0
//
// The control API: what it tells, where it listens for images, and what nonsense it survives.
#include <criterion/criterion.h>
#include <ctype.h>
#include <jansson.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"
#include "tests/e2e/protocol/http.h"

TestSuite(control, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

#define LONG_NAME "a-directory-with-a-long-name-as-jailers-make-them-0123456789"
enum { IMAGE_BYTES = 4 << 20, BUSY_PAGES = 32 };

static struct world *world;

// In a buffer of 2 * TEST_PATH bytes: temp_path() keeps few of them.
static void put_path(char *to, const char *name)
{
    snprintf(to, (size_t)2 * TEST_PATH, "%s", temp_path(&world->temp, name));
}

static void begin(void)
{
    world = world_make(MIXED, IMAGE_BYTES);
    world_serve(world, NULL);
}

static const char *control(void)
{
    return temp_path(&world->temp, "control.sock");
}

static int listen_at(char *output, size_t size, const char *image, const char *socket,
                     const char *owner)
{
    const char *args[] = {"listen", "--control", control(), "--image",
                          image,    "--socket",  socket,    owner ? "--owner" : NULL,
                          owner,    NULL};
    return faultline_run(output, size, args);
}

// --- sockets for images ---

static bool is_gone(void *path)
{
    struct stat status;
    return lstat(path, &status) != 0;
}

static void check_served(const char *socket, const struct memory *memory)
{
    struct good good;
    good_start(&good, socket, memory);
    cr_assert_eq(good_end(&good), 0, "%s", socket);
}

Test(control, images_that_come_and_go_have_their_sockets)
{
    char file[2 * TEST_PATH];
    char socket[2 * TEST_PATH];
    char image[2 * TEST_PATH];
    char aside[2 * TEST_PATH];
    struct memory memory;
    begin();
    put_path(file, "late.mem");
    put_path(socket, "sockets/late.sock");
    put_path(image, "store/images/late.img");
    put_path(aside, "aside");
    memory_make_distinct(&memory, file, 1 << 20, 5);
    world_pack(world, file, "late");
    cr_assert(wait_until(socket_is_open, socket), "no socket for an image that was added");
    check_served(socket, &memory);
    // A file system without RENAME_NOREPLACE has images appear as links.
    cr_assert_eq(link(image, aside), 0);
    cr_assert_eq(unlink(image), 0);
    cr_assert(wait_until(is_gone, socket));
    cr_assert_eq(link(aside, image), 0);
    cr_assert(wait_until(socket_is_open, socket), "no socket for an image that was linked");
    const char *args[] = {"rm", "--store", world->store, "late", NULL};
    cr_assert_eq(faultline_run(NULL, 0, args), 0);
    cr_assert(wait_until(is_gone, socket), "the socket outlives its image");
    check_served(world->socket, &world->memory);
    world_stop(world);
    memory_free(&memory);
}

Test(control, listens_where_it_is_told_to)
{
    char output[1024];
    char path[2 * TEST_PATH];
    struct stat status;
    begin();
    put_path(path, "other.sock");
    cr_assert_eq(listen_at(output, sizeof(output), "image", path, "1234:5678"), 0, "%s", output);
    cr_assert_eq(stat(path, &status), 0);
    cr_assert(status.st_uid == 1234 && status.st_gid == 5678, "%u:%u", status.st_uid,
              status.st_gid);
    check_served(path, &world->memory);
    // Longer than a socket's address.
    put_path(path, LONG_NAME);
    cr_assert_eq(mkdir(path, 0700), 0);
    put_path(path, LONG_NAME "/" LONG_NAME);
    cr_assert_eq(mkdir(path, 0700), 0);
    put_path(path, LONG_NAME "/" LONG_NAME "/faultline.sock");
    cr_assert_eq(listen_at(output, sizeof(output), "image", path, NULL), 0, "%s", output);
    check_served(path, &world->memory);
    // Relative to the directory of the caller, not of the server.
    cr_assert_eq(chdir(world->temp.path), 0);
    cr_assert_eq(listen_at(output, sizeof(output), "image", "here.sock", NULL), 0, "%s", output);
    check_served(temp_path(&world->temp, "here.sock"), &world->memory);
    world_stop(world);
    cr_assert(is_gone(path), "a socket is left");
    put_path(path, "here.sock");
    cr_assert(is_gone(path), "a socket is left");
}

static unsigned mode_of(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 ? status.st_mode & 07777U : 0;
}

Test(control, sockets_have_the_owner_and_the_mode_asked_for)
{
    static struct http_answer answer;
    char output[1024];
    char path[2 * TEST_PATH];
    char body[4 * TEST_PATH];
    struct stat status;
    begin();
    put_path(path, "other.sock");
    const char *args[] = {"listen", "--control", control(), "--image", "image",       "--socket",
                          path,     "--mode",    "0606",    "--owner", "daemon:4711", NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
    cr_assert_eq(stat(path, &status), 0);
    const struct passwd *daemon = getpwnam("daemon");
    cr_assert_not_null(daemon);
    cr_assert(status.st_uid == daemon->pw_uid && status.st_gid == 4711);
    cr_assert_eq(mode_of(path), 0606);
    // Once more is as good as once, with the access that was asked for last.
    snprintf(body, sizeof(body), "{\"image\":\"image\",\"socket\":\"%s\",\"mode\":\"0640\"}", path);
    cr_assert_eq(http_ask(control(), &answer, "POST", "/v1/listeners", body), 200, "%s",
                 answer.text);
    cr_assert_eq(mode_of(path), 0640);
    snprintf(body, sizeof(body), "{\"image\":\"image\",\"socket\":\"%s\",\"mode\":384}", path);
    cr_assert_eq(http_ask(control(), &answer, "POST", "/v1/listeners", body), 200, "%s",
                 answer.text);
    cr_assert_eq(mode_of(path), 0600);
    check_served(path, &world->memory);
    world_stop(world);
}

static unsigned list_listeners(const char *socket)
{
    char output[8192];
    size_t i;
    const json_t *listener;
    unsigned found = 0;
    const char *args[] = {"listen", "--control", control(), "--list", "--json", NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
    json_t *answer = json_loads(output, 0, NULL);
    cr_assert_not_null(answer, "%s", output);
    json_array_foreach(json_object_get(answer, "listeners"), i, listener) found +=
        strcmp(json_string_value(json_object_get(listener, "socket")), socket) == 0;
    json_decref(answer);
    return found;
}

static int remove_listener(char *output, size_t size, const char *socket)
{
    const char *args[] = {"listen", "--control", control(), "--remove", "--socket", socket, NULL};
    return faultline_run(output, size, args);
}

Test(control, listeners_are_listed_and_taken_away)
{
    char output[1024];
    char path[2 * TEST_PATH];
    begin();
    put_path(path, "other.sock");
    cr_assert_eq(listen_at(output, sizeof(output), "image", path, NULL), 0, "%s", output);
    // An engine that takes over has them, too.
    world->server.deaths++;
    cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
    cr_assert(server_wait_log(&world->server, "generation=2", 1));
    check_served(path, &world->memory);
    cr_assert(list_listeners(path) == 1 && list_listeners(world->socket) == 1);
    cr_assert_eq(remove_listener(output, sizeof(output), path), 0, "%s", output);
    cr_assert(is_gone(path));
    cr_assert_eq(list_listeners(path), 0);
    cr_assert_eq(remove_listener(output, sizeof(output), path), 1);
    cr_assert_not_null(strstr(output, "this server does not listen at"), "%s", output);
    cr_assert_eq(remove_listener(output, sizeof(output), world->socket), 1);
    cr_assert_not_null(strstr(output, "is the socket of image 'image' and is removed"), "%s",
                       output);
    check_served(world->socket, &world->memory);
    // One whose socket somebody has deleted is replaced.
    cr_assert_eq(listen_at(output, sizeof(output), "image", path, NULL), 0, "%s", output);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(listen_at(output, sizeof(output), "image", path, NULL), 0, "%s", output);
    cr_assert_eq(list_listeners(path), 1);
    check_served(path, &world->memory);
    world_stop(world);
}

Test(control, all_sockets_go_with_their_image)
{
    char output[1024];
    char path[2 * TEST_PATH];
    char other[2 * TEST_PATH];
    struct good good;
    begin();
    world_pack(world, world->file, "second");
    put_path(path, "extra.sock");
    put_path(other, "other.sock");
    cr_assert_eq(listen_at(output, sizeof(output), "image", path, NULL), 0, "%s", output);
    cr_assert_eq(listen_at(output, sizeof(output), "second", other, NULL), 0, "%s", output);
    good_start(&good, path, &world->memory);
    const char *args[] = {"rm", "--store", world->store, "image", NULL};
    cr_assert_eq(faultline_run(NULL, 0, args), 0);
    cr_assert(wait_until(is_gone, path), "the extra socket outlives its image");
    cr_assert(wait_until(is_gone, (void *)world->socket), "the socket outlives its image");
    cr_assert_eq(list_listeners(path), 0);
    // Who was served before is served on, and so are others.
    cr_assert_eq(good_end(&good), 0);
    check_served(other, &world->memory);
    world_stop(world);
}

Test(control, says_why_it_cannot_listen)
{
    static const struct {
        const char *image;
        const char *socket;
        const char *reason;
    } bad[] = {
        {"other", "x.sock", "the store has no image 'other'"},
        {"../image", "x.sock", "'../image' cannot name an image"},
        {"second", "sockets/image.sock", "sockets/image.sock for image 'image'"},
        {"image", "control.sock", "control.sock: another process listens there"},
        {"image", "memory", "there is something that is not a socket"},
        {"image", "sockets", "there is something that is not a socket"},
        {"image", "no/such/x.sock", "the directory of the socket does not exist"},
    };
    char output[1024];
    begin();
    world_pack(world, world->file, "second");
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *path = temp_path(&world->temp, bad[i].socket);
        cr_assert_eq(listen_at(output, sizeof(output), bad[i].image, path, NULL), 1, "%s", path);
        cr_assert_not_null(strstr(output, bad[i].reason), "%s", output);
        cr_assert_eq(strchr(output, '\n'), output + strlen(output) - 1, "one line: %s", output);
    }
    cr_assert_neq(access(temp_path(&world->temp, "x.sock"), F_OK), 0);
    check_served(world->socket, &world->memory);
    world_stop(world);
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

Test(control, drain_waits_as_long_as_it_is_told_to)
{
    char output[1024];
    struct good good;
    begin();
    good_start(&good, world->socket, &world->memory);
    const char *args[] = {"drain", "--control", control(), "--timeout", "1", NULL};
    uint64_t start = now_ms();
    cr_assert_eq(faultline_run(output, sizeof(output), args), 1, "%s", output);
    cr_assert_geq(now_ms() - start, 1000);
    cr_assert_not_null(strstr(output, "1 VM still depends on the server"), "%s", output);
    cr_assert_eq(good_end(&good), 0);
    world_stop(world);
}

// --- nonsense ---

static void check_errors(struct http_answer *answer)
{
    cr_assert_eq(http_ask(control(), answer, "GET", "/v2/status", ""), 404, "%s", answer->text);
    cr_assert_eq(http_ask(control(), answer, "GET", "/", ""), 404, "%s", answer->text);
    cr_assert_eq(http_ask(control(), answer, "DELETE", "/v1/status", ""), 405, "%s", answer->text);
    cr_assert_not_null(strstr(answer->text, "\r\nAllow: GET, HEAD\r\n"), "%s", answer->text);
    cr_assert_eq(http_ask(control(), answer, "POST", "/metrics", "{}"), 405, "%s", answer->text);
    cr_assert_eq(http_ask(control(), answer, "PUT", "/v1/listeners", ""), 405, "%s", answer->text);
    cr_assert_not_null(strstr(answer->text, "\r\nAllow: GET, HEAD, POST, DELETE\r\n"), "%s",
                       answer->text);
    cr_assert_eq(http_ask(control(), answer, "HEAD", "/v1/status", ""), 200, "%s", answer->text);
    cr_assert_str_eq(answer->body, "", "HEAD has a body: %s", answer->text);
    cr_assert_eq(http_ask(control(), answer, "HEAD", "/v1/drain", ""), 405, "%s", answer->text);
    cr_assert_eq(http_ask(control(), answer, "DELETE", "/v1/listeners", ""), 400, "%s",
                 answer->text);
    cr_assert_eq(http_ask(control(), answer, "DELETE", "/v1/listeners", "{\"socket\":1}"), 400);
    cr_assert_eq(http_ask(control(), answer, "DELETE", "/v1/listeners", "{\"socket\":\"/none\"}"),
                 404);
    cr_assert(http_says(answer, "this server does not listen at /none"));
    cr_assert_eq(http_ask(control(), answer, "POST", "/v1/listeners", "{"), 400, "%s",
                 answer->text);
    cr_assert(http_says(answer, "the body is not a JSON object"));
    cr_assert_eq(http_ask(control(), answer, "POST", "/v1/listeners", "[1]"), 400, "%s",
                 answer->text);
    cr_assert_eq(http_ask(control(), answer, "POST", "/v1/listeners",
                          "{\"image\":\"image\",\"socket\":\"x.sock\"}"),
                 400, "%s", answer->text);
    cr_assert(http_says(answer, "the socket's path is not absolute"));
    cr_assert_eq(http_ask(control(), answer, "POST", "/v1/listeners",
                          "{\"image\":\"image\",\"socket\":\"/x.sock\",\"uid\":-2}"),
                 400, "%s", answer->text);
    cr_assert(http_says(answer, "uid, gid or mode is out of range"));
    static const char *const modes[] = {"512", "-1", "\"0888\"", "\"1000\"", "\"\"", "true"};
    for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        char body[128];
        snprintf(body, sizeof(body), "{\"image\":\"image\",\"socket\":\"/x.sock\",\"mode\":%s}",
                 modes[i]);
        cr_assert_eq(http_ask(control(), answer, "POST", "/v1/listeners", body), 400, "%s",
                     modes[i]);
        cr_assert(http_says(answer, "uid, gid or mode is out of range"));
    }
}

static void send_garbage(uint64_t seed)
{
    uint64_t garbage[512];
    int fd = vmm_connect(control());
    for (unsigned i = 0; i < 512; i++)
        garbage[i] = random_next(&seed);
    for (unsigned i = 0; i < 16; i++)
        (void)!send(fd, garbage, sizeof(garbage), MSG_NOSIGNAL);
    close(fd);
}

Test(control, nonsense_is_answered_or_dropped)
{
    static struct http_answer answer;
    static char body[100 * 1024 + 1];
    struct good good;
    begin();
    good_start(&good, world->socket, &world->memory);
    check_errors(&answer);
    memset(body, ' ', sizeof(body) - 1);
    cr_assert_eq(http_ask(control(), &answer, "POST", "/v1/listeners", body), 413, "%s",
                 answer.text);
    for (unsigned i = 0; i < 20; i++)
        send_garbage(i);
    int half = vmm_connect(control());
    cr_assert_gt(send(half, "GET /v1/st", 10, MSG_NOSIGNAL), 0);
    cr_assert_eq(http_ask(control(), &answer, "GET", "/v1/status", ""), 200, "%s", answer.text);
    close(half);
    cr_assert(good_touch(&good, BUSY_PAGES));
    cr_assert_eq(good_end(&good), 0);
    world_stop(world);
}

Test(control, idle_connections_delay_no_fault)
{
    static struct http_answer answer;
    struct good good;
    int idle[400];
    begin();
    good_start(&good, world->socket, &world->memory);
    for (unsigned i = 0; i < 400; i++) {
        idle[i] = vmm_connect(control());
        if (i % 40 == 0)
            cr_assert(good_touch(&good, BUSY_PAGES));
        if (i == 200)
            cr_assert_eq(http_ask(control(), &answer, "GET", "/v1/status", ""), 200, "%s",
                         answer.text);
    }
    check_served(world->socket, &world->memory);
    for (unsigned i = 0; i < 400; i++)
        close(idle[i]);
    cr_assert_eq(http_ask(control(), &answer, "GET", "/v1/status", ""), 200, "%s", answer.text);
    cr_assert_eq(good_end(&good), 0);
    world_stop(world);
}

// --- what it tells ---

Test(control, status_is_complete)
{
    char output[8192];
    struct good good;
    const char *image = NULL;
    json_int_t vms, read, installed, copied, count, limit, pages;
    double p50;
    begin();
    good_start(&good, world->socket, &world->memory);
    const char *args[] = {"status", "--control", control(), "--json", NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
    json_error_t error;
    json_t *status = json_loads(output, 0, &error);
    cr_assert_not_null(status, "%s: %s", error.text, output);
    int unpacked = json_unpack_ex(
        status, &error, 0,
        "{s:s s:i s:i s:I s:{s:I s:I s:i s:i s:i s:i} s:{s:I s:i s:i} s:{s:I s:F s:F s:F s:F}"
        " s:{s:i s:I s:i s:i s:i s:i} s:{s:i s:i} s:[{s:s s:i s:s s:i s:I s:i s:i s:i}]}",
        "version", &image, "pid", &(int){0}, "workers", &(int){0}, "vms", &vms, "faults", "read",
        &read, "installed", &installed, "zeroed", &(int){0}, "poisoned", &(int){0}, "duplicates",
        &(int){0}, "parked", &(int){0}, "pages", "copied", &copied, "zeroed", &(int){0}, "removed",
        &(int){0}, "latency_us", "count", &count, "p50", &p50, "p90", &(double){0}, "p99",
        &(double){0}, "max", &(double){0}, "cache", "bytes", &(int){0}, "limit", &limit, "frames",
        &(int){0}, "hits", &(int){0}, "misses", &(int){0}, "evictions", &(int){0}, "memory",
        "allocated", &(int){0}, "resident", &(int){0}, "vm_list", "image", &image, "pid", &(int){0},
        "state", &(const char *){NULL}, "page_size", &(int){0}, "pages", &pages, "installed",
        &(int){0}, "removed", &(int){0}, "faults", &(int){0});
    cr_assert_eq(unpacked, 0, "%s: %s", error.text, output);
    cr_assert(vms == 1 && read > 0 && count > 0 && limit > 0, "%s", output);
    cr_assert(pages == IMAGE_BYTES / PAGE && strcmp(image, "image") == 0, "%s", output);
    json_decref(status);
    args[3] = NULL;
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0);
    cr_assert(strstr(output, "VMs       1 now, 1 ever, 0 handshakes refused") &&
                  strstr(output, "serving") && strstr(output, "latency   p50") &&
                  strstr(output, "keeper    ") && strstr(output, "replay    0 running") &&
                  !strstr(output, "DRAINING"),
              "%s", output);
    cr_assert_eq(good_end(&good), 0);
    world_stop(world);
}

// A sample belongs to a family that was described before: its own name, or that of a summary.
static bool described(const char *text, const char *at, const char *what, const char *name,
                      size_t length)
{
    char wanted[256];
    static const char *const suffixes[] = {"", "_sum", "_count", "_bucket"};
    for (unsigned i = 0; i < 4; i++) {
        size_t cut = strlen(suffixes[i]);
        if (cut > length || strncmp(name + length - cut, suffixes[i], cut) != 0)
            continue;
        snprintf(wanted, sizeof(wanted), "# %s %.*s ", what, (int)(length - cut), name);
        const char *found = strstr(text, wanted);
        if (found && found < at)
            return true;
    }
    return false;
}

static void check_sample(const char *text, const char *line)
{
    size_t name = strcspn(line, "{ \n");
    const char *value = line + name;
    char *end = NULL;
    cr_assert(strncmp(line, "faultline_", 10) == 0 || strncmp(line, "process_", 8) == 0, "%.80s",
              line);
    for (size_t i = 0; i < name; i++)
        cr_assert(isalnum((unsigned char)line[i]) || line[i] == '_', "%.80s", line);
    cr_assert(described(text, line, "HELP", line, name), "no HELP: %.80s", line);
    cr_assert(described(text, line, "TYPE", line, name), "no TYPE: %.80s", line);
    if (*value == '{')
        value = strstr(value, "\"}");
    cr_assert_not_null(value, "%.80s", line);
    value += *value == '"' ? 2 : 0;
    cr_assert_eq(*value, ' ', "%.80s", line);
    strtod(value, &end);
    cr_assert(end != value && *end == '\n', "%.80s", line);
}

Test(control, metrics_are_well_formed)
{
    static struct http_answer answer;
    unsigned samples = 0;
    begin();
    check_served(world->socket, &world->memory);
    cr_assert_eq(http_ask(control(), &answer, "GET", "/metrics", ""), 200);
    cr_assert_not_null(strstr(answer.text, "text/plain; version=0.0.4"));
    for (const char *line = answer.body; *line != '\0'; line = strchr(line, '\n') + 1) {
        cr_assert_not_null(strchr(line, '\n'), "the last line has no end");
        if (*line == '#')
            continue;
        check_sample(answer.body, line);
        samples++;
    }
    cr_assert_gt(samples, 15);
    world_stop(world);
}

Test(control, metrics_tell_of_draining)
{
    static struct http_answer answer;
    begin();
    cr_assert_eq(http_ask(control(), &answer, "GET", "/metrics", ""), 200);
    cr_assert_not_null(strstr(answer.body, "\nfaultline_draining 0\n"), "%s", answer.body);
    cr_assert_eq(http_ask(control(), &answer, "POST", "/v1/drain", "{}"), 200);
    cr_assert_eq(http_ask(control(), &answer, "GET", "/metrics", ""), 200);
    cr_assert_not_null(strstr(answer.body, "\nfaultline_draining 1\n"), "%s", answer.body);
    world_stop(world);
}
