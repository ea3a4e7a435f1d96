// SPDX-License-Identifier: Apache-2.0
//
// Messages between the keeper and engines, and the records that they are about.
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/keeper/keeper_records.h"
#include "engine/link/channel.h"

static int channel[2];
static struct fl_message message;
static int fds[FL_CHANNEL_FDS];

static void open_channel(void)
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel), 0);
}

static void close_channel(void)
{
    close(channel[0]);
    close(channel[1]);
}

TestSuite(channel, .init = open_channel, .fini = close_channel);

static unsigned open_files(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static int new_file(off_t size)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, size), 0);
    return fd;
}

static off_t size_of(int fd)
{
    struct stat status;
    cr_assert_eq(fstat(fd, &status), 0);
    return status.st_size;
}

Test(channel, brings_what_was_sent)
{
    int sent[FL_CHANNEL_FDS] = {-1, new_file(1), -1, new_file(3)};
    struct fl_message put = {.type = FL_MESSAGE_PUT,
                             .kind = FL_RECORD_VM,
                             .id = 7,
                             .value = 8,
                             .other = 9,
                             .slots = 4,
                             .mask = 10,
                             .error = -3,
                             .text = "a text"};
    cr_assert_eq(fl_channel_send(channel[0], &put, sent, false), 0);
    cr_assert_eq(fl_channel_receive(channel[1], &message, fds, false), 1);
    cr_expect_eq(memcmp(&message, &put, offsetof(struct fl_message, text)), 0);
    cr_expect_str_eq(message.text, "a text");
    cr_expect(fds[0] == -1 && fds[2] == -1 && fds[4] == -1);
    cr_expect_eq(size_of(fds[1]), 1);
    cr_expect_eq(size_of(fds[3]), 3);
    cr_expect(fcntl(fds[1], F_GETFD) & FD_CLOEXEC);
    fl_channel_close_fds(fds);
    cr_expect_eq(fl_channel_receive(channel[1], &message, fds, false), -EAGAIN);
}

Test(channel, says_when_it_ends)
{
    close(channel[0]);
    cr_expect_eq(fl_channel_receive(channel[1], &message, fds, true), 0);
    cr_expect_eq(fl_channel_send(channel[1], &message, NULL, true), -EPIPE);
    channel[0] = dup(channel[1]);
}

// Nonsense costs its sender the channel, and us no descriptor.
Test(channel, takes_nothing_that_is_not_a_message)
{
    unsigned before = open_files();
    struct fl_message put = {.type = FL_MESSAGE_PUT, .mask = 1};
    int file = new_file(1);
    cr_assert_eq(send(channel[0], "short", 5, 0), 5);
    cr_expect_eq(fl_channel_receive(channel[1], &message, fds, false), -EPROTO);
    cr_assert_eq(fl_channel_send(channel[0], &put, &file, false), 0);
    char text[8];
    cr_assert_gt(recv(channel[1], text, sizeof(text), 0), 0); // the kernel drops its descriptor
    char unterminated[offsetof(struct fl_message, text) + 4];
    memset(unterminated, 1, sizeof(unterminated));
    cr_assert_eq(send(channel[0], unterminated, sizeof(unterminated), 0),
                 (ssize_t)sizeof(unterminated));
    cr_expect_eq(fl_channel_receive(channel[1], &message, fds, false), -EPROTO);
    close(file);
    cr_expect_eq(open_files(), before);
}

Test(channel, says_that_descriptors_are_missing)
{
    struct fl_message put = {.type = FL_MESSAGE_PUT, .mask = 3};
    char bytes[offsetof(struct fl_message, text) + 1] = {0};
    memcpy(bytes, &put, offsetof(struct fl_message, text));
    cr_assert_eq(send(channel[0], bytes, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
    cr_expect_eq(fl_channel_receive(channel[1], &message, fds, false), -EPROTO);
}

enum { MANY = 70 };

Test(channel, brings_records_larger_than_a_message)
{
    struct fl_records records;
    int many[MANY];
    uint32_t from = 0;
    unsigned before = open_files();
    for (int i = 0; i < MANY; i++)
        many[i] = i % 7 ? new_file(i) : -1;
    struct fl_record_view view = {FL_RECORD_IMAGE, 5, 0, MANY, many};
    cr_assert_eq(fl_channel_send_record(channel[0], FL_MESSAGE_PUT, &view, 0, &from, false), 0);
    fl_records_init(&records, false);
    while (fl_channel_receive(channel[1], &message, fds, false) == 1)
        cr_assert_eq(fl_records_put(&records, &message, fds), 0);
    struct fl_record *record = fl_records_find(&records, FL_RECORD_IMAGE, 5);
    cr_assert_not_null(record);
    cr_assert_eq(record->slots, MANY);
    for (int i = 0; i < MANY; i++) {
        cr_expect_eq(record->fd[i] >= 0, i % 7 != 0);
        cr_expect(record->fd[i] < 0 || size_of(record->fd[i]) == i, "slot %d", i);
        if (many[i] >= 0)
            close(many[i]);
    }
    fl_records_free(&records);
    cr_expect_eq(open_files(), before);
}

// --- records ---

static void put(struct fl_records *records, uint32_t kind, uint64_t id)
{
    struct fl_message vm = {.kind = kind, .id = id, .slots = 2, .mask = 2};
    memset(fds, -1, sizeof(fds));
    fds[1] = new_file((off_t)(id % 16));
    cr_assert_eq(fl_records_put(records, &vm, fds), 0);
}

Test(records, come_in_the_order_of_their_kinds)
{
    static const uint32_t kinds[] = {FL_RECORD_SOCKET, FL_RECORD_VM, FL_RECORD_IMAGE, FL_RECORD_VM,
                                     FL_RECORD_MODE};
    struct fl_records records;
    uint32_t last = 0;
    unsigned count = 0;
    unsigned before = open_files();
    fl_records_init(&records, false);
    for (unsigned i = 0; i < 5; i++)
        put(&records, kinds[i], i);
    cr_expect_eq(records.vms, 2);
    for (struct fl_record *at = fl_records_next(&records, NULL); at;
         at = fl_records_next(&records, at)) {
        cr_expect_geq(at->kind, last);
        last = at->kind;
        count++;
    }
    cr_expect_eq(count, 5);
    put(&records, FL_RECORD_VM, 1); // in its place
    cr_expect_eq(records.vms, 2);
    fl_records_drop(&records, FL_RECORD_VM, 1);
    fl_records_drop(&records, FL_RECORD_VM, 1);
    cr_expect_eq(records.vms, 1);
    cr_expect_null(fl_records_find(&records, FL_RECORD_VM, 1));
    fl_records_free(&records);
    cr_expect_eq(open_files(), before);
}

Test(records, have_names_that_can_be_read_again)
{
    struct fl_records records;
    char name[FL_RECORD_NAME];
    fl_records_init(&records, false);
    put(&records, FL_RECORD_LISTENER, UINT64_MAX);
    fl_record_name(fl_records_next(&records, NULL), 1, name);
    cr_expect_str_eq(name, "listener.18446744073709551615.1.2");
    cr_assert_eq(fl_record_parse(name, &message), 0);
    cr_expect_eq(message.kind, FL_RECORD_LISTENER);
    cr_expect_eq(message.id, UINT64_MAX);
    cr_expect(message.first == 1 && message.slots == 2 && message.mask == 1);
    static const char *const bad[] = {"",          "vm",      "vm.1.0",  "vm.1.2.2", "vm.1.0.4x",
                                      "vmm.1.0.4", "v.1.0.4", "unknown", "vm.x.0.4"};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_eq(fl_record_parse(bad[i], &message), -EINVAL, "%s", bad[i]);
    fl_records_free(&records);
}

Test(records, of_nonsense_are_refused)
{
    struct fl_records records;
    unsigned before = open_files();
    static const struct fl_message bad[] = {
        {.kind = 0, .slots = 1, .mask = 1},
        {.kind = FL_RECORD_KINDS, .slots = 1, .mask = 1},
        {.kind = FL_RECORD_VM, .slots = 1, .mask = 2},
        {.kind = FL_RECORD_VM, .slots = 1, .mask = 1, .first = UINT32_MAX},
        {.kind = FL_RECORD_VM, .slots = UINT32_MAX, .mask = 1},
    };
    fl_records_init(&records, false);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        memset(fds, -1, sizeof(fds));
        fds[0] = new_file(1);
        cr_expect_eq(fl_records_put(&records, &bad[i], fds), -EPROTO, "%u", i);
    }
    fl_records_free(&records);
    cr_expect_eq(open_files(), before);
}

Test(channel, last_words_of_one_that_left_something_unread)
{
    struct fl_message said = {.type = FL_MESSAGE_PUT, .kind = FL_RECORD_VM, .id = 7};
    struct fl_message ping = {.type = FL_MESSAGE_PING};
    cr_assert_eq(fl_channel_send(channel[1], &said, NULL, false), 0);
    cr_assert_eq(fl_channel_send(channel[0], &ping, NULL, false), 0);
    close(channel[1]);
    cr_assert_eq(fl_channel_receive(channel[0], &message, fds, false), 1);
    cr_assert_eq(message.id, 7);
    cr_assert_eq(fl_channel_receive(channel[0], &message, fds, false), 0);
    channel[1] = dup(channel[0]); // something for close_channel()
}
