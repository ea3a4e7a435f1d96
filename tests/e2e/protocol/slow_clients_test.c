// SPDX-License-Identifier: Apache-2.0
//
// Clients of the control API that are slow, send too much, or many requests at once: each is
// answered or cut off in bounded time, and others do not notice.
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"
#include "tests/e2e/protocol/http.h"

TestSuite(slow_clients, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

enum {
    IMAGE_BYTES = 1 << 20,
    LIMIT_MS = 20000,
    SLACK_MS = 15000,
    BYTE_MS = 500,
    ENDLESS = 8 << 20
};

static struct world *world;
static struct http_answer answer;
static char control[2 * TEST_PATH]; // temp_path() keeps few

static void begin(void)
{
    world = world_make(MIXED, IMAGE_BYTES);
    world_serve(world, NULL);
    snprintf(control, sizeof(control), "%s", temp_path(&world->temp, "control.sock"));
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void exchange(const char *request)
{
    http_exchange(control, &answer, request, strlen(request));
}

static unsigned count(const char *text, const char *what)
{
    unsigned found = 0;
    while ((text = strstr(text, what)) != NULL) {
        found++;
        text++;
    }
    return found;
}

Test(slow_clients, requests_may_be_sent_before_their_answers)
{
    begin();
    exchange("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
             "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
             "DELETE /v1/listeners HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
             "GET http://x/v1/nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
             "GET http://x/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    cr_assert_eq(count(answer.text, "HTTP/1.1 200 OK\r\n"), 3, "%s", answer.text);
    cr_assert_eq(count(answer.text, "HTTP/1.1 400 "), 1, "%s", answer.text);
    cr_assert_eq(count(answer.text, "HTTP/1.1 404 "), 1, "%s", answer.text);
    cr_assert_eq(count(answer.text, "\r\n\r\nok\n"), 2, "%s", answer.text);
    world_stop(world);
}

// What stands behind a body that is refused is no request.
Test(slow_clients, a_body_that_is_too_large_is_refused_at_once)
{
    begin();
    exchange("POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n"
             "POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
    cr_assert_eq(count(answer.text, "HTTP/1.1 413 "), 1, "%s", answer.text);
    cr_assert_eq(count(answer.text, "HTTP/1.1 "), 1, "%s", answer.text);
    exchange("DELETE /v1/listeners HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999999\r\n\r\n"
             "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_assert_eq(count(answer.text, "HTTP/1.1 413 "), 1, "%s", answer.text);
    cr_assert_eq(count(answer.text, "HTTP/1.1 "), 1, "%s", answer.text);
    cr_assert_eq(http_ask(control, &answer, "GET", "/metrics", ""), 200);
    cr_assert_not_null(strstr(answer.body, "\nfaultline_draining 0\n"));
    world_stop(world);
}

static void start_chunked(int fd)
{
    static const char head[] =
        "POST /v1/listeners HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    cr_assert_gt(send(fd, head, sizeof(head) - 1, MSG_NOSIGNAL), 0);
}

static bool send_chunk(int fd)
{
    static char chunk[4096 + 8];
    static const char size[] = "1000\r\n";
    memcpy(chunk, size, 6);
    memset(chunk + 6, ' ', 4096);
    memcpy(chunk + 6 + 4096, "\r\n", 2);
    return send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL) == (ssize_t)sizeof(chunk);
}

Test(slow_clients, a_chunked_body_that_is_too_large_is_refused)
{
    char text[512] = "";
    size_t sent = 0;
    begin();
    int fd = http_connect(control);
    start_chunked(fd);
    for (unsigned i = 0; i < 20; i++)
        cr_assert(send_chunk(fd));
    cr_assert_gt(send(fd, "0\r\n\r\n", 5, MSG_NOSIGNAL), 0);
    cr_assert_gt(recv(fd, text, sizeof(text) - 1, 0), 0);
    cr_assert_not_null(strstr(text, "HTTP/1.1 413 "), "%s", text);
    close(fd);
    // One without end is cut off.
    fd = http_connect(control);
    start_chunked(fd);
    while (sent < ENDLESS && send_chunk(fd))
        sent += 4096;
    cr_assert_lt(sent, (size_t)ENDLESS, "a body without end is read without end");
    close(fd);
    world_stop(world);
}

// --- byte by byte ---

struct slow {
    const char *what;
    const char *head; // sent at once
    int fd;
    bool reads; // a byte at a time instead of sending
    uint64_t closed_ms;
};

static void step(struct slow *slow, uint64_t now)
{
    char byte = 'a';
    if (slow->closed_ms)
        return;
    ssize_t done = slow->reads ? recv(slow->fd, &byte, 1, MSG_DONTWAIT)
                               : send(slow->fd, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    struct pollfd closed = {.fd = slow->fd, .events = POLLRDHUP};
    bool gone = done == 0 || (done < 0 && errno != EAGAIN);
    if (gone || (poll(&closed, 1, 0) == 1 && (closed.revents & (POLLHUP | POLLERR))))
        slow->closed_ms = now;
}

static void start_slow(struct slow *slow)
{
    slow->fd = http_connect(control);
    cr_assert_geq(slow->fd, 0);
    cr_assert_gt(send(slow->fd, slow->head, strlen(slow->head), MSG_NOSIGNAL), 0);
}

// Longer than what a socket holds: its reader takes a byte now and then.
static const char *many_requests(void)
{
    static const char one[] = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    static char all[sizeof(one) * 64];
    for (unsigned i = 0; i < 64; i++)
        strcat(all, one);
    return all;
}

Test(slow_clients, who_is_busy_for_ever_is_cut_off)
{
    struct slow slow[] = {
        {.what = "a header", .head = "GET /v1/status HTTP/1.1\r\nX: "},
        {.what = "a body",
         .head = "POST /v1/listeners HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"},
        {.what = "a chunked body",
         .head = "POST /v1/listeners HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                 "f000\r\n"},
        {.what = "an answer", .reads = true},
    };
    enum { COUNT = sizeof(slow) / sizeof(slow[0]) };
    struct good good;
    unsigned closed = 0;
    begin();
    good_start(&good, world->socket, &world->memory);
    slow[COUNT - 1].head = many_requests();
    uint64_t start = now_ms();
    for (unsigned i = 0; i < COUNT; i++)
        start_slow(&slow[i]);
    while (closed < COUNT && now_ms() < start + LIMIT_MS + SLACK_MS) {
        closed = 0;
        for (unsigned i = 0; i < COUNT; i++) {
            step(&slow[i], now_ms());
            closed += slow[i].closed_ms != 0;
        }
        cr_assert_eq(http_ask(control, &answer, "GET", "/healthz", ""), 200);
        cr_assert(good_touch(&good, 1));
        poll(NULL, 0, BYTE_MS);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        cr_assert_neq(slow[i].closed_ms, 0, "%s byte by byte is never cut off", slow[i].what);
        close(slow[i].fd);
    }
    cr_assert_eq(good_end(&good), 0);
    world_stop(world);
}
