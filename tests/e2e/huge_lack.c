// SPDX-License-Identifier: Apache-2.0
//
// What is said of a page of 2 MiB that is not to be had, by the log and by the doctor; and zeros
// for which there is no page.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/huge_hold.h"
#include "tests/support/world.h"

enum { PAGES = 8, BYTES = PAGES * HUGE, OUTPUT = 8192 };

static struct world *world;
static struct client client;
static char mounted[TEST_PATH]; // where the hugetlb controller is
static char cgroup[2 * TEST_PATH];
static char output[OUTPUT];

static void begin(void)
{
    need_userfaultfd();
    need_huge_pages(PAGES);
}

static void end(void)
{
    client_kill(&client);
    huge_pages_give_back();
    int place = *cgroup ? open(mounted, O_PATH | O_CLOEXEC) : -1;
    if (place >= 0)
        umount2(mounted, MNT_DETACH); // so that its directory can be removed
    world_close();
    if (place >= 0) // nobody is in it any more
        unlinkat(place, strrchr(cgroup, '/') + 1, AT_REMOVEDIR);
}

TestSuite(huge_lack, .init = begin, .fini = end, .timeout = 120);

// Touches a page (a digit), gives it back ('a' ...), or says whether page 0 is poisoned ('P').
static int obedient_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    char order = 0;
    (void)arg;
    vmm_map(&vmm, &world->memory, HUGE, 2, VMM_1_12);
    vmm.shared = shared;
    vmm_catch_sigbus();
    vmm_handshake(&vmm, world->socket);
    while (read(channel, &order, 1) == 1 && order != 'q') {
        if (order >= '0' && order < '0' + PAGES)
            vmm_check(&vmm, (uint32_t)(order - '0'));
        else if (order >= 'a' && order < 'a' + PAGES)
            vmm_remove(&vmm, (uint32_t)(order - 'a'), 1);
        else if (order == 'P')
            CHECK(vmm_poisoned(vmm_page(&vmm, 0)), "it is not poisoned");
        tell_test(channel, 'd');
    }
    return 0;
}

static void serve(const char *const *options)
{
    world = world_make(DISTINCT, BYTES);
    world_serve(world, options);
}

static void start(void)
{
    client_start(&client, obedient_main, NULL);
    cr_assert(client_obeys(&client, "0"));
}

static void quit(void)
{
    client_tell(&client, 'q');
    cr_assert_eq(client_wait(&client), 0);
    world_stop(world);
}

// --- zeros ---

Test(huge_lack, of_a_page_that_was_given_back_ends_as_any_other)
{
    static const char *const options[] = {"--read-timeout", "500", "--on-error", "poison", NULL};
    serve(options);
    huge_pages_leave(1);
    start();
    cr_assert(client_obeys(&client, "a1P")); // page 1 takes what page 0 gave back
    cr_assert(server_wait_log(&world->server, "event=poison vm=1", 1));
    quit();
}

// --- the doctor ---

static void run_doctor(void)
{
    const char *args[] = {"doctor", NULL};
    faultline_run(output, sizeof(output), args);
}

static bool doctor_names_the_pool(void *arg)
{
    (void)arg;
    run_doctor();
    return strstr(output, "it waits for a page of 2 MiB, and none is free in the pool") != NULL;
}

static unsigned pages_in_pool(void)
{
    unsigned pages = 0;
    FILE *file = fopen("/proc/sys/vm/nr_hugepages", "re");
    cr_assert(file && fscanf(file, "%u", &pages) == 1); // NOLINT(cert-err34-c)
    fclose(file);
    return pages;
}

static void set_pool(unsigned pages)
{
    FILE *file = fopen("/proc/sys/vm/nr_hugepages", "we");
    cr_assert(file && fprintf(file, "%u", pages) > 0);
    fclose(file);
}

Test(huge_lack, is_named_by_the_doctor_and_mended_as_he_says)
{
    char command[128] = "";
    unsigned before = pages_in_pool();
    serve(NULL);
    huge_pages_leave(1);
    start();
    client_tell(&client, '1');
    cr_assert(wait_until(doctor_names_the_pool, NULL), "%s", output);
    cr_expect(strstr(output, " in the pool, 0 free"), "%s", output);
    snprintf(command, sizeof(command), "kill -KILL %d", (int)server_engine(&world->server));
    cr_expect_not(strstr(output, command), "%s", output);
    const char *mend = strstr(output, "to mend     echo");
    cr_assert(mend && sscanf(mend, "to mend     %127[^\n]", command) == 1, "%s", output);
    cr_assert_eq(system(command), 0); // NOLINT(cert-env33-c): as it is printed
    bool done = client_says(&client, 'd');
    client_tell(&client, 'q');
    int status = client_wait(&client);
    set_pool(before);
    cr_assert(done && status == 0, "%s", command);
    world_stop(world);
}

// --- the engine's cgroup ---

static bool write_to(const char *name, const char *text)
{
    char path[sizeof(cgroup) + 64];
    snprintf(path, sizeof(path), "%s/%s", cgroup, name);
    FILE *file = fopen(path, "we");
    bool done = file && fputs(text, file) >= 0;
    if (file)
        done = fclose(file) == 0 && done;
    return done;
}

// In a mount namespace of the test's own, which the server shares.
static void make_cgroup(const char *limit)
{
    snprintf(mounted, sizeof(mounted), "%s", temp_path(&world->temp, "hugetlb"));
    bool made = unshare(CLONE_NEWNS) == 0 &&
                mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                mkdir(mounted, 0700) == 0 && mount("none", mounted, "cgroup", 0, "hugetlb") == 0;
    if (!made)
        cr_skip_test("the hugetlb controller of cgroups cannot be had: %s", strerror(errno));
    snprintf(cgroup, sizeof(cgroup), "%s/fl-huge-lack-%d", mounted, (int)getpid());
    cr_assert(mkdir(cgroup, 0700) == 0 && write_to("hugetlb.2MB.limit_in_bytes", limit));
}

static void enter_cgroup(pid_t pid)
{
    char text[32];
    snprintf(text, sizeof(text), "%d", (int)pid);
    cr_assert(write_to("cgroup.procs", text));
}

static bool doctor_names_the_cgroup(void *arg)
{
    (void)arg;
    run_doctor();
    return strstr(output, "the hugetlb cgroup of its handler is full") != NULL;
}

Test(huge_lack, in_the_engines_cgroup_is_named)
{
    world = world_make(DISTINCT, BYTES);
    make_cgroup("4194304");
    world_serve(world, NULL);
    enter_cgroup(server_engine(&world->server));
    start();
    cr_assert(client_obeys(&client, "1"));
    client_tell(&client, '2');
    cr_assert(
        server_wait_log(&world->server, "the engine's hugetlb cgroup is full: limit 4 MiB", 1));
    cr_expect_gt(huge_pages_free(), 0);
    cr_assert(wait_until(doctor_names_the_cgroup, NULL), "%s", output);
    cr_assert(write_to("hugetlb.2MB.limit_in_bytes", "-1"));
    cr_assert(client_says(&client, 'd'));
    quit();
}

// --- a look that fails ---

// PAGEMAP_SCAN answers ENOMEM in this process and in its children.
static void have_looks_fail(void)
{
    const uint32_t scan = 0xc0606610U;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, scan, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

// Of a client that asked for no events: what is taken to be there is zeros when it is asked for
// again.
static int silent_main(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    struct uffdio_api api = {.api = UFFD_API};
    (void)arg;
    vmm_map_memory(&vmm, &world->memory, HUGE, 2, VMM_1_12);
    vmm.shared = shared;
    vmm.uffd = vmm_open_uffd(VMM_1_12);
    CHECK(ioctl(vmm.uffd, UFFDIO_API, &api) == 0, "UFFDIO_API: %s", strerror(errno));
    vmm_register(&vmm);
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 0);
    tell_test(channel, 'd');
    return 0;
}

Test(huge_lack, is_one_too_where_the_look_for_the_page_fails)
{
    have_looks_fail();
    serve(NULL);
    huge_pages_leave(0);
    client_start(&client, silent_main, NULL);
    cr_assert(server_wait_log(&world->server, "event=shortage vm=1", 1));
    huge_pages_give_back();
    cr_assert(client_says(&client, 'd'));
    cr_assert_eq(client_wait(&client), 0);
    cr_assert_eq(world_status(world, "pages", "dropped"), 0);
    world_stop(world);
}
