// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints that are ordered from the control API and are not of the plainest kind: on offer
// while they are packed, of a VM that is to stay paused, of one that nobody serves; and what a
// client is told that gives one up when its image has just been published.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/e2e/checkpoint_client.h"
#include "tests/e2e/protocol/http.h"
#include "tests/support/checkpoint_page.h"
#include "tests/support/checkpoint_world.h"
#include "tests/support/points.h"

TestSuite(checkpoint_ordered_ways, .init = need_userfaultfd, .fini = checkpoint_world_close,
          .timeout = 240);

static struct checkpoint_world *all;
static struct http_answer answer;

#define ASK(STATUS, METHOD, PATH, BODY)                                                            \
    cr_assert_eq(http_ask(all->control, &answer, METHOD, PATH, BODY), STATUS, "%s %s: %s", METHOD, \
                 PATH, answer.text)

static void pause_vm(void)
{
    cr_assert(writers_pause(all->mini->writers));
    memcpy(all->mini->moment, all->mini->writers,
           sizeof(*all->mini->writers) +
               all->mini->writers->pages * sizeof(all->mini->writers->page[0]));
}

// Orders one, and is the orchestrator up to the pause's end.
static int take(const char *body, const char *of, const char *then)
{
    int client = checkpoint_client_order(all->control, body);
    cr_assert(checkpoint_client_hears(client, EVENT("pause")));
    pause_vm();
    ASK(200, "POST", "/v1/checkpoints/paused", of);
    cr_assert(checkpoint_client_hears(client, then));
    return client;
}

static void expect_none(void)
{
    ASK(200, "GET", "/v1/checkpoints", "");
    cr_assert_str_eq(answer.body, "{\"checkpoints\":[]}");
}

// --- on offer, and left paused ---

static void hold_packing(char token[2 * TEST_PATH], const struct temp *temp)
{
    snprintf(token, (size_t)2 * TEST_PATH, "%s", temp_path(temp, "hold"));
    int fd = open(token, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    close(fd);
}

// Nothing is packed but what the clone waits for. The VM is resumed by nobody but its owner.
Test(checkpoint_ordered_ways, a_vm_that_goes_on_elsewhere)
{
    struct temp temp; // what the server's commands are told comes before there is a world
    char token[2 * TEST_PATH];
    char line[CHECKPOINT_CLIENT_LINE];
    char socket[2 * TEST_PATH];
    struct client clone;
    need_points();
    temp_make(&temp);
    hold_packing(token, &temp);
    setenv("FAULTLINE_HOLD_AT", "pack_next", 1);
    setenv("FAULTLINE_HOLD_TOKEN", token, 1);
    all = checkpoint_world_make(MIXED, 8 << 20);
    checkpoint_world_start();
    int client = take("{\"vm\":1,\"name\":\"one\",\"live\":true,\"leave_paused\":true}",
                      "{\"vm\":1}", EVENT("frozen"));
    cr_assert(checkpoint_client_hears(client, EVENT("restorable") ",\"image\":\"one\""));
    ASK(200, "GET", "/v1/checkpoints", "");
    cr_assert(strstr(answer.body, "\"state\":\"restorable\"") || strstr(answer.body, "\"copied\""),
              "%s", answer.text);
    snprintf(socket, sizeof(socket), "%s", temp_path(&all->world->temp, "sockets/one.sock"));
    checkpoint_clone(&clone, socket, false);
    cr_assert_eq(client_wait(&clone), 0, "%s", client_failure());
    cr_assert_eq(unlink(token), 0);
    do
        cr_assert(checkpoint_client_reads(client, line), "it ended with %s", line);
    while (!strstr(line, EVENT("done")));
    cr_assert(strstr(line, "\"left_paused\":true"), "%s", line);
    cr_assert(checkpoint_client_ends(client));
    cr_assert_eq(atomic_load(&all->mini->writers->waiting), all->mini->writers->threads);
    checkpoint_image_is_right("one");
    writers_resume(all->mini->writers);
    expect_none();
    checkpoint_world_stop();
    temp_remove(&temp);
}

Test(checkpoint_ordered_ways, a_vm_that_is_moved_by_the_program_of_the_page)
{
    char program[2 * TEST_PATH];
    char state[2 * TEST_PATH];
    all = checkpoint_world_make(MIXED, 8 << 20);
    checkpoint_world_start();
    snprintf(program, sizeof(program), "%s", temp_path(&all->world->temp, "program.py"));
    snprintf(state, sizeof(state), "%s", temp_path(&all->world->temp, "state"));
    checkpoint_page_program("leave_paused=True", program);
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        child_setup();
        execlp("python3", "python3", program, "1", "one", all->api, state, all->control, NULL);
        _exit(127);
    }
    cr_assert_eq(checkpoint_ended(pid), 0);
    checkpoint_image_is_right("one");
    cr_assert(atomic_load(&all->mini->paused));
    cr_assert_eq(atomic_load(&all->mini->resumes), 0);
    atomic_store(&all->mini->paused, false);
    writers_resume(all->mini->writers);
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// --- of one that nobody serves ---

Test(checkpoint_ordered_ways, a_vm_that_maps_its_file)
{
    char of[32];
    char body[256];
    all = checkpoint_world_make(MIXED, 8 << 20);
    all->mini->file = all->world->file;
    checkpoint_world_start();
    cr_assert(writers_go_on(all->mini->writers, 1000));
    snprintf(of, sizeof(of), "{\"pid\":%d}", (int)all->pid);
    snprintf(body, sizeof(body), "{\"pid\":%d,\"name\":\"one\",\"base\":\"image\"}", (int)all->pid);
    int client = take(body, of, EVENT("resume"));
    ASK(409, "POST", "/v1/checkpoints", body);
    writers_resume(all->mini->writers);
    cr_assert(checkpoint_client_hears(client, EVENT("done")));
    cr_assert(checkpoint_client_ends(client));
    checkpoint_image_is_right("one");
    // It is given up by its client, and by one that goes.
    for (unsigned i = 0; i < 2; i++) {
        snprintf(body, sizeof(body), "{\"pid\":%d,\"name\":\"two\",\"base\":\"image\"}",
                 (int)all->pid);
        client = checkpoint_client_order(all->control, body);
        cr_assert(checkpoint_client_hears(client, EVENT("pause")));
        if (i == 0) {
            ASK(200, "DELETE", "/v1/checkpoints", of);
            cr_assert(strstr(answer.body, "\"pid\":"), "%s", answer.text);
            cr_assert(checkpoint_client_hears(
                client, FAILED("the orchestrator has aborted the checkpoint")));
        }
        close(client);
        cr_assert_not(checkpoint_has_image("two"));
    }
    checkpoint_left_nothing();
    checkpoint_world_stop();
}

// --- given up at the last moment ---

// Looks all the time: the moment is short.
static bool is_published(const char *path)
{
    time_t end = time(NULL) + TEST_DEADLINE_MS / 1000;
    while (access(path, F_OK) != 0) {
        if (time(NULL) > end)
            return false;
    }
    return true;
}

// Whatever comes first, what the client is told is what there is.
Test(checkpoint_ordered_ways, given_up_when_it_is_published)
{
    char line[CHECKPOINT_CLIENT_LINE];
    char name[16];
    char leaf[64];
    char body[128];
    all = checkpoint_world_make(MIXED, 8 << 20);
    checkpoint_world_start();
    for (unsigned i = 0; i < 4; i++) {
        // Its tracking is kept, which takes a while from there to the last event.
        snprintf(name, sizeof(name), "one-%u", i);
        snprintf(body, sizeof(body), "{\"vm\":1,\"name\":\"%s\",\"keep_armed\":true}", name);
        snprintf(leaf, sizeof(leaf), "store/images/%s.img", name);
        int client = take(body, "{\"vm\":1}", EVENT("resume"));
        writers_resume(all->mini->writers);
        cr_assert(checkpoint_client_hears(client, EVENT("copied")));
        cr_assert(i % 2 == 1 || is_published(temp_path(&all->world->temp, leaf)));
        int status = http_ask(all->control, &answer, "DELETE", "/v1/checkpoints", "{\"vm\":1}");
        cr_assert(status == 200 || status == 404, "%s", answer.text);
        cr_assert(checkpoint_client_reads(client, line));
        bool done = strstr(line, EVENT("done")) != NULL;
        cr_assert(done || strstr(line, EVENT("failed")), "%s", line);
        cr_assert(checkpoint_client_ends(client));
        cr_assert_eq(checkpoint_has_image(name), done, "%s", line);
        cr_assert(done || i % 2 == 1, "what was published is said to have failed: %s", line);
    }
    http_ask(all->control, &answer, "DELETE", "/v1/captures", "{\"vm\":1}");
    checkpoint_left_nothing();
    checkpoint_world_stop();
}
