// SPDX-License-Identifier: Apache-2.0
//
// Images as files while the disk fails, or the kernel is too old to send requests again.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/host/fuse_mount.h"
#include "tests/support/failing_world.h"
#include "tests/support/files_world.h"

TestSuite(files_trouble, .init = need_fuse, .fini = files_close, .timeout = 240);

enum { BYTES = 8 << 20, AWAY = 4 << 20 };

static struct world *world;
static struct failing_calls *calls;

static void begin(const char *const *extra)
{
    world = files_make(DISTINCT, BYTES);
    calls = world_failing_calls(world);
    atomic_store(&calls->every, 1);
    world_serve_failing(world, files_options(world, extra));
    cr_assert(server_wait_log(&world->server, "event=engine_ready", 1)); // the standby, too
}

static const char *const patient[] = {"--retries", "0", "--read-timeout", "60s", NULL};
static const char *const hasty[] = {"--retries", "0", "--read-timeout", "500ms", NULL};

struct touch {
    uint64_t offset;
    bool sigbus;
};

// Two pages: one before the trouble, one within it.
static int touch_two(int channel, struct client_shared *shared, void *arg)
{
    uint64_t bytes = 0;
    const struct touch *touch = arg;
    (void)shared;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    uint8_t *map = files_map(files_path(world, "image"), &bytes);
    CHECK(map, "cannot map it");
    CHECK(memory_same(&world->memory, 0, map, PAGE), "the first page is wrong");
    vmm_catch_sigbus();
    tell_test(channel, 'm');
    await_test(channel, 'g');
    if (touch->sigbus)
        CHECK(vmm_poisoned(map + touch->offset), "there is a page where there can be none");
    else
        CHECK(memory_same(&world->memory, touch->offset, map + touch->offset, PAGE), "wrong page");
    tell_test(channel, 'd');
    CHECK(memory_same(&world->memory, 0, map, PAGE), "what was there is gone");
    return 0;
}

static bool one_is_held(void *arg)
{
    return world_status(arg, "files", "held") > 1;
}

static void start(struct client *client, struct touch *touch)
{
    client_start(client, touch_two, touch);
    cr_assert(client_says(client, 'm'));
}

static void touch_in_trouble(struct client *client, struct touch *touch)
{
    start(client, touch);
    atomic_store(&calls->what, FAILING_READS);
    client_tell(client, 'g');
    cr_assert(wait_until(one_is_held, world));
}

Test(files_trouble, a_fault_of_the_disk_that_passes_is_waited_for)
{
    struct client client;
    struct touch touch = {AWAY, false};
    begin(patient);
    touch_in_trouble(&client, &touch);
    atomic_store(&calls->what, 0);
    cr_assert(client_says(&client, 'd'));
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    cr_assert_eq(world_status(world, "files", "failed"), 0);
    world_stop(world);
}

// And counts once, however often the kernel asks.
Test(files_trouble, one_that_lasts_is_sigbus)
{
    struct client client;
    struct touch touch = {AWAY, true};
    begin(hasty);
    start(&client, &touch);
    atomic_store(&calls->what, FAILING_READS);
    client_tell(&client, 'g');
    cr_assert(client_says(&client, 'd'));
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    cr_assert_eq(world_status(world, "files", "failed"), 1);
    atomic_store(&calls->what, 0);
    touch.sigbus = false; // the same page, for another process
    start(&client, &touch);
    client_tell(&client, 'g');
    cr_assert(client_says(&client, 'd'));
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    world_stop(world);
}

static void on_signal(int signal)
{
    (void)signal;
}

// Without readahead, as a mapping has it that was touched at random often enough: the kernel then
// asks for the one page, and asks us to let go of it for any signal. A system call that copies the
// page does not handle the signal first: as a device of a VMM that sends it.
static int touch_while_signalled(int channel, struct client_shared *shared, void *arg)
{
    static uint8_t page[PAGE];
    uint64_t bytes = 0;
    int ends[2];
    (void)shared;
    (void)arg;
    signal(SIGUSR1, on_signal);
    CHECK(pipe2(ends, O_CLOEXEC) == 0, "no pipe");
    uint8_t *map = files_map(files_path(world, "image"), &bytes);
    CHECK(map && madvise(map, bytes, MADV_RANDOM) == 0, "cannot map it");
    tell_test(channel, 'm');
    await_test(channel, 'g');
    CHECK(write(ends[1], map + AWAY, PAGE) == PAGE, "a signal is an error of the page");
    CHECK(read(ends[0], page, PAGE) == PAGE && memory_same(&world->memory, AWAY, page, PAGE),
          "wrong page");
    return 0;
}

static long long held_before;

static bool held_more(void *arg)
{
    return world_status(arg, "files", "held") > held_before + 2;
}

Test(files_trouble, a_signal_that_does_not_kill_is_no_error)
{
    struct client client;
    begin(patient);
    client_start(&client, touch_while_signalled, NULL);
    cr_assert(client_says(&client, 'm'));
    atomic_store(&calls->what, FAILING_READS);
    client_tell(&client, 'g');
    cr_assert(wait_until(one_is_held, world));
    held_before = world_status(world, "files", "held");
    kill(client.pid, SIGUSR1);
    cr_assert(wait_until(held_more, world)); // the kernel's word of the signal has come before
    atomic_store(&calls->what, 0);
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    cr_assert_eq(world_status(world, "files", "interrupted"), 0);
    world_stop(world);
}

// Past the page cache, so that nothing but an answer wakes it.
static int read_one(int channel, struct client_shared *shared, void *arg)
{
    static uint8_t page[PAGE] __attribute__((aligned(PAGE)));
    int fd = open(files_path(world, "image"), O_RDONLY | O_DIRECT | O_CLOEXEC);
    (void)channel;
    (void)shared;
    (void)arg;
    CHECK(fd >= 0 && pread(fd, page, PAGE, AWAY / 2) == PAGE, "cannot read it");
    return 0;
}

static long long waited_before;

static bool one_more_waits(void *arg)
{
    return world_status(arg, "files", "waiting") > waited_before;
}

Test(files_trouble, who_waits_can_be_killed)
{
    struct client client;
    struct touch touch = {AWAY, false};
    begin(patient);
    touch_in_trouble(&client, &touch);
    client_kill(&client); // waits for its end
    waited_before = world_status(world, "files", "waiting");
    client_start(&client, read_one, NULL);
    cr_assert(wait_until(one_more_waits, world));
    client_kill(&client); // the kernel asks the engine to let go of this one
    cr_assert_gt(world_status(world, "files", "interrupted"), 0);
    atomic_store(&calls->what, 0);
    start(&client, &touch);
    client_tell(&client, 'g');
    cr_assert(client_says(&client, 'd'));
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    world_stop(world);
}

enum { MANY = 1100 };
static int opened;

static void *read_its_page(void *arg)
{
    uint8_t *page = aligned_alloc(PAGE, PAGE);
    uint64_t offset = (uint64_t)(uintptr_t)arg * PAGE;
    CHECK(page && pread(opened, page, PAGE, (off_t)offset) == PAGE, "cannot read it");
    CHECK(memory_same(&world->memory, offset, page, PAGE), "wrong page");
    free(page);
    return NULL;
}

static int read_many(int channel, struct client_shared *shared, void *arg)
{
    static pthread_t thread[MANY];
    pthread_attr_t small;
    (void)shared;
    (void)arg;
    opened = open(files_path(world, "image"), O_RDONLY | O_DIRECT | O_CLOEXEC);
    CHECK(opened >= 0, "cannot open it");
    tell_test(channel, 'm');
    await_test(channel, 'g');
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 << 10);
    for (uintptr_t i = 0; i < MANY; i++)
        CHECK(pthread_create(&thread[i], &small, read_its_page, (void *)i) == 0, "no thread");
    for (unsigned i = 0; i < MANY; i++)
        pthread_join(thread[i], NULL);
    return 0;
}

static int look_at_it(int channel, struct client_shared *shared, void *arg)
{
    struct stat status;
    (void)channel;
    (void)shared;
    (void)arg;
    CHECK(stat(files_path(world, "image"), &status) == 0, "cannot look at it");
    return 0;
}

static bool all_wait(void *arg)
{
    return world_status(arg, "files", "waiting") == MANY;
}

// Nor is the kernel not listened to, which may have to say that a caller was killed.
Test(files_trouble, any_number_of_reads_that_wait_holds_up_nothing_else)
{
    static const char *const very_patient[] = {"--retries", "0", "--read-timeout", "600s", NULL};
    struct client client;
    struct client other;
    begin(very_patient);
    client_start(&client, read_many, NULL);
    cr_assert(client_says(&client, 'm'));
    atomic_store(&calls->what, FAILING_READS);
    client_tell(&client, 'g');
    cr_assert(wait_until(all_wait, world));
    client_start(&other, look_at_it, NULL);
    cr_assert_eq(client_wait(&other), 0, "%s", client_failure());
    atomic_store(&calls->what, 0);
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    cr_assert_eq(world_status(world, "files", "failed"), 0);
    world_stop(world);
}

// Linux before 6.9. The one that waits goes on waiting, and is told by an abort; nothing is killed.
Test(files_trouble, a_kernel_that_sends_nothing_again)
{
    struct client client;
    struct client other;
    struct touch touch = {AWAY, true};
    struct touch elsewhere = {AWAY / 2, false};
    struct fl_fuse_mount mount;
    begin(patient);
    start(&other, &elsewhere);
    touch_in_trouble(&client, &touch);
    atomic_store(&calls->what, FAILING_RESENDS);
    world->server.deaths = 1;
    kill(server_engine(&world->server), SIGKILL);
    cr_assert(server_wait_log(&world->server, "event=files_not_resent", 1));
    client_tell(&other, 'g');
    cr_assert(client_says(&other, 'd'));
    cr_assert_eq(client_wait(&other), 0, "%s", client_failure());
    cr_assert_gt(files_waiting(world), 0);
    cr_assert_eq(fl_fuse_mount_find(temp_path(&world->temp, "files"), &mount), 0);
    cr_assert_eq(fl_fuse_abort(mount.connection), 0);
    cr_assert(client_says(&client, 'd'));
    cr_assert_eq(client_wait(&client), 0, "%s", client_failure());
    cr_assert(server_wait_log(&world->server, "event=degraded what=files", 1));
    world_stop(world);
}
