// SPDX-License-Identifier: Apache-2.0
//
// HTTP requests over a unix socket: every way in which a server can answer, or not.
#include "tools/cli/http_client.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/base/unix_socket.h"
#include "tests/support/temp.h"

enum { PATIENCE_MS = 20000, SHORT_MS = 50, REQUEST_MAX = 4096, BIG = 3 << 20 };

static struct temp temp;

static void begin(void)
{
    signal(SIGPIPE, SIG_IGN);
    temp_make(&temp);
}

static void end(void)
{
    temp_remove(&temp);
}

TestSuite(http_client, .init = begin, .fini = end, .timeout = 60);

// A server of one connection. It sends `answer` in parts of `step` bytes after it has read a
// request, or at once if it is `hasty`, and closes the connection unless it is `lasting`.
struct fake {
    int listening;
    const char *answer;
    size_t step;
    bool hasty;
    bool lasting;
    char request[REQUEST_MAX];
    char path[2 * TEST_PATH];
    pthread_t thread;
};

static void *answer_one(void *arg)
{
    struct fake *fake = arg;
    char rest[1];
    int fd = accept(fake->listening, NULL, NULL);
    size_t used = 0;
    while (!fake->hasty && used < REQUEST_MAX - 1 && !strstr(fake->request, "\r\n\r\n")) {
        ssize_t got = read(fd, fake->request + used, REQUEST_MAX - 1 - used);
        if (got <= 0)
            break;
        used += (size_t)got;
    }
    size_t left = strlen(fake->answer);
    for (const char *at = fake->answer; left > 0;) {
        ssize_t sent = write(fd, at, fake->step && fake->step < left ? fake->step : left);
        if (sent <= 0)
            break;
        at += sent;
        left -= (size_t)sent;
    }
    while (fake->lasting && read(fd, rest, 1) > 0)
        ;
    close(fd);
    return NULL;
}

static void fake_begin(struct fake *fake)
{
    struct fl_socket_access access = {0600, (uid_t)-1, (gid_t)-1};
    struct fl_listening listening;
    snprintf(fake->path, sizeof(fake->path), "%s/socket", temp.path);
    cr_assert_eq(fl_socket_listen(fake->path, SOCK_STREAM, &access, &listening), 0);
    fcntl(listening.fd, F_SETFL, 0);
    fake->listening = listening.fd;
    cr_assert_eq(pthread_create(&fake->thread, NULL, answer_one, fake), 0);
}

static void fake_end(struct fake *fake)
{
    pthread_join(fake->thread, NULL);
    close(fake->listening);
    unlink(fake->path);
}

static bool (*gives_up)(void);
static unsigned looks;

static bool at_the_third_look(void)
{
    return ++looks == 3;
}

static struct http_answer ask(const char *socket, unsigned timeout_ms, const char *body)
{
    struct http_answer answer;
    struct http_question question = {socket, body ? "POST" : "GET", "/v1/status", body, gives_up};
    http_ask(&question, timeout_ms, &answer);
    return answer;
}

static struct http_answer ask_fake(struct fake fake, unsigned timeout_ms)
{
    fake_begin(&fake);
    struct http_answer answer = ask(fake.path, timeout_ms, NULL);
    fake_end(&fake);
    return answer;
}

Test(http_client, answers)
{
    static const struct {
        const char *answer;
        int status;
        const char *text;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, "{}"},
        {"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabcd", 404, "abc"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", 200,
         "abc"},
        {"HTTP/1.0 200 OK\r\n\r\nto the end", 200, "to the end"},
        {"HTTP/1.1 204 No Content\r\n\r\n", 204, NULL},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx", 201,
         "x"},
    };
    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
        bool bytewise = i % 2;
        struct fake fake = {.answer = cases[i / 2].answer, .step = bytewise};
        struct http_answer answer = ask_fake(fake, PATIENCE_MS);
        cr_assert_eq(answer.outcome, HTTP_ANSWERED, "%zu: %d", i, (int)answer.outcome);
        cr_assert_eq(answer.status, cases[i / 2].status, "%zu", i);
        cr_assert_eq(!answer.text, !cases[i / 2].text, "%zu", i);
        cr_assert(!answer.text || strcmp(answer.text, cases[i / 2].text) == 0, "%zu: %s", i,
                  answer.text);
        free(answer.text);
    }
}

// A server that keeps the connection is not waited for after its answer.
Test(http_client, ends_with_the_answer)
{
    struct fake fake = {.answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
                        .lasting = true};
    struct http_answer answer = ask_fake(fake, PATIENCE_MS);
    cr_assert_eq(answer.outcome, HTTP_ANSWERED);
    free(answer.text);
}

Test(http_client, no_answers)
{
    static const struct {
        struct fake fake;
        enum http_outcome outcome;
    } cases[] = {
        {{.answer = ""}, HTTP_GONE},
        {{.answer = "", .hasty = true}, HTTP_GONE},
        {{.answer = "{\"image\":\"i\",\"bytes\":4096}\n"}, HTTP_NO_HTTP},
        {{.answer = "HTTP/1.1 200 OK\r\nContent-Le"}, HTTP_CUT},
        {{.answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"}, HTTP_CUT},
        {{.answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"}, HTTP_CUT},
        {{.answer = "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc"}, HTTP_NO_HTTP},
        {{.answer = "HTTP/1.1 100 Continue\r\n\r\n"}, HTTP_CUT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct http_answer answer = ask_fake(cases[i].fake, PATIENCE_MS);
        cr_expect_eq(answer.outcome, cases[i].outcome, "%zu: %d", i, (int)answer.outcome);
        free(answer.text);
    }
}

Test(http_client, a_caller_that_gives_up_does_not_wait)
{
    gives_up = at_the_third_look;
    struct http_answer answer = ask_fake((struct fake){.answer = "", .lasting = true}, PATIENCE_MS);
    cr_expect_eq(answer.outcome, HTTP_LATE, "%d", (int)answer.outcome);
    cr_expect_eq(looks, 3);
}

Test(http_client, a_slow_server_is_not_waited_for)
{
    static const char *const parts[] = {"", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"};
    for (unsigned i = 0; i < 2; i++) {
        struct fake fake = {.answer = parts[i], .lasting = true};
        struct http_answer answer = ask_fake(fake, SHORT_MS);
        cr_expect_eq(answer.outcome, HTTP_LATE, "%u: %d", i, (int)answer.outcome);
        free(answer.text);
    }
}

// A server that refuses a long body answers before it has read it, and reads no more.
Test(http_client, an_answer_before_the_request_was_read)
{
    struct fake fake = {.answer = "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}",
                        .hasty = true};
    char *body = malloc(BIG + 1);
    memset(body, ' ', BIG);
    body[BIG] = '\0';
    fake_begin(&fake);
    struct http_answer answer = ask(fake.path, PATIENCE_MS, body);
    cr_assert_eq(answer.outcome, HTTP_ANSWERED, "%d", (int)answer.outcome);
    cr_assert_eq(answer.status, 413);
    fake_end(&fake);
    free(answer.text);
    free(body);
}

Test(http_client, what_is_asked)
{
    struct fake fake = {.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"};
    fake_begin(&fake);
    ask(fake.path, PATIENCE_MS, "{\"a\":1}");
    fake_end(&fake);
    cr_assert_eq(strncmp(fake.request, "POST /v1/status HTTP/1.1\r\n", 26), 0, "%s", fake.request);
    cr_assert_not_null(strstr(fake.request, "\r\nContent-Length: 7\r\n"), "%s", fake.request);
}

// Two requests that are sent together.
static void ask_twice(struct fake *fake, unsigned timeout_ms, struct http_answer answers[2])
{
    fake_begin(fake);
    const struct http_question questions[] = {
        {.socket = fake->path, .method = "PATCH", .path = "/vm", .body = "{\"a\":1}"},
        {.socket = fake->path, .method = "PUT", .path = "/snapshot", .body = "{}"},
    };
    struct http_exchange *exchange = http_begin(questions, 2, timeout_ms, answers);
    cr_assert_not_null(exchange);
    http_end(exchange);
    fake_end(fake);
}

Test(http_client, several_requests_at_once)
{
    static const char first[] = "HTTP/1.1 204 \r\nConnection: keep-alive\r\n\r\n";
    static const struct {
        const char *second;
        bool lasting;
        enum http_outcome outcome;
    } cases[] = {
        {"HTTP/1.1 400 \r\nContent-Length: 2\r\n\r\n{}", false, HTTP_ANSWERED},
        {"HTTP/1.1 400 \r\nContent-Length: 2\r\n\r\n{}", true, HTTP_ANSWERED},
        {"", false, HTTP_GONE},
        {"", true, HTTP_LATE},
        {"HTTP/1.1 4", false, HTTP_CUT},
        {"no answer", true, HTTP_NO_HTTP},
    };
    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
        char text[256];
        struct http_answer answers[2];
        enum http_outcome outcome = cases[i / 2].outcome;
        snprintf(text, sizeof(text), "%s%s", first, cases[i / 2].second);
        struct fake fake = {.answer = text, .step = i % 2, .lasting = cases[i / 2].lasting};
        ask_twice(&fake, outcome == HTTP_LATE ? SHORT_MS : PATIENCE_MS, answers);
        cr_expect_eq(answers[0].outcome, HTTP_ANSWERED, "%zu: %d", i, (int)answers[0].outcome);
        cr_expect_eq(answers[0].status, 204, "%zu: %d", i, answers[0].status);
        cr_expect_eq(answers[1].outcome, outcome, "%zu: %d", i, (int)answers[1].outcome);
        cr_expect_eq(answers[1].status, outcome == HTTP_ANSWERED ? 400 : 0, "%zu", i);
        cr_expect_null(answers[0].text);
        free(answers[1].text);
        const char *patch = strstr(fake.request, "PATCH /vm HTTP/1.1\r\n");
        const char *put = strstr(fake.request, "{\"a\":1}PUT /snapshot HTTP/1.1\r\n");
        cr_expect(patch == fake.request && put, "%zu: %s", i, fake.request);
        cr_expect_gt(strstr(fake.request, "Connection: close"), put, "%zu: %s", i, fake.request);
    }
}

// What has come is taken without waiting for what has not.
Test(http_client, an_exchange_is_over_when_all_answers_are_there)
{
    struct fake fake = {.answer = "HTTP/1.1 204 \r\n\r\n", .lasting = true};
    struct http_answer answers[2];
    fake_begin(&fake);
    const struct http_question question = {.socket = fake.path, .method = "GET", .path = "/"};
    const struct http_question questions[] = {question, question};
    struct http_exchange *exchange = http_begin(questions, 2, PATIENCE_MS, answers);
    cr_assert_not_null(exchange);
    while (answers[0].outcome != HTTP_ANSWERED || answers[0].status == 0)
        cr_assert_not(http_is_over(exchange));
    cr_assert_not(http_is_over(exchange));
    http_drop(exchange);
    fake_end(&fake);
}

static void expect_unreachable(const char *path, int error, const char *why)
{
    struct http_answer answer = ask(path, SHORT_MS, NULL);
    cr_expect_eq(answer.outcome, HTTP_UNREACHABLE, "%s", path);
    cr_expect_eq(answer.error, error, "%s: %d", path, answer.error);
    cr_expect_str_eq(fl_socket_why(path, answer.error), why);
}

Test(http_client, what_is_no_server)
{
    struct fl_socket_access access = {0600, (uid_t)-1, (gid_t)-1};
    struct fl_listening other;
    const char *path = temp_path(&temp, "there");
    expect_unreachable(path, -ENOENT, "there is no such socket");
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    expect_unreachable(path, -ENOTSOCK, "it is a regular file, not a socket");
    expect_unreachable(temp_path(&temp, "there/below"), -ENOTDIR, strerror(ENOTDIR));
    unlink(path);
    cr_assert_eq(mkfifo(path, 0600), 0);
    expect_unreachable(path, -ENOTSOCK, "it is a pipe, not a socket");
    expect_unreachable(temp.path, -ENOTSOCK, "it is a directory, not a socket");
    unlink(path);
    cr_assert_eq(fl_socket_listen(path, SOCK_SEQPACKET, &access, &other), 0);
    expect_unreachable(path, -EPROTOTYPE, "it is a socket of another kind");
    close(other.fd);
    expect_unreachable(path, -ECONNREFUSED, "no process listens there any more");
}

// A queue that is full is waited for, but not for ever.
Test(http_client, a_server_that_accepts_nothing)
{
    const char *path = temp_path(&temp, "full");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int full = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(bind(full, (struct sockaddr *)&address, sizeof(address)) == 0 &&
              listen(full, 0) == 0);
    int first = fl_socket_connect(path, SOCK_STREAM);
    cr_assert_geq(first, 0);
    cr_assert_eq(ask(path, SHORT_MS, NULL).outcome, HTTP_LATE);
    close(first);
    close(full);
}

static void make_long(char *path, size_t size)
{
    snprintf(path, size, "%s/%0100d", temp.path, 1);
    cr_assert_eq(mkdir(path, 0700), 0);
    snprintf(path, size, "%s/%0100d/%0100d.sock", temp.path, 1, 2);
}

Test(http_client, a_long_path)
{
    char path[2 * TEST_PATH];
    struct fake fake = {.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"};
    make_long(path, sizeof(path));
    fake_begin(&fake);
    cr_assert_eq(rename(fake.path, path), 0);
    cr_assert_eq(ask(path, PATIENCE_MS, NULL).outcome, HTTP_ANSWERED);
    fake_end(&fake);
}

Test(http_client, a_table_of_descriptors_that_is_full)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    int next = open("/", O_PATH | O_CLOEXEC);
    close(next);
    limit.rlim_cur = (rlim_t)next;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    struct http_answer answer = ask(temp_path(&temp, "none"), SHORT_MS, NULL);
    limit.rlim_cur = limit.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_assert_eq(answer.outcome, HTTP_UNREACHABLE);
    cr_assert_eq(answer.error, -EMFILE);
    cr_assert_str_eq(fl_socket_why("none", answer.error), "this process has too many files open");
}
