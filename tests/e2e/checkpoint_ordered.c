// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints that are ordered from the control API: with the program of docs/checkpoint.md, and
// with clients that do not do as they should, or do not live to do it.
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/e2e/checkpoint_client.h"
#include "tests/e2e/protocol/http.h"
#include "tests/support/checkpoint_page.h"
#include "tests/support/checkpoint_world.h"
#include "tests/support/stop.h"

TestSuite(checkpoint_ordered, .init = need_userfaultfd, .fini = checkpoint_world_close,
          .timeout = 240);

static struct checkpoint_world *all;
static struct http_answer answer;

static void make_and_start(void)
{
    all = checkpoint_world_make(MIXED, 8 << 20);
    checkpoint_world_start();
}

static int ask(const char *method, const char *path, const char *body)
{
    return http_ask(all->control, &answer, method, path, body);
}

#define ASK(STATUS, METHOD, PATH, BODY)                                                            \
    cr_assert_eq(ask(METHOD, PATH, BODY), STATUS, "%s %s: %s", METHOD, PATH, answer.text)

// --- a client, line by line ---

static int begin_with(const char *body)
{
    return checkpoint_client_order(all->control, body);
}

static int begin(const char *image)
{
    char body[256];
    snprintf(body, sizeof(body), "{\"vm\":1,\"name\":\"%s\"}", image);
    return begin_with(body);
}

static void pause_vm(void)
{
    cr_assert(writers_pause(all->mini->writers));
    memcpy(all->mini->moment, all->mini->writers,
           sizeof(*all->mini->writers) +
               all->mini->writers->pages * sizeof(all->mini->writers->page[0]));
}

// --- what is left ---

static bool none_is_ordered(void *arg)
{
    (void)arg;
    return ask("GET", "/v1/checkpoints", "") == 200 &&
           strcmp(answer.body, "{\"checkpoints\":[]}") == 0;
}

static bool has_words(const char *path, const char *word)
{
    char text[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
    if (fd >= 0)
        close(fd);
    for (ssize_t i = 0; i < got; i++)
        text[i] = text[i] ? text[i] : ' ';
    text[got > 0 ? got : 0] = '\0';
    return strstr(text, word) != NULL;
}

// A process that the keeper has started, or 0. With NULL: of any that has ended.
static pid_t child_of_keeper(const char *word)
{
    char path[300];
    char parent[32];
    pid_t found = 0;
    DIR *directory = opendir("/proc");
    const struct dirent *entry;
    snprintf(parent, sizeof(parent), "PPid:\t%d\n", (int)all->world->server.pid);
    while (directory && !found && (entry = readdir(directory))) {
        int pid = (int)strtol(entry->d_name, NULL, 10);
        snprintf(path, sizeof(path), "/proc/%s/status", entry->d_name);
        if (pid <= 0 || !has_words(path, parent))
            continue;
        bool ended = has_words(path, "State:\tZ");
        snprintf(path, sizeof(path), "/proc/%s/cmdline", entry->d_name);
        if (word ? has_words(path, word) : ended)
            found = pid;
    }
    closedir(directory);
    return found;
}

static bool no_process_is_left(void *arg)
{
    (void)arg;
    return child_of_keeper(" checkpoint ") == 0 && child_of_keeper(NULL) == 0;
}

static void nothing_is_left(void)
{
    checkpoint_left_nothing();
    cr_assert(wait_until(none_is_ordered, NULL), "%s", answer.text);
    cr_assert(wait_until(no_process_is_left, NULL), "the command, or what is left of it");
    cr_assert_eq(world_status(all->world, "captures", "running"), 0);
}

static void works(const char *image)
{
    int client = begin(image);
    cr_assert(checkpoint_client_hears(client, EVENT("pause")));
    pause_vm();
    ASK(200, "POST", "/v1/checkpoints/paused", "{\"vm\":1}");
    cr_assert(checkpoint_client_hears(client, EVENT("resume")));
    writers_resume(all->mini->writers);
    cr_assert(checkpoint_client_hears(client, EVENT("done")));
    cr_assert(checkpoint_client_ends(client));
    checkpoint_image_is_right(image);
    nothing_is_left();
}

// --- as it should be ---

static int run_program(const char *program, const char *image, const char *state)
{
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        child_setup();
        execlp("python3", "python3", program, "1", image, all->api, state, all->control, NULL);
        _exit(127);
    }
    return checkpoint_ended(pid);
}

Test(checkpoint_ordered, with_the_program_of_the_page)
{
    char program[2 * TEST_PATH];
    char state[2 * TEST_PATH];
    char bad[3 * TEST_PATH];
    make_and_start();
    snprintf(program, sizeof(program), "%s", temp_path(&all->world->temp, "program.py"));
    snprintf(state, sizeof(state), "%s", temp_path(&all->world->temp, "state"));
    checkpoint_page_program("elif last == \"resume\":\n        ", program);
    cr_assert_eq(run_program(program, "one", state), 0);
    checkpoint_image_is_right("one");
    cr_assert_eq(atomic_load(&all->mini->pauses), 1);
    nothing_is_left();
    // The state cannot be written: the checkpoint fails, and the program resumes the VM.
    snprintf(bad, sizeof(bad), "%s/nowhere/state", all->world->temp.path);
    cr_assert_eq(run_program(program, "two", bad), 1);
    cr_assert_eq(atomic_load(&all->mini->pauses), 2);
    cr_assert_not(checkpoint_has_image("two"));
    // There is no such VM, and the name is taken: nothing is paused.
    cr_assert_eq(run_program(program, "one", state), 1);
    cr_assert_eq(atomic_load(&all->mini->pauses), 2);
    nothing_is_left();
    checkpoint_world_stop();
}

static bool inspect_says(const char *image, const char *text)
{
    static char said[CHECKPOINT_TEXT];
    const char *args[] = {"inspect", "--json", "--store", all->world->store, image, NULL};
    cr_assert_eq(faultline_run(said, sizeof(said), args), 0, "%s", said);
    return strstr(said, text) != NULL;
}

Test(checkpoint_ordered, with_all_that_can_be_asked_for)
{
    char body[2048];
    char state[2 * TEST_PATH];
    make_and_start();
    snprintf(state, sizeof(state), "%s", temp_path(&all->world->temp, "a state"));
    FILE *file = fopen(state, "we");
    cr_assert(file && fputs("devices", file) >= 0 && fclose(file) == 0);
    snprintf(body, sizeof(body),
             "{\"vm\":1,\"name\":\"one\",\"vmstate\":\"%s\",\"labels\":[\"who=me --full\"],"
             "\"keep_armed\":true,\"full\":true,\"replace\":true,\"drives\":[],"
             "\"timeout_ms\":60000,\"max_pause_ms\":60000}",
             state);
    int client = begin_with(body);
    cr_assert(checkpoint_client_hears(client, EVENT("begun")));
    cr_assert(checkpoint_client_hears(client, EVENT("ready")));
    cr_assert(checkpoint_client_hears(client, EVENT("pause")));
    ASK(200, "GET", "/v1/checkpoints", "");
    cr_assert(strstr(answer.body, "{\"vm\":1,\"name\":\"one\",\"state\":\"pause\",\"ms\":"), "%s",
              answer.text);
    cr_assert_eq(world_status(all->world, "captures", "running"), 1);
    ASK(409, "POST", "/v1/checkpoints", "{\"vm\":1,\"name\":\"two\"}");
    cr_assert(http_says(&answer, "a checkpoint of VM 1 is being taken already"));
    pause_vm();
    pid_t command = child_of_keeper(" checkpoint ");
    cr_assert(process_stop(command));
    ASK(200, "POST", "/v1/checkpoints/paused", "{\"vm\":1}");
    ASK(409, "POST", "/v1/checkpoints/paused", "{\"vm\":1}");
    kill(command, SIGCONT);
    cr_assert(checkpoint_client_hears(client, EVENT("resume")));
    writers_resume(all->mini->writers);
    cr_assert(checkpoint_client_hears(client, EVENT("copied")));
    cr_assert(checkpoint_client_hears(client, EVENT("done")));
    cr_assert(checkpoint_client_ends(client));
    checkpoint_image_is_right("one");
    cr_assert(inspect_says("one", "\"who\": \"me --full\"") ||
              inspect_says("one", "\"who\":\"me --full\""));
    cr_assert(inspect_says("one", "vmstate"));
    cr_assert_eq(world_status(all->world, "captures", "kept"), 1);
    ASK(200, "DELETE", "/v1/captures", "{\"vm\":1}");
    nothing_is_left();
    checkpoint_world_stop();
}

// --- what is refused ---

Test(checkpoint_ordered, refuses_what_cannot_be)
{
    static const char *const bodies[] = {
        "{}",
        "{\"vm\":1}",
        "{\"vm\":-1,\"name\":\"one\"}",
        "{\"vm\":1,\"name\":\"-one\"}",
        "{\"vm\":1,\"name\":\"one\",\"api\":\"/socket\"}",
        "{\"vm\":1,\"name\":\"one\",\"vmstate\":\"state\"}",
        "{\"vm\":1,\"name\":\"one\",\"vmstate\":\"/a\\nb\"}",
        "{\"vm\":1,\"name\":\"one\",\"drives\":[\"disk\"]}",
        "{\"vm\":1,\"name\":\"one\",\"drives\":\"/disk\"}",
        "{\"vm\":1,\"name\":\"one\",\"labels\":[\"a b=c\"]}",
        "{\"vm\":1,\"name\":\"one\",\"labels\":[1]}",
        "{\"vm\":1,\"name\":\"one\",\"max_pause_ms\":0}",
        "{\"vm\":1,\"name\":\"one\",\"timeout_ms\":3600001}",
        "{\"vm\":1,\"name\":\"one\",\"while_paused\":true,\"keep_armed\":true}",
        "{\"vm\":1,\"name\":\"one\",\"live\":true,\"replace\":true}",
        "{\"vm\":1,\"name\":\"one\",\"qmp\":\"socket\"}",
        "{\"vm\":1,\"name\":\"one\",\"base\":\"image\"}",
        "{\"pid\":1,\"name\":\"one\"}",
    };
    make_and_start();
    for (unsigned i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
        ASK(400, "POST", "/v1/checkpoints", bodies[i]);
    ASK(404, "POST", "/v1/checkpoints", "{\"vm\":99,\"name\":\"one\"}");
    ASK(404, "POST", "/v1/checkpoints/paused", "{\"vm\":1}");
    ASK(404, "DELETE", "/v1/checkpoints", "{\"vm\":1}");
    ASK(404, "DELETE", "/v1/checkpoints", "{\"pid\":1}");
    ASK(400, "DELETE", "/v1/checkpoints", "{\"vm\":1,\"pid\":1}");
    ASK(405, "DELETE", "/v1/checkpoints/paused", "{\"vm\":1}");
    // What the command finds out.
    int client = begin("image");
    cr_assert(checkpoint_client_hears(client, FAILED("the store has an image 'image' already")));
    cr_assert(checkpoint_client_ends(client));
    nothing_is_left();
    pid_t keeper = all->world->server.pid;
    cr_assert(process_stop(keeper));
    ASK(503, "POST", "/v1/checkpoints", "{\"vm\":1,\"name\":\"one\"}");
    cr_assert(strstr(answer.body, "is stopped"), "%s", answer.text);
    kill(keeper, SIGCONT);
    works("one");
    checkpoint_world_stop();
}

// --- ends ---

// The command would wait for its answer for longer than this test does.
Test(checkpoint_ordered, of_a_client_that_goes)
{
    static const char *const moments[] = {NULL, EVENT("begun"), EVENT("pause")};
    make_and_start();
    for (unsigned i = 0; i < sizeof(moments) / sizeof(moments[0]); i++) {
        int client = begin_with("{\"vm\":1,\"name\":\"one\",\"max_pause_ms\":600000}");
        cr_assert(!moments[i] || checkpoint_client_hears(client, moments[i]));
        close(client);
        nothing_is_left();
        cr_assert_not(checkpoint_has_image("one"));
    }
    works("one");
    checkpoint_world_stop();
}

Test(checkpoint_ordered, of_a_client_that_does_not_answer)
{
    make_and_start();
    int client = begin_with("{\"vm\":1,\"name\":\"one\",\"max_pause_ms\":300}");
    cr_assert(checkpoint_client_hears(client, EVENT("pause")));
    cr_assert(checkpoint_client_hears(
        client, FAILED("the orchestrator has not said that the VM is paused")));
    cr_assert(checkpoint_client_ends(client));
    nothing_is_left();
    works("one");
    checkpoint_world_stop();
}

Test(checkpoint_ordered, that_is_cancelled)
{
    static const char *const moments[] = {EVENT("begun"), EVENT("pause")};
    make_and_start();
    for (unsigned i = 0; i < sizeof(moments) / sizeof(moments[0]); i++) {
        int client = begin("one");
        cr_assert(checkpoint_client_hears(client, moments[i]));
        ASK(200, "DELETE", "/v1/checkpoints", "{\"vm\":1}");
        cr_assert(
            checkpoint_client_hears(client, FAILED("the orchestrator has aborted the checkpoint")));
        cr_assert(checkpoint_client_ends(client));
        nothing_is_left();
    }
    // Its capture, by whoever sees only that.
    int client = begin("one");
    cr_assert(checkpoint_client_hears(client, EVENT("pause")));
    ASK(200, "DELETE", "/v1/captures", "{\"vm\":1}");
    cr_assert(checkpoint_client_hears(
        client, FAILED("the capture of VM 1 failed: it was cancelled by the control "
                       "API")));
    cr_assert(checkpoint_client_ends(client));
    nothing_is_left();
    works("one");
    checkpoint_world_stop();
}

Test(checkpoint_ordered, whose_command_is_killed)
{
    make_and_start();
    int client = begin("one");
    cr_assert(checkpoint_client_hears(client, EVENT("pause")));
    pid_t command = child_of_keeper(" checkpoint ");
    cr_assert(command > 0);
    kill(command, SIGKILL);
    cr_assert(
        checkpoint_client_hears(client, FAILED("the command that takes the checkpoint has ended")));
    cr_assert(checkpoint_client_ends(client));
    nothing_is_left();
    works("one");
    checkpoint_world_stop();
}

static bool engine_is_new(void *arg)
{
    pid_t engine = server_engine(&all->world->server);
    return engine > 0 && engine != *(const pid_t *)arg;
}

Test(checkpoint_ordered, whose_engine_dies)
{
    char line[CHECKPOINT_CLIENT_LINE];
    make_and_start();
    int client = begin("one");
    cr_assert(checkpoint_client_hears(client, EVENT("pause")));
    pid_t engine = server_engine(&all->world->server);
    all->world->server.deaths++;
    kill(engine, SIGKILL);
    cr_assert_not(checkpoint_client_reads(client, line), "%s", line);
    close(client);
    cr_assert(wait_until(engine_is_new, &engine));
    nothing_is_left();
    cr_assert_not(checkpoint_has_image("one"));
    works("one");
    checkpoint_world_stop();
}

// The command is of the engine's version, and so the keeper's end of it is not needed.
Test(checkpoint_ordered, without_a_keeper)
{
    make_and_start();
    int client = begin("one");
    cr_assert(checkpoint_client_hears(client, EVENT("pause")));
    server_kill_keeper(&all->world->server);
    pause_vm();
    ASK(200, "POST", "/v1/checkpoints/paused", "{\"vm\":1}");
    cr_assert(checkpoint_client_hears(client, EVENT("resume")));
    writers_resume(all->mini->writers);
    cr_assert(checkpoint_client_hears(client, EVENT("done")));
    cr_assert(checkpoint_client_ends(client));
    checkpoint_image_is_right("one");
    ASK(503, "POST", "/v1/checkpoints", "{\"vm\":1,\"name\":\"two\"}");
    cr_assert(strstr(answer.body, "the engine has no keeper"), "%s", answer.text);
    checkpoint_left_nothing();
    writers_end(all->mini->writers);
    cr_assert_eq(client_wait(&all->vm), 0, "%s", client_failure());
}
