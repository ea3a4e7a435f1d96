// SPDX-License-Identifier: Apache-2.0
//
// Orders by the control API, to record and for templates: those that make no sense, many at once,
// and images, VMs, engines and clients that go meanwhile.
#include <criterion/criterion.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"
#include "tests/e2e/protocol/http.h"

TestSuite(control_orders, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

#define RECORDINGS "/v1/recordings"
#define TEMPLATES "/v1/templates"
#define IMAGE "{\"image\":\"image\"}"
enum { IMAGE_BYTES = 4 << 20, BIG_BYTES = 96 << 20, CROWD = 16, SLOW = 300, ROUNDS = 10 };

static struct world *world;
static char control[2 * TEST_PATH]; // temp_path() keeps few
static struct http_answer answer;

static void begin(uint64_t bytes)
{
    world = world_make(DISTINCT, bytes);
    world_serve(world, NULL);
    snprintf(control, sizeof(control), "%s", temp_path(&world->temp, "control.sock"));
}

static int ask(const char *method, const char *path, const char *body)
{
    return http_ask(control, &answer, method, path, body);
}

static json_int_t number(const char *key)
{
    json_t *body = json_loads(answer.body, 0, NULL);
    json_int_t value = json_integer_value(json_object_get(body, key));
    json_decref(body);
    return value;
}

// --- errors ---

static const struct {
    int status;
    const char *method;
    const char *path;
    const char *body;
    const char *sentence;
} wrong[] = {
    {400, "POST", RECORDINGS, " ", "the body is not a JSON object"},
    {400, "POST", RECORDINGS, "null", "the body is not a JSON object"},
    {400, "POST", TEMPLATES, "{\"image\":\"im\\u0000age\"}", "the body is not a JSON object"},
    {400, "POST", TEMPLATES, "{\"image\":\"\xff\"}", "the body is not a JSON object"},
    {400, "DELETE", TEMPLATES, "{\"image\":\"a\",\"image\":\"b\"}", "the body has a key twice"},
    {400, "POST", RECORDINGS, "{\"image\":\"image\",\"runs\":18446744073709551617}",
     "a number in the body is too big"},
    {400, "POST", RECORDINGS, "{\"image\":\"image\",\"runs\":0}", "runs is not from 1 to 64"},
    {400, "POST", RECORDINGS, "{\"image\":\"image\",\"runs\":4294967297}",
     "runs is not from 1 to 64"},
    {400, "POST", RECORDINGS, "{\"image\":\"image\",\"window_ms\":-1}",
     "window_ms is not from 1 to 3600000"},
    {400, "POST", RECORDINGS, "{\"image\":\"image\",\"share\":101}", "share is not from 1 to 100"},
    {400, "POST", RECORDINGS, "{\"image\":\"../image\"}", "'../image' cannot name an image"},
    {400, "DELETE", RECORDINGS, "{\"image\":\"\"}", "'' cannot name an image"},
    {400, "GET", RECORDINGS "?image=%ff", "", "'?' cannot name an image"},
    {400, "POST", TEMPLATES, "{\"image\":\"/etc/passwd\"}", "'/etc/passwd' cannot name an image"},
    {400, "DELETE", TEMPLATES, "{\"image\":\"..\"}", "'..' cannot name an image"},
    {400, "POST", TEMPLATES, "{\"image\":\"image\",\"complete\":1}",
     "the body must be {\"image\": NAME, \"complete\": BOOLEAN}"},
    {404, "POST", RECORDINGS, "{\"image\":\"other\"}", "the store has no image 'other'"},
    {404, "POST", TEMPLATES, "{\"image\":\"other\"}", "the store has no image 'other'"},
    {404, "GET", RECORDINGS "?image=other", "", "no recordings of image 'other' are ordered"},
    {404, "DELETE", RECORDINGS, "{\"image\":\"other\"}",
     "no recordings of image 'other' are ordered"},
    {404, "DELETE", TEMPLATES, IMAGE, "no template of image 'image' was asked for"},
    {405, "PUT", RECORDINGS, "", RECORDINGS " does not take this method"},
    // Once there is an order:
    {201, "POST", RECORDINGS, IMAGE, NULL},
    {409, "POST", RECORDINGS, IMAGE,
     "another client has ordered recordings of image 'image': wait for them, or 'faultline record "
     "--cancel image'"},
    {404, "GET", RECORDINGS "?image=image&run=0", "",
     "image 'image' has 0 complete recordings, and none has number 0"},
    {404, "GET", RECORDINGS "?image=image&run=999999999999999999", "",
     "image 'image' has 0 complete recordings, and none has number 999999999999999999"},
    {400, "GET", RECORDINGS "?image=image&run=-1", "",
     "run is not a number: a recording of image 'image' cannot be found"},
    {400, "GET", RECORDINGS "?image=image&run=9999999999999999999", "",
     "run is not a number: a recording of image 'image' cannot be found"},
    {400, "GET", RECORDINGS "?image=image&run=0&from=1.5", "",
     "from is not a number: a recording of image 'image' cannot be found"},
    {200, "DELETE", RECORDINGS, IMAGE, NULL},
    {404, "DELETE", RECORDINGS, IMAGE, "no recordings of image 'image' are ordered"},
};

Test(control_orders, errors_name_what_they_are_about)
{
    static char long_name[32 * 1024];
    begin(IMAGE_BYTES);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        cr_assert_eq(ask(wrong[i].method, wrong[i].path, wrong[i].body), wrong[i].status,
                     "%s %s: %s", wrong[i].method, wrong[i].body, answer.text);
        cr_assert(!wrong[i].sentence || http_says(&answer, wrong[i].sentence));
    }
    snprintf(long_name, sizeof(long_name), "{\"image\":\"%030000d\"}", 0);
    cr_assert_eq(ask("POST", TEMPLATES, long_name), 400, "%s", answer.text);
    cr_assert_lt(strlen(answer.body), 256);
    memset(long_name, '[', sizeof(long_name) - 1);
    cr_assert_eq(ask("POST", RECORDINGS, long_name), 400, "%s", answer.text);
    world_stop(world);
}

// --- many clients at once ---

struct member {
    pthread_t thread;
    const char *method;
    const char *path;
    char body[64];
    int status;
};

static void *act(void *arg)
{
    struct member *member = arg;
    struct http_answer *own = malloc(sizeof(*own));
    if (own)
        member->status = http_ask(control, own, member->method, member->path, member->body);
    free(own);
    return NULL;
}

// How many of them got this status. With `own` they name their orders themselves.
static unsigned crowd(const char *method, const char *path, bool own, int status)
{
    struct member members[CROWD];
    unsigned count = 0;
    for (unsigned i = 0; i < CROWD; i++) {
        members[i] = (struct member){.method = method, .path = path};
        snprintf(members[i].body, sizeof(members[i].body),
                 own ? "{\"image\":\"image\",\"id\":\"%u\"}" : IMAGE, i);
        cr_assert_eq(pthread_create(&members[i].thread, NULL, act, &members[i]), 0);
    }
    for (unsigned i = 0; i < CROWD; i++) {
        pthread_join(members[i].thread, NULL);
        count += members[i].status == status;
    }
    return count;
}

Test(control_orders, one_of_many_has_the_order)
{
    begin(IMAGE_BYTES);
    for (unsigned i = 0; i < ROUNDS; i++) {
        cr_assert_eq(crowd("POST", RECORDINGS, true, 409), CROWD - 1);
        cr_assert_eq(crowd("DELETE", RECORDINGS, false, 200), 1);
        cr_assert_eq(crowd("POST", TEMPLATES, false, 202), CROWD);
        cr_assert_eq(crowd("DELETE", TEMPLATES, false, 200), 1);
    }
    world_stop(world);
}

// --- recordings of what goes meanwhile ---

static bool is_recorded(void *arg)
{
    (void)arg;
    return ask("GET", RECORDINGS "?image=image", "") == 200 && number("complete") == 1;
}

static bool is_no_more_recorded(void *arg)
{
    (void)arg;
    return ask("GET", "/v1/status", "") == 200 && !strstr(answer.body, "\"recorded\":true");
}

static void remove_image(void)
{
    const char *args[] = {"rm", "--store", world->store, "image", NULL};
    cr_assert_eq(faultline_run(NULL, 0, args), 0);
}

Test(control_orders, a_recording_outlives_its_image_and_vm)
{
    struct good good;
    begin(IMAGE_BYTES);
    cr_assert_eq(ask("POST", RECORDINGS, "{\"image\":\"image\",\"share\":100}"), 201);
    good_start(&good, world->socket, &world->memory);
    cr_assert(good_touch(&good, 9));
    remove_image();
    cr_assert_eq(ask("POST", RECORDINGS, IMAGE), 404, "%s", answer.text);
    cr_assert(good_touch(&good, 10));
    client_kill(&good.client);
    cr_assert(wait_until(is_recorded, NULL), "%s", answer.text);
    cr_assert_eq(ask("GET", RECORDINGS "?image=image&run=0&from=3", ""), 200, "%s", answer.text);
    cr_assert(number("total") == 20 && number("from") == 3, "%s", answer.text);
    cr_assert_eq(ask("GET", RECORDINGS "?image=image&run=0&from=99999999999", ""), 200);
    cr_assert(number("from") == 20 && strstr(answer.body, "\"pages\":[]"), "%s", answer.text);
    cr_assert_eq(ask("GET", RECORDINGS "?image=image&run=1", ""), 404);
    cr_assert(http_says(&answer, "image 'image' has 1 complete recordings, and none has number 1"));
    cr_assert_eq(ask("DELETE", RECORDINGS, IMAGE), 200);
    cr_assert_eq(ask("DELETE", RECORDINGS, IMAGE), 404);
    world_stop(world);
}

Test(control_orders, a_vm_outlives_its_order)
{
    static const char hour[] = "{\"image\":\"image\",\"runs\":2,\"window_ms\":3600000}";
    struct good first;
    struct good second;
    begin(IMAGE_BYTES);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(ask("POST", RECORDINGS, hour), 201);
        good_start(&first, world->socket, &world->memory);
        good_start(&second, world->socket, &world->memory);
        cr_assert_eq(world_status(world, "recordings", "vms"), 2);
        cr_assert(!is_no_more_recorded(NULL), "%s", answer.text);
        cr_assert_eq(ask("DELETE", RECORDINGS, IMAGE), 200);
        cr_assert(wait_until(is_no_more_recorded, NULL));
        client_kill(&first.client);
        cr_assert_eq(good_end(&second), 0);
    }
    world_stop(world);
}

// --- templates that are given up and asked for again ---

static bool is_filled(void *arg)
{
    (void)arg;
    cr_assert_eq(ask("GET", TEMPLATES, ""), 200);
    return strstr(answer.body, "\"complete\"") || strstr(answer.body, "\"failed\"");
}

static bool is_unfilled(void *arg)
{
    (void)arg;
    cr_assert_eq(ask("GET", TEMPLATES, ""), 200);
    return strstr(answer.body, "\"filling\"");
}

static bool no_template_is_left(void *arg)
{
    (void)arg;
    return ask("GET", TEMPLATES, "") == 200 && strstr(answer.body, "\"list\":[]");
}

Test(control_orders, a_template_given_up_is_made_again)
{
    static const char complete[] = "{\"image\":\"image\",\"complete\":true}";
    begin(BIG_BYTES);
    for (unsigned i = 0; i < ROUNDS; i++) {
        cr_assert_eq(ask("POST", TEMPLATES, complete), 202);
        cr_assert(wait_until(is_unfilled, NULL));
        // Its reader may still be at it when it is asked for again.
        ask("DELETE", TEMPLATES, IMAGE);
        cr_assert_eq(ask("POST", TEMPLATES, complete), 202);
        cr_assert(wait_until(is_filled, NULL));
        cr_assert_null(strstr(answer.body, "\"failed\""), "%s", answer.body);
        cr_assert_eq(ask("DELETE", TEMPLATES, IMAGE), 200);
        cr_assert(wait_until(no_template_is_left, NULL));
    }
    cr_assert_eq(world_status(world, "templates", "bytes"), 0);
    world_stop(world);
}

// --- clients that are slow, or go in the middle ---

static const char half[] = "POST " TEMPLATES " HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{";

struct slow {
    pthread_t thread;
    int fd[SLOW];
    _Atomic bool enough;
};

// A byte a second, so that none of them is ever silent for long.
static void *dribble(void *arg)
{
    struct slow *slow = arg;
    while (!slow->enough) {
        for (unsigned i = 0; i < SLOW; i++)
            (void)!send(slow->fd[i], " ", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        for (unsigned i = 0; i < 100 && !slow->enough; i++)
            usleep(10000);
    }
    return NULL;
}

Test(control_orders, slow_clients_keep_nobody_out)
{
    struct slow slow = {.enough = false};
    begin(IMAGE_BYTES);
    for (unsigned i = 0; i < SLOW; i++) {
        slow.fd[i] = vmm_connect(control);
        cr_assert_gt(send(slow.fd[i], half, i % 2 ? 9 : sizeof(half) - 1, MSG_NOSIGNAL), 0);
    }
    cr_assert_eq(pthread_create(&slow.thread, NULL, dribble, &slow), 0);
    int status = ask("GET", "/v1/status", "");
    slow.enough = true;
    pthread_join(slow.thread, NULL);
    cr_assert_eq(status, 200, "%s", answer.text);
    for (unsigned i = 0; i < SLOW; i++)
        close(slow.fd[i]);
    cr_assert_eq(ask("GET", "/v1/status", ""), 200, "%s", answer.text);
    world_stop(world);
}

Test(control_orders, half_a_request_is_none)
{
    begin(IMAGE_BYTES);
    for (unsigned i = 0; i < 3; i++) {
        int gone = vmm_connect(control);
        cr_assert_gt(send(gone, half, sizeof(half) - 1, MSG_NOSIGNAL), 0);
        close(gone);
    }
    // That of a client whose engine dies is none of the next engine's.
    int fd = vmm_connect(control);
    cr_assert_gt(send(fd, half, sizeof(half) - 1, MSG_NOSIGNAL), 0);
    cr_assert_eq(ask("POST", RECORDINGS, IMAGE), 201, "%s", answer.text);
    world->server.deaths++;
    cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
    cr_assert(server_wait_log(&world->server, "generation=2", 1));
    cr_assert_leq(recv(fd, answer.text, 1, 0), 0);
    close(fd);
    cr_assert_eq(ask("GET", RECORDINGS "?image=image", ""), 404, "%s", answer.text);
    cr_assert_eq(ask("POST", RECORDINGS, IMAGE), 201, "%s", answer.text);
    cr_assert_eq(ask("GET", TEMPLATES, ""), 200);
    cr_assert_not_null(strstr(answer.body, "\"list\":[]"), "%s", answer.body);
    world_stop(world);
}
