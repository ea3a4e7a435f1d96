// SPDX-License-Identifier: Apache-2.0
//
// A tiny service that leaves descriptors with its service manager and, in its next life, looks at
// what it gets back. For tests of engine/keeper/service_manager.c and of service managers, real
// ones too.
//
//   notify_service [ACTION...]      the service
//   notify_service vm SOCKET        a client: lends its userfaultfd to the service and touches a
//   page
//
// What is seen goes to stdout, a line each. In its first life (it inherits nothing) it does:
//   kinds       stores a descriptor of each kind that Faultline keeps
//   fill=NxL    stores N memfds with names of L characters
//   listen=PATH stores a listening socket; a userfaultfd that comes there is stored but not served
//               before the next life
//   twice       stores one description under two names
//   remove=NAME
//   die         kills itself
// and in every life:
//   child       has a child process, which tries to store something (it must not be listened to)
//   and
//               outlives its parent if nobody kills it
//   deaf        sends no WATCHDOG=1
//   stubborn    does not end at SIGTERM
//   unready     is not ready, never, if it has inherited something
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/keeper/service_manager.h"

enum { PAGE = 4096, BYTE = 0x5a, VMS_MAX = 16, ALL_MS = 60000 };

struct service {
    unsigned inherited, bad;
    int listener;
    int vm[VMS_MAX];
    unsigned vms;
    bool deaf, stubborn, unready;
};

static void check(int result, const char *what)
{
    if (result >= 0)
        return;
    perror(what);
    exit(1);
}

static void store(const char *name, int fd)
{
    int r = fl_sm_store(name, fd);
    if (r < 0) {
        fprintf(stderr, "notify_service: store %s: %s\n", name, strerror(-r));
        exit(1);
    }
    close(fd);
}

// --- descriptors of each kind: made in one life, known again in the next ---

static int make_memfd(const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    check(fd, "memfd");
    check((int)write(fd, name, strlen(name)), "write");
    return fd;
}

static bool is_memfd(const char *name, int fd)
{
    char text[256] = "";
    return pread(fd, text, sizeof text - 1, 0) > 0 && strcmp(text, name) == 0;
}

static int make_uffd(void *memory)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.range = {(uintptr_t)memory, PAGE},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING};
    check(fd, "userfaultfd");
    check(ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
    check(ioctl(fd, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
    return fd;
}

static void *map(void)
{
    void *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        check(-1, "mmap");
    return memory;
}

// It is one, and its process is no more.
static bool is_dead_uffd(int fd)
{
    char page[PAGE] = {0};
    struct uffdio_copy copy = {.dst = PAGE, .src = (uintptr_t)page, .len = PAGE};
    struct uffd_msg message;
    return read(fd, &message, sizeof message) < 0 && ioctl(fd, UFFDIO_COPY, &copy) < 0;
}

static int make_dead_pidfd(void)
{
    pid_t pid = fork();
    check(pid, "fork");
    if (pid == 0)
        _exit(0);
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    check(fd, "pidfd_open");
    check(waitpid(pid, NULL, 0), "waitpid");
    return fd;
}

static bool is_dead_pidfd(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1 && syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) < 0;
}

// A client that sent something and went.
static int make_left_socket(void)
{
    int ends[2];
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "socketpair");
    check((int)write(ends[1], "hello", 5), "write");
    close(ends[1]);
    return ends[0];
}

static bool is_left_socket(int fd)
{
    char text[8] = "";
    return recv(fd, text, sizeof text, 0) == 5 && strcmp(text, "hello") == 0 &&
           recv(fd, text, sizeof text, 0) == 0;
}

static void store_kinds(void)
{
    store("memfd.0", make_memfd("memfd.0"));
    store("dead-uffd.0", make_uffd(map()));
    store("dead-pidfd.0", make_dead_pidfd());
    store("dead-pidfd.1", make_dead_pidfd());
    store("left-socket.0", make_left_socket());
    store("left-socket.1", make_left_socket());
}

static bool starts(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

static void inherit(void *arg, const char *name, int fd)
{
    struct service *service = arg;
    bool good = true;
    if (starts(name, "memfd."))
        good = is_memfd(name, fd);
    else if (starts(name, "dead-uffd."))
        good = is_dead_uffd(fd);
    else if (starts(name, "dead-pidfd."))
        good = is_dead_pidfd(fd);
    else if (starts(name, "left-socket."))
        good = is_left_socket(fd);
    else if (starts(name, "vm."))
        service->vm[service->vms++ % VMS_MAX] = fd;
    else if (starts(name, "listener."))
        service->listener = fd;
    good = good && (fcntl(fd, F_GETFD) & FD_CLOEXEC);
    service->inherited++;
    service->bad += !good;
    if (service->inherited <= 16)
        printf("got %s %s\n", name, good ? "good" : "BAD");
}

// --- actions ---

static void fill(const char *what)
{
    char *end = NULL;
    unsigned long count = strtoul(what, &end, 10);
    unsigned long length = *end == 'x' ? strtoul(end + 1, NULL, 10) : 0;
    for (unsigned long i = 0; i < count; i++) {
        char name[FL_SM_NAME_MAX + 1];
        int used = snprintf(name, sizeof name, "memfd.%06lu", i);
        while ((unsigned long)used < length && (size_t)used < sizeof name - 1)
            name[used++] = '-';
        name[used] = 0;
        store(name, make_memfd(name));
    }
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    check(bind(fd, (struct sockaddr *)&address, sizeof address), path);
    check(listen(fd, 16), "listen");
    int kept = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    check(kept, "dup");
    store("listener.0", kept);
    return fd;
}

static void act(struct service *service, const char *action, bool first)
{
    if (strcmp(action, "deaf") == 0) {
        service->deaf = true;
    } else if (strcmp(action, "stubborn") == 0) {
        service->stubborn = true;
    } else if (strcmp(action, "unready") == 0) {
        service->unready = !first;
    } else if (strcmp(action, "child") == 0) {
        pid_t pid = fork();
        if (pid == 0)
            store("memfd.of-a-child", make_memfd("memfd.of-a-child"));
        while (pid == 0 && pause() < 0) {
        }
        printf("child %d\n", (int)pid);
    } else if (!first) {
        return;
    } else if (strcmp(action, "kinds") == 0) {
        store_kinds();
    } else if (strcmp(action, "die") == 0) {
        kill(getpid(), SIGKILL);
    } else if (starts(action, "fill=")) {
        fill(action + 5);
    } else if (starts(action, "listen=")) {
        service->listener = listen_at(action + 7);
    } else if (strcmp(action, "twice") == 0) {
        int fd = make_memfd("memfd.again");
        store("memfd.again", fcntl(fd, F_DUPFD_CLOEXEC, 0));
        store("memfd.twice", fd);
    } else if (starts(action, "remove=")) {
        check(fl_sm_remove(action + 7), action);
    } else {
        fprintf(stderr, "notify_service: what is %s?\n", action);
        exit(2);
    }
}

// --- serving ---

static void accept_vm(struct service *service)
{
    char byte, name[32];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    int s = accept4(service->listener, NULL, NULL, SOCK_CLOEXEC);
    int uffd;
    check(s, "accept");
    check((int)recvmsg(s, &message, MSG_CMSG_CLOEXEC), "recvmsg");
    memcpy(&uffd, CMSG_DATA(&control.header), sizeof uffd);
    snprintf(name, sizeof name, "vm.%u", service->vms);
    store(name, uffd);
    check(fl_sm_barrier(ALL_MS), "barrier");
    check((int)write(s, "k", 1), "write"); // kept: it may touch now
    close(s);
    printf("vm kept\n");
}

static void serve_vm(int uffd)
{
    static char page[PAGE];
    struct uffd_msg message;
    memset(page, BYTE, sizeof page);
    while (read(uffd, &message, sizeof message) == sizeof message) {
        struct uffdio_copy copy = {.dst = message.arg.pagefault.address & ~(uint64_t)(PAGE - 1),
                                   .src = (uintptr_t)page,
                                   .len = PAGE};
        check(ioctl(uffd, UFFDIO_COPY, &copy), "UFFDIO_COPY");
        printf("vm served\n");
    }
}

static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

// False: it is the end.
static bool on_signal(const struct service *service, int signals)
{
    struct signalfd_siginfo info;
    check((int)read(signals, &info, sizeof info), "signalfd");
    printf("signal %s\n", sigabbrev_np((int)info.ssi_signo));
    if (info.ssi_signo != SIGHUP) {
        fl_sm_notify("STOPPING=1");
        return service->stubborn && info.ssi_signo == SIGTERM;
    }
    fl_sm_notify("RELOADING=1");
    fl_sm_notify("READY=1");
    return true;
}

static int serve(struct service *service, int signals)
{
    uint64_t watchdog_ms = fl_sm_watchdog_ms();
    for (;;) {
        struct pollfd p[2 + VMS_MAX] = {{.fd = signals, .events = POLLIN},
                                        {.fd = service->listener, .events = POLLIN}};
        for (unsigned i = 0; i < service->vms; i++)
            p[2 + i] = (struct pollfd){.fd = service->vm[i], .events = POLLIN};
        poll(p, 2 + service->vms, watchdog_ms ? (int)watchdog_ms : -1);
        if (watchdog_ms && !service->deaf)
            fl_sm_notify("WATCHDOG=1");
        if (p[0].revents && !on_signal(service, signals))
            return 0;
        if (p[1].revents & POLLIN)
            accept_vm(service);
        for (unsigned i = 0; i < service->vms; i++)
            if (p[2 + i].revents & POLLIN)
                serve_vm(service->vm[i]);
    }
}

// --- the client ---

static int vm(const char *path)
{
    char *memory = map();
    char byte = 'v';
    int uffd = make_uffd(memory);
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_RIGHTS,
                            .cmsg_len = CMSG_LEN(sizeof uffd)}};
    memcpy(CMSG_DATA(&control.header), &uffd, sizeof uffd);
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(connect(s, (struct sockaddr *)&address, sizeof address), path);
    check((int)sendmsg(s, &message, 0), "sendmsg");
    if (read(s, &byte, 1) != 1)
        return 3;
    close(uffd); // the service alone has it now
    printf("touching\n");
    printf("touched %s\n", *(volatile char *)memory == BYTE ? "good" : "BAD");
    return *(volatile char *)memory != BYTE;
}

int main(int argc, char **argv)
{
    struct service service = {.listener = -1};
    setlinebuf(stdout);
    if (argc == 3 && strcmp(argv[1], "vm") == 0)
        return vm(argv[2]);

    int signals = open_signals();
    int r = fl_sm_inherit(inherit, &service);
    printf("life pid=%d got=%d bad=%u keeps=%d watchdog_ms=%llu\n", (int)getpid(), r, service.bad,
           fl_sm_keeps(), (unsigned long long)fl_sm_watchdog_ms());
    for (int i = 1; i < argc; i++)
        act(&service, argv[i], r == 0);
    check(fl_sm_barrier(ALL_MS), "barrier");
    if (!service.unready)
        check(fl_sm_notify("READY=1\nSTATUS=serving"), "ready");
    return serve(&service, signals);
}
