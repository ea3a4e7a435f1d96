// SPDX-License-Identifier: Apache-2.0
//
// A request is sent again, after a pause that is random and grows, until there is an answer that
// counts or time is over. All requests may be sent twice: what is written lies under keys that say
// what it is, or is written only if there is nothing.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "snapshot/remote/s3_internal.h"
#include "snapshot/remote/s3_xml.h"

enum { PAUSE_FIRST_MS = 100, PAUSE_MAX_MS = 5000, RETRY_AFTER_MAX_S = 20, SLICE_MS = 50 };
enum { SKEW_MIN_S = 60, SKEWS_MAX = 2 };

// With the time that the host was suspended, as a push must know how long ago it looked.
uint64_t fl_s3_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t random_below(uint64_t limit)
{
    uint64_t number = 0;
    if (getrandom(&number, sizeof(number), GRND_NONBLOCK) != (ssize_t)sizeof(number))
        number = fl_s3_now_ms();
    return number % limit;
}

int fl_s3_pause(struct fl_s3 *s3, unsigned attempt, time_t at_least)
{
    uint64_t longest = (uint64_t)PAUSE_FIRST_MS << (attempt < 6 ? attempt : 6);
    longest = longest < PAUSE_MAX_MS ? longest : PAUSE_MAX_MS;
    time_t asked = at_least < 0 ? 0 : at_least < RETRY_AFTER_MAX_S ? at_least : RETRY_AFTER_MAX_S;
    uint64_t end = fl_s3_now_ms() + (uint64_t)asked * 1000 + random_below(longest) + 1;
    for (uint64_t now; (now = fl_s3_now_ms()) < end;) {
        uint64_t ms = end - now < SLICE_MS ? end - now : SLICE_MS;
        nanosleep(&(struct timespec){.tv_nsec = (long)ms * 1000000}, NULL);
        if (s3->cancelled && s3->cancelled())
            return -ECANCELED;
    }
    return 0;
}

// What a server says is printed: no lines of its own, and nothing that a terminal obeys.
static void take_words(char *to, size_t size, const char *value)
{
    snprintf(to, size, "%s", value);
    for (; *to; to++) {
        if (*to < ' ' || *to > '~')
            *to = '?';
    }
}

static int take_error(void *arg, const char *path, const char *value)
{
    struct fl_s3_answer *answer = arg;
    if (strcmp(path, "Error/Code") == 0)
        take_words(answer->code, sizeof(answer->code), value);
    else if (strcmp(path, "Error/Message") == 0)
        take_words(answer->message, sizeof(answer->message), value);
    return 0;
}

// The server refused because our clock is not its own: goes by its clock from now on.
static bool corrects_clock(struct fl_s3 *s3, const struct fl_s3_answer *answer, unsigned *skews)
{
    if (answer->status != 403 || answer->date == 0 || *skews >= SKEWS_MAX)
        return false;
    long skew = answer->date - time(NULL);
    long change = labs(skew - s3->skew);
    if (change < SKEW_MIN_S && strcmp(answer->code, "RequestTimeTooSkewed") != 0)
        return false;
    s3->skew = skew;
    (*skews)++;
    return true;
}

static bool is_passing(const struct fl_s3_answer *answer)
{
    static const long statuses[] = {408, 409, 425, 429, 500, 502, 503, 504};
    if (answer->status == 409 && strcmp(answer->code, "ConditionalRequestConflict") != 0 &&
        strcmp(answer->code, "OperationAborted") != 0)
        return false;
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        if (answer->status == statuses[i])
            return true;
    }
    // A body that was broken on its way.
    return answer->status == 400 &&
           (strcmp(answer->code, "BadDigest") == 0 || strcmp(answer->code, "RequestTimeout") == 0 ||
            strcmp(answer->code, "IncompleteBody") == 0);
}

// What came is as long as it says, if it says so: a server that ends too early is asked again.
static bool is_cut_short(const struct fl_s3_request *request, const struct fl_s3_answer *answer)
{
    size_t got = request->into ? answer->got : answer->text_bytes;
    return answer->status / 100 == 2 && answer->has_length && strcmp(request->method, "GET") == 0 &&
           !answer->too_long && got != answer->length;
}

// What an attempt has led to: 0: an answer that counts; 1: it is sent again at once; 2: after a
// pause; or an error that stays.
static int judge(struct fl_s3_link *link, const struct fl_s3_request *request, int r,
                 struct fl_s3_answer *answer, unsigned *skews)
{
    if (r == -EACCES || r == -ENOMEM || r == -ECANCELED || r == -ENAMETOOLONG || r == -E2BIG)
        return r;
    if (r < 0 || is_cut_short(request, answer))
        return 2;
    if (answer->status / 100 != 2 && answer->text)
        fl_s3_xml(answer->text, answer->text_bytes, take_error, answer);
    if (corrects_clock(link->s3, answer, skews))
        return 1;
    return is_passing(answer) ? 2 : 0;
}

int fl_s3_do(struct fl_s3_link *link, const struct fl_s3_request *request,
             struct fl_s3_answer *answer, bool *ret_lost, struct fl_error *ret_error)
{
    struct fl_s3 *s3 = link->s3;
    char why[FL_S3_WHY_BYTES];
    uint64_t end = fl_s3_now_ms() + s3->retry_for_ms;
    unsigned skews = 0;
    if (ret_lost)
        *ret_lost = false;
    for (unsigned attempt = 0;; attempt++) {
        int sent = fl_s3_exchange(link, request, answer, why);
        int next = judge(link, request, sent, answer, &skews);
        if (next == 0)
            return 0;
        if (next == 2 && ret_lost)
            *ret_lost = true;
        if (next == 2 && sent == 0)
            snprintf(why, sizeof(why), "it answers %ld %.64s", answer->status, answer->code);
        if (next == 2 && fl_s3_now_ms() >= end)
            next = -ETIMEDOUT;
        if (next == 2)
            next = fl_s3_pause(s3, attempt, sent == 0 ? answer->retry_after : 0);
        fl_s3_answer_free(answer);
        if (next == -ECANCELED)
            return fl_fail_plain(ret_error, next, "interrupted");
        if (next < 0)
            return fl_fail_plain(ret_error, next, "cannot reach %s: %s", s3->name, why);
    }
}

static int error_of(long status)
{
    switch (status) {
    case 403:
    case 401:
        return -EACCES;
    case 404:
        return -ENOENT;
    case 412:
        return -EEXIST;
    case 416: // a range within the size that the object should have
        return -EPROTO;
    default:
        return -EIO;
    }
}

int fl_s3_refused(struct fl_s3_link *link, const struct fl_s3_request *request,
                  const struct fl_s3_answer *answer, struct fl_error *ret_error)
{
    return fl_fail_plain(
        ret_error, error_of(answer->status), "%s%s%s: the server answers %ld%s%s%s%s",
        link->s3->name, request->key ? "/" : "", request->key ? request->key : "", answer->status,
        *answer->code ? " " : "", answer->code, *answer->message ? ": " : "", answer->message);
}
