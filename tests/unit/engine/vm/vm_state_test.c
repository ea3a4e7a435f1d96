// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/bitmap.h"
#include "engine/vm/vm_state.h"

// What a successor of a killed engine does: it has the descriptor, and maps it somewhere else.
Test(vm_state, is_found_again_through_its_descriptor)
{
    struct fl_layout layout = {
        .page_shift = 12, .regions = 1, .region = {{.base = 4096, .bytes = 100000ULL * 4096}}};
    const char *reason = NULL;
    struct fl_vm_state *state = NULL;
    int fd = -1;
    cr_assert_eq(fl_layout_finish(&layout, &reason), 0);
    cr_assert_eq(fl_vm_state_create(7, 42, "image", &layout, &fd, &state), 0);
    fl_bits_set(fl_vm_removed(state), 99990, 10);
    fl_bits_set(fl_vm_installed(state), 0, 1);
    state->inbox[3].arg.pagefault.address = 12345;
    size_t bytes = state->total_bytes;
    fl_vm_state_unmap(state);

    struct fl_vm_state *again = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq((void *)again, MAP_FAILED);
    cr_assert_eq(again->magic, FL_VM_STATE_MAGIC);
    cr_assert_eq(again->version, FL_VM_STATE_VERSION);
    cr_assert_eq(again->id, 7);
    cr_assert_eq(again->pid, 42);
    cr_assert_str_eq(again->image, "image");
    cr_assert_eq(again->layout.pages, 100000);
    cr_assert(fl_bit_test(fl_vm_removed(again), 99999));
    cr_assert_not(fl_bit_test(fl_vm_removed(again), 99989));
    cr_assert(fl_bit_test(fl_vm_installed(again), 0));
    cr_assert_not(fl_bit_test(fl_vm_installed(again), 99999));
    cr_assert_eq(again->inbox[3].arg.pagefault.address, 12345);
    munmap(again, bytes);
    close(fd);
}

// The memory of a VM's state is that of what it touched, not of the VM's size.
Test(vm_state, is_sparse)
{
    struct fl_layout layout = {
        .page_shift = 12, .regions = 1, .region = {{.base = 4096, .bytes = 64ULL << 30}}};
    const char *reason = NULL;
    struct fl_vm_state *state = NULL;
    struct stat status;
    int fd = -1;
    cr_assert_eq(fl_layout_finish(&layout, &reason), 0);
    cr_assert_eq(fl_vm_state_create(1, 1, "image", &layout, &fd, &state), 0);
    cr_assert_eq(fstat(fd, &status), 0);
    cr_assert_lt(status.st_blocks * 512, 64 << 10);
    fl_vm_state_unmap(state);
    close(fd);
}

// What comes from another process is looked at before it is believed.
Test(vm_state, of_a_predecessor_is_checked)
{
    struct fl_layout layout = {.page_shift = 12, .regions = 1};
    layout.region[0] = (struct fl_region){.base = 1 << 20, .bytes = 1 << 20};
    const char *reason = NULL;
    struct fl_vm_state *state = NULL;
    struct fl_vm_state *again = NULL;
    int fd = -1;
    cr_assert_eq(fl_layout_finish(&layout, &reason), 0);
    cr_assert_eq(fl_vm_state_create(3, 42, "an-image", &layout, &fd, &state), 0);
    cr_assert_eq(fl_vm_state_open(fd, &again), 0);
    cr_expect_eq(again->pid, 42);
    fl_vm_state_unmap(again);
    cr_expect_neq(ftruncate(fd, 1), 0, "it could be cut off under who has mapped it");

    state->version++;
    cr_expect_eq(fl_vm_state_open(fd, &again), -EPROTONOSUPPORT);
    state->version--;
    state->layout.region[0].bytes += 4096;
    cr_expect_eq(fl_vm_state_open(fd, &again), -EINVAL);
    state->layout.region[0].bytes -= 4096;
    state->layout.regions = FL_REGIONS_MAX + 1;
    cr_expect_eq(fl_vm_state_open(fd, &again), -EINVAL);
    state->layout.regions = 1;
    state->installed_offset += 8;
    cr_expect_eq(fl_vm_state_open(fd, &again), -EINVAL);
    state->installed_offset -= 8;
    memset(state->image, 'x', sizeof(state->image));
    cr_expect_eq(fl_vm_state_open(fd, &again), -EINVAL);
    state->image[1] = '\0';
    cr_assert_eq(fl_vm_state_open(fd, &again), 0);
    fl_vm_state_unmap(again);
    fl_vm_state_unmap(state);
    close(fd);

    int small = memfd_create("small", MFD_CLOEXEC);
    cr_expect_eq(fl_vm_state_open(small, &again), -EINVAL);
    close(small);
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    cr_expect_eq(fl_vm_state_open(ends[0], &again), -EINVAL);
    close(ends[0]);
    close(ends[1]);
}
