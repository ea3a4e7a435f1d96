// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/client/fake_handler.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { DEADLINE_MS = 20000 };

void fake_listen(struct fake_handler *fake, const char *directory, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int place = open(directory, O_PATH | O_CLOEXEC);
    *fake = (struct fake_handler){.connection = -1, .userfaultfd = -1};
    fake->listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", place, name);
    cr_assert_eq(bind(fake->listening, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(listen(fake->listening, 4), 0);
    close(place);
}

static bool wait_for(int fd)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    return poll(&wanted, 1, DEADLINE_MS) == 1;
}

static void take_fds(struct fake_handler *fake, struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        cr_assert_eq(c->cmsg_type, SCM_RIGHTS);
        fake->fds += (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(&fake->userfaultfd, CMSG_DATA(c), sizeof(int));
    }
}

void fake_receive(struct fake_handler *fake)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(FAKE_FDS * sizeof(int))];
    struct iovec part = {.iov_base = fake->text, .iov_len = sizeof(fake->text) - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    cr_assert(wait_for(fake->listening), "nobody connected");
    fake->connection = accept4(fake->listening, NULL, NULL, SOCK_CLOEXEC);
    cr_assert(wait_for(fake->connection), "nothing was sent");
    ssize_t length = recvmsg(fake->connection, &message, MSG_CMSG_CLOEXEC);
    cr_assert_gt(length, 0);
    cr_assert_eq(message.msg_flags & (MSG_CTRUNC | MSG_TRUNC), 0);
    fake->length = (size_t)length;
    fake->text[length] = '\0';
    take_fds(fake, &message);
}

unsigned char fake_byte(size_t page)
{
    return (unsigned char)(page * 7 + 1);
}

// --- serving ---

struct serving {
    struct fake_handler *fake;
    uintptr_t memory;
    unsigned char *page;
    uintptr_t removed_start; // the latest removal
    uintptr_t removed_end;
};

static void fill(struct serving *serving, uintptr_t address)
{
    size_t bytes = serving->fake->page_bytes;
    uintptr_t start = address & ~(uintptr_t)(bytes - 1);
    bool zero = start >= serving->removed_start && start < serving->removed_end;
    memset(serving->page, zero ? 0 : fake_byte((start - serving->memory) / bytes), bytes);
    struct uffdio_copy copy = {.dst = start, .src = (uintptr_t)serving->page, .len = bytes};
    serving->fake->faults++;
    if (ioctl(serving->fake->userfaultfd, UFFDIO_COPY, &copy) != 0) {
        struct uffdio_range range = {.start = start, .len = bytes};
        ioctl(serving->fake->userfaultfd, UFFDIO_WAKE, &range);
    }
}

static void answer(struct serving *serving)
{
    struct uffd_msg event;
    if (read(serving->fake->userfaultfd, &event, sizeof(event)) != (ssize_t)sizeof(event))
        return;
    if (event.event == UFFD_EVENT_REMOVE) {
        serving->removed_start = event.arg.remove.start;
        serving->removed_end = event.arg.remove.end;
        serving->fake->removes++;
    } else if (event.event == UFFD_EVENT_PAGEFAULT) {
        fill(serving, event.arg.pagefault.address);
    }
}

static void *serve(void *arg)
{
    struct serving *serving = arg;
    struct pollfd wanted[] = {
        {.fd = serving->fake->userfaultfd, .events = POLLIN},
        {.fd = serving->fake->connection, .events = POLLRDHUP},
    };
    while (poll(wanted, 2, DEADLINE_MS) > 0 && !wanted[1].revents)
        answer(serving);
    free(serving->page);
    free(serving);
    return NULL;
}

void fake_serve(struct fake_handler *fake, const void *memory, size_t page_bytes)
{
    struct serving *serving = calloc(1, sizeof(*serving));
    fake->page_bytes = page_bytes;
    serving->fake = fake;
    serving->memory = (uintptr_t)memory;
    serving->page = malloc(page_bytes);
    cr_assert_eq(pthread_create(&fake->thread, NULL, serve, serving), 0);
}

void fake_join(struct fake_handler *fake)
{
    cr_assert_eq(pthread_join(fake->thread, NULL), 0);
}

void fake_close(struct fake_handler *fake)
{
    int all[] = {fake->listening, fake->connection, fake->userfaultfd};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i] >= 0)
            close(all[i]);
    }
}
