// SPDX-License-Identifier: Apache-2.0
#include "tests/support/puppet.h"

#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/vmm.h"

int puppet_main(int channel, struct client_shared *shared, void *arg)
{
    static struct vmm vmm;
    const struct puppet *puppet = arg;
    (void)shared;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); // it may end in SIGBUS
    vmm_map(&vmm, puppet->memory, PAGE, 2, VMM_MAIN);
    char text[VMM_TEXT];
    size_t length = vmm_handshake_text(&vmm, text);
    vmm_send(channel, text, length, &vmm.uffd, 1); // the puppeteer takes it from here
    if (puppet->closes)
        close(vmm.uffd);
    await_test(channel, 't');
    vmm_touch_all(&vmm, 2, VMM_RANDOM, false);
    return 0;
}

// Passes on what it gets, and is gone.
static void hand_on(int from, int to)
{
    char text[VMM_TEXT];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {text, sizeof(text)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control)};
    ssize_t got = recvmsg(from, &message, MSG_CMSG_CLOEXEC);
    int uffd = -1;
    CHECK(got > 0 && CMSG_FIRSTHDR(&message), "recvmsg");
    memcpy(&uffd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(uffd));
    vmm_send(to, text, (size_t)got, &uffd, 1);
    close(uffd);
}

int puppeteer_main(int channel, struct client_shared *shared, void *arg)
{
    const struct puppeteer *puppeteer = arg;
    (void)shared;
    int engine = vmm_connect(puppeteer->socket);
    hand_on(puppeteer->puppet->channel, engine);
    close(engine);
    tell_test(channel, 'h');
    await_test(channel, 'e');
    return 0;
}
