// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/capture_line.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/unix_socket.h"
#include "engine/link/channel.h"
#include "tools/cli/store_cli.h"

enum { ANSWER_MS = 30000, WORD = 64, ID_DIGITS = 64 };

static const char hung_up[] = "the engine that served the VM has ended or was replaced meanwhile; "
                              "its successor has undone the capture";

// --- the beginning ---

static bool board_is_sound(const struct capture_line *line)
{
    const struct fl_capture_board *board = line->board;
    struct stat status;
    uint64_t words = (board->image_pages + WORD - 1) / WORD * sizeof(uint64_t);
    const uint64_t at[] = {board->done_offset, board->data_offset, board->zero_offset};
    if (board->magic != FL_CAPTURE_MAGIC || board->version != FL_CAPTURE_VERSION ||
        board->image_pages == 0 || board->image_pages > UINT64_MAX / 2 / FL_PAGE_SIZE)
        return false;
    for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        if (at[i] % sizeof(uint64_t) != 0 || at[i] > line->board_bytes ||
            words > line->board_bytes - at[i])
            return false;
    }
    return fstat(line->buffer, &status) == 0 &&
           (uint64_t)status.st_size >= board->image_pages * FL_PAGE_SIZE;
}

static int map_board(struct capture_line *line, int fd)
{
    struct stat status;
    if (fd < 0 || line->buffer < 0)
        return -EMFILE;
    if (fstat(fd, &status) < 0)
        return -errno;
    if ((uint64_t)status.st_size < sizeof(*line->board))
        return -EPROTO;
    void *map = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    line->board = map;
    line->board_bytes = (uint64_t)status.st_size;
    line->image_pages = line->board->image_pages;
    return board_is_sound(line) ? 0 : -EPROTO;
}

static int digit_of(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

// "CONTENT-ID NAME", or nothing.
static bool read_parent(struct capture_line *line, const char *text)
{
    if (!*text)
        return true;
    if (strlen(text) < ID_DIGITS + 2 || text[ID_DIGITS] != ' ' ||
        !fl_name_valid(text + ID_DIGITS + 1))
        return false;
    for (unsigned i = 0; i < ID_DIGITS; i += 2) {
        int high = digit_of(text[i]);
        int low = digit_of(text[i + 1]);
        if (high < 0 || low < 0)
            return false;
        line->parent_content_id[i / 2] = (uint8_t)(high << 4 | low);
    }
    memcpy(line->parent, text + ID_DIGITS + 1, strlen(text + ID_DIGITS + 1) + 1); // it is valid
    return true;
}

static int take_begun(struct capture_line *line, const struct fl_message *message,
                      int fds[FL_CHANNEL_FDS], struct fl_error *ret_error)
{
    line->granted = message->value;
    line->buffer = fds[FL_CAPTURE_BUFFER];
    fds[FL_CAPTURE_BUFFER] = -1;
    int error = map_board(line, fds[FL_CAPTURE_BOARD]);
    if (!error && !read_parent(line, message->text))
        error = -EPROTO;
    if (error == -EPROTO)
        return fl_fail_plain(ret_error, error,
                             "the server's captures are of another version than this command: "
                             "upgrade the older of the two");
    if (error)
        return fl_fail(ret_error, error, "what the server gives for the capture cannot be used");
    return 0;
}

static int wait_for_begin(struct capture_line *line, struct fl_error *ret_error)
{
    struct fl_message message;
    int fds[FL_CHANNEL_FDS];
    struct pollfd poll_fd = {.fd = line->channel, .events = POLLIN};
    int polled;
    while ((polled = poll(&poll_fd, 1, ANSWER_MS)) < 0 && errno == EINTR) {
    }
    if (polled != 1)
        return fl_fail_plain(ret_error, -ETIMEDOUT, "the server does not answer");
    int got = fl_channel_receive(line->channel, &message, fds, false);
    if (got != 1) // so does a server that knows no captures
        return fl_fail_plain(ret_error, -ECONNRESET,
                             "the server closed the connection: it is too old for checkpoints, or "
                             "its engine has just ended");
    int error;
    if (message.type == FL_MESSAGE_CAPTURE_BEGUN)
        error = take_begun(line, &message, fds, ret_error);
    else if (message.type == FL_MESSAGE_ANSWER && message.error)
        error = fl_fail_plain(ret_error, message.error, "%s", message.text);
    else
        error = fl_fail_plain(ret_error, -EPROTO, "the server's answer is not understood");
    fl_channel_close_fds(fds);
    return error;
}

int capture_line_open(const char *control, uint64_t vm, uint64_t flags,
                      struct capture_line *ret_line, struct fl_error *ret_error)
{
    char path[PATH_MAX];
    struct fl_message order = {.type = FL_MESSAGE_CAPTURE, .id = vm, .value = flags};
    *ret_line = (struct capture_line){.channel = -1, .buffer = -1};
    int length = snprintf(path, sizeof(path), "%s" FL_KEEPER_SUFFIX, control);
    int fd = length < (int)sizeof(path) ? fl_socket_connect(path, SOCK_SEQPACKET) : -ENAMETOOLONG;
    if (fd < 0)
        return fl_fail_plain(ret_error, fd, "the server at %s cannot be reached: %s", control,
                             fl_socket_why(path, fd));
    ret_line->channel = fd;
    atomic_store(&ret_line->phase, FL_CAPTURE_NONE);
    int error = fl_channel_send(fd, &order, NULL, false);
    if (error)
        fl_fail(ret_error, error, "the request cannot be sent to the server at %s", control);
    else
        error = wait_for_begin(ret_line, ret_error);
    if (error)
        capture_line_close(ret_line);
    return error;
}

void capture_line_close(struct capture_line *line)
{
    if (line->channel >= 0)
        close(line->channel);
    if (line->buffer >= 0)
        close(line->buffer);
    if (line->board)
        munmap(line->board, line->board_bytes);
    line->channel = -1;
    line->buffer = -1;
    line->board = NULL;
}

// --- while it goes on ---

static void note_failure(struct capture_line *line, const char *reason)
{
    if (capture_line_failed(line))
        return;
    fl_fail_plain(&line->failure, -ECANCELED, "%s", reason);
    atomic_store(&line->phase, FL_CAPTURE_FAILED);
}

void capture_line_hear(struct capture_line *line)
{
    struct fl_message message;
    int fds[FL_CHANNEL_FDS];
    int got;
    while ((got = fl_channel_receive(line->channel, &message, fds, false)) == 1) {
        fl_channel_close_fds(fds);
        if (message.type == FL_MESSAGE_ANSWER && message.error)
            note_failure(line, message.text);
        if (message.type != FL_MESSAGE_CAPTURE_PHASE)
            continue;
        if (message.value == FL_CAPTURE_FAILED)
            note_failure(line, message.text[0] ? message.text : "the server gives no reason");
        else if (message.value < FL_CAPTURE_FAILED && !capture_line_failed(line))
            atomic_store(&line->phase, (int)message.value);
    }
    if (got != -EAGAIN && !capture_line_is(line, FL_CAPTURE_KEPT)) // then it was the last word
        note_failure(line, hung_up);
}

bool capture_line_is(const struct capture_line *line, enum fl_capture_phase phase)
{
    int now = atomic_load(&line->phase);
    return now >= (int)phase && now != FL_CAPTURE_FAILED;
}

bool capture_line_failed(const struct capture_line *line)
{
    return atomic_load(&line->phase) == FL_CAPTURE_FAILED;
}

int capture_line_freeze(struct capture_line *line)
{
    struct fl_message message = {.type = FL_MESSAGE_CAPTURE_FREEZE};
    int error = fl_channel_send(line->channel, &message, NULL, true);
    if (error)
        note_failure(line, hung_up);
    return error;
}

int capture_line_commit(struct capture_line *line, const char *image, const uint8_t content_id[32])
{
    char hex[ID_DIGITS + 1];
    struct fl_message message = {.type = FL_MESSAGE_CAPTURE_COMMIT};
    store_format_id(content_id, hex);
    snprintf(message.text, sizeof(message.text), "%s %s", hex, image);
    int error = fl_channel_send(line->channel, &message, NULL, true);
    if (error)
        note_failure(line, hung_up);
    return error;
}

// --- the board ---

// The engine sets `done` after the other two, which it does not change any more.
static uint64_t word_of(const struct capture_line *line, uint64_t bitmap_offset, uint64_t word)
{
    const _Atomic uint64_t *words =
        (const _Atomic uint64_t *)(const void *)((const char *)line->board + bitmap_offset);
    return atomic_load_explicit(&words[word], memory_order_acquire);
}

bool capture_board_has(const struct capture_line *line, uint64_t bitmap_offset, uint64_t page)
{
    return word_of(line, bitmap_offset, page / WORD) >> page % WORD & 1;
}

// The bits of the pages from `page` on that are in its word, and before `end`.
static uint64_t mask_of(uint64_t page, uint64_t end, uint64_t *ret_pages)
{
    uint64_t in_word = WORD - page % WORD;
    *ret_pages = end - page < in_word ? end - page : in_word;
    return *ret_pages == WORD ? UINT64_MAX : ((UINT64_C(1) << *ret_pages) - 1) << page % WORD;
}

uint64_t capture_board_count(const struct capture_line *line, uint64_t bitmap_offset,
                             uint64_t first, uint64_t count)
{
    uint64_t found = 0;
    uint64_t pages = 0;
    for (uint64_t page = first; page < first + count; page += pages) {
        uint64_t mask = mask_of(page, first + count, &pages);
        found += (uint64_t)__builtin_popcountll(word_of(line, bitmap_offset, page / WORD) & mask);
    }
    return found;
}

bool capture_board_done(const struct capture_line *line, uint64_t first, uint64_t count)
{
    return capture_board_count(line, line->board->done_offset, first, count) == count;
}
