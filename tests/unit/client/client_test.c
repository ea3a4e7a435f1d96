// SPDX-License-Identifier: Apache-2.0
//
// Tests what the client refuses, and what it sends.
#include <criterion/criterion.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <faultline_client.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/server.h"
#include "tests/support/world.h"
#include "tests/unit/client/fake_handler.h"

enum { FDS = 64 }; // more than a test has open

#define MIB (UINT64_C(1) << 20)

static struct temp temp;
static struct fake_handler fake;
static struct fl_client *const unset = (struct fl_client *)&temp; // stands for "not written"

static void set_up(void)
{
    temp_make(&temp);
}

static void tear_down(void)
{
    temp_remove(&temp);
}

TestSuite(client, .init = set_up, .fini = tear_down, .timeout = 60);

// Skips the test unless the kernel lets a client get as far as the handshake; then starts a handler
// that listens.
static void set_up_listener(void)
{
    need_userfaultfd();
    temp_make(&temp);
    fake_listen(&fake, temp.path, "fake.sock");
}

static void tear_down_listener(void)
{
    fake_close(&fake);
    temp_remove(&temp);
}

TestSuite(handshake, .init = set_up_listener, .fini = tear_down_listener, .timeout = 60);

static unsigned count_descriptors(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

// Pages of address space.
static unsigned long count_mapped_pages(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    cr_assert_eq(fscanf(file, "%lu", &pages), 1);
    fclose(file);
    return pages;
}

// Expects the error, and that the call leaves nothing behind: no output, no descriptor, none of the
// 64 GiB.
static void expect_failure(const char *path, int expected)
{
    struct fl_client *client = unset;
    void *address = &temp;
    unsigned descriptors = count_descriptors();
    unsigned long pages = count_mapped_pages();
    cr_assert_eq(fl_client_map(path, 65536 * MIB, FL_CLIENT_PAGE, &client, &address), expected);
    cr_assert_eq(client, unset);
    cr_assert_eq(address, &temp);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_lt(count_mapped_pages(), pages + 1000000);
}

// What the client, which is linked into this program, takes for the kernel's; 0: the true one.
static long kernel_page_bytes;

long sysconf(int name)
{
    long (*real)(int) = NULL;
    if (name == _SC_PAGESIZE && kernel_page_bytes > 0)
        return kernel_page_bytes;
    *(void **)&real = dlsym(RTLD_NEXT, "sysconf");
    return real(name);
}

Test(client, a_kernel_with_larger_pages)
{
    const char *path = temp_path(&temp, "none.sock"); // would be -ENOENT
    struct fl_client_region region = {.bytes = MIB};
    struct fl_client *client = unset;
    kernel_page_bytes = 16384;
    expect_failure(path, -EOPNOTSUPP);
    cr_assert_eq(fl_client_map_template(path, &region, 1, &client), -EOPNOTSUPP);
    region.address = mmap(NULL, MIB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_eq(fl_client_hand_over(path, &region, 1, FL_CLIENT_PAGE, &client), -EOPNOTSUPP);
    cr_assert_eq(client, unset);
}

Test(client, no_socket)
{
    expect_failure(temp_path(&temp, "none.sock"), -ENOENT);
}

Test(client, not_a_socket)
{
    close(open(temp_path(&temp, "file"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    expect_failure(temp_path(&temp, "file"), -ENOTSOCK);
}

Test(client, nobody_listens_any_more)
{
    fake_listen(&fake, temp.path, "dead.sock");
    fake_close(&fake);
    expect_failure(temp_path(&temp, "dead.sock"), -ECONNREFUSED);
}

static void limit_descriptors(rlim_t count)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = count < limit.rlim_max ? count : limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

// Sends a template when this process has no room for a descriptor.
static void *greet_without_room(void *arg)
{
    static const char greeting[] = "{\"image\":\"i\",\"bytes\":1048576,\"page_size\":4096}\n";
    const struct fake_handler *handler = arg;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_RIGHTS,
                            .cmsg_len = CMSG_LEN(sizeof(int))}};
    struct iovec part = {.iov_base = (void *)(uintptr_t)greeting, .iov_len = sizeof(greeting) - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    int connection = accept4(handler->listening, NULL, NULL, SOCK_CLOEXEC);
    memcpy(CMSG_DATA(&control.header), &handler->listening, sizeof(int));
    limit_descriptors(0);
    sendmsg(connection, &message, MSG_NOSIGNAL);
    shutdown(connection, SHUT_WR);
    return NULL;
}

Test(client, a_template_that_it_has_no_room_for)
{
    struct fl_client_region region = {.bytes = MIB};
    struct fl_client *client = unset;
    fake_listen(&fake, temp.path, "template");
    cr_assert_eq(pthread_create(&fake.thread, NULL, greet_without_room, &fake), 0);
    int error = fl_client_map_template(temp_path(&temp, "template"), &region, 1, &client);
    limit_descriptors(RLIM_INFINITY);
    fake_join(&fake);
    cr_assert_eq(error, -EMFILE, "%d", error);
    cr_assert_eq(client, unset);
    fake_close(&fake);
}

// A number as an address; nothing is mapped there.
static void *at(uint64_t address)
{
    void *pointer = NULL;
    memcpy(&pointer, &address, sizeof(pointer));
    return pointer;
}

static void expect_invalid(struct fl_client_region *regions, size_t count, uint32_t page_bytes)
{
    struct fl_client *client = unset;
    const char *path = temp_path(&temp, "none.sock"); // would be -ENOENT
    cr_assert_eq(fl_client_map_regions(path, regions, count, page_bytes, &client), -EINVAL);
    cr_assert_eq(fl_client_hand_over(path, regions, count, page_bytes, &client), -EINVAL);
    cr_assert_eq(client, unset);
}

Test(client, bad_sizes)
{
    struct {
        uint64_t bytes;
        uint64_t offset;
        uint32_t page_bytes;
    } const bad[] = {
        {0, 0, FL_CLIENT_PAGE},
        {4095, 0, FL_CLIENT_PAGE},
        {4097, 0, FL_CLIENT_PAGE},
        {MIB, 0, FL_CLIENT_HUGE_PAGE},
        {4096, 1, FL_CLIENT_PAGE},
        {4096, 0, 0},
        {8192, 0, 8192},
        {1ULL << 30, 0, 1U << 30},
        {UINT64_MAX - 4095, 0, FL_CLIENT_PAGE},
        {8192, UINT64_MAX - 4095, FL_CLIENT_PAGE},
        {8192, (uint64_t)INT64_MAX - 4095, FL_CLIENT_PAGE},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct fl_client_region region = {
            .address = at(4096 * MIB), .bytes = bad[i].bytes, .offset = bad[i].offset};
        expect_invalid(&region, 1, bad[i].page_bytes);
    }
}

Test(client, bad_counts)
{
    struct fl_client_region regions[FL_CLIENT_REGIONS_MAX + 1];
    for (size_t i = 0; i <= FL_CLIENT_REGIONS_MAX; i++)
        regions[i] = (struct fl_client_region){at((i + 1) * MIB), MIB, i * MIB};
    expect_invalid(regions, 0, FL_CLIENT_PAGE);
    expect_invalid(regions, FL_CLIENT_REGIONS_MAX + 1, FL_CLIENT_PAGE);
}

Test(client, bad_places)
{
    struct {
        uintptr_t address[2];
        uint64_t offset[2];
    } const bad[] = {
        {{MIB, 4 * MIB - 1}, {0, 2 * MIB}},           // not at a page
        {{0, 4 * MIB}, {0, 2 * MIB}},                 // nowhere
        {{4 * MIB, 5 * MIB}, {0, 2 * MIB}},           // overlap in memory
        {{4 * MIB, 8 * MIB}, {MIB, 0}},               // overlap in the image
        {{4 * MIB, (uintptr_t)0 - MIB}, {0, 2 * MIB}} // past the end of all addresses
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct fl_client *client = unset;
        struct fl_client_region regions[2];
        for (size_t j = 0; j < 2; j++)
            regions[j] =
                (struct fl_client_region){at(bad[i].address[j]), 2 * MIB, bad[i].offset[j]};
        cr_assert_eq(fl_client_hand_over("none.sock", regions, 2, FL_CLIENT_PAGE, &client),
                     -EINVAL);
    }
}

Test(handshake, memory_that_cannot_be_registered)
{
    struct fl_client *client = unset;
    unsigned descriptors = count_descriptors();
    void *hole = mmap(NULL, MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(hole, MIB);
    struct fl_client_region region = {hole, MIB, 0};
    const char *path = temp_path(&temp, "fake.sock");
    cr_assert_lt(fl_client_hand_over(path, &region, 1, FL_CLIENT_PAGE, &client), 0);
    cr_assert_eq(client, unset);
    cr_assert_eq(count_descriptors(), descriptors);
}

Test(handshake, memory_of_somebody_else)
{
    struct fl_client *first = NULL;
    struct fl_client *second = unset;
    struct fl_client_region region = {.bytes = MIB};
    const char *path = temp_path(&temp, "fake.sock");
    cr_assert_eq(fl_client_map_regions(path, &region, 1, FL_CLIENT_PAGE, &first), 0);
    cr_assert_eq(fl_client_hand_over(path, &region, 1, FL_CLIENT_PAGE, &second), -EBUSY);
    cr_assert_eq(second, unset);
    fl_client_close(first);
}

// --- what it sends ---

static size_t describe(char *text, size_t size, const struct fl_client_region *region,
                       unsigned page_bytes)
{
    return (size_t)snprintf(text, size,
                            "{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":%llu,"
                            "\"page_size\":%u,\"page_size_kib\":%u,\"part\":true}",
                            (unsigned long long)(uintptr_t)region->address,
                            (unsigned long long)region->bytes, (unsigned long long)region->offset,
                            page_bytes, page_bytes);
}

static void expect_text(const struct fl_client_region *regions, size_t count, unsigned page_bytes)
{
    static char expected[FAKE_TEXT];
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        expected[length++] = i == 0 ? '[' : ',';
        length += describe(expected + length, sizeof(expected) - length, &regions[i], page_bytes);
    }
    expected[length++] = ']';
    cr_assert_eq(fake.length, length, "%zu bytes, not %zu: %s", fake.length, length, fake.text);
    cr_assert_arr_eq(fake.text, expected, length);
}

static void expect_userfaultfd(int fd)
{
    char link[64];
    char name[64] = "";
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    cr_assert_gt(readlink(link, name, sizeof(name) - 1), 0);
    cr_assert_str_eq(name, "anon_inode:[userfaultfd]");
    cr_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

Test(handshake, is_firecrackers)
{
    struct fl_client *client = NULL;
    struct fl_client_region region = {.bytes = 3 * MIB};
    char rest = 0;
    cr_assert_eq(fl_client_map(temp_path(&temp, "fake.sock"), region.bytes, FL_CLIENT_PAGE, &client,
                               &region.address),
                 0);
    fake_receive(&fake);
    expect_text(&region, 1, FL_CLIENT_PAGE);
    cr_assert_eq(fake.fds, 1);
    expect_userfaultfd(fake.userfaultfd);
    // Nothing follows, and the connection stays until the client is closed.
    cr_assert_eq(recv(fake.connection, &rest, 1, MSG_DONTWAIT), -1);
    cr_assert_eq(errno, EAGAIN);
    fl_client_close(client);
    cr_assert_eq(recv(fake.connection, &rest, 1, MSG_DONTWAIT), 0);
}

Test(handshake, several_regions_in_one_message)
{
    struct fl_client *client = NULL;
    struct fl_client_region regions[FL_CLIENT_REGIONS_MAX];
    for (size_t i = 0; i < FL_CLIENT_REGIONS_MAX; i++)
        regions[i] = (struct fl_client_region){.bytes = (i + 1) * 4096, .offset = i << 40};
    cr_assert_eq(fl_client_map_regions(temp_path(&temp, "fake.sock"), regions,
                                       FL_CLIENT_REGIONS_MAX, FL_CLIENT_PAGE, &client),
                 0);
    fake_receive(&fake);
    expect_text(regions, FL_CLIENT_REGIONS_MAX, FL_CLIENT_PAGE);
    cr_assert_eq(fake.fds, 1);
    fl_client_close(client);
}

Test(handshake, closing_leaves_nothing)
{
    unsigned descriptors = count_descriptors();
    unsigned long pages = count_mapped_pages();
    for (unsigned i = 0; i < 4; i++) {
        struct fl_client *client = NULL;
        void *address = NULL;
        cr_assert_eq(fl_client_map(temp_path(&temp, "fake.sock"), 65536 * MIB, FL_CLIENT_PAGE,
                                   &client, &address),
                     0);
        fl_client_close(client);
    }
    fl_client_close(NULL);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_lt(count_mapped_pages(), pages + 1000000);
}

// Two names of 89 bytes, where a socket address has room for 108.
Test(handshake, a_path_of_any_length)
{
    struct fl_client *client = NULL;
    struct fl_client_region region = {.bytes = MIB};
    char name[90];
    char directory[TEST_PATH];
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    snprintf(directory, sizeof(directory), "%s", temp_path(&temp, name));
    cr_assert_eq(mkdir(directory, 0700), 0);
    fake_close(&fake); // the usual place
    fake_listen(&fake, directory, name);
    char path[TEST_PATH + sizeof(name)];
    cr_assert_gt(snprintf(path, sizeof(path), "%s/%s", directory, name), 200);
    cr_assert_eq(fl_client_map_regions(path, &region, 1, FL_CLIENT_PAGE, &client), 0);
    fake_receive(&fake);
    expect_text(&region, 1, FL_CLIENT_PAGE);
    fl_client_close(client);
}

Test(handshake, its_descriptors_do_not_survive_an_exec)
{
    struct fl_client *client = NULL;
    void *address = NULL;
    bool before[FDS];
    unsigned opened = 0;
    for (int fd = 0; fd < FDS; fd++)
        before[fd] = fcntl(fd, F_GETFD) >= 0;
    cr_assert_eq(
        fl_client_map(temp_path(&temp, "fake.sock"), MIB, FL_CLIENT_PAGE, &client, &address), 0);
    for (int fd = 0; fd < FDS; fd++) {
        int flags = fcntl(fd, F_GETFD);
        if (before[fd] || flags < 0)
            continue;
        cr_assert(flags & FD_CLOEXEC);
        opened++;
    }
    cr_assert_eq(opened, 2);
    fl_client_close(client);
}

// Without MADV_DONTFORK, missing memory would read as zeros in the child.
Test(handshake, a_child_has_none_of_the_memory)
{
    struct fl_client *client = NULL;
    void *address = NULL;
    int status = 0;
    cr_assert_eq(
        fl_client_map(temp_path(&temp, "fake.sock"), MIB, FL_CLIENT_PAGE, &client, &address), 0);
    pid_t child = fork();
    if (child == 0) {
        unsigned char present = 0;
        _exit(mincore(address, 4096, &present) == -1 && errno == ENOMEM ? 0 : 1);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    fl_client_close(client);
}
