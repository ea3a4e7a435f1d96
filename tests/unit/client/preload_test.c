// SPDX-License-Identifier: Apache-2.0
//
// A program that knows nothing of Faultline (maps_file) maps an empty file under the preload
// library, and sees what the handler's memory file holds.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/server.h"
#include "tests/support/world.h"

enum { MEMORY_BYTES = 16 << 20, BLOCK = 65536, OUTPUT = 4096 };

static struct temp temp;
static struct server server;

// Writes noise, and leaves every fourth block as a hole.
static void write_memory(const char *path)
{
    static uint64_t block[BLOCK / sizeof(uint64_t)];
    uint64_t state = 1;
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    for (off_t at = 0; at < MEMORY_BYTES; at += BLOCK) {
        for (size_t i = 0; i < BLOCK / sizeof(uint64_t); i++) {
            state = state * 6364136223846793005U + 1442695040888963407U;
            block[i] = state;
        }
        if (at / BLOCK % 4 != 3)
            cr_assert_eq(pwrite(fd, block, BLOCK, at), BLOCK);
    }
    cr_assert_eq(ftruncate(fd, MEMORY_BYTES), 0);
    close(fd);
}

static void write_empty(const char *path, off_t bytes)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert_eq(ftruncate(fd, bytes), 0);
    close(fd);
}

static void set_up(void)
{
    temp_make(&temp);
    write_memory(temp_path(&temp, "memory"));
    write_empty(temp_path(&temp, "ram"), MEMORY_BYTES);
    const char *args[] = {"handler", temp_path(&temp, "sock"), temp_path(&temp, "memory"), NULL};
    cr_assert(server_start(&server, &temp, "handler", args));
}

static void tear_down(void)
{
    cr_assert_eq(server_stop(&server), 0);
    temp_remove(&temp);
}

static void set_up_served(void)
{
    need_userfaultfd();
    set_up();
}

TestSuite(preload, .init = set_up_served, .fini = tear_down, .timeout = 120);
// Runs that end before they have a userfaultfd, so that they need none.
TestSuite(preload_refusal, .init = set_up, .fini = tear_down, .timeout = 120);

// A run of maps_file: the file, and the environment that the library reads.
struct run {
    const char *file;
    const char *how;
    const char *ram;      // FAULTLINE_RAM_FILE; NULL: not set
    const char *socket;   // FAULTLINE_SOCKET; NULL: not set
    const char *template; // FAULTLINE_TEMPLATE; NULL: not set
    const char *huge;     // FAULTLINE_HUGE; NULL: not set
    const char *pages;    // the kernel's page size; NULL: as it is
    bool plain;           // without the library
};

static void set(const char *name, const char *value)
{
    if (value)
        setenv(name, value, 1);
    else
        unsetenv(name);
}

// What is preloaded.
static const char *libraries(const struct run *run)
{
    static char both[2 * PATH_MAX];
    if (!run->pages)
        return getenv("FAULTLINE_PRELOAD");
    snprintf(both, sizeof(both), "%s:%s", getenv("PAGE_SIZE_LIBRARY"), getenv("FAULTLINE_PRELOAD"));
    return both;
}

static void execute(const struct run *run, int output)
{
    const char *program = getenv("MAPS_FILE");
    if (!program)
        _exit(127);
    child_setup();
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    set("FAULTLINE_RAM_FILE", run->ram);
    set("FAULTLINE_SOCKET", run->socket);
    set("FAULTLINE_TEMPLATE", run->template);
    set("FAULTLINE_HUGE", run->huge);
    set("PAGE_SIZE", run->pages);
    set("LD_PRELOAD", run->plain ? NULL : libraries(run));
    execl(program, program, run->file, run->how, (char *)NULL);
    _exit(127);
}

// Returns the program's exit status, or 128 + its signal, and all that it printed.
static int run_maps_file(const struct run *run, char *ret_output)
{
    int ends[2];
    int status = 0;
    size_t length = 0;
    ssize_t got = 0;
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0)
        execute(run, ends[1]);
    close(ends[1]);
    while ((got = read(ends[0], ret_output + length, OUTPUT - 1 - length)) > 0)
        length += (size_t)got;
    ret_output[length] = '\0';
    close(ends[0]);
    cr_assert_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static struct run served_run(const char *how)
{
    return (struct run){.file = temp_path(&temp, "ram"),
                        .how = how,
                        .ram = temp_path(&temp, "ram"),
                        .socket = temp_path(&temp, "sock")};
}

// Expects the output of the same program when it maps the memory file itself.
static void expect_raw(const struct run *run, const char *output)
{
    char expected[OUTPUT];
    struct run raw = {.file = temp_path(&temp, "memory"), .how = run->how, .plain = true};
    cr_assert_eq(run_maps_file(&raw, expected), 0);
    cr_assert_str_eq(output, expected);
}

static void expect_served(const char *how, const char *huge)
{
    char output[OUTPUT];
    struct run run = served_run(how);
    run.huge = huge;
    int status = run_maps_file(&run, output);
    cr_assert_eq(status, 0, "%s", output);
    expect_raw(&run, output);
}

// Expects that the program ends with one sentence, which contains this text.
static void expect_refusal(const struct run *run, const char *sentence)
{
    char output[OUTPUT];
    cr_assert_eq(run_maps_file(run, output), 1, "%s", output);
    cr_assert_eq(strncmp(output, "libfaultline-preload: ", 22), 0, "%s", output);
    cr_assert_not_null(strstr(output, sentence), "%s", output);
    cr_assert_eq(strchr(output, '\n'), output + strlen(output) - 1, "%s", output);
}

static bool is_empty(const char *path)
{
    char output[OUTPUT];
    char expected[OUTPUT];
    write_empty(temp_path(&temp, "empty"), MEMORY_BYTES);
    struct run run = {.file = path, .how = "", .plain = true};
    cr_assert_eq(run_maps_file(&run, output), 0);
    run.file = temp_path(&temp, "empty");
    cr_assert_eq(run_maps_file(&run, expected), 0);
    return strcmp(output, expected) == 0;
}

Test(preload, the_program_sees_the_image)
{
    expect_served("", NULL);
    cr_assert(server_wait_log(&server, "event=attach", 1));
    cr_assert(server_wait_log(&server, "event=detach", 1));
}

Test(preload, parts_over_an_area_that_was_reserved)
{
    expect_served("fixed", NULL);
}

Test(preload, huge_pages)
{
    need_huge_pages(MEMORY_BYTES >> 21);
    expect_served("fixed", "1");
    cr_assert(server_wait_log(&server, "page_size=2097152", 2));
}

// The "raw" run changes the memory file, too, but it comes after the served one.
Test(preload, what_is_written_is_seen_and_stays_out_of_the_file)
{
    expect_served("past", NULL);
    cr_assert(is_empty(temp_path(&temp, "ram")));
}

Test(preload_refusal, other_files_are_left_alone)
{
    char output[OUTPUT];
    struct run run = served_run("");
    run.file = temp_path(&temp, "memory");
    cr_assert_eq(run_maps_file(&run, output), 0);
    expect_raw(&run, output);
    cr_assert_eq(server_count_log(&server, "event=attach"), 0);
}

Test(preload, a_second_mapping_is_refused)
{
    struct run run = served_run("twice");
    expect_refusal(&run, "mapped a second time");
}

Test(preload_refusal, settings_that_are_missing)
{
    struct run run = served_run("");
    run.socket = NULL;
    expect_refusal(&run, "FAULTLINE_SOCKET is not set");
    run = served_run("");
    run.ram = NULL;
    expect_refusal(&run, "FAULTLINE_RAM_FILE is not set");
    run = served_run("");
    run.huge = "yes";
    expect_refusal(&run, "FAULTLINE_HUGE is yes");
    run = served_run("");
    run.pages = "65536";
    expect_refusal(&run, "this kernel's memory pages are of 64 KiB, and only kernels with pages");
}

Test(preload_refusal, no_such_file_or_handler)
{
    struct run run = served_run("");
    run.ram = temp_path(&temp, "none");
    expect_refusal(&run, "No such file or directory");
    run = served_run("");
    run.socket = temp_path(&temp, "none");
    expect_refusal(&run, "No such file or directory");
    run.socket = temp_path(&temp, "memory");
    expect_refusal(&run, "Socket operation on non-socket");
}

// `faultline handler` has no template. It answers when it has waited for a handshake in vain.
Test(preload_refusal, no_template_is_offered)
{
    struct run run = served_run("");
    run.template = temp_path(&temp, "sock");
    expect_refusal(&run, "offers no template (FAULTLINE_TEMPLATE is the path");
}

Test(preload, a_size_that_huge_pages_cannot_have)
{
    struct run run = served_run("");
    write_empty(temp_path(&temp, "odd"), MEMORY_BYTES - 4096);
    run.file = run.ram = temp_path(&temp, "odd");
    run.huge = "1";
    expect_refusal(&run, "whole pages of 2097152 bytes");
}

// The handler refuses the file after the handshake. The program must never see zeros.
Test(preload, a_file_bigger_than_the_image_ends_the_program)
{
    char output[OUTPUT];
    struct run run = served_run("");
    write_empty(temp_path(&temp, "big"), 2L * MEMORY_BYTES);
    run.file = run.ram = temp_path(&temp, "big");
    int status = run_maps_file(&run, output);
    cr_assert(status == 128 + SIGBUS || status == 128 + SIGKILL, "%d: %s", status, output);
    cr_assert(server_wait_log(&server, "event=refuse", 1));
}
