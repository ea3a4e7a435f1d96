// SPDX-License-Identifier: Apache-2.0
//
// The command on a kernel whose pages are of 16 or 64 KiB, as tests/support/page_size.c has it:
// what serves or judges memory refuses, and a store is the same as on any other kernel.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/temp.h"

enum { OUTPUT = 8192, WORDS = 16, PAGES = 512, PAGE_BYTES = 4096 };
enum { SERVER_SECONDS = 60 }; // one that does not refuse

static const char *const page_sizes[] = {"16384", "65536"};
enum { SIZES = sizeof(page_sizes) / sizeof(page_sizes[0]) };

static struct temp temp;

static void set_up(void)
{
    temp_make(&temp);
}

static void tear_down(void)
{
    temp_remove(&temp);
}

// An emulator on a busy machine takes minutes for a store. ctest's limit, which knows of emulators,
// is the shorter one.
TestSuite(page_size, .init = set_up, .fini = tear_down, .timeout = 900);

static void execute(const char *page_size, unsigned seconds, const char *const *words, int output)
{
    const char *argv[WORDS + 2] = {"faultline"};
    const char *program = getenv("FAULTLINE_BIN");
    for (size_t i = 0; words[i] && i < WORDS; i++)
        argv[i + 1] = words[i];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(seconds);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    if (page_size)
        setenv("PAGE_SIZE", page_size, 1);
    setenv("LD_PRELOAD", PAGE_SIZE_LIBRARY, 1);
    execv(program ? program : FAULTLINE_DEFAULT, (char *const *)(uintptr_t)argv);
    _exit(127);
}

// `faultline WORDS` on a kernel with such pages (NULL: this one); its exit status and what it says.
// It is killed after so many seconds, unless they are 0.
static int run(const char *page_size, unsigned seconds, const char *const *words, char *ret_output)
{
    int ends[2];
    int status = 0;
    size_t length = 0;
    ssize_t got = 0;
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0)
        execute(page_size, seconds, words, ends[1]);
    close(ends[1]);
    while ((got = read(ends[0], ret_output + length, OUTPUT - 1 - length)) > 0)
        length += (size_t)got;
    ret_output[length] = '\0';
    close(ends[0]);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status), "%s: signal %d: %s", words[0], WTERMSIG(status), ret_output);
    return WEXITSTATUS(status);
}

#define RUN(PAGE_SIZE, OUTPUT, ...)                                                                \
    run((PAGE_SIZE), 0, (const char *const[]){__VA_ARGS__, NULL}, (OUTPUT))

#define EXPECT_DONE(PAGE_SIZE, ...)                                                                \
    do {                                                                                           \
        char said[OUTPUT];                                                                         \
        cr_assert_eq(RUN(PAGE_SIZE, said, __VA_ARGS__), 0, "%s", said);                            \
    } while (0)

// --- what serves or judges memory ---

static void expect_refused(const char *page_size, const char *const *words)
{
    char said[OUTPUT];
    char expected[OUTPUT];
    snprintf(expected, sizeof(expected),
             "faultline %s: this kernel's memory pages are of %d KiB, and only kernels with pages "
             "of 4 KiB are supported\n",
             words[0], atoi(page_size) / 1024);
    cr_expect_eq(run(page_size, SERVER_SECONDS, words, said), 1);
    cr_expect_str_eq(said, expected);
}

#define EXPECT_REFUSED(PAGE_SIZE, ...)                                                             \
    expect_refused((PAGE_SIZE), (const char *const[]){__VA_ARGS__, NULL})

Test(page_size, no_memory_is_served_and_none_is_judged)
{
    char pid[16];
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    for (size_t i = 0; i < SIZES; i++) {
        EXPECT_REFUSED(page_sizes[i], "serve", "--store", temp_path(&temp, "store"), "--sockets",
                       temp_path(&temp, "sockets"), "--control", temp_path(&temp, "control"));
        cr_expect_neq(access(temp_path(&temp, "sockets"), F_OK), 0, "serve has begun");
        EXPECT_REFUSED(page_sizes[i], "handler", temp_path(&temp, "socket"),
                       temp_path(&temp, "memory"));
        EXPECT_REFUSED(page_sizes[i], "doctor");
        EXPECT_REFUSED(page_sizes[i], "rescue", pid);
        EXPECT_DONE(page_sizes[i], "serve", "--help");
    }
}

// --- a store ---

// Pages that are all different; `kind` makes those of one file different from those of others.
static void write_memory(const char *name, int kind)
{
    uint32_t page[PAGE_BYTES / sizeof(uint32_t)];
    FILE *file = fopen(temp_path(&temp, name), "we");
    cr_assert_not_null(file);
    for (uint32_t i = 0; i < PAGES; i++) {
        for (uint32_t j = 0; j < PAGE_BYTES / sizeof(uint32_t); j++)
            page[j] = (uint32_t)kind + i * 2654435761U + j * j * 40503U;
        cr_assert_eq(fwrite(page, sizeof(page), 1, file), 1);
    }
    cr_assert_eq(fclose(file), 0);
}

static void expect_same(const char *one, const char *other)
{
    static char bytes[2][PAGES * PAGE_BYTES];
    const char *const names[] = {one, other};
    for (int i = 0; i < 2; i++) {
        int fd = open(temp_path(&temp, names[i]), O_RDONLY | O_CLOEXEC);
        cr_assert_eq(read(fd, bytes[i], sizeof(bytes[i])), (ssize_t)sizeof(bytes[i]));
        close(fd);
    }
    cr_assert_eq(memcmp(bytes[0], bytes[1], sizeof(bytes[0])), 0);
}

static void pack(const char *page_size, const char *name, const char *memory, const char *expected)
{
    char said[OUTPUT];
    cr_assert_eq(RUN(page_size, said, "pack", "--json", "--store", temp_path(&temp, "store"),
                     "--name", name, temp_path(&temp, memory)),
                 0, "%s", said);
    cr_assert_not_null(strstr(said, expected), "%s", said);
}

// The index of a store, whose own pages are of the size that the kernel's were when it was made,
// and everything else: made on a kernel with pages of one size, used on one with another.
static void make_on_one_use_on_another(const char *made, const char *used)
{
    const char *store = temp_path(&temp, "store");
    write_memory("memory", 0);
    write_memory("other", 1);
    pack(made, "first", "memory", "\"shared_pages\":0");
    pack(used, "second", "memory", "\"shared_pages\":512");
    pack(used, "third", "other", "\"shared_pages\":0");
    pack(made, "fourth", "other", "\"shared_pages\":512");
    EXPECT_DONE(used, "verify", "--store", store);
    EXPECT_DONE(used, "inspect", "--store", store, "first");
    EXPECT_DONE(used, "unpack", "--store", store, "first", temp_path(&temp, "out"));
    expect_same("memory", "out");
    EXPECT_DONE(used, "rm", "--store", store, "first");
    EXPECT_DONE(used, "gc", "--store", store);
    EXPECT_DONE(made, "ls", "--store", store);
    EXPECT_DONE(made, "verify", "--store", store);
    EXPECT_DONE(made, "unpack", "--store", store, "third", temp_path(&temp, "out3"));
    expect_same("other", "out3");
}

Test(page_size, a_store_moves_to_a_kernel_with_pages_of_16_kib)
{
    make_on_one_use_on_another(NULL, "16384");
}

Test(page_size, a_store_moves_to_a_kernel_with_pages_of_64_kib)
{
    make_on_one_use_on_another(NULL, "65536");
}

Test(page_size, a_store_moves_from_a_kernel_with_pages_of_64_kib)
{
    make_on_one_use_on_another("65536", NULL);
}
