// SPDX-License-Identifier: Apache-2.0
//
// Standard output of every verb: to a device that is full, to nowhere, and to a pipe that is not
// read, no verb says that all is well.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"

TestSuite(output, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

enum { IMAGE_BYTES = 2 << 20, WORDS = 10, TEXT = 16384, VERBS_MAX = 64 };

static struct world *world;

enum place { TO_FILE, TO_FULL, TO_NOWHERE, TO_DEAF };

// Where the output goes. TO_DEAF is a pipe whose reader is gone.
static int open_place(enum place place)
{
    int ends[2];
    if (place == TO_DEAF) {
        cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
        close(ends[0]);
        return ends[1];
    }
    const char *path = place == TO_FILE ? temp_path(&world->temp, "out") : "/dev/full";
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    return fd;
}

// The exit status, or 128 + the signal; what it says on stderr.
static int run(const char *const *args, enum place place, bool ignores_pipes, char ret_said[TEXT])
{
    const char *argv[WORDS + 2] = {"faultline"};
    const char *errors = temp_path(&world->temp, "errors");
    int out = open_place(place);
    int err = open(errors, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (int i = 0; i < WORDS && args[i]; i++)
        argv[i + 1] = args[i];
    pid_t pid = fork();
    if (pid == 0) {
        child_setup();
        signal(SIGPIPE, ignores_pipes ? SIG_IGN : SIG_DFL);
        dup2(err, STDERR_FILENO);
        dup2(out, STDOUT_FILENO);
        if (place == TO_NOWHERE)
            close(STDOUT_FILENO);
        execv(getenv("FAULTLINE_BIN"), (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    int status = 0;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    ssize_t got = pread(err, ret_said, TEXT - 1, 0);
    ret_said[got > 0 ? got : 0] = '\0';
    close(out);
    close(err);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static off_t printed(void)
{
    struct stat status;
    cr_assert_eq(stat(temp_path(&world->temp, "out"), &status), 0);
    return status.st_size;
}

static void expect_failure(const char *const *args, enum place place, bool ignores_pipes)
{
    char said[TEXT];
    int status = run(args, place, ignores_pipes, said);
    cr_expect_eq(status, 1, "%s to %d: status %d, %s", args[0], (int)place, status, said);
    cr_expect_not_null(strstr(said, "standard output cannot be written"), "%s to %d: %s", args[0],
                       (int)place, said);
}

// What it prints with --json is JSON, up to its last byte, which ends the line.
static void check_json(const char *const *args)
{
    json_error_t where;
    bool wanted = false;
    for (int i = 0; args[i]; i++)
        wanted = wanted || strcmp(args[i], "--json") == 0;
    FILE *file = fopen(temp_path(&world->temp, "out"), "re");
    json_t *value = json_loadf(file, JSON_DISABLE_EOF_CHECK, &where);
    cr_expect(!wanted || value, "%s: %s", args[0], where.text);
    cr_expect(!wanted || (fgetc(file) == '\n' && fgetc(file) == EOF), "%s: its end", args[0]);
    json_decref(value);
    fclose(file);
}

// Fails wherever its output cannot go; without that, it prints something and ends well.
static void check_outputs(const char *const *args)
{
    char said[TEXT];
    int status = run(args, TO_FILE, false, said);
    bool is_doctor = strcmp(args[0], "doctor") == 0; // 1 if something is wrong with this host
    cr_assert(status == 0 || (is_doctor && status == 1), "%s: %d, %s", args[0], status, said);
    cr_assert_gt(printed(), 0, "%s %s prints nothing", args[0], args[1] ? args[1] : "");
    check_json(args);
    expect_failure(args, TO_FULL, false);
    expect_failure(args, TO_NOWHERE, false);
    expect_failure(args, TO_DEAF, true);
    status = run(args, TO_DEAF, false, said);
    cr_expect_eq(status, 128 + SIGPIPE, "%s: status %d", args[0], status);
    cr_expect_str_empty(said);
}

// The verbs of `faultline --help`, one a line with its summary.
static unsigned list_verbs(char ret_names[VERBS_MAX][32])
{
    char output[TEXT];
    const char *args[] = {"--help", NULL};
    unsigned count = 0;
    cr_assert_eq(faultline_run(output, sizeof(output), args), 0);
    for (char *line = strchr(strstr(output, "verbs:\n"), '\n'); line;
         line = strchr(line + 1, '\n')) {
        if (sscanf(line, "\n  %31[a-z] ", ret_names[count]) == 1) // NOLINT(cert-err34-c)
            count++;
        cr_assert_lt(count, VERBS_MAX);
    }
    cr_assert_gt(count, 15, "%s", output);
    return count;
}

Test(output, of_every_help)
{
    char names[VERBS_MAX][32];
    world = world_make(EMPTY, IMAGE_BYTES);
    const char *bare[] = {"--help", NULL};
    const char *version[] = {"--version", NULL};
    check_outputs(bare);
    check_outputs(version);
    unsigned count = list_verbs(names);
    for (unsigned i = 0; i < count; i++) {
        const char *args[] = {names[i], "--help", NULL};
        check_outputs(args);
    }
}

static void record_trace(void)
{
    char command[4 * TEST_PATH];
    const char *path = temp_path(&world->temp, "recording");
    FILE *file = fopen(path, "we");
    fputs("7 1\n3 2\n", file);
    fclose(file);
    snprintf(command, sizeof(command), "'%s' '%s' image '%s'", RECORD_TRACE, world->store, path);
    cr_assert_eq(system(command), 0); // NOLINT(cert-env33-c)
}

struct row {
    const char *args[WORDS]; // STORE, FILE, OUT and CONTROL stand for paths
};

// What each verb prints of its work; the last one ends the server. --help alone, above, of those
// that print nothing or go on for long: serve, handler, record, upgrade, rescue.
static const struct row rows[] = {
    {{"pack", "--store", "STORE", "--name", "other", "--replace", "FILE"}},
    {{"pack", "--store", "STORE", "--name", "other", "--replace", "--json", "FILE"}},
    {{"ls", "--store", "STORE"}},
    {{"ls", "--store", "STORE", "--json"}},
    {{"inspect", "--store", "STORE", "image"}},
    {{"inspect", "--store", "STORE", "--json", "image"}},
    {{"unpack", "--store", "STORE", "--force", "image", "OUT"}},
    {{"unpack", "--store", "STORE", "--force", "--json", "image", "OUT"}},
    {{"verify", "--store", "STORE"}},
    {{"verify", "--store", "STORE", "--json"}},
    {{"repair", "--store", "STORE"}},
    {{"repair", "--store", "STORE", "--json"}},
    {{"trace", "show", "--store", "STORE", "image"}},
    {{"trace", "show", "--store", "STORE", "--json", "image"}},
    {{"optimize", "--store", "STORE", "--dry-run", "image"}},
    {{"optimize", "--store", "STORE", "image"}},
    {{"optimize", "--store", "STORE", "--json", "image"}},
    {{"gc", "--store", "STORE"}},
    {{"gc", "--store", "STORE", "--json"}},
    {{"doctor"}},
    {{"doctor", "--json"}},
    {{"status", "--control", "CONTROL"}},
    {{"status", "--control", "CONTROL", "--json"}},
    {{"status", "--control", "CONTROL", "--all"}},
    {{"listen", "--control", "CONTROL", "--list"}},
    {{"listen", "--control", "CONTROL", "--list", "--json"}},
    {{"listen", "--control", "CONTROL", "--json", "--image", "image", "--socket", "SOCKET"}},
    {{"template", "--control", "CONTROL", "--list", "--json"}},
    {{"help"}},
    {{"help", "ls"}},
    {{"help", "--json"}},
};

static const char *fill_in(const char *word)
{
    static const struct {
        const char *word;
        const char *name;
    } paths[] = {{"STORE", "store"},
                 {"OUT", "unpacked"},
                 {"CONTROL", "control.sock"},
                 {"SOCKET", "asked.sock"}};
    for (size_t i = 0; word && i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (strcmp(word, paths[i].word) == 0)
            return temp_path(&world->temp, paths[i].name);
    }
    return word && strcmp(word, "FILE") == 0 ? world->file : word;
}

Test(output, of_every_verb)
{
    world = world_make(MIXED, IMAGE_BYTES);
    world_serve(world, NULL);
    record_trace();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *args[WORDS + 1] = {NULL};
        for (int word = 0; word < WORDS; word++)
            args[word] = fill_in(rows[i].args[word]);
        check_outputs(args);
    }
    world_stop(world);
}

// These can be done once.
Test(output, of_verbs_that_remove)
{
    char said[TEXT];
    world = world_make(MIXED, IMAGE_BYTES);
    world_serve(world, NULL);
    record_trace();
    const char *trace[] = {"trace", "rm", "--store", world->store, "--json", "image", NULL};
    cr_expect_eq(run(trace, TO_FILE, false, said), 0, "%s", said);
    check_json(trace);
    const char *drain[] = {"drain", "--json", "--control", temp_path(&world->temp, "control.sock"),
                           NULL};
    cr_expect_eq(run(drain, TO_FILE, false, said), 0, "%s", said);
    check_json(drain);
    check_outputs(drain);
    const char *rm[] = {"rm", "--store", world->store, "--json", "image", "none", NULL};
    cr_expect_eq(run(rm, TO_FILE, false, said), 1);
    check_json(rm);
    cr_expect_not_null(strstr(said, "none"));
    world_stop(world);
}

static void expect_usage(const char *const *args, const char *reason)
{
    char said[TEXT];
    cr_expect_eq(run(args, TO_FILE, false, said), 2, "%s", said);
    cr_expect_not_null(strstr(said, reason), "%s", said);
}

// On every verb alike.
Test(output, a_dash_is_no_file)
{
    static const struct row dashes[] = {
        {{"pack", "--store", "STORE", "--name", "other", "-"}},
        {{"pack", "--store", "-", "--name", "other", "FILE"}},
        {{"unpack", "--store", "STORE", "image", "-"}},
        {{"trace", "show", "--store", "STORE", "--svg", "-", "image"}},
        {{"repair", "--store", "STORE", "--from", "-"}},
        {{"handler", "-", "FILE"}},
        {{"handler", "SOCKET", "-"}},
        {{"status", "--control", "-"}},
        {{"upgrade", "--engine", "-"}},
        {{"listen", "--image", "image", "--socket", "-"}},
    };
    world = world_make(EMPTY, IMAGE_BYTES);
    for (size_t i = 0; i < sizeof(dashes) / sizeof(dashes[0]); i++) {
        const char *args[WORDS + 1] = {NULL};
        for (int word = 0; word < WORDS; word++)
            args[word] = fill_in(dashes[i].args[word]);
        expect_usage(args, "'-' is not standard input or output here");
    }
    cr_expect_eq(access(world->store, F_OK), -1);
}

Test(output, what_exists_names_the_option)
{
    char said[TEXT];
    world = world_make(MIXED, IMAGE_BYTES);
    world_pack(world, world->file, "image");
    const char *pack[] = {"pack", "--store", world->store, "--name", "image", world->file, NULL};
    cr_expect_eq(run(pack, TO_FILE, false, said), 1);
    cr_expect_not_null(strstr(said, "--replace replaces it"), "%s", said);
    const char *unpack[] = {"unpack", "--store", world->store, "image", world->file, NULL};
    cr_expect_eq(run(unpack, TO_FILE, false, said), 1);
    cr_expect_not_null(strstr(said, "--force replaces it"), "%s", said);
}

Test(output, times_have_units)
{
    world = world_make(MIXED, IMAGE_BYTES);
    static const struct {
        struct row row;
        const char *reason; // NULL: it is taken, and there is no server
    } cases[] = {
        {{{"drain", "--timeout", "30m", "--control", "CONTROL"}}, NULL},
        {{{"drain", "--timeout", "24h", "--control", "CONTROL"}}, NULL},
        {{{"drain", "--timeout", "1d", "--control", "CONTROL"}}, NULL},
        {{{"drain", "--timeout", "2000ms", "--control", "CONTROL"}}, NULL},
        {{{"drain", "--timeout", "86400", "--control", "CONTROL"}}, NULL},
        {{{"drain", "--timeout", "86401"}}, "is not from 1s to 1d"},
        {{{"drain", "--timeout", "0s"}}, "is not from 1s to 1d"},
        {{{"drain", "--timeout", "1500ms"}}, "is not a time such as 90s"},
        {{{"drain", "--timeout", "1w"}}, "is not a time such as 90s"},
        {{{"drain", "--timeout", "m"}}, "is not a time such as 90s"},
        {{{"drain", "--timeout", "18446744073709551615d"}}, "is not from"},
        {{{"serve", "--hang-timeout", "61m"}}, "is not from 1ms to 1h"},
        {{{"serve", "--hang-timeout", "3600001"}}, "is not from 1ms to 1h"},
        {{{"record", "--window", "2h", "image"}}, "is not from 1ms to 1h"},
        {{{"record", "--window", "3601", "image"}}, "is not from 1ms to 1h"},
        {{{"record", "--window", "1h", "--store", "STORE", "image"}}, NULL},
        {{{"record", "--window", "30m", "--store", "STORE", "image"}}, NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char said[TEXT];
        const char *args[WORDS + 1] = {NULL};
        for (int word = 0; word < WORDS; word++)
            args[word] = fill_in(cases[i].row.args[word]);
        int status = run(args, TO_FILE, false, said);
        cr_expect_eq(status, cases[i].reason ? 2 : 1, "%s: %s", args[2], said);
        const char *reason = cases[i].reason ? cases[i].reason : "there is no s";
        cr_expect_not_null(strstr(said, reason), "%s: %s", args[2], said);
    }
}

// What a verb says on a terminal of this kind.
static void run_on_terminal(const char *kind, char ret_said[TEXT])
{
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    cr_assert(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    int other = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
    cr_assert_geq(other, 0);
    pid_t pid = fork();
    if (pid == 0) {
        child_setup();
        setenv("TERM", kind, 1);
        dup2(other, STDERR_FILENO);
        dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
        execl(getenv("FAULTLINE_BIN"), "faultline", "pack", "--store", world->store, "--name",
              "other", "--replace", world->file, NULL);
        _exit(127);
    }
    int status = 0;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect_eq(status, 0);
    fcntl(terminal, F_SETFL, O_NONBLOCK);
    ssize_t got = read(terminal, ret_said, TEXT - 1);
    ret_said[got > 0 ? got : 0] = '\0';
    close(other);
    close(terminal);
}

Test(output, a_dumb_terminal_is_not_drawn_on)
{
    char said[TEXT];
    world = world_make(MIXED, IMAGE_BYTES);
    world_pack(world, world->file, "image");
    run_on_terminal("xterm", said);
    cr_expect_not_null(strchr(said, '\033'), "the test does not see the progress: '%s'", said);
    run_on_terminal("dumb", said);
    cr_expect_str_empty(said, "%s", said);
    run_on_terminal("", said);
    cr_expect_str_empty(said, "%s", said);
}

// The next file that the process opens would have the number of its output.
Test(output, a_closed_output_is_no_file_of_the_store)
{
    char said[TEXT];
    world = world_make(MIXED, IMAGE_BYTES);
    const char *pack[] = {"pack", "--store", world->store, "--name", "image", world->file, NULL};
    cr_expect_eq(run(pack, TO_NOWHERE, false, said), 1);
    const char *verify[] = {"verify", "--store", world->store, NULL};
    cr_assert_eq(run(verify, TO_FILE, false, said), 0, "%s", said);
    const char *ls[] = {"ls", "--store", world->store, NULL};
    cr_assert_eq(run(ls, TO_FILE, false, said), 0, "%s", said);
}
