// SPDX-License-Identifier: Apache-2.0
//
// Who is killed for a VM whose page cannot be had, and what if that is nobody: the process whose
// memory it is, whoever did its handshake.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <glob.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/points.h"
#include "tests/support/puppet.h"
#include "tests/support/world.h"

TestSuite(owner, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

enum { BYTES = 2 << 20, SIGBUS_STATUS = 128 + SIGBUS, SIGKILL_STATUS = 128 + SIGKILL };
enum { NOT_COMPLETED = 3 }; // exit status of a server that has killed VMs at its end

static struct world *world;
static const char *const kill_it[] = {"--retries", "0", "--on-error", "kill", NULL};

// No frame of the image can be had from now on.
static void spoil(void)
{
    glob_t found;
    struct stat status;
    static const uint8_t noise[256 << 10] = {0xa5, 0x5a};
    cr_assert_eq(glob(temp_path(&world->temp, "store/packs/*.pack"), 0, NULL, &found), 0);
    int fd = open(found.gl_pathv[0], O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0 && fstat(fd, &status) == 0);
    for (off_t at = 4096; at < status.st_size; at += (off_t)sizeof(noise))
        cr_assert_gt(pwrite(fd, noise, sizeof(noise), at), 0);
    close(fd);
    globfree(&found);
}

struct play {
    struct client doll;
    struct client master;
    struct puppet puppet;
    struct puppeteer puppeteer;
};

static void expect_log(const char *event, const struct client *client)
{
    char line[128];
    snprintf(line, sizeof(line), "event=%s image=image pid=%d ", event, (int)client->pid);
    cr_assert(server_wait_log(&world->server, line, 1));
}

static void begin(struct play *play, bool closes)
{
    play->puppet = (struct puppet){.memory = &world->memory, .closes = closes};
    play->puppeteer = (struct puppeteer){.puppet = &play->doll, .socket = world->socket};
    client_start(&play->doll, puppet_main, &play->puppet);
    client_start(&play->master, puppeteer_main, &play->puppeteer);
    cr_assert(client_says(&play->master, 'h'));
}

static void serve(const char *const *options)
{
    world = world_make(DISTINCT, BYTES);
    world_serve(world, options);
}

static void master_lives(struct play *play)
{
    client_tell(&play->master, 'e');
    cr_assert_eq(client_wait(&play->master), 0, "who did the handshake was killed");
}

Test(owner, is_killed_and_not_who_did_the_handshake)
{
    struct play play;
    serve(kill_it);
    begin(&play, false);
    expect_log("owner", &play.doll);
    expect_log("attach vm=1", &play.doll);
    cr_assert_eq(world_status(world, "", "unowned"), 0);
    spoil();
    client_tell(&play.doll, 't');
    cr_assert_eq(client_wait(&play.doll), SIGKILL_STATUS);
    cr_assert(server_wait_log(&world->server, "event=detach vm=1", 1));
    cr_assert_eq(server_logs(&world->server, "event=kill vm=1", 1), 1);
    cr_assert_eq(server_count_log(&world->server, "event=poison"), 0);
    master_lives(&play);
    world_stop(world);
}

Test(owner, is_killed_when_who_did_the_handshake_has_gone)
{
    struct play play;
    serve(kill_it);
    begin(&play, false);
    master_lives(&play);
    expect_log("attach vm=1", &play.doll);
    spoil();
    client_tell(&play.doll, 't');
    cr_assert_eq(client_wait(&play.doll), SIGKILL_STATUS);
    cr_assert(server_wait_log(&world->server, "event=detach vm=1", 1));
    world_stop(world);
}

// Its end is seen, though who did its handshake lives on.
Test(owner, is_missed_though_who_did_the_handshake_lives)
{
    struct play play;
    serve(NULL);
    begin(&play, false);
    cr_assert(server_wait_log(&world->server, "event=attach vm=1", 1));
    client_kill(&play.doll);
    cr_assert(server_wait_log(&world->server, "event=detach vm=1", 1));
    master_lives(&play);
    world_stop(world);
}

static bool engine_has_pidfd_of(void *client)
{
    char pattern[64];
    char line[128];
    char wanted[32];
    glob_t found;
    bool has = false;
    snprintf(wanted, sizeof(wanted), "Pid:\t%d\n", (int)((struct client *)client)->pid);
    snprintf(pattern, sizeof(pattern), "/proc/%d/fdinfo/*", (int)server_engine(&world->server));
    if (glob(pattern, 0, NULL, &found) != 0)
        return false;
    for (size_t i = 0; i < found.gl_pathc && !has; i++) {
        FILE *file = fopen(found.gl_pathv[i], "re");
        while (file && !has && fgets(line, sizeof(line), file))
            has = strcmp(line, wanted) == 0;
        if (file)
            fclose(file);
    }
    globfree(&found);
    return has;
}

// Nothing is registered any more of memory that has just gone: that is no fault of its handshake.
Test(owner, that_ends_while_it_is_looked_at_is_not_refused)
{
    struct play play;
    need_points();
    world = world_make(DISTINCT, BYTES);
    point_hold(world, "owner_found");
    world_serve(world, NULL);
    begin(&play, false);
    cr_assert(wait_until(engine_has_pidfd_of, &play.doll), "its memory was not found");
    client_kill(&play.doll);
    point_let_go(world);
    cr_assert(server_wait_log(&world->server, "event=detach vm=1", 1));
    cr_assert_eq(server_count_log(&world->server, "event=refuse "), 0);
    master_lives(&play);
    world_stop(world);
}

// Both were forked by one process, so they have the same addresses, and neither has its
// userfaultfd: only the memory itself tells them apart.
Test(owner, is_told_from_another_with_the_same_addresses)
{
    struct play play[2];
    serve(kill_it);
    begin(&play[0], true);
    cr_assert(server_wait_log(&world->server, "event=attach vm=1", 1));
    begin(&play[1], true);
    cr_assert(server_wait_log(&world->server, "event=attach vm=2", 1));
    spoil();
    client_tell(&play[1].doll, 't');
    cr_assert_eq(client_wait(&play[1].doll), SIGKILL_STATUS);
    cr_assert(server_wait_log(&world->server, "event=detach vm=2", 1));
    cr_assert_eq(server_logs(&world->server, "event=kill ", 1), 1);
    for (unsigned i = 0; i < 2; i++)
        master_lives(&play[i]);
    cr_assert_eq(kill(play[0].doll.pid, 0), 0);
    client_kill(&play[0].doll);
    world_stop(world);
}

Test(owner, is_killed_at_the_end_and_not_who_did_the_handshake)
{
    static const char *const no_time[] = {"--stop-timeout", "0", NULL};
    struct play play;
    serve(no_time);
    begin(&play, false);
    cr_assert(server_wait_log(&world->server, "event=attach vm=1", 1));
    cr_assert_eq(server_stop(&world->server), NOT_COMPLETED);
    cr_assert_eq(client_wait(&play.doll), SIGKILL_STATUS);
    master_lives(&play);
}

Test(owner, of_a_refused_handshake_is_killed_at_the_end)
{
    struct play play;
    serve(NULL);
    world->memory.bytes *= 2; // a VM that is larger than its image
    begin(&play, false);
    cr_assert(server_wait_log(&world->server, "event=refuse image=image", 1));
    server_stop(&world->server);
    cr_assert_eq(client_wait(&play.doll), SIGKILL_STATUS);
    master_lives(&play);
    world->memory.bytes /= 2;
}

// --- memory that outlives the process that had it ---

static int heir_main(void *arg)
{
    const struct vmm *vmm = arg;
    close(vmm->uffd);
    close(vmm->socket);
    for (uint32_t page = 0; page < vmm->pages; page++)
        (void)*(volatile const uint8_t *)vmm_page(vmm, page);
    _exit(0);
}

struct parent {
    bool lives; // beside its heir
};

static int parent_main(int channel, struct client_shared *shared, void *arg)
{
    static struct vmm vmm;
    static char stack[64 << 10] __attribute__((aligned(16)));
    const struct parent *parent = arg;
    (void)shared;
    vmm_map(&vmm, &world->memory, PAGE, 1, VMM_MAIN);
    vmm_handshake(&vmm, world->socket);
    vmm_check(&vmm, 0);
    tell_test(channel, 'a');
    await_test(channel, 'g');
    CHECK(clone(heir_main, stack + sizeof(stack), CLONE_VM | SIGCHLD, &vmm) > 0, "clone");
    if (parent->lives)
        await_test(channel, 'n'); // which is never said
    _exit(0);
}

// The heir is nobody's child that we could wait for: it holds the channel until it ends.
static void inherit(bool parent_lives)
{
    char said = 0;
    struct client client;
    struct parent parent = {parent_lives};
    serve(kill_it);
    client_start(&client, parent_main, &parent);
    cr_assert(client_says(&client, 'a'));
    spoil();
    int channel = dup(client.channel);
    client_tell(&client, 'g');
    cr_assert_eq(client_wait(&client), parent_lives ? SIGKILL_STATUS : 0);
    cr_assert_eq(recv(channel, &said, 1, 0), 0, "the heir lives");
    close(channel);
    cr_assert(server_wait_log(&world->server, "event=detach vm=1", 1));
    world_stop(world);
}

Test(owner, is_whoever_has_the_memory_when_it_is_killed)
{
    inherit(false);
}

// The first kill changes nothing for the one who waits.
Test(owner, is_each_of_those_who_share_the_memory)
{
    inherit(true);
}

// --- nobody to kill ---

// A server that may not look into other processes: for reading, Linux takes the right to measure
// them (CAP_PERFMON, CAP_SYS_ADMIN) for the right to trace them.
static void serve_blindly(const char *const *options)
{
    const char *real = getenv("FAULTLINE_BIN");
    world = world_make(DISTINCT, BYTES);
    const char *path = temp_path(&world->temp, "blind");
    FILE *script = fopen(path, "we");
    cr_assert(real && script);
    fprintf(script,
            "#!/bin/sh\n"
            "drop=-sys_ptrace,-perfmon,-sys_admin\n"
            "exec setpriv --inh-caps=$drop --bounding-set=$drop '%s' \"$@\"\n",
            real);
    fclose(script);
    cr_assert_eq(chmod(path, 0700), 0);
    world_pack(world, world->file, "blinds_own");
    setenv("FAULTLINE_BIN", path, 1);
    world_serve(world, options);
    setenv("FAULTLINE_BIN", real, 1);
}

Test(owner, is_poisoned_where_it_cannot_be_found)
{
    struct play play;
    serve_blindly(kill_it);
    begin(&play, false);
    cr_assert(server_wait_log(&world->server, "event=owner_unknown image=image", 1));
    cr_assert_eq(world_status(world, "", "unowned"), 1);
    spoil();
    client_tell(&play.doll, 't');
    cr_assert_eq(client_wait(&play.doll), SIGBUS_STATUS);
    cr_assert_eq(server_logs(&world->server, "event=kill_failed vm=1", 1), 1);
    cr_assert_eq(server_count_log(&world->server, "event=kill vm="), 0);
    cr_assert(server_wait_log(&world->server, "event=detach vm=1", 1));
    master_lives(&play);
    world_stop(world);
}

// Of a refused one no page is kept in mind: those who wait must be woken to ask again.
Test(owner, of_a_refused_handshake_is_poisoned_where_it_cannot_be_found)
{
    struct play play;
    serve_blindly(kill_it);
    world->memory.bytes *= 2; // a VM that is larger than its image
    begin(&play, false);
    world->memory.bytes /= 2;
    cr_assert(server_wait_log(&world->server, "event=refuse image=image", 1));
    client_tell(&play.doll, 't');
    cr_assert_eq(client_wait(&play.doll), SIGBUS_STATUS);
    master_lives(&play);
    server_stop(&world->server);
}

// --- no engine that serves it ---

static void serve_once(void (*how)(const char *const *options))
{
    need_points();
    setenv("FAULTLINE_KILL_AT", "vm_inherited", 1);
    how(NULL);
    unsetenv("FAULTLINE_KILL_AT");
}

static void lose_the_engine(struct play *play)
{
    begin(play, true);
    cr_assert(server_wait_log(&world->server, "event=attach vm=1", 1));
    cr_assert_eq(kill(server_engine(&world->server), SIGKILL), 0);
    client_tell(&play->doll, 't');
}

static void expect_the_end(void)
{
    int status = -1;
    cr_assert(server_wait_log(&world->server, "event=failing_closed vms=1", 1));
    cr_assert_eq(waitpid(world->server.pid, &status, 0), world->server.pid);
    cr_assert_eq(WEXITSTATUS(status), 1);
    world->server.pid = 0;
}

// The userfaultfd is the servers' alone: whoever closed the last reference to it under the live VM
// would hand it zeros.
Test(owner, is_killed_when_no_engine_can_be_kept_alive)
{
    struct play play;
    serve_once(serve);
    lose_the_engine(&play);
    cr_assert_eq(client_wait(&play.doll), SIGKILL_STATUS);
    expect_the_end();
    master_lives(&play);
}

Test(owner, is_poisoned_when_no_engine_can_be_kept_alive_and_it_cannot_be_found)
{
    struct play play;
    serve_once(serve_blindly);
    lose_the_engine(&play);
    cr_assert_eq(client_wait(&play.doll), SIGBUS_STATUS);
    expect_the_end();
    master_lives(&play);
}
