// SPDX-License-Identifier: Apache-2.0
//
// VMs that are restored from a capture while it is still copied and packed. The packing is held
// back: nothing is packed but what a VM waits for. So what these VMs get came first, and is that of
// the moment, as the VM that was captured writes on.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/checkpoint_world.h"
#include "tests/support/points.h"
#include "tests/support/stop.h"

TestSuite(checkpoint_live, .init = need_userfaultfd, .fini = checkpoint_world_close,
          .timeout = 240);

enum { BYTES = 24 << 20, PAGES = BYTES / 4096, SOME = PAGES / 10 };

static struct checkpoint_world *all;
static struct server other; // another one on the same store
static char other_socket[2 * TEST_PATH];
static char other_control[2 * TEST_PATH];

static const char *path_of(const char *leaf)
{
    return temp_path(&all->world->temp, leaf);
}

static void make_and_start(void)
{
    need_points();
    all = checkpoint_world_make(MIXED, BYTES);
    checkpoint_world_start();
}

static void start_other_with(const char *image, const char *hang_timeout)
{
    char leaf[TEST_PATH];
    char sockets[2 * TEST_PATH];
    snprintf(sockets, sizeof(sockets), "%s", path_of("sockets-b"));
    snprintf(other_control, sizeof(other_control), "%s", path_of("control-b.sock"));
    const char *args[] = {"serve",     "--store",     all->world->store, "--sockets",  sockets,
                          "--control", other_control, "--hang-timeout",  hang_timeout, NULL};
    cr_assert(server_start(&other, &all->world->temp, "b", args));
    snprintf(leaf, sizeof(leaf), "sockets-b/%s.sock", image);
    snprintf(other_socket, sizeof(other_socket), "%s", path_of(leaf));
}

static void start_other(const char *image)
{
    start_other_with(image, "10s");
}

// --- the packing ---

static void hold(void)
{
    point_hold(all->world, "pack_next");
}

static void let_go(void)
{
    point_let_go(all->world);
}

static void read_output(char text[CHECKPOINT_TEXT])
{
    int fd = open(path_of("output"), O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text, CHECKPOINT_TEXT - 1) : -1;
    text[got > 0 ? got : 0] = '\0';
    if (fd >= 0)
        close(fd);
}

static bool says(void *arg)
{
    char text[CHECKPOINT_TEXT];
    read_output(text);
    return strstr(text, arg) != NULL;
}

static pid_t begin_live(const char *name)
{
    char told[TEST_PATH];
    const char *args[] = {"--live", NULL};
    hold();
    pid_t pid = checkpoint_begin(name, args, path_of("output"));
    snprintf(told, sizeof(told), "{\"event\":\"restorable\",\"image\":\"%s\"}", name);
    bool restorable = wait_until(says, told);
    char text[CHECKPOINT_TEXT];
    read_output(text);
    cr_assert(restorable, "%s", text);
    return pid;
}

static void expect_done(pid_t pid)
{
    char text[CHECKPOINT_TEXT];
    int status = checkpoint_ended(pid);
    read_output(text);
    cr_assert_eq(status, 0, "%d: %s", status, text);
}

static unsigned files_of_offers(void)
{
    char line[CHECKPOINT_TEXT] = "";
    char command[4 * TEST_PATH];
    snprintf(command, sizeof(command), "ls %s/images | grep -c -e 'live$' -e 'table$'",
             all->world->store);
    FILE *pipe = popen(command, "re");
    cr_assert(pipe && fgets(line, sizeof(line), pipe));
    pclose(pipe);
    return (unsigned)strtoul(line, NULL, 10);
}

static void expect_whole(struct client *clone)
{
    cr_assert_eq(client_wait(clone), 0, "%s", client_failure());
}

// --- tests ---

Test(checkpoint_live, clones_get_all_they_touch_while_nothing_else_is_packed)
{
    char text[CHECKPOINT_TEXT];
    char state[2 * TEST_PATH];
    char with[3 * TEST_PATH];
    static const char *const args[] = {"--count", "2", "--name", "box", "--json", NULL};
    make_and_start();
    hold();
    pid_t pid = checkpoint_begin_verb("fork", args, path_of("output"));
    cr_assert(wait_until(says, "{\"event\":\"restorable\",\"image\":\"box-1\"}"));
    cr_assert(wait_until(says, "{\"event\":\"restorable\",\"image\":\"box-2\"}"));
    snprintf(state, sizeof(state), "%s", path_of("state"));
    snprintf(with, sizeof(with), "vmstate=%s", state);
    const char *unpack[] = {"unpack", "--store", all->world->store, "--with", with, "box-2", NULL};
    cr_assert_eq(faultline_run(text, sizeof(text), unpack), 0, "%s", text);
    checkpoint_restores("box-1");
    checkpoint_restores("box-2");
    cr_assert_not(checkpoint_has_image("box-1"));
    cr_assert_eq(files_of_offers(), 3);
    let_go();
    expect_done(pid);
    cr_assert_eq(files_of_offers(), 0);
    checkpoint_image_is_right("box-1");
    checkpoint_image_is_right("box-2");
    checkpoint_restores("box-2");
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// The state that is unpacked before the image is finished is that of the finished one.
Test(checkpoint_live, one_that_runs_goes_on_when_the_image_is_published)
{
    struct client clone;
    make_and_start();
    pid_t pid = begin_live("one");
    checkpoint_clone(&clone, path_of("sockets/one.sock"), true);
    cr_assert(client_progressed(&clone, SOME));
    cr_assert(process_stop(clone.pid));
    let_go();
    expect_done(pid);
    cr_assert(server_wait_log(&all->world->server, "event=image_published image=one", 1));
    kill(clone.pid, SIGCONT);
    expect_whole(&clone);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// The VM that was captured stays paused: it goes on at the other server, with the store alone.
Test(checkpoint_live, migrates_to_another_server)
{
    char text[CHECKPOINT_TEXT];
    struct client clone;
    static const char *const args[] = {"--live", "--leave-paused", NULL};
    make_and_start();
    start_other("moved");
    hold();
    unsigned resumes = atomic_load(&all->mini->resumes);
    pid_t pid = checkpoint_begin("moved", args, path_of("output"));
    checkpoint_clone(&clone, other_socket, false);
    expect_whole(&clone);
    cr_assert_not(checkpoint_has_image("moved"));
    cr_assert(atomic_load(&all->mini->paused));
    let_go();
    expect_done(pid);
    read_output(text);
    cr_assert(strstr(text, "\"left_paused\":true") || strstr(text, "\"left_paused\": true"), "%s",
              text);
    cr_assert(strstr(text, "\"frozen\""), "%s", text);
    cr_assert(atomic_load(&all->mini->paused));
    cr_assert_eq(atomic_load(&all->mini->resumes), resumes);
    cr_assert_eq(server_stop(&other), 0);
    checkpoint_image_is_right("moved");
    atomic_store(&all->mini->paused, false);
    writers_resume(all->mini->writers);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

static bool has_waited_for(void *ms)
{
    return server_status(other_control, "faults", "oldest_wait_ms") >= *(const long long *)ms;
}

// A page that comes late is no reason to kill the engine that waits for it: not even when it has
// waited for twice as long as an engine may be silent.
Test(checkpoint_live, a_command_that_is_stopped_for_a_while_costs_no_engine)
{
    struct client clone;
    long long twice_ms = 4000;
    make_and_start();
    start_other_with("one", "2s");
    pid_t pid = begin_live("one");
    cr_assert(process_stop(pid));
    checkpoint_clone(&clone, other_socket, true);
    cr_assert(client_waits(&clone, 1));
    cr_assert(wait_until(has_waited_for, &twice_ms));
    kill(pid, SIGCONT);
    expect_whole(&clone);
    let_go();
    expect_done(pid);
    cr_assert_eq(server_stop(&other), 0);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// What is lost is told to the VM's threads, and nobody waits for ever, on either server.
static void lose(pid_t pid)
{
    char text[CHECKPOINT_TEXT];
    struct client here;
    struct client there;
    checkpoint_clone(&here, path_of("sockets/one.sock"), true);
    checkpoint_clone(&there, other_socket, true);
    cr_assert(client_progressed(&here, SOME));
    cr_assert(client_progressed(&there, SOME));
    kill(pid, SIGKILL);
    cr_assert_eq(checkpoint_ended(pid), 128 + SIGKILL);
    // Or it has touched all of it before.
    int status = client_wait(&here);
    cr_assert(status == 128 + SIGBUS || status == 0, "%d: %s", status, client_failure());
    status = client_wait(&there);
    cr_assert(status == 128 + SIGBUS || status == 0, "%d: %s", status, client_failure());
    let_go();
    checkpoint_left_nothing();
    cr_assert_not(checkpoint_has_image("one"));
    const char *gc[] = {"gc", "--store", all->world->store, NULL};
    cr_assert_eq(faultline_run(text, sizeof(text), gc), 0, "%s", text);
    cr_assert_eq(files_of_offers(), 0);
}

static bool is_gone(void *path)
{
    return access(path, F_OK) != 0;
}

Test(checkpoint_live, the_command_is_killed)
{
    char text[CHECKPOINT_TEXT];
    char socket[2 * TEST_PATH];
    make_and_start();
    start_other("one");
    lose(begin_live("one"));
    snprintf(socket, sizeof(socket), "%s", path_of("sockets/one.sock"));
    cr_assert(wait_until(is_gone, socket));
    cr_assert(wait_until(is_gone, other_socket));
    const char *again[] = {"--name", "one", "--live", NULL};
    cr_assert_eq(checkpoint_do("checkpoint", text, again), 0, "%s", text);
    checkpoint_image_is_right("one");
    checkpoint_restores("one");
    cr_assert_eq(server_stop(&other), 0);
    checkpoint_world_stop();
}

// If all was copied before, nothing is lost: the command has the rest.
// --- what those verbs say that look at the store ---

static const char *ask_verb(const char *verb, const char *option, const char *image,
                            int *ret_status)
{
    static char text[4 * CHECKPOINT_TEXT];
    const char *args[] = {
        verb, "--store", all->world->store, option ? option : image, option ? image : NULL, NULL};
    int status = faultline_run(text, sizeof(text), args);
    if (ret_status)
        *ret_status = status;
    return text;
}

static bool is_left(void *arg)
{
    (void)arg;
    return strstr(ask_verb("ls", "--json", NULL, NULL), "\"left\":true") != NULL;
}

Test(checkpoint_live, verbs_name_it)
{
    int status;
    char mend[2 * TEST_PATH];
    make_and_start();
    pid_t pid = begin_live("one");
    const char *said = ask_verb("ls", NULL, NULL, &status);
    cr_assert(status == 0 && strstr(said, "on offer; "), "%s", said);
    said = ask_verb("ls", "--json", NULL, &status);
    cr_assert(status == 0 && strstr(said, "\"name\":\"one\"") && strstr(said, "\"left\":false"),
              "%s", said);
    said = ask_verb("ls", "--names", NULL, &status);
    cr_assert(status == 0 && !strstr(said, "one"), "%s", said);
    said = ask_verb("verify", NULL, NULL, &status);
    cr_assert(status == 0 && strstr(said, "not verified: one: it is on offer"), "%s", said);
    said = ask_verb("verify", NULL, "one", &status);
    cr_assert(status == 1 && strstr(said, "cannot be verified before it is published"), "%s", said);
    said = ask_verb("doctor", NULL, NULL, NULL);
    cr_assert(!strstr(said, "image one was on offer"), "%s", said);
    kill(pid, SIGKILL);
    checkpoint_ended(pid);
    let_go();
    cr_assert(wait_until(is_left, NULL));
    said = ask_verb("verify", NULL, "one", &status);
    cr_assert(status == 1 && strstr(said, "was left by a process that was killed"), "%s", said);
    snprintf(mend, sizeof(mend), "faultline gc --store '%s'", all->world->store);
    said = ask_verb("doctor", NULL, NULL, NULL);
    cr_assert(strstr(said, "image one was on offer, and the process that packed it was killed"),
              "%s", said);
    cr_assert(strstr(said, mend), "%s", said);
    said = ask_verb("doctor", "--json", NULL, NULL);
    cr_assert(strstr(said, "\"image\": \"one\"") && strstr(said, mend), "%s", said);
    ask_verb("gc", NULL, NULL, &status);
    cr_assert_eq(status, 0);
    said = ask_verb("doctor", NULL, NULL, NULL);
    cr_assert(!strstr(said, "image one was on offer"), "%s", said);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

Test(checkpoint_live, the_engine_that_captures_is_killed)
{
    struct client here;
    struct client there;
    make_and_start();
    start_other("one");
    pid_t pid = begin_live("one");
    checkpoint_clone(&here, path_of("sockets/one.sock"), true);
    checkpoint_clone(&there, other_socket, true);
    cr_assert(client_progressed(&here, SOME));
    cr_assert(client_progressed(&there, SOME));
    all->world->server.deaths++;
    kill(server_engine(&all->world->server), SIGKILL);
    int status_here = client_wait(&here);
    int status_there = client_wait(&there);
    let_go();
    int status = checkpoint_ended(pid);
    cr_assert(status == 0 || status == 1, "%d", status);
    cr_assert(status_here == 0 || (status == 1 && status_here == 128 + SIGBUS), "%d: %s",
              status_here, client_failure());
    cr_assert(status_there == 0 || (status == 1 && status_there == 128 + SIGBUS), "%d: %s",
              status_there, client_failure());
    checkpoint_left_nothing();
    cr_assert_eq(checkpoint_has_image("one"), status == 0);
    if (status == 0)
        checkpoint_image_is_right("one");
    cr_assert_eq(files_of_offers(), 0);
    cr_assert_eq(server_stop(&other), 0);
    checkpoint_world_stop();
}

// Its successor finds the image among the keeper's records, and asks for the rest as it did.
static void replace_other(bool upgrade)
{
    char text[CHECKPOINT_TEXT];
    struct client clone;
    make_and_start();
    start_other("one");
    pid_t pid = begin_live("one");
    checkpoint_clone(&clone, other_socket, true);
    cr_assert(client_progressed(&clone, SOME));
    const char *args[] = {
        "upgrade", "--control", other_control, "--engine", getenv("FAULTLINE_BIN"), NULL};
    if (upgrade) {
        cr_assert_eq(faultline_run(text, sizeof(text), args), 0, "%s", text);
    } else {
        other.deaths++;
        kill(server_engine(&other), SIGKILL);
    }
    expect_whole(&clone);
    cr_assert_not(checkpoint_has_image("one"));
    checkpoint_clone(&clone, other_socket, false);
    expect_whole(&clone);
    let_go();
    expect_done(pid);
    cr_assert_eq(server_stop(&other), 0);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

Test(checkpoint_live, the_engine_that_serves_is_killed)
{
    replace_other(false);
}

Test(checkpoint_live, the_engine_that_serves_is_upgraded)
{
    replace_other(true);
}

// A clone of what is not finished has no image that its own could be a child of.
Test(checkpoint_live, a_clone_is_captured_when_its_image_is_there)
{
    char text[CHECKPOINT_TEXT];
    char number[32];
    struct client clone;
    make_and_start();
    pid_t pid = begin_live("one");
    checkpoint_clone(&clone, path_of("sockets/one.sock"), true);
    cr_assert(client_progressed(&clone, 1));
    snprintf(number, sizeof(number), "pid:%d", (int)clone.pid);
    client_progressed(&clone, SOME);
    cr_assert(process_stop(clone.pid));
    const char *args[] = {"checkpoint", "--control", all->control, "--external",
                          "--name",     "two",       number,       NULL};
    cr_assert_eq(faultline_run(text, sizeof(text), args), 1, "%s", text);
    cr_assert(strstr(text, "is still being packed"), "%s", text);
    kill(clone.pid, SIGCONT);
    let_go();
    expect_done(pid);
    expect_whole(&clone);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}
