// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/template/template_state.h"

enum { PAGES = 100000 };

static int make(struct fl_template_state **ret_state)
{
    int fd = -1;
    cr_assert_eq(fl_template_state_create("image", PAGES, &fd, ret_state), 0);
    return fd;
}

Test(template_state, is_what_a_successor_finds)
{
    struct fl_template_state *state = NULL;
    struct fl_template_state *again = NULL;
    int fd = make(&state);
    fl_template_filled(state)[PAGES / 64] = 1;
    state->filled = 1;
    state->flags = FL_TEMPLATE_PINNED;
    cr_assert_eq(fl_template_state_open(fd, &again), 0);
    cr_assert_str_eq(again->image, "image");
    cr_assert_eq(again->pages, PAGES);
    cr_assert_eq(again->filled, 1);
    cr_assert_eq(again->flags, FL_TEMPLATE_PINNED);
    cr_assert_eq(fl_template_filled(again)[PAGES / 64], 1);
    fl_template_state_unmap(again);
    fl_template_state_unmap(state);
    close(fd);
}

Test(template_state, of_another_version_is_told_from_damage)
{
    struct fl_template_state *state = NULL;
    struct fl_template_state *again = NULL;
    int fd = make(&state);
    state->version++;
    cr_assert_eq(fl_template_state_open(fd, &again), -EPROTONOSUPPORT);
    state->version--;
    state->bytes++;
    cr_assert_eq(fl_template_state_open(fd, &again), -EPROTONOSUPPORT);
    state->bytes--;
    state->magic++;
    cr_assert_eq(fl_template_state_open(fd, &again), -EINVAL);
    fl_template_state_unmap(state);
    close(fd);
}

static void expect_damage(int fd)
{
    struct fl_template_state *again = NULL;
    cr_expect_eq(fl_template_state_open(fd, &again), -EINVAL);
}

Test(template_state, that_makes_no_sense_is_refused)
{
    struct fl_template_state *state = NULL;
    int fd = make(&state);
    struct fl_template_state right = *state;
    state->pages = UINT64_MAX;
    expect_damage(fd);
    state->pages = PAGES + 4096 * 8;
    expect_damage(fd);
    state->pages = 0;
    expect_damage(fd);
    state->pages = right.pages;
    state->filled_offset += 4096;
    expect_damage(fd);
    state->filled_offset = right.filled_offset;
    state->total_bytes -= 4096;
    expect_damage(fd);
    state->total_bytes = right.total_bytes;
    memset(state->image, 'x', sizeof(state->image));
    expect_damage(fd);
    fl_template_state_unmap(state);
    close(fd);
}

Test(template_state, that_is_none)
{
    struct fl_template_state *again = NULL;
    int fd = memfd_create("empty", MFD_CLOEXEC);
    cr_assert_eq(fl_template_state_open(fd, &again), -EINVAL);
    close(fd);
    int ends[2];
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    cr_assert_eq(fl_template_state_open(ends[0], &again), -EINVAL);
    close(ends[0]);
    close(ends[1]);
}
