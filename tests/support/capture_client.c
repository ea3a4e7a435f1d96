// SPDX-License-Identifier: Apache-2.0
#include "tests/support/capture_client.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096, WORD = 64, DEADLINE_MS = 60000, TAKE_MS = 2 };

static bool fail(struct capture_client *capture, int error, const char *text)
{
    capture->error = error;
    snprintf(capture->text, sizeof(capture->text), "%s", text);
    return false;
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool capture_connect(struct capture_client *capture, const char *control)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[4096];
    *capture = (struct capture_client){.channel = -1, .buffer_fd = -1};
    snprintf(path, sizeof(path), "%s" FL_KEEPER_SUFFIX, control);
    int place = open(path, O_PATH | O_CLOEXEC); // its path may be too long for an address
    if (place < 0)
        return fail(capture, -errno, "there is no such socket");
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", place);
    capture->channel = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int error = capture->channel < 0 || connect(capture->channel, (const struct sockaddr *)&address,
                                                sizeof(address)) != 0
                    ? -errno
                    : 0;
    close(place);
    if (!error)
        return true;
    capture_close(capture);
    return fail(capture, error, strerror(-error));
}

// The next message, within so long.
static bool receive(struct capture_client *capture, struct fl_message *message,
                    int fds[FL_CHANNEL_FDS], long ms)
{
    struct pollfd poll_fd = {.fd = capture->channel, .events = POLLIN};
    if (poll(&poll_fd, 1, (int)ms) <= 0)
        return fail(capture, -ETIMEDOUT, "the engine says nothing");
    int got = fl_channel_receive(capture->channel, message, fds, false);
    if (got == 1)
        return true;
    return fail(capture, got == 0 ? -EPIPE : got, got == 0 ? "the engine has hung up" : "receive");
}

// --- the beginning ---

// The bitmaps are within the file, and the buffer is as large as the image.
static bool board_is_sound(const struct fl_capture_board *board, uint64_t bytes, int buffer)
{
    struct stat status;
    uint64_t words = (board->image_pages + WORD - 1) / WORD * sizeof(uint64_t);
    return board->magic == FL_CAPTURE_MAGIC && board->version == FL_CAPTURE_VERSION &&
           board->total_bytes == bytes && board->image_pages > 0 &&
           board->done_offset + words <= bytes && board->data_offset + words <= bytes &&
           board->zero_offset + words <= bytes && fstat(buffer, &status) == 0 &&
           (uint64_t)status.st_size == board->image_pages * PAGE_BYTES;
}

static bool map_board(struct capture_client *capture, int board, int buffer)
{
    struct stat status;
    if (fstat(board, &status) != 0 || (uint64_t)status.st_size < sizeof(struct fl_capture_board))
        return fail(capture, -EPROTO, "the board is too short");
    uint64_t bytes = (uint64_t)status.st_size;
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, board, 0);
    if (map == MAP_FAILED)
        return fail(capture, -errno, "the board cannot be mapped");
    capture->board = map;
    capture->board_bytes = bytes;
    if (!board_is_sound(map, bytes, buffer))
        return fail(capture, -EPROTO, "the board is not sound");
    uint64_t pages = capture->board->image_pages;
    map = mmap(NULL, pages * PAGE_BYTES, PROT_READ, MAP_SHARED, buffer, 0);
    if (map == MAP_FAILED)
        return fail(capture, -errno, "the buffer cannot be mapped");
    capture->buffer = map;
    capture->buffer_fd = fcntl(buffer, F_DUPFD_CLOEXEC, 0);
    capture->taken = calloc((pages + WORD - 1) / WORD, sizeof(uint64_t));
    capture->left = pages;
    return capture->taken != NULL;
}

int capture_begin(struct capture_client *capture, uint64_t vm, uint64_t flags)
{
    int fds[FL_CHANNEL_FDS];
    struct fl_message message = {.type = FL_MESSAGE_CAPTURE, .id = vm, .value = flags};
    if (fl_channel_send(capture->channel, &message, NULL, true) != 0) {
        fail(capture, -EPIPE, "the engine has hung up");
        return -EPIPE;
    }
    if (!receive(capture, &message, fds, DEADLINE_MS))
        return capture->error;
    bool begun = message.type == FL_MESSAGE_CAPTURE_BEGUN && fds[FL_CAPTURE_BOARD] >= 0 &&
                 fds[FL_CAPTURE_BUFFER] >= 0;
    bool refused = message.type == FL_MESSAGE_ANSWER && message.error < 0;
    fail(capture, begun ? 0 : refused ? message.error : -EPROTO, message.text);
    capture->granted = message.value;
    capture->phase = FL_CAPTURE_ARMING;
    if (begun)
        map_board(capture, fds[FL_CAPTURE_BOARD], fds[FL_CAPTURE_BUFFER]);
    fl_channel_close_fds(fds);
    return capture->error;
}

// --- the phases ---

static bool say(struct capture_client *capture, enum fl_message_type type, const char *text)
{
    struct fl_message message = {.type = type};
    snprintf(message.text, sizeof(message.text), "%s", text);
    return fl_channel_send(capture->channel, &message, NULL, true) == 0;
}

bool capture_freeze(struct capture_client *capture)
{
    return say(capture, FL_MESSAGE_CAPTURE_FREEZE, "");
}

bool capture_commit(struct capture_client *capture, const char *image)
{
    return say(capture, FL_MESSAGE_CAPTURE_COMMIT, image);
}

// One message, within so long. False: it has failed.
static bool hear(struct capture_client *capture, long ms)
{
    int fds[FL_CHANNEL_FDS];
    struct fl_message message;
    if (!receive(capture, &message, fds, ms))
        return false;
    fl_channel_close_fds(fds);
    if (message.type != FL_MESSAGE_CAPTURE_PHASE || message.value <= capture->phase ||
        message.value > FL_CAPTURE_FAILED)
        return fail(capture, -EPROTO, "the engine does not tell of the next phase");
    capture->phase = (enum fl_capture_phase)message.value;
    return capture->phase != FL_CAPTURE_FAILED || fail(capture, message.error, message.text);
}

bool capture_await(struct capture_client *capture, enum fl_capture_phase phase)
{
    long end = now_ms() + DEADLINE_MS;
    while (capture->phase < phase) {
        long left = end - now_ms();
        if (!hear(capture, left > 0 ? left : 0))
            return false;
    }
    return capture->phase != FL_CAPTURE_FAILED;
}

// --- the image ---

static uint64_t *bits(const struct capture_client *capture, uint64_t offset)
{
    return (uint64_t *)((uint8_t *)capture->board + offset);
}

static bool is_set(const uint64_t *bitmap, uint64_t page)
{
    return __atomic_load_n(&bitmap[page / WORD], __ATOMIC_ACQUIRE) >> (page % WORD) & 1;
}

static bool take_page(struct capture_client *capture, uint8_t *image, uint64_t page)
{
    bool data = is_set(bits(capture, capture->board->data_offset), page);
    bool zero = is_set(bits(capture, capture->board->zero_offset), page);
    if (data) {
        memcpy(image + page * PAGE_BYTES, capture->buffer + page * PAGE_BYTES, PAGE_BYTES);
        if (fallocate(capture->buffer_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)(page * PAGE_BYTES), PAGE_BYTES) != 0)
            return fail(capture, -errno, "the buffer cannot be punched");
        atomic_fetch_add(&capture->board->consumed, 1);
    } else if (zero) {
        memset(image + page * PAGE_BYTES, 0, PAGE_BYTES);
    }
    capture->taken[page / WORD] |= 1ULL << (page % WORD);
    capture->left--;
    return true;
}

bool capture_take(struct capture_client *capture, uint8_t *image)
{
    const uint64_t *done = bits(capture, capture->board->done_offset);
    for (uint64_t word = 0; word * WORD < capture->board->image_pages; word++) {
        uint64_t fresh = __atomic_load_n(&done[word], __ATOMIC_ACQUIRE) & ~capture->taken[word];
        for (; fresh; fresh &= fresh - 1) {
            uint64_t page = word * WORD + (uint64_t)__builtin_ctzll(fresh);
            if (page >= capture->board->image_pages)
                return fail(capture, -EPROTO, "a page beyond the image is done");
            if (!take_page(capture, image, page))
                return false;
        }
    }
    return true;
}

// What is done before the freeze is in no region of the VM: as in the parent.
bool capture_take_all(struct capture_client *capture, uint8_t *image)
{
    long end = now_ms() + DEADLINE_MS;
    if (!capture_await(capture, FL_CAPTURE_FROZEN))
        return false;
    while (capture->phase < FL_CAPTURE_COPIED) {
        if (!capture_take(capture, image))
            return false;
        if (!hear(capture, TAKE_MS) && (capture->error != -ETIMEDOUT || now_ms() > end))
            return false;
    }
    if (!capture_take(capture, image))
        return false;
    return capture->left == 0 || fail(capture, -EPROTO, "COPIED, and not every page is done");
}

void capture_close(struct capture_client *capture)
{
    if (capture->channel >= 0)
        close(capture->channel);
    if (capture->buffer)
        munmap((void *)(uintptr_t)capture->buffer, capture->board->image_pages * PAGE_BYTES);
    if (capture->board)
        munmap(capture->board, capture->board_bytes);
    if (capture->buffer_fd >= 0)
        close(capture->buffer_fd);
    free(capture->taken);
    capture->channel = -1;
    capture->buffer_fd = -1;
    capture->buffer = NULL;
    capture->board = NULL;
    capture->taken = NULL;
}
