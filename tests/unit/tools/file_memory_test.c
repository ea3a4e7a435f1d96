// SPDX-License-Identifier: Apache-2.0
//
// Where a memory file is mapped, by texts as of /proc/PID/maps; and what a process has written to
// one, by both ways in which the kernel tells.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/memory.h"
#include "tools/verbs/file_copy.h"
#include "tools/verbs/file_mappings.h"

TestSuite(file_memory, .timeout = 60);

enum { FILE_BYTES = 0x10000 };

// --- where it is mapped ---

static struct file_mappings mappings;
static struct file_memory found;
static struct fl_error why;

// The first mapping is one of the file.
static int find(const char *text)
{
    FILE *maps = fmemopen((void *)text, strlen(text), "r");
    cr_assert(maps && file_mappings_read(maps, &mappings) == 0);
    fclose(maps);
    file_memory_init(&found);
    int error = file_mappings_pieces(&mappings, &mappings.all[0], FILE_BYTES, &found, &why);
    file_mappings_free(&mappings);
    return error;
}

static void expect_piece(size_t i, uint64_t start, uint64_t end, uint64_t offset, bool zeros)
{
    const struct file_piece *piece = &found.piece[i];
    cr_assert(i < found.count && piece->start == start && piece->end == end &&
                  piece->offset == offset && piece->zeros == zeros,
              "%zu of %zu: %lx to %lx of %lx, %d", i, found.count, (long)piece->start,
              (long)piece->end, (long)piece->offset, piece->zeros);
}

static void expect_refused(const char *text, const char *says)
{
    cr_assert_eq(find(text), -EINVAL, "%s", text);
    cr_assert(strstr(why.text, says), "%s", why.text);
    free(found.piece);
}

Test(file_memory, of_two_regions_in_any_order)
{
    cr_assert_eq(find("7000000-7008000 rw-p 00008000 08:01 42 /vm/memory file\n"
                      "7008000-7009000 r-xp 00000000 08:01 43 /lib/libc.so\n"
                      "8000000-8004000 rw-p 00000000 08:01 42 /vm/memory file\n"
                      "8004000-8008000 ---p 00004000 08:01 42 /vm/memory file\n"),
                 0, "%s", why.text);
    cr_assert_eq(found.count, 3);
    expect_piece(0, 0x8000000, 0x8004000, 0, false);
    expect_piece(1, 0x8004000, 0x8008000, 0x4000, false);
    expect_piece(2, 0x7000000, 0x7008000, 0x8000, false);
    free(found.piece);
}

// The balloon's, of which neighbours are one mapping for the kernel.
Test(file_memory, with_anonymous_memory_over_it)
{
    cr_assert_eq(find("7000000-7004000 rw-p 00000000 08:01 42 /memory\n"
                      "7004000-7008000 rw-p 00000000 00:00 0 \n"
                      "7008000-7010000 rw-p 00008000 08:01 42 /memory\n"),
                 0, "%s", why.text);
    cr_assert_eq(found.count, 3);
    expect_piece(1, 0x7004000, 0x7008000, 0x4000, true);
    free(found.piece);
}

static int find_second(const char *text)
{
    FILE *maps = fmemopen((void *)text, strlen(text), "r");
    cr_assert(maps && file_mappings_read(maps, &mappings) == 0);
    fclose(maps);
    file_memory_init(&found);
    int error = file_mappings_pieces(&mappings, &mappings.all[1], FILE_BYTES, &found, &why);
    file_mappings_free(&mappings);
    return error;
}

Test(file_memory, with_anonymous_memory_over_its_beginning_and_its_end)
{
    cr_assert_eq(find_second("7000000-7004000 rw-p 00000000 00:00 0 \n"
                             "7004000-7008000 rw-p 00004000 08:01 42 /memory\n"
                             "7008000-7010000 rw-p 00000000 00:00 0 \n"),
                 0, "%s", why.text);
    cr_assert_eq(found.count, 3);
    expect_piece(0, 0x7000000, 0x7004000, 0, true);
    expect_piece(1, 0x7004000, 0x7008000, 0x4000, false);
    expect_piece(2, 0x7008000, 0x7010000, 0x8000, true);
    free(found.piece);
}

// Something else lies beside it, or is all that lies there.
Test(file_memory, of_which_more_than_is_missing_is_anonymous_is_refused)
{
    cr_assert_eq(find_second("7000000-7004000 rw-p 00000000 00:00 0 \n"
                             "7004000-7008000 rw-p 00004000 08:01 42 /memory\n"
                             "7008000-7011000 rw-p 00000000 00:00 0 \n"),
                 -EINVAL);
    free(found.piece);
    cr_assert_eq(find_second("6fff000-7004000 rw-p 00000000 00:00 0 \n"
                             "7004000-7010000 rw-p 00004000 08:01 42 /memory\n"),
                 -EINVAL);
    free(found.piece);
}

// Between two regions it could be of either.
Test(file_memory, of_which_nothing_says_whose_it_is_is_refused)
{
    static const char uncertain[] = "has nothing mapped, or it is not certain what, where bytes "
                                    "16384 to 32768";
    expect_refused("7000000-7004000 rw-p 00000000 08:01 42 /memory\n"
                   "7004000-7009000 rw-p 00000000 00:00 0 \n"
                   "7fff000-8000000 rw-p 00000000 00:00 0 \n"
                   "8000000-8008000 rw-p 00008000 08:01 42 /memory\n",
                   uncertain);
    cr_assert_eq(find("7000000-7004000 rw-p 00000000 08:01 42 /memory\n"
                      "7004000-7007000 rw-p 00000000 00:00 0 \n"
                      "7fff000-8000000 rw-p 00000000 00:00 0 \n"
                      "8000000-8008000 rw-p 00008000 08:01 42 /memory\n"),
                 0, "%s", why.text); // together they are just as much
    expect_piece(1, 0x7004000, 0x7007000, 0x4000, true);
    expect_piece(2, 0x7fff000, 0x8000000, 0x7000, true);
    free(found.piece);
    expect_refused("7000000-7004000 rw-p 00000000 08:01 42 /memory\n"
                   "7004000-7008000 rw-p 00000000 00:00 0 [heap]\n"
                   "7008000-7010000 rw-p 00008000 08:01 42 /memory\n",
                   uncertain);
    expect_refused("7000000-7004000 rw-p 00000000 08:01 42 /memory\n"
                   "7008000-7010000 rw-p 00008000 08:01 42 /memory\n",
                   uncertain);
}

Test(file_memory, that_is_not_mapped_once_and_privately_is_refused)
{
    expect_refused("7000000-7010000 rw-p 00000000 08:01 42 /memory\n"
                   "8000000-8004000 rw-p 00004000 08:01 42 /memory\n",
                   "maps bytes 16384 to 65536 of it twice");
    expect_refused("7000000-7008000 rw-p 00000000 08:01 42 /memory\n"
                   "8000000-8008000 rw-s 00008000 08:01 42 /memory\n",
                   "maps it shared");
    expect_refused("7000000-7011000 rw-p 00000000 08:01 42 /memory\n", "maps it beyond its end");
    cr_assert_eq(find("7000000-7010000 rw-p 00000000 08:01 42 /memory\n"
                      "8000000-8010000 r--s 00000000 08:01 42 /memory\n"),
                 0, "%s", why.text); // somebody who reads it is no guest
    free(found.piece);
}

// --- what was written ---

enum { PAGES = 2048, WRITTEN = 3 };

static uint64_t bytes_of_all(void)
{
    return (uint64_t)PAGES * PAGE;
}

// Writes to every third page, and gives each ninth back again. Then it waits to be killed.
_Noreturn static void be_a_vm(int fd, int ready)
{
    uint8_t *base = mmap(NULL, bytes_of_all(), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    for (unsigned page = 0; page < PAGES && base != MAP_FAILED; page++) {
        volatile uint8_t *at = base + (size_t)page * PAGE;
        if (page % WRITTEN == 0)
            *at = 'w';
        else
            (void)*at;
        if (page % (WRITTEN * WRITTEN) == 0)
            madvise(base + (size_t)page * PAGE, PAGE, MADV_DONTNEED);
    }
    if (write(ready, "r", 1) == 1)
        pause();
    _exit(1);
}

static pid_t vm;
static char path[] = "/tmp/faultline-file-memory-XXXXXX";

static void start_vm(void)
{
    int ready[2];
    char byte;
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && unlink(path) == 0 && pipe(ready) == 0);
    for (unsigned page = 0; page < PAGES; page++) {
        uint8_t text[PAGE] = {'f'};
        memcpy(text + 1, &page, sizeof(page));
        cr_assert_eq(write(fd, text, PAGE), PAGE);
    }
    vm = fork();
    if (vm == 0)
        be_a_vm(fd, ready[1]);
    close(ready[1]);
    close(fd);
    cr_assert(vm > 0 && read(ready[0], &byte, 1) == 1);
    close(ready[0]);
}

static void end_vm(void)
{
    kill(vm, SIGKILL);
    waitpid(vm, NULL, 0);
}

static void open_vm(struct file_memory *memory)
{
    int error = file_memory_open(vm, bytes_of_all(), memory, &why);
    if (error == -EPERM || error == -EACCES)
        cr_skip_test("%s", why.text);
    cr_assert_eq(error, 0, "%s", why.text);
}

static bool is_written(uint64_t page)
{
    return page % WRITTEN == 0 && page % (WRITTEN * WRITTEN) != 0;
}

static void expect_all(struct file_copy *copy)
{
    struct fl_pack_live *live = file_copy_live(copy);
    cr_assert_eq(live->await(live->arg, 0, PAGES), 0);
    for (uint64_t page = 0; page < PAGES; page++) {
        uint8_t text[PAGE];
        cr_assert_eq(live->page(live->arg, page), FL_LIVE_DATA);
        cr_assert_eq(pread(live->buffer_fd, text, PAGE, (off_t)(page * PAGE)), PAGE);
        unsigned is;
        memcpy(&is, text + 1, sizeof(is));
        cr_assert(text[0] == (is_written(page) ? 'w' : 'f') && is == page, "page %lu",
                  (unsigned long)page);
    }
}

static void copies_what_was_written(bool by_read)
{
    struct file_memory memory;
    struct file_copy copy;
    start_vm();
    open_vm(&memory);
    memory.presence.by_read = memory.presence.by_read || by_read;
    cr_assert_eq(file_copy_begin(&memory, &copy, &why), 0, "%s", why.text);
    cr_assert_eq(file_copy_reserve(&copy, &why), 0, "%s", why.text);
    cr_assert_eq(file_memory_look_again(&memory, &why), 0, "%s", why.text);
    cr_assert_eq(file_copy_take(&copy, &why), 0, "%s", why.text);
    uint64_t written = 0;
    for (uint64_t page = 0; page < PAGES; page++)
        written += is_written(page);
    cr_assert_eq(copy.copied, written, "%lu of %lu", (unsigned long)copy.copied,
                 (unsigned long)written);
    end_vm();
    expect_all(&copy);
    file_copy_end(&copy);
    file_memory_close(&memory);
}

Test(file_memory, is_copied_by_a_scan)
{
    copies_what_was_written(false);
}

Test(file_memory, is_copied_by_reading_the_pagemap)
{
    copies_what_was_written(true);
}

static int checks;

static int stop_at_the_third(void *arg)
{
    (void)arg;
    return ++checks == 3 ? -ETIMEDOUT : 0;
}

Test(file_memory, is_not_copied_for_ever)
{
    struct file_memory memory;
    struct file_copy copy;
    start_vm();
    open_vm(&memory);
    cr_assert_eq(file_copy_begin(&memory, &copy, &why), 0, "%s", why.text);
    copy.check = stop_at_the_third;
    cr_assert_eq(file_copy_take(&copy, &why), -ETIMEDOUT);
    cr_assert_eq(copy.stopped, -ETIMEDOUT);
    cr_assert_eq(copy.copied, 2);
    end_vm();
    file_copy_end(&copy);
    file_memory_close(&memory);
}

Test(file_memory, of_a_process_that_has_ended)
{
    struct file_memory memory;
    struct file_copy copy;
    start_vm();
    open_vm(&memory);
    cr_assert_eq(file_copy_begin(&memory, &copy, &why), 0, "%s", why.text);
    end_vm();
    cr_assert_lt(file_copy_take(&copy, &why), 0);
    cr_assert_eq(file_memory_look_again(&memory, &why), -ESRCH, "%s", why.text);
    file_copy_end(&copy);
    file_memory_close(&memory);
}
