// SPDX-License-Identifier: Apache-2.0
//
// VMs that their fault handler has left behind: the doctor names them, `faultline rescue` has a
// server take them over, or ends their waiting, or refuses.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/proc_fd.h"
#include "tests/support/guest.h"
#include "tests/support/world.h"

enum { BYTES = 16 << 20, ARGS = 24, THREADS = 2 };

static struct world *world;
static struct client client;
static char output[1 << 16];

// What the VMM tells the test.
static struct told {
    char regions[VMM_TEXT];     // its handshake
    uint8_t *first;             // its first region
    char socket[2 * TEST_PATH]; // of the template
} * told;

static void need_told(void)
{
    need_userfaultfd();
    told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(told, MAP_FAILED);
}

static void end_all(void)
{
    client_kill(&client);
    world_close();
}

TestSuite(rescue, .init = need_told, .fini = end_all, .timeout = 240);

// --- VMs ---

struct plan {
    uint32_t page_bytes;
    unsigned regions;
    bool swapped;  // the regions lie side by side, the second first
    bool removes;  // gives a part back that it has not touched
    bool shared;   // it maps a template, which gives back the image's bytes
    bool poisoned; // what it has not touched by then is to be poisoned
};

// One mapping for both, so that nobody can see from outside that there are two.
static void swap_regions(struct vmm *vmm)
{
    uint8_t *all = mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(all != MAP_FAILED, "mmap");
    vmm->region[0].base = all + vmm->region[1].bytes;
    vmm->region[1].base = all;
}

static void touch_half(struct vmm *vmm)
{
    for (uint32_t page = 0; page < vmm->pages; page += 2)
        vmm_check(vmm, page);
}

static void remove_some(struct vmm *vmm)
{
    uint32_t from = vmm->pages / 4;
    uint32_t count = vmm->pages / 4;
    vmm_remove(vmm, from, count);
    for (uint32_t page = from; page < from + count; page++)
        vmm->removed[page] = true;
}

static void expect_poison(const struct vmm *vmm)
{
    vmm_catch_sigbus();
    for (uint32_t page = 1; page < vmm->pages; page += 2)
        CHECK(vmm_poisoned(vmm_page(vmm, page)), "page %u is not poisoned", page);
}

// Touches half of its memory; when its handler is gone, all of it.
static int run_vmm(int channel, struct client_shared *shared, void *arg)
{
    struct vmm vmm;
    const struct plan *plan = arg;
    if (plan->shared) {
        vmm_map_template(&vmm, &world->memory, plan->regions, told->socket, NULL);
    } else {
        vmm_map_memory(&vmm, &world->memory, plan->page_bytes, plan->regions, VMM_MAIN);
        if (plan->swapped)
            swap_regions(&vmm);
        vmm.uffd = vmm_open_uffd(VMM_MAIN);
        vmm_enable(vmm.uffd, 0);
        vmm_register(&vmm);
    }
    vmm.shared = shared;
    told->regions[vmm_handshake_text(&vmm, told->regions)] = '\0';
    told->first = vmm.region[0].base;
    if (plan->shared)
        vmm_handshake_template(&vmm);
    else
        vmm_handshake(&vmm, world->socket);
    touch_half(&vmm);
    if (plan->removes)
        remove_some(&vmm);
    if (plan->shared) // it is the image's
        memset(vmm.removed, false, vmm.pages * sizeof(*vmm.removed));
    tell_test(channel, 'h');
    await_test(channel, 'g');
    if (plan->poisoned)
        expect_poison(&vmm);
    else
        vmm_touch_all(&vmm, THREADS, VMM_UP, false);
    return 0;
}

static const struct plan plain = {.page_bytes = PAGE, .regions = 1};

static void start_vmm(const struct plan *plan)
{
    static struct plan kept;
    kept = *plan;
    client_start(&client, run_vmm, &kept);
    cr_assert(client_says(&client, 'h'));
}

static void go_on(unsigned waiters)
{
    client_tell(&client, 'g');
    cr_assert(client_waits(&client, waiters));
}

// A VM whose handler, `faultline handler`, was killed in the middle.
static void orphan(const struct plan *plan)
{
    world = world_make(MIXED, BYTES);
    world_handler(world, NULL);
    start_vmm(plan);
    server_kill(&world->server);
    go_on(plan->poisoned ? 1 : THREADS);
}

// --- commands ---

// `faultline rescue OPTIONS... PID`, for the server and the store of this test.
static int rescue_pid(pid_t pid, const char *const *options)
{
    char number[16];
    const char *args[ARGS] = {"rescue", "--control", temp_path(&world->temp, "control.sock"),
                              "--store", world->store};
    unsigned count = 5;
    snprintf(number, sizeof(number), "%d", (int)pid);
    while (options && *options)
        args[count++] = *options++;
    args[count++] = number;
    args[count] = NULL;
    return faultline_run(output, sizeof(output), args);
}

#define RESCUE(...) rescue_pid(client.pid, (const char *const[]){__VA_ARGS__, NULL})
#define EXPECT_REFUSED(text, ...)                                                                  \
    do {                                                                                           \
        int status_ = RESCUE(__VA_ARGS__);                                                         \
        cr_expect(status_ == 1 && strstr(output, text), "status %d: %s", status_, output);         \
    } while (0)
#define EXPECT_DONE(...)                                                                           \
    do {                                                                                           \
        int status_ = RESCUE(__VA_ARGS__);                                                         \
        cr_assert(status_ == 0, "status %d: %s", status_, output);                                 \
    } while (0)

// Whether the doctor, who is asked until he does, says this.
static bool doctor_says(void *arg)
{
    const char *args[] = {"doctor", "--patience", "50", NULL};
    return faultline_run(output, sizeof(output), args) == 1 && strstr(output, arg);
}

__attribute__((format(printf, 1, 2))) static void expect_doctor(const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    cr_expect(wait_until(doctor_says, text), "the doctor does not say '%s' but: %s", text, output);
}

static void expect_served(void)
{
    int status = client_wait(&client);
    if (status != 0)
        server_print_log(&world->server);
    cr_assert_eq(status, 0, "the VM ends with %d", status);
    cr_assert(server_wait_log(&world->server, "event=detach vm=", 1));
    world_stop(world);
}

// --- the incident ---

Test(rescue, a_kvm_guest_whose_handler_was_killed)
{
    need_kvm();
    world = world_make(MIXED, BYTES);
    guest_put_program(world->file);
    world_handler(world, NULL);
    struct guest_options options = {
        .memory = &world->memory, .socket = world->socket, .page_bytes = PAGE, .regions = 1};
    client_start(&client, guest_main, &options);
    cr_assert(server_wait_log(&world->server, "event=attach vm=", 1));
    server_kill(&world->server);
    cr_assert(client_waits(&client, GUEST_VCPUS));
    expect_doctor("its handler is gone");
    expect_doctor("faultline rescue --image NAME %d\n", (int)client.pid);
    world_serve(world, NULL);
    EXPECT_REFUSED("--nothing-removed", "--image", "image");
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_served();
}

// Firecracker's example handler does what this one does.
static void start_bare_handler(struct server *handler, const char *socket)
{
    snprintf(handler->log, sizeof(handler->log), "%s", temp_path(&world->temp, "bare.log"));
    handler->pid = fork();
    cr_assert_geq(handler->pid, 0);
    if (handler->pid == 0) {
        child_setup();
        int log = open(handler->log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        dup2(log, STDERR_FILENO);
        execl(BARE_HANDLER, "bare_handler", socket, world->file, NULL);
        _exit(127);
    }
    cr_assert(server_wait_log(handler, "event=ready", 1));
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

Test(rescue, a_vm_that_another_handler_abandoned)
{
    char socket[TEST_PATH];
    struct server handler = {0};
    world = world_make(MIXED, BYTES);
    snprintf(socket, sizeof(socket), "%s", temp_path(&world->temp, "bare.sock"));
    start_bare_handler(&handler, socket);
    world->socket = socket;
    start_vmm(&plain);
    end(handler.pid);
    go_on(THREADS);
    expect_doctor("faultline rescue --image NAME %d\n", (int)client.pid);
    world_serve(world, NULL);
    EXPECT_DONE("--image", "image", "--nothing-removed");
    cr_expect(strstr(output, "serves it from image image"), "%s", output);
    expect_served();
}

Test(rescue, a_vm_with_huge_pages)
{
    need_huge_pages(BYTES / HUGE);
    struct plan plan = {.page_bytes = HUGE, .regions = 1};
    orphan(&plan);
    world_serve(world, NULL);
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_served();
}

// --- what must be known ---

// What Faultline kept of the VM, taken from its engine.
static int take_state(void *arg, const struct fl_proc_fd *fd)
{
    int *state = arg;
    if (strncmp(fd->target, "/memfd:faultline-vm-", 20) != 0)
        return 0;
    *state = fl_proc_take_fd(fd->pid, fd->tid, fd->fd);
    return 1;
}

Test(rescue, a_vm_whose_state_was_kept)
{
    int state = -1;
    struct plan plan = {.page_bytes = PAGE, .regions = 2, .swapped = true, .removes = true};
    world = world_make(DISTINCT, BYTES);
    world_serve(world, NULL);
    start_vmm(&plan);
    pid_t engine = server_engine(&world->server);
    cr_assert_eq(fl_proc_each_fd(engine, take_state, &state), 1);
    server_kill(&world->server);
    cr_assert_geq(state, 0);
    go_on(THREADS);
    expect_doctor("faultline rescue --image image %d\n", (int)client.pid);
    cr_assert(server_serve(&world->server, &world->temp, world->store, NULL));
    EXPECT_REFUSED("another", "--image", "another");
    EXPECT_DONE("--json");
    cr_expect(strstr(output, "\"removed_pages\": 1024"), "%s", output);
    close(state);
    expect_served();
}

static void make_template(void)
{
    const char *args[] = {"template", "--control", temp_path(&world->temp, "control.sock"), "image",
                          NULL};
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0, "%s", output);
    snprintf(told->socket, sizeof(told->socket), "%s",
             temp_path(&world->temp, "sockets/image.template"));
}

// The template is lost with those who served it: what is missing comes privately, beside another
// template of the same image.
Test(rescue, a_vm_that_maps_a_template)
{
    int state = -1;
    struct plan plan = {.page_bytes = PAGE, .regions = 2, .shared = true, .removes = true};
    world = world_make(DISTINCT, BYTES);
    world_serve(world, NULL);
    make_template();
    start_vmm(&plan);
    pid_t engine = server_engine(&world->server);
    cr_assert_eq(fl_proc_each_fd(engine, take_state, &state), 1);
    server_kill(&world->server);
    cr_assert_geq(state, 0);
    go_on(THREADS);
    expect_doctor("faultline rescue --image image %d\n", (int)client.pid);
    cr_assert(server_serve(&world->server, &world->temp, world->store, NULL));
    make_template();
    EXPECT_DONE("--json");
    cr_expect(strstr(output, "\"removed_pages\": 0"), "%s", output);
    close(state);
    expect_served();
}

// Nor can anybody know, without what was kept, that it has given nothing back.
Test(rescue, a_vm_that_maps_a_template_and_of_which_nothing_was_kept)
{
    struct plan plan = {.page_bytes = PAGE, .regions = 1, .shared = true};
    world = world_make(DISTINCT, BYTES);
    world_serve(world, NULL);
    make_template();
    start_vmm(&plan);
    server_kill(&world->server);
    go_on(THREADS);
    cr_assert(server_serve(&world->server, &world->temp, world->store, NULL));
    EXPECT_REFUSED("nothing was kept of it", "--image", "image");
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_served();
}

// Side by side and in the wrong order: what is there already tells.
Test(rescue, regions_that_look_like_one)
{
    struct plan plan = {.page_bytes = PAGE, .regions = 2, .swapped = true};
    orphan(&plan);
    world_serve(world, NULL);
    EXPECT_REFUSED("more than one region", "--image", "image", "--nothing-removed");
    EXPECT_DONE("--image", "image", "--nothing-removed", "--regions", told->regions);
    expect_served();
}

// The same says that an image is another's.
Test(rescue, the_wrong_image)
{
    char other[2 * TEST_PATH];
    struct memory memory;
    orphan(&plain);
    world_serve(world, NULL);
    snprintf(other, sizeof(other), "%s", temp_path(&world->temp, "other"));
    memory_make_distinct(&memory, other, BYTES, 99);
    world_pack(world, other, "other");
    memory_free(&memory);
    EXPECT_REFUSED("restored from another", "--image", "other", "--nothing-removed");
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_served();
}

Test(rescue, refusals)
{
    char bad[VMM_TEXT + 64];
    orphan(&plain);
    EXPECT_REFUSED("which image", "--nothing-removed");
    EXPECT_REFUSED("cannot be compared", "--image", "nobody", "--nothing-removed");
    world_pack(world, world->file, "image");
    EXPECT_REFUSED("no server listens", "--image", "image", "--nothing-removed");
    cr_assert(server_serve(&world->server, &world->temp, world->store, NULL));
    EXPECT_REFUSED("still waits", "--image", "nobody", "--nothing-removed", "--force");
    EXPECT_REFUSED("is no userfaultfd", "--image", "image", "--nothing-removed", "--fd", "0");
    EXPECT_REFUSED("do not make sense", "--image", "image", "--regions", "[]");
    snprintf(bad, sizeof(bad),
             "[{\"base_host_virt_addr\":%llu,\"size\":%d,\"offset\":0,\"page_size\":4096}]",
             (unsigned long long)(uintptr_t)told->first, BYTES / 2);
    EXPECT_REFUSED("leave out memory", "--image", "image", "--regions", bad);
    cr_expect_eq(rescue_pid(getpid(), NULL), 1);
    cr_expect(strstr(output, "has no userfaultfd"), "%s", output);
    cr_expect_eq(RESCUE("--poison", "--kill"), 2);
    cr_expect_eq(RESCUE("7"), 2);
    cr_expect(client_waits(&client, THREADS));
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_served();
}

Test(rescue, a_handler_that_lives)
{
    world = world_make(MIXED, BYTES);
    world_handler(world, NULL);
    start_vmm(&plain);
    server_pause(&world->server);
    client_tell(&client, 'g');
    cr_assert(client_waits(&client, THREADS));
    expect_doctor("kill -CONT %d\n", (int)world->server.pid);
    EXPECT_REFUSED("is no orphan", "--image", "image", "--nothing-removed");
    EXPECT_REFUSED("is no orphan", "--kill");
    server_resume(&world->server);
    expect_served();
}

// Two may serve one VM, for a while: the frozen one has read what it will not answer.
Test(rescue, by_force)
{
    struct server handler;
    world = world_make(MIXED, BYTES);
    world_handler(world, NULL);
    start_vmm(&plain);
    server_pause(&world->server);
    handler = world->server;
    go_on(THREADS);
    world_serve(world, NULL);
    EXPECT_DONE("--image", "image", "--nothing-removed", "--force");
    expect_served();
    server_kill(&handler);
}

// Two of a kind in one server would not hear of what each other's reads took out.
Test(rescue, twice_by_force)
{
    orphan(&plain);
    world_serve(world, NULL);
    cr_assert_eq(kill(client.pid, SIGSTOP), 0); // it is not to end meanwhile
    EXPECT_DONE("--image", "image", "--nothing-removed");
    EXPECT_REFUSED("serves it already", "--image", "image", "--nothing-removed", "--force");
    cr_expect_eq(world_status(world, "", "vms"), 1);
    cr_assert_eq(kill(client.pid, SIGCONT), 0);
    expect_served();
}

Test(rescue, without_doing_it)
{
    orphan(&plain);
    world_serve(world, NULL);
    EXPECT_DONE("--image", "image", "--nothing-removed", "--dry-run");
    cr_expect(strstr(output, "would be served from image image"), "%s", output);
    EXPECT_DONE("--image", "image", "--nothing-removed", "--dry-run", "--json");
    cr_expect(strstr(output, "\"outcome\": \"nothing done\""), "%s", output);
    EXPECT_DONE("--kill", "--dry-run");
    cr_expect(client_waits(&client, THREADS));
    EXPECT_DONE("--image", "image", "--nothing-removed");
    expect_served();
}

// --- where nothing is known ---

static const struct plan condemned = {
    .page_bytes = PAGE, .regions = 1, .removes = true, .poisoned = true};

Test(rescue, poison_by_the_server)
{
    orphan(&condemned);
    world_serve(world, NULL);
    EXPECT_REFUSED("corrupt the guest", "--image", "image");
    EXPECT_DONE("--poison");
    expect_served();
}

static bool has_ended(void *arg)
{
    siginfo_t info = {0};
    const struct server *server = arg;
    return waitid(P_PID, (id_t)server->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid != 0;
}

// Without a server it is done by the command itself, until the VMM ends.
Test(rescue, poison_without_a_server)
{
    char number[16];
    struct server rescuer;
    struct plan plan = {.page_bytes = PAGE, .regions = 2, .removes = true, .poisoned = true};
    orphan(&plan);
    snprintf(number, sizeof(number), "%d", (int)client.pid);
    const char *args[] = {"rescue",   "--control", temp_path(&world->temp, "none.sock"),
                          "--poison", number,      NULL};
    server_spawn(&rescuer, &world->temp, "rescuer", args);
    cr_assert_eq(client_wait(&client), 0);
    cr_assert(wait_until(has_ended, &rescuer));
    cr_expect_eq(server_count_log(&rescuer, "from here, until it ends"), 1);
    cr_expect_eq(server_stop(&rescuer), 0);
}

Test(rescue, kill_by_the_server)
{
    orphan(&plain);
    world_serve(world, NULL);
    EXPECT_DONE("--kill");
    cr_assert_eq(client_wait(&client), 128 + SIGKILL);
    cr_assert(server_wait_log(&world->server, "event=detach vm=1 image=- ", 1));
    cr_assert_eq(server_count_log(&world->server, "event=adopt vm=1 image=- "), 1);
    cr_assert_eq(server_count_log(&world->server, "event=kill vm=1 image=- "), 1);
    world_stop(world);
}

Test(rescue, kill_without_a_server)
{
    orphan(&plain);
    EXPECT_DONE("--kill");
    cr_expect(strstr(output, "its memory is gone"), "%s", output);
    cr_assert_eq(client_wait(&client), 128 + SIGKILL);
}

// --- processes that are on their way out ---

static pid_t forked(void (*run)(void *arg), void *arg)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        child_setup();
        run(arg);
        _exit(0);
    }
    return pid;
}

static void wait_for_ever(void *arg)
{
    (void)arg;
    for (;;)
        pause();
}

// Reads the VM's memory, from outside.
static void peek(void *arg)
{
    char byte;
    struct iovec ours = {.iov_base = &byte, .iov_len = 1};
    struct iovec theirs = {.iov_base = told->first + PAGE, .iov_len = 1};
    process_vm_readv(*(const pid_t *)arg, &ours, 1, &theirs, 1, 0);
}

static bool waits_for_page(void *arg)
{
    char path[64];
    char text[64] = "";
    snprintf(path, sizeof(path), "/proc/%d/wchan", (int)*(const pid_t *)arg);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = read(fd, text, sizeof(text) - 1);
    close(fd);
    return got > 0 && strcmp(text, "handle_userfault") == 0;
}

static int find_uffd(void *arg, const struct fl_proc_fd *fd)
{
    int *number = arg;
    if (strcmp(fd->target, "anon_inode:[userfaultfd]") != 0)
        return 0;
    *number = fd->fd;
    return 1;
}

// The VMM is dead, but not its memory, as somebody works in it: like a kernel worker, but one that
// tests can have. What answers him is a descriptor that a third one has.
Test(rescue, a_dead_vmm_in_whose_memory_somebody_waits)
{
    int fd = -1;
    char number[16];
    world = world_make(MIXED, BYTES);
    world_handler(world, NULL);
    start_vmm(&plain);
    cr_assert_eq(fl_proc_each_fd(client.pid, find_uffd, &fd), 1);
    int taken = fl_proc_take_fd(client.pid, client.pid, fd);
    cr_assert_geq(taken, 0);
    pid_t holder = forked(wait_for_ever, NULL);
    close(taken);
    server_kill(&world->server);
    pid_t reader = forked(peek, &client.pid);
    cr_assert(wait_until(waits_for_page, &reader));
    siginfo_t info;
    kill(client.pid, SIGKILL);
    cr_assert_eq(waitid(P_PID, (id_t)client.pid, &info, WEXITED | WNOWAIT), 0);

    expect_doctor("none of the holders");
    EXPECT_REFUSED("is dying, and its descriptors are gone", "--kill");
    snprintf(number, sizeof(number), "--fd %d %d", taken, (int)holder);
    cr_expect(strstr(output, number), "%s", output);
    snprintf(number, sizeof(number), "%d", taken);
    EXPECT_REFUSED("is dying", "--poison", "--fd", number);
    cr_expect_eq(rescue_pid(holder, NULL), 1);
    cr_expect(strstr(output, "no memory of"), "%s", output);
    const char *options[] = {"--poison", "--force", "--fd", number, NULL};
    cr_expect_eq(rescue_pid(holder, options), 0, "%s", output);
    cr_expect_eq(waitpid(reader, NULL, 0), reader);
    end(holder);
}
